//! What of the machine a command uses: CPUs, shards, descriptors, the host's name.

use super::StartError;
use crate::shard::{machine, placement};

/// This host's name where the system gives none that can stand in EHLO and a Message-ID.
const HOST: &str = "localhost";

/// The CPUs that may be used: those that `option` lists, which must be allowed, or all that are.
pub(super) fn cpus(option: &str, listed: Option<&[usize]>) -> Result<Vec<usize>, StartError> {
    let allowed = placement::allowed_cpus();
    let Some(listed) = listed else { return Ok(allowed) };
    match listed.iter().find(|cpu| !allowed.contains(cpu)) {
        Some(cpu) => {
            Err(StartError::new(format!("{option}: expected CPUs that this process may use ({allowed:?}), got {cpu}")))
        }
        None => Ok(listed.to_vec()),
    }
}

/// One CPU for each shard: the `usual` ones, or as many as `option` says of all that `may` be used.
pub(super) fn shards(
    option: &str,
    asked: Option<usize>,
    usual: Vec<usize>,
    may: &[usize],
) -> Result<Vec<usize>, StartError> {
    let most = may.len();
    match asked {
        None => Ok(usual),
        Some(shards) if (1..=usual.len()).contains(&shards) => Ok(usual[..shards].to_vec()),
        Some(shards) if (1..=most).contains(&shards) => Ok(may[..shards].to_vec()),
        Some(shards) => Err(StartError::new(format!(
            "{option}: expected 1 to {most}, one for each CPU that may be used ({may:?}), got {shards}"
        ))),
    }
}

/// The process's limit of descriptors, which was raised at the start.
pub(super) fn descriptors() -> u64 {
    machine::raise_descriptor_limit().0
}

/// This host's name if it can stand in EHLO and a Message-ID.
pub(super) fn host_name() -> String {
    let name = gethostname::gethostname().to_string_lossy().into_owned();
    let usable = crate::message::Mailbox::parse(&format!("a@{name}")).is_ok_and(|address| address.is_ascii());
    if usable { name } else { HOST.to_owned() }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn shards_stay_on_the_cpus_that_may_be_used() {
        assert_eq!(shards("--shards", None, vec![0], &[0, 1]).unwrap(), [0]);
        assert_eq!(shards("--shards", Some(1), vec![1], &[0, 1]).unwrap(), [1]);
        assert_eq!(shards("--shards", Some(2), vec![1], &[0, 1]).unwrap(), [0, 1]);
        for wrong in [0, 2] {
            let error = shards("--shards", Some(wrong), vec![3], &[3]).unwrap_err().to_string();
            assert!(error.contains("--shards") && error.contains("[3]"), "{error}");
        }
    }
}
