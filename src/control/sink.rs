//! A sink of its own, until it is told to end.

use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use async_channel::Receiver;
use thiserror::Error;

use super::layout;
use crate::shard::clock::{Clock, wall_now};
use crate::shard::http_service::HttpSpec;
use crate::shard::listen::{ListenError, listen};
use crate::shard::mailbox::Event;
use crate::shard::pool::{Pool, PoolError, SHARDS_END_WITHIN, ShardSpec};
use crate::shard::service::ServiceSpec;
use crate::shard::sink_service::{ListenerSpec, Protocol, SaveFolder, SinkSpec};
use crate::shard::tls::{FaultyTls, ServerTls};
use crate::sink::fault::Served;
use crate::sink::mailgun::REQUEST_BYTES_MAX;
use crate::sink::{SinkCounts, SinkSettings, StubSettings};
use crate::wire::http::server::ServerConfig as HttpConfig;
use crate::wire::smtp::server::ServerConfig;

/// One address that a sink listens on.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Listen {
    /// Port 0 takes any free one.
    pub address: SocketAddr,
    /// Connections begin with TLS (RFC 8314 §3).
    pub implicit_tls: bool,
    /// What is spoken there.
    pub protocol: Protocol,
}

impl Listen {
    /// HTTP in the clear.
    pub fn http(address: SocketAddr) -> Listen {
        Listen { address, implicit_tls: false, protocol: Protocol::Http }
    }
}

impl From<SocketAddr> for Listen {
    /// SMTP, in the clear, at least to begin with.
    fn from(address: SocketAddr) -> Listen {
        Listen { address, implicit_tls: false, protocol: Protocol::Smtp }
    }
}

impl std::fmt::Display for Listen {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let scheme = match (self.protocol, self.implicit_tls) {
            (Protocol::Smtp, false) => "",
            (Protocol::Smtp, true) => "smtps://",
            (Protocol::Http, false) => "http://",
            (Protocol::Http, true) => "https://",
        };
        write!(f, "{scheme}{}", self.address)
    }
}

/// What a sink is to do.
#[derive(Debug)]
pub struct SinkPlan {
    /// Where it listens.
    pub listen: Vec<Listen>,
    /// Its TLS: needed where an address begins with it, or `server` offers STARTTLS.
    pub tls: Option<ServerTls>,
    /// What faults make of its TLS; needed where it has some.
    pub faulty_tls: Option<FaultyTls>,
    /// Greeting, limits, capabilities.
    pub server: ServerConfig,
    /// What is taken and what goes wrong.
    pub settings: SinkSettings,
    /// What the addresses for HTTP serve; needed where there is one.
    pub http: Option<StubSettings>,
    /// Where each message is written, if anywhere.
    pub save: Option<SaveFolder>,
    /// One shard for each.
    pub cpus: Vec<usize>,
    /// The process's limit of descriptors.
    pub descriptors: u64,
    /// Repeats the rolls of the faults.
    pub seed: u64,
}

impl SinkPlan {
    /// What it serves of what rules of faults may concern.
    pub fn served(&self) -> Served {
        let speaks = |protocol| self.listen.iter().any(|listen| listen.protocol == protocol);
        let smtp = speaks(Protocol::Smtp);
        Served {
            smtp,
            http: speaks(Protocol::Http),
            implicit_tls: self.listen.iter().any(|listen| listen.implicit_tls),
            starttls: smtp && self.server.offers_starttls(),
            logins: smtp && self.server.requires_auth(),
        }
    }
}

/// Why a sink did not start, or did not go on.
#[derive(Debug, Error)]
pub enum SinkError {
    /// An address could not be listened on.
    #[error(transparent)]
    Listen(#[from] ListenError),
    /// A shard did not start.
    #[error(transparent)]
    Pool(#[from] PoolError),
    /// A shard ended before it was told to.
    #[error("a shard failed: {0}")]
    Shard(String),
}

/// The parts of a sink that its shards are made of, and where it listens.
pub(super) struct SinkShards {
    pub(super) specs: Vec<ShardSpec>,
    pub(super) addresses: Vec<Listen>,
}

/// Binds all addresses and prepares a shard for each CPU.
pub(super) fn prepare(plan: SinkPlan, clock: Clock) -> Result<SinkShards, SinkError> {
    let mut of_shards: Vec<Vec<ListenerSpec>> = plan.cpus.iter().map(|_| Vec::new()).collect();
    let mut addresses = Vec::with_capacity(plan.listen.len());
    for Listen { address, implicit_tls, protocol } in plan.listen {
        let (sockets, address) = listen(address, plan.cpus.len())?;
        addresses.push(Listen { address, implicit_tls, protocol });
        let listeners = sockets.into_iter().map(|socket| ListenerSpec { socket, implicit_tls, protocol });
        of_shards.iter_mut().zip(listeners).for_each(|(of_shard, listener)| of_shard.push(listener));
    }
    let config = Arc::new(plan.server);
    let save = plan.save.map(Arc::new);
    let http = plan.http.map(|settings| HttpSpec {
        tls: plan.tls.as_ref().map(ServerTls::for_http),
        faulty_tls: plan.faulty_tls.as_ref().map(FaultyTls::for_http),
        config: Arc::new(HttpConfig::new(REQUEST_BYTES_MAX)),
        settings,
    });
    let http_of = |shard: usize| {
        let http = http.clone()?;
        let id_nonce = http.settings.id_nonce.wrapping_add(shard as u64);
        Some(HttpSpec { settings: StubSettings { id_nonce, ..http.settings }, ..http })
    };
    let start = clock.now();
    if let Some(ledger) = &plan.settings.audit {
        ledger.begin((start, wall_now()));
    }
    let specs = plan.cpus.iter().zip(of_shards).enumerate().map(|(shard, (&cpu, listeners))| ShardSpec {
        cpu: Some(cpu),
        ring: layout::server_ring(plan.descriptors),
        sink: Some(ServiceSpec::Sink(Box::new(SinkSpec {
            listeners,
            config: Arc::clone(&config),
            tls: plan.tls.clone(),
            faulty_tls: plan.faulty_tls.clone(),
            http: http_of(shard),
            settings: plan.settings.clone(),
            start,
            seed: plan.seed.wrapping_add(shard as u64),
            save: save.clone(),
        }))),
    });
    Ok(SinkShards { specs: specs.collect(), addresses })
}

/// Serves until a stop is requested. `listening` is called once all addresses are listened on.
pub fn serve(
    plan: SinkPlan,
    stop: &Receiver<()>,
    listening: impl FnOnce(&[Listen]),
) -> Result<(SinkCounts, Duration), SinkError> {
    let clock = Clock::start();
    let SinkShards { specs, addresses } = prepare(plan, clock)?;
    let pool = Pool::start(specs, clock)?;
    listening(&addresses);
    let started = clock.now();
    let failure = futures_lite::future::block_on(futures_lite::future::or(
        async {
            let _ = stop.recv().await;
            None
        },
        async { Some(pool.events().recv().await) },
    ));
    let elapsed = clock.now() - started;
    let counts = end(pool);
    if let Some(Ok((_, Event::Failed(reason)))) = failure {
        return Err(SinkError::Shard(reason));
    }
    Ok((counts?, elapsed))
}

/// Ends all shards and takes their last words: what their sinks have taken.
pub(super) fn end(mut pool: Pool) -> Result<SinkCounts, SinkError> {
    let mut counts = SinkCounts::default();
    let mut failure = None;
    let ended = pool.end(SHARDS_END_WITHIN, |_, event| match event {
        Event::Sunk(shard) => counts += &shard,
        Event::Failed(reason) => failure = Some(reason),
        Event::Ready | Event::Ended | Event::Measured { .. } | Event::Arrived(_) => {}
    });
    match failure.or(ended.err().map(|left| left.to_string())) {
        None => Ok(counts),
        Some(reason) => Err(SinkError::Shard(reason)),
    }
}
