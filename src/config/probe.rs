//! `[smtp]`, `[probe]` with its routes, and `[alert]`: what the round trip needs.

use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::time::Duration;

use secrecy::{ExposeSecret as _, SecretString};
use ureq::http::Uri;

use super::read::{hostname, kept, listen, path};
use super::section::Section;
use super::{Config, NamedTarget, TargetUrl, expected, secret, shown};
use crate::alert::event::Severity;
use crate::alert::policy::Rule;
use crate::job::spec::http::JobType;
use crate::message::{MESSAGE_BYTES_MAX, Mailbox};
use crate::probe::header::{ROUTE_CHARS_MAX, is_route};
use crate::probe::table::OUTSTANDING_MAX;

/// Routes that may be configured.
pub const ROUTES_MAX: usize = 64;
/// The longest interval and the longest time limit: mail is given up after five days (RFC 5321 §4.5.4.1).
const TIME_MAX: Duration = Duration::from_secs(5 * 86_400);
/// The shortest interval.
const INTERVAL_MIN: Duration = Duration::from_secs(1);
/// Octets of the smallest probe: its own headers fit in.
const SIZE_MIN: u64 = 1_024;
/// Octets of the largest probe.
const SIZE_MAX: u64 = 10 << 20;
/// What probes may be sent by.
const TYPES: [(&str, JobType); 3] =
    [("smtp", JobType::Smtp), ("http", JobType::Http), ("http.mime", JobType::HttpMime)];
/// Where PagerDuty takes events.
pub const PAGERDUTY_URL: &str = "https://events.pagerduty.com/v2/enqueue";

/// `[smtp]`: the server that takes probes.
#[derive(Clone, Debug, PartialEq)]
pub struct Smtp {
    /// Where it listens; nowhere if empty.
    pub listen: Vec<SocketAddr>,
    /// Its name in the greeting; `None` for this host's.
    pub hostname: Option<String>,
    /// Its certificate and those that vouch for it, and its key, both PEM; `None` for one that it signs itself.
    pub certificate: Option<CertificateFiles>,
    /// Connections at once.
    pub connections_max: u32,
    /// Connections of one client at once.
    pub client_connections_max: u32,
    /// Octets of the largest message that it takes.
    pub max_size: u64,
}

/// A certificate and its key.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct CertificateFiles {
    /// The certificate, and behind it those that vouch for it.
    pub cert_file: PathBuf,
    /// Its key.
    pub key_file: PathBuf,
}

/// `[probe]`.
#[derive(Clone, Debug, PartialEq)]
pub struct Probe {
    /// Where probes are sent to, and the one address that the server takes mail for; there is one if there are routes.
    pub address: Option<String>,
    /// The file of the key that probes are signed with; it is made at the first start.
    pub secret_file: PathBuf,
    /// The ways that probes take, in the order of the file.
    pub routes: Vec<Route>,
}

/// `[[probe.route]]`.
#[derive(Clone, Debug, PartialEq)]
pub struct Route {
    /// What it is called in the API, metrics and alerts.
    pub name: String,
    /// Who is handed its probes: the name of a configured target, or a URL.
    pub target: String,
    /// What its probes are sent by, which fits the target.
    pub job_type: JobType,
    /// The envelope's sender and `From`; `None` for the probe's address.
    pub from: Option<String>,
    /// Between two probes.
    pub interval: Duration,
    /// After so long a probe is lost.
    pub timeout: Duration,
    /// After so long it is late; less than `timeout`.
    pub threshold: Duration,
    /// Octets of a probe.
    pub size: u64,
    /// How bad it is when it does not work.
    pub severity: Severity,
    /// When somebody is called, and when all is well again.
    pub rule: Rule,
}

/// `[alert.pagerduty]`.
#[derive(Clone, Debug)]
pub struct PagerDuty {
    /// The integration's key.
    pub routing_key: SecretString,
    /// Where events are sent to.
    pub url: String,
    /// What an alert links to.
    pub client_url: Option<String>,
}

impl PartialEq for PagerDuty {
    fn eq(&self, other: &PagerDuty) -> bool {
        let parts = |of: &PagerDuty| (of.url.clone(), of.client_url.clone());
        parts(self) == parts(other) && self.routing_key.expose_secret() == other.routing_key.expose_secret()
    }
}

impl Default for Smtp {
    fn default() -> Smtp {
        Smtp {
            listen: Vec::new(),
            hostname: None,
            certificate: None,
            connections_max: 100,
            client_connections_max: 20,
            max_size: 10 << 20,
        }
    }
}

impl Smtp {
    pub(super) fn read(mut section: Section<'_, '_>, others: &[SocketAddr], folder: &Path) -> Smtp {
        let usual = Smtp::default();
        let listen = listen(&mut section, "listen").unwrap_or_default();
        if let Some(both) = listen.iter().find(|address| address.port() != 0 && others.contains(address)) {
            let problem = expected("an address that neither the API nor the sink has", format!("{both} for both"));
            section.fault("listen", problem);
        }
        let hostname = hostname(&mut section);
        let files = ["cert_file", "key_file"].map(|key| path(&mut section, key, folder));
        for (one, other) in [("cert_file", "key_file"), ("key_file", "cert_file")] {
            if section.has(one) && !section.has(other) {
                section.fault(one, expected(format!("a {other} beside it"), "none; add it, or leave both out"));
            }
        }
        if let Some(Err(problem)) = files[0].as_deref().map(secret::certificates) {
            section.fault("cert_file", problem);
        }
        if let Some(Err(problem)) = files[1].as_deref().map(secret::private_key) {
            section.fault("key_file", problem);
        }
        let [cert_file, key_file] = files;
        let certificate = cert_file.zip(key_file).map(|(cert_file, key_file)| CertificateFiles { cert_file, key_file });
        let mut whole = |key, most: u64, usual: u64| section.whole(key, 1..=most).unwrap_or(usual);
        let connections_max = whole("connections_max", 10_000, usual.connections_max.into()) as u32;
        let client_connections_max =
            whole("client_connections_max", 10_000, usual.client_connections_max.into()) as u32;
        let max_size = section.whole("max_size", 64 << 10..=MESSAGE_BYTES_MAX).unwrap_or(usual.max_size);
        section.finish();
        Smtp { listen, hostname, certificate, connections_max, client_connections_max, max_size }
    }
}

impl Probe {
    /// Where the key is kept by default: beside the store.
    pub(super) fn usual(store: &Path) -> Probe {
        Probe { address: None, secret_file: store.with_file_name("probe.key"), routes: Vec::new() }
    }

    /// Reads the section. What a route names must be among `targets`, or a URL; routes need a server, which `smtp` is.
    pub(super) fn read(
        mut section: Section<'_, '_>,
        usual: Probe,
        smtp: &Smtp,
        targets: &std::collections::BTreeMap<String, NamedTarget>,
        folder: &Path,
    ) -> Probe {
        let address = section.text("address", "an address", mailbox);
        let secret_file = path(&mut section, "secret_file", folder).unwrap_or(usual.secret_file);
        if let Err(problem) = secret::check_probe_key(&secret_file) {
            section.fault("secret_file", problem);
        }
        let mut routes: Vec<Route> = Vec::new();
        let mut many = false;
        // Where they are no tables at all, that says enough.
        let mut is_there = false;
        section.each_table("route", |mut table| {
            let route = Route::read(&mut table, smtp.max_size, |target| is_target(target, targets));
            is_there = true;
            if let Some(route) = route {
                if routes.iter().any(|other| other.name == route.name) {
                    table.fault("name", expected("a name that no other route has", shown(&route.name)));
                }
                many = many || routes.len() == ROUTES_MAX;
                routes.push(route);
            }
            table.finish();
        });
        if many {
            section.fault("route", expected(format!("at most {ROUTES_MAX} routes"), "more"));
        }
        if is_there && !section.has("address") {
            let problem =
                expected("the address that probes are sent to, such as probe@timecop.example.com", "none; add one");
            section.fault("address", problem);
        }
        if (is_there || section.has("address")) && smtp.listen.is_empty() {
            let key = if is_there { "route" } else { "address" };
            let what = "a listen in [smtp], where probes arrive, such as listen = [\"0.0.0.0:25\"]";
            section.fault(key, expected(what, "none; add it"));
        }
        if !smtp.listen.is_empty() && !section.has("address") && !section.has("route") {
            section
                .fault("address", expected("the one address that the server of [smtp] takes mail for", "none; add it"));
        }
        section.finish();
        Probe { address, secret_file, routes }
    }
}

impl Route {
    fn read(
        table: &mut Section<'_, '_>,
        size_max: u64,
        is_target: impl FnOnce(&str) -> Result<(String, bool), String>,
    ) -> Option<Route> {
        const NAME: &str = "a name of letters, digits, - and _";
        let name = table.text("name", "a name", |text| match is_route(text) {
            true => Ok(text.to_owned()),
            false => Err(expected(format!("{NAME}, at most {ROUTE_CHARS_MAX}"), shown(text))),
        });
        let target = table.text("target", "a target's name or a URL", is_target);
        for (key, what) in [("name", NAME), ("target", "the name of a configured target, or a URL")] {
            if !table.has(key) {
                table.fault(key, expected(what, "none; add one"));
            }
        }
        let (target, is_http) = target.unzip();
        let is_http = is_http.unwrap_or(false);
        let usual = if is_http { JobType::HttpMime } else { JobType::Smtp };
        let job_type = table.word("type", &TYPES).unwrap_or(usual);
        if target.is_some() && job_type.is_http() != is_http {
            let what = if is_http {
                "http or http.mime, since the target is one of HTTP"
            } else {
                "smtp, as the target has it"
            };
            table.fault("type", expected(what, job_type.name()));
        }
        let from = table.text("from", "an address", mailbox);
        let mut time = |key, usual: u64| table.duration(key, TIME_MAX).unwrap_or(Duration::from_secs(usual));
        let (interval, timeout, threshold) = (time("interval", 60), time("timeout", 3_600), time("threshold", 300));
        let shown_time = |time| humantime::format_duration(time).to_string();
        if interval < INTERVAL_MIN {
            table.fault("interval", expected("at least 1s", shown_time(interval)));
        } else if timeout.as_secs_f64() / interval.as_secs_f64() > OUTSTANDING_MAX as f64 {
            let most = shown_time(interval * OUTSTANDING_MAX as u32);
            let what = format!("at most {OUTSTANDING_MAX} intervals, which are {most}");
            table.fault("timeout", expected(what, shown_time(timeout)));
        }
        if threshold >= timeout {
            let what = format!("less than the timeout, which is {}", shown_time(timeout));
            table.fault("threshold", expected(what, shown_time(threshold)));
        }
        let size = table.whole("size", SIZE_MIN..=SIZE_MAX).unwrap_or(SIZE_MIN);
        // A server on the way adds to the headers.
        if size > size_max / 2 {
            let what = format!("at most half of max_size in [smtp], which is {size_max}");
            table.fault("size", expected(what, size));
        }
        let severity = table.word("severity", &Severity::WORDS).unwrap_or(Severity::Error);
        let mut count = |key, usual| table.whole(key, 1..=1_000).map_or(usual, |count| count as u32);
        let rule = Rule { after: count("after", 1), well_for: count("for", 3) };
        Some(Route { name: name?, target: target?, job_type, from, interval, timeout, threshold, size, severity, rule })
    }
}

impl PagerDuty {
    pub(super) fn read(mut section: Section<'_, '_>, folder: &Path, warnings: &mut Vec<String>) -> Option<PagerDuty> {
        let is_there = section.is_there();
        let file = path(&mut section, "routing_key_file", folder);
        let url = section.text("url", "a URL", web_url).unwrap_or_else(|| PAGERDUTY_URL.to_owned());
        let client_url = section.text("client_url", "a URL", web_url);
        if is_there && !section.has("routing_key_file") {
            section.fault("routing_key_file", expected("a file with the integration's key", "none; add it"));
        }
        let routing_key = file.and_then(|path| match secret::routing_key(&path) {
            Ok(read) => Some(kept(read, "alert.pagerduty.routing_key_file", &path, warnings)),
            Err(problem) => {
                section.fault("routing_key_file", problem);
                None
            }
        });
        section.finish();
        Some(PagerDuty { routing_key: routing_key?, url, client_url })
    }
}

impl Config {
    /// A route by its name.
    pub fn route(&self, name: &str) -> Option<&Route> {
        self.probe.routes.iter().find(|route| route.name == name)
    }
}

fn mailbox(text: &str) -> Result<String, String> {
    Mailbox::parse(text).map(|mailbox| mailbox.as_str().to_owned()).map_err(|error| error.to_string())
}

/// The target, if it is one, and whether it is one of HTTP.
fn is_target(
    target: &str,
    targets: &std::collections::BTreeMap<String, NamedTarget>,
) -> Result<(String, bool), String> {
    if target.contains("://") {
        return TargetUrl::parse(target).map(|url| (target.to_owned(), url.is_http()));
    }
    match targets.get(target) {
        Some(named) if named.request.data.is_some() => {
            Err(expected("a target without data_file, in which a probe has no place", shown(target)))
        }
        Some(named) => Ok((target.to_owned(), named.url.is_http())),
        None => Err(expected("a URL such as smtp://mx.example.com:25, or NAME of a [targets.NAME]", shown(target))),
    }
}

fn web_url(text: &str) -> Result<String, String> {
    let fits = |uri: &Uri| matches!(uri.scheme_str(), Some("http" | "https")) && uri.host().is_some();
    match text.parse::<Uri>().is_ok_and(|uri| fits(&uri)) && !text.contains('@') {
        true => Ok(text.to_owned()),
        false => Err(expected("https://HOST[:PORT]/PATH, or http:// for the same", shown(text))),
    }
}
