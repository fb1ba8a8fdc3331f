//! What a shard's listeners for HTTP serve: the stub of a mail provider's API. Connections, and what arrives on them, come
//! by way of [`super::sink_service`].

use std::sync::Arc;

use super::tls::{FaultyTls, ServerTls};
use crate::sink::{Faults, HttpCounts, Stub, StubSettings};
use crate::time::Instant;
use crate::wire::http::server::{Policy, ServerConfig, Session};

/// What a shard needs to serve HTTP.
#[derive(Clone, Debug)]
pub struct HttpSpec {
    /// The TLS of its connections: needed where a listener begins with it.
    pub tls: Option<ServerTls>,
    /// What goes wrong with it, where there is TLS.
    pub faulty_tls: Option<FaultyTls>,
    /// What all sessions have in common.
    pub config: Arc<ServerConfig>,
    /// What is taken and what goes wrong.
    pub settings: StubSettings,
}

pub(super) type HttpSession = Session<<Stub as Policy>::Request>;

/// What the HTTP sessions of one shard share.
pub(super) struct HttpService {
    pub(super) tls: Option<ServerTls>,
    pub(super) faulty_tls: Option<FaultyTls>,
    pub(super) config: Arc<ServerConfig>,
    pub(super) stub: Stub,
}

impl HttpService {
    pub(super) fn new(spec: HttpSpec, start: Instant, seed: u64) -> HttpService {
        HttpService {
            tls: spec.tls,
            faulty_tls: spec.faulty_tls,
            config: spec.config,
            stub: Stub::new(spec.settings, start, seed),
        }
    }

    pub(super) fn set_faults(&mut self, faults: Faults) {
        self.stub.set_faults(faults);
    }

    pub(super) fn counts(&self) -> HttpCounts {
        self.stub.counts().clone()
    }
}
