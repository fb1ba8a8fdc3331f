//! `timecop sink`.

use std::fs::File;
use std::io::Read as _;
use std::net::SocketAddr;
use std::os::unix::fs::PermissionsExt as _;
use std::path::Path;

use secrecy::SecretString;
use serde::Serialize;

use super::args::SinkArguments;
use super::audit::Keeper;
use super::output::{JsonOutput, complain, print};
use super::report::bytes;
use super::{
    NOT_ALL_ACCEPTED, OK, StartError, audit, certificates, check_machine, hammer, private_key, resources, with_option,
};
use crate::audit::ledger::RUNS_MAX;
use crate::config::{self, is_hostname};
use crate::control::sink::{Listen, SinkPlan, serve};
use crate::control::{layout, signals};
use crate::measure::words::{thousands, time};
use crate::message::{MESSAGE_BYTES_MAX, Mailbox};
use crate::shard::clock::wall_now;
use crate::shard::machine::{self, Needs};
use crate::shard::sink_service::SaveFolder;
use crate::shard::tls::{FaultyTls, ServerTls};
use crate::sink::fault::RULES_MAX;
use crate::sink::mailgun::MESSAGE_BYTES_MAX as HTTP_MESSAGE_BYTES_MAX;
use crate::sink::{FaultCount, FaultCounters, Faults, SinkCounts, SinkSettings, StubSettings};
use crate::wire::smtp::auth::Users;
use crate::wire::smtp::server::ServerConfig;

/// Where a sink listens that is not told where.
const LISTEN: &str = "127.0.0.1:2525";

/// Octets of a table of users that are read.
const AUTH_FILE_BYTES_MAX: u64 = 16 << 20;

/// A shard with fewer file slots than this could not serve anybody.
const FILES_MIN: u32 = 64;

/// What the sink says when it ends.
#[derive(Serialize)]
struct Summary {
    #[serde(flatten)]
    counts: SinkCounts,
    /// How often faults have struck; only those that have.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    faults: Vec<FaultCount>,
    elapsed_s: f64,
}

pub(super) fn run(arguments: SinkArguments) -> Result<u8, StartError> {
    let json = arguments.json.as_deref().map(JsonOutput::open).transpose()?;
    let saves = arguments.save.is_some();
    let audit_report = arguments.audit.report()?;
    let counters = FaultCounters::default();
    let plan = plan(arguments, &counters)?;
    for warning in plan.settings.faults.warnings(plan.served()) {
        complain(format_args!("warning: --fault: {warning}"));
    }
    let ledger = plan.settings.audit.clone();
    let shards = plan.cpus.len() as u32;
    check_machine(&Needs {
        shards,
        files_per_shard: layout::server_ring(plan.descriptors).accepted_files.min(FILES_MIN),
        same_target_connections: 0,
        accepted_connections: 0,
        is_loopback: plan.listen.iter().all(|listen| listen.address.ip().is_loopback()),
    })?;
    let stop = signals::stop_requests().map_err(StartError::new)?;
    let keeper = audit_report.zip(ledger.clone()).map(|(file, ledger)| Keeper::start(file, ledger)).transpose();
    let keeper = keeper.map_err(StartError::new)?;
    let served = serve(plan, &stop, |addresses| announce(addresses, saves));
    let mut written = true;
    // Whatever became of the sink.
    if let (Some(keeper), Some(ledger)) = (keeper, &ledger) {
        let forgotten = ledger.forgotten().len();
        if forgotten > 0 {
            complain(format_args!(
                "warning: --audit-report: {forgotten} runs are not in it: of {RUNS_MAX} runs account is kept, and the one that \
                 was longest without arrivals is forgotten for another one"
            ));
        }
        written &= hammer::written(keeper.end());
    }
    let (counts, elapsed) = served.map_err(StartError::new)?;
    let summary = Summary { counts, faults: counters.counts(), elapsed_s: elapsed.as_secs_f64() };
    let is_for_machines = json.as_ref().is_some_and(JsonOutput::is_standard_output);
    // That for machines goes first, as of a run.
    if let Some(json) = json {
        written &= hammer::written(json.write(&summary));
    }
    if !is_for_machines {
        written &= hammer::written(print(&render(&summary)).map(|()| true));
    }
    Ok(if written { OK } else { NOT_ALL_ACCEPTED })
}

/// The counts as a person reads them; of what was never asked for nothing is said.
fn render(Summary { counts: SinkCounts { smtp, http }, faults, elapsed_s }: &Summary) -> String {
    let mut text = format!("\ntimecop sink, {}\n\n", time(*elapsed_s));
    let mut line = |name: &str, words: String| text += &format!("  {name:<12} {words}\n");
    let messages = |messages, recipients, octets: u64| {
        let (messages, recipients) = (thousands(messages), thousands(recipients));
        format!("{messages} messages accepted, {recipients} recipients, {}", bytes(octets as f64))
    };
    let tls =
        |handshakes, resumed| format!("{} handshakes, {} of them resumed", thousands(handshakes), thousands(resumed));
    if http.is_none() || smtp.sessions > 0 {
        line("smtp", messages(smtp.messages, smtp.recipients, smtp.bytes));
        let [sessions, commands, errors] = [smtp.sessions, smtp.commands, smtp.errors].map(thousands);
        line("", format!("sessions {sessions}, commands {commands}, errors of clients {errors}"));
        if smtp.tls_handshakes > 0 {
            line("  tls", tls(smtp.tls_handshakes, smtp.tls_resumed));
        }
        if smtp.auth_granted + smtp.auth_refused > 0 {
            let [granted, refused] = [smtp.auth_granted, smtp.auth_refused].map(thousands);
            line("  auth", format!("{granted} logins, {refused} refused"));
        }
    }
    if let Some(http) = http {
        line("http", messages(http.messages, http.recipients, http.bytes));
        let [connections, requests, errors] = [http.connections, http.requests, http.errors].map(thousands);
        line("", format!("connections {connections}, requests {requests}, errors of clients {errors}"));
        if http.tls_handshakes > 0 {
            line("  tls", tls(http.tls_handshakes, http.tls_resumed));
        }
        for (status, count) in &http.statuses {
            line("", format!("{} x {status}", thousands(*count)));
        }
    }
    for FaultCount { phase, action, count } in faults {
        line("fault", format!("{phase} {action}: {}", thousands(*count)));
    }
    text
}

fn announce(addresses: &[Listen], saves: bool) {
    if !saves {
        complain("timecop sink: takes mail and keeps none of it; Ctrl-C ends it");
    }
    // Standard output is for the counts.
    for address in addresses {
        complain(format_args!("listening on {address}"));
    }
}

/// The table of `--auth-file`.
fn users(path: &Path) -> Result<Users, StartError> {
    let wrong = |got: &dyn std::fmt::Display| StartError::new(format!("--auth-file: {}: {got}", path.display()));
    let file = File::open(path).map_err(|error| wrong(&error))?;
    if file.metadata().is_ok_and(|metadata| metadata.permissions().mode() & 0o004 != 0) {
        complain(format_args!("warning: --auth-file: everybody on this machine may read {}", path.display()));
    }
    let mut text = String::new();
    file.take(AUTH_FILE_BYTES_MAX + 1).read_to_string(&mut text).map_err(|error| wrong(&error))?;
    if text.len() as u64 > AUTH_FILE_BYTES_MAX {
        return Err(wrong(&format!("expected at most {AUTH_FILE_BYTES_MAX} octets, got more")));
    }
    let users = Users::parse(&text).map_err(|error| wrong(&error))?;
    if users.is_empty() {
        return Err(wrong(&"expected lines user:password, got none"));
    }
    Ok(users)
}

/// The key of `--http-key-file`.
fn key(path: &Path) -> Result<SecretString, StartError> {
    let read = config::password(path).map_err(|problem| StartError::new(format!("--http-key-file: {problem}")))?;
    if read.is_open {
        let path = path.display();
        complain(format_args!("warning: --http-key-file: everybody on this machine may read {path}"));
    }
    Ok(read.secret)
}

fn plan(arguments: SinkArguments, counters: &FaultCounters) -> Result<SinkPlan, StartError> {
    let may = resources::cpus("--cpus", arguments.cpus.as_ref().map(|cpus| cpus.0.as_slice()))?;
    let mut usual = if arguments.cpus.is_some() { may.clone() } else { layout::halves(&may).server };
    // By default no more shards than the machine has locked memory for.
    usual.truncate((machine::shards_max() as usize).max(1));
    let cpus = resources::shards("--shards", arguments.shards, usual, &may)?;
    if !(1..=MESSAGE_BYTES_MAX).contains(&arguments.max_size) {
        let got = arguments.max_size;
        return Err(StartError::new(format!("--max-size: expected 1 to {MESSAGE_BYTES_MAX} octets, got {got}")));
    }
    let hostname = arguments.hostname.unwrap_or_else(resources::host_name);
    if !is_hostname(&hostname) {
        return Err(StartError::new(format!("--hostname: expected one word of printable ASCII, got {hostname:?}")));
    }
    for domain in &arguments.accept_domain {
        if Mailbox::parse(&format!("a@{domain}")).is_err() {
            let got = format!("--accept-domain: expected a domain such as example.com, got {domain:?}");
            return Err(StartError::new(got));
        }
    }
    if arguments.save.is_some() && arguments.listen.is_empty() && !arguments.http.is_empty() {
        let got =
            "--save: expected --listen beside it, since the stub of --http keeps nothing of what it is sent, got none";
        return Err(StartError::new(got));
    }
    let save = match arguments.save {
        None => None,
        Some(path) => {
            let shown = path.display().to_string();
            let folder = SaveFolder::open(path);
            Some(folder.map_err(|error| StartError::new(format!("--save: cannot use {shown}: {error}")))?)
        }
    };
    let rules = [arguments.drop, arguments.reply, arguments.delay, arguments.fault].concat();
    let given = rules.len();
    let faults = Faults::new(rules, counters.clone())
        .ok_or_else(|| StartError::new(format!("--fault: expected at most {RULES_MAX} faults, got {given}")))?;
    let settings = SinkSettings {
        accept_domains: arguments.accept_domain,
        faults,
        stall: arguments.stall,
        capacity: arguments.capacity,
        keep_bytes_max: if save.is_some() { arguments.max_size as usize } else { 0 },
        audit: audit::of_sink(&arguments.audit)?,
    };
    let http = match arguments.http.is_empty() {
        true => None,
        false => Some(StubSettings {
            accept_domains: settings.accept_domains.clone(),
            key: arguments.http_key_file.as_deref().map(key).transpose()?,
            rate: arguments.http_rate,
            faults: settings.faults.clone(),
            stall: settings.stall,
            capacity: settings.capacity.clone(),
            message_bytes_max: arguments.max_size.min(HTTP_MESSAGE_BYTES_MAX),
            wall_start: wall_now(),
            id_nonce: rand::random(),
        }),
    };
    let mut listen: Vec<Listen> = match arguments.listen.is_empty() && http.is_none() {
        true => vec![LISTEN.parse::<SocketAddr>().expect("a constant address").into()],
        false => arguments.listen,
    };
    let offers_starttls = !arguments.no_starttls && !listen.is_empty();
    listen.extend(arguments.http);
    let needs_tls = offers_starttls || listen.iter().any(|listen| listen.implicit_tls);
    let tls = match (&arguments.tls_cert, &arguments.tls_key) {
        (Some(_), Some(_)) if !needs_tls => {
            let got = "--tls-cert: expected an address with smtps:// or https://, or STARTTLS, to use it for, got none";
            return Err(StartError::new(got));
        }
        (Some(certificate), Some(key)) => {
            let chain = certificates("--tls-cert", certificate)?;
            Some(ServerTls::from_pem(&chain, &private_key("--tls-key", key)?))
        }
        _ => needs_tls.then(|| ServerTls::self_signed(&hostname)),
    };
    let tls = tls.transpose().map_err(|error| StartError::new(with_option(&error)))?;
    let server = ServerConfig::new(&hostname, arguments.max_size, !arguments.no_pipelining);
    let server = match &arguments.auth_file {
        None => server,
        Some(_) if !needs_tls => {
            let got = "--auth-file: expected an address with smtps:// or STARTTLS to log in under, got neither";
            return Err(StartError::new(got));
        }
        Some(path) => server.requiring_auth(users(path)?.into(), rand::random::<u64>),
    };
    let faulty_tls = tls.as_ref().map(|_| FaultyTls::new(&hostname)).transpose().map_err(StartError::new)?;
    Ok(SinkPlan {
        listen,
        tls,
        faulty_tls,
        server: if arguments.no_starttls { server } else { server.offering_starttls() },
        settings,
        http,
        save,
        cpus,
        descriptors: resources::descriptors(),
        seed: arguments.seed,
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_person_reads_what_arrived_and_nothing_of_what_was_not_asked_for() {
        let mut summary = Summary { counts: SinkCounts::default(), faults: Vec::new(), elapsed_s: 2.0 };
        let smtp = &mut summary.counts.smtp;
        (smtp.sessions, smtp.messages, smtp.recipients, smtp.bytes, smtp.commands) =
            (2, 1_000, 1_000, 1_000_000, 3_004);
        assert_eq!(
            render(&summary),
            "\ntimecop sink, 2.00 s\n\n  smtp         1,000 messages accepted, 1,000 recipients, 1.0 MB\n               \
             sessions 2, commands 3,004, errors of clients 0\n"
        );
        summary.counts.smtp = Default::default();
        summary.counts.http.get_or_insert_default().statuses.insert(429, 3);
        let text = render(&summary);
        assert!(!text.contains("smtp") && text.contains("  http ") && text.contains("3 x 429"), "{text}");
    }
}
