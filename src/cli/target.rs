//! Targets as they are written: `smtp://HOST[:PORT]`.

use std::net::ToSocketAddrs;

use url::Url;

use super::StartError;
use crate::job::spec::Target;

/// The port of SMTP (RFC 5321 §4.5.4.2).
const SMTP_PORT: u16 = 25;

/// Reads a target's URL and resolves its host, once.
pub(super) fn resolve(text: &str) -> Result<Target, StartError> {
    let (host, port) = parse(text)?;
    let unresolved = |reason: String| {
        StartError::new(format!("TARGET: expected a host that can be resolved, got {host:?}: {reason}"))
    };
    let bare = host.trim_start_matches('[').trim_end_matches(']');
    let mut addresses = (bare, port).to_socket_addrs().map_err(|error| unresolved(error.to_string()))?;
    let address = addresses.next().ok_or_else(|| unresolved("it has no address".to_owned()))?;
    Ok(Target { name: format!("smtp://{host}:{port}"), address })
}

/// Host and port of a target's URL.
fn parse(text: &str) -> Result<(String, u16), StartError> {
    let wrong = |got: &str| {
        StartError::new(format!("TARGET: expected smtp://HOST[:PORT], such as smtp://127.0.0.1:2525, got {got}"))
    };
    if !text.contains("://") {
        return Err(wrong(&format!("{text:?}; did you mean smtp://{text} ?")));
    }
    let url = Url::parse(text).map_err(|error| wrong(&format!("{text:?} ({error})")))?;
    match url.scheme() {
        "smtp" => {}
        "smtps" => return Err(wrong("smtps://, and TLS is not spoken yet")),
        other => return Err(wrong(&format!("the scheme {other:?}"))),
    }
    if !url.username().is_empty() || url.password().is_some() {
        return Err(wrong("a URL with a user in it"));
    }
    if !matches!(url.path(), "" | "/") || url.query().is_some() || url.fragment().is_some() {
        return Err(wrong(&format!("{text:?}, which goes on behind host and port")));
    }
    let host = url.host_str().filter(|host| !host.is_empty()).ok_or_else(|| wrong(&format!("{text:?}")))?;
    match url.port().unwrap_or(SMTP_PORT) {
        0 => Err(wrong("port 0, on which nobody can listen")),
        port => Ok((host.to_owned(), port)),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn targets_are_smtp_urls() {
        assert_eq!(parse("smtp://mx.example.com").unwrap(), ("mx.example.com".to_owned(), 25));
        assert_eq!(parse("smtp://127.0.0.1:2525/").unwrap(), ("127.0.0.1".to_owned(), 2525));
        assert_eq!(parse("smtp://[::1]:2525").unwrap(), ("[::1]".to_owned(), 2525));
        assert_eq!(resolve("smtp://[::1]:2525").unwrap().address, "[::1]:2525".parse().unwrap());
        assert_eq!(resolve("smtp://127.0.0.1").unwrap().name, "smtp://127.0.0.1:25");
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
