//! How often faults have struck.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering::Relaxed};

use serde::Serialize;

use super::phase::{FaultPhase, Kind};

const CELLS: usize = FaultPhase::ALL.len() * Kind::ALL.len();

/// Counts of faults by phase and action. Clones share them, which is how the shards of a sink do, and how whoever wants to
/// know reads them meanwhile.
#[derive(Clone, Debug)]
pub struct FaultCounters(Arc<[AtomicU64; CELLS]>);

/// How often faults of one kind have struck.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
pub struct FaultCount {
    /// As in rules.
    pub phase: &'static str,
    /// `reply`, `drop`, `reset`, `delay`, `slow`, `refuse`, `expired`, `wrong-name` or `without`.
    pub action: &'static str,
    /// How often.
    pub count: u64,
}

impl Default for FaultCounters {
    fn default() -> FaultCounters {
        FaultCounters(Arc::new([const { AtomicU64::new(0) }; CELLS]))
    }
}

impl FaultCounters {
    pub(super) fn add(&self, phase: FaultPhase, kind: Kind) {
        // A count is all that is shared: relaxed is enough.
        self.0[phase as usize * Kind::ALL.len() + kind as usize].fetch_add(1, Relaxed);
    }

    /// Those above zero.
    pub fn counts(&self) -> Vec<FaultCount> {
        let cells = FaultPhase::ALL.into_iter().flat_map(|phase| Kind::ALL.map(|kind| (phase, kind)));
        let counted = cells.zip(self.0.iter()).map(|((phase, kind), count)| FaultCount {
            phase: phase.name(),
            action: kind.name(),
            count: count.load(Relaxed),
        });
        counted.filter(|counted| counted.count > 0).collect()
    }
}
