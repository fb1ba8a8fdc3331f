//! What the kernel tells about itself and about this process, in the texts of /proc and /sys.

use std::fs;
use std::ops::RangeInclusive;
use std::path::Path;

/// The text of a file below /proc or /sys, without the white space around it. Nothing where it cannot be read: a
/// container or an older kernel may lack any of them.
pub(super) fn read(path: impl AsRef<Path>) -> Option<String> {
    fs::read_to_string(path).ok().map(|text| text.trim().to_owned())
}

/// The first two numbers of a kernel's release.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) struct KernelVersion(pub u32, pub u32);

impl KernelVersion {
    /// Reads a release such as `6.1.0-18-amd64`.
    pub(super) fn parse(release: &str) -> Option<KernelVersion> {
        let mut numbers = release.trim().split(|c: char| !c.is_ascii_digit());
        Some(KernelVersion(numbers.next()?.parse().ok()?, numbers.next()?.parse().ok()?))
    }
}

/// Reads `net.ipv4.ip_local_port_range`: first and last, both included.
pub(super) fn port_range(text: &str) -> Option<RangeInclusive<u16>> {
    let mut ports = text.split_ascii_whitespace().map(str::parse);
    let (first, last) = (ports.next()?.ok()?, ports.next()?.ok()?);
    (first <= last && ports.next().is_none()).then_some(first..=last)
}

/// How many ports of `range` are in a list such as `8080,9148-9150` (`net.ipv4.ip_local_reserved_ports`), which the
/// kernel keeps sorted and free of overlaps.
pub(super) fn reserved_ports(list: &str, range: &RangeInclusive<u16>) -> u32 {
    let ports_of = |part: &str| {
        let (first, last) = part.split_once('-').unwrap_or((part, part));
        let (first, last): (u16, u16) = (first.trim().parse().ok()?, last.trim().parse().ok()?);
        let (first, last) = (first.max(*range.start()), last.min(*range.end()));
        Some((u32::from(last) + 1).saturating_sub(u32::from(first)))
    };
    list.split(',').filter_map(ports_of).sum()
}

/// What the kernel lets this process do.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct Privileges {
    /// Whether a seccomp filter looks at its system calls.
    pub is_filtered: bool,
    /// `CAP_IPC_LOCK`: its rings are not counted against the limit of locked memory.
    pub may_lock_memory: bool,
    /// `CAP_SYS_ADMIN`: `kernel.io_uring_disabled=1` does not concern it.
    pub is_admin: bool,
}

impl Privileges {
    /// Those of this process.
    pub(super) fn current() -> Privileges {
        let [status, uid_map] = ["/proc/self/status", "/proc/self/uid_map"].map(|path| read(path).unwrap_or_default());
        Privileges::parse(&status, &uid_map)
    }

    /// Reads /proc/self/status and /proc/self/uid_map. io_uring asks for capabilities in the first user namespace, so
    /// those that root has in a rootless container count for nothing.
    pub(super) fn parse(status: &str, uid_map: &str) -> Privileges {
        const CAP_IPC_LOCK: u32 = 14;
        const CAP_SYS_ADMIN: u32 = 21;
        const SECCOMP_MODE_FILTER: &str = "2";
        let field = |name| status.lines().find_map(|line| line.strip_prefix(name)?.strip_prefix(':')).map(str::trim);
        let is_first_namespace = uid_map.split_ascii_whitespace().eq(["0", "0", "4294967295"]);
        let effective = field("CapEff").and_then(|mask| u64::from_str_radix(mask, 16).ok()).unwrap_or(0);
        let has = |capability| is_first_namespace && effective >> capability & 1 == 1;
        Privileges {
            is_filtered: field("Seccomp") == Some(SECCOMP_MODE_FILTER),
            may_lock_memory: has(CAP_IPC_LOCK),
            is_admin: has(CAP_SYS_ADMIN),
        }
    }
}

/// How many CPUs' time this process's control groups allow, if they limit it: the least along the path.
pub(super) fn cpu_quota() -> Option<f64> {
    let groups = read("/proc/self/cgroup")?;
    let path = groups.lines().find_map(|line| line.strip_prefix("0::/"))?;
    let root = Path::new("/sys/fs/cgroup");
    let directory = root.join(path);
    let along = directory.ancestors().take_while(|directory| directory.starts_with(root));
    along.filter_map(|directory| quota_of(&read(directory.join("cpu.max"))?)).reduce(f64::min)
}

/// Reads a control group's `cpu.max`: microseconds allowed in each period, and the period; `max` is no limit.
pub(super) fn quota_of(text: &str) -> Option<f64> {
    let (quota, period) = text.trim().split_once(' ')?;
    let (quota, period): (f64, f64) = (quota.parse().ok()?, period.parse().ok()?);
    (period > 0.0).then_some(quota / period)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_kernels_of_all_distributions_have_a_version() {
        for (release, version) in [
            ("6.18.44-fc-v669", Some(KernelVersion(6, 18))),
            ("6.1.0-18-amd64\n", Some(KernelVersion(6, 1))),
            ("5.14.0-427.13.1.el9_4.x86_64", Some(KernelVersion(5, 14))),
            ("6.6-rc1", Some(KernelVersion(6, 6))),
            ("5.15.167.4-microsoft-standard-WSL2", Some(KernelVersion(5, 15))),
            ("6.10+", Some(KernelVersion(6, 10))),
            ("7", None),
            ("", None),
            ("linux", None),
            ("99999999999.1", None),
        ] {
            assert_eq!(KernelVersion::parse(release), version, "{release:?}");
        }
        assert!(KernelVersion(6, 10) > KernelVersion(6, 9));
    }

    #[test]
    fn a_port_range_is_two_ports_in_order() {
        assert_eq!(port_range("32768\t60999\n"), Some(32_768..=60_999));
        assert_eq!(port_range("1 65535"), Some(1..=65_535));
        for wrong in ["", "1", "5 4", "1 2 3", "1 65536", "a b"] {
            assert_eq!(port_range(wrong), None, "{wrong:?}");
        }
    }

    #[test]
    fn reserved_ports_count_only_within_the_range() {
        for (list, count) in [
            ("", 0),
            ("40000", 1),
            ("1-32768", 1),
            ("1-32767", 0),
            ("40000,50000-50009", 11),
            ("60999-65535", 1),
            ("61000-65535", 0),
            ("0-65535", 28_232),
        ] {
            assert_eq!(reserved_ports(list, &(32_768..=60_999)), count, "{list:?}");
        }
    }

    #[test]
    fn capabilities_count_in_the_first_user_namespace_only() {
        let first = "         0          0 4294967295";
        for (status, uid_map, may_lock_memory, is_admin) in [
            ("CapEff:\t000001fffeffffff\n", first, true, true),
            ("CapPrm:\t000001fffeffffff\nCapEff:\t0000000000000000\n", first, false, false),
            // What Docker gives root.
            ("CapEff:\t00000000a80425fb\n", first, false, false),
            ("CapEff:\t0000000000004000\n", first, true, false),
            ("CapEff:\t000001ffffffffff\n", "0 1000 1", false, false),
            ("CapEff:\t000001ffffffffff\n", "", false, false),
            ("", first, false, false),
        ] {
            let privileges = Privileges::parse(status, uid_map);
            assert_eq!((privileges.may_lock_memory, privileges.is_admin), (may_lock_memory, is_admin), "{status:?}");
        }
    }

    #[test]
    fn only_mode_two_of_seccomp_is_a_filter() {
        for (line, is_filtered) in [
            ("Seccomp:\t0", false),
            ("Seccomp:\t1", false),
            ("NoNewPrivs:\t1\nSeccomp:\t2\nSeccomp_filters:\t1", true),
            ("Seccomp:\t0\nSeccomp_filters:\t2", false),
            ("", false),
        ] {
            assert_eq!(Privileges::parse(line, "").is_filtered, is_filtered, "{line:?}");
        }
    }

    #[test]
    fn a_quota_is_a_number_of_cpus() {
        assert_eq!(quota_of("150000 100000\n"), Some(1.5));
        for none in ["max 100000", "", "100000", "1 0"] {
            assert_eq!(quota_of(none), None, "{none:?}");
        }
    }
}
