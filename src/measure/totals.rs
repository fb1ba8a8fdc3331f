//! A job's totals: the deltas of all its shards, merged, and one row for each second.

use std::collections::BTreeMap;
use std::time::Duration;

use serde::{Deserialize, Serialize};
use utoipa::ToSchema;

use super::histogram::{Digits, LatencyHistogram};
use super::recorder::{ConnectionCounts, Delta};

/// Rows that are kept, one a second: a day. Later seconds are counted in the totals alone.
pub const SERIES_ROWS_MAX: usize = 86_400;

/// One second of a job.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize, ToSchema)]
pub struct SeriesRow {
    /// Seconds since the job began, at the end of the row; a whole number but for the last row.
    pub t_s: f64,
    /// Messages whose MAIL was written.
    pub sent: u64,
    /// Messages accepted.
    pub accepted: u64,
    /// Messages deferred, rejected or failed.
    pub other: u64,
    /// Median response time of the accepted ones in seconds; absent without any.
    pub p50: Option<f64>,
    /// 99th percentile of the same.
    pub p99: Option<f64>,
}

/// A second that some shard has not yet reported.
#[derive(Debug)]
struct OpenRow {
    /// How far into the job what was counted reaches.
    reaches: Duration,
    sent: u64,
    accepted: u64,
    other: u64,
    /// A message of the warm-up was taken.
    warm: bool,
    response: LatencyHistogram,
}

/// Everything measured of one job.
#[derive(Debug)]
pub struct Totals {
    /// All deltas in one.
    pub merged: Delta,
    shards: Vec<ShardState>,
    rows: Vec<SeriesRow>,
    open: BTreeMap<u64, OpenRow>,
    reported: Duration,
}

#[derive(Clone, Copy, Debug, Default)]
struct ShardState {
    connections: ConnectionCounts,
    /// The last second that the shard has reported whole.
    second: u64,
    /// CPU time that it has used before the drain, in nanoseconds.
    busy_ns: u64,
}

impl Totals {
    /// Nothing yet, from so many shards.
    pub fn new(shards: usize) -> Totals {
        Totals {
            merged: Delta::new(),
            shards: vec![ShardState::default(); shards],
            rows: Vec::new(),
            open: BTreeMap::new(),
            reported: Duration::ZERO,
        }
    }

    /// Adds what `shard` measured in second `second` of the job (the first is 1), `elapsed` after its beginning.
    pub fn add(&mut self, shard: usize, second: u64, elapsed: Duration, delta: &Delta) {
        self.merged.merge(delta);
        self.reported = self.reported.max(elapsed);
        let busy_ns = self.shards[shard].busy_ns + delta.effort.busy_ns;
        self.shards[shard] = ShardState { connections: delta.connections, second, busy_ns };
        let row = self.open.entry(second).or_insert_with(|| OpenRow {
            reaches: Duration::ZERO,
            sent: 0,
            accepted: 0,
            other: 0,
            warm: false,
            response: LatencyHistogram::new(Digits::Three),
        });
        row.reaches = row.reaches.max(elapsed);
        row.sent += delta.messages.sent;
        row.accepted += delta.messages.accepted;
        row.other += delta.messages.not_accepted();
        row.warm |= delta.warmup.taken > 0;
        row.response.merge(&delta.accepted.response);
        self.close_rows(self.whole_seconds());
    }

    /// `shard` will report no more.
    pub fn shard_finished(&mut self, shard: usize) {
        self.shards[shard].second = u64::MAX;
        self.close_rows(self.whole_seconds());
    }

    fn close_rows(&mut self, whole: u64) {
        while let Some(entry) = self.open.first_entry().filter(|entry| *entry.key() <= whole) {
            let (second, row) = entry.remove_entry();
            let t_s = (second as f64).min(row.reaches.as_secs_f64());
            if self.rows.len() < SERIES_ROWS_MAX && !row.warm {
                let quantile = |q| row.response.quantile_ns(q).map(|ns| ns as f64 / 1e9);
                let (p50, p99) = (quantile(0.5), quantile(0.99));
                let OpenRow { sent, accepted, other, .. } = row;
                self.rows.push(SeriesRow { t_s, sent, accepted, other, p50, p99 });
            }
        }
    }

    /// Whether a shard has ended its share.
    pub fn has_finished(&self, shard: usize) -> bool {
        self.shards[shard].second == u64::MAX
    }

    /// Whether every shard has ended its share.
    pub fn is_finished(&self) -> bool {
        self.shards.iter().all(|shard| shard.second == u64::MAX)
    }

    /// The last second that every shard has reported; `u64::MAX` when all have ended.
    pub fn whole_seconds(&self) -> u64 {
        self.shards.iter().map(|shard| shard.second).min().unwrap_or(0)
    }

    /// How far into the job what was counted reaches. Shards report at the same moments, so this is true of all but for
    /// milliseconds.
    pub fn reported(&self) -> Duration {
        self.reported
    }

    /// The seconds that every shard has reported, but for those in which messages of the warm-up were begun.
    pub fn rows(&self) -> &[SeriesRow] {
        &self.rows
    }

    /// The CPU time that the busiest shard has used before the drain, in nanoseconds.
    pub fn busy_ns_max(&self) -> u64 {
        self.shards.iter().map(|shard| shard.busy_ns).max().unwrap_or(0)
    }

    /// Connections of all shards: the gauges of their last deltas, added up. The maxima of different shards may be of
    /// different moments, so that their sum is an upper bound where there are several.
    pub fn connections(&self) -> ConnectionCounts {
        let ConnectionCounts { opened, reopened, .. } = self.merged.connections;
        let mut sum = ConnectionCounts { opened, reopened, ..ConnectionCounts::default() };
        for ShardState { connections, .. } in &self.shards {
            sum.open += connections.open;
            sum.held += connections.held;
            sum.held_max += connections.held_max;
            sum.waiting += connections.waiting;
            sum.waiting_max += connections.waiting_max;
        }
        sum
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::measure::recorder::MessageTimes;
    use crate::time::Instant;

    fn delta(accepted: u64, response_ns: u64) -> Delta {
        let mut delta = Delta::new();
        delta.messages.accepted = accepted;
        let (due, ended) = (Instant::from_ns(0), Instant::from_ns(response_ns));
        (0..accepted).for_each(|_| delta.message(true, MessageTimes { due, started: Some(due), ended }));
        delta
    }

    #[test]
    fn a_row_is_shown_once_every_shard_has_reported_its_second() {
        let mut totals = Totals::new(2);
        let ms = Duration::from_millis;
        totals.add(0, 1, ms(1_001), &delta(10, 1_000_000));
        assert_eq!(totals.rows(), []);
        totals.add(0, 2, ms(1_750), &delta(1, 1_000_000));
        totals.add(1, 1, ms(1_003), &delta(30, 3_000_000));
        assert_eq!(totals.rows().len(), 1);
        assert_eq!((totals.rows()[0].t_s, totals.rows()[0].accepted), (1.0, 40));
        assert!((totals.rows()[0].p50.unwrap() - 0.003).abs() < 1e-5);
        totals.shard_finished(1);
        assert_eq!(totals.rows()[1].t_s, 1.75, "the last row says how long it is");
        assert_eq!(totals.merged.messages.accepted, 41);
    }

    #[test]
    fn gauges_of_shards_are_added_and_not_accumulated() {
        let mut totals = Totals::new(2);
        for (shard, held) in [(0, 5), (1, 7), (0, 4)] {
            let mut delta = Delta::new();
            delta.connections = ConnectionCounts { held, held_max: 9, opened: 1, ..ConnectionCounts::default() };
            totals.add(shard, 1, Duration::from_secs(1), &delta);
        }
        let connections = totals.connections();
        assert_eq!((connections.held, connections.held_max, connections.opened), (11, 18, 3));
    }
}
