//! The service, from its start to its end: shards, store, API, and the loop that follows the jobs.

use std::cell::RefCell;
use std::convert::Infallible;
use std::net::{SocketAddr, TcpListener};
use std::path::PathBuf;
use std::rc::Rc;
use std::time::Duration;

use async_channel::Receiver;
use glommio::{LocalExecutorBuilder, Placement};
use hyper::http::request::Parts;
use serde_json::value::RawValue;
use thiserror::Error;

use super::alert::{Alerts, Names};
use super::api::guard::{Guard, GuardError};
use super::api::http::{self, HttpLimits, Request};
use super::api::routes::Api;
use super::draft::Helpers;
use super::faults::SinkFaults;
use super::jobs::{Jobs, JobsParts};
use super::layout::{self, ServiceCpus};
use super::metrics::Metrics;
use super::probe::driver::{self, Prober, ProberParts};
use super::probe::mail::{ProbeShard, ProbeShardPlan};
use super::reload::{Loaded, Reloading};
use super::signals::Signal;
use super::sink::{self, SinkError, SinkPlan};
use super::store::{Kept, Store, StoreError, StoredJob};
use super::targets::{Resolver, Targets};
use crate::audit::sent::AuditPlan;
use crate::config::Config;
use crate::job::record::JobRecord;
use crate::job::worker::DRAIN;
use crate::probe::header::Key;
use crate::shard::clock::{Clock, wall_now};
use crate::shard::listen::{ListenError, listen};
use crate::shard::mailbox::Event;
use crate::shard::pool::{Pool, PoolError, SHARDS_END_WITHIN, ShardSpec};
use crate::shard::sink_service::Protocol;
use crate::sink::{FaultCounters, Faults};
use crate::time::{Instant, WallTime};

/// How often running jobs are looked after.
const LOOK_EVERY: Duration = Duration::from_millis(200);
/// How long after the drain's time a shard may take to report its end.
const LAST_REPORTS_WITHIN: Duration = Duration::from_secs(2);
/// How long what waits for the store may take to be written at the end.
const STORED_WITHIN: Duration = Duration::from_secs(5);

/// What is to be served, and on what.
pub struct ServePlan {
    /// The configuration.
    pub config: Config,
    /// Where it was read from, to be read again when that is asked for.
    pub config_file: Option<PathBuf>,
    /// Which CPU does what.
    pub cpus: ServiceCpus,
    /// The embedded sink, if there is one.
    pub sink: Option<SinkPlan>,
    /// The prober, if there is one.
    pub probe: Option<ProbePlan>,
    /// This host's name, for EHLO and Message-ID.
    pub host: String,
    /// What an audit needs, where the sink takes mail by SMTP.
    pub audit: Option<AuditPlan>,
}

/// What the prober is made of.
pub struct ProbePlan {
    /// Its shard.
    pub shard: ProbeShardPlan,
    /// What probes are signed with.
    pub key: Key,
}

/// Where the service listens.
pub struct Listening {
    /// The API.
    pub api: Vec<SocketAddr>,
    /// The embedded sink, for SMTP.
    pub sink: Vec<SocketAddr>,
    /// The embedded sink, for HTTP.
    pub http: Vec<SocketAddr>,
    /// The server that takes probes.
    pub probe: Vec<SocketAddr>,
}

/// Why the service did not start, or did not go on.
#[derive(Debug, Error)]
pub enum ServeError {
    /// An address of the API could not be listened on.
    #[error("api.listen: {0}")]
    Listen(#[from] ListenError),
    /// The store is not usable.
    #[error(transparent)]
    Store(#[from] StoreError),
    /// The embedded sink did not start.
    #[error("sink.listen, sink.http_listen: {0}")]
    Sink(#[from] SinkError),
    /// The server that takes probes did not start.
    #[error("smtp.listen: {0}")]
    Probe(SinkError),
    /// The thread that tells PagerDuty did not start.
    #[error("the thread that delivers alerts could not be started: {0}")]
    Alert(std::io::Error),
    /// Nobody could be let in, or everybody.
    #[error("[api] {0}")]
    Guard(#[from] GuardError),
    /// The shards did not start.
    #[error(transparent)]
    Pool(#[from] PoolError),
    /// Control itself did not start.
    #[error("control has no executor: the machine has no room for another io_uring ({0})")]
    Executor(String),
    /// The service has ended as it was told to, but what it knew of its last jobs is lost.
    #[error("what was to be kept at the end could not be stored: {0}")]
    Unstored(StoreError),
    /// A shard failed, or hangs; what was known of the jobs that ran has been stored.
    #[error("{0}; jobs that ran are stored with what was known of them")]
    Shard(String),
}

/// Serves until a signal says otherwise. `ready` is called once everything listens.
pub fn serve(plan: ServePlan, signals: &Receiver<Signal>, ready: impl FnOnce(&Listening)) -> Result<(), ServeError> {
    let placement = plan.cpus.control.map_or(Placement::Unbound, Placement::Fixed);
    // First of all, so that every thread that control starts stays off the shards' CPUs, too.
    let executor = LocalExecutorBuilder::new(placement)
        .io_memory(64 << 10)
        .make()
        .map_err(|error| ServeError::Executor(error.to_string()))?;
    executor.run(run(plan, signals, ready))
}

async fn run(
    mut plan: ServePlan,
    signals: &Receiver<Signal>,
    ready: impl FnOnce(&Listening),
) -> Result<(), ServeError> {
    let listeners = plan.config.api.listen.iter().map(|&address| {
        let (mut sockets, address) = listen(address, 1)?;
        Ok((TcpListener::from(sockets.remove(0)), address))
    });
    let listeners = listeners.collect::<Result<Vec<(TcpListener, SocketAddr)>, ListenError>>()?;
    let (store, mut kept) = Store::open(&plan.config.store.path, plan.config.store.jobs_kept)?;
    let store = Rc::new(store);
    let clock = Clock::start();
    let counters = FaultCounters::default();
    let faults = Faults::new(plan.config.sink.faults.iter().cloned(), counters.clone())
        .expect("the configuration has no more than there may be");
    let served = plan.sink.as_ref().map(SinkPlan::served).unwrap_or_default();
    if let Some(sink) = &mut plan.sink {
        faults.warnings(served).iter().for_each(|warning| tracing::warn!("[[sink.fault]]: {warning}"));
        sink.settings.faults = faults.clone();
        if let Some(http) = &mut sink.http {
            http.faults = faults.clone();
        }
    }
    let embedded = plan.sink.take().map(|sink| sink::prepare(sink, clock)).transpose()?;
    let sink_addresses = |protocol: Protocol| {
        let of_sink = embedded.iter().flat_map(|sink| &sink.addresses).filter(|listen| listen.protocol == protocol);
        of_sink.map(|listen| listen.address).collect::<Vec<SocketAddr>>()
    };
    let (smtp, stub) = (sink_addresses(Protocol::Smtp), sink_addresses(Protocol::Http));
    let generators = plan.cpus.generator.len();
    let ring = layout::generator_ring(plan.config.hammer.limits.connections_max);
    let specs = plan.cpus.generator.iter().map(|&cpu| ShardSpec { cpu: Some(cpu), ring, sink: None });
    let sink_shards = embedded.as_ref().map(|sink| generators..generators + sink.specs.len());
    let pool = Pool::start(specs.chain(embedded.into_iter().flat_map(|sink| sink.specs)).collect(), clock)?;
    let events = pool.events().clone();

    let metrics = Metrics::new();
    metrics.count_faults(counters.clone());
    let known = std::mem::take(&mut kept.jobs);
    let prober = match plan.probe.take() {
        None => None,
        Some(probe) => {
            let targets = Targets::new(&plan.config, smtp.first().copied(), stub.first().copied());
            Some(start_prober(probe, &plan.config, targets, clock, &store, &metrics, &kept)?)
        }
    };
    // Without a prober, what an earlier one has told is resolved, and what it has not is told.
    let alerts = if prober.is_none() && plan.config.pagerduty.is_some() {
        let mut alerts = start_alerts(&plan.config, plan.host.clone(), "", &store, &kept)?;
        alerts.keep_routes(|_| false);
        Some(RefCell::new(alerts))
    } else {
        None
    };
    let listening = Listening {
        api: listeners.iter().map(|(_, address)| *address).collect(),
        sink: smtp,
        http: stub,
        probe: prober.as_ref().map_or_else(Vec::new, |prober| prober.borrow().addresses().to_vec()),
    };
    let guard = Guard::new(plan.config.api.token.clone(), &plan.config.api.hosts, &listening.api)?;
    let jobs = Rc::new(RefCell::new(Jobs::new(JobsParts {
        pool,
        generators,
        host: plan.host,
        audit: plan.audit,
        limits: plan.config.hammer.limits.clone(),
        defaults: plan.config.hammer.defaults.clone(),
        kept: plan.config.store.jobs_kept,
        store: Rc::clone(&store),
        metrics: metrics.clone(),
        known: known.into_iter().filter_map(recorded).collect(),
    })));
    let targets = Targets::new(&plan.config, listening.sink.first().copied(), listening.http.first().copied());
    let api = Rc::new(Api {
        jobs: Rc::clone(&jobs),
        prober: prober.clone(),
        faults: sink_shards.map(|shards| RefCell::new(SinkFaults::new(shards, served, faults, counters))),
        targets: RefCell::new(targets),
        resolver: Resolver::default(),
        helpers: Helpers::default(),
        began: wall_now(),
    });
    let (stop_api, api_stopped) = async_channel::bounded::<Infallible>(1);
    let guard = Rc::new(move |head: &Parts| guard.admit(head));
    let limits = HttpLimits {
        connections_max: plan.config.api.connections_max as usize,
        body_bytes_max: plan.config.api.body_bytes_max as usize,
        // All listeners together; each can hold one body at least.
        bodies_bytes_max: (http::BODIES_BYTES_MAX / listeners.len().max(1))
            .max(plan.config.api.body_bytes_max as usize),
        ..HttpLimits::default()
    };
    let mut servers = Vec::with_capacity(listeners.len());
    for (listener, address) in listeners {
        let (guard, api, stopped) = (Rc::clone(&guard), Rc::clone(&api), api_stopped.clone());
        let answer = Rc::new(async move |request: Request| api.answer(request).await);
        servers.push(glommio::spawn_local(async move {
            let stopped = async {
                let _ = stopped.recv().await;
            };
            if let Err(error) = http::serve(listener, limits, guard, answer, stopped).await {
                tracing::error!(%address, %error, "the API cannot be served");
            }
        }));
    }
    ready(&listening);
    for warning in &plan.config.warnings {
        tracing::warn!("{warning}");
    }

    let followed = Followed { jobs: &jobs, prober: prober.as_ref(), alerts: alerts.as_ref() };
    let mut reloading = Reloading::new(plan.config_file);
    let result = follow(&followed, &events, signals, &clock, &mut reloading, |config| {
        apply(config, &plan.config, &listening, &api);
    })
    .await;
    drop(stop_api);
    for server in servers {
        server.await;
    }
    drop(api);
    drop(events);
    if let Some(prober) = prober {
        Rc::into_inner(prober)
            .expect("the API has ended, and tasks hold on to it only while they run")
            .into_inner()
            .end();
    }
    drop(alerts);
    drop(store);
    let jobs = Rc::into_inner(jobs).expect("the API has ended").into_inner();
    let (ended, stored) = jobs.end(SHARDS_END_WITHIN, STORED_WITHIN);
    stored.map_err(ServeError::Unstored)?;
    result.and(ended.map_err(|left| left.to_string())).map_err(ServeError::Shard)
}

/// Starts what tells PagerDuty.
fn start_alerts(
    config: &Config,
    source: String,
    address: &str,
    store: &Rc<Store>,
    kept: &Kept,
) -> Result<Alerts, ServeError> {
    let names = Names { source, address: address.to_owned() };
    Alerts::new(config.pagerduty.as_ref(), names, Rc::clone(store), &kept.events, &kept.notes)
        .map_err(ServeError::Alert)
}

/// Starts what sends and takes probes.
fn start_prober(
    plan: ProbePlan,
    config: &Config,
    targets: Targets,
    clock: Clock,
    store: &Rc<Store>,
    metrics: &Metrics,
    kept: &Kept,
) -> Result<Rc<RefCell<Prober>>, ServeError> {
    let address = plan.shard.address.clone();
    let alerts = start_alerts(config, plan.shard.hostname.clone(), address.as_str(), store, kept)?;
    let shard = ProbeShard::start(plan.shard, clock).map_err(ServeError::Probe)?;
    let (store, metrics) = (Rc::clone(store), metrics.clone());
    let parts = ProberParts { shard, clock, key: plan.key, address, alerts, store, metrics, kept };
    Ok(Rc::new(RefCell::new(Prober::new(parts, config, targets))))
}

/// A job as the store keeps it, without its result, which stays there.
fn recorded(job: StoredJob) -> Option<JobRecord> {
    Some(JobRecord {
        id: job.id,
        job: RawValue::from_string(job.job).ok()?.into(),
        state: job.state,
        start: WallTime::from_unix_ns(job.start_unix_ns),
        stop: job.stop_unix_ns.map(WallTime::from_unix_ns),
        verdict: job.verdict,
    })
}

/// Takes the targets and limits of a configuration that was read again.
fn apply(config: Config, running: &Config, listening: &Listening, api: &Api) {
    for section in running.needs_restart(&config) {
        tracing::warn!("{section} has changed, which takes effect at the next start");
    }
    for warning in &config.warnings {
        tracing::warn!("{warning}");
    }
    let targets = || Targets::new(&config, listening.sink.first().copied(), listening.http.first().copied());
    api.targets.replace(targets());
    if let Some(prober) = &api.prober {
        prober.borrow_mut().reload(&config, targets());
    } else if !config.probe.routes.is_empty() {
        tracing::warn!("[[probe.route]] has been added, which takes effect at the next start");
    }
    if let Some(faults) = &api.faults {
        let mut faults = faults.borrow_mut();
        match faults.reload(config.sink.faults, api.jobs.borrow().pool()) {
            Err(error) => tracing::error!("the faults of the sink are as they were: {error}"),
            Ok(false) => {}
            Ok(true) => {
                faults.list().warnings.iter().for_each(|warning| tracing::warn!("[[sink.fault]]: {warning}"));
            }
        }
    }
    api.jobs.borrow_mut().set_limits(config.hammer.limits, config.hammer.defaults);
    tracing::info!("targets, routes, limits, defaults and the sink's faults were reloaded");
}

/// What control follows.
struct Followed<'a> {
    jobs: &'a RefCell<Jobs>,
    prober: Option<&'a Rc<RefCell<Prober>>>,
    /// Those that an earlier service with a prober left.
    alerts: Option<&'a RefCell<Alerts>>,
}

/// What control waits for.
enum Woken {
    Event(usize, Event),
    ProbeEvent(Event),
    ProbeShardGone,
    AllShardsGone,
    Signal(Signal),
    Loaded(Box<Loaded>),
    TimeToLook,
}

/// Follows the jobs until the service is told to end and the last of them has ended, or a shard fails.
async fn follow(
    followed: &Followed<'_>,
    events: &Receiver<(usize, Event)>,
    signals: &Receiver<Signal>,
    clock: &Clock,
    reloading: &mut Reloading,
    mut apply: impl FnMut(Config),
) -> Result<(), String> {
    let &Followed { jobs, prober, alerts } = followed;
    let probe_events = prober.map(|prober| prober.borrow().events());
    let loaded = reloading.loaded();
    let mut result = Ok(());
    let mut ending: Option<Ending> = None;
    let mut next_look = clock.now() + LOOK_EVERY;
    loop {
        let woken = wake(events, probe_events.as_ref(), signals, &loaded, clock, next_look).await;
        let mut jobs = jobs.borrow_mut();
        let is_over = match woken {
            Woken::Event(shard, event) => {
                let taken = jobs.take(shard, event);
                let failed = taken.is_err();
                result = result.and(taken);
                failed
            }
            Woken::ProbeEvent(event) => {
                let taken = prober.map_or(Ok(()), |prober| driver::take(prober, event));
                let failed = taken.is_err();
                result = result.and(taken.map_err(|reason| format!("the probes' shard failed: {reason}")));
                failed
            }
            Woken::ProbeShardGone => {
                jobs.close();
                return result.and(Err("the probes' shard has ended".into()));
            }
            Woken::AllShardsGone => {
                jobs.close();
                return result.and(Err("all shards have ended".into()));
            }
            Woken::Signal(Signal::Stop) => true,
            Woken::Signal(Signal::Reload) => {
                reloading.ask();
                continue;
            }
            Woken::Loaded(loaded) => {
                drop(jobs);
                reloading.take(*loaded).map(&mut apply);
                continue;
            }
            Woken::TimeToLook => {
                next_look = clock.now() + LOOK_EVERY;
                let looked = jobs.look();
                let probed = prober.map_or(Ok(()), driver::look);
                let looked = looked.and(probed.map_err(|reason| format!("the probes' shard failed: {reason}")));
                if let Some(alerts) = alerts {
                    alerts.borrow_mut().look(clock.now());
                }
                let failed = looked.is_err();
                result = result.and(looked);
                failed
            }
        };
        if is_over && ending.is_none() {
            ending = Some(Ending { begun: clock.now() });
            tracing::info!(jobs = jobs.running(), "ending: no new jobs, and those that run have 10 s to drain");
            jobs.close();
            if let Some(prober) = prober {
                prober.borrow_mut().close();
            }
        }
        // Of a probe that is being sent it should be known whether it was.
        let is_posting = result.is_ok() && prober.is_some_and(|prober| prober.borrow().posting() > 0);
        if ending.is_some_and(|ending| ending.is_over(clock.now(), jobs.running(), is_posting)) {
            return result;
        }
    }
}

/// The end of the service, which waits for what is under way.
#[derive(Clone, Copy)]
struct Ending {
    begun: Instant,
}

impl Ending {
    /// Whether nothing is waited for any longer. Of jobs the shards have yet to say how the drain ended; a probe whose target
    /// hangs has nothing more to say.
    fn is_over(self, now: Instant, jobs: usize, is_posting: bool) -> bool {
        let drained = self.begun + DRAIN;
        jobs == 0 && (!is_posting || now >= drained) || now >= drained + LAST_REPORTS_WITHIN
    }
}

async fn wake(
    events: &Receiver<(usize, Event)>,
    probe_events: Option<&Receiver<(usize, Event)>>,
    signals: &Receiver<Signal>,
    loaded: &Receiver<Loaded>,
    clock: &Clock,
    next_look: Instant,
) -> Woken {
    use futures_lite::future::{or, race};
    // However much there is to hear from shards, the service can be ended, and looks after what runs.
    if let Ok(signal) = signals.try_recv() {
        return Woken::Signal(signal);
    }
    if clock.now() >= next_look {
        return Woken::TimeToLook;
    }
    let event = async {
        match events.recv().await {
            Ok((shard, event)) => Woken::Event(shard, event),
            Err(_) => Woken::AllShardsGone,
        }
    };
    let probe_event = async {
        match probe_events {
            None => std::future::pending().await,
            Some(events) => match events.recv().await {
                Ok((_, event)) => Woken::ProbeEvent(event),
                Err(_) => Woken::ProbeShardGone,
            },
        }
    };
    let signal = async {
        match signals.recv().await {
            Ok(signal) => Woken::Signal(signal),
            Err(_) => std::future::pending().await,
        }
    };
    let look = async {
        glommio::timer::sleep(next_look - clock.now()).await;
        Woken::TimeToLook
    };
    let loaded = async {
        match loaded.recv().await {
            Ok(loaded) => Woken::Loaded(Box::new(loaded)),
            Err(_) => std::future::pending().await,
        }
    };
    or(race(probe_event, event), or(signal, or(loaded, look))).await
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_end_waits_for_the_drain_and_for_the_last_word_on_jobs_alone() {
        let begun = Instant::from_ns(7);
        let (ending, drained) = (Ending { begun }, begun + DRAIN);
        let just_before = begun + (DRAIN - Duration::from_nanos(1));
        assert!(ending.is_over(begun, 0, false), "nothing is under way");
        assert!(!ending.is_over(just_before, 1, false) && !ending.is_over(just_before, 0, true));
        assert!(ending.is_over(drained, 0, true), "a target that hangs holds up the end by the drain and no more");
        assert!(!ending.is_over(drained, 1, true), "what the drain has cut is told by the shards a moment later");
        assert!(ending.is_over(drained + LAST_REPORTS_WITHIN, 1, true));
    }
}
