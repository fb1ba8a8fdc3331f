//! TLS and STARTTLS with other people's implementations, and what happens when somebody stands between.

use std::io::{BufReader, Read as _, Write as _};
use std::net::{TcpListener, TcpStream};
use std::process::Command;
use std::sync::Arc;
use std::thread::JoinHandle;

use crate::support::{Aiosmtpd, Certificate, Finished, Hammer, Postfix, Process, Run, Sink, python, script, text};

/// Both ways to secure a connection, and the phases that only one of them has.
const SCHEMES: [&str; 2] = ["smtps", "smtp+starttls"];

fn localhost() -> Certificate {
    Certificate::of(&["localhost", "127.0.0.1"])
}

/// A run that trusts this certificate and no other.
fn run(scheme: &str, port: u16, certificate: &Certificate, options: &[&str]) -> Run {
    let file = certificate.file();
    let options = [&["--ca-file", text(&file)], options].concat();
    Hammer::start_at(&format!("{scheme}://localhost:{port}"), &options).finish()
}

fn sink(scheme: &str, certificate: &Certificate, options: &[&str]) -> Sink {
    let (file, key) = (certificate.file(), certificate.key_file());
    let options = [&["--tls-cert", text(&file), "--tls-key", text(&key)], options].concat();
    match scheme {
        "smtps" => Sink::secured(&options),
        _ => Sink::start(&options),
    }
}

#[test]
fn the_sink_and_the_generator_count_the_same_under_tls() {
    for scheme in SCHEMES {
        let certificate = localhost();
        let sink = sink(scheme, &certificate, &[]);
        let run = run(scheme, sink.port(), &certificate, &["-m", "2000", "-c", "10", "--recipients-per-message", "2"]);
        run.assert_all_accepted(2000);
        let report = sink.stop();
        assert_eq!((&report["messages"], &report["recipients"]), (&2000.into(), &4000.into()));
        assert_eq!((&report["errors"], &report["tls_handshakes"]), (&0.into(), &10.into()));
        let phase = |phase: &str| run.count(&format!("latency_s.accepted.phases.{phase}.count"));
        let upgrades = if scheme == "smtps" { 0 } else { 10 };
        assert_eq!((phase("tls"), phase("starttls"), phase("ehlo")), (10, upgrades, 10 + upgrades), "{scheme}");
    }
}

#[test]
fn connections_resume_unless_they_must_not() {
    for (options, least, most) in [(&[][..], 95, 100), (&["--no-resumption"], 0, 0)] {
        let certificate = localhost();
        let sink = sink("smtps", &certificate, &[]);
        let options = [&["-m", "640", "-c", "32", "--messages-per-connection", "1"], options].concat();
        let run = run("smtps", sink.port(), &certificate, &options);
        run.assert_all_accepted(640);
        let later = run.count("connections.opened") - 32;
        let resumed = run.count("tls.resumed");
        assert!(
            (later * least..=later * most + 3_200).contains(&(resumed * 100)),
            "{resumed} of {later}: {}",
            run.shown()
        );
        assert_eq!(run.count("tls.full") + resumed, run.count("connections.opened"), "{}", run.shown());
        assert_eq!(sink.stop()["tls_resumed"], resumed);
    }
}

#[test]
fn a_large_message_arrives_octet_for_octet_under_tls() {
    let certificate = localhost();
    for scheme in SCHEMES {
        let sink = sink(scheme, &certificate, &[]);
        let run = run(scheme, sink.port(), &certificate, &["-m", "6", "-c", "2", "-s", "3000000"]);
        run.assert_all_accepted(6);
        assert_eq!(sink.stop()["bytes"], 18_000_000);
    }
}

#[test]
fn aiosmtpd_receives_as_many_messages_as_are_reported() {
    let (certificate, client) = (localhost(), Certificate::of(&["client.test"]));
    for (scheme, how) in SCHEMES.into_iter().zip(["tls", "starttls"]) {
        let server = Aiosmtpd::secured(how, &certificate, None);
        run(scheme, server.port(), &certificate, &["-m", "200", "-c", "4", "-s", "20000"]).assert_all_accepted(200);
        assert_eq!(server.stop()["messages"], 200);
    }
    let server = Aiosmtpd::secured("tls", &certificate, Some(&client));
    let (file, key) = (client.file(), client.key_file());
    let shown = ["-m", "20", "-c", "2", "--client-cert", text(&file), "--client-key", text(&key)];
    run("smtps", server.port(), &certificate, &shown).assert_all_accepted(20);
    let unknown = run("smtps", server.port(), &certificate, &["-m", "2", "-c", "1"]);
    assert_eq!(unknown.count("messages.failed"), 2, "{}", unknown.shown());
    assert_eq!(server.stop()["messages"], 20);
}

#[test]
fn postfix_delivers_as_many_messages_as_are_reported() {
    let certificate = localhost();
    let settings = |more| {
        let (file, key) = (certificate.file(), certificate.key_file());
        format!(
            "smtpd_tls_security_level = encrypt\nsmtpd_tls_cert_file = {}\nsmtpd_tls_key_file = {}\n{more}",
            text(&file),
            text(&key)
        )
    };
    for (scheme, more) in SCHEMES.into_iter().zip(["smtpd_tls_wrappermode = yes", ""]) {
        let postfix = Postfix::start(&settings(more));
        let options = ["-m", "100", "-c", "4", "--messages-per-connection", "5", "--to", "a@example.com"];
        let run = run(scheme, postfix.port(), &certificate, &options);
        run.assert_all_accepted(100);
        assert_eq!(run.count("tls.full") + run.count("tls.resumed"), run.count("connections.opened"));
        assert_eq!(postfix.delivered(100), 100);
    }
    let plain = Postfix::start("");
    let stripped = run("smtp+starttls", plain.port(), &certificate, &["-m", "3", "-c", "1"]);
    assert_eq!(stripped.errors_of("not_offered", "starttls"), 3, "{}", stripped.shown());
    assert_eq!(plain.messages(), 0);
}

/// A certificate that is not to be believed: every message fails in the handshake, for this reason.
fn assert_not_believed(target: &str, options: &[&str], reason: &str) {
    let run = Hammer::start_at(target, &[&["-m", "3", "-c", "1"], options].concat()).finish();
    assert_eq!((run.exit, run.count("messages.failed")), (1, 3), "{}", run.shown());
    assert_eq!(run.errors_of("certificate", "tls"), 3, "{}", run.shown());
    let error = &run.report["errors"][0];
    assert_eq!(error["blame"], "peer", "{}", run.shown());
    assert!(error["example"].as_str().is_some_and(|example| example.contains(reason)), "{}", run.shown());
}

#[test]
fn a_certificate_that_is_not_to_be_believed_costs_every_message_and_says_why() {
    let (good, other) = (localhost(), localhost());
    let (elsewhere, expired) = (Certificate::of(&["elsewhere.example"]), Certificate::expired(&["localhost"]));
    for scheme in SCHEMES {
        for (shown, trusted, reason) in [
            (&good, &other, "issuer is unknown"),
            (&elsewhere, &elsewhere, "not valid for localhost, but for elsewhere.example"),
            (&expired, &expired, "has expired"),
        ] {
            let sink = sink(scheme, shown, &[]);
            let target = format!("{scheme}://localhost:{}", sink.port());
            assert_not_believed(&target, &["--ca-file", text(&trusted.file())], reason);
            if trusted.file() == good.file() {
                continue;
            }
            let believed = Hammer::start_at(&target, &["-m", "3", "-c", "1", "--skip-verify"]).finish();
            believed.assert_all_accepted(3);
            assert_eq!(believed.report["spec"]["skip_verify"], true);
            let notes = believed.report["notes"].to_string();
            assert!(notes.contains("NOT VERIFIED"), "{notes}");
            assert_eq!(sink.stop()["messages"], 3);
        }
    }
}

/// Nobody waits for the end of a long run to read that its certificate file was forgotten.
#[test]
fn a_run_of_which_no_message_is_answered_is_given_up() {
    let (shown, trusted) = (localhost(), localhost());
    let sink = sink("smtps", &shown, &[]);
    let run = run("smtps", sink.port(), &trusted, &["-d", "60s", "-c", "2"]);
    let reason = run.report["aborted"].as_str().unwrap_or_else(|| panic!("{}", run.shown()));
    assert!(reason.starts_with("no message was answered within 10 s"), "{reason}");
    assert!(reason.contains("issuer is unknown") && reason.contains("--ca-file"), "{reason}");
    assert_eq!(run.exit, 1);
}

#[test]
fn starttls_that_is_not_granted_costs_every_message_and_nothing_goes_out_in_the_clear() {
    for (options, kind) in [(&["--no-starttls"][..], "not_offered"), (&["--reply", "starttls=454,100%"], "not_granted")]
    {
        let sink = Sink::start(options);
        let run = Hammer::start_at(
            &format!("smtp+starttls://127.0.0.1:{}", sink.port()),
            &["-m", "4", "-c", "2", "--skip-verify"],
        )
        .finish();
        assert_eq!((run.exit, run.count("messages.failed")), (1, 4), "{}", run.shown());
        assert_eq!((run.errors_of(kind, "starttls"), run.errors_in_all()), (4, 4), "{}", run.shown());
        assert_eq!(run.count("messages.sent"), 0, "{}", run.shown());
        assert_eq!(sink.stop()["messages"], 0);
    }
}

#[test]
fn a_server_without_tls_is_no_server_for_it() {
    let sink = Sink::start(&[]);
    let target = format!("smtps://127.0.0.1:{}", sink.port());
    let run = Hammer::start_at(&target, &["-m", "2", "-c", "1", "--skip-verify"]).finish();
    assert_eq!((run.count("messages.failed"), run.errors_of("handshake", "tls")), (2, 2), "{}", run.shown());
}

/// Reads a line and gives it without its end; empty at the end of the stream.
fn line(reader: &mut impl std::io::BufRead) -> String {
    let mut line = String::new();
    reader.read_line(&mut line).expect("a line");
    line.trim_end().to_owned()
}

/// A server of one session that answers STARTTLS by this; what the client sent behind it comes back.
fn server_that_answers_starttls(answer: &'static str) -> (u16, JoinHandle<Vec<u8>>) {
    let listener = TcpListener::bind("127.0.0.1:0").expect("a free port");
    let port = listener.local_addr().expect("it has an address").port();
    let session = std::thread::spawn(move || {
        let (mut peer, _) = listener.accept().expect("a client");
        let mut reader = BufReader::new(peer.try_clone().expect("a second handle"));
        peer.write_all(b"220 here\r\n").expect("the client reads");
        assert!(line(&mut reader).starts_with("EHLO"));
        peer.write_all(b"250-here\r\n250 STARTTLS\r\n").expect("the client reads");
        assert_eq!(line(&mut reader), "STARTTLS");
        peer.write_all(answer.as_bytes()).expect("the client reads");
        let mut rest = Vec::new();
        let _ = reader.read_to_end(&mut rest);
        rest
    });
    (port, session)
}

#[test]
fn octets_in_the_clear_behind_the_220_end_the_session_unexecuted() {
    let injected = "220 go ahead\r\n250-here\r\n250 SIZE 1\r\n";
    let (port, session) = server_that_answers_starttls(injected);
    let run = Hammer::start_at(&format!("smtp+starttls://127.0.0.1:{port}"), &["-m", "1", "--skip-verify"]).finish();
    assert_eq!((run.count("messages.failed"), run.errors_of("injection", "starttls")), (1, 1), "{}", run.shown());
    assert_eq!(session.join().expect("the session"), b"", "the client has not gone on");
}

#[test]
fn octets_in_the_clear_behind_starttls_end_the_session_unexecuted() {
    let sink = Sink::start(&[]);
    let talk = |last: &[&str]| {
        let mut peer = TcpStream::connect(("127.0.0.1", sink.port())).expect("the sink listens");
        let mut reader = BufReader::new(peer.try_clone().expect("a second handle"));
        line(&mut reader);
        peer.write_all(b"EHLO client.test\r\n").expect("the sink reads");
        while line(&mut reader).starts_with("250-") {}
        let mut replies = String::new();
        for piece in last {
            peer.write_all(piece.as_bytes()).expect("the sink reads");
            replies += &line(&mut reader);
        }
        let mut rest = Vec::new();
        let _ = reader.read_to_end(&mut rest);
        (replies, rest)
    };
    let (replies, rest) = talk(&["STARTTLS\r\nEHLO injected.test\r\nMAIL FROM:<a@example.com>\r\n"]);
    assert!(replies.starts_with("554 5.5.0") && rest.is_empty(), "{replies} {rest:?}");
    let (replies, rest) = talk(&["STARTTLS\r\n", "EHLO injected.test\r\n"]);
    assert!(replies.starts_with("220 "), "{replies}");
    assert!(!rest.windows(4).any(|four| four == b"250-"), "an alert at most: {rest:?}");
    let report = sink.stop();
    assert_eq!((&report["errors"], &report["tls_handshakes"]), (&2.into(), &0.into()));
}

#[test]
fn swaks_sends_through_tls_and_starttls() {
    let certificate = localhost();
    for (scheme, option) in SCHEMES.into_iter().zip(["--tls-on-connect", "--tls"]) {
        let sink = sink(scheme, &certificate, &[]);
        let port = sink.port().to_string();
        let arguments = ["--server", "127.0.0.1", "--port", &port, "--helo", "swaks.test", "--from", "a@example.com"];
        let Finished { status, stdout, stderr } =
            Process::run(Command::new("swaks").args(arguments).args(["--to", "b@example.com", option]));
        assert!(status.success(), "{stdout}{stderr}");
        assert!(stdout.contains("TLS started"), "{stdout}");
        let report = sink.stop();
        assert_eq!((&report["messages"], &report["errors"]), (&1.into(), &0.into()), "{stdout}");
    }
}

#[test]
fn smtplib_sends_through_tls_and_starttls() {
    let certificate = localhost();
    for (scheme, how) in SCHEMES.into_iter().zip(["tls", "starttls"]) {
        let kept = tempfile::tempdir().unwrap();
        let sink = sink(scheme, &certificate, &[]);
        let mut command = python();
        command.arg(script("smtplib_send.py")).args([&sink.port().to_string(), "50", "1", text(kept.path())]);
        let finished = Process::run(command.args([how, text(&certificate.file())]));
        assert!(finished.status.success(), "{}", finished.stderr);
        let report = sink.stop();
        assert_eq!((&report["messages"], &report["errors"]), (&50.into(), &0.into()));
        assert_eq!(report["tls_handshakes"], 1);
    }
}

#[test]
fn openssl_verifies_the_sink_and_is_said_goodbye_to() {
    let certificate = localhost();
    for version in ["-tls1_2", "-tls1_3"] {
        let sink = sink("smtp+starttls", &certificate, &[]);
        let address = format!("127.0.0.1:{}", sink.port());
        let file = certificate.file();
        let arguments = ["s_client", "-starttls", "smtp", "-connect", &address, "-verify_return_error", "-quiet"];
        let mut client = Command::new("openssl");
        client.args(arguments).args([version, "-CAfile", text(&file), "-verify_hostname", "localhost"]);
        let finished = with_input(&mut client, b"EHLO openssl.test\r\nQUIT\r\n");
        assert!(finished.contains("250-PIPELINING") || finished.contains("250-SIZE"), "{finished}");
        assert!(finished.contains("221 ") && !finished.contains("unexpected eof"), "{finished}");
        let report = sink.stop();
        assert_eq!((&report["tls_handshakes"], &report["errors"]), (&1.into(), &0.into()), "{finished}");
    }
}

/// Runs a command that reads this and ends by itself; all that it says.
fn with_input(command: &mut Command, input: &[u8]) -> String {
    use std::process::Stdio;
    command.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped());
    let mut child = command.spawn().expect("openssl is installed; tools/test installs the peers");
    let mut stdin = child.stdin.take().expect("a pipe");
    stdin.write_all(input).expect("it reads");
    let output = child.wait_with_output().expect("it ends");
    drop(stdin);
    String::from_utf8_lossy(&[output.stdout, output.stderr].concat()).into_owned()
}

#[test]
fn wrong_files_are_named_before_anything_is_started() {
    let certificate = localhost();
    let key = certificate.key_file();
    for (arguments, option) in [
        (&["hammer", "smtps://127.0.0.1:9", "--ca-file", "/nonexistent"][..], "--ca-file"),
        (&["hammer", "smtps://127.0.0.1:9", "--ca-file", text(&key)], "--ca-file"),
        (&["hammer", "smtp://127.0.0.1:9", "--ca-file", text(&key)], "--ca-file"),
        (&["hammer", "smtp://127.0.0.1:9", "--skip-verify"], "--skip-verify"),
        (&["sink", "--tls-cert", text(&key), "--tls-key", text(&key)], "--tls-cert"),
        (&["sink", "--listen", "smtps://localhost"], "--listen"),
    ] {
        let Finished { status, stderr, .. } = Process::run(crate::support::timecop().args(arguments));
        assert_eq!(status.code(), Some(2), "{arguments:?}: {stderr}");
        assert!(stderr.contains(option) && !stderr.contains("PRIVATE"), "{arguments:?}: {stderr}");
    }
}

type Secured = BufReader<rustls::StreamOwned<rustls::ServerConnection, TcpStream>>;

/// A server over TLS that lets sessions come up to the 354, one after the other; what is then done with each is the
/// test's affair. It ends after so many.
fn server_up_to_354<T: Send + 'static>(
    certificate: &Certificate,
    sessions: usize,
    then: impl Fn(Secured) -> T + Send + 'static,
) -> (u16, JoinHandle<Vec<T>>) {
    use rustls::pki_types::pem::PemObject as _;
    use rustls::pki_types::{CertificateDer, PrivateKeyDer};
    let chain = vec![CertificateDer::from_pem_file(certificate.file()).expect("a certificate")];
    let key = PrivateKeyDer::from_pem_file(certificate.key_file()).expect("a key");
    let provider = Arc::new(rustls::crypto::ring::default_provider());
    let builder = rustls::ServerConfig::builder_with_provider(provider).with_safe_default_protocol_versions();
    let config = builder.expect("versions").with_no_client_auth().with_single_cert(chain, key).expect("a pair");
    let config = Arc::new(config);
    let listener = TcpListener::bind("127.0.0.1:0").expect("a free port");
    let port = listener.local_addr().expect("it has an address").port();
    let served = std::thread::spawn(move || {
        let session = |socket: std::io::Result<TcpStream>| {
            let connection = rustls::ServerConnection::new(Arc::clone(&config)).expect("a session");
            let mut peer = BufReader::new(rustls::StreamOwned::new(connection, socket.expect("a client")));
            peer.get_mut().write_all(b"220 here\r\n").expect("the client reads");
            for expected in ["EHLO", "MAIL", "RCPT", "DATA"] {
                assert!(line(&mut peer).starts_with(expected));
                let reply: &[u8] = if expected == "DATA" { b"354 go\r\n" } else { b"250 ok\r\n" };
                peer.get_mut().write_all(reply).expect("the client reads");
            }
            then(peer)
        };
        listener.incoming().take(sessions).map(session).collect()
    });
    (port, served)
}

#[test]
fn the_generator_says_goodbye() {
    let certificate = localhost();
    let (port, served) = server_up_to_354(&certificate, 1, |mut peer| {
        while line(&mut peer) != "." {}
        peer.get_mut().write_all(b"250 ok\r\n").expect("the client reads");
        assert_eq!(line(&mut peer), "QUIT");
        peer.get_mut().write_all(b"221 bye\r\n").expect("the client reads");
        peer.read(&mut [0; 16])
    });
    run("smtps", port, &certificate, &["-m", "1", "-s", "400"]).assert_all_accepted(1);
    let ends = served.join().expect("the session");
    assert!(matches!(ends[..], [Ok(0)]), "a close_notify comes before the end of the stream: {ends:?}");
}

#[test]
fn a_connection_that_is_given_up_in_the_middle_of_a_large_message_is_replaced_under_tls_too() {
    let certificate = localhost();
    let (port, served) = server_up_to_354(&certificate, 3, |peer| peer);
    let run = run("smtps", port, &certificate, &["-m", "3", "-s", "20000000", "--timeout", "1s"]);
    assert_eq!((run.count("messages.failed"), run.errors_of("timeout", "final")), (3, 3), "{}", run.shown());
    assert_eq!(served.join().expect("the sessions").len(), 3);
}
