//! A job's side of the audit: which of its messages were accepted.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use super::ledger::{Arrivals, Ledger, Origin};
use super::sequences::{Inserted, Sequences};
use super::stamp::Signer;

/// What a job that is audited must know.
#[derive(Clone, Debug)]
pub struct AuditPlan {
    /// Signs its stamps.
    pub signer: Signer,
    /// What the sink of this process has seen, if it is to be looked at.
    pub ledger: Option<Arc<Ledger>>,
}

/// What was accepted of a job, put down by all of its shards. When it is dropped, the sink of this process forgets the run.
#[derive(Debug)]
pub struct Sent {
    run: u64,
    accepted: Sequences,
    untracked: AtomicU64,
    here: Option<(Arc<Ledger>, Arc<Arrivals>)>,
}

impl Sent {
    /// Nothing was accepted yet. From now on the ledger of this process, if there is one, knows the run.
    pub fn new(run: u64, ledger: Option<Arc<Ledger>>, origin: Origin) -> Sent {
        let here = ledger.map(|ledger| {
            let arrivals = ledger.open(run, origin);
            (ledger, arrivals)
        });
        Sent { run, accepted: Sequences::new(), untracked: AtomicU64::new(0), here }
    }

    /// The run's number.
    pub fn run(&self) -> u64 {
        self.run
    }

    /// A message was accepted.
    #[inline]
    pub fn accept(&self, sequence: u64) {
        if self.accepted.insert(sequence) == Inserted::Beyond {
            self.untracked.fetch_add(1, Ordering::Relaxed);
        }
    }

    /// Those that were.
    pub fn accepted(&self) -> &Sequences {
        &self.accepted
    }

    /// Accepted messages whose number is beyond what is told apart.
    pub fn untracked(&self) -> u64 {
        self.untracked.load(Ordering::Relaxed)
    }

    /// What the sink of this process has seen of the run.
    pub fn here(&self) -> Option<(&Ledger, &Arrivals)> {
        self.here.as_ref().map(|(ledger, arrivals)| (&**ledger, &**arrivals))
    }

    /// Whether something that was accepted may still arrive at the sink of this process.
    pub fn awaits_arrivals(&self) -> bool {
        self.here().is_some_and(|(_, arrivals)| self.accepted.without(arrivals.sequences(), 0).count > 0)
    }
}

impl Drop for Sent {
    fn drop(&mut self) {
        if let Some((ledger, arrivals)) = &self.here {
            ledger.close(self.run, arrivals);
        }
    }
}
