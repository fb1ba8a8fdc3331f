//! The target of the command line: a URL whose host is resolved once, before anything starts, or `mx://DOMAIN`.

use super::StartError;
use crate::config::TargetUrl;
use crate::control::resolve::{self, MxHost};
use crate::control::targets::{self, Unresolved};
use crate::job::spec::{ConnectionType, Target};

/// Where a domain's mail goes, in the clear and by STARTTLS. Mail exchangers have no TLS from the first byte.
const MX_SCHEMES: [(&str, ConnectionType); 2] =
    [("mx://", ConnectionType::Plain), ("mx+starttls://", ConnectionType::StartTls)];

/// Reads a target's URL and resolves its host. `seed` decides among equally preferred mail exchangers.
pub(super) fn resolve(text: &str, seed: u64) -> Result<Target, StartError> {
    let wrong = |problem: String| StartError::new(format!("TARGET: {problem}"));
    for (scheme, connection) in MX_SCHEMES {
        if let Some(domain) = text.strip_prefix(scheme) {
            return mail_exchanger(scheme, connection, domain.trim_end_matches('/'), seed);
        }
    }
    let url = TargetUrl::parse(text).map_err(wrong)?;
    let target = targets::resolve(Unresolved::unrestricted(url)).map_err(|error| wrong(error.problem))?;
    Ok(target.as_target())
}

/// The first address to be tried for a domain's mail.
fn mail_exchanger(scheme: &str, connection: ConnectionType, domain: &str, seed: u64) -> Result<Target, StartError> {
    let wrong = |problem| StartError::new(format!("TARGET: {scheme}{}: {problem}", domain.escape_debug()));
    let hosts = resolve::mx(domain, seed).map_err(wrong)?;
    let MxHost { host, address } = hosts.first().expect("a domain without an address is an error");
    Ok(Target {
        name: format!("{scheme}{domain} ({}://{host}:{})", TargetUrl::scheme(connection), address.port()),
        host: host.clone(),
        address: *address,
        connection,
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_url_is_resolved() {
        assert_eq!(resolve("smtp://[::1]:2525", 1).unwrap().address, "[::1]:2525".parse().unwrap());
        assert_eq!(resolve("smtp://127.0.0.1", 1).unwrap().name, "smtp://127.0.0.1:25");
    }

    #[test]
    fn mail_exchangers_are_those_of_a_domain() {
        for wrong in ["mx://", "mx://127.0.0.1", "mx://example.com:25", "mx://example.com/x"] {
            let error = resolve(wrong, 1).unwrap_err().to_string();
            assert!(error.starts_with("TARGET: mx://") && error.contains("expected a domain"), "{wrong}: {error}");
            let secured = wrong.replace("mx://", "mx+starttls://");
            let error = resolve(&secured, 1).unwrap_err().to_string();
            assert!(error.starts_with("TARGET: mx+starttls://") && error.contains("expected a domain"), "{error}");
        }
    }

    #[test]
    fn anything_else_names_the_argument_and_what_was_expected() {
        for wrong in ["127.0.0.1:2525", "smtp://u:secret@a", "ftp://127.0.0.1"] {
            let error = resolve(wrong, 1).unwrap_err().to_string();
            assert!(error.starts_with("TARGET: expected") && !error.contains("secret"), "{wrong}: {error}");
        }
    }
}
