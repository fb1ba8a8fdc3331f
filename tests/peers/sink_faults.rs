//! The sink's faults as other people's clients meet them.

use std::fs;
use std::io::{BufRead as _, BufReader, ErrorKind, Read as _, Write as _};
use std::net::TcpStream;
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

use serde_json::{Value, json};

use crate::sink::swaks;
use crate::support::{Hammer, Port, Postfix, Process, Service, Sink, python};

/// The exit status of swaks when the session does not begin.
const SWAKS_NO_BANNER: i32 = 21;
/// The exit status of swaks when no recipient was accepted.
const SWAKS_NO_RCPT: i32 = 24;

fn faults(rules: &[&'static str]) -> Vec<&'static str> {
    rules.iter().flat_map(|rule| ["--fault", rule]).collect()
}

fn fault(phase: &str, action: &str, count: u64) -> Value {
    json!({"phase": phase, "action": action, "count": count})
}

/// A client that says what it is told to.
struct Client(BufReader<TcpStream>);

impl Client {
    fn connect(port: u16) -> Client {
        let stream = TcpStream::connect(("127.0.0.1", port)).expect("the sink listens");
        stream.set_read_timeout(Some(Duration::from_secs(30))).expect("a time above 0");
        Client(BufReader::new(stream))
    }

    fn send(&mut self, text: &str) {
        self.0.get_mut().write_all(text.as_bytes()).expect("the sink takes it");
    }

    /// The next reply, its last line; empty at the end of the connection.
    fn reply(&mut self) -> std::io::Result<String> {
        loop {
            let mut line = String::new();
            self.0.read_line(&mut line)?;
            if line.as_bytes().get(3) != Some(&b'-') {
                return Ok(line.trim_end().to_owned());
            }
        }
    }

    fn ask(&mut self, command: &str) -> std::io::Result<String> {
        self.send(&format!("{command}\r\n"));
        self.reply()
    }
}

#[test]
fn a_greylisted_postfix_delivers_on_its_second_try() {
    let sink = Sink::start(&["--fault", "rcpt=450,greylist:1s,come back later"]);
    let relay = format!(
        "transport_maps = inline:{{ {{ example.com = smtp:[127.0.0.1]:{} }} }}\nminimal_backoff_time = 1s\n\
         queue_run_delay = 1s\n",
        sink.port()
    );
    let postfix = Postfix::start(&relay);
    let sent = swaks(postfix.port(), &["--to", "bob@example.com"]);
    assert!(sent.status.success(), "{}{}", sent.stdout, sent.stderr);
    crate::support::poll("the second try", || postfix.log().contains("status=sent").then_some(()));
    assert!(postfix.log().contains("status=deferred"), "{}", postfix.log());
    assert!(postfix.log().contains("come back later"), "{}", postfix.log());
    let report = sink.stop();
    assert_eq!(report["messages"], 1);
    let faults = report["faults"][0].clone();
    assert_eq!((&faults["phase"], &faults["action"]), (&json!("rcpt"), &json!("reply")), "{report}");
}

#[test]
fn swaks_meets_rules_for_some_recipients_and_caps_of_connections() {
    let sink = Sink::start(&faults(&[
        "rcpt:no@*=550,100%,no such user here",
        "banner=421,connections:1/address,100%,one at a time",
        "ehlo=without:STARTTLS+SIZE",
    ]));
    let refused = swaks(sink.port(), &["--to", "no@example.com"]);
    assert_eq!(refused.status.code(), Some(SWAKS_NO_RCPT), "{}", refused.stdout);
    assert!(refused.stdout.contains("550 5.7.1 no such user here"), "{}", refused.stdout);
    assert!(!refused.stdout.contains("STARTTLS") && !refused.stdout.contains("SIZE"), "{}", refused.stdout);
    assert!(refused.stdout.contains("PIPELINING"), "{}", refused.stdout);
    let accepted = swaks(sink.port(), &["--to", "yes@example.com"]);
    assert!(accepted.status.success(), "{}{}", accepted.stdout, accepted.stderr);
    let mut first = Client::connect(sink.port());
    assert!(first.reply().expect("a greeting").starts_with("220 "));
    let second = swaks(sink.port(), &["--to", "yes@example.com"]);
    assert_eq!(second.status.code(), Some(SWAKS_NO_BANNER), "{}{}", second.stdout, second.stderr);
    assert!(second.stdout.contains("421 one at a time"), "{}", second.stdout);
    assert!(first.ask("QUIT").expect("a reply").starts_with("221 "));
    let report = sink.stop();
    let expected = [fault("banner", "reply", 1), fault("ehlo", "without", 2), fault("rcpt", "reply", 1)];
    assert_eq!(report["faults"], json!(expected), "{report}");
}

#[test]
fn smtplib_sees_delays_drops_and_a_rate() {
    let sink = Sink::start(&faults(&["rcpt:slow@*=delay:300ms", "data:drop@*=drop", "mail=452,above:2/s"]));
    let script = "import smtplib, sys, time\n\
        def send(to):\n\
        \x20   with smtplib.SMTP('127.0.0.1', int(sys.argv[1])) as s:\n\
        \x20       s.sendmail('a@example.com', to, 'Subject: x\\r\\n\\r\\nx')\n\
        began = time.monotonic(); send('slow@example.com'); assert time.monotonic() - began >= 0.3\n\
        try: send('drop@example.com'); assert False\n\
        except smtplib.SMTPServerDisconnected: pass\n\
        codes = []\n\
        with smtplib.SMTP('127.0.0.1', int(sys.argv[1])) as s:\n\
        \x20   s.ehlo()\n\
        \x20   for _ in range(20): codes.append(s.mail('a@example.com')[0]); s.rset()\n\
        assert 452 in codes, codes\n";
    let finished = Process::run(python().args(["-c", script]).arg(sink.port().to_string()));
    assert!(finished.status.success(), "{}", finished.stderr);
    assert_eq!(sink.stop()["messages"], 1);
}

#[test]
fn a_reset_is_one() {
    let sink = Sink::start(&faults(&["mail=reset", "quit=reset"]));
    for command in ["MAIL FROM:<a@example.com>", "QUIT"] {
        let mut client = Client::connect(sink.port());
        client.reply().expect("a greeting");
        client.ask("EHLO c").expect("a reply");
        assert_eq!(client.ask(command).expect_err("no reply").kind(), ErrorKind::ConnectionReset, "{command}");
    }
    assert_eq!(sink.stop()["faults"], json!([fault("mail", "reset", 1), fault("quit", "reset", 1)]));
}

#[test]
fn a_reset_comes_behind_what_was_answered() {
    let sink = Sink::start(&faults(&["data=reset"]));
    let mut client = Client::connect(sink.port());
    client.reply().expect("a greeting");
    client.ask("EHLO c").expect("a reply");
    client.send("MAIL FROM:<a@example.com>\r\nRCPT TO:<b@example.com>\r\nDATA\r\n");
    assert_eq!(client.reply().expect("a reply"), "250 2.1.0 ok");
    assert_eq!(client.reply().expect("a reply"), "250 2.1.5 ok");
    assert_eq!(client.reply().expect_err("no reply").kind(), ErrorKind::ConnectionReset);
    assert_eq!(sink.stop()["faults"], json!([fault("data", "reset", 1)]));
}

#[test]
fn rules_that_can_never_strike_are_warned_of() {
    let mut process = Process::start(crate::support::timecop().args([
        "sink",
        "--listen",
        "127.0.0.1:0",
        "--no-starttls",
        "--fault",
        "tls=expired",
        "--fault",
        "mail=451,5%",
    ]));
    let warning = process.wait_error_line("warning: --fault: ");
    assert_eq!(warning, "warning: --fault: tls=expired: it never strikes, since this sink does not serve TLS");
    process.wait_error_line("listening on ");
    process.signal("TERM");
    assert!(process.finish().status.success());
    let service = Service::start("[[sink.fault]]\nrule = \"auth=535\"\n");
    let set = service.post("/v1/sink/fault.set", Some(r#"{"rules": ["rcpt=451,5%", "auth=454"]}"#));
    let warnings = json!(["auth=454: it never strikes, since this sink does not serve AUTH"]);
    assert_eq!((set.status, &set.body["Warnings"]), (200, &warnings), "{:?}", set.body);
    let stderr = service.stderr();
    assert!(stderr.contains("auth=535: it never strikes"), "{stderr}");
}

#[test]
fn a_client_is_read_slowly_no_longer_than_the_rules_say() {
    let service = Service::start("");
    let port: u16 = service.sink.rsplit(':').next().and_then(|port| port.parse().ok()).expect("a port");
    let set = |rules: &str| {
        let set = service.post("/v1/sink/fault.set", Some(&format!("{{\"rules\": {rules}}}")));
        assert_eq!(set.status, 200, "{set:?}");
    };
    let mut client = Client::connect(port);
    client.reply().expect("a greeting");
    set(r#"["ehlo=slow:10/s"]"#);
    client.ask("EHLO c").expect("a reply");
    // 60,000 octets would take 6,000 seconds.
    client.send(&"NOOP\r\n".repeat(10_000));
    client.reply().expect("a reply");
    assert_eq!(service.post("/v1/sink/fault.clear", None).status, 200);
    for _ in 1..10_000 {
        assert_eq!(client.reply().expect("a reply"), "250 2.0.0 ok");
    }
    // Other rules are others, and what is not slow in them is not.
    set(r#"["ehlo=slow:10/s"]"#);
    client.ask("EHLO c").expect("a reply");
    set(r#"["mail=slow:10/s"]"#);
    client.send(&"NOOP\r\n".repeat(1_000));
    for _ in 0..1_000 {
        client.reply().expect("a reply");
    }
}

/// What the kernel grants the newest connection to a port for what it has not read, in octets.
fn receive_room(port: u16, client: &TcpStream) -> u64 {
    let from = client.local_addr().expect("an address").port();
    let mut command = Command::new("ss");
    command.args([
        "-tnmH",
        "state",
        "established",
        "sport",
        "=",
        &format!(":{port}"),
        "dport",
        "=",
        &format!(":{from}"),
    ]);
    let text = Process::run(&mut command).stdout;
    let room = text.split_once(",rb").and_then(|(_, rest)| rest.split(',').next()).and_then(|room| room.parse().ok());
    room.unwrap_or_else(|| panic!("{text}"))
}

#[test]
fn a_slow_read_leaves_other_connections_their_windows() {
    let service = Service::start("");
    let port: u16 = service.sink.rsplit(':').next().and_then(|port| port.parse().ok()).expect("a port");
    let room_after_a_message = || {
        let mut client = Client::connect(port);
        client.reply().expect("a greeting");
        for command in ["EHLO c", "MAIL FROM:<a@example.com>", "RCPT TO:<b@example.com>", "DATA"] {
            client.ask(command).expect("a reply");
        }
        let line = format!("{}\r\n", "x".repeat(70));
        (0..20).for_each(|_| client.send(&line.repeat(10_000)));
        client.ask(".").expect("a reply");
        receive_room(port, client.0.get_ref())
    };
    let at_first = room_after_a_message();
    let set = service.post("/v1/sink/fault.set", Some(r#"{"rules": ["banner=slow:1000/s"]}"#));
    assert_eq!(set.status, 200, "{set:?}");
    let mut slow = Client::connect(port);
    slow.reply().expect("a greeting");
    assert!(receive_room(port, slow.0.get_ref()) < 20_000);
    assert_eq!(service.post("/v1/sink/fault.clear", None).status, 200);
    // It grows with what a message brings, as it did before.
    let usual = fs::read_to_string("/proc/sys/net/ipv4/tcp_rmem").expect("it can be read");
    let usual: u64 = usual.split_whitespace().nth(1).and_then(|room| room.parse().ok()).expect("three numbers");
    let room = room_after_a_message();
    assert!(
        at_first <= usual || room > usual,
        "{room} octets, {at_first} before, {usual} at the beginning of a connection"
    );
}

/// What `openssl s_client` says of a handshake, and whether it went well.
fn handshake(port: u16, starttls: bool) -> (bool, String) {
    let mut command = Command::new("openssl");
    command.args(["s_client", "-connect", &format!("127.0.0.1:{port}"), "-verify_return_error", "-brief"]);
    if starttls {
        command.args(["-starttls", "smtp"]);
    }
    let finished = Process::run(command.stdin(Stdio::null()));
    (finished.status.success(), format!("{}{}", finished.stdout, finished.stderr))
}

#[test]
fn tls_fails_as_it_is_told_to() {
    for (rule, said) in [
        ("tls=refuse", "alert"),
        ("tls=reset", "errno=104"),
        ("tls=drop", "unexpected eof"),
        ("connect=reset", "errno=104"),
    ] {
        let sink = Sink::secured(&["--fault", rule]);
        let (ok, text) = handshake(sink.port(), false);
        assert!(!ok && text.contains(said), "{rule}: {text}");
        let action = rule.split_once('=').expect("a rule").1;
        let phase = rule.split_once('=').expect("a rule").0;
        assert_eq!(sink.stop()["faults"], json!([fault(phase, action, 1)]), "{rule}");
    }
    let sink = Sink::start(&["--fault", "tls=reset"]);
    let (ok, text) = handshake(sink.port(), true);
    assert!(!ok && text.contains("errno=104"), "behind STARTTLS: {text}");
}

#[test]
fn certificates_are_expired_or_another_hosts() {
    let script = "import socket, ssl, sys\n\
        context = ssl.create_default_context(); context.check_hostname = False; context.verify_mode = ssl.CERT_NONE\n\
        with socket.create_connection(('127.0.0.1', int(sys.argv[1]))) as s:\n\
        \x20   with context.wrap_socket(s) as t: sys.stdout.write(ssl.DER_cert_to_PEM_cert(t.getpeercert(True)))\n";
    for (rule, shown) in
        [("tls=expired", "notAfter=Jan  1 00:00:00 2020 GMT"), ("tls=wrong-name", "wrong-name.invalid")]
    {
        let sink = Sink::secured(&["--fault", rule]);
        let fetched = Process::run(python().args(["-c", script]).arg(sink.port().to_string()));
        assert!(fetched.status.success(), "{}", fetched.stderr);
        let folder = tempfile::tempdir().expect("a temporary folder");
        let file = folder.path().join("cert.pem");
        fs::write(&file, &fetched.stdout).expect("a file can be written");
        let mut command = Command::new("openssl");
        command.args(["x509", "-noout", "-enddate", "-ext", "subjectAltName", "-in"]).arg(&file);
        let text = Process::run(&mut command).stdout;
        assert!(text.contains(shown), "{rule}: {text}");
    }
}

#[test]
fn a_client_is_read_slowly_and_meets_a_small_window() {
    let sink = Sink::start(&["--fault", "banner=slow:200/s"]);
    let mut client = Client::connect(sink.port());
    client.reply().expect("a greeting");
    // 60 octets at 200 a second, of which those of one read are at once.
    let began = Instant::now();
    client.send(&"NOOP\r\n".repeat(10));
    for _ in 0..10 {
        assert!(client.reply().expect("a reply").starts_with("250 "));
    }
    assert!(began.elapsed() >= Duration::from_millis(150), "{:?}", began.elapsed());
    // More than any window that the kernel would open by itself: what is not read stays here.
    let stream = client.0.get_mut();
    stream.set_nonblocking(true).expect("a socket");
    let mut taken = 0;
    let stuck =
        std::iter::repeat_with(|| stream.write(&[b'x'; 65_536])).take(10_000).find_map(|written| match written {
            Ok(octets) => {
                taken += octets;
                None
            }
            Err(error) => Some(error.kind()),
        });
    assert_eq!(stuck, Some(ErrorKind::WouldBlock), "{taken} octets were taken");
    assert_eq!(sink.stop()["faults"], json!([fault("banner", "slow", 1)]));
}

#[test]
fn the_services_sink_takes_other_faults_while_it_runs() {
    let service = Service::start("[[sink.fault]]\nrule = \"mail=451,100%,configured\"\n");
    let port: u16 = service.sink.rsplit(':').next().and_then(|port| port.parse().ok()).expect("a port");
    let mut client = Client::connect(port);
    client.reply().expect("a greeting");
    client.ask("EHLO c").expect("a reply");
    let mut mail = || {
        let reply = client.ask("MAIL FROM:<a@example.com>").expect("a reply");
        client.ask("RSET").expect("a reply");
        reply
    };
    assert_eq!(mail(), "451 4.3.0 configured");
    let list = service.post("/v1/sink/fault.list", None);
    assert_eq!((list.status, list.body), (200, json!({"Items": [{"rule": "mail=451,100%,configured", "struck": 1}]})));

    // The same connection meets the new ones at its next command.
    let rules = json!({"rules": ["mail=550,100%,set", "rcpt=450,greylist:5m", "data=slow:5/s", "http=503"]});
    let set = service.post("/v1/sink/fault.set", Some(&rules.to_string()));
    assert_eq!((set.status, set.body["Items"].as_array().map(Vec::len)), (200, Some(4)), "{:?}", set.body);
    assert_eq!(mail(), "550 5.7.1 set");
    // What was open is served on, and new connections come from where addresses are asked for.
    let mut other = Client::connect(port);
    assert!(other.reply().expect("a greeting").starts_with("220 "));
    for (wrong, status, said) in [
        (r#"{"rules": ["mail=550", "mail=250"]}"#, 422, "rules[1]: expected a reply code"),
        (r#"{"rules": "mail=550"}"#, 422, "expected {\"rules\""),
        (r#"{"rule": []}"#, 422, "unknown field"),
        ("{", 400, "expected JSON"),
    ] {
        let answer = service.post("/v1/sink/fault.set", Some(wrong));
        assert!(answer.status == status && answer.reason().contains(said), "{wrong}: {answer:?}");
    }
    let large = format!(r#"{{"rules": ["{}"]}}"#, "x".repeat(300_000));
    assert_eq!(service.post("/v1/sink/fault.set", Some(&large)).status, 413);
    assert_eq!(mail(), "550 5.7.1 set", "a wrong request changes nothing");
    let cleared = service.post("/v1/sink/fault.clear", None);
    assert_eq!((cleared.status, cleared.body), (200, json!({"Items": []})));
    assert_eq!(mail(), "250 2.1.0 ok");
    let metrics = service.get("/metrics").1;
    let line = r#"timecop_sink_faults_total{phase="mail",action="reply"} 3"#;
    assert!(metrics.contains(line), "{metrics}");
    // A reload puts those of the file in force, if they are others there.
    let set = service.post("/v1/sink/fault.set", Some(r#"{"rules": ["mail=451,100%,by the API"]}"#));
    assert_eq!(set.status, 200, "{set:?}");
    service.signal("HUP");
    crate::support::poll("the reload", || service.stderr().contains("were reloaded").then_some(()));
    assert_eq!(mail(), "451 4.3.0 by the API");
    let list = service.post("/v1/sink/fault.list", None);
    assert_eq!(list.body["Items"], json!([{"rule": "mail=451,100%,by the API", "struck": 1}]));
    service.configure("[[sink.fault]]\nrule = \"mail=452,100%,reloaded\"\n");
    service.signal("HUP");
    crate::support::poll("the reload", || (mail() == "452 4.3.1 reloaded").then_some(()));
    let mut rest = String::new();
    other.send("QUIT\r\n");
    other.0.read_to_string(&mut rest).expect("a reply");
    assert!(rest.starts_with("221 "), "{rest}");
}

#[test]
fn a_service_without_a_sink_says_so() {
    let folder = tempfile::tempdir().expect("a temporary folder");
    let file = folder.path().join("timecop.toml");
    let text = "[api]\nlisten = ['127.0.0.1:0']\n[sink]\nlisten = []\nhttp_listen = []\n[store]\npath = 'jobs.db'\n";
    fs::write(&file, text).expect("a file can be written");
    let mut process = Process::start(crate::support::timecop().args(["serve", "--config"]).arg(&file));
    let line = process.wait_line("listening on http://");
    let api = line.split(' ').nth(2).expect("an address");
    let answer = crate::support::agent().post(format!("{api}/v1/sink/fault.list")).send_empty().expect("an answer");
    assert_eq!(answer.status().as_u16(), 404);
}

#[test]
fn wrong_rules_are_named_at_the_start() {
    let mut command = crate::support::timecop();
    let finished = Process::run(command.args(["sink", "--listen", "127.0.0.1:0", "--fault", "rcpt=250"]));
    assert_eq!(finished.status.code(), Some(2));
    assert!(finished.stderr.contains("expected a reply code from 400 to 459"), "{}", finished.stderr);
}

#[test]
fn a_job_that_wants_starttls_sends_nothing_where_it_has_been_stripped() {
    let sink = Sink::start(&["--fault", "ehlo=without:STARTTLS"]);
    let target = format!("smtp+starttls://127.0.0.1:{}", sink.port());
    let run = Hammer::start_at(&target, &["-m", "5", "--skip-verify"]).finish();
    assert_eq!((run.exit, run.count("messages.failed")), (1, 5), "{}", run.shown());
    let report = sink.stop();
    // EHLO alone was said, and perhaps QUIT.
    assert_eq!((&report["messages"], &report["recipients"]), (&json!(0), &json!(0)), "{report}");
}

#[test]
fn connections_beyond_what_the_sink_has_room_for_leave_it_alive() {
    let port = Port::claim();
    let address = format!("127.0.0.1:{}", port.number());
    let mut command = Command::new("prlimit");
    let timecop = crate::support::timecop();
    command.args(["--nofile=600", "--"]).arg(timecop.get_program());
    let mut sink = Process::start(command.args(["sink", "--listen", &address, "--shards", "1"]));
    sink.wait_error_line("listening on ");
    let connect = || TcpStream::connect(&address);
    let flood: Vec<_> = (0..800).map_while(|_| connect().ok()).collect();
    assert!(flood.len() > 600, "{} connections", flood.len());
    drop(flood);
    // Those that come later are served as soon as there is room.
    let greeted = || {
        let mut client = Client::connect(port.number());
        client.reply().ok().filter(|reply| reply.starts_with("220 "))
    };
    crate::support::poll("a greeting", greeted);
    sink.signal("TERM");
    assert!(sink.finish().status.success());
}
