//! Cost of one ticket. It is paid for every message, so it must stay far below the microsecond that a message may cost.

mod common;

use std::hint::black_box;
use std::sync::Arc;

use common::Benches;
use timecop::load::{Arrival, ClosedLoop, Limit, MessageCounter, OpenLoop, OpenLoopSpec, Pacer};
use timecop::time::Instant;

fn take(benches: &mut Benches) {
    let now = Instant::from_ns(1 << 62);
    let counter = Arc::new(MessageCounter::unbounded());
    let mut closed = Pacer::Closed(ClosedLoop::new(counter, None));
    benches.run("pacer take", "closed", || closed.take(black_box(now)));
    for (name, arrival) in [("constant", Arrival::Constant), ("poisson", Arrival::Poisson)] {
        let limit = Limit::Messages(u64::MAX);
        let spec =
            OpenLoopSpec { rate_per_s: 7919.0, arrival, limit, start: Instant::ZERO, seed: 1, shard: 0, shards: 2 };
        let fresh = || Pacer::Open(OpenLoop::new(spec).expect("the spec is valid"));
        let mut open = fresh();
        benches.run("pacer take", name, || {
            // A long measurement reaches the end of time.
            if open.next_due().is_none_or(|due| due > now) {
                open = fresh();
            }
            open.take(black_box(now))
        });
    }
}

fn main() {
    common::main(&[take]);
}
