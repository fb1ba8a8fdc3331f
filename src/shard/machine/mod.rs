//! Whether this machine can run shards, and at full speed: the checks of `timecop doctor` and of every start.
//!
//! Each check has two halves: one reads /proc, /sys or a limit, the other judges what was read and is pure. A check
//! whose source cannot be read says nothing: what it is about then shows when the shards start, or does not matter.
//!
//! - `vital`: without which nothing runs;
//! - `speed`: what only costs time;
//! - `host`: reading and parsing.

mod host;
mod speed;
mod vital;

use std::fmt;

use nix::sys::resource::{Resource, getrlimit, setrlimit};
use serde::Serialize;
use socket2::{Domain, Socket, Type};

/// How much a finding matters.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum Severity {
    /// As it should be.
    Fine,
    /// It runs, but slower or less evenly than the machine could.
    Slow,
    /// It cannot run.
    Fatal,
}

/// What one check says.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Finding {
    /// What was looked at, in a word or two.
    pub name: &'static str,
    /// How much it matters.
    pub severity: Severity,
    /// What this machine has.
    pub found: String,
    /// The command that mends it, or what to do; one way a line. Nothing where nothing is to be mended.
    pub remedy: Option<String>,
}

impl Finding {
    fn fine(name: &'static str, found: impl Into<String>) -> Finding {
        Finding { name, severity: Severity::Fine, found: found.into(), remedy: None }
    }

    fn slow(name: &'static str, found: impl Into<String>, remedy: impl Into<String>) -> Finding {
        Finding { name, severity: Severity::Slow, found: found.into(), remedy: Some(remedy.into()) }
    }

    fn fatal(name: &'static str, found: impl Into<String>, remedy: impl Into<String>) -> Finding {
        Finding { name, severity: Severity::Fatal, found: found.into(), remedy: Some(remedy.into()) }
    }
}

/// How the kernel controls congestion on new connections: as it is asked to by name, or as it does by itself.
///
/// # Errors
///
/// The kernel does not have, or not give, what is asked for. The text leaves it to the caller to name the option.
pub fn congestion(asked: Option<&str>) -> Result<String, String> {
    let socket = Socket::new(Domain::IPV4, Type::STREAM, None).map_err(|error| format!("no socket: {error}"))?;
    if let Some(name) = asked {
        socket.set_tcp_congestion(name.as_bytes()).map_err(|error| {
            let known = std::fs::read_to_string("/proc/sys/net/ipv4/tcp_available_congestion_control");
            let known = known.map_or_else(|_| "what it has".to_owned(), |known| known.trim().replace(' ', ", "));
            format!("expected one that this kernel has ({known}; modprobe tcp_NAME adds more), got {name}: {error}")
        })?;
    }
    let name = socket.tcp_congestion().map_err(|error| error.to_string())?;
    let end = name.iter().position(|octet| *octet == 0).unwrap_or(name.len());
    Ok(String::from_utf8_lossy(&name[..end]).into_owned())
}

/// What is going to run on this machine.
#[derive(Clone, Copy, Debug)]
pub struct Needs {
    /// Shards of this process.
    pub shards: u32,
    /// Connections of the fullest shard, dialed and accepted: the file slots of its ring.
    pub files_per_shard: u32,
    /// Connections dialed to one and the same address from one and the same address, by all shards together: each
    /// needs a local port of its own.
    pub same_target_connections: u32,
    /// Connections accepted, by all shards together.
    pub accepted_connections: u32,
    /// Whether the traffic stays on this machine.
    pub is_loopback: bool,
}

impl Needs {
    /// A generator that loads a sink in the same process.
    pub fn on_loopback(shards: u32, connections: u32) -> Needs {
        Needs {
            shards,
            files_per_shard: connections.div_ceil(shards.max(1)).saturating_mul(2),
            same_target_connections: connections,
            accepted_connections: connections,
            is_loopback: true,
        }
    }
}

/// Why this machine cannot do what was asked of it. Displays each cause with its remedy, on lines of their own.
#[derive(Debug)]
pub struct Unfit {
    /// What is fatal, at least one.
    pub causes: Vec<Finding>,
}

impl fmt::Display for Unfit {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "this machine cannot run it as it is")?;
        for cause in &self.causes {
            write!(f, "\n  {}: {}", cause.name, cause.found)?;
            for way in cause.remedy.iter().flat_map(|remedy| remedy.lines()) {
                write!(f, "\n    {way}")?;
            }
        }
        Ok(())
    }
}

impl std::error::Error for Unfit {}

/// Raises the soft limit of open files to the hard one, and returns both as they are then.
pub fn raise_descriptor_limit() -> (u64, u64) {
    raise(Resource::RLIMIT_NOFILE)
}

/// Raises the soft limit of locked memory to the hard one, and returns both as they are then, in bytes.
pub fn raise_locked_memory_limit() -> (u64, u64) {
    raise(Resource::RLIMIT_MEMLOCK)
}

fn raise(resource: Resource) -> (u64, u64) {
    let Ok((soft, hard)) = getrlimit(resource) else { return (0, 0) };
    // It may always be raised so far; where a filter forbids it, the checks see what there is.
    if soft < hard && setrlimit(resource, hard, hard).is_ok() { (hard, hard) } else { (soft, hard) }
}

/// Most shards that an ordinary user's limit of locked memory has room for: on kernels since 6.14 eleven of the default
/// 8 MiB. A default number of shards stays below it, so that a machine with many CPUs needs no set-up.
pub fn shards_max() -> u32 {
    vital::LockedMemory::current().shards_max()
}

/// All checks, in the order in which they are best read. The limits are judged as they stand, so they are raised first.
pub fn examine(needs: &Needs) -> Vec<Finding> {
    let mut findings = vital::findings(needs);
    findings.extend(speed::findings(needs));
    findings
}

/// The checks without which nothing runs, for every start. Takes less than a millisecond, and sometimes ten: the kernel
/// may keep us waiting while it takes the tried ring apart.
pub fn check(needs: &Needs) -> Result<(), Unfit> {
    fatal(vital::findings(needs))
}

/// The fatal ones among some findings, as an error.
pub fn fatal(findings: impl IntoIterator<Item = Finding>) -> Result<(), Unfit> {
    let causes: Vec<Finding> = findings.into_iter().filter(|finding| finding.severity == Severity::Fatal).collect();
    if causes.is_empty() { Ok(()) } else { Err(Unfit { causes }) }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::process::Command;
    use std::time::{Duration, Instant};

    /// Which limits the child sets before it looks.
    const CHILD: &str = "TIMECOP_TEST_MACHINE_LIMITS";

    /// The findings of a process that has these limits, soft and hard.
    fn under_limits(descriptors: u64, locked_bytes: u64) -> serde_json::Value {
        let child = Command::new(std::env::current_exe().unwrap())
            .args(["--exact", "shard::machine::tests::child_looks_at_its_limits", "--nocapture"])
            .env(CHILD, format!("{descriptors} {locked_bytes}"))
            .output()
            .unwrap();
        let output = String::from_utf8(child.stdout).unwrap();
        let json = output.lines().find_map(|line| line.strip_prefix("findings: "));
        serde_json::from_str(json.unwrap_or_else(|| panic!("the child says: {output}"))).unwrap()
    }

    fn severity_of(findings: &serde_json::Value, name: &str) -> String {
        let all = findings.as_array().unwrap();
        let one = all.iter().find(|finding| finding["name"] == name).unwrap();
        one["severity"].as_str().unwrap().to_owned()
    }

    /// Looks at the limits which the tests below set for it; does nothing when it runs as one of all tests.
    #[test]
    fn child_looks_at_its_limits() {
        let Ok(limits) = std::env::var(CHILD) else { return };
        let (descriptors, locked_bytes) = limits.split_once(' ').unwrap();
        let (descriptors, locked_bytes) = (descriptors.parse().unwrap(), locked_bytes.parse().unwrap());
        setrlimit(Resource::RLIMIT_NOFILE, descriptors, descriptors).unwrap();
        setrlimit(Resource::RLIMIT_MEMLOCK, locked_bytes, locked_bytes).unwrap();
        // The test harness has begun its line.
        println!("\nfindings: {}", serde_json::to_string(&examine(&Needs::on_loopback(1, 100))).unwrap());
    }

    #[test]
    fn too_few_descriptors_or_too_little_locked_memory_is_fatal() {
        let (_, locked_bytes) = getrlimit(Resource::RLIMIT_MEMLOCK).unwrap();
        let enough = under_limits(1_024, locked_bytes);
        for name in ["io_uring", "descriptors", "locked memory"] {
            assert_eq!(severity_of(&enough, name), "fine", "{enough:#}");
        }
        let few = under_limits(64, locked_bytes);
        assert_eq!(severity_of(&few, "descriptors"), "fatal", "{few:#}");
        let little = under_limits(1_024, 64 << 10);
        assert_eq!(severity_of(&little, "locked memory"), "fatal", "{little:#}");
    }

    #[test]
    fn raising_a_limit_ends_at_the_hard_one() {
        let (soft, hard) = raise_descriptor_limit();
        assert_eq!(soft, hard);
        assert_eq!(getrlimit(Resource::RLIMIT_NOFILE).unwrap(), (soft, hard));
    }

    #[test]
    fn only_fatal_findings_keep_a_run_from_starting() {
        let fine = Finding::fine("kernel", "6.18");
        let slow = Finding::slow("CPUs", "1", "use two");
        assert!(fatal([fine.clone(), slow.clone()]).is_ok());
        let cause = Finding::fatal("descriptors", "64 allowed", "ulimit -n 1024\nor fewer");
        let unfit = fatal([fine, cause.clone(), slow]).unwrap_err();
        assert_eq!(unfit.causes, [cause]);
        let text = "this machine cannot run it as it is\n  descriptors: 64 allowed\n    ulimit -n 1024\n    or fewer";
        assert_eq!(unfit.to_string(), text);
    }

    #[test]
    fn a_start_is_not_held_up() {
        let needs = Needs::on_loopback(1, 1);
        let began = Instant::now();
        let _ = check(&needs);
        // The bound is for a busy machine.
        assert!(began.elapsed() < Duration::from_millis(500), "{:?}", began.elapsed());
    }
}
