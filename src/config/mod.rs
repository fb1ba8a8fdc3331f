//! The configuration file of the service, from its text to values that are known to be valid.
//!
//! The file is TOML. Every key has a default, so that an empty file, or none, is a valid one; `docs/timecop.toml` shows
//! them all. Unknown keys are errors. [`Config::load`] tells everything that is wrong with a file at once, with line,
//! key and remedy. Secrets stand in files of their own, are read here, and are shown nowhere.

mod defaults;
mod limits;
mod probe;
mod read;
mod secret;
mod section;
mod target_url;

use std::collections::BTreeMap;
use std::net::{IpAddr, SocketAddr};
use std::path::PathBuf;

use ipnet::IpNet;
use secrecy::{ExposeSecret as _, SecretString};
use tracing::level_filters::LevelFilter;

use crate::job::spec::http::RawHttp;
use crate::sink::Rule;
pub use crate::wire::smtp::auth::Credentials;
pub use defaults::Defaults;
pub use limits::{JOBS_MAX, Limits};
pub use probe::{CertificateFiles, PAGERDUTY_URL, PagerDuty, Probe, ROUTES_MAX, Route, Smtp};
pub use read::{data_file, is_hostname};
pub use secret::{Read, audit_key, certificates, password, private_key, probe_key};
pub use section::{ConfigErrors, Fault};
pub use target_url::TargetUrl;

/// Most octets of a request's body that may be configured.
pub const BODY_BYTES_MAX: u64 = 32 << 20;

/// Where the store is kept by a process that has no home.
const SYSTEM_DATA: &str = "/var/lib/timecop";

/// A valid configuration. Paths are absolute, or relative to the working directory.
#[derive(Clone, Debug)]
pub struct Config {
    /// Where the API listens, and for whom.
    pub api: Api,
    /// Where jobs are kept.
    pub store: Store,
    /// The embedded sink.
    pub sink: Sink,
    /// What jobs may do.
    pub hammer: Hammer,
    /// What is logged.
    pub log: Log,
    /// Targets that jobs may name.
    pub targets: BTreeMap<String, NamedTarget>,
    /// The server that takes probes.
    pub smtp: Smtp,
    /// The round trip: the probes' address and routes.
    pub probe: Probe,
    /// Who is told when a route does not work.
    pub pagerduty: Option<PagerDuty>,
    /// What is not wrong, but should be known; one sentence each, without secrets.
    pub warnings: Vec<String>,
}

/// `[api]`.
#[derive(Clone, Debug)]
pub struct Api {
    /// At least one address; port 0 takes a free one.
    pub listen: Vec<SocketAddr>,
    /// The bearer token; there is one if an address is not a loopback one.
    pub token: Option<SecretString>,
    /// Names beside those of loopback that `Host` may carry, in lower case, without a port.
    pub hosts: Vec<String>,
    /// Connections that are served at once.
    pub connections_max: u32,
    /// Octets of the largest body, at most [`BODY_BYTES_MAX`].
    pub body_bytes_max: u64,
}

/// `[store]`.
#[derive(Clone, Debug, PartialEq)]
pub struct Store {
    /// The SQLite file.
    pub path: PathBuf,
    /// Jobs that are kept, the newest ones.
    pub jobs_kept: u64,
}

/// `[sink]`.
#[derive(Clone, Debug, PartialEq)]
pub struct Sink {
    /// Where the embedded sink listens; nowhere if empty. The first one is the default target.
    pub listen: Vec<SocketAddr>,
    /// Where it listens for HTTP, as a stub of Mailgun's API; nowhere if empty. The first one is the default target of
    /// jobs that speak HTTP.
    pub http_listen: Vec<SocketAddr>,
    /// Its name in the greeting; `None` for this host's.
    pub hostname: Option<String>,
    /// Octets of the largest message that it takes.
    pub max_size: u64,
    /// What goes wrong, `[[sink.fault]]`; at most [`RULES_MAX`](crate::sink::fault::RULES_MAX).
    pub faults: Vec<Rule>,
}

/// `[hammer]`.
#[derive(Clone, Debug, PartialEq)]
pub struct Hammer {
    /// What a target that is given as a URL may resolve to. No network is one of IPv4-mapped addresses.
    pub allow_targets: Vec<IpNet>,
    /// What one job may ask for.
    pub limits: Limits,
    /// What a job is like that says nothing else.
    pub defaults: Defaults,
    /// Shards that generate; `None` for as many as the machine suggests.
    pub shards: Option<usize>,
    /// CPUs that shards may run on; `None` for all that this process may use.
    pub cpus: Option<Vec<usize>>,
}

/// `[log]`.
#[derive(Clone, Debug, PartialEq)]
pub struct Log {
    /// How a line is written.
    pub format: LogFormat,
    /// The least important level that is logged.
    pub level: LevelFilter,
}

/// How a line of the log is written.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum LogFormat {
    /// For people.
    Text,
    /// One JSON object a line.
    Json,
}

/// `[targets.NAME]`.
#[derive(Clone, Debug)]
pub struct NamedTarget {
    /// Where it is, and how a connection to it is secured.
    pub url: TargetUrl,
    /// What a job with `auth` presents.
    pub credentials: Option<Credentials>,
    /// Certificates that are trusted in place of the system's: a file of PEM.
    pub ca_file: Option<PathBuf>,
    /// Whether its certificate is taken as it comes.
    pub skip_verify: bool,
    /// What requests to a target by HTTP say; with a body (`data_file`) it is one of `http.raw` jobs.
    pub request: RawHttp,
}

impl Default for Config {
    fn default() -> Config {
        Config {
            api: Api {
                listen: vec![loopback(8025)],
                token: None,
                hosts: Vec::new(),
                connections_max: 64,
                body_bytes_max: BODY_BYTES_MAX,
            },
            store: Store { path: store_path(), jobs_kept: 1_000 },
            sink: Sink {
                listen: vec![loopback(2525)],
                http_listen: vec![loopback(8026)],
                hostname: None,
                max_size: 50 << 20,
                faults: Vec::new(),
            },
            hammer: Hammer {
                allow_targets: vec![
                    IpNet::new_assert([127, 0, 0, 0].into(), 8),
                    IpNet::from(IpAddr::from(std::net::Ipv6Addr::LOCALHOST)),
                ],
                limits: Limits::default(),
                defaults: Defaults::default(),
                shards: None,
                cpus: None,
            },
            log: Log { format: LogFormat::Text, level: LevelFilter::INFO },
            targets: BTreeMap::new(),
            smtp: Smtp::default(),
            probe: Probe::usual(&store_path()),
            pagerduty: None,
            warnings: Vec::new(),
        }
    }
}

impl Config {
    /// What `new` changes that a running service cannot take over and that needs a restart, by its name in the file.
    /// Everything else, the targets, the probes' routes, the sink's faults, the certificate of `[smtp]`, `allow_targets`, the caps and the defaults of `[hammer]`, may be replaced at any time; but shards
    /// are made with room for so many connections, so that a greater `connections_max` has to wait.
    pub fn needs_restart(&self, new: &Config) -> Vec<&'static str> {
        let placement = |hammer: &Hammer| (hammer.shards, hammer.cpus.clone());
        let start_of_sink = |sink: &Sink| Sink { faults: Vec::new(), ..sink.clone() };
        // Its certificate is read again.
        let without_files = |smtp: &Smtp| Smtp { certificate: None, ..smtp.clone() };
        let start_of = |probe: &Probe| (probe.address.clone(), probe.secret_file.clone());
        let changed = [
            ("[api]", self.api != new.api),
            ("[store]", self.store != new.store),
            ("[sink]", start_of_sink(&self.sink) != start_of_sink(&new.sink)),
            ("shards and cpus of [hammer]", placement(&self.hammer) != placement(&new.hammer)),
            (
                "a greater connections_max of [hammer]",
                new.hammer.limits.connections_max > self.hammer.limits.connections_max,
            ),
            ("[log]", self.log != new.log),
            ("[smtp]", without_files(&self.smtp) != without_files(&new.smtp)),
            ("address and secret_file of [probe]", start_of(&self.probe) != start_of(&new.probe)),
            ("[alert.pagerduty]", self.pagerduty != new.pagerduty),
        ];
        changed.into_iter().filter_map(|(name, is_changed)| is_changed.then_some(name)).collect()
    }
}

impl PartialEq for Api {
    fn eq(&self, other: &Api) -> bool {
        fn parts(api: &Api) -> (&[SocketAddr], Option<&str>, &[String], u32, u64) {
            let token = api.token.as_ref().map(|token| token.expose_secret());
            (&api.listen, token, &api.hosts, api.connections_max, api.body_bytes_max)
        }
        parts(self) == parts(other)
    }
}

/// Whether only this machine can reach an address; that of an IPv4-mapped one counts as what it maps to.
pub fn is_loopback(address: &SocketAddr) -> bool {
    address.ip().to_canonical().is_loopback()
}

/// A text from outside in an error: escaped, short, and without what might be a password.
pub fn shown(text: &str) -> String {
    const CHARS_MAX: usize = 60;
    if text.contains('@') {
        return "a text with an @, which is not shown because a password may be in it".to_owned();
    }
    let end = text.char_indices().nth(CHARS_MAX).map_or(text.len(), |(at, _)| at);
    format!("{:?}{}", &text[..end], if end < text.len() { "…" } else { "" })
}

/// The form that errors have.
fn expected(what: impl std::fmt::Display, got: impl std::fmt::Display) -> String {
    format!("expected {what}, got {got}")
}

fn loopback(port: u16) -> SocketAddr {
    SocketAddr::from(([127, 0, 0, 1], port))
}

/// The user's data folder, or the system's for a process without a home, as services are.
fn store_path() -> PathBuf {
    let has_home =
        ["HOME", "XDG_DATA_HOME"].into_iter().any(|name| std::env::var_os(name).is_some_and(|v| !v.is_empty()));
    let folder = directories::ProjectDirs::from("", "", "timecop").filter(|_| has_home);
    folder.map_or_else(|| PathBuf::from(SYSTEM_DATA), |folder| folder.data_dir().to_owned()).join("timecop.db")
}

#[cfg(test)]
mod tests;
