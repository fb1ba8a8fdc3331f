//! Cost of measuring one accepted message: what is counted and recorded for its replies, its phases and itself.

mod common;

use std::hint::black_box;

use common::Benches;
use timecop::measure::recorder::{Delta, MessageTimes};
use timecop::phase::Phase;
use timecop::time::Instant;

/// What a worker records for one accepted message with one recipient.
fn record(delta: &mut Delta, begin: u64) {
    let phases = [
        (Phase::Mail, 250, Some((2, 1, 0)), &b"2.1.0 ok"[..]),
        (Phase::Rcpt, 250, Some((2, 1, 5)), b"2.1.5 ok"),
        (Phase::Data, 354, None, b"go ahead"),
        (Phase::Final, 250, Some((2, 6, 0)), b"2.6.0 accepted"),
    ];
    for (phase, code, enhanced, text) in phases {
        delta.reply(phase, code, enhanced, text);
        delta.phase(phase, true, 20_000 + begin % 7_919);
    }
    delta.messages.accepted += 1;
    let (due, started) = (Instant::from_ns(begin), Instant::from_ns(begin + 900));
    delta.message(
        true,
        MessageTimes { due, started: Some(started), ended: Instant::from_ns(begin + 90_000 + begin % 65_537) },
    );
}

fn recorder(benches: &mut Benches) {
    let mut delta = Delta::new();
    let mut begin = 0;
    benches.run("recorder", "an accepted message", || {
        begin += 1_000_003;
        record(black_box(&mut delta), begin);
    });
    let mut totals = Delta::new();
    benches.run("recorder", "merge and clear a second's delta", || {
        (0..1_000).for_each(|i| record(&mut delta, i * 1_000_003));
        totals.merge(black_box(&delta));
        delta.clear();
    });
}

fn main() {
    common::main(&[recorder]);
}
