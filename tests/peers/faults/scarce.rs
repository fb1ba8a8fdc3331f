//! What there is too little of: disk, descriptors, local ports, and a processor for a shard.

use std::fs::{self, File};
use std::io::{ErrorKind, Read as _, Write as _};
use std::net::TcpStream;
use std::path::{Path, PathBuf};
use std::process::Command;

use nix::sys::ptrace;
use nix::sys::wait::{WaitPidFlag, waitpid};
use nix::unistd::Pid;
use serde_json::Value;
use tempfile::TempDir;

use crate::support::{Finished, Hammer, Process, Service, Sink, poll, timecop};

const SHORT: &str = r#"{"smtp_connection_type":"plain","msg_size":500,"messages":100}"#;
const ENDLESS: &str = r#"{"smtp_connection_type":"plain","msg_size":500,"duration":"1h","rate":200,"connections":4}"#;

/// A small file system, gone with its guard. Mounting needs root, as a private Postfix does.
struct SmallDisk(TempDir);

impl SmallDisk {
    fn mount(bytes: u64) -> SmallDisk {
        let folder = tempfile::tempdir().expect("a temporary folder");
        let size = format!("size={bytes},mode=700");
        let mounted =
            Process::run(Command::new("mount").args(["-t", "tmpfs", "-o", &size, "timecop-test"]).arg(folder.path()));
        assert!(mounted.status.success(), "run tools/test as root: {}", mounted.stderr);
        SmallDisk(folder)
    }

    fn path(&self) -> &Path {
        self.0.path()
    }

    /// Takes all the space that is left.
    fn fill(&self) -> PathBuf {
        let path = self.path().join("filler");
        let mut file = File::create(&path).expect("an inode is left");
        for octets in [64 << 10, 1] {
            let full = loop {
                if let Err(error) = file.write(&vec![b'x'; octets]) {
                    break error;
                }
            };
            assert_eq!(full.kind(), ErrorKind::StorageFull, "{full}");
        }
        path
    }
}

impl Drop for SmallDisk {
    fn drop(&mut self) {
        let _ = Command::new("umount").arg("--lazy").arg(self.path()).status();
    }
}

#[test]
fn a_full_disk_holds_up_no_job_and_what_waits_is_written_when_there_is_space_again() {
    let disk = SmallDisk::mount(4 << 20);
    let service = Service::start(&format!("[store]\npath = \"{}/jobs.db\"\n", disk.path().display()));
    let id = service.run(ENDLESS);
    service.accepted(&id, 100);
    let filler = disk.fill();
    poll("word that the store cannot be written", || {
        let (status, text) = service.get("/readyz");
        (status == 503 && text.contains("the store cannot be written")).then_some(())
    });
    // What runs goes on, and others start and end.
    let accepted = service.job(&id)["result"]["messages"]["accepted"].as_u64().expect("a count");
    service.accepted(&id, accepted + 200);
    let short = service.ended(&service.run(SHORT));
    assert_eq!((&short["state"], &short["result"]["messages"]["accepted"]), (&"finished".into(), &100.into()));
    service.post(&format!("/v1/hammer/job.stop?id={id}"), None);
    let stopped = service.ended(&id);
    assert_eq!(stopped["result"]["messages"]["cut"], 0, "{stopped}");
    assert_eq!(service.get("/readyz").0, 503);
    fs::remove_file(filler).expect("it is ours");
    poll("word that the store can be written", || (service.get("/readyz").0 == 200).then_some(()));
    let (_, service) = service.restart_after("KILL");
    for job in [short, stopped] {
        assert_eq!(service.job(job["id"].as_str().expect("an id")), job, "written after all");
    }
    let store = rusqlite::Connection::open(disk.path().join("jobs.db")).expect("the store can be opened by others");
    let integrity = store.query_row("PRAGMA integrity_check", [], |row| row.get::<_, String>(0));
    assert_eq!(integrity.expect("it can be asked"), "ok");
    // So that nothing keeps the disk from being unmounted.
    drop((store, service));
}

#[test]
fn too_few_descriptors_are_named_before_a_run_begins() {
    let mut command = Command::new("prlimit");
    command.arg("--nofile=64:64").arg(timecop().get_program()).args(["hammer", "-c", "100", "-d", "1s"]);
    let refused = Process::run(&mut command);
    assert_eq!(refused.status.code(), Some(2), "{}", refused.stderr);
    assert!(refused.stderr.contains("descriptors: 64 allowed, 100 needed"), "{}", refused.stderr);
}

#[test]
fn without_descriptors_the_service_keeps_callers_waiting_and_jobs_going() {
    let service = Service::start("");
    let id = service.run(ENDLESS);
    service.accepted(&id, 100);
    let limit = |descriptors: &str| {
        let mut command = Command::new("prlimit");
        let pid = service.pid().to_string();
        let limited = Process::run(command.args(["--pid", &pid, &format!("--nofile={descriptors}:")]));
        assert!(limited.status.success(), "run tools/test as root: {}", limited.stderr);
    };
    limit("3");
    let address = service.api.strip_prefix("http://").expect("an address");
    let mut caller = TcpStream::connect(address).expect("the kernel takes it");
    caller.write_all(b"GET /healthz HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n").expect("there is room");
    poll("word that nobody can be let in", || {
        service.stderr().contains("cannot accept connections to the API; trying again").then_some(())
    });
    limit("4096");
    let mut answer = String::new();
    caller.read_to_string(&mut answer).expect("an answer");
    assert!(answer.starts_with("HTTP/1.1 200 OK\r\n"), "{answer}");
    let accepted = service.job(&id)["result"]["messages"]["accepted"].as_u64().expect("a count");
    service.accepted(&id, accepted + 100);
    service.post(&format!("/v1/hammer/job.stop?id={id}"), None);
    let job = service.ended(&id);
    assert_eq!(
        (&job["result"]["messages"]["failed"], &job["result"]["messages"]["cut"]),
        (&0.into(), &0.into()),
        "{job}"
    );
}

/// A run against the embedded sink where only 20 local ports are.
fn run_with_20_ports(options: &str) -> Finished {
    let script = format!(
        "ip link set lo up && echo 40000 40019 > /proc/sys/net/ipv4/ip_local_port_range && \
         exec \"$0\" hammer --json - --quiet {options}"
    );
    let mut command = Command::new("unshare");
    Process::run(command.args(["--net", "sh", "-c", &script]).arg(timecop().get_program()))
}

#[test]
fn too_few_local_ports_are_named_before_a_run_or_counted_in_it() {
    let refused = run_with_20_ports("-d 1s -c 50");
    assert_eq!(refused.status.code(), Some(2), "{}", refused.stderr);
    assert!(refused.stderr.contains("local ports: 20 for 50 connections to one target"), "{}", refused.stderr);
    // A port that was used is not free for a while: they run out.
    let run = run_with_20_ports("-d 2s -c 4 --messages-per-connection 1");
    assert_eq!(run.status.code(), Some(1), "{}", run.stderr);
    let report: Value = serde_json::from_str(&run.stdout).expect("one object");
    let messages = &report["messages"];
    let [asked, accepted, failed] = ["asked", "accepted", "failed"].map(|end| messages[end].as_u64().expect("a count"));
    assert_eq!(accepted + failed, asked, "{messages}");
    let errors = report["errors"].as_array().expect("rows");
    let ports: u64 = errors
        .iter()
        .filter(|row| row["phase"] == "connect" && row["kind"] == "ports")
        .map(|row| row["count"].as_u64().expect("a count"))
        .sum();
    assert!(failed > 0 && ports == failed, "{errors:?}, {messages}");
}

/// Keeps a shard's thread from running on, as a fault of the machine may, until its process ends.
fn freeze_shard(process: u32) {
    let thread = poll("the shard's thread", || {
        let threads = fs::read_dir(format!("/proc/{process}/task")).ok()?;
        threads.flatten().find_map(|thread| {
            let name = fs::read_to_string(thread.path().join("comm")).ok()?;
            let number = thread.file_name().to_string_lossy().parse().ok()?;
            (name.trim_end() == "timecop-shard-0").then_some(Pid::from_raw(number))
        })
    });
    ptrace::seize(thread, ptrace::Options::empty()).expect("run tools/test as root");
    ptrace::interrupt(thread).expect("it is ours");
    waitpid(thread, Some(WaitPidFlag::__WALL)).expect("it stops");
    // Its process has ended only when somebody has heard of the thread's end.
    std::thread::spawn(move || waitpid(thread, Some(WaitPidFlag::__WALL)));
}

#[test]
fn a_shard_that_hangs_fails_the_run_or_the_service_in_bounded_time() {
    let folder = tempfile::tempdir().expect("a temporary folder");
    let sink = Sink::saving_to(folder.path());
    let service = Service::start("");
    let request = ENDLESS.replacen('{', &format!(r#"{{"target":"smtp://127.0.0.1:{}","#, sink.port()), 1);
    let id = service.run(&request);
    service.accepted(&id, 100);
    freeze_shard(service.pid());
    let saved = || fs::read_dir(folder.path()).expect("the folder is there").count();
    let before = saved();
    let hammer = Hammer::start(sink.port(), &["-d", "1h", "-c", "4", "--rate", "200"]);
    poll("messages of the run", || (saved() > before + 300).then_some(()));
    freeze_shard(hammer.pid());
    let run = hammer.finish();
    assert_eq!(run.exit, 1, "{}", run.shown());
    let aborted = run.report["aborted"].as_str().expect("a reason");
    assert!(aborted.starts_with("shard 0 failed: it has reported nothing for 15 s"), "{}", run.shown());
    assert!(run.count("messages.accepted") > 0, "{}", run.shown());
    let (finished, stopped) = service.wait();
    assert_eq!(finished.status.code(), Some(1), "{}", finished.stderr);
    let said = "error: shard 0 failed: it has reported nothing for 15 s";
    assert!(finished.stderr.contains(said), "{}", finished.stderr);
    let job = stopped.start().job(&id);
    assert_eq!(job["state"], "failed", "{job}");
    assert!(job["result"]["verdict"].is_object(), "{job}");
    assert!(job["result"]["messages"]["accepted"].as_u64().is_some_and(|accepted| accepted >= 100), "{job}");
}
