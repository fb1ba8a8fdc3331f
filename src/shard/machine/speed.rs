//! What only costs time: CPUs, their frequency, the clock, the backlog of listeners, congestion control.

use std::collections::BTreeSet;

use super::host;
use super::{Finding, Needs};
use crate::measure::words::thousands;
use crate::shard::clock::Clock;
use crate::shard::placement::{allowed_cpus, parse_cpus};

/// A read of the clock that takes longer than this goes through the kernel, or worse.
const CLOCK_READ_NS_MAX: u64 = 400;
const CLOCK_SOURCE: &str = "/sys/devices/system/clocksource/clocksource0";

pub(super) fn findings(needs: &Needs) -> Vec<Finding> {
    let cpus = allowed_cpus();
    let online = host::read("/sys/devices/system/cpu/online").and_then(|list| parse_cpus(&list).ok());
    let governors: BTreeSet<String> = cpus
        .iter()
        .filter_map(|cpu| host::read(format!("/sys/devices/system/cpu/cpu{cpu}/cpufreq/scaling_governor")))
        .collect();
    let mut findings =
        vec![judge_cpus(cpus.len(), online.map_or(cpus.len(), |online| online.len()), host::cpu_quota())];
    findings.extend(judge_governors(&governors));
    if let Some(current) = host::read(format!("{CLOCK_SOURCE}/current_clocksource")) {
        let available = host::read(format!("{CLOCK_SOURCE}/available_clocksource")).unwrap_or_default();
        findings.push(judge_clock(&current, &available, clock_read_ns()));
    }
    if needs.accepted_connections > 0
        && let Some(most) = host::read("/proc/sys/net/core/somaxconn").and_then(|most| most.parse().ok())
    {
        findings.push(judge_backlog(most, needs.accepted_connections));
    }
    if let Some(name) = host::read("/proc/sys/net/ipv4/tcp_congestion_control") {
        findings.push(judge_congestion_control(&name, needs.is_loopback));
    }
    findings
}

fn judge_cpus(allowed: usize, online: usize, quota: Option<f64>) -> Finding {
    const NAME: &str = "CPUs";
    let found = format!("{allowed} allowed of {online} online");
    if let Some(quota) = quota.filter(|&quota| quota < allowed as f64) {
        return Finding::slow(
            NAME,
            format!("{found}, but the time of {quota:.1}: the control group stops all shards when it is used up"),
            "in a container: docker run --cpuset-cpus in place of --cpus\n\
             in a systemd unit: AllowedCPUs= in place of CPUQuota=",
        );
    }
    match (allowed, online) {
        (2.., _) => Finding::fine(NAME, found),
        (_, 2..) => Finding::slow(
            NAME,
            format!("{found}: shards, control and a target on this machine share it"),
            format!("start it with taskset -c 0-{}, or docker run without --cpuset-cpus", online - 1),
        ),
        _ => Finding::slow(
            NAME,
            format!("{found}: shards, control and a target on this machine share it"),
            "use a machine with two CPUs or more, or a target on another machine",
        ),
    }
}

/// Machines in a cloud show no governor; then there is nothing to say.
fn judge_governors(governors: &BTreeSet<String>) -> Option<Finding> {
    const NAME: &str = "CPU frequency";
    let found = governors.iter().map(String::as_str).collect::<Vec<_>>().join(", ");
    Some(match (governors.is_empty(), governors.contains("powersave")) {
        (true, _) => return None,
        (_, false) => Finding::fine(NAME, format!("governor {found}")),
        (_, true) => Finding::slow(
            NAME,
            format!("governor {found}: CPUs wake up slowly, which shows in every latency"),
            "sudo cpupower frequency-set -g performance",
        ),
    })
}

/// Nanoseconds that one read of the clock takes: the best of some short runs, so that an interruption does not show.
fn clock_read_ns() -> u64 {
    const RUNS: usize = 5;
    const READS: u32 = 200;
    let clock = Clock::start();
    let run = || {
        let began = clock.now();
        let ended = (0..READS).fold(began, |_, _| clock.now());
        ended.ns_since(began) / u64::from(READS)
    };
    (0..RUNS).map(|_| run()).min().unwrap_or(0)
}

fn judge_clock(current: &str, available: &str, read_ns: u64) -> Finding {
    const NAME: &str = "clock source";
    // Each read of these is a read of a device, a microsecond or so, or is coarse.
    const DEVICES: [&str; 5] = ["hpet", "acpi_pm", "jiffies", "refined-jiffies", "pit"];
    // As the kernel ranks them; the names of other architectures' clocks never stand beside a device.
    const FAST: [&str; 4] = ["tsc", "kvm-clock", "hyperv_clocksource_tsc_page", "arch_sys_counter"];
    let found = format!("{current}, {} ns a read", thousands(read_ns));
    if DEVICES.contains(&current) {
        let better = FAST.iter().find(|name| available.split_ascii_whitespace().any(|source| source == **name));
        let remedy = match better {
            Some(name) => format!("echo {name} | sudo tee {CLOCK_SOURCE}/current_clocksource"),
            None => "start the kernel with tsc=reliable if the CPUs' counters agree; journalctl -k | grep -i tsc says \
                     why it was not taken"
                .to_owned(),
        };
        return Finding::slow(NAME, format!("{found}: a device, which every latency waits for"), remedy);
    }
    if read_ns > CLOCK_READ_NS_MAX {
        let remedy = "look for what makes reading the clock a system call: a sandbox such as gVisor, strace, vdso=0, \
                      an old hypervisor";
        return Finding::slow(NAME, format!("{found}: more than {CLOCK_READ_NS_MAX}"), remedy);
    }
    Finding::fine(NAME, found)
}

fn judge_backlog(most: u32, accepted: u32) -> Finding {
    const NAME: &str = "listen backlog";
    /// As many as the kernel allows by default; more seldom arrive before the first are accepted.
    const ENOUGH: u32 = 4_096;
    let found = format!("net.core.somaxconn is {}", thousands(most.into()));
    if most >= accepted.min(ENOUGH) {
        return Finding::fine(NAME, found);
    }
    Finding::slow(
        NAME,
        format!("{found}: of {} connections at once some wait a second", thousands(accepted.into())),
        format!("sudo sysctl -w net.core.somaxconn={ENOUGH}"),
    )
}

fn judge_congestion_control(name: &str, is_loopback: bool) -> Finding {
    const NAME: &str = "congestion control";
    if is_loopback && name.starts_with("bbr") {
        let found = format!("{name}: on loopback, large messages cost up to twice the CPU that they do with cubic");
        return Finding::slow(NAME, found, "sudo sysctl -w net.ipv4.tcp_congestion_control=cubic");
    }
    Finding::fine(NAME, name)
}

#[cfg(test)]
mod tests {
    use super::super::Severity::{Fine, Slow};
    use super::*;

    #[test]
    fn one_cpu_or_less_time_than_the_cpus_have_is_slow() {
        assert_eq!(judge_cpus(2, 2, None).severity, Fine);
        assert_eq!(judge_cpus(2, 2, Some(2.0)).severity, Fine);
        assert_eq!(judge_cpus(2, 2, Some(1.5)).severity, Slow);
        assert!(judge_cpus(1, 8, None).remedy.unwrap().contains("taskset -c 0-7"));
        assert!(judge_cpus(1, 1, None).remedy.unwrap().contains("another machine"));
    }

    #[test]
    fn a_governor_that_saves_power_is_slow() {
        let of = |names: &[&str]| judge_governors(&names.iter().map(|name| (*name).to_owned()).collect());
        assert_eq!(of(&[]), None);
        assert_eq!(of(&["performance", "schedutil"]).unwrap().severity, Fine);
        assert_eq!(of(&["performance", "powersave"]).unwrap().severity, Slow);
    }

    #[test]
    fn a_clock_that_is_a_device_or_a_system_call_is_slow() {
        for (current, available, read_ns, severity, remedy) in [
            ("tsc", "tsc kvm-clock", 25, Fine, ""),
            ("kvm-clock", "kvm-clock", 40, Fine, ""),
            ("arch_sys_counter", "arch_sys_counter", 30, Fine, ""),
            ("hpet", "tsc hpet acpi_pm", 900, Slow, "echo tsc |"),
            ("acpi_pm", "acpi_pm", 900, Slow, "tsc=reliable"),
            ("hpet", "kvm-clock hpet", 900, Slow, "echo kvm-clock |"),
            ("tsc", "tsc", 900, Slow, "gVisor"),
        ] {
            let finding = judge_clock(current, available, read_ns);
            assert_eq!(finding.severity, severity, "{finding:?}");
            assert!(finding.remedy.unwrap_or_default().contains(remedy), "{current}");
        }
    }

    #[test]
    fn the_backlog_is_measured_by_the_connections() {
        for (most, accepted, severity) in [(128, 100, Fine), (128, 129, Slow), (4_096, 1_000_000, Fine)] {
            assert_eq!(judge_backlog(most, accepted).severity, severity);
        }
    }

    #[test]
    fn bbr_is_slow_on_loopback_only() {
        assert_eq!(judge_congestion_control("bbr", true).severity, Slow);
        assert_eq!(judge_congestion_control("bbr", false).severity, Fine);
        assert_eq!(judge_congestion_control("cubic", true).severity, Fine);
    }
}
