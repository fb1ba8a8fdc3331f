//! The round trip, end to end: a private Postfix in the place of a public server, and other people's clients at our own
//! port 25.

use std::cell::RefCell;
use std::fs;
use std::io::{BufRead as _, BufReader, Write as _};
use std::net::{SocketAddr, TcpStream};
use std::os::unix::fs::PermissionsExt as _;
use std::process::Command;
use std::time::{Duration, SystemTime};

use serde_json::Value;
use socket2::{Domain, Socket, Type};
use tempfile::TempDir;
use timecop::probe::header::{Key, Token};
use timecop::time::WallTime;

use crate::auth::{PASSWORD, USER, sasl_users};
use crate::sink::swaks;
use crate::support::{Certificate, Port, Postfix, Process, Service, Sink, poll, text};

const ADDRESS: &str = "probe@timecop.test";

/// A service with its own port 25, and what its configuration names.
struct Prober {
    service: Service,
    port: u16,
    _claim: Port,
    files: TempDir,
}

impl Prober {
    /// With these routes and more; `port` is where it takes mail.
    fn start(claim: Port, routes: &str) -> Prober {
        let files = tempfile::tempdir().expect("a temporary folder");
        let port = claim.number();
        let secret = files.path().join("probe.key");
        let configuration = format!(
            "[smtp]\nlisten = [\"127.0.0.1:{port}\"]\nhostname = \"timecop.test\"\n\
             [probe]\naddress = \"{ADDRESS}\"\nsecret_file = \"{}\"\n{routes}",
            text(&secret)
        );
        Prober { service: Service::start(&configuration), port, _claim: claim, files }
    }

    /// With one route, `postfix`, that goes through a Postfix with a login.
    fn through(postfix: &Public, threshold: &str, timeout: &str) -> Prober {
        let claim = postfix.claim.borrow_mut().take().expect("one prober for each Postfix");
        let routes = format!(
            "[[probe.route]]\nname = \"postfix\"\ntarget = \"public\"\ninterval = \"1h\"\nthreshold = \"{threshold}\"\n\
             timeout = \"{timeout}\"\nsize = 3000\n{}",
            postfix.target()
        );
        Prober::start(claim, &routes)
    }

    /// Sends a probe and gives its number.
    fn fire(&self, route: &str) -> String {
        let fired = self.service.post(&format!("/v1/probe/route.fire?name={route}"), None);
        assert_eq!(fired.status, 200, "{fired:?}");
        fired.body["id"].as_str().expect("an id").to_owned()
    }

    fn probe(&self, route: &str, id: &str) -> Value {
        let found = self.service.post(&format!("/v1/probe/route.get?name={route}"), None);
        let probes = found.body["probes"].as_array().unwrap_or_else(|| panic!("{found:?}"));
        probes.iter().find(|probe| probe["id"] == id).unwrap_or_else(|| panic!("no {id} in {found:?}")).clone()
    }

    /// Waits until the probe has this outcome.
    fn ends(&self, route: &str, id: &str, outcome: &str) -> Value {
        poll(&format!("{outcome} of probe {id}"), || {
            Some(self.probe(route, id)).filter(|probe| probe["outcome"] == outcome)
        })
    }

    /// Waits until the server that the probe was handed to has taken it.
    fn is_handed_over(&self, route: &str, id: &str) {
        poll("the probe to be handed over", || self.probe(route, id)["legs"]["submit_s"].as_f64());
    }

    /// A sample of the metrics, by the beginning of its line; zero where there is none.
    fn metric(&self, sample: &str) -> f64 {
        let (_, metrics) = self.service.get("/metrics");
        let value = metrics.lines().find_map(|line| line.strip_prefix(sample)?.strip_prefix(' '));
        value.map_or(0.0, |value| value.parse().expect("a number"))
    }

    fn outcomes(&self, outcome: &str) -> f64 {
        self.metric(&format!("timecop_probe_outcomes_total{{route=\"postfix\",outcome=\"{outcome}\"}}"))
    }

    fn ignored(&self, reason: &str) -> f64 {
        self.metric(&format!("timecop_probe_ignored_total{{reason=\"{reason}\"}}"))
    }

    fn key(&self) -> Key {
        let text = fs::read_to_string(self.files.path().join("probe.key")).expect("it was made");
        Key::parse(text.trim()).expect("64 digits")
    }
}

/// A Postfix as a public server: mail is submitted to it under TLS with a login, and it relays what is for the probe
/// address to a port of ours.
struct Public {
    postfix: Postfix,
    /// Where it relays to, until a prober takes it.
    claim: RefCell<Option<Port>>,
    certificate: Certificate,
    password: TempDir,
    _users: TempDir,
}

impl Public {
    fn start(more: &str) -> Public {
        let (certificate, users, claim) = (Certificate::of(&["localhost"]), sasl_users(), Port::claim());
        let password = tempfile::tempdir().expect("a temporary folder");
        let file = password.path().join("password");
        fs::write(&file, PASSWORD).expect("a file in our folder");
        fs::set_permissions(&file, fs::Permissions::from_mode(0o600)).expect("our own file");
        let sasl = format!(
            "pwcheck_method: auxprop\nauxprop_plugin: sasldb\nsasldb_path: {}\nmech_list: PLAIN\n",
            users.path().join("sasldb2").display()
        );
        let settings = format!(
            "smtpd_tls_security_level = encrypt\nsmtpd_tls_cert_file = {}\nsmtpd_tls_key_file = {}\n\
             smtpd_sasl_auth_enable = yes\nsmtpd_tls_auth_only = yes\nsmtpd_sasl_local_domain = postfix.test\n\
             smtpd_relay_restrictions = permit_sasl_authenticated, reject\nsmtp_tls_security_level = encrypt\n\
             transport_maps = inline:{{ {{ timecop.test = relay:[127.0.0.1]:{} }} }}\n\
             queue_run_delay = 1s\nminimal_backoff_time = 1s\nmaximal_backoff_time = 1s\n{more}\n",
            text(&certificate.file()),
            text(&certificate.key_file()),
            claim.number()
        );
        let postfix = Postfix::asking_for_login(&settings, &sasl);
        Public { postfix, claim: Some(claim).into(), certificate, password, _users: users }
    }

    /// It holds back all that it is handed, until [`Postfix::release`].
    fn holding() -> Public {
        Public::start("smtpd_end_of_data_restrictions = check_client_access static:HOLD")
    }

    fn target(&self) -> String {
        format!(
            "[targets.public]\nurl = \"smtp+starttls://localhost:{}\"\nuser = \"{USER}\"\npassword_file = \"{}\"\n\
             ca_file = \"{}\"\n",
            self.postfix.port(),
            text(&self.password.path().join("password")),
            text(&self.certificate.file())
        )
    }
}

#[test]
fn a_probe_goes_by_postfix_and_comes_back() {
    let public = Public::start("");
    let prober = Prober::through(&public, "30s", "60s");
    let id = prober.fire("postfix");
    prober.is_handed_over("postfix", &id);
    let probe = prober.ends("postfix", &id, "ok");
    for leg in ["connect_s", "tls_s", "auth_s", "submit_s", "transit_s"] {
        assert!(probe["legs"][leg].as_f64().is_some_and(|seconds| seconds >= 0.0), "{leg}: {probe}");
    }
    let round_trip = probe["round_trip_s"].as_f64().expect("it came back");
    let legs: f64 = probe["legs"].as_object().expect("legs").values().filter_map(Value::as_f64).sum();
    assert!(round_trip > 0.0 && legs <= round_trip * 1.02 + 0.002, "{probe}");
    let hops = probe["hops"].as_array().expect("hops");
    assert!(hops.iter().any(|hop| hop.to_string().contains("postfix.test")), "{probe}");
    assert_eq!((prober.outcomes("ok"), prober.outcomes("late")), (1.0, 0.0));
    assert_eq!(prober.metric("timecop_round_trip_seconds_count{route=\"postfix\"}"), 1.0);
    // The server counts it when its reply has left, which may be after the probe is seen to have arrived.
    poll("the message among those accepted", || {
        (prober.metric("timecop_smtp_messages_total{outcome=\"accepted\"}") == 1.0).then_some(())
    });
    let log = poll("the delivery in the log", || Some(public.postfix.log()).filter(|log| log.contains("status=sent")));
    assert!(log.contains("250 2.6.0 accepted"), "{log}");
}

#[test]
fn mail_that_postfix_holds_back_is_late() {
    let public = Public::holding();
    let prober = Prober::through(&public, "1s", "1h");
    let id = prober.fire("postfix");
    prober.is_handed_over("postfix", &id);
    let sent = prober.probe("postfix", &id)["sent_unix_ns"].as_u64().expect("a time");
    poll("the threshold to pass", || (unix_ns() > sent + 1_100_000_000).then_some(()));
    poll("it to be late before it arrives", || {
        (prober.metric("timecop_probe_overdue{route=\"postfix\"}") == 1.0).then_some(())
    });
    assert_eq!(prober.metric("timecop_probe_not_in_time_total{route=\"postfix\"}"), 1.0);
    public.postfix.release();
    let probe = prober.ends("postfix", &id, "late");
    assert_eq!(prober.metric("timecop_probe_not_in_time_total{route=\"postfix\"}"), 1.0, "once a probe");
    assert!(probe["round_trip_s"].as_f64() >= Some(1.1) && probe["legs"]["transit_s"].as_f64() > Some(0.0), "{probe}");
    assert_eq!((prober.outcomes("late"), prober.outcomes("lost"), prober.outcomes("ok")), (1.0, 0.0, 0.0));
}

#[test]
fn mail_that_does_not_come_is_lost_and_late_when_it_comes_after_all() {
    let public = Public::holding();
    let prober = Prober::through(&public, "1s", "2s");
    let id = prober.fire("postfix");
    prober.is_handed_over("postfix", &id);
    prober.ends("postfix", &id, "lost");
    assert_eq!(public.postfix.queued(), 1);
    public.postfix.release();
    prober.ends("postfix", &id, "late");
    assert_eq!((prober.outcomes("lost"), prober.outcomes("late"), prober.outcomes("ok")), (1.0, 1.0, 0.0));
    assert_eq!(prober.metric("timecop_probe_found_total{route=\"postfix\"}"), 1.0);
}

#[test]
fn a_probe_outlives_the_service_that_sent_it() {
    let public = Public::holding();
    let mut prober = Prober::through(&public, "5m", "1h");
    for signal in ["KILL", "TERM"] {
        let id = prober.fire("postfix");
        prober.is_handed_over("postfix", &id);
        let Prober { service, port, _claim, files } = prober;
        let (_, service) = service.restart_after(signal);
        prober = Prober { service, port, _claim, files };
        assert!(prober.probe("postfix", &id)["outcome"].is_null(), "it is still on its way after {signal}");
        public.postfix.release();
        let probe = prober.ends("postfix", &id, "ok");
        assert!(probe["round_trip_s"].as_f64().is_some_and(|seconds| seconds > 0.0), "{probe}");
    }
}

#[test]
fn mail_that_comes_while_the_service_is_down_is_tried_again_and_taken() {
    let public = Public::holding();
    let prober = Prober::through(&public, "5m", "1h");
    let id = prober.fire("postfix");
    prober.is_handed_over("postfix", &id);
    let Prober { service, port, _claim, files } = prober;
    let stopped = service.stop("TERM");
    public.postfix.release();
    poll("a refused delivery", || public.postfix.log().contains("Connection refused").then_some(()));
    let prober = Prober { service: stopped.start(), port, _claim, files };
    let probe = prober.ends("postfix", &id, "ok");
    assert!(probe["down_s"].as_f64() > Some(0.0), "{probe}");
}

/// A message as it was handed over, caught on its way.
fn caught(prober: &Prober, kept: &TempDir) -> (String, String) {
    let id = prober.fire("caught");
    poll("the probe at the sink", || (prober.probe("caught", &id)["legs"]["submit_s"].is_f64()).then_some(()));
    let file = poll("the file", || fs::read_dir(kept.path()).expect("our folder").next());
    let message = fs::read_to_string(file.expect("a file").path()).expect("ASCII");
    (id, message)
}

#[test]
fn forged_replayed_and_other_headers_are_told_apart_and_end_no_probe() {
    let kept = tempfile::tempdir().expect("a temporary folder");
    let sink = Sink::saving_to(kept.path());
    let route = format!(
        "[[probe.route]]\nname = \"caught\"\ntarget = \"smtp://127.0.0.1:{}\"\ninterval = \"1h\"\nthreshold = \"5m\"\n\
         timeout = \"1h\"\n",
        sink.port()
    );
    let prober = Prober::start(Port::claim(), &route);
    let (id, message) = caught(&prober, &kept);
    let header = |message: &str| message.lines().find(|line| line.starts_with("X-Timecop-Probe: ")).map(str::to_owned);
    let header = header(&message).expect("the header of a probe");
    assert!(header.len() < 998, "{header}");
    let with = |line: &str| message.replace(&header, line);
    let digit = header.chars().next_back().expect("a digit");
    let other = if digit == '0' { '1' } else { '0' };
    let mut forged = header.clone();
    forged.pop();
    forged.push(other);
    let token =
        |sent_ns: u64| Token { id: 1, route: "caught".to_owned(), sent: WallTime::from_unix_ns(sent_ns), nonce: 2 };
    let signed = |token: Token, key: &Key| format!("X-Timecop-Probe: {}", token.write(key));
    let key = prober.key();
    for (reason, line) in [
        ("forged", forged),
        ("forged", signed(token(unix_ns()), &Key::new([7; 32]))),
        ("malformed", "X-Timecop-Probe: nonsense".to_owned()),
        ("malformed", format!("{header}\r\n{header}")),
        ("version", header.replace("v=1", "v=2")),
        ("absent", "X-Other: 1".to_owned()),
        ("unknown", signed(token(unix_ns()), &key)),
        ("future", signed(token(unix_ns() + 3_600_000_000_000), &key)),
    ] {
        let before = prober.ignored(reason);
        assert!(Client::deliver(prober.port, &with(&line)).starts_with("250 "), "{reason}");
        assert_eq!(prober.ignored(reason), before + 1.0, "{reason}: {line}");
    }
    assert!(prober.probe("caught", &id)["outcome"].is_null(), "nothing of it ended the probe");
    assert_eq!(prober.metric("timecop_round_trip_seconds_count{route=\"caught\"}"), 0.0);
    // The real one ends it, once.
    assert!(Client::deliver(prober.port, &message).starts_with("250 "));
    prober.ends("caught", &id, "ok");
    assert!(Client::deliver(prober.port, &message).starts_with("250 "));
    assert_eq!(prober.ignored("duplicate"), 1.0);
    assert_eq!(prober.metric("timecop_round_trip_seconds_count{route=\"caught\"}"), 1.0);
}

#[test]
fn swaks_is_refused_what_our_own_port_25_does_not_take() {
    let prober = Prober::start(Port::claim(), "");
    let attempt = |options: &[&str]| {
        let finished = swaks(prober.port, options);
        (finished.status.success(), finished.stdout + &finished.stderr)
    };
    for to in ["someone@timecop.test", "probe@example.com", "probe%example.com@timecop.test"] {
        let (accepted, said) = attempt(&["--to", to]);
        assert!(!accepted && said.contains("550 5.7.1"), "{to}: {said}");
    }
    let (accepted, said) = attempt(&["--to", ADDRESS, "--tls"]);
    assert!(accepted && said.contains("TLS started") && said.contains("250 2.6.0"), "{said}");
    let (accepted, said) = attempt(&["--to", "postmaster"]);
    assert!(accepted, "{said}");
    let (accepted, said) = attempt(&["--to", ADDRESS, "--auth", "PLAIN", "--auth-user", "a", "--auth-password", "b"]);
    assert!(!accepted && !said.contains("250-AUTH"), "nobody logs in here: {said}");
    assert_eq!((prober.ignored("absent"), prober.ignored("postmaster")), (1.0, 1.0));
    assert_eq!(prober.metric("timecop_smtp_recipients_refused_total"), 3.0);
}

/// Two addresses hold all connections; a third one is served, for which one of theirs ends.
#[test]
fn a_few_addresses_cannot_keep_others_from_our_own_port_25() {
    let claim = Port::claim();
    let port = claim.number();
    let service = Service::start(&format!(
        "[smtp]\nlisten = [\"127.0.0.1:{port}\"]\nhostname = \"timecop.test\"\nconnections_max = 4\n\
         client_connections_max = 2\n[probe]\naddress = \"{ADDRESS}\"\n"
    ));
    let mut crowd: Vec<Client> =
        (0..4).map(|n| Client::connect_from(["127.0.0.2", "127.0.0.3"][n % 2], port)).collect();
    let mut newcomer = Client::connect_from("127.0.0.4", port);
    newcomer.say("EHLO c");
    assert!(newcomer.message("Subject: x\r\n\r\n").starts_with("250 "));
    let said = crowd.iter_mut().map(|client| {
        // Whose session was ended has been told so before the newcomer was greeted.
        if !client.has_heard() {
            client.write("NOOP\r\n");
        }
        client.read()
    });
    let said: Vec<String> = said.collect();
    let count = |code: &str| said.iter().filter(|reply| reply.starts_with(code)).count();
    assert_eq!((count("250 "), count("421 4.7.0")), (3, 1), "{said:?}");
    drop(service);
}

#[test]
fn openssl_begins_tls_at_our_own_port_25() {
    let prober = Prober::start(Port::claim(), "");
    let mut command = Command::new("openssl");
    command.args(["s_client", "-starttls", "smtp", "-connect", &format!("127.0.0.1:{}", prober.port)]);
    let finished = Process::run(&mut command);
    assert!(finished.stdout.contains("BEGIN CERTIFICATE"), "{}{}", finished.stdout, finished.stderr);
    // What stands behind STARTTLS in the clear is executed by nobody.
    let mut client = Client::connect(prober.port);
    client.say("EHLO c");
    client.write("STARTTLS\r\nMAIL FROM:<a@x>\r\n");
    assert!(client.read().starts_with("554 5.5.0") && client.read().is_empty());
}

#[test]
fn what_is_too_large_or_smuggled_is_refused_at_our_own_port_25() {
    let prober = Prober::start(Port::claim(), "");
    let mut client = Client::connect(prober.port);
    client.say("EHLO c");
    assert!(client.say("MAIL FROM:<a@x> SIZE=10485761").starts_with("552 5.3.4"));
    assert!(client.message(&format!("A: 1\r\n\r\n{}", "x\r\n".repeat(4 << 20))).starts_with("552 5.3.4"));
    assert!(client.message(&format!("A: 1\r\n{}\r\nx\r\n", "B: 2\r\n".repeat(50_000))).starts_with("552 5.3.4"));
    for end in ["\n.\n", "\n.\r\n", "\r\n.\n", "\r.\r", "\r.\r\n", "\r\n.\r", "\r\r\n.\r\r\n", "\0"] {
        let inner = "MAIL FROM:<evil@x>\r\nRCPT TO:<probe@timecop.test>\r\nDATA\r\nA: 2\r\n";
        let reply = client.message(&format!("A: 1\r\n\r\nbody{end}{inner}"));
        assert!(reply.starts_with("550 5.6.0"), "{end:?}: {reply}");
    }
    assert!(client.message("A: 1\r\n\r\n..\r\n").starts_with("250 "), "the session has gone on");
    assert_eq!(prober.ignored("absent"), 1.0, "of all that, one message arrived");
}

#[test]
fn thirty_thousand_nested_parts_are_not_looked_at() {
    let prober = Prober::start(Port::claim(), "");
    let bomb = "Content-Type: message/rfc822\r\n\r\n".repeat(30_000);
    let mut client = Client::connect(prober.port);
    client.say("EHLO c");
    assert!(client.message(&bomb).starts_with("250 "));
    assert_eq!(prober.ignored("absent"), 1.0);
}

/// What a hammer job at full load beside it does to the round trip. `tools/round-trip` measures it; here it is held to what
/// no machine exceeds while the prober has a shard of its own.
#[test]
fn a_probe_beside_a_hammer_job_at_full_load_still_comes_back() {
    let claim = Port::claim();
    let route = format!(
        "[[probe.route]]\nname = \"self\"\ntarget = \"smtp://127.0.0.1:{}\"\ninterval = \"1h\"\nthreshold = \"30s\"\n\
         timeout = \"60s\"\n",
        claim.number()
    );
    let prober = Prober::start(claim, &route);
    let round_trips = |probes: usize| {
        let mut times: Vec<f64> = (0..probes)
            .map(|_| {
                let id = prober.fire("self");
                prober.ends("self", &id, "ok")["round_trip_s"].as_f64().expect("it came back") * 1e3
            })
            .collect();
        times.sort_by(f64::total_cmp);
        (times[probes / 2], times[probes - 1])
    };
    let alone = round_trips(20);
    let job =
        prober.service.run(r#"{"smtp_connection_type":"plain","msg_size":1000,"duration":"1h","connections":100}"#);
    prober.service.accepted(&job, 1_000);
    let beside = round_trips(20);
    let stopped = prober.service.post(&format!("/v1/hammer/job.stop?id={job}"), None);
    assert_eq!(stopped.status, 200, "{stopped:?}");
    let ended = prober.service.ended(&job);
    let rate = ended["result"]["rate_per_s"].as_f64();
    eprintln!(
        "median and most of 20 round trips, ms: alone {alone:.2?}; beside a job at {rate:?} messages/s {beside:.2?}"
    );
    assert!(beside.0 < alone.1 * 100.0, "the job has held up the prober: alone {alone:?}, beside it {beside:?}");
}

fn unix_ns() -> u64 {
    let since = SystemTime::now().duration_since(SystemTime::UNIX_EPOCH).expect("after 1970");
    u64::try_from(since.as_nanos()).expect("before 2554")
}

/// A client of our own port 25 that says what no other one does.
struct Client(BufReader<TcpStream>);

impl Client {
    fn connect(port: u16) -> Client {
        Client::connect_from("127.0.0.1", port)
    }

    /// From an address of this machine.
    fn connect_from(address: &str, port: u16) -> Client {
        let socket = Socket::new(Domain::IPV4, Type::STREAM, None).expect("a socket");
        let at = |address: &str, port| SocketAddr::new(address.parse().expect("an address"), port).into();
        socket.bind(&at(address, 0)).expect("an address of ours");
        socket.connect(&at("127.0.0.1", port)).expect("it listens");
        let stream = TcpStream::from(socket);
        stream.set_read_timeout(Some(Duration::from_secs(60))).expect("a socket");
        let mut client = Client(BufReader::new(stream));
        assert!(client.read().starts_with("220 timecop.test "));
        client
    }

    /// Whether something has come that was not read yet.
    fn has_heard(&self) -> bool {
        let stream = self.0.get_ref();
        stream.set_nonblocking(true).expect("a socket");
        let has_heard = stream.peek(&mut [0]).is_ok();
        stream.set_nonblocking(false).expect("a socket");
        has_heard
    }

    /// Delivers one message, and gives the last reply to it.
    fn deliver(port: u16, message: &str) -> String {
        let mut client = Client::connect(port);
        client.say("HELO c");
        client.message(message)
    }

    /// Sends a message, whose lines must not begin with a dot, and gives the last reply to it.
    fn message(&mut self, message: &str) -> String {
        for command in ["MAIL FROM:<a@example.com>", "RCPT TO:<probe@timecop.test>", "DATA"] {
            let reply = self.say(command);
            assert!(reply.starts_with('2') || reply.starts_with("354"), "{command}: {reply}");
        }
        let end = if message.ends_with("\r\n") { ".\r\n" } else { "\r\n.\r\n" };
        self.write(&format!("{message}{end}"));
        self.read()
    }

    fn say(&mut self, command: &str) -> String {
        self.write(&format!("{command}\r\n"));
        self.read()
    }

    fn write(&mut self, text: &str) {
        self.0.get_mut().write_all(text.as_bytes()).expect("it reads");
    }

    /// The last line of a reply; empty at the end of the connection.
    fn read(&mut self) -> String {
        loop {
            let mut line = String::new();
            self.0.read_line(&mut line).expect("it answers or closes");
            if line.as_bytes().get(3) != Some(&b'-') {
                return line;
            }
        }
    }
}
