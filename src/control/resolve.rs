//! Where a domain's mail goes: its MX records (RFC 5321 §5.1), and the addresses of the hosts they name.
//!
//! The resolver brings an executor of its own and runs nowhere but here, on the thread of the caller, who must not be a
//! shard and should not be anybody that others wait for.

use std::net::SocketAddr;
use std::time::Duration;

use hickory_resolver::TokioResolver;
use hickory_resolver::config::{LookupIpStrategy, ResolverConfig, ResolverOpts};
use hickory_resolver::net::runtime::TokioRuntimeProvider;
use hickory_resolver::net::{DnsError, NetError};
use hickory_resolver::proto::rr::{Name, RData, RecordType};
use rand::SeedableRng as _;
use rand::seq::SliceRandom as _;
use rand_pcg::Pcg64;
use thiserror::Error;

/// The port at which mail exchangers take mail (RFC 5321 §2.3.5).
pub const MX_PORT: u16 = 25;
/// Time limit of all questions for one domain.
pub const MX_TIMEOUT: Duration = Duration::from_secs(10);
/// Most mail exchangers of a domain whose addresses are asked for, the most preferred ones.
pub const MX_HOSTS_MAX: usize = 16;
/// Most addresses of one mail exchanger.
pub const ADDRESSES_MAX: usize = 16;

/// One address at which a domain takes mail.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct MxHost {
    /// The mail exchanger's name, without a dot at its end.
    pub host: String,
    /// One of its addresses, with [`MX_PORT`].
    pub address: SocketAddr,
}

/// Why there is no address to which a domain's mail could go. The domain itself is for the caller to name.
#[derive(Clone, Debug, PartialEq, Eq, Error)]
pub enum MxError {
    /// No domain's name.
    #[error("expected a domain, such as example.com, got {0}")]
    Domain(String),
    /// The name servers know nothing of the domain.
    #[error("there is no such domain")]
    NoSuchDomain,
    /// The domain has a null MX.
    #[error("the domain takes no mail: its MX is null (RFC 7505)")]
    NoMail,
    /// No host has an address.
    #[error("no address at which mail could be taken: asked for {0}")]
    NoAddress(String),
    /// No answer that could be relied on.
    #[error("the name servers cannot say at the moment ({0}); try again later")]
    Temporary(String),
    /// The time was over.
    #[error("the name servers did not answer within {} s; try again later", MX_TIMEOUT.as_secs())]
    TimedOut,
    /// This machine cannot ask.
    #[error("this machine cannot ask name servers: {0}")]
    Machine(String),
}

impl MxError {
    /// Whether the same question may well be answered in a while.
    pub fn is_temporary(&self) -> bool {
        matches!(self, MxError::Temporary(_) | MxError::TimedOut)
    }
}

/// Where the mail of `domain` goes, in the order in which it is to be tried: the most preferred mail exchanger first,
/// equally preferred ones in an order that `seed` decides, of each the IPv4 addresses first. A domain without MX is
/// its own mail exchanger. Blocks for at most [`MX_TIMEOUT`]; asks the name servers of the system.
pub fn mx(domain: &str, seed: u64) -> Result<Vec<MxHost>, MxError> {
    let (config, options) =
        hickory_resolver::system_conf::read_system_conf().map_err(|error| MxError::Machine(error.to_string()))?;
    mx_from(config, options, domain, seed)
}

/// The same from name servers that are given.
fn mx_from(config: ResolverConfig, mut options: ResolverOpts, domain: &str, seed: u64) -> Result<Vec<MxHost>, MxError> {
    let domain = name_of(domain)?;
    options.ip_strategy = LookupIpStrategy::Ipv4AndIpv6;
    let machine = |error: &dyn std::fmt::Display| MxError::Machine(error.to_string());
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build();
    runtime.map_err(|error| machine(&error))?.block_on(async {
        let resolver = TokioResolver::builder_with_config(config, TokioRuntimeProvider::default())
            .with_options(options)
            .build()
            .map_err(|error| machine(&error))?;
        let mut found = Vec::new();
        match tokio::time::timeout(MX_TIMEOUT, ask(&resolver, domain, seed, &mut found)).await {
            Ok(answer) => answer.map(|()| found),
            // The most preferred ones were asked for first.
            Err(_) if !found.is_empty() => Ok(found),
            Err(_) => Err(MxError::TimedOut),
        }
    })
}

/// The domain as a complete name, so that nothing the system would append is tried; internationalized names in their
/// ASCII form.
fn name_of(domain: &str) -> Result<Name, MxError> {
    let wrong = |reason: &str| MxError::Domain(format!("{domain:?} ({reason})"));
    match url::Host::parse(domain).map_err(|error| wrong(&error.to_string()))? {
        url::Host::Domain(ascii) => {
            let mut name = Name::from_ascii(&ascii).map_err(|error| wrong(&error.to_string()))?;
            name.set_fqdn(true);
            if name.is_root() { Err(wrong("the root")) } else { Ok(name) }
        }
        url::Host::Ipv4(_) | url::Host::Ipv6(_) => Err(wrong("an address")),
    }
}

/// Puts what it finds into `found`, which is not empty at a good end.
async fn ask(resolver: &TokioResolver, domain: Name, seed: u64, found: &mut Vec<MxHost>) -> Result<(), MxError> {
    let hosts = exchangers(resolver, domain, seed).await?;
    let mut failure = None;
    for host in &hosts {
        let name = host.to_ascii().trim_end_matches('.').to_owned();
        match resolver.lookup_ip(host.clone()).await {
            Ok(addresses) => found.extend(
                addresses
                    .iter()
                    .take(ADDRESSES_MAX)
                    .map(|address| MxHost { host: name.clone(), address: SocketAddr::new(address, MX_PORT) }),
            ),
            // Without it the next one is tried, as a mail server would.
            Err(error) if error.is_no_records_found() => {}
            Err(error) => failure = Some(MxError::Temporary(plain(&error))),
        }
    }
    match (found.is_empty(), failure) {
        (false, _) => Ok(()),
        (true, Some(failure)) => Err(failure),
        (true, None) => {
            let asked: Vec<String> = hosts.iter().map(|host| host.to_ascii()).collect();
            Err(MxError::NoAddress(asked.join(", ")))
        }
    }
}

/// The domain's mail exchangers, the first to be tried first.
async fn exchangers(resolver: &TokioResolver, domain: Name, seed: u64) -> Result<Vec<Name>, MxError> {
    let answer = match resolver.lookup(domain.clone(), RecordType::MX).await {
        Ok(answer) => answer,
        Err(error) if error.is_nx_domain() => return Err(MxError::NoSuchDomain),
        Err(error) if error.is_no_records_found() => return Ok(vec![domain]),
        Err(error) => return Err(MxError::Temporary(plain(&error))),
    };
    let records = answer.answers().iter().filter_map(|record| match &record.data {
        RData::MX(mx) => Some((mx.preference, mx.exchange.clone())),
        _ => None,
    });
    let mut records: Vec<(u16, Name)> = records.collect();
    if records.is_empty() {
        return Ok(vec![domain]);
    }
    // Beside another record a null one means nothing (RFC 7505 §3).
    records.retain(|(_, exchange)| !exchange.is_root());
    if records.is_empty() {
        return Err(MxError::NoMail);
    }
    // Name servers answer in whatever order. Sorted by name first, the seed alone decides among equals.
    records.sort();
    records.shuffle(&mut Pcg64::seed_from_u64(seed));
    records.sort_by_key(|(preference, _)| *preference);
    Ok(records.into_iter().take(MX_HOSTS_MAX).map(|(_, exchange)| exchange).collect())
}

/// The resolver's error in few words.
fn plain(error: &NetError) -> String {
    match error {
        NetError::Dns(DnsError::ResponseCode(code)) => code.to_str().to_owned(),
        error => error.to_string(),
    }
}

#[cfg(test)]
pub(super) mod tests;
