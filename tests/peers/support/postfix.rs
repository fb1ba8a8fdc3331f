//! A private Postfix: a real queue, its own folder, nothing delivered anywhere.

use std::fs;
use std::os::unix::fs::{PermissionsExt, chown, fchown};
use std::path::{Path, PathBuf};
use std::process::Command;

use tempfile::TempDir;

use super::process::{read, show, signal};
use super::{Port, Process, poll};

/// Services of master.cf beside smtpd: name, type, private, unprivileged, chroot, wakeup, process limit, program.
const SERVICES: &str = "\
pickup unix n - n 60 1 pickup
cleanup unix n - n - 0 cleanup
qmgr unix n - n 300 1 qmgr
tlsmgr unix - - n 1000? 1 tlsmgr
rewrite unix - - n - - trivial-rewrite
bounce unix - - n - 0 bounce
defer unix - - n - 0 bounce
trace unix - - n - 0 bounce
verify unix - - n - 1 verify
flush unix n - n 1000? 0 flush
proxymap unix - - n - - proxymap
smtp unix - - n - - smtp
relay unix - - n - - smtp
error unix - - n - - error
retry unix - - n - - error
discard unix - - n - - discard
anvil unix - - n - 1 anvil
scache unix - - n - 1 scache
postlog unix-dgram n - n - 1 postlogd
";

/// A running Postfix.
pub struct Postfix {
    dir: TempDir,
    port: Port,
}

impl Postfix {
    /// Starts an instance that accepts mail for example.com; `settings` go to the end of its main.cf.
    pub fn start(settings: &str) -> Postfix {
        Postfix::launch(settings, None)
    }

    /// As [`Postfix::start`]; Cyrus SASL, by which its clients log in, has these settings.
    pub fn asking_for_login(settings: &str, sasl: &str) -> Postfix {
        Postfix::launch(settings, Some(sasl))
    }

    fn launch(settings: &str, sasl: Option<&str>) -> Postfix {
        let dir = tempfile::Builder::new().prefix("timecop-postfix-").tempdir().expect("a temporary folder");
        let port = Port::claim();
        lay_out(dir.path(), port.number(), settings);
        if let Some(sasl) = sasl {
            // Debian's Postfix looks nowhere else.
            fs::create_dir(dir.path().join("conf/sasl")).expect("a folder in ours");
            fs::write(dir.path().join("conf/sasl/smtpd.conf"), sasl).expect("a file in our folder");
        }
        let postfix = Postfix { dir, port };
        postfix.control("start");
        poll("Postfix on its port", || {
            let log = postfix.log();
            assert!(!log.contains("fatal:"), "Postfix does not start:\n{log}");
            std::net::TcpStream::connect(("127.0.0.1", postfix.port())).ok()
        });
        postfix
    }

    /// Where its smtpd listens.
    pub fn port(&self) -> u16 {
        self.port.number()
    }

    /// Waits until as many deliveries (one a recipient) are in its log as are expected, then counts once more after
    /// its queue is empty, so that too many are seen as well.
    pub fn delivered(&self, expected: u64) -> u64 {
        poll(&format!("{expected} deliveries in the log of Postfix"), || {
            (self.deliveries() >= expected && self.queue_is_empty()).then_some(())
        });
        self.deliveries()
    }

    /// Queue ids that came from the network, one a message.
    pub fn messages(&self) -> u64 {
        let log = self.log();
        log.lines().filter(|line| line.contains("/smtpd[") && line.contains(": client=")).count() as u64
    }

    /// Its log so far.
    pub fn log(&self) -> String {
        read(&self.dir.path().join("mail.log"))
    }

    /// Lets go what it held back, and tries to deliver it at once.
    pub fn release(&self) {
        self.tool("postsuper", &["-H", "ALL"]);
        self.tool("postqueue", &["-f"]);
    }

    /// How many messages it has, delivered ones not.
    pub fn queued(&self) -> usize {
        self.tool("postqueue", &["-j"]).lines().count()
    }

    /// Ends all of its processes as a loss of power would, without a chance to put anything in order.
    pub fn kill(&self) {
        let master = self.master().expect("it runs");
        let children = children_of(master);
        [master].into_iter().chain(children).for_each(|pid| signal(pid, "KILL"));
        poll("the end of Postfix", || {
            let status = read(Path::new(&format!("/proc/{master}/status")));
            // What nobody has waited for is over all the same.
            (status.is_empty() || status.contains("State:\tZ")).then_some(())
        });
    }

    /// Starts it again on what its queue has.
    pub fn start_again(&self) {
        self.control("start");
        poll("Postfix on its port", || std::net::TcpStream::connect(("127.0.0.1", self.port())).ok());
    }

    /// The queue ids of messages on hold.
    pub fn held(&self) -> Vec<String> {
        let queue = self.tool("postqueue", &["-j"]);
        let entries = queue.lines().map(|line| serde_json::from_str(line).expect("an object a line"));
        let held = entries.filter(|entry: &serde_json::Value| entry["queue_name"] == "hold");
        held.map(|entry| entry["queue_id"].as_str().expect("an id").to_owned()).collect()
    }

    /// A message in its queue, as text.
    pub fn message(&self, id: &str) -> String {
        self.tool("postcat", &["-q", id])
    }

    /// Deletes a message that it has accepted: nobody will ever hear of it.
    pub fn lose(&self, id: &str) {
        self.tool("postsuper", &["-d", id]);
    }

    /// Tries to deliver everything at once.
    pub fn flush(&self) {
        self.tool("postqueue", &["-f"]);
    }

    /// What one of its programs prints.
    fn tool(&self, name: &str, arguments: &[&str]) -> String {
        let mut command = Command::new(format!("/usr/sbin/{name}"));
        let finished = Process::run(command.arg("-c").arg(self.conf()).args(arguments));
        assert!(finished.status.success(), "{name}: {}", finished.stderr);
        finished.stdout
    }

    fn deliveries(&self) -> u64 {
        let log = self.log();
        let discarded = |line: &&str| line.contains("postfix/discard[") && line.contains(" status=sent ");
        log.lines().filter(discarded).count() as u64
    }

    fn queue_is_empty(&self) -> bool {
        self.queued() == 0
    }

    fn control(&self, verb: &str) {
        let finished = Process::run(Command::new("/usr/sbin/postfix").arg("-c").arg(self.conf()).arg(verb));
        assert!(finished.status.success(), "postfix {verb}: {}\n{}", finished.stderr, self.log());
    }

    fn conf(&self) -> PathBuf {
        self.dir.path().join("conf")
    }

    fn master(&self) -> Option<u32> {
        read(&self.dir.path().join("spool/pid/master.pid")).trim().parse().ok()
    }
}

impl Drop for Postfix {
    fn drop(&mut self) {
        if std::thread::panicking() {
            show("Postfix", &self.log());
        }
        let Some(master) = self.master() else { return };
        let mut stop = Command::new("/usr/sbin/postfix");
        let stopped = stop.arg("-c").arg(self.conf()).arg("stop").output().is_ok_and(|output| output.status.success());
        if !stopped && Path::new(&format!("/proc/{master}")).exists() {
            signal(master, "KILL");
        }
    }
}

fn lay_out(dir: &Path, port: u16, settings: &str) {
    fs::set_permissions(dir, fs::Permissions::from_mode(0o755)).expect("our own folder");
    for name in ["conf", "spool", "data"] {
        fs::create_dir(dir.join(name)).expect("a folder in ours");
    }
    let owner = user_id("postfix").expect("Debian's postfix user; tools/test installs the peers");
    chown(dir.join("data"), Some(owner), None).expect("a private Postfix needs root: run tools/test as root");
    // After a kill postsuper may find half of a queue file, and then writes to the log itself, as that user.
    let log = fs::File::create(dir.join("mail.log")).expect("a file in our own folder");
    fchown(&log, Some(owner), None).expect("we are root");
    let dir_name = dir.display();
    let main = format!(
        "compatibility_level = 3.6
queue_directory = {dir_name}/spool
data_directory = {dir_name}/data
maillog_file = {dir_name}/mail.log
maillog_file_prefixes = {dir_name}
command_directory = /usr/sbin
daemon_directory = /usr/lib/postfix/sbin
mail_owner = postfix
setgid_group = postdrop
myhostname = postfix.test
mydestination = example.com
mynetworks =
inet_interfaces = 127.0.0.1
inet_protocols = ipv4
local_transport = discard:
default_transport = discard:
alias_maps =
alias_database =
local_recipient_maps =
smtp_dns_support_level = disabled
smtp_host_lookup = native
smtpd_peername_lookup = no
smtpd_client_connection_count_limit = 0
smtpd_client_connection_rate_limit = 0
smtpd_tls_security_level = none
smtpd_error_sleep_time = 0
smtpd_soft_error_limit = 1000
smtpd_hard_error_limit = 1000
smtpd_forbid_bare_newline = yes
smtpd_forbid_unauth_pipelining = yes
smtpd_relay_restrictions = reject_unauth_destination
{settings}
"
    );
    fs::write(dir.join("conf/main.cf"), main).expect("a file in our folder");
    let master = format!("127.0.0.1:{port} inet n - n - - smtpd\n{SERVICES}");
    fs::write(dir.join("conf/master.cf"), master).expect("a file in our folder");
}

/// The processes that one has started.
fn children_of(parent: u32) -> Vec<u32> {
    let entries = fs::read_dir("/proc").expect("there is a /proc").filter_map(Result::ok);
    let pids = entries.filter_map(|entry| entry.file_name().to_str()?.parse::<u32>().ok());
    let parent_of = |pid: &u32| {
        let status = read(Path::new(&format!("/proc/{pid}/status")));
        status.lines().find_map(|line| line.strip_prefix("PPid:")?.trim().parse::<u32>().ok())
    };
    pids.filter(|pid| parent_of(pid) == Some(parent)).collect()
}

fn user_id(name: &str) -> Option<u32> {
    let users = fs::read_to_string("/etc/passwd").ok()?;
    let line = users.lines().find(|line| line.split(':').next() == Some(name))?;
    line.split(':').nth(2)?.parse().ok()
}
