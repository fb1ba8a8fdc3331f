//! How many shards, on which CPUs, with rings of which size.

use crate::shard::ring::{BUFFERS_MAX, RingConfig};

/// Connections that one shard of a sink takes at once, where the descriptor limit allows it.
pub const SINK_CONNECTIONS_MAX: u32 = 65_536;
/// Receive buffers of a sink's shard, whose connections are not known beforehand: 2 MiB.
const SINK_BUFFERS: u16 = 1_024;
/// Fewest receive buffers of a generator's shard.
const BUFFERS_MIN: u32 = 64;

/// File slots for connections that are turned away.
const PROBE_SPARE_FILES: u32 = 32;
/// Receive buffers of the probe's shard.
const PROBE_BUFFERS: u16 = 256;

/// Which CPUs generate and which serve.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Sides {
    /// For the generator: at least one.
    pub generator: Vec<usize>,
    /// For a server on the same machine: at least one.
    pub server: Vec<usize>,
}

/// Halves the CPUs: the first ones generate, the last ones serve, so that a generator and a server started side by side
/// stay out of each other's way. A single CPU does both.
pub fn halves(cpus: &[usize]) -> Sides {
    let half = (cpus.len() / 2).max(1);
    let server_from = if cpus.len() > 1 { half } else { 0 };
    Sides { generator: cpus[..half].to_vec(), server: cpus[server_from..].to_vec() }
}

/// Which CPUs a service uses for what.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ServiceCpus {
    /// For the shards that generate: at least one.
    pub generator: Vec<usize>,
    /// For the embedded sink: at least one.
    pub server: Vec<usize>,
    /// For control, where one is left; else the kernel places it.
    pub control: Option<usize>,
}

/// Keeps the last of three or more CPUs for control, and halves the others.
pub fn service(cpus: &[usize]) -> ServiceCpus {
    let (cpus, control) = match cpus {
        [shards @ .., control] if shards.len() >= 2 => (shards, Some(*control)),
        all => (all, None),
    };
    let Sides { generator, server } = halves(cpus);
    ServiceCpus { generator, server, control }
}

/// The ring of a shard that opens `connections`.
pub fn generator_ring(connections: u32) -> RingConfig {
    // Twice the connections, so that a reply of two pieces on each of them finds a buffer; the fewer there are, the
    // better they stay in the cache.
    let buffers = (connections * 2).next_power_of_two().clamp(BUFFERS_MIN, u32::from(BUFFERS_MAX));
    RingConfig { dialed_files: connections, accepted_files: 0, buffers: buffers as u16 }
}

/// The ring of a shard that serves, with no more file slots than the descriptor limit allows.
pub fn server_ring(descriptors: u64) -> RingConfig {
    let files = u64::from(SINK_CONNECTIONS_MAX).min(descriptors) as u32;
    RingConfig { dialed_files: 0, accepted_files: files, buffers: SINK_BUFFERS }
}

/// The ring of the probe's shard, which opens `dialed` connections at most and serves `accepted`; some more are taken
/// to be told that they are too many.
pub fn probe_ring(dialed: u32, accepted: u32) -> RingConfig {
    RingConfig { dialed_files: dialed, accepted_files: accepted + PROBE_SPARE_FILES, buffers: PROBE_BUFFERS }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn generator_and_server_share_no_cpu_where_there_are_two() {
        assert_eq!(halves(&[3]), Sides { generator: vec![3], server: vec![3] });
        assert_eq!(halves(&[0, 1]), Sides { generator: vec![0], server: vec![1] });
        assert_eq!(halves(&[0, 1, 2]), Sides { generator: vec![0], server: vec![1, 2] });
        assert_eq!(halves(&[0, 1, 2, 3]), Sides { generator: vec![0, 1], server: vec![2, 3] });
    }

    #[test]
    fn control_has_a_cpu_of_its_own_where_there_are_three() {
        assert_eq!(service(&[5]), ServiceCpus { generator: vec![5], server: vec![5], control: None });
        assert_eq!(service(&[0, 1]), ServiceCpus { generator: vec![0], server: vec![1], control: None });
        assert_eq!(service(&[0, 1, 2]), ServiceCpus { generator: vec![0], server: vec![1], control: Some(2) });
    }

    #[test]
    fn rings_stay_within_their_bounds() {
        for connections in [1, 100, 5_000, 50_000] {
            let ring = generator_ring(connections);
            assert!(ring.buffers.is_power_of_two() && ring.buffers <= BUFFERS_MAX);
        }
        assert_eq!(server_ring(1_024).accepted_files, 1_024);
        assert_eq!(server_ring(u64::MAX).accepted_files, SINK_CONNECTIONS_MAX);
    }
}
