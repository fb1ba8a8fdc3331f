//! One child process with its logs.

use std::ffi::OsStr;
use std::fs::{self, File};
use std::path::Path;
use std::process::{Child, Command, ExitStatus, Stdio};
use std::thread;
use std::time::{Duration, Instant};

use tempfile::TempDir;

/// How long anything may take that must happen. Generous, since it only decides how soon a failure is reported.
const PATIENCE: Duration = Duration::from_secs(90);
/// Between two looks at something that is waited for.
const LOOK_EVERY: Duration = Duration::from_millis(5);
/// Of a long log, how much the failure report shows.
const SHOWN_BYTES_MAX: usize = 8_000;

/// Looks until `look` finds it.
///
/// # Panics
///
/// When it is not there in good time; `what` says what was waited for.
pub fn poll<T>(what: &str, mut look: impl FnMut() -> Option<T>) -> T {
    let deadline = Instant::now() + PATIENCE;
    loop {
        if let Some(found) = look() {
            return found;
        }
        assert!(Instant::now() < deadline, "waited {PATIENCE:?} in vain for {what}");
        thread::sleep(LOOK_EVERY);
    }
}

/// A running child. Dropping it kills it.
pub struct Process {
    name: String,
    child: Child,
    dir: TempDir,
}

/// A child that has ended.
pub struct Finished {
    pub status: ExitStatus,
    pub stdout: String,
    pub stderr: String,
}

impl Process {
    /// Starts `command`; its outputs go to files, so that a child that keeps them open blocks nobody.
    pub fn start(command: &mut Command) -> Process {
        let name = command.get_program().to_string_lossy().into_owned();
        let dir = tempfile::tempdir().expect("a temporary folder");
        let file = |name| File::create(dir.path().join(name)).expect("a log file");
        let child = command
            .stdin(Stdio::null())
            .stdout(file("stdout"))
            .stderr(file("stderr"))
            .spawn()
            .unwrap_or_else(|error| panic!("cannot start {name}: {error}; tools/test installs the peers"));
        Process { name, child, dir }
    }

    /// Starts `command` and waits for its end.
    pub fn run(command: &mut Command) -> Finished {
        Process::start(command).finish()
    }

    /// What it has written to standard output so far.
    pub fn stdout(&self) -> String {
        self.log("stdout")
    }

    /// Waits for a whole line of standard output that begins with `beginning`.
    pub fn wait_line(&mut self, beginning: &str) -> String {
        self.wait_line_of("stdout", beginning)
    }

    /// Waits for a whole line of standard error that begins with `beginning`.
    pub fn wait_error_line(&mut self, beginning: &str) -> String {
        self.wait_line_of("stderr", beginning)
    }

    fn wait_line_of(&mut self, log: &str, beginning: &str) -> String {
        let what = format!("a line `{beginning}…` of {}", self.name);
        poll(&what, || {
            let ended = self.child.try_wait().expect("the child can be asked");
            let text = self.log(log);
            let line = text.split_inclusive('\n').find(|l| l.starts_with(beginning) && l.ends_with('\n'));
            assert!(
                line.is_some() || ended.is_none(),
                "{} ended ({ended:?}) before it printed `{beginning}`",
                self.name
            );
            line.map(|line| line.trim_end().to_owned())
        })
    }

    /// Waits until a connection to `port` is accepted.
    pub fn wait_port(&mut self, port: u16) {
        poll(&format!("{} on port {port}", self.name), || {
            let ended = self.child.try_wait().expect("the child can be asked");
            assert!(ended.is_none(), "{} ended ({ended:?}) before it listened", self.name);
            std::net::TcpStream::connect(("127.0.0.1", port)).ok()
        });
    }

    /// What it has written to standard error so far.
    pub fn stderr(&self) -> String {
        self.log("stderr")
    }

    /// Its number.
    pub fn pid(&self) -> u32 {
        self.child.id()
    }

    /// Sends a signal, by its name without `SIG`.
    pub fn signal(&self, name: &str) {
        signal(self.child.id(), name);
    }

    /// Waits for its end, and gives what it wrote.
    pub fn finish(mut self) -> Finished {
        let what = format!("the end of {}", self.name);
        let status = poll(&what, || self.child.try_wait().expect("the child can be asked"));
        Finished { status, stdout: self.log("stdout"), stderr: self.log("stderr") }
    }

    fn log(&self, name: &str) -> String {
        read(&self.dir.path().join(name))
    }
}

impl Drop for Process {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
        if thread::panicking() {
            show(&format!("{} stdout", self.name), &self.log("stdout"));
            show(&format!("{} stderr", self.name), &self.log("stderr"));
        }
    }
}

/// Sends a signal to a process of ours.
pub fn signal(pid: u32, name: &str) {
    let pid = pid.to_string();
    let arguments: [&OsStr; 5] =
        ["-c".as_ref(), "kill -s \"$0\" \"$1\"".as_ref(), name.as_ref(), pid.as_ref(), "".as_ref()];
    let status = Command::new("sh").args(arguments).stderr(Stdio::null()).status().expect("there is a shell");
    assert!(status.success() || name == "KILL", "cannot send {name} to {pid}");
}

/// The text of a file, empty when there is none yet.
pub fn read(path: &Path) -> String {
    fs::read(path).map(|bytes| String::from_utf8_lossy(&bytes).into_owned()).unwrap_or_default()
}

/// Writes the end of a log where the test harness shows it.
pub fn show(title: &str, text: &str) {
    let from = text.len().saturating_sub(SHOWN_BYTES_MAX);
    let from = (from..text.len()).find(|at| text.is_char_boundary(*at)).unwrap_or(text.len());
    eprintln!("---- {title}\n{}", text[from..].trim_end());
}
