//! `timecop hammer`.

use std::env::VarError;
use std::net::{IpAddr, Ipv4Addr, SocketAddr, UdpSocket};
use std::path::{Path, PathBuf};

use super::args::{HammerArguments, LoadArguments, PipeliningArgument, Stages, TlsArguments};
use super::output::{JsonOutput, complain};
use super::{
    NOT_ALL_ACCEPTED, OK, StartError, audit, certificates, check_machine, content, http, private_key, progress, report,
    resources, target, with_option,
};
use crate::audit::file::AuditFile;
use crate::config::{self, Credentials};
use crate::control::hammer::{self, HammerError, HammerPlan};
use crate::control::layout;
use crate::control::signals;
use crate::control::sink::{Listen, SinkPlan};
use crate::job::spec::http::JobType;
use crate::job::spec::{CONNECTIONS_OPEN_LOOP, ConnectionType, JobSpec, RawSpec, Target};
use crate::load::stages::Stage;
use crate::measure::audit::AuditReport;
use crate::measure::report::Report;
use crate::measure::verdict::Severity;
use crate::message::MESSAGE_BYTES_MAX;
use crate::shard::clock::wall_now;
use crate::shard::machine::{self, Needs};
use crate::shard::sink_service::Protocol;
use crate::shard::tls::{ClientIdentity, ClientTls, ClientTlsFiles};
use crate::sink::StubSettings;
use crate::wire::smtp::server::ServerConfig;

/// The user of Mailgun's API, whose password is a key.
const API_USER: &str = "api";
/// Where a password may stand instead of in a file.
const PASSWORD_VARIABLE: &str = "TIMECOP_PASSWORD";

/// How long a run lasts that names neither a time nor a number of messages.
const DURATION: std::time::Duration = std::time::Duration::from_secs(10);

pub(super) fn run(arguments: HammerArguments) -> Result<u8, StartError> {
    let quiet = arguments.quiet;
    let json = arguments.json.as_deref().map(JsonOutput::open).transpose()?;
    let thresholds = arguments.fail_if.conditions.clone();
    let audit_report = arguments.audit.report()?;
    let plan = plan(arguments)?;
    check_machine(&needs(&plan))?;
    let stop = signals::stop_requests().map_err(StartError::new)?;
    let bar = progress::Bar::new(&plan.spec, quiet);
    let report = hammer::run(plan, &stop, |now| bar.show(now)).map_err(|error| match error {
        HammerError::Spec(error) => StartError::new(with_option(&error)),
        error => StartError::new(error),
    });
    bar.finish();
    let (mut report, sent) = report?;
    report.check(&thresholds);
    let mut all_is_well = report.messages.accepted == report.messages.asked
        && report.aborted.is_none()
        && !report.is_invalid()
        && !report.audit.as_ref().is_some_and(AuditReport::is_faulty)
        && report.thresholds.iter().all(|threshold| threshold.met);
    let standard_output_is_json = json.as_ref().is_some_and(JsonOutput::is_standard_output);
    if let (Some(file), Some(sent)) = (audit_report, sent) {
        all_is_well &= written(file.write(&AuditFile::of_job(&sent)));
    }
    // The result for machines goes first: nothing that happens to the other one may cost it.
    if let Some(json) = json {
        all_is_well &= written(json.write(&report));
    }
    if !quiet && !standard_output_is_json {
        all_is_well &= written(report::print(&report).map(|()| true));
    }
    if let Some(reason) = &report.aborted {
        complain(format_args!("error: the run was given up: {reason}"));
    }
    if quiet || standard_output_is_json {
        complain_of_figures(&report);
    }
    Ok(if all_is_well { OK } else { NOT_ALL_ACCEPTED })
}

/// Says what makes the run fail, where no report shows it.
fn complain_of_figures(report: &Report) {
    if let Some(reason) = commonest_reason(report) {
        let not_accepted = report.messages.asked - report.messages.accepted;
        complain(format_args!("error: {not_accepted} messages were not accepted; most of all for this: {reason}"));
    }
    if let Some(audit) = report.audit.as_ref().filter(|audit| audit.is_faulty()) {
        complain(format_args!("error: {}", audit::fault(audit)));
    }
    let verdict = report.verdict.iter().filter(|_| report.is_invalid());
    for reason in verdict.flat_map(|verdict| &verdict.reasons).filter(|reason| reason.severity == Severity::Invalid) {
        complain(format_args!("error: the run is invalid: {}", reason.text));
    }
    for missed in report.thresholds.iter().filter(|threshold| !threshold.met) {
        complain(format_args!("error: the run failed: {}, it was {}", missed.asked, report::actual(missed)));
    }
}

/// The error or refusal that was met most often, if any was.
fn commonest_reason(report: &Report) -> Option<String> {
    let refusals = report.replies.iter().rev().filter(|reply| reply.code >= 400);
    let refusals = refusals.map(|reply| (reply.count, format!("{} {} {}", reply.phase, reply.code, reply.example)));
    let errors = report.errors.iter().rev().map(|error| (error.count, format!("{} {}", error.phase, error.example)));
    // Of those that are as common an error, which says what to do, and of the earliest phase, which brought the others about.
    let (_, reason) = refusals.chain(errors).max_by_key(|(count, _)| *count)?;
    (report.messages.accepted < report.messages.asked).then_some(reason)
}

/// Whether a result could be written. A reader who has seen enough is no failure.
pub(super) fn written(result: std::io::Result<bool>) -> bool {
    match result {
        Ok(written) => written,
        Err(error) if error.kind() != std::io::ErrorKind::BrokenPipe => {
            complain(format_args!("error: cannot write the result to standard output: {error}"));
            false
        }
        _ => true,
    }
}

/// What the machine must have for this run.
fn needs(plan: &HammerPlan) -> Needs {
    let generators = plan.cpus.len().min(plan.spec.connections as usize) as u32;
    let servers = plan.embedded.as_ref().map_or(0, |sink| sink.cpus.len()) as u32;
    let connections = plan.spec.connections;
    Needs {
        shards: generators + servers,
        files_per_shard: if servers > 0 { connections } else { connections.div_ceil(generators) },
        same_target_connections: connections.div_ceil(plan.spec.source_addresses.len().max(1) as u32),
        accepted_connections: if servers > 0 { connections } else { 0 },
        is_loopback: plan.spec.target.address.ip().is_loopback(),
    }
}

/// From what was written to what is to be done.
fn plan(arguments: HammerArguments) -> Result<HammerPlan, StartError> {
    let may = resources::cpus("--cpus", arguments.generator.cpus.as_ref().map(|cpus| cpus.0.as_slice()))?;
    let seed = rand::random::<u64>();
    // A fresh seed is kept short enough for a person to type, and for JSON's numbers to hold.
    let fresh_seed = seed >> 33;
    let order = arguments.load.seed.unwrap_or(fresh_seed);
    let kind = http::job_type(arguments.target.as_deref(), &arguments.http)?;
    let target = arguments.target.as_deref().map(|target| target::resolve(target, order)).transpose()?;
    let sides = layout::halves(&may);
    let (usual, embedded) = match &target {
        None => {
            let most = (machine::shards_max() as usize).max(1);
            let servers = sides.server.len().min((most / 2).max(1));
            let generators = sides.generator.len().min(most.div_ceil(2));
            (sides.generator[..generators].to_vec(), Some(embedded_sink(kind, &sides.server[..servers])))
        }
        Some(target) => (generator_cpus(target, arguments.generator.cpus.is_some(), &may), None),
    };
    let audit = audit::of_hammer(&arguments.audit, target.is_none())?;
    let embedded = embedded.map(|mut sink: SinkPlan| {
        sink.settings.audit = audit.as_ref().and_then(|audit| audit.ledger.clone());
        sink
    });
    let cpus = resources::shards("--shards", arguments.generator.shards, usual, &may)?;
    let is_embedded = target.is_none();
    let target = target.unwrap_or_else(|| Target {
        name: "embedded sink".into(),
        host: Ipv4Addr::LOCALHOST.to_string(),
        address: loopback(0),
        connection: ConnectionType::Plain,
    });
    let tls_files = tls_files(&arguments.tls)?;
    let auth = credentials(kind, arguments.user, arguments.password_file.as_deref())?;
    arguments.source_address.iter().try_for_each(|&source| check_source(source))?;
    if let Some(name) = &arguments.congestion {
        machine::congestion(Some(name)).map_err(|problem| StartError::new(format!("--congestion: {problem}")))?;
    }
    let raw = RawSpec {
        congestion: arguments.congestion,
        source_addresses: arguments.source_address,
        skip_verify: arguments.tls.skip_verify.then_some(true),
        resumption: arguments.tls.no_resumption.then_some(false),
        auth,
        audit: audit.is_some().then_some(true),
        ..raw_spec(arguments.load, is_embedded)?
    };
    let raw = http::complete(raw, arguments.target.as_deref(), arguments.http)?;
    let spec = JobSpec::new(raw, target, fresh_seed).map_err(|error| StartError::new(with_option(&error)))?;
    let tls = ClientTls::of_job(&spec, &tls_files).map_err(|error| StartError::new(with_option(&error)))?;
    Ok(HammerPlan { spec, cpus, tls, embedded, host: resources::host_name(), run_id: rand::random(), audit })
}

/// Whom to log in as. A password is no argument: everybody on the machine may read those.
fn credentials(kind: JobType, user: Option<String>, file: Option<&Path>) -> Result<Option<Credentials>, StartError> {
    // What stands in the environment may be meant for another server: it is used where a user is named.
    let user = match user {
        None if matches!(kind, JobType::Http | JobType::HttpMime) && file.is_some() => API_USER.to_owned(),
        None if file.is_some() => return Err(StartError::new("--password-file: expected --user beside it, got none")),
        None => return Ok(None),
        Some(user) => user,
    };
    let password = match file {
        Some(path) => {
            let read =
                config::password(path).map_err(|problem| StartError::new(format!("--password-file: {problem}")))?;
            if read.is_open {
                let path = path.display();
                complain(format_args!("warning: --password-file: everybody on this machine may read {path}"));
            }
            read.secret
        }
        None => match std::env::var(PASSWORD_VARIABLE) {
            Ok(password) => password.into(),
            Err(VarError::NotPresent) => {
                let wanted = format!("--user: expected --password-file, or the password in {PASSWORD_VARIABLE}");
                return Err(StartError::new(format!("{wanted}, got neither")));
            }
            Err(VarError::NotUnicode(_)) => {
                return Err(StartError::new(format!("{PASSWORD_VARIABLE}: expected UTF-8, got other octets")));
            }
        },
    };
    let credentials = Credentials::new(user, password);
    credentials.map(Some).map_err(|error| StartError::new(format!("--user, or its password: {error}")))
}

/// Whether this machine has the address: a shard would find out only when the run has begun.
fn check_source(source: IpAddr) -> Result<(), StartError> {
    UdpSocket::bind((source, 0)).map(drop).map_err(|error| {
        StartError::new(format!("--source-address: expected an address of this machine, got {source}: {error}"))
    })
}

/// The CPUs that generate load for a target: all that are `listed`, half of them towards this machine, else all but one;
/// unless they are listed, no more than the machine has locked memory for.
pub(super) fn generator_cpus(target: &Target, listed: bool, may: &[usize]) -> Vec<usize> {
    let usual = match target.address.ip().is_loopback() {
        _ if listed => return may.to_vec(),
        true => layout::halves(may).generator,
        false => may[..(may.len() - 1).max(1)].to_vec(),
    };
    usual[..usual.len().min((machine::shards_max() as usize).max(1))].to_vec()
}

pub(super) fn raw_spec(mut load: LoadArguments, is_embedded: bool) -> Result<RawSpec, StartError> {
    let ramps = load.stages.as_ref().is_some_and(|Stages(list)| list.iter().any(Stage::is_of_connections));
    let default_connections = (is_embedded && !ramps).then_some(CONNECTIONS_OPEN_LOOP);
    let content = content::raw_spec(&mut load)?;
    Ok(RawSpec {
        messages: load.messages,
        duration: load.duration.or_else(|| (load.messages.is_none() && load.stages.is_none()).then_some(DURATION)),
        connections: load.connections.or(default_connections),
        rate: load.rate,
        stages: load.stages.map(|Stages(stages)| stages),
        arrival: load.arrival.map(Into::into),
        from: load.from,
        recipients_per_message: load.recipients_per_message,
        messages_per_connection: load.messages_per_connection,
        pipelining: Some(load.pipelining == PipeliningArgument::Auto),
        timeout: load.timeout,
        warmup: load.warmup,
        abort_on: load.abort_on,
        seed: load.seed,
        ..content
    })
}

/// What the files of the options say of TLS.
pub(super) fn tls_files(arguments: &TlsArguments) -> Result<ClientTlsFiles, StartError> {
    let chain = |option, path: &Option<PathBuf>| path.as_deref().map(|path| certificates(option, path)).transpose();
    let certificate = chain("--client-cert", &arguments.client_cert)?;
    let key = arguments.client_key.as_deref().map(|path| private_key("--client-key", path)).transpose()?;
    let identity = certificate.zip(key).map(|(certificates_pem, key_pem)| ClientIdentity { certificates_pem, key_pem });
    Ok(ClientTlsFiles { ca_pem: chain("--ca-file", &arguments.ca_file)?, identity })
}

/// A sink for messages that are sent by this.
fn embedded_sink(kind: JobType, cpus: &[usize]) -> SinkPlan {
    let listen = Listen::from(loopback(0));
    let listen = if kind.is_http() { Listen { protocol: Protocol::Http, ..listen } } else { listen };
    SinkPlan {
        listen: vec![listen],
        tls: None,
        faulty_tls: None,
        server: ServerConfig::new("sink.timecop.invalid", MESSAGE_BYTES_MAX, true),
        settings: Default::default(),
        http: kind.is_http().then(|| StubSettings {
            wall_start: wall_now(),
            id_nonce: rand::random(),
            ..StubSettings::default()
        }),
        save: None,
        cpus: cpus.to_vec(),
        descriptors: resources::descriptors(),
        seed: 0,
    }
}

fn loopback(port: u16) -> SocketAddr {
    SocketAddr::from((IpAddr::V4(Ipv4Addr::LOCALHOST), port))
}
