//! Which CPUs the shards run on.

use std::collections::{BTreeSet, HashSet};

use glommio::CpuSet;

/// The CPUs that this process may use, one of each physical core first, so that the first shards do not share one.
pub fn allowed_cpus() -> Vec<usize> {
    let allowed: BTreeSet<usize> =
        core_affinity::get_core_ids().unwrap_or_default().iter().map(|core| core.id).collect();
    let Ok(online) = CpuSet::online() else { return allowed.into_iter().collect() };
    let mut locations: Vec<_> = online.into_iter().filter(|location| allowed.contains(&location.cpu)).collect();
    locations.sort_by_key(|location| location.cpu);
    let mut cores = HashSet::new();
    let (mut first, mut siblings) = (Vec::new(), Vec::new());
    for location in locations {
        let is_new = cores.insert((location.package, location.core));
        if is_new { first.push(location.cpu) } else { siblings.push(location.cpu) }
    }
    first.append(&mut siblings);
    if first.is_empty() { allowed.into_iter().collect() } else { first }
}

/// Reads a list of CPUs such as `0,2-5`.
pub fn parse_cpus(text: &str) -> Result<Vec<usize>, String> {
    let wrong = || format!("expected CPU numbers such as 0,2-5, got {text:?}");
    let mut cpus = Vec::new();
    for part in text.split(',') {
        let (first, last) = part.split_once('-').unwrap_or((part, part));
        let (first, last) = (first.trim().parse().map_err(|_| wrong())?, last.trim().parse().map_err(|_| wrong())?);
        if first > last || last - first > 4_096 {
            return Err(wrong());
        }
        cpus.extend((first..=last).filter(|cpu: &usize| !cpus.contains(cpu)).collect::<Vec<_>>());
    }
    Ok(cpus)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn lists_and_ranges_of_cpus_are_read() {
        assert_eq!(parse_cpus("0").unwrap(), [0]);
        assert_eq!(parse_cpus("0,2-5,3").unwrap(), [0, 2, 3, 4, 5]);
        for wrong in ["", "a", "1-", "5-2", "-1", "0,,1", "0-99999999"] {
            assert!(parse_cpus(wrong).unwrap_err().contains("0,2-5"), "{wrong}");
        }
    }

    #[test]
    fn every_allowed_cpu_is_listed_once() {
        let mut cpus = allowed_cpus();
        assert!(!cpus.is_empty());
        let listed = cpus.len();
        cpus.sort_unstable();
        cpus.dedup();
        assert_eq!(cpus.len(), listed);
    }
}
