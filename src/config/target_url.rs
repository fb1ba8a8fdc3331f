//! Targets as they are written: `smtp://HOST[:PORT]`, `smtps://…`, `smtp+starttls://…`, `mx://DOMAIN`,
//! `mx+starttls://…`, `http://HOST[:PORT]/PATH`, `https://…`.

use std::fmt;

use url::{Host, Url};

use super::shown;
use crate::job::spec::ConnectionType;
use crate::job::spec::http::RawHttp;
use crate::message::DOMAIN_BYTES_MAX;

/// Octets of the longest text that is taken for a URL: a name has at most 255, the rest is a path's.
const URL_BYTES_MAX: usize = 2_048;

/// Scheme, how the connection is secured, and the port where none is named: SMTP's (RFC 5321 §4.5.4.2), that of
/// submissions (RFC 8314 §7.3), that of submission (RFC 6409 §3.1).
const SMTP_SCHEMES: [(&str, ConnectionType, u16); 3] = [
    ("smtp", ConnectionType::Plain, 25),
    ("smtps", ConnectionType::Tls, 465),
    ("smtp+starttls", ConnectionType::StartTls, 587),
];

/// The same for a domain, whose mail exchangers take mail at port 25 (RFC 5321 §2.3.5). None begins with TLS.
const MX_SCHEMES: [(&str, ConnectionType, u16); 2] =
    [("mx", ConnectionType::Plain, 25), ("mx+starttls", ConnectionType::StartTls, 25)];

/// The same for HTTP (RFC 9110 §4.2).
const HTTP_SCHEMES: [(&str, ConnectionType, u16); 2] =
    [("http", ConnectionType::Plain, 80), ("https", ConnectionType::Tls, 443)];

/// A target's URL, checked: it names a host and a port, never a user. Displays as a URL with its port, that of a domain
/// without.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct TargetUrl {
    /// A name in ASCII (IDNA, punycode), or an address; odd forms of IPv4 addresses such as `127.1` have been read as
    /// what they mean.
    pub host: Host<String>,
    /// Never 0.
    pub port: u16,
    /// What the scheme says.
    pub connection: ConnectionType,
    /// Whether `host` is a domain whose mail exchangers are meant (MX, RFC 5321 §5.1), and not a host; a name then.
    pub is_mx: bool,
    /// Path and query of a URL of HTTP, percent-encoded, from `/` on; `None` for SMTP.
    pub path: Option<String>,
}

impl TargetUrl {
    /// Reads a URL.
    ///
    /// # Errors
    ///
    /// The text says what was expected and what came, and leaves it to the caller to name the field. It never shows a
    /// URL with a user or a password in it.
    pub fn parse(text: &str) -> Result<TargetUrl, String> {
        let wrong = |got: &str| {
            Err(format!(
                "expected smtp://HOST[:PORT], smtps://, smtp+starttls://, mx://DOMAIN, mx+starttls://, \
                 http://HOST[:PORT]/PATH or https://, such as smtp://127.0.0.1:2525, got {got}"
            ))
        };
        let text_shown = shown(text);
        // A URL's parser skips what is invisible in it, and a name may reach the wire.
        if text.len() > URL_BYTES_MAX || text.chars().any(|c| c.is_control() || c.is_whitespace()) {
            return wrong(&format!("{text_shown}, which is too long, or has white space or control characters in it"));
        }
        if !text.contains("://") {
            return wrong(&match text.contains('@') {
                true => text_shown,
                false => format!("{text_shown}; did you mean {} ?", shown(&format!("smtp://{text}"))),
            });
        }
        let url = match Url::parse(text) {
            Ok(url) => url,
            Err(error) => return wrong(&format!("{text_shown} ({error})")),
        };
        let known = SMTP_SCHEMES.into_iter().chain(MX_SCHEMES).chain(HTTP_SCHEMES);
        let Some((_, connection, port)) = known.into_iter().find(|(scheme, _, _)| *scheme == url.scheme()) else {
            return wrong(&format!("the scheme {}", shown(url.scheme())));
        };
        let is_http = HTTP_SCHEMES.iter().any(|(scheme, _, _)| *scheme == url.scheme());
        let is_mx = MX_SCHEMES.iter().any(|(scheme, _, _)| *scheme == url.scheme());
        if !url.username().is_empty() || url.password().is_some() || (text.contains('@') && !is_http) {
            return wrong("a URL with a user in it; leave the user out");
        }
        if url.fragment().is_some() {
            return wrong("a URL with a fragment (#…), which no server is told; leave it out");
        }
        if !is_http && (!matches!(url.path(), "" | "/") || url.query().is_some()) {
            return wrong("a URL that goes on behind host and port; leave that out");
        }
        let path = is_http.then(|| match url.query() {
            Some(query) => format!("{}?{query}", url.path()),
            None => url.path().to_owned(),
        });
        let host = match Host::parse(url.host_str().unwrap_or_default()) {
            Ok(host) => host,
            Err(error) => return wrong(&format!("{text_shown} ({error})")),
        };
        if matches!(&host, Host::Domain(name) if name.len() > DOMAIN_BYTES_MAX) {
            return wrong(&format!("a host name of more than {DOMAIN_BYTES_MAX} octets"));
        }
        if is_mx && url.port().is_some() {
            return wrong(&format!("{text_shown}; mail exchangers take mail at port 25 alone: leave the port out"));
        }
        if is_mx && !matches!(host, Host::Domain(_)) {
            return wrong(&format!("{text_shown}, an address, which has no mail exchangers; did you mean smtp:// ?"));
        }
        match url.port().unwrap_or(port) {
            0 => wrong("port 0, on which nobody can listen"),
            port => Ok(TargetUrl { host, port, connection, is_mx, path }),
        }
    }

    /// Whether it is one of HTTP.
    pub fn is_http(&self) -> bool {
        self.path.is_some()
    }

    /// What requests say of where they go; empty for SMTP.
    pub fn request(&self) -> RawHttp {
        let Some(path) = &self.path else { return RawHttp::default() };
        let usual = HTTP_SCHEMES.iter().any(|(_, of, port)| (*of, *port) == (self.connection, self.port));
        let host = if usual { self.host.to_string() } else { format!("{}:{}", self.host, self.port) };
        RawHttp { host, path: path.clone(), ..RawHttp::default() }
    }

    /// The scheme of a URL of SMTP like this one with another connection type; `None` where there is none.
    pub fn scheme(&self, connection: ConnectionType) -> Option<&'static str> {
        let schemes = if self.is_mx { &MX_SCHEMES[..] } else { &SMTP_SCHEMES };
        schemes.iter().find(|(_, of, _)| *of == connection).map(|(scheme, _, _)| *scheme)
    }
}

impl fmt::Display for TargetUrl {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Some(path) = &self.path else {
            let scheme = self.scheme(self.connection).expect("it has been read");
            return match self.is_mx {
                true => write!(f, "{scheme}://{}", self.host),
                false => write!(f, "{scheme}://{}:{}", self.host, self.port),
            };
        };
        let scheme = if self.connection == ConnectionType::Tls { "https" } else { "http" };
        // A query may hold a key.
        let path = path.split_once('?').map_or(path.as_str(), |(path, _)| path);
        write!(f, "{scheme}://{}:{}{path}", self.host, self.port)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_url_names_host_port_and_connection_type() {
        for (text, expected) in [
            ("smtp://mx.example.com", "smtp://mx.example.com:25"),
            ("SMTPS://MX.Example.com", "smtps://mx.example.com:465"),
            ("smtp+starttls://mx.example.com/", "smtp+starttls://mx.example.com:587"),
            ("smtp+starttls://mx.example.com:25", "smtp+starttls://mx.example.com:25"),
            ("smtp://127.0.0.1:2525/", "smtp://127.0.0.1:2525"),
            ("smtp://[::1]:2525", "smtp://[::1]:2525"),
            ("smtp://localhost.:65535", "smtp://localhost.:65535"),
            ("smtp://mx_1.example.com", "smtp://mx_1.example.com:25"),
            ("smtp://bücher.example", "smtp://xn--bcher-kva.example:25"),
            ("mx://Example.com", "mx://example.com"),
            ("MX+StartTLS://example.com./", "mx+starttls://example.com."),
            ("mx://bücher.example", "mx://xn--bcher-kva.example"),
            // What these mean is decided here, so that nobody decides otherwise later.
            ("smtp://127.1", "smtp://127.0.0.1:25"),
            ("smtp://0x7f.1", "smtp://127.0.0.1:25"),
            ("smtp://2130706433", "smtp://127.0.0.1:25"),
            ("smtp://0", "smtp://0.0.0.0:25"),
            ("smtp://[::ffff:10.0.0.1]", "smtp://[::ffff:a00:1]:25"),
        ] {
            assert_eq!(TargetUrl::parse(text).map(|url| url.to_string()), Ok(expected.to_owned()), "{text}");
        }
        let url = TargetUrl::parse("smtps://[::1]").unwrap();
        assert_eq!((url.host, url.connection), (Host::Ipv6(std::net::Ipv6Addr::LOCALHOST), ConnectionType::Tls));
    }

    #[test]
    fn a_url_of_http_goes_on_with_its_path() {
        let read = |text: &str| {
            let url = TargetUrl::parse(text).unwrap();
            let RawHttp { host, path, .. } = url.request();
            (url.to_string(), host, path)
        };
        let expected = |shown: &str, host: &str, path: &str| (shown.to_owned(), host.to_owned(), path.to_owned());
        assert_eq!(
            read("https://api.mailgun.net/v3/Example.com"),
            expected("https://api.mailgun.net:443/v3/Example.com", "api.mailgun.net", "/v3/Example.com")
        );
        assert_eq!(
            read("http://[::1]:8026/a%20b%0d?key=1"),
            expected("http://[::1]:8026/a%20b%0d", "[::1]:8026", "/a%20b%0d?key=1")
        );
        assert_eq!(read("http://a.example"), expected("http://a.example:80/", "a.example", "/"));
        assert_eq!(read("https://a.example:80/@b"), expected("https://a.example:80/@b", "a.example:80", "/@b"));
    }

    #[test]
    fn anything_else_says_what_was_expected() {
        let long = format!("smtp://{}", "a".repeat(URL_BYTES_MAX));
        for wrong in [
            "",
            "127.0.0.1:2525",
            "localhost",
            "ftp://a",
            "http://",
            "http://a#b",
            "http://a:0/",
            "smtp://",
            "smtp://:25",
            "smtp:///a",
            "smtp://a/b",
            "smtp://a?b",
            "smtp://a#b",
            "smtp://a:0",
            "smtp://a:65536",
            "smtp://a:+25",
            "smtp://[::1",
            "smtp://[fe80::1%25eth0]",
            "smtp://1.2.3.4.5",
            "smtp://256.0.0.1",
            "smtp://a b",
            " smtp://a",
            "smtp://a\r\nRCPT",
            "smtp://a\tb",
            "smtp://a%0d%0aRCPT",
            "smtp://a%00b",
            "smtp://a%20b",
            "smtp://\u{202e}a\u{0}",
            "mx://",
            "mx://127.0.0.1",
            "mx://2130706433",
            "mx://[::1]",
            "mx://example.com:25",
            "mx://example.com/x",
            "mx://example.com?x",
            "mxs://example.com",
            &long,
        ] {
            let error = TargetUrl::parse(wrong).expect_err(wrong);
            assert!(error.contains("expected smtp://HOST[:PORT]") && error.contains("got"), "{wrong}: {error}");
            assert!(!error.contains(char::is_control) && error.len() < 400, "{wrong}: {error}");
        }
    }

    #[test]
    fn a_user_in_a_url_is_refused_without_showing_it() {
        for wrong in [
            "smtp://joe:secret@a",
            "smtp://:secret@a",
            "smtp://joe@a",
            "smtp://joe:secret@[bad",
            "http://joe:secret@a",
            "joe:secret@a",
            "smtp://joe:secret@a\n",
            "smtp://a/?password=secret",
            "mx://joe:secret@a",
        ] {
            let error = TargetUrl::parse(wrong).expect_err(wrong);
            assert!(!error.contains("secret") && !error.contains("joe"), "{wrong}: {error}");
        }
    }
}
