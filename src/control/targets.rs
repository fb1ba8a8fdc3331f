//! From what a job names to the one address that its bytes may go to.
//!
//! [`Targets::choose`] applies every rule that needs no name resolution and never waits; [`Resolver::resolve`] looks the
//! host up on a thread of its own, or the mail exchangers of a domain, and holds every address found to the allow-list.
//! The address that was checked is the one that is connected to: nothing is looked up twice.

use std::cell::RefCell;
use std::collections::BTreeMap;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr, ToSocketAddrs as _};
use std::path::PathBuf;
use std::sync::Arc;
use std::thread;
use std::time::Duration;

use ipnet::IpNet;
use thiserror::Error;
use url::Host;

use super::resolve::{self, MX_TIMEOUT, MxError, MxHost};
use crate::config::{self, Config, Credentials, NamedTarget, TargetUrl, shown};
use crate::job::spec::http::{JobType, RawHttp};
use crate::job::spec::{ConnectionType, RawSpec, SpecError, Target};
use crate::shard::tls::{ClientTls, ClientTlsFiles};
use crate::wire::http::request::Field;

/// Host names that are looked up at once, those that were given up but still block a thread included.
pub const RESOLUTIONS_MAX: usize = 8;
/// How long a look-up may take before it is given up: a second longer than that of mail exchangers, which gives itself up
/// and can say more of why.
pub const RESOLUTION_TIME_MAX: Duration = Duration::from_secs(MX_TIMEOUT.as_secs() + 1);
/// The path of the embedded sink of HTTP: that of a domain which it takes as any other.
pub const EMBEDDED_PATH: &str = "/v3/example.com";
/// What the embedded sink of HTTP wants to see, which is any key of the user `api`.
const EMBEDDED_AUTHORIZATION: &str = "Basic YXBpOmtleQ==";
/// How many names or networks an error lists.
const LISTED_MAX: usize = 20;

/// Where a job goes, checked.
#[derive(Clone, Debug)]
pub struct ResolvedTarget {
    /// As reports show it, never with credentials; of a domain with the mail exchanger that was found.
    pub name: String,
    /// The host as it was named, or the mail exchanger, for SNI and the certificate; an IPv6 address stands in brackets.
    pub host: String,
    /// What is connected to. An IPv4-mapped address has become the IPv4 one.
    pub address: SocketAddr,
    /// How connections are secured.
    pub connection: ConnectionType,
    /// What to present, where the job asks for `auth`.
    pub credentials: Option<Credentials>,
    /// Certificates that are trusted in place of the system's.
    pub ca_file: Option<PathBuf>,
    /// Whether the certificate is taken as it comes.
    pub skip_verify: bool,
    /// What requests say of where they go, and what else the target has them say.
    pub request: RawHttp,
    /// What its connections are secured with; [`Resolver::resolve`] makes it ready where there is to be TLS.
    pub tls: Option<ClientTls>,
}

impl ResolvedTarget {
    /// As a job knows it.
    pub fn as_target(&self) -> Target {
        // A certificate names an IPv6 address without brackets.
        let host = self.host.trim_start_matches('[').trim_end_matches(']').to_owned();
        Target { name: self.name.clone(), host, address: self.address, connection: self.connection }
    }

    /// A job's values with what is the target's to say. Without TLS there is nothing to verify; the API has always taken
    /// the field all the same.
    pub fn complete(&self, raw: RawSpec) -> RawSpec {
        let skip_verify = (self.connection != ConnectionType::Plain).then_some(self.skip_verify);
        RawSpec { skip_verify, http: RawHttp { options: raw.http.options, ..self.request.clone() }, ..raw }
    }

    /// With its TLS made ready; reads files.
    fn secured(self) -> Result<ResolvedTarget, SpecError> {
        if self.connection == ConnectionType::Plain {
            return Ok(self);
        }
        let ca_pem = self.ca_file.as_deref().map(config::certificates).transpose();
        let ca_pem = ca_pem
            .map_err(|problem| SpecError { field: "target", problem: format!("{}: ca_file: {problem}", self.name) })?;
        let files = ClientTlsFiles { ca_pem, identity: None };
        let tls = ClientTls::new(&self.as_target().host, self.skip_verify, true, &files)?;
        let tls = if self.request.path.is_empty() { tls } else { tls.for_http() };
        Ok(ResolvedTarget { tls: Some(tls), ..self })
    }
}

/// The targets that jobs may name. Made anew when the configuration is.
#[derive(Debug, Default)]
pub struct Targets {
    sink: Option<SocketAddr>,
    http_sink: Option<SocketAddr>,
    named: BTreeMap<String, NamedTarget>,
    allowed: Arc<[IpNet]>,
}

/// A target that the rules admit, before its host is looked up.
#[derive(Clone, Debug)]
pub struct Unresolved {
    name: String,
    url: TargetUrl,
    credentials: Option<Credentials>,
    ca_file: Option<PathBuf>,
    skip_verify: bool,
    request: RawHttp,
    /// What it must resolve to; `None` where the configuration itself names it.
    allowed: Option<Arc<[IpNet]>>,
    /// Decides among equally preferred mail exchangers.
    seed: u64,
}

impl Unresolved {
    /// Whether the same certificate is to be expected of both.
    pub fn is_secured_as(&self, other: &Unresolved) -> bool {
        (&self.url, &self.ca_file, self.skip_verify) == (&other.url, &other.ca_file, other.skip_verify)
    }
}

impl Targets {
    /// The targets of a configuration. `sink` and `http_sink` are where the embedded sink really listens, first, for SMTP
    /// and for HTTP.
    pub fn new(config: &Config, sink: Option<SocketAddr>, http_sink: Option<SocketAddr>) -> Targets {
        Targets {
            sink,
            http_sink,
            named: config.targets.clone(),
            allowed: config.hammer.allow_targets.as_slice().into(),
        }
    }

    /// As [`Targets::choose`], for a job by HTTP, whose target's scheme says how connections are secured. Requests of
    /// `http.raw` go to configured targets with a `data_file` alone.
    ///
    /// # Errors
    ///
    /// Names the job's field that does not fit: `target`, `auth` or `skip_verify`.
    pub fn choose_http(
        &self,
        kind: JobType,
        target: Option<&str>,
        auth: bool,
        skip_verify: Option<bool>,
    ) -> Result<Unresolved, SpecError> {
        let is_raw = kind == JobType::HttpRaw;
        let has_data = |name: &str| self.named.get(name).is_some_and(|target| target.request.data.is_some());
        match target {
            Some(name) if !name.contains("://") && has_data(name) == is_raw => {
                self.named(name, Scheme::Http, auth, skip_verify)
            }
            Some(name) if !is_raw && has_data(name) => {
                let expected = format!("a target without data_file for type {}", kind.name());
                Err(SpecError::new("target", expected, shown(name)))
            }
            Some(text) if !is_raw => self.url(text, Scheme::Http, auth, skip_verify),
            None if !is_raw && !auth => self.embedded_http_sink(),
            None if !is_raw => Err(auth_needs_credentials("the embedded sink, which wants none")),
            other => {
                let got = other.map_or_else(|| "none".to_owned(), shown);
                Err(SpecError::new("target", "the name of a configured target with a data_file for type http.raw", got))
            }
        }
    }

    fn embedded_http_sink(&self) -> Result<Unresolved, SpecError> {
        let Some(address) = self.http_sink else {
            let expected = "a URL such as http://127.0.0.1:8026/v3/example.com, or the name of a configured target, because \
                            no sink of HTTP is embedded";
            return Err(SpecError::new("target", expected, "none"));
        };
        let path = Some(EMBEDDED_PATH.to_owned());
        let (host, port) = (loopback_of(address), address.port());
        let url = TargetUrl { host, port, connection: ConnectionType::Plain, is_mx: false, path };
        let request = RawHttp { headers: vec![embedded_authorization()], ..url.request() };
        Ok(Unresolved { request, ..Unresolved::unrestricted(url) })
    }

    /// Finds what `target` means: a configured name, a URL, or without one the embedded sink. The rest is what the job
    /// asks for beside it; `connection`, where it is given, must be the target's own.
    ///
    /// # Errors
    ///
    /// Names the job's field that does not fit: `target`, `smtp_connection_type`, `auth` or `skip_verify`.
    pub fn choose(
        &self,
        target: Option<&str>,
        connection: Option<ConnectionType>,
        auth: bool,
        skip_verify: Option<bool>,
    ) -> Result<Unresolved, SpecError> {
        match target {
            None => self.embedded_sink(connection.unwrap_or_default(), auth, skip_verify),
            Some(text) if text.contains("://") => self.url(text, Scheme::Smtp(connection), auth, skip_verify),
            Some(name) => self.named(name, Scheme::Smtp(connection), auth, skip_verify),
        }
    }

    /// Finds what a route of the prober means: a configured name, with its credentials if it has any, or a URL. The
    /// configuration itself says so, and may reach whatever it names.
    ///
    /// # Errors
    ///
    /// There is no such target.
    pub fn of_route(&self, target: &str) -> Result<Unresolved, SpecError> {
        if target.contains("://") {
            let url = TargetUrl::parse(target).map_err(|problem| SpecError { field: "target", problem })?;
            return Ok(Unresolved::unrestricted(url));
        }
        let Some(named) = self.named.get(target) else {
            return Err(SpecError::new("target", self.known(), shown(target)));
        };
        let scheme = if named.url.is_http() { Scheme::Http } else { Scheme::Smtp(None) };
        self.named(target, scheme, named.credentials.is_some(), None)
    }

    fn embedded_sink(
        &self,
        connection: ConnectionType,
        auth: bool,
        skip_verify: Option<bool>,
    ) -> Result<Unresolved, SpecError> {
        let Some(address) = self.sink else {
            let expected = format!("{}, because no sink is embedded ([sink] listen is empty)", self.known());
            return Err(SpecError::new("target", expected, "none"));
        };
        if auth {
            return Err(auth_needs_credentials("the embedded sink, which has none"));
        }
        let host = loopback_of(address);
        // It offers STARTTLS, with a certificate that nobody else has signed.
        if connection == ConnectionType::StartTls {
            if skip_verify != Some(true) {
                let expected = "true, since the embedded sink has signed its certificate itself";
                return Err(SpecError::new("skip_verify", expected, "false or nothing"));
            }
            let url = TargetUrl { host, port: address.port(), connection, is_mx: false, path: None };
            return Ok(Unresolved { skip_verify: true, ..Unresolved::unrestricted(url) });
        }
        let connection_type = ConnectionType::Plain;
        let url = TargetUrl { host, port: address.port(), connection: connection_type, is_mx: false, path: None };
        same_connection(&url, Scheme::Smtp(Some(connection)), "the embedded sink")?;
        Ok(Unresolved::unrestricted(url))
    }

    fn url(&self, text: &str, scheme: Scheme, auth: bool, skip_verify: Option<bool>) -> Result<Unresolved, SpecError> {
        let url = TargetUrl::parse(text).map_err(|problem| SpecError { field: "target", problem })?;
        if auth {
            return Err(auth_needs_credentials("a URL, with which no credentials are ever used"));
        }
        same_connection(&url, scheme, &url.to_string())?;
        Ok(Unresolved {
            skip_verify: skip_verify.unwrap_or(false),
            allowed: Some(Arc::clone(&self.allowed)),
            ..Unresolved::unrestricted(url)
        })
    }

    fn named(
        &self,
        name: &str,
        scheme: Scheme,
        auth: bool,
        skip_verify: Option<bool>,
    ) -> Result<Unresolved, SpecError> {
        let Some(target) = self.named.get(name) else {
            return Err(SpecError::new("target", self.known(), shown(name)));
        };
        let credentials = match (auth, &target.credentials) {
            (false, _) => None,
            (true, Some(credentials)) => Some(credentials.clone()),
            (true, None) => return Err(auth_needs_credentials(&format!("{name}, which has none"))),
        };
        if skip_verify == Some(true) && !target.skip_verify {
            let got = format!("true, which is weaker; set skip_verify in [targets.{name}] if that is meant");
            return Err(SpecError::new("skip_verify", format!("false or nothing, as the target {name} has it"), got));
        }
        same_connection(&target.url, scheme, name)?;
        Ok(Unresolved {
            name: format!("{name} ({})", target.url),
            credentials,
            ca_file: target.ca_file.clone(),
            skip_verify: target.skip_verify && skip_verify != Some(false),
            request: target.request.clone(),
            ..Unresolved::unrestricted(target.url.clone())
        })
    }

    /// What `target` may be, in words.
    fn known(&self) -> String {
        let names = listed(self.named.keys());
        let names = if names.is_empty() { "of which none is configured".to_owned() } else { names };
        format!("a URL such as smtp://127.0.0.1:2525, or the name of a configured target ({names})")
    }
}

impl Unresolved {
    /// A URL that may resolve to anything: for whoever may reach everything from here anyway, as a command line's user.
    pub fn unrestricted(url: TargetUrl) -> Unresolved {
        let name = url.to_string();
        let request = url.request();
        let seed = rand::random();
        Unresolved { name, url, credentials: None, ca_file: None, skip_verify: false, request, allowed: None, seed }
    }

    /// With the seed that decides among equally preferred mail exchangers, in place of chance.
    pub fn with_seed(self, seed: u64) -> Unresolved {
        Unresolved { seed, ..self }
    }
}

/// The header field that the embedded sink of HTTP wants to see.
pub fn embedded_authorization() -> Field {
    Field::new("Authorization", EMBEDDED_AUTHORIZATION).expect("it is one line")
}

fn auth_needs_credentials(got: &str) -> SpecError {
    let expected = "a target with user and password_file in the configuration beside it, or false";
    SpecError::new("auth", expected, format!("true with {got}"))
}

/// What a job's type wants of a target's scheme.
#[derive(Clone, Copy)]
enum Scheme {
    /// One of SMTP, secured like that, or however it is.
    Smtp(Option<ConnectionType>),
    /// One of HTTP.
    Http,
}

/// Where a sink that listens on an address is reached from here: on loopback if it listens on every address.
fn loopback_of(address: SocketAddr) -> Host<String> {
    match address.ip() {
        IpAddr::V4(ip) if ip.is_unspecified() => Host::Ipv4(Ipv4Addr::LOCALHOST),
        IpAddr::V6(ip) if ip.is_unspecified() => Host::Ipv6(Ipv6Addr::LOCALHOST),
        IpAddr::V4(ip) => Host::Ipv4(ip),
        IpAddr::V6(ip) => Host::Ipv6(ip),
    }
}

fn same_connection(url: &TargetUrl, scheme: Scheme, target: &str) -> Result<(), SpecError> {
    let asked = match scheme {
        Scheme::Http if url.is_http() => return Ok(()),
        Scheme::Http => {
            return Err(SpecError::new(
                "target",
                "http:// or https:// for a job by HTTP",
                format!("{target}, by SMTP"),
            ));
        }
        Scheme::Smtp(_) if url.is_http() => {
            let got = format!("{target}; give the job type http or http.mime if that is meant");
            let expected = "smtp://, smtps://, smtp+starttls://, mx:// or mx+starttls:// for type smtp";
            return Err(SpecError::new("target", expected, got));
        }
        Scheme::Smtp(None) => return Ok(()),
        Scheme::Smtp(Some(asked)) => asked,
    };
    if url.connection == asked {
        return Ok(());
    }
    let expected = format!("{}, as {target} has it", url.connection.name());
    let got = match url.scheme(asked).filter(|_| target.contains("://")) {
        Some(scheme) => format!("{}; a URL for that begins with {scheme}://", asked.name()),
        None => asked.name().to_owned(),
    };
    Err(SpecError::new("smtp_connection_type", expected, got))
}

fn listed<T: ToString>(items: impl ExactSizeIterator<Item = T>) -> String {
    let more = if items.len() > LISTED_MAX { ", …" } else { "" };
    items.take(LISTED_MAX).map(|item| item.to_string()).collect::<Vec<_>>().join(", ") + more
}

/// Why nothing was found, and whether that may pass.
#[derive(Debug)]
struct LookUpError {
    reason: String,
    is_temporary: bool,
}

/// A host and one of its addresses, the first to be tried first.
type Found = Vec<(String, SocketAddr)>;

/// Looks a target's host up, or its domain's mail exchangers, which may block for long, and checks every address found.
///
/// # Errors
///
/// There is no address, or one outside of the allow-list.
pub fn resolve(target: Unresolved) -> Result<ResolvedTarget, ResolveError> {
    resolve_by(target, look_up)
}

/// The addresses of a URL's host, in the order of the system's resolver, or those of a domain's mail exchangers, in an
/// order that `seed` decides; blocks.
fn look_up(url: &TargetUrl, seed: u64) -> Result<Found, LookUpError> {
    let host = url.host.to_string();
    match url.is_mx {
        true => mail_exchangers_of(resolve::mx(&host, seed)),
        false => match (host.as_str(), url.port).to_socket_addrs() {
            Ok(found) => Ok(found.map(|address| (host.clone(), address)).collect()),
            // The system's resolver does not say which of its errors pass.
            Err(error) => Err(LookUpError { reason: error.to_string(), is_temporary: false }),
        },
    }
}

fn mail_exchangers_of(answer: Result<Vec<MxHost>, MxError>) -> Result<Found, LookUpError> {
    let found = answer.map(|found| found.into_iter().map(|MxHost { host, address }| (host, address)).collect());
    found.map_err(|error| LookUpError { reason: error.to_string(), is_temporary: error.is_temporary() })
}

fn resolve_by(
    target: Unresolved,
    look_up: impl FnOnce(&TargetUrl, u64) -> Result<Found, LookUpError>,
) -> Result<ResolvedTarget, ResolveError> {
    let (url, named) = (&target.url, target.url.host.to_string());
    let found = match &url.host {
        Host::Ipv4(ip) => Ok(vec![(named.clone(), SocketAddr::from((*ip, url.port)))]),
        Host::Ipv6(ip) => Ok(vec![(named.clone(), SocketAddr::from((*ip, url.port)))]),
        Host::Domain(_) => look_up(url, target.seed),
    };
    let expected = if url.is_mx { "a domain with mail exchangers" } else { "a host that can be resolved" };
    let unresolved = |reason: &str| SpecError::new("target", expected, format!("{}: {reason}", shown(&named)));
    let found = found.map_err(|LookUpError { reason, is_temporary }| match is_temporary {
        true => ResolveError::TimedOut(unresolved(&reason)),
        false => ResolveError::Invalid(unresolved(&reason)),
    })?;
    let found: Found = found.into_iter().map(|(host, address)| (host, unmapped(address))).collect();
    if let Some(networks) = &target.allowed {
        let is_allowed = |address: &SocketAddr| networks.iter().any(|network| network.contains(&address.ip()));
        if let Some((host, outside)) = found.iter().find(|(_, address)| !is_allowed(address)) {
            let expected = format!("a host inside of allow_targets ({})", listed(networks.iter()));
            let of = if url.is_mx {
                format!("{}, a mail exchanger of {}", shown(host), shown(&named))
            } else {
                shown(&named)
            };
            let got = format!(
                "{}, an address of {of}; add it to allow_targets in [hammer], or give the target a name in [targets]",
                outside.ip(),
            );
            return Err(SpecError::new("target", expected, got).into());
        }
    }
    let (host, address) = found.into_iter().next().ok_or_else(|| unresolved("it has no address"))?;
    let name = match url.is_mx {
        true => format!("{} (mail exchanger {host}, {address})", target.name),
        false => target.name,
    };
    Ok(ResolvedTarget {
        name,
        host,
        address,
        connection: target.url.connection,
        credentials: target.credentials,
        ca_file: target.ca_file,
        skip_verify: target.skip_verify,
        request: target.request,
        tls: None,
    })
}

/// The address that is really connected to: that of an IPv4-mapped one is the IPv4 one (RFC 4291 §2.5.5.2).
fn unmapped(address: SocketAddr) -> SocketAddr {
    match address.ip().to_canonical() {
        IpAddr::V4(ip) => SocketAddr::from((ip, address.port())),
        IpAddr::V6(_) => address,
    }
}

/// Why a target did not become an address. Only the first is the request's fault.
#[derive(Debug, Error, PartialEq, Eq)]
pub enum ResolveError {
    /// It cannot be, or may not be reached.
    #[error(transparent)]
    Invalid(#[from] SpecError),
    /// Too much is being looked up already, or the machine has no thread.
    #[error("{0}")]
    Busy(SpecError),
    /// The name servers did not answer in time, or cannot say at the moment.
    #[error("{0}")]
    TimedOut(SpecError),
}

impl ResolveError {
    /// What is wrong, and of which field.
    pub fn into_inner(self) -> SpecError {
        let (ResolveError::Invalid(error) | ResolveError::Busy(error) | ResolveError::TimedOut(error)) = self;
        error
    }
}

/// Looks hosts up on threads of its own, so that control never blocks on one.
#[derive(Debug)]
pub struct Resolver {
    /// Every thread holds a clone for as long as it lives: the count of them is that of the threads.
    threads: Arc<()>,
    threads_max: usize,
    /// The same for each host.
    hosts: RefCell<BTreeMap<String, Arc<()>>>,
    of_host_max: usize,
}

impl Default for Resolver {
    /// For whoever asks, whatever for: [`RESOLUTIONS_MAX`] at once.
    fn default() -> Resolver {
        Resolver::bounded(RESOLUTIONS_MAX, RESOLUTIONS_MAX)
    }
}

impl Resolver {
    /// So many look-ups at once, and so many of one host, so that one whose name servers hang does not hold up others.
    pub fn bounded(threads_max: usize, of_host_max: usize) -> Resolver {
        Resolver { threads: Arc::default(), threads_max, hosts: RefCell::default(), of_host_max }
    }

    /// As [`resolve()`], within [`RESOLUTION_TIME_MAX`], on the glommio executor that it must be called from.
    ///
    /// # Errors
    ///
    /// Those of [`resolve()`]; that there was no answer in time; that as many look-ups are under way as may be.
    pub async fn resolve(&self, target: Unresolved) -> Result<ResolvedTarget, ResolveError> {
        self.resolve_by(target, RESOLUTION_TIME_MAX, look_up).await
    }

    async fn resolve_by(
        &self,
        target: Unresolved,
        within: Duration,
        look_up: impl FnOnce(&TargetUrl, u64) -> Result<Found, LookUpError> + Send + 'static,
    ) -> Result<ResolvedTarget, ResolveError> {
        let (host, connection) = (target.url.host.to_string(), target.url.connection);
        if !matches!(target.url.host, Host::Domain(_)) && connection == ConnectionType::Plain {
            return resolve_by(target, look_up);
        }
        let wrong = |what: &str, got: String| SpecError::new("target", what, got);
        let of_host = {
            let mut hosts = self.hosts.borrow_mut();
            hosts.retain(|_, threads| Arc::strong_count(threads) > 1);
            Arc::clone(hosts.entry(host.clone()).or_default())
        };
        let host = shown(&host);
        let busy = |what: String| {
            let got = format!("{host} beside them; try again later, or name an IP address");
            Err(ResolveError::Busy(wrong(&what, got)))
        };
        if Arc::strong_count(&self.threads) > self.threads_max {
            return busy(format!("fewer than {} host names being looked up", self.threads_max));
        }
        // Beside that of the table and this one.
        if Arc::strong_count(&of_host) > self.of_host_max + 1 {
            return busy(format!("fewer than {} look-ups of this host under way", self.of_host_max));
        }
        let (answer, answered) = async_channel::bounded(1);
        let counted = Arc::clone(&self.threads);
        let thread = thread::Builder::new().name("timecop-resolve".to_owned()).spawn(move || {
            // Nobody waits any longer for an answer that comes too late.
            let _ = answer.try_send(resolve_by(target, look_up).and_then(|target| Ok(target.secured()?)));
            drop((counted, of_host));
        });
        if let Err(error) = thread {
            let got = format!("none: {error}; try again later");
            return Err(ResolveError::Busy(wrong("a thread for looking up the host", got)));
        }
        let answer = futures_lite::future::or(async { answered.recv().await.ok() }, async {
            glommio::timer::Timer::new(within).await;
            None
        });
        let seconds = within.as_secs_f64();
        match answer.await {
            Some(answer) => answer,
            None => {
                let got = format!("{host}: no answer in {seconds} s");
                Err(ResolveError::TimedOut(wrong("a host that can be resolved", got)))
            }
        }
    }
}

#[cfg(test)]
mod tests;
