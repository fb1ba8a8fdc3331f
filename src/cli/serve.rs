//! `timecop serve`.

use std::io::Write as _;
use std::sync::Arc;

use super::args::ServeArguments;
use super::output::complain;
use super::{NOT_ALL_ACCEPTED, OK, StartError, check_machine, resources};
use crate::audit::ledger::{LATE_AFTER, Ledger};
use crate::audit::sent::AuditPlan;
use crate::audit::stamp::{self, Signer};
use crate::config::{Config, Log, LogFormat};
use crate::control::layout;
use crate::control::probe::certificate;
use crate::control::probe::mail::{ProbeShardPlan, ServerLimits};
use crate::control::serve::{self, Listening, ProbePlan, ServeError, ServePlan};
use crate::control::signals;
use crate::control::sink::{Listen, SinkPlan};
use crate::message::Mailbox;
use crate::shard::clock::wall_now;
use crate::shard::machine::{self, Needs};
use crate::shard::tls::{FaultyTls, ServerTls};
use crate::sink::{SinkSettings, StubSettings};
use crate::wire::smtp::server::ServerConfig;

pub(super) fn run(arguments: &ServeArguments) -> Result<u8, StartError> {
    let config = match &arguments.config {
        Some(path) => Config::load(path).map_err(StartError::new)?,
        None => Config::default(),
    };
    log(&config.log)?;
    let plan = plan(config, arguments)?;
    check_machine(&needs(&plan))?;
    let signals = signals::service_requests().map_err(StartError::new)?;
    match serve::serve(plan, &signals, say) {
        Ok(()) => Ok(OK),
        Err(error @ (ServeError::Shard(_) | ServeError::Unstored(_))) => {
            complain(format_args!("error: {error}"));
            Ok(NOT_ALL_ACCEPTED)
        }
        Err(error) => Err(StartError::new(error)),
    }
}

fn plan(config: Config, arguments: &ServeArguments) -> Result<ServePlan, StartError> {
    let may = resources::cpus("cpus in [hammer]", config.hammer.cpus.as_deref())?;
    let mut cpus = layout::service(&may);
    // By default no more shards than the machine has locked memory for; control's own executor needs some, too.
    let most = (machine::shards_max() as usize).saturating_sub(1).max(2);
    cpus.generator.truncate(most.div_ceil(2));
    cpus.server.truncate(most / 2);
    cpus.generator = resources::shards("shards in [hammer]", config.hammer.shards, cpus.generator, &may)?;
    let host = resources::host_name();
    let name = config.sink.hostname.as_deref().unwrap_or(&host);
    let tls = ServerTls::self_signed(name).map_err(StartError::new)?;
    let faulty_tls = FaultyTls::new(name).map_err(StartError::new)?;
    let smtp = config.sink.listen.iter().copied().map(Listen::from);
    let listen: Vec<Listen> = smtp.chain(config.sink.http_listen.iter().copied().map(Listen::http)).collect();
    // Known to this process alone: nobody else has to read its stamps.
    let audit = (!config.sink.listen.is_empty()).then(|| {
        let signer = Signer::new(&stamp::Key::new(rand::random()));
        let ledger = Ledger::new(rand::random(), signer.clone(), LATE_AFTER, false);
        AuditPlan { signer, ledger: Some(Arc::new(ledger)) }
    });
    let ledger = audit.as_ref().and_then(|audit| audit.ledger.clone());
    let sink = (!listen.is_empty()).then(|| SinkPlan {
        listen,
        tls: Some(tls),
        faulty_tls: Some(faulty_tls),
        server: ServerConfig::new(name, config.sink.max_size, true).offering_starttls(),
        settings: SinkSettings { audit: ledger, ..SinkSettings::default() },
        http: Some(StubSettings { wall_start: wall_now(), id_nonce: rand::random(), ..StubSettings::default() }),
        save: None,
        cpus: cpus.server.clone(),
        descriptors: resources::descriptors(),
        seed: 0,
    });
    let taken = [&cpus.generator[..], if sink.is_some() { &cpus.server[..] } else { &[] }].concat();
    let left = may.iter().copied().find(|cpu| !taken.contains(cpu) && cpus.control != Some(*cpu));
    let probe = probe(&config, &host, left)?;
    Ok(ServePlan { config, config_file: arguments.config.clone(), cpus, sink, probe, host, audit })
}

/// The prober, where the configuration has an address for it; its key is made at the first start. It has a CPU of its own
/// where one is left.
fn probe(config: &Config, host: &str, cpu: Option<usize>) -> Result<Option<ProbePlan>, StartError> {
    let Some(address) = &config.probe.address else { return Ok(None) };
    let smtp = &config.smtp;
    let hostname = smtp.hostname.clone().unwrap_or_else(|| host.to_owned());
    let tls = certificate::of_server(smtp, &hostname).map_err(StartError::new)?;
    let limits = ServerLimits {
        connections_max: smtp.connections_max,
        connections_per_client_max: smtp.client_connections_max,
        message_bytes_max: smtp.max_size,
        ..ServerLimits::default()
    };
    let shard = ProbeShardPlan {
        listen: smtp.listen.clone(),
        hostname,
        tls: Some(tls),
        address: Mailbox::parse(address).map_err(StartError::new)?,
        limits,
        cpu,
    };
    let key = crate::config::probe_key(&config.probe.secret_file)
        .map_err(|problem| StartError::new(format!("secret_file in [probe]: {problem}")))?;
    Ok(Some(ProbePlan { shard, key }))
}

/// What the machine must have: all connections that the configuration allows at once, on one shard at worst.
fn needs(plan: &ServePlan) -> Needs {
    let connections = plan.config.hammer.limits.connections_max;
    let servers = if plan.sink.is_some() { plan.cpus.server.len() } else { 0 };
    Needs {
        shards: (plan.cpus.generator.len() + servers + usize::from(plan.probe.is_some())) as u32,
        files_per_shard: connections,
        same_target_connections: connections,
        accepted_connections: if servers > 0 { connections } else { 0 },
        is_loopback: plan.sink.is_some(),
    }
}

fn log(log: &Log) -> Result<(), StartError> {
    let subscriber = tracing_subscriber::fmt()
        .with_max_level(log.level)
        .with_target(false)
        .with_ansi(console::user_attended_stderr())
        .with_writer(std::io::stderr);
    match log.format {
        LogFormat::Text => subscriber.try_init(),
        LogFormat::Json => subscriber.json().flatten_event(true).try_init(),
    }
    .map_err(StartError::new)
}

/// Says where it listens, on standard output, as `timecop sink` does.
fn say(listening: &Listening) {
    let mut out = std::io::stdout().lock();
    for address in &listening.api {
        let _ = writeln!(out, "listening on http://{address} (the API)");
    }
    for address in &listening.sink {
        let _ = writeln!(out, "listening on smtp://{address} (a sink that keeps nothing; the default target)");
    }
    for address in &listening.http {
        let _ = writeln!(
            out,
            "listening on http://{address} (a stub of Mailgun's API that keeps nothing; the default target of http)"
        );
    }
    for address in &listening.probe {
        let _ = writeln!(out, "listening on smtp://{address} (for probes, and nothing else)");
    }
    let _ = out.flush();
}
