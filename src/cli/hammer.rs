//! `timecop hammer`.

use std::fs::File;
use std::io::Read as _;
use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::path::{Path, PathBuf};

use super::args::{HammerArguments, PipeliningArgument};
use super::output::{JsonOutput, complain};
use super::{
    NOT_ALL_ACCEPTED, OK, StartError, check_machine, progress, read_pem, report, resources, target, with_option,
};
use crate::control::hammer::{self, HammerError, HammerPlan};
use crate::control::layout;
use crate::control::signals;
use crate::control::sink::SinkPlan;
use crate::job::spec::{CONNECTIONS_OPEN_LOOP, ConnectionType, JobSpec, RawSpec, Target};
use crate::message::MESSAGE_BYTES_MAX;
use crate::shard::machine::{self, Needs};
use crate::shard::tls::{ClientIdentity, ClientTls, ClientTlsFiles};
use crate::wire::smtp::server::ServerConfig;

/// How long a run lasts that names neither a time nor a number of messages.
const DURATION: std::time::Duration = std::time::Duration::from_secs(10);

pub(super) fn run(arguments: HammerArguments) -> Result<u8, StartError> {
    let quiet = arguments.quiet;
    let json = arguments.json.as_deref().map(JsonOutput::open).transpose()?;
    let plan = plan(arguments)?;
    check_machine(&needs(&plan))?;
    let stop = signals::stop_requests().map_err(StartError::new)?;
    let bar = progress::Bar::new(&plan.spec, quiet);
    let report = hammer::run(plan, &stop, |now| bar.show(now)).map_err(|error| match error {
        HammerError::Spec(error) => StartError::new(with_option(&error)),
        error => StartError::new(error),
    });
    bar.finish();
    let report = report?;
    let mut all_is_well = report.messages.accepted == report.messages.asked && report.aborted.is_none();
    let standard_output_is_json = json.as_ref().is_some_and(JsonOutput::is_standard_output);
    // The result for machines goes first: nothing that happens to the other one may cost it.
    if let Some(json) = json {
        all_is_well &= written(json.write(&report));
    }
    if !quiet && !standard_output_is_json {
        all_is_well &= written(report::print(&report));
    }
    if let Some(reason) = &report.aborted {
        complain(format_args!("error: the run was given up: {reason}"));
    }
    Ok(if all_is_well { OK } else { NOT_ALL_ACCEPTED })
}

/// Whether a result could be written. A reader who has seen enough is no failure.
fn written(result: std::io::Result<()>) -> bool {
    match result {
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
        same_target_connections: connections,
        accepted_connections: if servers > 0 { connections } else { 0 },
        is_loopback: plan.spec.target.address.ip().is_loopback(),
    }
}

/// From what was written to what is to be done.
fn plan(arguments: HammerArguments) -> Result<HammerPlan, StartError> {
    let may = resources::cpus(arguments.cpus.as_ref())?;
    let target = arguments.target.as_deref().map(target::resolve).transpose()?;
    let sides = layout::halves(&may);
    // By default no more shards than the machine has locked memory for.
    let most = (machine::shards_max() as usize).max(1);
    let (usual, most, embedded) = match &target {
        None => {
            let servers = sides.server.len().min((most / 2).max(1));
            (sides.generator, most.div_ceil(2), Some(embedded_sink(&sides.server[..servers])))
        }
        Some(_) if arguments.cpus.is_some() => (may.clone(), usize::MAX, None),
        Some(target) if target.address.ip().is_loopback() => (sides.generator, most, None),
        Some(_) => (may[..(may.len() - 1).max(1)].to_vec(), most, None),
    };
    let usual = usual[..usual.len().min(most)].to_vec();
    let cpus = resources::shards(arguments.shards, usual, &may)?;
    let seed = rand::random::<u64>();
    // A fresh seed is kept short enough for a person to type, and for JSON's numbers to hold.
    let fresh_seed = seed >> 33;
    let is_embedded = target.is_none();
    let target = target.unwrap_or_else(|| Target {
        name: "embedded sink".into(),
        host: Ipv4Addr::LOCALHOST.to_string(),
        address: loopback(0),
        connection: ConnectionType::Plain,
    });
    let tls_files = tls_files(&arguments)?;
    let raw = raw_spec(arguments, is_embedded)?;
    let spec = JobSpec::new(raw, target, fresh_seed).map_err(|error| StartError::new(with_option(&error)))?;
    let tls = ClientTls::of_job(&spec, &tls_files).map_err(|error| StartError::new(with_option(&error)))?;
    Ok(HammerPlan { spec, cpus, tls, embedded, host: resources::host_name(), run_id: rand::random() })
}

fn raw_spec(arguments: HammerArguments, is_embedded: bool) -> Result<RawSpec, StartError> {
    let body = match &arguments.body {
        None => None,
        Some(path) => Some(read_body(path)?),
    };
    let default_connections = is_embedded.then_some(CONNECTIONS_OPEN_LOOP);
    Ok(RawSpec {
        messages: arguments.messages,
        duration: arguments.duration.or_else(|| arguments.messages.is_none().then_some(DURATION)),
        connections: arguments.connections.or(default_connections),
        rate: arguments.rate,
        arrival: arguments.arrival.map(Into::into),
        msg_size: arguments.msg_size,
        body,
        from: arguments.from,
        recipients: arguments.to,
        recipients_per_message: arguments.recipients_per_message,
        messages_per_connection: arguments.messages_per_connection,
        pipelining: Some(arguments.pipelining == PipeliningArgument::Auto),
        timeout: arguments.timeout,
        skip_verify: arguments.skip_verify.then_some(true),
        resumption: arguments.no_resumption.then_some(false),
        seed: arguments.seed,
    })
}

/// What the files of the options say of TLS.
fn tls_files(arguments: &HammerArguments) -> Result<ClientTlsFiles, StartError> {
    let read = |option, path: &Option<PathBuf>| path.as_deref().map(|path| read_pem(option, path)).transpose();
    let certificate = read("--client-cert", &arguments.client_cert)?;
    let key = read("--client-key", &arguments.client_key)?;
    let identity = certificate.zip(key).map(|(certificates_pem, key_pem)| ClientIdentity { certificates_pem, key_pem });
    Ok(ClientTlsFiles { ca_pem: read("--ca-file", &arguments.ca_file)?, identity })
}

fn read_body(path: &Path) -> Result<Vec<u8>, StartError> {
    let wrong =
        |got: String| StartError::new(format!("--body: expected a message file, got {}: {got}", path.display()));
    let file = File::open(path).map_err(|error| wrong(error.to_string()))?;
    let mut body = Vec::new();
    // What a file says of its size is not to be relied on: a device or a pipe has none.
    file.take(MESSAGE_BYTES_MAX + 1).read_to_end(&mut body).map_err(|error| wrong(error.to_string()))?;
    if body.len() as u64 > MESSAGE_BYTES_MAX {
        return Err(wrong(format!("more than {MESSAGE_BYTES_MAX} octets")));
    }
    Ok(body)
}

fn embedded_sink(cpus: &[usize]) -> SinkPlan {
    SinkPlan {
        listen: vec![loopback(0).into()],
        tls: None,
        server: ServerConfig::new("sink.timecop.invalid", MESSAGE_BYTES_MAX, true),
        settings: Default::default(),
        save: None,
        cpus: cpus.to_vec(),
        descriptors: resources::descriptors(),
        seed: 0,
    }
}

fn loopback(port: u16) -> SocketAddr {
    SocketAddr::from((IpAddr::V4(Ipv4Addr::LOCALHOST), port))
}
