//! Logins (AUTH) with other people's implementations, and what happens when one fails.

use std::fs;
use std::io::{BufRead as _, BufReader, Write as _};
use std::net::TcpListener;
use std::os::unix::fs::PermissionsExt as _;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use tempfile::TempDir;

use crate::support::{
    Aiosmtpd, Certificate, Exim, Finished, Hammer, Postfix, Process, Run, Service, Sink, python, script, text,
};

pub const USER: &str = "tim";
pub const PASSWORD: &str = "tanstaaf tanstaaf:1";
/// What PLAIN and LOGIN make of it.
const ENCODED: [&str; 2] = ["AHRpbQB0YW5zdGFhZiB0YW5zdGFhZjox", "dGFuc3RhYWYgdGFuc3RhYWY6MQ=="];
const MECHANISMS: [&str; 3] = ["PLAIN", "LOGIN", "CRAM-MD5"];

fn localhost() -> Certificate {
    Certificate::of(&["localhost", "127.0.0.1"])
}

/// Files with the one user, and with a password.
struct Secrets(TempDir);

impl Secrets {
    fn new() -> Secrets {
        let dir = tempfile::tempdir().expect("a temporary folder");
        let write = |name: &str, content: &str| {
            let path = dir.path().join(name);
            fs::write(&path, content).expect("a file in our folder");
            fs::set_permissions(&path, fs::Permissions::from_mode(0o600)).expect("our own file");
        };
        write("users", &format!("# who may\n{USER}:{PASSWORD}\n"));
        write("password", &format!("{PASSWORD}\n"));
        write("wrong", "not it, at all\n");
        Secrets(dir)
    }

    fn path(&self, name: &str) -> PathBuf {
        self.0.path().join(name)
    }
}

/// A sink that takes mail from the user alone.
fn sink(certificate: &Certificate, secrets: &Secrets, options: &[&str]) -> Sink {
    let (file, key, users) = (certificate.file(), certificate.key_file(), secrets.path("users"));
    let own = ["--tls-cert", text(&file), "--tls-key", text(&key), "--auth-file", text(&users)];
    Sink::start(&[&own, options].concat())
}

/// A run that logs in by the password of a file. What it says holds no password.
fn run(scheme: &str, port: u16, certificate: &Certificate, password: &Path, options: &[&str]) -> Run {
    let file = certificate.file();
    let trust = ["--ca-file", text(&file)];
    let login = ["--user", USER, "--password-file", text(password)];
    let trust = if scheme == "smtp" { &[][..] } else { &trust[..] };
    let run = Hammer::start_at(&format!("{scheme}://localhost:{port}"), &[trust, &login, options].concat()).finish();
    assert_tells_nothing(&run.shown());
    run
}

fn assert_tells_nothing(output: &str) {
    for secret in [PASSWORD, "not it, at all"].iter().chain(&ENCODED) {
        assert!(!output.contains(secret), "{output}");
    }
}

/// The mechanism that was used, how often it was tried, and how often it did.
fn logins(run: &Run) -> (String, u64, u64) {
    let mechanism = run.report["auth"][0]["mechanism"].as_str().unwrap_or_else(|| panic!("{}", run.shown()));
    (mechanism.to_owned(), run.count("auth.0.tried"), run.count("auth.0.granted"))
}

#[test]
fn the_sink_takes_mail_from_the_users_of_its_file_alone() {
    let (certificate, secrets) = (localhost(), Secrets::new());
    let sink = sink(&certificate, &secrets, &[]);
    let right = run("smtp+starttls", sink.port(), &certificate, &secrets.path("password"), &["-m", "500", "-c", "5"]);
    right.assert_all_accepted(500);
    assert_eq!(logins(&right), ("PLAIN".to_owned(), 5, 5));
    assert_eq!(right.count("latency_s.accepted.phases.auth.count"), 5, "{}", right.shown());
    assert_eq!(right.report["spec"]["auth"], true);
    assert!(!right.shown().contains("\"tim\""), "whose login it was is not told: {}", right.shown());

    let wrong = run("smtp+starttls", sink.port(), &certificate, &secrets.path("wrong"), &["-m", "2", "-c", "1"]);
    assert_eq!((wrong.exit, wrong.count("messages.rejected")), (1, 2), "{}", wrong.shown());
    assert_eq!((wrong.replies("auth", 535), wrong.errors_of("credentials", "auth")), (2, 2), "{}", wrong.shown());
    assert_eq!(wrong.report["errors"][0]["blame"], "configuration");

    let file = certificate.file();
    let target = format!("smtp+starttls://localhost:{}", sink.port());
    let nobody = Hammer::start_at(&target, &["-m", "2", "-c", "1", "--ca-file", text(&file)]).finish();
    assert_eq!((nobody.count("messages.rejected"), nobody.replies("mail", 530)), (2, 2), "{}", nobody.shown());
    // In the clear it is not even offered.
    let clear = run("smtp", sink.port(), &certificate, &secrets.path("password"), &["-m", "2", "-c", "1"]);
    assert_eq!((clear.count("messages.failed"), clear.errors_of("auth_not_offered", "auth")), (2, 2));
    let report = sink.stop();
    assert_eq!(
        (&report["messages"], &report["auth_granted"], &report["auth_refused"]),
        (&500.into(), &5.into(), &2.into())
    );
}

#[test]
fn the_password_may_come_from_the_environment_and_never_from_the_command_line() {
    let (certificate, secrets) = (localhost(), Secrets::new());
    let sink = sink(&certificate, &secrets, &[]);
    let (target, file) = (format!("smtp+starttls://localhost:{}", sink.port()), certificate.file());
    let hammer = |password: Option<&str>| {
        let mut command = crate::support::timecop();
        command.args(["hammer", &target, "-m", "1", "--user", USER, "--ca-file", text(&file)]);
        command.env_remove("TIMECOP_PASSWORD").envs(password.map(|password| ("TIMECOP_PASSWORD", password)));
        Process::run(&mut command)
    };
    let Finished { status, stdout, stderr } = hammer(Some(PASSWORD));
    assert!(status.success() && stdout.contains("1 of 1 logins granted (PLAIN)"), "{stdout}{stderr}");
    assert_tells_nothing(&(stdout + &stderr));
    let Finished { status, stderr, .. } = hammer(None);
    assert!(status.code() == Some(2) && stderr.contains("--password-file"), "{stderr}");
    let broken = hammer(Some("tanstaaf\ntanstaaf"));
    assert!(broken.status.code() == Some(2) && !broken.stderr.contains("tanstaaf"), "{}", broken.stderr);
}

#[test]
fn a_login_that_the_server_will_not_have_now_is_a_deferral_and_one_that_is_cut_off_a_failure() {
    let (certificate, secrets) = (localhost(), Secrets::new());
    for (fault, outcome) in [(["--reply", "auth=454,100%"], "deferred"), (["--drop", "auth=100%"], "failed")] {
        let sink = sink(&certificate, &secrets, &fault);
        let run = run("smtp+starttls", sink.port(), &certificate, &secrets.path("password"), &["-m", "2", "-c", "1"]);
        assert_eq!(run.count(&format!("messages.{outcome}")), 2, "{}", run.shown());
        match outcome {
            "deferred" => assert_eq!((run.replies("auth", 454), run.errors_in_all()), (2, 0), "{}", run.shown()),
            _ => assert_eq!(run.errors_of("closed", "auth"), 2, "{}", run.shown()),
        }
    }
}

#[test]
fn a_run_in_which_no_login_succeeds_is_given_up() {
    let (certificate, secrets) = (localhost(), Secrets::new());
    let sink = sink(&certificate, &secrets, &[]);
    let options = ["-d", "60s", "-c", "2"];
    let run = run("smtp+starttls", sink.port(), &certificate, &secrets.path("wrong"), &options);
    let reason = run.report["aborted"].as_str().unwrap_or_else(|| panic!("{}", run.shown()));
    assert!(reason.starts_with("no login succeeded within 10 s") && reason.contains("535"), "{reason}");
    assert_eq!(run.exit, 1);
}

#[test]
fn a_password_in_the_clear_is_reported_loudly() {
    let (certificate, secrets) = (localhost(), Secrets::new());
    for (mechanism, is_shown) in [("PLAIN", true), ("CRAM-MD5", false)] {
        let (port, session) = server_that_offers(mechanism);
        let run = run("smtp", port, &certificate, &secrets.path("password"), &["-m", "1"]);
        assert_eq!(logins(&run), (mechanism.to_owned(), 1, 0));
        let notes = run.report["notes"].to_string();
        assert_eq!(notes.contains("THE PASSWORD WENT OVER THE WIRE IN CLEAR"), is_shown, "{notes}");
        let line = session.join().expect("the session");
        assert!(line.starts_with(&format!("AUTH {mechanism}")), "{line}");
        // What the server repeated of it stays where it came from.
        assert_eq!(run.count("messages.rejected"), 1, "{}", run.shown());
    }
}

/// A server of one session in the clear that offers this mechanism and then does not know what AUTH is.
fn server_that_offers(mechanism: &'static str) -> (u16, std::thread::JoinHandle<String>) {
    let listener = TcpListener::bind("127.0.0.1:0").expect("a free port");
    let port = listener.local_addr().expect("it has an address").port();
    let session = std::thread::spawn(move || {
        let (mut peer, _) = listener.accept().expect("a client");
        let mut reader = BufReader::new(peer.try_clone().expect("a second handle"));
        let mut line = String::new();
        peer.write_all(b"220 here\r\n").expect("the client reads");
        reader.read_line(&mut line).expect("EHLO");
        peer.write_all(format!("250-here\r\n250 AUTH {mechanism}\r\n").as_bytes()).expect("the client reads");
        line.clear();
        reader.read_line(&mut line).expect("AUTH");
        peer.write_all(format!("500 5.5.2 unknown: {}\r\n", line.trim()).as_bytes()).expect("the client reads");
        line
    });
    (port, session)
}

#[test]
fn aiosmtpd_lets_us_in_by_plain_and_login() {
    let (certificate, secrets) = (localhost(), Secrets::new());
    fs::write(secrets.path("password"), "tanstaaftanstaaf").expect("a file in our folder");
    for (mechanism, exclude) in [("PLAIN", ""), ("LOGIN", "PLAIN")] {
        let server = Aiosmtpd::asking_for_login(&certificate, "tim:tanstaaftanstaaf", exclude);
        let right =
            run("smtp+starttls", server.port(), &certificate, &secrets.path("password"), &["-m", "40", "-c", "4"]);
        right.assert_all_accepted(40);
        assert_eq!(logins(&right), (mechanism.to_owned(), 4, 4));
        let wrong = run("smtp+starttls", server.port(), &certificate, &secrets.path("wrong"), &["-m", "2", "-c", "1"]);
        assert_eq!(
            (wrong.count("messages.rejected"), wrong.errors_of("credentials", "auth")),
            (2, 2),
            "{}",
            wrong.shown()
        );
        assert_eq!(server.stop()["messages"], 40);
    }
    let server = Aiosmtpd::asking_for_login(&certificate, "tim:tanstaaftanstaaf", "PLAIN LOGIN");
    let none = run("smtp+starttls", server.port(), &certificate, &secrets.path("password"), &["-m", "2", "-c", "1"]);
    assert_eq!((none.count("messages.failed"), none.errors_of("auth_not_offered", "auth")), (2, 2), "{}", none.shown());
}

#[test]
fn postfix_lets_us_in_by_each_mechanism() {
    let (certificate, secrets) = (localhost(), Secrets::new());
    for mechanism in MECHANISMS {
        let users = sasl_users();
        let sasl = format!(
            "pwcheck_method: auxprop\nauxprop_plugin: sasldb\nsasldb_path: {}\nmech_list: {mechanism}\n",
            users.path().join("sasldb2").display()
        );
        let (file, key) = (certificate.file(), certificate.key_file());
        let settings = format!(
            "smtpd_tls_security_level = encrypt\nsmtpd_tls_cert_file = {}\nsmtpd_tls_key_file = {}\n\
             smtpd_sasl_auth_enable = yes\nsmtpd_tls_auth_only = yes\nsmtpd_sasl_local_domain = postfix.test\n\
             smtpd_client_restrictions = permit_sasl_authenticated, reject\n",
            text(&file),
            text(&key),
        );
        let postfix = Postfix::asking_for_login(&settings, &sasl);
        let options = ["-m", "20", "-c", "2", "--to", "a@example.com"];
        let right = run("smtp+starttls", postfix.port(), &certificate, &secrets.path("password"), &options);
        right.assert_all_accepted(20);
        assert_eq!(logins(&right), (mechanism.to_owned(), 2, 2));
        assert_eq!(postfix.delivered(20), 20);
        let wrong = run("smtp+starttls", postfix.port(), &certificate, &secrets.path("wrong"), &["-m", "1", "-c", "1"]);
        assert_eq!(
            (wrong.count("messages.rejected"), wrong.errors_of("credentials", "auth")),
            (1, 1),
            "{}",
            wrong.shown()
        );
    }
}

/// Cyrus SASL's table of users, for Postfix to read.
pub fn sasl_users() -> TempDir {
    let dir = tempfile::tempdir().expect("a temporary folder");
    fs::set_permissions(dir.path(), fs::Permissions::from_mode(0o755)).expect("our own folder");
    let users = dir.path().join("sasldb2");
    let mut command = Command::new("/usr/sbin/saslpasswd2");
    command.args(["-p", "-c", "-f", text(&users), "-u", "postfix.test", USER]);
    let mut child = command.stdin(Stdio::piped()).spawn().expect("sasl2-bin; tools/test installs the peers");
    child.stdin.take().expect("a pipe").write_all(PASSWORD.as_bytes()).expect("it reads");
    assert!(child.wait().expect("it ends").success(), "saslpasswd2 failed");
    fs::set_permissions(&users, fs::Permissions::from_mode(0o644)).expect("our own file");
    dir
}

#[test]
fn swaks_logs_in_by_each_mechanism() {
    let (certificate, secrets) = (localhost(), Secrets::new());
    for mechanism in MECHANISMS {
        let sink = sink(&certificate, &secrets, &[]);
        let swaks = |password| {
            let port = sink.port().to_string();
            let mut command = Command::new("swaks");
            command.args(["--server", "127.0.0.1", "--port", &port, "--helo", "swaks.test", "--from", "a@example.com"]);
            command.args(["--to", "b@example.com", "--tls", "--auth", mechanism, "--auth-user", USER]);
            Process::run(command.args(["--auth-password", password]))
        };
        let Finished { status, stdout, stderr } = swaks(PASSWORD);
        assert!(status.success(), "{stdout}{stderr}");
        let Finished { status, stdout, stderr } = swaks("wrong");
        assert!(!status.success() && stdout.contains("535 5.7.8"), "{stdout}{stderr}");
        let report = sink.stop();
        assert_eq!((&report["messages"], &report["auth_granted"]), (&1.into(), &1.into()), "{mechanism}: {report}");
    }
}

#[test]
fn smtplib_logs_in_by_each_mechanism() {
    let (certificate, secrets) = (localhost(), Secrets::new());
    let users = secrets.path("users");
    fs::write(&users, "tim:tanstaaftanstaaf\n").expect("a file in our folder");
    for mechanism in MECHANISMS {
        let kept = tempfile::tempdir().unwrap();
        let sink = sink(&certificate, &secrets, &[]);
        let mut command = python();
        command.arg(script("smtplib_send.py")).args([&sink.port().to_string(), "5", "1", text(kept.path())]);
        command.args(["starttls", text(&certificate.file()), "tim:tanstaaftanstaaf", mechanism]);
        let finished = Process::run(&mut command);
        assert!(finished.status.success(), "{mechanism}: {}", finished.stderr);
        let report = sink.stop();
        assert_eq!(
            (&report["messages"], &report["auth_granted"], &report["errors"]),
            (&5.into(), &1.into(), &0.into())
        );
    }
}

#[test]
fn msmtp_logs_in_by_each_mechanism() {
    let (certificate, secrets) = (localhost(), Secrets::new());
    let mail = secrets.path("mail");
    fs::write(&mail, "Subject: hello\n\nhello\n").expect("a file in our folder");
    for mechanism in MECHANISMS {
        let sink = sink(&certificate, &secrets, &[]);
        // It reads the mail from its standard input.
        let mut command = Command::new("sh");
        command.args(["-c", "exec msmtp \"$@\" <\"$0\"", text(&mail)]);
        command.args(["--file=/dev/null", "--host=localhost", &format!("--port={}", sink.port()), "--tls=on"]);
        command.args([&format!("--tls-trust-file={}", text(&certificate.file())), "--tls-starttls=on"]);
        command.args([&format!("--auth={}", mechanism.to_lowercase()), &format!("--user={USER}")]);
        command.arg(format!("--passwordeval=cat {}", text(&secrets.path("password"))));
        command.args(["--from=a@example.com", "b@example.com"]);
        let finished = Process::run(&mut command);
        assert!(finished.status.success(), "{mechanism}: {}", finished.stderr);
        let report = sink.stop();
        assert_eq!((&report["messages"], &report["auth_granted"]), (&1.into(), &1.into()), "{mechanism}: {report}");
    }
}

#[test]
fn a_job_of_the_service_logs_in_by_its_target_and_leaves_no_trace_of_the_password() {
    let (certificate, secrets) = (localhost(), Secrets::new());
    let sink = sink(&certificate, &secrets, &[]);
    let (file, password) = (certificate.file(), secrets.path("password"));
    let service = Service::start(&format!(
        "[targets.mine]\nurl = 'smtp+starttls://localhost:{}'\nca_file = '{}'\nuser = '{USER}'\npassword_file = '{}'\n",
        sink.port(),
        text(&file),
        text(&password)
    ));
    let job = |auth: bool| {
        let fields = r#""smtp_connection_type":"starttls","target":"mine","msg_size":500,"messages":20"#;
        service.ended(&service.run(&format!(r#"{{{fields},"auth":{auth}}}"#)))
    };
    let with = job(true);
    let result = &with["result"];
    assert_eq!((&result["messages"]["accepted"], &result["auth"][0]["granted"]), (&20.into(), &1.into()), "{with}");
    let without = job(false);
    assert_eq!(without["result"]["messages"]["rejected"], 20, "{without}");
    assert_tells_nothing(&format!("{with}{without}"));
    let stored: Vec<u8> = fs::read_dir(service.folder())
        .expect("our own folder")
        .flat_map(|entry| fs::read(entry.expect("a file").path()).expect("it can be read"))
        .collect();
    service.signal("TERM");
    let Finished { stdout, stderr, .. } = service.finish();
    assert_tells_nothing(&(String::from_utf8_lossy(&stored).into_owned() + &stdout + &stderr));
}

#[test]
fn exim_takes_mail_over_tls_from_whom_it_knows() {
    let (certificate, secrets) = (localhost(), Secrets::new());
    let exim = Exim::start(&certificate, USER, PASSWORD);
    for (scheme, port) in [("smtp+starttls", exim.starttls_port()), ("smtps", exim.tls_port())] {
        let right = run(scheme, port, &certificate, &secrets.path("password"), &["-m", "40", "-c", "4"]);
        right.assert_all_accepted(40);
        assert_eq!(logins(&right), ("PLAIN".to_owned(), 4, 4), "{}", right.shown());
        let wrong = run(scheme, port, &certificate, &secrets.path("wrong"), &["-m", "1"]);
        assert_eq!((wrong.count("messages.rejected"), wrong.replies("auth", 535)), (1, 1), "{}", wrong.shown());
    }
    let several = ["-m", "12", "-c", "1", "--messages-per-connection", "2"];
    let resumed = run("smtps", exim.tls_port(), &certificate, &secrets.path("password"), &several);
    resumed.assert_all_accepted(12);
    assert_eq!(resumed.count("tls.full") + resumed.count("tls.resumed"), 6, "{}", resumed.shown());
    // In the clear it offers no login, but STARTTLS, under which it does.
    let clear = run("smtp", exim.starttls_port(), &certificate, &secrets.path("password"), &["-m", "1"]);
    assert_eq!(clear.errors_of("auth_not_offered", "auth"), 1, "{}", clear.shown());
    assert!(clear.shown().contains("smtp+starttls://"), "{}", clear.shown());
    assert_eq!(exim.completed(USER, 92), 92);
}
