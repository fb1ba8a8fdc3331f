//! A private Exim: unpacked and not installed, since Debian has room for one mail server only; nothing is delivered
//! anywhere.

use std::fs;
use std::path::Path;
use std::process::Command;

use tempfile::TempDir;

use super::process::{read, show};
use super::{Certificate, Port, Process, poll, repository};

/// A running Exim, with STARTTLS on one port and TLS from the first byte on another, that takes mail for example.com from
/// one user, who can log in (PLAIN, LOGIN) under TLS alone.
pub struct Exim {
    dir: TempDir,
    starttls: Port,
    tls: Port,
    _process: Process,
}

impl Exim {
    /// Starts it with this certificate, user and password.
    pub fn start(certificate: &Certificate, user: &str, password: &str) -> Exim {
        let dir = tempfile::Builder::new().prefix("timecop-exim-").tempdir().expect("a temporary folder");
        let (starttls, tls) = (Port::claim(), Port::claim());
        let conf = dir.path().join("conf");
        let text = configuration(dir.path(), certificate, [starttls.number(), tls.number()], user, password);
        fs::write(&conf, text).expect("a file in our folder");
        let root = repository().join("target/peers-exim");
        let mut command = Command::new(root.join("usr/sbin/exim4"));
        command.arg("-C").arg(&conf).arg("-bdf");
        // It does not start without Debian's user for it, who exists for it alone.
        for (name, variable, line) in [
            ("passwd", "NSS_WRAPPER_PASSWD", "Debian-exim:x:65533:65533::/:/usr/sbin/nologin\n"),
            ("group", "NSS_WRAPPER_GROUP", "Debian-exim:x:65533:\n"),
        ] {
            let copy = dir.path().join(name);
            fs::write(&copy, read(&Path::new("/etc").join(name)) + line).expect("a file in our folder");
            command.env(variable, copy);
        }
        let library = format!("usr/lib/{}-linux-gnu/libnss_wrapper.so", std::env::consts::ARCH);
        command.env("LD_PRELOAD", root.join(library));
        let process = Process::start(&mut command);
        let exim = Exim { dir, starttls, tls, _process: process };
        poll("Exim on its port", || std::net::TcpStream::connect(("127.0.0.1", exim.tls_port())).ok());
        exim
    }

    /// Where it listens in the clear, with STARTTLS.
    pub fn starttls_port(&self) -> u16 {
        self.starttls.number()
    }

    /// Where TLS begins with the connection.
    pub fn tls_port(&self) -> u16 {
        self.tls.number()
    }

    /// Waits until as many messages of the user are done with as are expected, and gives their number.
    pub fn completed(&self, user: &str, expected: usize) -> usize {
        let count = |what: &str| self.log().lines().filter(|line| line.contains(what)).count();
        poll(&format!("{expected} messages in the log of Exim"), || (count(" Completed") >= expected).then_some(()));
        assert_eq!(count(" Completed"), count(&format!(":{user} ")), "{}", self.log());
        count(" Completed")
    }

    fn log(&self) -> String {
        read(&self.dir.path().join("mainlog"))
    }
}

impl Drop for Exim {
    fn drop(&mut self) {
        if std::thread::panicking() {
            show("Exim", &self.log());
        }
    }
}

fn configuration(
    dir: &Path,
    certificate: &Certificate,
    [starttls, tls]: [u16; 2],
    user: &str,
    password: &str,
) -> String {
    let (file, key) = (certificate.file(), certificate.key_file());
    let (dir, file, key) = (dir.display(), file.display(), key.display());
    format!(
        "exim_user = root
exim_group = root
never_users =
keep_environment =
primary_hostname = exim.test
spool_directory = {dir}/spool
log_file_path = {dir}/%slog
pid_file_path = {dir}/pid
local_interfaces = 127.0.0.1
daemon_smtp_ports = {starttls} : {tls}
tls_on_connect_ports = {tls}
tls_advertise_hosts = *
tls_certificate = {file}
tls_privatekey = {key}
auth_advertise_hosts = ${{if def:tls_in_cipher {{*}}{{}}}}
smtp_accept_max = 0
smtp_accept_queue_per_connection = 0
host_lookup =
rfc1413_query_timeout = 0s
acl_smtp_rcpt = check
begin acl
check:
  accept authenticated = *
         domains = example.com
  deny message = relay not permitted
begin routers
all:
  driver = redirect
  data = :blackhole:
begin authenticators
plain:
  driver = plaintext
  public_name = PLAIN
  server_condition = ${{if and{{{{eq{{$auth2}}{{{user}}}}}{{eq{{$auth3}}{{{password}}}}}}}}}
  server_set_id = $auth2
login:
  driver = plaintext
  public_name = LOGIN
  server_prompts = Username:: : Password::
  server_condition = ${{if and{{{{eq{{$auth1}}{{{user}}}}}{{eq{{$auth2}}{{{password}}}}}}}}}
  server_set_id = $auth1
"
    )
}
