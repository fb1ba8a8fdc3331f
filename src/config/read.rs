//! Reads the tables of the file.

use std::collections::BTreeMap;
use std::fs::File;
use std::io::Read as _;
use std::net::{IpAddr, SocketAddr};
use std::path::{Path, PathBuf};

use bytes::Bytes;
use ipnet::IpNet;
use toml::de::DeTable;
use tracing::level_filters::LevelFilter;
use url::Host;

use super::section::{Faults, Section};
use super::{
    Api, BODY_BYTES_MAX, Config, ConfigErrors, Credentials, Defaults, Fault, Hammer, Limits, Log, LogFormat,
    NamedTarget, PagerDuty, Probe, Sink, Smtp, Store, TargetUrl, expected, is_loopback, secret, shown,
};
use crate::job::spec::ConnectionType;
use crate::job::spec::http::RawHttp;
use crate::message::MESSAGE_BYTES_MAX;
use crate::sink::fault::RULES_MAX;
use crate::sink::{FaultError, Rule};
use crate::wire::http::request::{Field, check_method};

/// Octets of the largest file that is read.
const FILE_BYTES_MAX: u64 = 1 << 20;
/// Characters of a target's name.
const NAME_CHARS_MAX: usize = 64;
/// Jobs that can be kept: `job.list` shows all of them, some 300 octets each, and control answers nobody meanwhile.
const JOBS_KEPT_MAX: u64 = 10_000;
/// CPUs that Linux can number.
const CPUS_MAX: u64 = 8_192;

const LEVELS: [(&str, LevelFilter); 6] = [
    ("off", LevelFilter::OFF),
    ("error", LevelFilter::ERROR),
    ("warn", LevelFilter::WARN),
    ("info", LevelFilter::INFO),
    ("debug", LevelFilter::DEBUG),
    ("trace", LevelFilter::TRACE),
];

impl Config {
    /// Reads a file, and the files of secrets that it names.
    ///
    /// # Errors
    ///
    /// Everything that is wrong with it; of a text that is no TOML, the first fault.
    pub fn load(file: &Path) -> Result<Config, ConfigErrors> {
        let wrong = |got: String| ConfigErrors {
            file: file.to_owned(),
            faults: vec![Fault { line: None, key: String::new(), problem: expected("a file of TOML", got) }],
        };
        let mut text = String::new();
        let opened = open_file(file).map_err(wrong)?;
        opened.take(FILE_BYTES_MAX + 1).read_to_string(&mut text).map_err(|error| wrong(error.to_string()))?;
        if text.len() as u64 > FILE_BYTES_MAX {
            return Err(wrong(format!("more than {FILE_BYTES_MAX} octets")));
        }
        Config::parse(&text, file)
    }

    /// Reads the text of a file. `file` names it in errors, and the paths in it are relative to the folder of that.
    ///
    /// # Errors
    ///
    /// As [`Config::load`].
    pub fn parse(text: &str, file: &Path) -> Result<Config, ConfigErrors> {
        let mut faults = Faults::of(text);
        let folder = file.parent().unwrap_or(Path::new(""));
        let config = match DeTable::parse(text) {
            Ok(table) => Some(root(Section::root(table.into_inner(), &mut faults), folder)),
            Err(error) => {
                let problem = format!("this is no TOML: {}; correct the line", error.message().replace('\n', ", "));
                faults.note(error.span().map(|span| span.start), "", problem);
                None
            }
        };
        let faults = faults.into_sorted();
        match config {
            Some(config) if faults.is_empty() => Ok(config),
            _ => Err(ConfigErrors { file: file.to_owned(), faults }),
        }
    }
}

fn root(mut root: Section<'_, '_>, folder: &Path) -> Config {
    let usual = Config::default();
    let mut warnings = Vec::new();
    let api = api(root.section("api"), usual.api, folder, &mut warnings);
    let store = store(root.section("store"), usual.store, folder);
    let sink = sink(root.section("sink"), usual.sink, &api.listen);
    let hammer = hammer(root.section("hammer"), usual.hammer);
    let log = log(root.section("log"), usual.log);
    let mut targets = BTreeMap::new();
    root.section("targets").each_section(|name, section| {
        if let Some(target) = target(name, section, folder, &mut warnings) {
            targets.insert(name.to_owned(), target);
        }
    });
    let taken: Vec<SocketAddr> = api.listen.iter().chain(&sink.listen).chain(&sink.http_listen).copied().collect();
    let smtp = Smtp::read(root.section("smtp"), &taken, folder);
    let probe = Probe::read(root.section("probe"), Probe::usual(&store.path), &smtp, &targets, folder);
    let mut alert = root.section("alert");
    let pagerduty = PagerDuty::read(alert.section("pagerduty"), folder, &mut warnings);
    alert.finish();
    root.finish();
    Config { api, store, sink, hammer, log, targets, smtp, probe, pagerduty, warnings }
}

fn api(mut section: Section<'_, '_>, usual: Api, folder: &Path, warnings: &mut Vec<String>) -> Api {
    let listen = listen(&mut section, "listen").unwrap_or(usual.listen);
    if listen.is_empty() {
        section.fault("listen", expected("at least one address", "an empty list; leave the key out for the default"));
    }
    let token_file = path(&mut section, "token_file", folder);
    let token = token_file.as_ref().and_then(|path| match secret::token(path) {
        Ok(read) => Some(kept(read, "api.token_file", path, warnings)),
        Err(problem) => {
            section.fault("token_file", problem);
            None
        }
    });
    if let Some(open) = listen.iter().find(|address| !is_loopback(address) && !section.has("token_file")) {
        let problem = format!(
            "expected loopback addresses such as 127.0.0.1:8025, or a token_file in [api], got {open} without one; \
             whoever can reach that could send mail from here"
        );
        section.fault("listen", problem);
    }
    let hosts = section.texts("hosts", "host names", host).unwrap_or(usual.hosts);
    let connections_max = section.whole("connections_max", 1..=65_535).map_or(usual.connections_max, |n| n as u32);
    let body_bytes_max = section.whole("body_bytes_max", 1..=BODY_BYTES_MAX).unwrap_or(usual.body_bytes_max);
    section.finish();
    Api { listen, token, hosts, connections_max, body_bytes_max }
}

fn store(mut section: Section<'_, '_>, usual: Store, folder: &Path) -> Store {
    let path = path(&mut section, "path", folder).unwrap_or(usual.path);
    let jobs_kept = section.whole("jobs_kept", 1..=JOBS_KEPT_MAX).unwrap_or(usual.jobs_kept);
    section.finish();
    Store { path, jobs_kept }
}

fn sink(mut section: Section<'_, '_>, usual: Sink, api: &[SocketAddr]) -> Sink {
    let http_listen = listen(&mut section, "http_listen").unwrap_or(usual.http_listen);
    let listen = listen(&mut section, "listen").unwrap_or(usual.listen);
    for (key, addresses) in [("listen", &listen), ("http_listen", &http_listen)] {
        if let Some(both) = addresses.iter().find(|address| address.port() != 0 && api.contains(address)) {
            section.fault(key, expected("an address that the API does not have", format!("{both} for both")));
        }
    }
    if let Some(both) = http_listen.iter().find(|address| address.port() != 0 && listen.contains(address)) {
        section.fault("http_listen", expected("an address that listen does not have", format!("{both} for both")));
    }
    let hostname = hostname(&mut section);
    let max_size = section.whole("max_size", 1..=MESSAGE_BYTES_MAX).unwrap_or(usual.max_size);
    let mut faults = Vec::new();
    section.each_table("fault", |section| faults.extend(fault(section)));
    if faults.len() > RULES_MAX {
        section.fault("fault", expected(format!("at most {RULES_MAX} faults"), faults.len()));
    }
    section.finish();
    Sink { listen, http_listen, hostname: hostname.or(usual.hostname), max_size, faults }
}

/// `[[sink.fault]]`.
fn fault(mut section: Section<'_, '_>) -> Option<Rule> {
    let rule = section.text("rule", "a rule such as \"rcpt=451,5%\"", |text| {
        text.parse().map_err(|error: FaultError| error.to_string())
    });
    if !section.has("rule") {
        section.fault("rule", expected("a rule such as \"rcpt=451,5%\"", "none; add one"));
    }
    section.finish();
    rule
}

fn hammer(mut section: Section<'_, '_>, usual: Hammer) -> Hammer {
    let allow_targets = section.texts("allow_targets", "networks", network).unwrap_or(usual.allow_targets);
    let limits = Limits::read(&mut section);
    let defaults = Defaults::read(section.section("defaults"));
    let shards = section.whole("shards", 1..=CPUS_MAX).map(|shards| shards as usize);
    let cpus = section.wholes("cpus", 0..=CPUS_MAX - 1);
    let cpus = cpus.map(|cpus| cpus.into_iter().map(|cpu| cpu as usize).collect::<Vec<_>>());
    if cpus.as_ref().is_some_and(Vec::is_empty) {
        section.fault("cpus", expected("at least one CPU", "an empty list; leave the key out for all"));
    }
    if let Some(twice) = cpus.as_deref().and_then(first_twice) {
        section.fault("cpus", expected("each CPU once", format!("{twice} twice")));
    }
    section.finish();
    Hammer { allow_targets, limits, defaults, shards, cpus }
}

fn log(mut section: Section<'_, '_>, usual: Log) -> Log {
    let formats = [("text", LogFormat::Text), ("json", LogFormat::Json)];
    let format = section.word("format", &formats).unwrap_or(usual.format);
    let level = section.word("level", &LEVELS).unwrap_or(usual.level);
    section.finish();
    Log { format, level }
}

fn target(name: &str, mut section: Section<'_, '_>, folder: &Path, warnings: &mut Vec<String>) -> Option<NamedTarget> {
    let fits = |c: char| c.is_ascii_alphanumeric() || c == '-' || c == '_';
    if name.is_empty() || name.len() > NAME_CHARS_MAX || !name.chars().all(fits) {
        let expected_name = format!("a name of letters, digits, - and _, at most {NAME_CHARS_MAX}");
        section.fault_of_all(expected(expected_name, shown(name)));
    }
    let url = section.text("url", "a URL", TargetUrl::parse);
    if !section.has("url") {
        section.fault("url", expected("a URL, such as smtp://mx.example.com:25", "none; add one"));
    }
    let credentials = credentials(&mut section, name, folder, warnings);
    let ca_file = path(&mut section, "ca_file", folder);
    if let Some(Err(problem)) = ca_file.as_deref().map(secret::certificates) {
        section.fault("ca_file", problem);
    }
    let skip_verify = section.flag("skip_verify");
    if url.as_ref().is_some_and(|url| url.connection == ConnectionType::Plain) {
        for key in ["ca_file", "skip_verify"].into_iter().filter(|key| *key == "ca_file" || skip_verify == Some(true)) {
            if section.has(key) {
                let problem = expected(
                    "a URL of smtps://, smtp+starttls:// or https:// beside it",
                    "smtp:// or http://, which have no TLS",
                );
                section.fault(key, problem);
            }
        }
        if credentials.is_some() {
            warnings.push(format!("targets.{name}: the password goes out unencrypted, because its url has no TLS"));
        }
    }
    let request = request(&mut section, url.as_ref(), folder);
    section.finish();
    Some(NamedTarget { url: url?, credentials, ca_file, skip_verify: skip_verify.unwrap_or(false), request })
}

/// Opens what is a file: a pipe or a device would keep whoever reads it for ever.
fn open_file(path: &Path) -> Result<File, String> {
    match path.metadata() {
        Ok(metadata) if !metadata.is_file() => Err("it is no file".to_owned()),
        found => found.and_then(|_| File::open(path)).map_err(|error| error.to_string()),
    }
}

/// The body of requests of `http.raw`, of at most [`MESSAGE_BYTES_MAX`] octets.
///
/// # Errors
///
/// The text leaves it to the caller to name the option or key.
pub fn data_file(path: &Path) -> Result<Bytes, String> {
    data_of(path, File::open(path).map_err(|error| error.to_string()))
}

fn data_of(path: &Path, file: Result<File, String>) -> Result<Bytes, String> {
    let wrong = |got: String| expected("a file that can be read", format!("{}: {got}", path.display()));
    let file = file.map_err(wrong)?;
    let mut data = Vec::new();
    // What a file says of its size is not to be relied on: a device or a pipe has none.
    file.take(MESSAGE_BYTES_MAX + 1).read_to_end(&mut data).map_err(|error| wrong(error.to_string()))?;
    match data.len() as u64 <= MESSAGE_BYTES_MAX {
        true => Ok(data.into()),
        false => Err(wrong(format!("more than {MESSAGE_BYTES_MAX} octets"))),
    }
}

/// What requests to a target by HTTP say: `method`, `headers` and `data_file`.
fn request(section: &mut Section<'_, '_>, url: Option<&TargetUrl>, folder: &Path) -> RawHttp {
    let request = url.map(TargetUrl::request).unwrap_or_default();
    let is_smtp = url.is_some_and(|url| !url.is_http());
    let method = section.text("method", "a method such as \"POST\"", |text| match check_method(text) {
        Ok(()) => Ok(text.to_owned()),
        Err(error) => Err(expected(error, shown(text))),
    });
    let headers = section.texts("headers", "header fields such as \"Name: value\"", |text| {
        // A value may be a key, and so may what has no colon.
        let got = text
            .split_once(':')
            .map_or("one without a colon".to_owned(), |(name, _)| format!("another one, {}", shown(name)));
        Field::parse(text).map_err(|error| expected(error, got))
    });
    let file = path(section, "data_file", folder);
    let data = file.and_then(|file| match data_of(&file, open_file(&file)) {
        Ok(data) => Some(data),
        Err(problem) => {
            section.fault("data_file", problem);
            None
        }
    });
    if method.is_some() && data.is_none() && !section.has("data_file") {
        section.fault("method", expected("a data_file beside it, which is sent by it", "none; add it"));
    }
    for key in ["method", "headers", "data_file"].into_iter().filter(|_| is_smtp) {
        if section.has(key) {
            section.fault(key, expected("a URL of http:// or https:// beside it", "one of SMTP"));
        }
    }
    RawHttp { method, headers: headers.unwrap_or_default(), data, ..request }
}

fn credentials(
    section: &mut Section<'_, '_>,
    name: &str,
    folder: &Path,
    warnings: &mut Vec<String>,
) -> Option<Credentials> {
    let user = section.text("user", "a user's name", |text| {
        match !text.is_empty() && text.len() <= 255 && !text.contains(char::is_control) {
            true => Ok(text.to_owned()),
            false => Err(expected("1 to 255 octets without control characters", shown(text))),
        }
    });
    let file = path(section, "password_file", folder);
    for (one, other) in [("user", "password_file"), ("password_file", "user")] {
        if section.has(one) && !section.has(other) {
            section.fault(one, expected(format!("a {other} beside it"), "none; add it, or leave both out"));
        }
    }
    let file = file?;
    match secret::password(&file) {
        Ok(read) => {
            let password = kept(read, &format!("targets.{name}.password_file"), &file, warnings);
            Credentials::new(user?, password).map_err(|error| section.fault("password_file", error.to_string())).ok()
        }
        Err(problem) => {
            section.fault("password_file", problem);
            None
        }
    }
}

pub(super) fn hostname(section: &mut Section<'_, '_>) -> Option<String> {
    section.text("hostname", "a host name", |text| match text {
        text if is_hostname(text) => Ok(text.to_owned()),
        text => Err(expected("one word of printable ASCII, at most 255 characters", shown(text))),
    })
}

/// The secret itself, once it is said that everybody may read it.
pub(super) fn kept(read: secret::Read, key: &str, path: &Path, warnings: &mut Vec<String>) -> secrecy::SecretString {
    if read.is_open {
        let path = path.display();
        warnings.push(format!("{key}: everybody on this machine may read {path}; mend it with: chmod o-rwx {path}"));
    }
    read.secret
}

pub(super) fn path(section: &mut Section<'_, '_>, key: &'static str, folder: &Path) -> Option<PathBuf> {
    section.text(key, "a path", |text| match !text.is_empty() && !text.contains(char::is_control) {
        true => Ok(folder.join(text)),
        false => Err(expected("a path without control characters", shown(text))),
    })
}

pub(super) fn listen(section: &mut Section<'_, '_>, key: &'static str) -> Option<Vec<SocketAddr>> {
    const WHAT: &str = "an IP address and a port, such as \"127.0.0.1:8025\" or \"[::1]:8025\"";
    let listen = section.texts(key, WHAT, |text| text.parse().map_err(|_| expected(WHAT, shown(text))))?;
    let taken: Vec<SocketAddr> = listen.iter().copied().filter(|address: &SocketAddr| address.port() != 0).collect();
    if let Some(twice) = first_twice(&taken) {
        section.fault(key, expected("each address once", format!("{twice} twice")));
    }
    Some(listen)
}

fn first_twice<T: PartialEq>(list: &[T]) -> Option<&T> {
    list.iter().enumerate().find(|(index, item)| list[..*index].contains(item)).map(|(_, item)| item)
}

/// A name that `Host` may carry.
fn host(text: &str) -> Result<String, String> {
    let has_port = text.contains(':') && !text.starts_with('[');
    let host = Host::parse(text).ok().filter(|_| !has_port).map(|host| host.to_string());
    match host.as_deref().map(|host| host.strip_suffix('.').unwrap_or(host)) {
        None | Some("") => {
            let what = "a host name or an address without a port, such as timecop.example.com or [2001:db8::1]";
            Err(expected(what, shown(text)))
        }
        Some(host) => Ok(host.to_owned()),
    }
}

/// A network, or a single address.
fn network(text: &str) -> Result<IpNet, String> {
    const WHAT: &str = "a network or an address, such as \"10.1.0.0/16\" or \"::1\"";
    let single = || text.parse::<IpAddr>().map(IpNet::from);
    let network = text.parse::<IpNet>().or_else(|_| single()).map_err(|_| expected(WHAT, shown(text)))?;
    if network != network.trunc() {
        let beyond =
            format!("{text}, in which bits of the host are set; write {} or {}", network.trunc(), network.addr());
        return Err(expected(WHAT, beyond));
    }
    match network {
        IpNet::V6(v6) if v6.prefix_len() >= 96 && v6.addr().to_ipv4_mapped().is_some() => {
            Err(expected(WHAT, format!("{text}, whose addresses are IPv4 ones; write it as an IPv4 network")))
        }
        network => Ok(network),
    }
}

/// Whether a text can be an SMTP server's name in its greeting (RFC 5321 §4.2).
pub fn is_hostname(text: &str) -> bool {
    (1..=255).contains(&text.len()) && text.bytes().all(|octet| octet.is_ascii_graphic())
}
