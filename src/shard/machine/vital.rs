//! What a shard cannot start without: a kernel that is new enough, io_uring, locked memory, descriptors, local ports.

use std::io;

use nix::sys::resource::{Resource, getrlimit};

use super::host::{self, KernelVersion, Privileges};
use super::{Finding, Needs, Severity};
use crate::measure::words::thousands;
use crate::shard::ring::Ring;

/// The first kernel that has all that the ring uses: `DEFER_TASKRUN` came last.
const KERNEL_MIN: KernelVersion = KernelVersion(6, 1);
/// The first kernel that again counts the memory of rings as locked memory, as those before 5.12 did.
const KERNEL_COUNTS_RINGS: KernelVersion = KernelVersion(6, 14);
/// glommio starts no executor below this soft limit, whatever the process may do.
const LOCKED_BYTES_MIN: u64 = 512 << 10;
/// What a kernel that counts rings counts for one shard: 396 KiB for its own ring's queues, 64 KiB for the list of its
/// receive buffers, 48 KiB for glommio's three rings and 192 KiB for the memory registered with them.
const LOCKED_BYTES_PER_SHARD: u64 = 704 << 10;
/// What it counts beside them: 12 KiB, still, for the ring that was tried out, and 4 KiB while the first shard starts.
const LOCKED_BYTES_BESIDE: u64 = 16 << 10;
/// Descriptors of the process itself and of one shard. Connections are in the ring's table instead, which the same
/// limit bounds.
const DESCRIPTORS_OF_PROCESS: u64 = 32;
const DESCRIPTORS_PER_SHARD: u64 = 16;
/// Most file slots of one ring (`IORING_MAX_FIXED_FILES`).
const FILE_SLOTS_MAX: u32 = 1 << 20;

pub(super) fn findings(needs: &Needs) -> Vec<Finding> {
    let privileges = Privileges::current();
    let memory = judge_locked_memory(LockedMemory::current(), needs.shards);
    let disabled = host::read("/proc/sys/kernel/io_uring_disabled").and_then(|value| value.parse().ok());
    let nr_open = host::read("/proc/sys/fs/nr_open").and_then(|value| value.parse().ok()).unwrap_or(u64::MAX);

    let mut findings = vec![
        judge_kernel(&kernel_release()),
        judge_ring(Ring::try_out(), disabled, privileges),
        memory,
        judge_descriptors(getrlimit(Resource::RLIMIT_NOFILE).unwrap_or_default(), nr_open, needs),
    ];
    if needs.same_target_connections > 0
        && let Some(range) = host::read("/proc/sys/net/ipv4/ip_local_port_range")
    {
        let reserved = host::read("/proc/sys/net/ipv4/ip_local_reserved_ports").unwrap_or_default();
        findings.extend(judge_ports(&range, &reserved, needs.same_target_connections));
    }
    // One cause, one remedy.
    if findings.iter().any(|finding| finding.name == "locked memory" && finding.severity == Severity::Fatal) {
        findings.retain(|finding| finding.found != NO_MEMORY);
    }
    findings
}

fn kernel_release() -> String {
    host::read("/proc/sys/kernel/osrelease").unwrap_or_default()
}

fn judge_kernel(release: &str) -> Finding {
    let KernelVersion(major, minor) = KERNEL_MIN;
    match KernelVersion::parse(release) {
        Some(version) if version >= KERNEL_MIN => Finding::fine("kernel", release),
        Some(_) => Finding::fatal(
            "kernel",
            format!("{release}, and {major}.{minor} or newer is needed"),
            format!("install a kernel of {major}.{minor} or newer (Debian 12, Ubuntu 24.04), and restart the machine"),
        ),
        // Whether it does is seen when the ring is tried out.
        None => Finding::fine("kernel", format!("its release {release:?} is no version")),
    }
}

const NO_MEMORY: &str = "refused: no memory may be locked any more (ENOMEM)";
const MORE_LOCKED_MEMORY: &str = "\
in this shell: sudo prlimit --pid $$ --memlock=unlimited
for later logins but root's: echo '* - memlock unlimited' | sudo tee /etc/security/limits.d/timecop-memlock.conf
in a systemd unit: LimitMEMLOCK=infinity
in a container: docker run --ulimit memlock=-1";
const ALLOWED_CALLS: &str = "\
in a container: docker run --security-opt seccomp=unconfined
or with a profile that allows io_uring_setup, io_uring_enter and io_uring_register
in a systemd unit: SystemCallFilter=@aio";

/// What `result`, of trying out a ring, means in the light of the sysctl `kernel.io_uring_disabled` and of what this
/// process may do.
fn judge_ring(result: io::Result<()>, disabled: Option<u32>, privileges: Privileges) -> Finding {
    const NAME: &str = "io_uring";
    let Err(error) = result else {
        return Finding::fine(NAME, "usable, with all that a shard asks of it");
    };
    match error.raw_os_error() {
        Some(libc::EPERM) => match disabled {
            Some(2..) => Finding::fatal(
                NAME,
                "switched off for everybody: kernel.io_uring_disabled is 2",
                "on the host: sudo sysctl -w kernel.io_uring_disabled=0",
            ),
            Some(1) if !privileges.is_admin => Finding::fatal(
                NAME,
                "switched off for ordinary users: kernel.io_uring_disabled is 1",
                "on the host: sudo sysctl -w kernel.io_uring_disabled=0\n\
                 or for one group of users: sudo sysctl -w kernel.io_uring_group=$(id -g)",
            ),
            _ if privileges.is_filtered => Finding::fatal(
                NAME,
                "refused by a seccomp filter (EPERM), such as Docker's default profile",
                ALLOWED_CALLS,
            ),
            _ => Finding::fatal(
                NAME,
                "refused (EPERM), though no seccomp filter and no sysctl forbids it",
                "look for a security module or a sandbox around this process: journalctl -k | grep -i denied",
            ),
        },
        Some(libc::EACCES) => Finding::fatal(
            NAME,
            "refused by a security module (EACCES)",
            "allow io_uring in its policy: journalctl -k | grep -i denied",
        ),
        Some(libc::ENOSYS) if privileges.is_filtered => {
            Finding::fatal(NAME, "hidden by a seccomp filter (ENOSYS), or not in this kernel", ALLOWED_CALLS)
        }
        Some(libc::ENOSYS) => Finding::fatal(
            NAME,
            "not in this kernel (ENOSYS)",
            "run on a kernel with CONFIG_IO_URING=y, and not inside gVisor or WSL 1, which have none",
        ),
        Some(libc::EINVAL) => Finding::fatal(
            NAME,
            "without what a shard asks of it (EINVAL)",
            "install a kernel of 6.1 or newer: DEFER_TASKRUN and multishot receive came with 6.0 and 6.1",
        ),
        Some(libc::ENOMEM) => Finding::fatal(NAME, NO_MEMORY, MORE_LOCKED_MEMORY),
        Some(libc::EMFILE | libc::ENFILE) => Finding::fatal(
            NAME,
            format!("no descriptor is left for a ring ({error})"),
            "in this shell: ulimit -n 1024, or more where the connections need it",
        ),
        _ => Finding::fatal(NAME, format!("refused: {error}"), "please report this with the output of uname -a"),
    }
}

/// What bounds the locked memory.
#[derive(Clone, Copy, Debug)]
pub(super) struct LockedMemory {
    /// The soft limit in bytes.
    limit: u64,
    /// Whether rings count against it: a matter of the kernel and of `CAP_IPC_LOCK`.
    counts_rings: bool,
}

impl LockedMemory {
    /// That of this process, as it stands.
    pub(super) fn current() -> LockedMemory {
        let is_new = KernelVersion::parse(&kernel_release()).is_some_and(|version| version >= KERNEL_COUNTS_RINGS);
        LockedMemory {
            limit: getrlimit(Resource::RLIMIT_MEMLOCK).map_or(0, |(soft, _)| soft),
            counts_rings: is_new && !Privileges::current().may_lock_memory,
        }
    }

    /// How many shards it has room for.
    pub(super) fn shards_max(self) -> u32 {
        match self.counts_rings {
            true => {
                let room = self.limit.saturating_sub(LOCKED_BYTES_BESIDE) / LOCKED_BYTES_PER_SHARD;
                u32::try_from(room).unwrap_or(u32::MAX)
            }
            false => u32::MAX,
        }
    }
}

fn judge_locked_memory(memory: LockedMemory, shards: u32) -> Finding {
    const NAME: &str = "locked memory";
    let LockedMemory { limit, counts_rings } = memory;
    let needed = match counts_rings {
        true => u64::from(shards.max(1)) * LOCKED_BYTES_PER_SHARD + LOCKED_BYTES_BESIDE,
        false => LOCKED_BYTES_MIN,
    };
    if limit == u64::MAX {
        return Finding::fine(NAME, "unlimited");
    }
    let shards = if shards == 1 { "1 shard needs".to_owned() } else { format!("{shards} shards need") };
    let found = format!("{} KiB allowed, {shards} {} KiB", thousands(limit >> 10), thousands(needed >> 10));
    if limit >= needed {
        return Finding::fine(NAME, found);
    }
    let remedy = match memory.shards_max() {
        0 | u32::MAX => MORE_LOCKED_MEMORY.to_owned(),
        fewer => format!("{MORE_LOCKED_MEMORY}\nor use fewer shards: --shards {fewer}"),
    };
    Finding::fatal(NAME, found, remedy)
}

fn judge_descriptors((soft, hard): (u64, u64), nr_open: u64, needs: &Needs) -> Finding {
    const NAME: &str = "descriptors";
    let of_process = DESCRIPTORS_OF_PROCESS + DESCRIPTORS_PER_SHARD * u64::from(needs.shards);
    let needed = u64::from(needs.files_per_shard).max(of_process);
    if needs.files_per_shard > FILE_SLOTS_MAX {
        let (asked, most) = (thousands(needed), thousands(FILE_SLOTS_MAX.into()));
        let found = format!("a shard would hold {asked} connections, of {most} that one ring can");
        return Finding::fatal(NAME, found, "use more shards or fewer connections");
    }
    let found = match soft {
        u64::MAX => format!("unlimited, {} needed", thousands(needed)),
        _ => format!("{} allowed, {} needed", thousands(soft), thousands(needed)),
    };
    if soft >= needed {
        return Finding::fine(NAME, found);
    }
    if hard >= needed {
        return Finding::fatal(NAME, found, format!("in this shell: ulimit -n {needed}"));
    }
    let first = if needed > nr_open { format!("sudo sysctl -w fs.nr_open={needed} && ") } else { String::new() };
    let remedy = format!(
        "in this shell: {first}sudo prlimit --pid $$ --nofile={needed}\n\
         for later logins but root's: echo '* - nofile {needed}' | sudo tee /etc/security/limits.d/timecop-nofile.conf\n\
         in a systemd unit: LimitNOFILE={needed}\n\
         in a container: docker run --ulimit nofile={needed}"
    );
    Finding::fatal(NAME, found, remedy)
}

/// Judges `net.ipv4.ip_local_port_range` and `net.ipv4.ip_local_reserved_ports`.
fn judge_ports(range: &str, reserved: &str, connections: u32) -> Option<Finding> {
    const NAME: &str = "local ports";
    const WIDEST: &str = "1024 65535";
    const WIDEST_COUNT: u32 = 64_512;
    let range = host::port_range(range)?;
    let count = (u32::from(*range.end()) + 1 - u32::from(*range.start())) - host::reserved_ports(reserved, &range);
    let found = format!("{} for {} connections to one target", thousands(count.into()), thousands(connections.into()));
    let widen = format!("sudo sysctl -w net.ipv4.ip_local_port_range='{WIDEST}'");
    Some(if connections > WIDEST_COUNT.max(count) {
        let most = thousands(WIDEST_COUNT.into());
        Finding::fatal(NAME, found, {
            let several = "or several addresses, here (--source-address, repeated) or there";
            format!("use at most {most} connections to one address, {several}")
        })
    } else if connections > count {
        Finding::fatal(NAME, found, widen)
    } else if connections > count - count / 10 {
        // Ports of closed connections stay in use for a minute.
        Finding::slow(NAME, found, widen)
    } else {
        Finding::fine(NAME, found)
    })
}

#[cfg(test)]
mod tests {
    use super::Severity::{Fatal, Fine, Slow};
    use super::*;

    #[test]
    fn kernels_older_than_6_1_are_refused() {
        for (release, severity) in
            [("6.18.44", Fine), ("6.1.0-18-amd64", Fine), ("6.0.9", Fatal), ("5.15.0-101-generic", Fatal), ("", Fine)]
        {
            assert_eq!(judge_kernel(release).severity, severity, "{release}");
        }
    }

    #[test]
    fn every_refusal_of_a_ring_has_a_cause_and_a_remedy_of_its_own() {
        let ordinary = Privileges::default();
        let filtered = Privileges { is_filtered: true, ..ordinary };
        let admin = Privileges { is_admin: true, ..ordinary };
        let filtered_admin = Privileges { is_filtered: true, ..admin };
        let docker = "--security-opt seccomp=unconfined";
        for (errno, disabled, privileges, found, remedy) in [
            (libc::EPERM, Some(2), filtered, "io_uring_disabled is 2", "io_uring_disabled=0"),
            (libc::EPERM, Some(1), ordinary, "io_uring_disabled is 1", "io_uring_group"),
            (libc::EPERM, Some(1), filtered_admin, "seccomp", docker),
            (libc::EPERM, Some(0), filtered, "seccomp", docker),
            (libc::EPERM, None, filtered, "seccomp", docker),
            (libc::EPERM, Some(1), admin, "no seccomp filter", "sandbox"),
            (libc::EACCES, Some(0), ordinary, "security module", "policy"),
            (libc::ENOSYS, None, filtered, "seccomp", docker),
            (libc::ENOSYS, None, ordinary, "not in this kernel", "CONFIG_IO_URING"),
            (libc::EINVAL, None, ordinary, "EINVAL", "6.1 or newer"),
            (libc::ENOMEM, Some(0), ordinary, "locked", "LimitMEMLOCK=infinity"),
            (libc::EMFILE, Some(0), ordinary, "descriptor", "ulimit -n"),
            (libc::EIO, Some(0), ordinary, "error", "report"),
        ] {
            let finding = judge_ring(Err(io::Error::from_raw_os_error(errno)), disabled, privileges);
            assert_eq!(finding.severity, Fatal);
            assert!(finding.found.contains(found), "{finding:?}");
            assert!(finding.remedy.as_ref().unwrap().contains(remedy), "{finding:?}");
        }
        assert_eq!(judge_ring(Ok(()), Some(0), ordinary).severity, Fine);
    }

    #[test]
    fn rings_count_as_locked_memory_on_new_kernels_only() {
        let kib = |limit: u64, counts_rings| LockedMemory { limit: limit << 10, counts_rings };
        for (memory, shards, severity) in [
            (kib(64, false), 1, Fatal),
            (kib(511, false), 1, Fatal),
            (kib(512, false), 64, Fine),
            (kib(704, true), 1, Fatal),
            (kib(720, true), 1, Fine),
            (kib(8_192, true), 11, Fine),
            (kib(8_192, true), 12, Fatal),
            (LockedMemory { limit: u64::MAX, counts_rings: true }, 1_000, Fine),
        ] {
            let finding = judge_locked_memory(memory, shards);
            assert_eq!(finding.severity, severity, "{finding:?}");
        }
        assert_eq!(
            [kib(8_192, true), kib(700, true), kib(700, false)].map(LockedMemory::shards_max),
            [11, 0, u32::MAX]
        );
        let remedy = judge_locked_memory(kib(8_192, true), 12).remedy.unwrap();
        assert!(remedy.ends_with("--shards 11"), "{remedy}");
    }

    #[test]
    fn descriptors_are_needed_for_the_fullest_ring_or_for_the_shards_themselves() {
        let needs = |shards, files_per_shard| Needs { shards, files_per_shard, ..Needs::on_loopback(1, 1) };
        let judge = |limits, needs| judge_descriptors(limits, 1 << 20, &needs);
        assert_eq!(judge((1_024, 1_024), needs(1, 1_024)).severity, Fine);
        assert_eq!(judge((u64::MAX, u64::MAX), needs(1, 1_024)).severity, Fine);
        assert_eq!(judge((64, 64), needs(4, 1)).severity, Fatal);

        let below_hard = judge((1_024, 4_096), needs(1, 1_025));
        assert_eq!(below_hard.remedy.unwrap(), "in this shell: ulimit -n 1025");
        let finding = judge((1_024, 1_024), needs(1, 50_000));
        assert_eq!(finding.found, "1,024 allowed, 50,000 needed");
        assert!(finding.remedy.unwrap().starts_with("in this shell: sudo prlimit --pid $$ --nofile=50000\n"));
        let remedy = judge_descriptors((1_024, 1_024), 4_096, &needs(1, 50_000)).remedy.unwrap();
        assert!(remedy.starts_with("in this shell: sudo sysctl -w fs.nr_open=50000 && sudo prlimit"), "{remedy}");
        assert!(judge((u64::MAX, u64::MAX), needs(1, (1 << 20) + 1)).remedy.unwrap().contains("more shards"));
    }

    #[test]
    fn each_connection_to_one_target_needs_a_local_port() {
        let judge = |connections| judge_ports("32768 60999", "", connections).unwrap();
        assert_eq!(judge(100).severity, Fine);
        assert_eq!(judge(28_000).severity, Slow);
        assert_eq!(judge(28_232).severity, Slow);
        assert_eq!(judge(28_233).severity, Fatal);
        assert!(judge(28_233).remedy.unwrap().contains("ip_local_port_range='1024 65535'"));
        assert!(judge(70_000).remedy.unwrap().contains("several addresses"));
        assert_eq!(judge_ports("32768 60999", "32768-60998", 2).unwrap().severity, Fatal);
        assert_eq!(judge_ports("", "", 1), None);
    }
}
