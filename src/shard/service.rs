//! What a shard does with incoming connections.

use async_channel::Sender;

use super::connections::Connections;
use super::mailbox::Event;
use super::probe_service::{ProbeService, ProbeSpec};
use super::ring::Completion;
use super::sink_service::{SinkService, SinkSpec};
use super::tls::ServerTls;
use crate::probe::policy::Verdict;
use crate::sink::{Faults, SinkCounts};
use crate::time::Instant;

/// What a shard is to serve.
#[derive(Debug)]
pub enum ServiceSpec {
    /// A sink.
    Sink(Box<SinkSpec>),
    /// Our own port 25.
    Probe(Box<ProbeSpec>),
}

/// What a shard serves.
pub enum Service {
    /// A sink.
    Sink(Box<SinkService>),
    /// Our own port 25.
    Probe(Box<ProbeService>),
}

impl Service {
    /// A service whose connections get file slots from `first_file` on.
    pub fn new(spec: ServiceSpec, first_file: u32, shard: usize, events: Sender<(usize, Event)>) -> Service {
        match spec {
            ServiceSpec::Sink(spec) => Service::Sink(Box::new(SinkService::new(*spec, first_file))),
            ServiceSpec::Probe(spec) => Service::Probe(Box::new(ProbeService::new(*spec, first_file, shard, events))),
        }
    }

    /// What has arrived so far, at a sink.
    pub fn counts(&self) -> Option<SinkCounts> {
        match self {
            Service::Sink(sink) => Some(sink.counts()),
            Service::Probe(_) => None,
        }
    }

    /// Begins to accept.
    pub fn open(&mut self, connections: &mut Connections) {
        match self {
            Service::Sink(sink) => sink.open(connections),
            Service::Probe(probe) => probe.open(connections),
        }
    }

    /// When [`Service::turn`] must be called at the latest.
    pub fn wake_at(&self) -> Instant {
        match self {
            Service::Sink(sink) => sink.wake_at(),
            Service::Probe(probe) => probe.wake_at(),
        }
    }

    /// What the passing of time brings.
    pub fn turn(&mut self, now: Instant, connections: &mut Connections) {
        match self {
            Service::Sink(sink) => sink.turn(now, connections),
            Service::Probe(probe) => probe.turn(now, connections),
        }
    }

    /// A listener has a new connection, or could not have one.
    pub fn accept_completed(&mut self, completion: &Completion, connections: &mut Connections) {
        match self {
            Service::Sink(sink) => sink.accept_completed(completion, connections),
            Service::Probe(probe) => probe.accept_completed(completion, connections),
        }
    }

    /// Bytes came from a client.
    #[inline]
    pub fn received(&mut self, file: u32, arrived: Instant, bytes: &[u8], connections: &mut Connections) {
        match self {
            Service::Sink(sink) => sink.received(file, arrived, bytes, connections),
            Service::Probe(probe) => probe.received(file, arrived, bytes, connections),
        }
    }

    /// A client's TLS handshake has come to its good end.
    pub fn tls_ready(&mut self, file: u32, now: Instant, resumed: bool, connections: &mut Connections) {
        match self {
            Service::Sink(sink) => sink.tls_ready(file, now, resumed, connections),
            Service::Probe(probe) => probe.tls_ready(file, now, resumed, connections),
        }
    }

    /// A client's TLS handshake failed, or its TLS broke.
    pub fn tls_failed(&mut self, file: u32, now: Instant, connections: &mut Connections) {
        match self {
            Service::Sink(sink) => sink.tls_failed(file, now, connections),
            Service::Probe(probe) => probe.tls_failed(file, now, connections),
        }
    }

    /// A deadline has come.
    pub fn expired(&mut self, file: u32, now: Instant, connections: &mut Connections) {
        match self {
            Service::Sink(sink) => sink.expired(file, now, connections),
            Service::Probe(probe) => probe.expired(file, now, connections),
        }
    }

    /// A client has closed its side, or its connection broke.
    pub fn closed(&mut self, file: u32, now: Instant, connections: &mut Connections) {
        match self {
            Service::Sink(sink) => sink.closed(file, now, connections),
            Service::Probe(probe) => probe.closed(file, now, connections),
        }
    }

    /// Connections that begin from now on are secured by this.
    pub fn secure(&mut self, tls: ServerTls) {
        match self {
            Service::Sink(_) => {}
            Service::Probe(probe) => probe.secure(tls),
        }
    }

    /// Other faults take the place of those of a sink.
    pub fn set_faults(&mut self, faults: Faults, connections: &mut Connections) {
        match self {
            Service::Sink(sink) => sink.set_faults(faults, connections),
            Service::Probe(_) => {}
        }
    }

    /// Control has decided over an arrival.
    pub fn answer(&mut self, ticket: u64, verdict: Verdict, now: Instant, connections: &mut Connections) {
        match self {
            Service::Sink(_) => {}
            Service::Probe(probe) => probe.answer(ticket, verdict, now, connections),
        }
    }
}
