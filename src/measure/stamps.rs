//! Where a shard's times come from.

use serde::{Deserialize, Serialize};
use utoipa::ToSchema;

/// Arrivals on a shard by the clock that timed them.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct Stamps {
    /// Receives that the kernel stamped as it took the last of them from the network.
    pub kernel: u64,
    /// Receives without such a stamp: they count as having arrived when the shard's loop took them up.
    pub turn: u64,
    /// Stamps that said more than can be: earlier than what they answer, or later than they were read.
    pub clamped: u64,
    /// Turns in which the calendar was seen to be set, whose stamps were not used.
    pub steps: u64,
}

/// What the arrivals of a run were timed by.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "lowercase")]
pub enum TimedBy {
    /// The kernel's stamps, but for one in a hundred at most.
    Kernel,
    /// The turns of the shards' loops.
    #[default]
    Turn,
}

impl Stamps {
    /// What these arrivals were timed by.
    pub fn timed_by(&self) -> TimedBy {
        if self.kernel > 0 && self.turn <= self.kernel / 100 { TimedBy::Kernel } else { TimedBy::Turn }
    }

    /// Adds what another one counted.
    pub fn add(&mut self, other: &Stamps) {
        self.kernel += other.kernel;
        self.turn += other.turn;
        self.clamped += other.clamped;
        self.steps += other.steps;
    }
}

/// Writes of a shard by how exactly it is known when they left.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct Writes {
    /// Stamped and given to the kernel one by one.
    pub singly: u64,
    /// Stamped together and given to the kernel together, by a shard that had no time to spare.
    pub together: u64,
}

impl Writes {
    /// Counts one.
    #[inline]
    pub fn count(&mut self, singly: bool) {
        self.singly += u64::from(singly);
        self.together += u64::from(!singly);
    }

    /// Adds what another one counted.
    pub fn add(&mut self, other: &Writes) {
        self.singly += other.singly;
        self.together += other.together;
    }
}
