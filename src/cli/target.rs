//! Targets as they are written: `smtp://HOST[:PORT]`, `smtps://…`, `smtp+starttls://…`.

use std::net::ToSocketAddrs;

use url::Url;

use super::StartError;
use crate::job::spec::{ConnectionType, Target};

/// Scheme, how it secures connections, and its port: that of SMTP (RFC 5321 §4.5.4.2), of submission under TLS (RFC 8314
/// §3.3), of submission (RFC 6409 §3.1).
const SCHEMES: [(&str, ConnectionType, u16); 3] = [
    ("smtp", ConnectionType::Plain, 25),
    ("smtps", ConnectionType::Tls, 465),
    ("smtp+starttls", ConnectionType::StartTls, 587),
];

/// What a target's URL says.
#[derive(Debug, PartialEq, Eq)]
struct Parsed {
    scheme: &'static str,
    connection: ConnectionType,
    host: String,
    port: u16,
}

/// Reads a target's URL and resolves its host, once.
pub(super) fn resolve(text: &str) -> Result<Target, StartError> {
    let Parsed { scheme, connection, host, port } = parse(text)?;
    let unresolved = |reason: String| {
        StartError::new(format!("TARGET: expected a host that can be resolved, got {host:?}: {reason}"))
    };
    let bare = host.trim_start_matches('[').trim_end_matches(']');
    let mut addresses = (bare, port).to_socket_addrs().map_err(|error| unresolved(error.to_string()))?;
    let address = addresses.next().ok_or_else(|| unresolved("it has no address".to_owned()))?;
    Ok(Target { name: format!("{scheme}://{host}:{port}"), host: bare.to_owned(), address, connection })
}

fn parse(text: &str) -> Result<Parsed, StartError> {
    let wrong = |got: &str| {
        StartError::new(format!(
            "TARGET: expected smtp://HOST[:PORT], smtps://HOST[:PORT] or smtp+starttls://HOST[:PORT], such as \
             smtp://127.0.0.1:2525, got {got}"
        ))
    };
    if !text.contains("://") {
        return Err(wrong(&format!("{text:?}; did you mean smtp://{text} ?")));
    }
    let url = Url::parse(text).map_err(|error| wrong(&format!("{text:?} ({error})")))?;
    let known = SCHEMES.into_iter().find(|(scheme, ..)| *scheme == url.scheme());
    let (scheme, connection, usual_port) = known.ok_or_else(|| wrong(&format!("the scheme {:?}", url.scheme())))?;
    if !url.username().is_empty() || url.password().is_some() {
        return Err(wrong("a URL with a user in it"));
    }
    if !matches!(url.path(), "" | "/") || url.query().is_some() || url.fragment().is_some() {
        return Err(wrong(&format!("{text:?}, which goes on behind host and port")));
    }
    let host = url.host_str().filter(|host| !host.is_empty()).ok_or_else(|| wrong(&format!("{text:?}")))?;
    match url.port().unwrap_or(usual_port) {
        0 => Err(wrong("port 0, on which nobody can listen")),
        port => Ok(Parsed { scheme, connection, host: host.to_owned(), port }),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn targets_are_urls_whose_scheme_says_how_they_are_secured() {
        let read = |text| parse(text).map(|parsed| (parsed.connection.name(), parsed.host, parsed.port)).unwrap();
        assert_eq!(read("smtp://mx.example.com"), ("plain", "mx.example.com".to_owned(), 25));
        assert_eq!(read("smtps://mx.example.com"), ("tls", "mx.example.com".to_owned(), 465));
        assert_eq!(read("smtp+starttls://mx.example.com"), ("starttls", "mx.example.com".to_owned(), 587));
        assert_eq!(read("smtp://127.0.0.1:2525/"), ("plain", "127.0.0.1".to_owned(), 2525));
        assert_eq!(read("smtps://[::1]:2525"), ("tls", "[::1]".to_owned(), 2525));
        let resolved = resolve("smtps://[::1]:2525").unwrap();
        assert_eq!((resolved.address, resolved.host.as_str()), ("[::1]:2525".parse().unwrap(), "::1"));
        assert_eq!(resolve("smtp://127.0.0.1").unwrap().name, "smtp://127.0.0.1:25");
        assert_eq!(resolve("smtp+starttls://127.0.0.1").unwrap().name, "smtp+starttls://127.0.0.1:587");
    }

    #[test]
    fn anything_else_says_what_was_expected() {
        for wrong in
            ["127.0.0.1:2525", "localhost", "http://a", "smtp://", "smtp://u:secret@a", "smtp://a/b", "smtp://a?b"]
        {
            let error = parse(wrong).unwrap_err().to_string();
            assert!(error.contains("smtp://HOST[:PORT]"), "{wrong}: {error}");
            assert!(!error.contains("secret"), "{error}");
        }
    }
}
