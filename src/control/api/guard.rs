//! Who may ask: what a request's head must show before anything else of it is looked at.
//!
//! A browser on the same machine reaches loopback, too. So the name that a client thinks it talks to (`Host`) and the page
//! that sends it (`Origin`, `Sec-Fetch-Site`) have to be ours, and a body has to be of a type that a foreign page cannot
//! send without asking first.

use std::net::{IpAddr, Ipv6Addr, SocketAddr};

use hyper::StatusCode;
use hyper::header::{
    AUTHORIZATION, AsHeaderName, CONTENT_LENGTH, CONTENT_TYPE, HOST, HeaderMap, HeaderValue, ORIGIN, TRANSFER_ENCODING,
};
use hyper::http::request::Parts;
use secrecy::{ExposeSecret as _, SecretString};
use sha2::{Digest as _, Sha256};
use subtle::ConstantTimeEq as _;
use thiserror::Error;

use super::http::{Refusal, shown};

/// The path that answers everybody: whether the service lives.
const FREE_PATH: &str = "/healthz";

/// Decides which requests are let in.
#[derive(Debug)]
pub struct Guard {
    /// Wanted for every path but `/healthz`, on loopback as well.
    token: Option<SecretString>,
    /// Configured: allowed in `Host` and `Origin`.
    hosts: Vec<Host>,
    /// Listened on: allowed in `Host`, as loopback is.
    listened_on: Vec<Host>,
}

/// Why there can be no such guard.
#[derive(Debug, Error, PartialEq, Eq)]
pub enum GuardError {
    /// Everybody could reach the API.
    #[error("listen: expected a loopback address where there is no token_file, got {0}; set token_file")]
    NoToken(SocketAddr),
    /// A token that no header can carry, or none at all.
    #[error("token_file: expected a token of visible ASCII characters; write one into the file")]
    Token,
    /// A host that is none.
    #[error("hosts: expected host names or IP addresses, got {0}")]
    Host(String),
}

impl Guard {
    /// A guard of what is served on `listen`. Without a token only loopback may be listened on. `hosts` are names or IP
    /// addresses, their ports ignored, under which clients reach the service; the addresses that it listens on and
    /// loopback need not be among them.
    pub fn new(token: Option<SecretString>, hosts: &[String], listen: &[SocketAddr]) -> Result<Guard, GuardError> {
        match &token {
            Some(token) => {
                let token = token.expose_secret();
                if token.is_empty() || !token.bytes().all(|octet| octet.is_ascii_graphic()) {
                    return Err(GuardError::Token);
                }
            }
            None => {
                if let Some(open) = listen.iter().find(|address| !address.ip().to_canonical().is_loopback()) {
                    return Err(GuardError::NoToken(*open));
                }
            }
        }
        let configured = hosts.iter().map(|host| {
            let address = host.parse().ok().map(|address: IpAddr| Host::Address(address.to_canonical()));
            address.or_else(|| Host::parse(host)).ok_or_else(|| GuardError::Host(shown(host.as_bytes())))
        });
        let hosts = configured.collect::<Result<Vec<_>, _>>()?;
        // 0.0.0.0 says nothing of the address by which the service is reached.
        let listened_on = listen.iter().map(|address| address.ip().to_canonical()).filter(|ip| !ip.is_unspecified());
        let listened_on = listened_on.map(Host::Address).collect();
        Ok(Guard { token, hosts, listened_on })
    }

    /// Lets a request in, or says why not.
    pub fn admit(&self, head: &Parts) -> Result<(), Refusal> {
        self.check_host(head)?;
        self.check_origin(&head.headers)?;
        match head.uri.path() == FREE_PATH {
            true => check_no_body(&head.headers)?,
            false => self.check_token(&head.headers)?,
        }
        check_content_type(&head.headers)
    }

    /// The name that the client thinks it talks to. A foreign one that resolves to us is an attack (DNS rebinding).
    fn check_host(&self, head: &Parts) -> Result<(), Refusal> {
        let bad = |got: &str| {
            let reason = format!("Host: expected one header with a host and perhaps a port, got {got}");
            Refusal::new(StatusCode::BAD_REQUEST, reason)
        };
        let in_header = match one(&head.headers, HOST) {
            Found::One(value) => value.as_bytes(),
            Found::None => return Err(bad("none")),
            Found::Many => return Err(bad("several")),
        };
        // The target of a request may name a host as well (RFC 9112 §3.2.2).
        let in_target = head.uri.authority().map(|authority| authority.as_str().as_bytes());
        for got in [Some(in_header), in_target].into_iter().flatten() {
            let host = Host::of(got).ok_or_else(|| bad(&shown(got)))?;
            if !self.is_ours(&host) {
                let reason = format!(
                    "Host: expected localhost, a loopback address or a configured host, got {}; add it to hosts in [api] \
                     if the service is reached by it",
                    shown(got)
                );
                return Err(Refusal::new(StatusCode::FORBIDDEN, reason));
            }
        }
        Ok(())
    }

    /// The page that sends the request, where a browser says so: one of this service itself, by the name that the request
    /// goes to, or of a configured host. What another program on this machine serves is foreign, too.
    fn check_origin(&self, headers: &HeaderMap) -> Result<(), Refusal> {
        let refusal = |got: &str| {
            let reason = format!(
                "Origin: expected none, the service's own or one of a configured host, got {got}; add its host to hosts \
                 in [api] if its pages may use the API"
            );
            Err(Refusal::new(StatusCode::FORBIDDEN, reason))
        };
        match one(headers, ORIGIN) {
            Found::None => {}
            Found::Many => return refusal("several"),
            Found::One(value) => {
                let origin = value.to_str().ok().and_then(|origin| origin.split_once("://"));
                let page = origin.filter(|(scheme, _)| ["http", "https"].contains(scheme)).map(|(_, page)| page);
                let own = headers.get(HOST).map(HeaderValue::as_bytes);
                let is_own = |page: &str| own.is_some_and(|own| own.eq_ignore_ascii_case(page.as_bytes()));
                let is_configured = |page: &str| Host::parse(page).is_some_and(|host| self.hosts.contains(&host));
                if !page.is_some_and(|page| is_own(page) || is_configured(page)) {
                    return refusal(&shown(value.as_bytes()));
                }
            }
        }
        if headers.get_all("sec-fetch-site").iter().any(|site| site.as_bytes().eq_ignore_ascii_case(b"cross-site")) {
            let reason = "Sec-Fetch-Site: expected a request that no page of another site makes, got cross-site";
            return Err(Refusal::new(StatusCode::FORBIDDEN, reason));
        }
        Ok(())
    }

    fn check_token(&self, headers: &HeaderMap) -> Result<(), Refusal> {
        let Some(token) = &self.token else { return Ok(()) };
        let refusal = |got: &str| {
            let reason = format!("Authorization: expected Bearer and the token of the service's token_file, got {got}");
            Err(Refusal::new(StatusCode::UNAUTHORIZED, reason))
        };
        let credentials = match one(headers, AUTHORIZATION) {
            Found::One(value) => value.as_bytes(),
            Found::None => return refusal("none"),
            Found::Many => return refusal("several"),
        };
        let space = credentials.iter().position(|octet| *octet == b' ').unwrap_or(credentials.len());
        let (scheme, given) = credentials.split_at(space);
        if !scheme.eq_ignore_ascii_case(b"Bearer") {
            return refusal("another scheme");
        }
        // Digests are all of one length, so that the time tells nothing of the token's.
        let (given, wanted) = (Sha256::digest(given.trim_ascii()), Sha256::digest(token.expose_secret()));
        match bool::from(given.as_slice().ct_eq(wanted.as_slice())) {
            true => Ok(()),
            false => refusal("another token"),
        }
    }

    fn is_ours(&self, host: &Host) -> bool {
        let is_loopback = match host {
            Host::Address(address) => address.is_loopback(),
            Host::Name(name) => name == "localhost",
        };
        is_loopback || self.hosts.contains(host) || self.listened_on.contains(host)
    }
}

/// Whether there is more of a request than its head.
fn has_body(headers: &HeaderMap) -> bool {
    let length = headers.get(CONTENT_LENGTH).map(|length| length.to_str().ok().and_then(|length| length.parse().ok()));
    length.is_some_and(|length| length != Some(0_u64)) || headers.contains_key(TRANSFER_ENCODING)
}

/// What anybody may ask must not fill the room that there is for bodies.
fn check_no_body(headers: &HeaderMap) -> Result<(), Refusal> {
    match has_body(headers) {
        false => Ok(()),
        true => {
            let reason = format!("expected no body for {FREE_PATH}, got one; leave it out");
            Err(Refusal::new(StatusCode::PAYLOAD_TOO_LARGE, reason))
        }
    }
}

/// A foreign page can send some types without asking first, but not this one.
fn check_content_type(headers: &HeaderMap) -> Result<(), Refusal> {
    let got = match one(headers, CONTENT_TYPE) {
        _ if !has_body(headers) => return Ok(()),
        Found::None => "none".to_owned(),
        Found::Many => "several".to_owned(),
        Found::One(value) => {
            let essence = value.as_bytes().split(|octet| *octet == b';').next().unwrap_or_default();
            if essence.trim_ascii().eq_ignore_ascii_case(b"application/json") {
                return Ok(());
            }
            shown(value.as_bytes())
        }
    };
    let reason = format!("Content-Type: expected application/json, got {got}");
    Err(Refusal::new(StatusCode::UNSUPPORTED_MEDIA_TYPE, reason))
}

/// How often a header that may stand once is there.
enum Found<'a> {
    None,
    One(&'a HeaderValue),
    Many,
}

fn one(headers: &HeaderMap, name: impl AsHeaderName) -> Found<'_> {
    let mut values = headers.get_all(name).iter();
    match (values.next(), values.next()) {
        (None, _) => Found::None,
        (Some(value), None) => Found::One(value),
        (Some(_), Some(_)) => Found::Many,
    }
}

/// The host of a URL, in the one spelling by which hosts are compared.
#[derive(Clone, Debug, PartialEq, Eq)]
enum Host {
    /// An IPv4-mapped address is the IPv4 address.
    Address(IpAddr),
    /// In lower case, without the dot of the root.
    Name(String),
}

impl Host {
    fn of(octets: &[u8]) -> Option<Host> {
        std::str::from_utf8(octets).ok().and_then(Host::parse)
    }

    /// Reads `host [":" port]` (RFC 9110 §7.2) and drops the port. An IPv6 address stands in brackets.
    fn parse(text: &str) -> Option<Host> {
        let (host, port) = match text.strip_prefix('[') {
            Some(rest) => {
                let (address, port) = rest.split_once(']')?;
                (Host::Address(IpAddr::V6(address.parse::<Ipv6Addr>().ok()?).to_canonical()), port)
            }
            None => {
                let (name, port) = text.split_at(text.find(':').unwrap_or(text.len()));
                (Host::named(name)?, port)
            }
        };
        let is_port = match port.strip_prefix(':') {
            None => port.is_empty(),
            Some("") => true,
            Some(digits) => digits.bytes().all(|octet| octet.is_ascii_digit()) && digits.parse::<u16>().is_ok(),
        };
        is_port.then_some(host)
    }

    fn named(name: &str) -> Option<Host> {
        let name = name.strip_suffix('.').unwrap_or(name);
        if name.is_empty() || !name.bytes().all(|octet| octet.is_ascii_alphanumeric() || b"-._".contains(&octet)) {
            return None;
        }
        Some(match name.parse() {
            Ok(address) => Host::Address(address),
            Err(_) => Host::Name(name.to_ascii_lowercase()),
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const TOKEN: &str = "s3cret-token";

    fn guard(token: Option<&str>, hosts: &[&str], listen: &[&str]) -> Result<Guard, GuardError> {
        let hosts: Vec<String> = hosts.iter().map(|host| (*host).to_owned()).collect();
        let listen: Vec<SocketAddr> = listen.iter().map(|address| address.parse().unwrap()).collect();
        Guard::new(token.map(SecretString::from), &hosts, &listen)
    }

    fn on_loopback() -> Guard {
        guard(None, &["Load.Example.com", "192.0.2.7:8025", "2001:db8::7"], &["127.0.0.1:8025"]).unwrap()
    }

    fn head(target: &str, headers: &[(&str, &str)]) -> Parts {
        let mut request = hyper::Request::builder().uri(target);
        for (name, value) in headers {
            request = request.header(*name, *value);
        }
        request.body(()).unwrap().into_parts().0
    }

    /// The status that a request with these headers gets; 200 if it is let in. `Host` is added where there is none.
    fn status(guard: &Guard, target: &str, headers: &[(&str, &str)]) -> u16 {
        let mut all = headers.to_vec();
        if !headers.iter().any(|(name, _)| *name == "host") {
            all.push(("host", "localhost:8025"));
        }
        match guard.admit(&head(target, &all)) {
            Ok(()) => 200,
            Err(refusal) => {
                assert!(refusal.reason.contains("expected") && refusal.reason.contains("got"), "{}", refusal.reason);
                refusal.status.as_u16()
            }
        }
    }

    #[test]
    fn only_loopback_what_is_listened_on_and_what_is_configured_may_be_the_host() {
        let guard = guard(
            Some(TOKEN),
            &["Load.Example.com", "192.0.2.7:8025", "2001:db8::7"],
            &["127.0.0.1:8025", "198.51.100.1:8025", "0.0.0.0:8026"],
        )
        .unwrap();
        for (host, wanted) in [
            ("localhost", 200),
            ("LocalHost.:80", 200),
            ("127.0.0.1", 200),
            ("127.8.9.10:1", 200),
            ("[::1]:8025", 200),
            ("[::ffff:127.0.0.1]", 200),
            ("localhost:", 200),
            ("load.example.COM.", 200),
            ("192.0.2.7", 200),
            ("[2001:db8:0::7]:9", 200),
            ("198.51.100.1:8025", 200),
            ("0.0.0.0:8026", 403),
            ("[::]", 403),
            ("example.com", 403),
            ("evil.load.example.com", 403),
            ("localhost.example.com", 403),
            ("a.localhost", 403),
            ("127.0.0.1.nip.io", 403),
            ("192.0.2.8", 403),
            ("[2001:db8::8]", 403),
            ("", 400),
            (".", 400),
            ("localhost:port", 400),
            ("localhost:65536", 400),
            ("localhost:+80", 400),
            ("localhost:80:80", 400),
            ("user@localhost", 400),
            ("localhost, localhost", 400),
            ("[::1", 400),
            ("[::1]x", 400),
            ("::1", 400),
            ("[127.0.0.1]", 400),
            ("localhost/", 400),
        ] {
            let bearer = format!("Bearer {TOKEN}");
            assert_eq!(status(&guard, "/", &[("host", host), ("authorization", &bearer)]), wanted, "{host:?}");
        }
        let none = guard.admit(&head("/", &[])).unwrap_err();
        assert_eq!(none.status, 400);
        assert_eq!(status(&guard, "/", &[("host", "localhost"), ("host", "localhost")]), 400);
    }

    #[test]
    fn a_host_in_the_target_must_be_ours_as_well() {
        let guard = on_loopback();
        assert_eq!(status(&guard, "http://127.0.0.1:8025/", &[]), 200);
        assert_eq!(status(&guard, "http://example.com/", &[]), 403);
        assert_eq!(status(&guard, "http://u@localhost/", &[]), 400);
        assert_eq!(status(&guard, "http://localhost/", &[("host", "example.com")]), 403);
    }

    #[test]
    fn a_foreign_page_is_refused() {
        let guard = on_loopback();
        for (origin, wanted) in [
            ("http://localhost:3000", 403),
            ("https://127.0.0.1", 403),
            ("http://[::1]:8025", 403),
            ("http://localhost:8025", 200),
            ("http://LOCALHOST:8025", 200),
            ("https://load.example.com", 200),
            ("null", 403),
            ("", 403),
            ("http://example.com", 403),
            ("https://localhost.example.com", 403),
            ("file://localhost", 403),
            ("chrome-extension://localhost", 403),
            ("http://localhost/path", 403),
            ("http://localhost@example.com", 403),
            ("localhost", 403),
        ] {
            assert_eq!(status(&guard, "/", &[("origin", origin)]), wanted, "{origin:?}");
            // Not even where no token is needed.
            assert_eq!(status(&guard, "/healthz", &[("origin", origin)]), wanted, "{origin:?}");
        }
        assert_eq!(status(&guard, "/", &[("host", "[::1]:8025"), ("origin", "http://[::1]:8025")]), 200);
        assert_eq!(status(&guard, "/", &[("origin", "http://localhost"), ("origin", "http://localhost")]), 403);
        for (site, wanted) in [("same-origin", 200), ("same-site", 200), ("none", 200), ("Cross-Site", 403)] {
            assert_eq!(status(&guard, "/", &[("sec-fetch-site", site)]), wanted, "{site:?}");
        }
    }

    #[test]
    fn a_configured_token_is_wanted_everywhere_but_at_healthz() {
        for listen in ["127.0.0.1:8025", "192.0.2.1:8025"] {
            let guard = guard(Some(TOKEN), &[], &[listen]).unwrap();
            for (credentials, wanted) in [
                ("Bearer s3cret-token", 200),
                ("bearer  s3cret-token", 200),
                ("BEARER s3cret-token ", 200),
                ("Bearer s3cret-toke", 401),
                ("Bearer s3cret-tokens", 401),
                ("Bearer S3cret-token", 401),
                ("Bearer s3cret-token s3cret-token", 401),
                ("Bearer", 401),
                ("Bearer ", 401),
                ("Bearers3cret-token", 401),
                ("Basic s3cret-token", 401),
                ("s3cret-token", 401),
                ("", 401),
            ] {
                let sent = [("authorization", credentials)];
                assert_eq!(status(&guard, "/v1/hammer/job.list", &sent), wanted, "{credentials:?}");
                assert_eq!(status(&guard, "/healthz", &sent), 200, "{credentials:?}");
            }
            assert_eq!(status(&guard, "/", &[]), 401);
            let twice = [("authorization", "Bearer s3cret-token"), ("authorization", "Bearer s3cret-token")];
            assert_eq!(status(&guard, "/", &twice), 401);
            for path in ["/healthz/", "/HEALTHZ", "/healthz/../metrics", "//healthz", "/metrics?/healthz"] {
                assert_eq!(status(&guard, path, &[]), 401, "{path}");
            }
        }
        assert_eq!(status(&on_loopback(), "/metrics", &[]), 200, "no token is configured");
    }

    #[test]
    fn nothing_off_loopback_is_served_without_a_token() {
        for open in ["0.0.0.0:8025", "[::]:8025", "192.0.2.1:8025", "[2001:db8::1]:8025"] {
            let error = guard(None, &[], &["127.0.0.1:8025", open]).unwrap_err();
            assert_eq!(error, GuardError::NoToken(open.parse().unwrap()));
            assert!(guard(Some(TOKEN), &[], &[open]).is_ok());
        }
        assert!(guard(None, &[], &["127.0.0.1:8025", "[::1]:8025", "127.1.2.3:1"]).is_ok());
        for token in ["", " ", "two words", "line\n", "é"] {
            assert_eq!(guard(Some(token), &[], &[]).unwrap_err(), GuardError::Token, "{token:?}");
        }
        for host in ["", "http://load.example.com", "load.example.com/", "a b", "*"] {
            assert!(matches!(guard(None, &[host], &[]).unwrap_err(), GuardError::Host(_)), "{host:?}");
        }
    }

    #[test]
    fn a_body_has_to_be_json() {
        let guard = on_loopback();
        let long = ("content-length", "2");
        for (headers, wanted) in [
            (&[long, ("content-type", "application/json")][..], 200),
            (&[long, ("content-type", "Application/JSON; charset=utf-8")], 200),
            (&[("transfer-encoding", "chunked"), ("content-type", "application/json")], 200),
            (&[("content-length", "0")], 200),
            (&[("content-length", "0"), ("content-type", "text/plain")], 200),
            (&[("content-type", "text/plain")], 200),
            (&[long], 415),
            (&[long, ("content-type", "")], 415),
            (&[long, ("content-type", "text/plain")], 415),
            (&[long, ("content-type", "text/plain; application/json")], 415),
            (&[long, ("content-type", "application/jsonp")], 415),
            (&[long, ("content-type", "application/x-www-form-urlencoded")], 415),
            (&[("transfer-encoding", "chunked")], 415),
            (&[long, ("content-type", "application/json"), ("content-type", "text/plain")], 415),
        ] {
            assert_eq!(status(&guard, "/v1/hammer/job.run", headers), wanted, "{headers:?}");
        }
    }

    #[test]
    fn what_is_free_takes_no_body_of_anybody() {
        for guard in [guard(Some(TOKEN), &[], &[]).unwrap(), on_loopback()] {
            let json = ("content-type", "application/json");
            for (headers, wanted) in [
                (&[("content-length", "1"), json][..], 413),
                (&[("content-length", "33554432"), json], 413),
                (&[("transfer-encoding", "chunked"), json], 413),
                (&[("content-length", "1")], 413),
                (&[("content-length", "0"), json], 200),
                (&[json], 200),
            ] {
                assert_eq!(status(&guard, "/healthz", headers), wanted, "{headers:?}");
            }
        }
    }

    #[test]
    fn no_token_is_shown_and_what_is_shown_is_short_and_escaped() {
        let guard = guard(Some(TOKEN), &[], &["127.0.0.1:1"]).unwrap();
        assert!(!format!("{guard:?}").contains(TOKEN));
        let sent = [("host", "localhost"), ("authorization", "Bearer guessed-token")];
        let refusal = guard.admit(&head("/", &sent)).unwrap_err();
        assert!(!refusal.reason.contains(TOKEN) && !refusal.reason.contains("guessed"), "{}", refusal.reason);
        let long = format!("{}\t\"<b>", "x".repeat(100));
        let refusal = guard.admit(&head("/", &[("host", &long)])).unwrap_err();
        assert!(refusal.reason.ends_with(&format!("got \"{}…\"", "x".repeat(80))), "{}", refusal.reason);
        let refusal = guard.admit(&head("/", &[("host", "a\t\"b")])).unwrap_err();
        assert!(refusal.reason.ends_with("got \"a\\t\\\"b\""), "{}", refusal.reason);
    }
}
