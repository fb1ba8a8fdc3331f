//! Which targets are taken, which are refused, and with which words.

use std::path::Path;
use std::sync::mpsc;

use secrecy::ExposeSecret as _;

use hickory_resolver::proto::op::ResponseCode;
use hickory_resolver::proto::rr::rdata::A;
use hickory_resolver::proto::rr::{RData, RecordType};

use super::*;
use crate::control::resolve::tests::{NameServer, found, mx_record};

/// Times that a thread which is about to end is given way to.
const YIELDS_MAX: u32 = 10_000_000;
const PLAIN: ConnectionType = ConnectionType::Plain;
const TLS: ConnectionType = ConnectionType::Tls;
const STARTTLS: ConnectionType = ConnectionType::StartTls;

/// The targets `plain`, `tls` (with credentials), and `lax` (not verified); URLs inside of `allow_targets`.
fn targets(allow_targets: &str) -> Targets {
    let folder = tempfile::tempdir().unwrap();
    std::fs::write(folder.path().join("password"), "secret\n").unwrap();
    let text = format!(
        "[hammer]\nallow_targets = [{allow_targets}]\n\
         [targets.plain]\nurl = 'smtp://10.0.0.1'\n\
         [targets.tls]\nurl = 'smtps://mx.example.com'\nuser = 'joe'\npassword_file = 'password'\n\
         [targets.lax]\nurl = 'smtp+starttls://localhost:2587'\nskip_verify = true\n\
         [targets.domain]\nurl = 'mx+starttls://example.com'\n"
    );
    let config = Config::parse(&text, &folder.path().join("t.toml")).unwrap_or_else(|errors| panic!("{errors}"));
    Targets::new(&config, Some("127.0.0.1:2525".parse().unwrap()), None)
}

fn usual() -> Targets {
    targets("'127.0.0.0/8', '::1'")
}

fn addresses(ips: &[&str], url: &TargetUrl) -> Result<Found, LookUpError> {
    Ok(ips.iter().map(|ip| (url.host.to_string(), SocketAddr::new(ip.parse().unwrap(), url.port))).collect())
}

/// The target of a URL whose host has these addresses.
fn resolved(targets: &Targets, url: &str, ips: &[&str]) -> Result<ResolvedTarget, ResolveError> {
    resolve_by(targets.choose(Some(url), Some(PLAIN), false, None)?, |url, _| addresses(ips, url))
}

fn error_of<T>(result: Result<T, impl Into<ResolveError>>) -> SpecError {
    let Err(error) = result else { panic!("expected a refusal") };
    let error = error.into().into_inner();
    assert!(error.problem.contains("expected") && error.problem.contains("got"), "{error}");
    assert!(!error.problem.contains("secret") && !error.problem.contains(char::is_control), "{error}");
    assert!(error.problem.len() < 500, "{error}");
    error
}

#[test]
fn without_a_target_the_embedded_sink_is_loaded() {
    let target = resolve(usual().choose(None, Some(PLAIN), false, Some(true)).unwrap()).unwrap();
    assert_eq!((&*target.name, target.address.to_string()), ("smtp://127.0.0.1:2525", "127.0.0.1:2525".to_owned()));
    for (listens, reached) in [("0.0.0.0:1", "127.0.0.1:1"), ("[::]:1", "[::1]:1"), ("192.0.2.1:1", "192.0.2.1:1")] {
        let targets = Targets::new(&Config::default(), Some(listens.parse().unwrap()), None);
        let target = resolve(targets.choose(None, Some(PLAIN), false, None).unwrap()).unwrap();
        assert_eq!(target.address.to_string(), reached, "it is allowed by itself");
    }
    let error = error_of(Targets::new(&Config::default(), None, None).choose(None, Some(PLAIN), false, None));
    assert!(error.field == "target" && error.problem.contains("[sink]"), "{error}");
}

#[test]
fn a_named_target_fixes_address_connection_type_and_verification() {
    let targets = usual();
    // It is not bound to the allow-list.
    let target = resolve(targets.choose(Some("plain"), Some(PLAIN), false, Some(false)).unwrap()).unwrap();
    assert_eq!((&*target.name, &*target.host), ("plain (smtp://10.0.0.1:25)", "10.0.0.1"));
    assert_eq!((target.address, target.connection), ("10.0.0.1:25".parse().unwrap(), PLAIN));
    let target = targets.choose(Some("tls"), Some(TLS), true, None).unwrap();
    let target = resolve_by(target, |url, _| addresses(&["192.0.2.1", "192.0.2.2"], url)).unwrap();
    assert_eq!((&*target.host, target.address), ("mx.example.com", "192.0.2.1:465".parse().unwrap()));
    assert!(!format!("{target:?}").contains("secret"), "{target:?}");
    let credentials = target.credentials.unwrap();
    assert_eq!((credentials.user(), credentials.password().expose_secret()), ("joe", "secret"));
    // Its URL decides where nothing else is asked for.
    for (name, connection) in [("plain", PLAIN), ("tls", TLS), ("lax", STARTTLS)] {
        assert_eq!(targets.choose(Some(name), None, false, None).unwrap().url.connection, connection);
    }
    // Credentials go only where they were asked for.
    assert!(targets.choose(Some("tls"), Some(TLS), false, None).unwrap().credentials.is_none());
    // Verification may be made stronger, never weaker.
    for (asked, skips) in [(None, true), (Some(true), true), (Some(false), false)] {
        assert_eq!(targets.choose(Some("lax"), Some(STARTTLS), false, asked).unwrap().skip_verify, skips);
    }
}

#[test]
fn what_does_not_fit_the_target_names_the_field() {
    let targets = usual();
    for (target, connection, auth, skip_verify, field, says) in [
        (None, TLS, false, None, "smtp_connection_type", "expected plain"),
        (None, PLAIN, true, None, "auth", "the embedded sink"),
        (Some("nobody"), PLAIN, false, None, "target", "domain, lax, plain, tls"),
        (Some(""), PLAIN, false, None, "target", "got \"\""),
        (Some("127.0.0.1:25"), PLAIN, false, None, "target", "a URL such as smtp://"),
        (Some("TLS"), TLS, false, None, "target", "domain, lax, plain, tls"),
        (Some("plain\r\nRCPT"), PLAIN, false, None, "target", "\\r\\n"),
        (Some("joe:secret@mx"), PLAIN, false, None, "target", "is not shown"),
        (Some("plain"), TLS, false, None, "smtp_connection_type", "expected plain"),
        (Some("tls"), PLAIN, false, None, "smtp_connection_type", "expected tls"),
        (Some("tls"), STARTTLS, false, None, "smtp_connection_type", "expected tls"),
        (Some("plain"), PLAIN, true, None, "auth", "plain, which has none"),
        (Some("tls"), TLS, false, Some(true), "skip_verify", "[targets.tls]"),
        (Some("smtp://127.0.0.1"), PLAIN, true, None, "auth", "a URL"),
        (Some("smtps://127.0.0.1"), TLS, true, None, "auth", "a URL"),
        (Some("smtp://127.0.0.1"), TLS, false, None, "smtp_connection_type", "begins with smtps://"),
        (Some("smtp://127.0.0.1"), STARTTLS, false, None, "smtp_connection_type", "begins with smtp+starttls://"),
        (Some("smtps://127.0.0.1"), PLAIN, false, None, "smtp_connection_type", "begins with smtp://"),
        (Some("mx://a.example"), STARTTLS, false, None, "smtp_connection_type", "begins with mx+starttls://"),
        (Some("mx+starttls://a.example"), PLAIN, false, None, "smtp_connection_type", "begins with mx://"),
        (
            Some("mx://a.example"),
            TLS,
            false,
            None,
            "smtp_connection_type",
            "expected plain, as mx://a.example has it, got tls",
        ),
        (Some("mx://127.0.0.1"), PLAIN, false, None, "target", "which has no mail exchangers"),
        (Some("mx://a.example:2525"), PLAIN, false, None, "target", "port 25 alone"),
        (Some("http://127.0.0.1"), PLAIN, false, None, "target", "for type smtp"),
        (Some("smtp://joe:secret@127.0.0.1"), PLAIN, false, None, "target", "a user in it"),
        (Some("smtp://127.0.0.1\r\nQUIT"), PLAIN, false, None, "target", "control characters"),
    ] {
        let error = error_of(targets.choose(target, Some(connection), auth, skip_verify));
        assert!(error.field == field && error.problem.contains(says), "{target:?}: {error}");
    }
    let target = targets.choose(Some("smtps://localhost"), Some(TLS), false, Some(true)).unwrap();
    assert!(target.skip_verify && target.credentials.is_none());
}

#[test]
fn many_names_do_not_make_a_long_error() {
    let tables: String = (0..1_000).map(|n| format!("[targets.t{n}]\nurl = 'smtp://a'\n")).collect();
    let config = Config::parse(&tables, Path::new("t.toml")).unwrap();
    error_of(Targets::new(&config, None, None).choose(Some("nobody"), Some(PLAIN), false, None));
}

#[test]
fn every_address_of_a_url_must_be_allowed() {
    let usual = usual();
    for (url, ips, connected) in [
        ("smtp://127.0.0.1:2525", &[][..], "127.0.0.1:2525"),
        ("smtp://127.1", &[], "127.0.0.1:25"),
        ("smtp://0x7f.1", &[], "127.0.0.1:25"),
        ("smtp://[::1]:2525", &[], "[::1]:2525"),
        ("smtp://[::ffff:127.0.0.1]", &[], "127.0.0.1:25"),
        ("smtp://a.example", &["127.0.0.5"], "127.0.0.5:25"),
        ("smtp://a.example", &["::ffff:127.0.0.5"], "127.0.0.5:25"),
        ("smtp://a.example", &["::1", "127.0.0.1"], "[::1]:25"),
    ] {
        assert_eq!(resolved(&usual, url, ips).unwrap().address.to_string(), connected, "{url} {ips:?}");
    }
    for (url, ips, outside) in [
        ("smtp://10.0.0.1", &[][..], "got 10.0.0.1"),
        ("smtp://10.1", &[], "got 10.0.0.1"),
        ("smtp://167772161", &[], "got 10.0.0.1"),
        ("smtp://[::ffff:10.0.0.1]", &[], "got 10.0.0.1"),
        ("smtp://[::ffff:a00:1]", &[], "got 10.0.0.1"),
        ("smtp://[fe80::1]", &[], "got fe80::1"),
        // These would reach loopback, but are not named by the list.
        ("smtp://0", &[], "got 0.0.0.0"),
        ("smtp://0.0.0.0:2525", &[], "got 0.0.0.0"),
        ("smtp://[::]:2525", &[], "got ::"),
        ("smtp://[::ffff:0.0.0.0]", &[], "got 0.0.0.0"),
        ("smtp://[::127.0.0.1]", &[], "got ::"),
        ("smtp://a.example", &["0.0.0.0"], "got 0.0.0.0"),
        ("smtp://a.example", &["192.0.2.1"], "got 192.0.2.1"),
        ("smtp://a.example", &["127.0.0.1", "192.0.2.1"], "got 192.0.2.1"),
        ("smtp://a.example", &["127.0.0.1", "::1", "::ffff:192.0.2.1"], "got 192.0.2.1"),
    ] {
        let error = error_of(resolved(&usual, url, ips));
        assert!(error.field == "target" && error.problem.contains(outside), "{url}: {error}");
        assert!(error.problem.contains("allow_targets") && error.problem.contains("127.0.0.0/8, ::1/128"), "{error}");
        assert!(error.problem.contains("add it to allow_targets"), "{error}");
    }
}

/// A name server's word for domains whose mail goes to loopback, not all of whose mail does, and none of whose does.
fn mail_exchangers(name: &str, of: RecordType) -> Option<(ResponseCode, Vec<RData>)> {
    let a = |ip: [u8; 4]| RData::A(A(ip.into()));
    match (name, of) {
        ("example.com.", RecordType::MX) => found(&[mx_record(20, "b.example.com."), mx_record(10, "a.example.com.")]),
        ("equal.example.", RecordType::MX) => found(&[mx_record(1, "a.example.com."), mx_record(1, "b.example.com.")]),
        ("a.example.com.", RecordType::A) => found(&[a([127, 0, 0, 5])]),
        ("b.example.com.", RecordType::A) => found(&[a([127, 0, 0, 6]), a([127, 0, 0, 7])]),
        ("backup.example.", RecordType::MX) => found(&[mx_record(1, "a.example.com."), mx_record(2, "far.example.")]),
        ("far.example.", RecordType::A) => found(&[a([127, 0, 0, 8]), a([192, 0, 2, 1])]),
        ("bare.example.", RecordType::A) => found(&[a([127, 0, 0, 9])]),
        ("null.example.", RecordType::MX) => found(&[mx_record(0, ".")]),
        ("broken.example.", _) => Some((ResponseCode::ServFail, Vec::new())),
        ("gone.example.", _) => Some((ResponseCode::NXDomain, Vec::new())),
        _ => found(&[]),
    }
}

/// As [`look_up`], from a name server of the test's own.
fn asked(server: &NameServer, target: Unresolved) -> Result<ResolvedTarget, ResolveError> {
    resolve_by(target, |url, seed| {
        assert!(url.is_mx);
        mail_exchangers_of(server.mx(&url.host.to_string(), seed))
    })
}

#[test]
fn a_domain_is_its_most_preferred_mail_exchanger() {
    let (server, targets) = (NameServer::start(mail_exchangers), usual());
    let target = asked(&server, targets.choose(Some("mx://Example.com"), Some(PLAIN), false, None).unwrap()).unwrap();
    assert_eq!(target.name, "mx://example.com (mail exchanger a.example.com, 127.0.0.5:25)");
    assert_eq!((&*target.host, target.address), ("a.example.com", "127.0.0.5:25".parse().unwrap()));
    let target = asked(&server, targets.choose(Some("mx://bare.example"), Some(PLAIN), false, None).unwrap()).unwrap();
    assert_eq!((&*target.host, target.address), ("bare.example", "127.0.0.9:25".parse().unwrap()));
    // A configured one, and one of a route, by STARTTLS: its certificate is to be the mail exchanger's.
    for target in [targets.choose(Some("domain"), None, false, None).unwrap(), targets.of_route("domain").unwrap()] {
        let target = asked(&server, target).unwrap();
        assert_eq!((target.as_target().host, target.connection), ("a.example.com".to_owned(), STARTTLS));
        assert!(target.name.starts_with("domain (mx+starttls://example.com) (mail exchanger a."), "{}", target.name);
    }
    let target = asked(&server, targets.of_route("mx://example.com").unwrap()).unwrap();
    assert_eq!((&*target.host, target.connection), ("a.example.com", PLAIN));
    // Among equals the seed decides.
    let first = |seed| {
        let target = targets.choose(Some("mx://equal.example"), Some(PLAIN), false, None).unwrap();
        asked(&server, target.with_seed(seed)).unwrap().host
    };
    let hosts: Vec<String> = (0..16).map(first).collect();
    assert!((0..16).all(|seed| first(seed) == hosts[seed as usize]), "{hosts:?}");
    assert!(["a.example.com", "b.example.com"].iter().all(|host| hosts.iter().any(|h| h == host)), "{hosts:?}");
}

#[test]
fn every_address_of_every_mail_exchanger_must_be_allowed() {
    let (server, targets) = (NameServer::start(mail_exchangers), usual());
    let choose = |url: &str| targets.choose(Some(url), Some(PLAIN), false, None).unwrap();
    let error = error_of(asked(&server, choose("mx://backup.example")));
    assert!(error.field == "target" && error.problem.contains("got 192.0.2.1"), "{error}");
    assert!(error.problem.contains("\"far.example\", a mail exchanger of \"backup.example\""), "{error}");
    assert!(error.problem.contains("allow_targets"), "{error}");
    assert!(asked(&server, targets.of_route("mx://backup.example").unwrap()).is_ok(), "the configuration may");
}

#[test]
fn a_domain_that_takes_no_mail_says_why() {
    let (server, targets) = (NameServer::start(mail_exchangers), usual());
    for (domain, says, passes) in [
        ("null.example", "its MX is null (RFC 7505)", false),
        ("gone.example", "there is no such domain", false),
        ("empty.example", "no address at which mail could be taken", false),
        ("broken.example", "try again later", true),
    ] {
        let target = targets.choose(Some(&format!("mx://{domain}")), Some(PLAIN), false, None).unwrap();
        let error = asked(&server, target).unwrap_err();
        assert_eq!(matches!(error, ResolveError::TimedOut(_)), passes, "{error}");
        let error = error_of(Err::<(), _>(error));
        assert!(error.field == "target" && error.problem.contains("a domain with mail exchangers"), "{error}");
        assert!(error.problem.contains(domain) && error.problem.contains(says), "{error}");
    }
}

#[test]
fn the_allow_list_is_that_of_the_configuration() {
    for (allowed, ip, is_taken) in [
        ("", "127.0.0.1", false),
        ("'192.0.2.0/24'", "192.0.2.255", true),
        ("'192.0.2.0/24'", "192.0.3.0", false),
        ("'192.0.2.0/24'", "127.0.0.1", false),
        ("'::/0'", "::ffff:192.0.2.1", false),
        ("'0.0.0.0/0'", "::ffff:192.0.2.1", true),
        ("'0.0.0.0'", "0.0.0.0", true),
    ] {
        assert_eq!(resolved(&targets(allowed), "smtp://a.example", &[ip]).is_ok(), is_taken, "{allowed} {ip}");
    }
}

#[test]
fn a_host_without_an_address_is_an_error_of_the_target() {
    let target = || usual().choose(Some("smtp://a.example"), Some(PLAIN), false, None).unwrap();
    let error = error_of(resolve_by(target(), |_, _| Ok(Vec::new())));
    assert!(error.field == "target" && error.problem.contains("a.example"), "{error}");
    let error = error_of(resolve_by(target(), |_, _| {
        Err(LookUpError { reason: "no such name".to_owned(), is_temporary: false })
    }));
    assert!(error.problem.contains("no such name"), "{error}");
    let target = resolve(usual().choose(Some("smtp://LOCALHOST:2525"), Some(PLAIN), false, None).unwrap()).unwrap();
    assert!(target.address.ip().is_loopback() && target.host == "localhost", "{target:?}");
}

/// Runs a task as control does.
fn on_an_executor<T: Send + 'static>(task: impl AsyncFnOnce() -> T + Send + 'static) -> T {
    let executor = glommio::LocalExecutorBuilder::default().spawn(async move || task().await);
    executor.unwrap().join().unwrap()
}

#[test]
fn hosts_are_looked_up_on_a_thread() {
    on_an_executor(async || {
        let resolver = Resolver::default();
        let targets = usual();
        let target =
            resolver.resolve(targets.choose(Some("smtp://localhost"), Some(PLAIN), false, None).unwrap()).await;
        assert!(target.unwrap().address.ip().is_loopback());
        let (this, url) = (thread::current().id(), "smtp://a.example");
        let target = targets.choose(Some(url), Some(PLAIN), false, None).unwrap();
        let look_up = move |url: &TargetUrl, _| {
            assert_ne!(thread::current().id(), this);
            addresses(&["192.0.2.1"], url)
        };
        let error = error_of(resolver.resolve_by(target, RESOLUTION_TIME_MAX, look_up).await);
        assert!(error.problem.contains("allow_targets"), "{error}");
    });
}

#[test]
fn look_ups_that_hang_are_given_up_and_bounded() {
    on_an_executor(async || {
        let resolver = Resolver::default();
        let target = || usual().choose(Some("smtp://a.example"), Some(PLAIN), false, None).unwrap();
        let mut hanging = Vec::new();
        for _ in 0..RESOLUTIONS_MAX {
            let (end, ended) = mpsc::channel::<()>();
            let hang = move |_: &TargetUrl, _| {
                let _ = ended.recv();
                Ok(Vec::new())
            };
            let answer = resolver.resolve_by(target(), Duration::from_millis(1), hang).await;
            assert!(matches!(answer, Err(ResolveError::TimedOut(_))), "{answer:?}");
            let error = error_of(answer);
            assert!(error.field == "target" && error.problem.contains("no answer"), "{error}");
            hanging.push(end);
        }
        let full = resolver.resolve(target()).await;
        assert!(matches!(full, Err(ResolveError::Busy(_))), "{full:?}");
        let full = error_of(full);
        assert!(full.field == "target" && full.problem.contains("try again later"), "{full}");
        // An address needs no look-up.
        let address = usual().choose(Some("smtp://127.0.0.1"), Some(PLAIN), false, None).unwrap();
        assert!(resolver.resolve(address).await.is_ok());
        // Once a thread has ended there is room again.
        hanging.clear();
        let ended = (0..YIELDS_MAX).any(|_| {
            thread::yield_now();
            Arc::strong_count(&resolver.threads) == 1
        });
        assert!(ended);
        let answer = resolver.resolve_by(target(), RESOLUTION_TIME_MAX, |url, _| addresses(&["::1"], url)).await;
        assert_eq!(answer.unwrap().address, "[::1]:25".parse().unwrap());
    });
}

#[test]
fn a_ca_file_that_never_ends_or_is_none_is_not_read() {
    let folder = tempfile::tempdir().unwrap();
    let fifo = folder.path().join("fifo");
    nix::unistd::mkfifo(&fifo, nix::sys::stat::Mode::from_bits_truncate(0o600)).unwrap();
    // A file that was a good one when the configuration was read may be anything by now.
    for file in [fifo, "/dev/zero".into()] {
        let target = usual().choose(Some("smtps://127.0.0.1"), Some(TLS), false, None).unwrap();
        let target = resolve(Unresolved { ca_file: Some(file), ..target }).unwrap();
        let error = error_of(target.secured());
        assert!(error.field == "target" && error.problem.contains("it is no file"), "{error}");
    }
}
