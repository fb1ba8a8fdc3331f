//! What control does while a job runs: takes what was measured second by second, adds it up, gives the run up.

use rand::{RngExt, SeedableRng};
use rand_pcg::Pcg64;
use timecop::job::plan::Job;
use timecop::job::spec::JobSpec;
use timecop::measure::abort::AbortWatch;
use timecop::measure::recorder::{ConnectionCounts, Delta};
use timecop::measure::totals::Totals;
use timecop::time::Instant;

use crate::network::World;

/// Deltas that are taken of a shard before its last; more would only cost time.
const DELTAS_MAX: u32 = 12;

/// Follows one run, as the pump and control do together. Its seconds may be shorter than real ones.
pub struct Follower {
    /// All deltas.
    pub totals: Totals,
    /// Why the run was given up.
    pub aborted: Option<String>,
    /// The gauges of each shard's last delta.
    pub gauges: Vec<ConnectionCounts>,
    watch: AbortWatch,
    start: Instant,
    second_ns: u64,
    shards: Vec<Reporting>,
    /// The box that goes to and fro.
    spare: Box<Delta>,
    random: Pcg64,
}

#[derive(Clone, Copy, Default)]
struct Reporting {
    seconds: u64,
    taken: u32,
    ended: bool,
}

impl Follower {
    pub fn new(spec: &JobSpec, job: &Job, shards: usize, second_ns: u64, seed: u64) -> Follower {
        Follower {
            totals: Totals::new(shards),
            aborted: None,
            gauges: vec![ConnectionCounts::default(); shards],
            watch: AbortWatch::new(&spec.abort_on, spec.warm_span()),
            start: job.start,
            second_ns,
            shards: vec![Reporting::default(); shards],
            spare: Box::default(),
            random: Pcg64::seed_from_u64(seed ^ 0xde17a),
        }
    }

    /// After a turn: takes what is due; says whether the run is to be given up now.
    pub fn look(&mut self, world: &mut World) -> bool {
        let elapsed_ns = Instant::from_ns(world.now_ns).ns_since(self.start);
        for shard in 0..self.shards.len() {
            let reporting = &mut self.shards[shard];
            if reporting.ended {
                continue;
            }
            if elapsed_ns >= (reporting.seconds + 1) * self.second_ns {
                // Now and then control is behind: this second is reported together with the next one.
                if reporting.taken == DELTAS_MAX || self.random.random_range(0..4) == 0 {
                    reporting.seconds += 1;
                } else {
                    reporting.taken += 1;
                    self.take(shard, world);
                }
            }
            if world.shards[shard].worker.is_finished() {
                self.take(shard, world);
                self.totals.shard_finished(shard);
                self.shards[shard].ended = true;
            }
        }
        if self.aborted.is_none() {
            self.aborted = self.watch.look(self.totals.whole_seconds());
            return self.aborted.is_some();
        }
        false
    }

    /// Takes what is left.
    pub fn end(&mut self, world: &mut World) {
        for shard in 0..self.shards.len() {
            if !self.shards[shard].ended {
                self.take(shard, world);
                self.totals.shard_finished(shard);
            }
        }
    }

    fn take(&mut self, shard: usize, world: &mut World) {
        let reporting = &mut self.shards[shard];
        reporting.seconds += 1;
        let elapsed = Instant::from_ns(world.now_ns) - self.start;
        let mut delta = world.shards[shard].worker.take_delta(std::mem::take(&mut self.spare));
        self.watch.add(reporting.seconds, &delta);
        self.totals.add(shard, reporting.seconds, elapsed, &delta);
        self.gauges[shard] = ConnectionCounts { opened: 0, reopened: 0, ..delta.connections };
        delta.clear();
        self.spare = delta;
    }
}
