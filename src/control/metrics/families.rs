//! The table of all metrics, each with where its samples come from.

use std::collections::BTreeMap;

use super::{Totals, seconds};
use crate::job::record::JobState;
use crate::job::search::SearchResult;
use crate::measure::histogram::LatencyHistogram;
use crate::measure::recorder::{Delta, Latencies};
use crate::measure::verdict::Validity;
use crate::phase::Phase;

const US: u64 = 1_000;
const MS: u64 = 1_000 * US;
const S: u64 = 1_000 * MS;

/// Bounds of latencies, in nanoseconds: below 100 us a turn of the generator's loop is of the same length, and beyond 100 s
/// most time limits have passed.
const LATENCY_BOUNDS_NS: [u64; 19] = [
    100 * US,
    200 * US,
    500 * US,
    MS,
    2 * MS,
    5 * MS,
    10 * MS,
    20 * MS,
    50 * MS,
    100 * MS,
    200 * MS,
    500 * MS,
    S,
    2 * S,
    5 * S,
    10 * S,
    20 * S,
    50 * S,
    100 * S,
];

/// Bounds of turns, in nanoseconds: from an idle shard's to those of one that was held up.
const TURN_BOUNDS_NS: [u64; 13] =
    [10 * US, 20 * US, 50 * US, 100 * US, 200 * US, 500 * US, MS, 2 * MS, 5 * MS, 10 * MS, 20 * MS, 50 * MS, 100 * MS];

/// One metric: its name, what it says, its labels, and where its samples come from.
pub(super) struct Family {
    pub(super) name: &'static str,
    pub(super) help: &'static str,
    pub(super) labels: &'static [&'static str],
    pub(super) samples: Samples,
}

/// Takes a sample: the values of the family's labels, and its own.
type Take<'a, T> = dyn FnMut(&[&str], T) + 'a;

/// How a family's samples are read from the totals.
pub(super) enum Samples {
    Counter(fn(&Totals, &mut Take<'_, f64>)),
    Gauge(fn(&Totals, &mut Take<'_, f64>)),
    Histogram(&'static [u64], for<'a> fn(&'a Totals, &mut Take<'_, &'a LatencyHistogram>)),
}

/// A counter or gauge whose label is the type of job alone.
macro_rules! by_type {
    ($variant:ident, $kind:ident => $value:expr) => {
        Samples::$variant(|totals, sample| {
            for $kind in &totals.kinds {
                sample(&[$kind.kind.name()], $value);
            }
        })
    };
}

/// Every metric, in the order of their names.
pub(super) const FAMILIES: &[Family] = &[
    Family {
        name: "process_max_fds",
        help: "Descriptors that the process may have.",
        labels: &[],
        samples: Samples::Gauge(|totals, sample| sample(&[], totals.now.descriptors_max as f64)),
    },
    Family {
        name: "process_open_fds",
        help: "Descriptors of the process, without connections of the shards: see timecop_engine_file_slots_used.",
        labels: &[],
        samples: Samples::Gauge(|totals, sample| sample(&[], totals.now.descriptors_open as f64)),
    },
    Family {
        name: "process_start_time_seconds",
        help: "When the process began, in seconds since 1970.",
        labels: &[],
        samples: Samples::Gauge(|totals, sample| sample(&[], seconds(totals.now.start_unix_ns.into()))),
    },
    Family {
        name: "timecop_audit_end_to_end_seconds",
        help: "From when a message's content was written to when the sink had it all, of audited jobs that have ended.",
        labels: &[],
        samples: Samples::Histogram(&LATENCY_BOUNDS_NS, |totals, sample| sample(&[], &totals.audits.end_to_end)),
    },
    Family {
        name: "timecop_audit_messages_total",
        help: "Messages of audited jobs that have ended: accepted by their target; of these missing at the sink; and what the \
               sink has seen of them.",
        labels: &["what"],
        samples: Samples::Counter(|totals, sample| {
            let audits = &totals.audits;
            let counts = [
                ("accepted", audits.accepted),
                ("arrived", audits.arrived),
                ("missing", audits.missing),
                ("unacknowledged", audits.unacknowledged),
                ("duplicate", audits.duplicate),
                ("altered", audits.altered),
                ("late", audits.late),
                ("forged", audits.forged),
                ("malformed", audits.malformed),
            ];
            counts.iter().for_each(|&(what, count)| sample(&[what], count as f64));
        }),
    },
    Family {
        name: "timecop_build_info",
        help: "1, with the version as a label.",
        labels: &["version"],
        samples: Samples::Gauge(|_, sample| sample(&[env!("CARGO_PKG_VERSION")], 1.0)),
    },
    Family {
        name: "timecop_engine_buffers_exhausted_total",
        help: "Times that the kernel found no receive buffer (ENOBUFS) and asked again; once for each job on the shard.",
        labels: &[],
        samples: Samples::Counter(|totals, sample| {
            let all = totals.kinds.iter().map(|kind| kind.merged.effort.buffers_exhausted);
            sample(&[], all.sum::<u64>() as f64);
        }),
    },
    Family {
        name: "timecop_engine_cpu_seconds_total",
        help: "CPU time that the shards used for jobs, user and system.",
        labels: &["type"],
        samples: by_type!(Counter, kind => seconds(kind.merged.effort.cpu_ns.into())),
    },
    Family {
        name: "timecop_engine_deltas_held_total",
        help: "Measurements that control was too slow to take; they came with the next ones, none is dropped.",
        labels: &["type"],
        samples: by_type!(Counter, kind => kind.merged.effort.deltas_held as f64),
    },
    Family {
        name: "timecop_engine_file_slots",
        help: "File slots of the shards' rings, which hold their connections in the place of the process's descriptors.",
        labels: &[],
        samples: Samples::Gauge(|totals, sample| sample(&[], totals.now.file_slots as f64)),
    },
    Family {
        name: "timecop_engine_file_slots_used",
        help: "File slots of the shards' rings that have a connection, be it of a job or served, or one that waits for its turn \
               to be dialled.",
        labels: &[],
        samples: Samples::Gauge(|totals, sample| sample(&[], totals.now.file_slots_used as f64)),
    },
    Family {
        name: "timecop_engine_rearms_total",
        help: "Receives that ended though their connection went on, and were armed again; once for each job on the shard.",
        labels: &[],
        samples: Samples::Counter(|totals, sample| {
            sample(&[], totals.kinds.iter().map(|kind| kind.merged.effort.rearms).sum::<u64>() as f64);
        }),
    },
    Family {
        name: "timecop_engine_shards",
        help: "Shards that are up.",
        labels: &[],
        samples: Samples::Gauge(|totals, sample| sample(&[], totals.now.shards as f64)),
    },
    Family {
        name: "timecop_engine_short_writes_total",
        help: "Writes that the kernel did not take whole at once; once for each job on the shard.",
        labels: &[],
        samples: Samples::Counter(|totals, sample| {
            sample(&[], totals.kinds.iter().map(|kind| kind.merged.effort.short_writes).sum::<u64>() as f64);
        }),
    },
    Family {
        name: "timecop_engine_turn_seconds",
        help: "Lengths of turns of the shards' loops, by which every time may err; a turn counts once for each job it served.",
        labels: &["type"],
        samples: Samples::Histogram(&TURN_BOUNDS_NS, |totals, sample| {
            totals.kinds.iter().for_each(|kind| sample(&[kind.kind.name()], &kind.merged.effort.turns));
        }),
    },
    Family {
        name: "timecop_hammer_connections_open",
        help: "Connections of all jobs that are open.",
        labels: &[],
        samples: Samples::Gauge(|totals, sample| sample(&[], totals.now.connections_open as f64)),
    },
    Family {
        name: "timecop_hammer_connections_opened_total",
        help: "Connections that were opened.",
        labels: &["type"],
        samples: by_type!(Counter, kind => kind.merged.connections.opened as f64),
    },
    Family {
        name: "timecop_hammer_errors_total",
        help: "Errors by phase, kind, and who must act: peer, configuration or generator; those of warm-ups included.",
        labels: &["type", "phase", "kind", "blame"],
        samples: Samples::Counter(|totals, sample| {
            for kind in &totals.kinds {
                for error in &kind.merged.errors {
                    let labels = [kind.kind.name(), error.phase.name(), &error.kind, error.blame.name()];
                    sample(&labels, error.count as f64);
                }
            }
        }),
    },
    Family {
        name: "timecop_hammer_jobs_running",
        help: "Jobs that run or drain.",
        labels: &[],
        samples: Samples::Gauge(|totals, sample| sample(&[], totals.now.jobs_running as f64)),
    },
    Family {
        name: "timecop_hammer_jobs_total",
        help: "Jobs that have ended, by how.",
        labels: &["type", "state"],
        samples: Samples::Counter(|totals, sample| {
            for kind in &totals.kinds {
                for (state, &jobs) in JobState::FINAL.iter().zip(&kind.ended) {
                    sample(&[kind.kind.name(), state.name()], jobs as f64);
                }
            }
        }),
    },
    Family {
        name: "timecop_hammer_message_seconds",
        help: "Response (from when a message was due to its outcome), service (from when work on it began) and lateness (between \
               the two), of accepted messages and of those deferred, rejected or failed, without those of warm-ups.",
        labels: &["type", "outcome", "time"],
        samples: Samples::Histogram(&LATENCY_BOUNDS_NS, |totals, sample| {
            for kind in &totals.kinds {
                for (outcome, latencies) in sides(&kind.merged) {
                    let Latencies { response, service, lateness, .. } = latencies;
                    for (time, values) in [("response", response), ("service", service), ("lateness", lateness)] {
                        sample(&[kind.kind.name(), outcome, time], values);
                    }
                }
            }
        }),
    },
    Family {
        name: "timecop_hammer_messages_sent_total",
        help: "Messages whose MAIL was written, those of warm-ups included.",
        labels: &["type"],
        samples: by_type!(Counter, kind => kind.messages().sent as f64),
    },
    Family {
        name: "timecop_hammer_messages_total",
        help: "Messages by outcome, those of warm-ups included; missed (never dispatched) and cut (in flight when the drain was \
               over) when their job ends.",
        labels: &["type", "outcome"],
        samples: Samples::Counter(|totals, sample| {
            for kind in &totals.kinds {
                let messages = kind.messages();
                let outcomes = [
                    ("accepted", messages.accepted),
                    ("deferred", messages.deferred),
                    ("rejected", messages.rejected),
                    ("failed", messages.failed),
                    ("missed", kind.missed),
                    ("cut", kind.cut),
                ];
                outcomes.iter().for_each(|&(outcome, count)| sample(&[kind.kind.name(), outcome], count as f64));
            }
        }),
    },
    Family {
        name: "timecop_hammer_phase_seconds",
        help: "How long phases took, those with a positive reply and the others; pipelined, mail, rcpt and data count from the \
               write of their group. Without messages of warm-ups.",
        labels: &["type", "phase", "outcome"],
        samples: Samples::Histogram(&LATENCY_BOUNDS_NS, |totals, sample| {
            for kind in &totals.kinds {
                for (outcome, latencies) in sides(&kind.merged) {
                    let counted =
                        Phase::MEASURED.iter().zip(&latencies.phases).filter(|(_, values)| values.count() > 0);
                    counted.for_each(|(phase, values)| sample(&[kind.kind.name(), phase.name(), outcome], values));
                }
            }
        }),
    },
    Family {
        name: "timecop_hammer_recipients_total",
        help: "Recipients by the reply to RCPT or to their message, without those of warm-ups.",
        labels: &["type", "outcome"],
        samples: Samples::Counter(|totals, sample| {
            for kind in &totals.kinds {
                let recipients = &kind.merged.recipients;
                sample(&[kind.kind.name(), "accepted"], recipients.accepted as f64);
                sample(&[kind.kind.name(), "deferred"], recipients.deferred as f64);
                sample(&[kind.kind.name(), "rejected"], recipients.rejected as f64);
            }
        }),
    },
    Family {
        name: "timecop_hammer_reconnects_total",
        help: "Connections that were opened in the place of an earlier one.",
        labels: &["type"],
        samples: by_type!(Counter, kind => kind.merged.connections.reopened as f64),
    },
    Family {
        name: "timecop_hammer_replies_total",
        help: "Replies by phase and the class of their code, without those to messages of warm-ups.",
        labels: &["type", "phase", "code"],
        samples: Samples::Counter(|totals, sample| {
            for kind in &totals.kinds {
                let mut classes = BTreeMap::new();
                for reply in kind.merged.replies.iter().flatten() {
                    *classes.entry((reply.phase, class(reply.code))).or_insert(0) += reply.count;
                }
                for ((phase, class), count) in classes {
                    sample(&[kind.kind.name(), phase.name(), class], count as f64);
                }
            }
        }),
    },
    Family {
        name: "timecop_hammer_searches_total",
        help: "Searches that have ended, by what came of them: found, at_least, none or unfinished.",
        labels: &["type", "result"],
        samples: Samples::Counter(|totals, sample| {
            for kind in &totals.kinds {
                for (result, &searches) in SearchResult::ALL.iter().zip(&kind.searches) {
                    sample(&[kind.kind.name(), result.name()], searches as f64);
                }
            }
        }),
    },
    Family {
        name: "timecop_hammer_sent_bytes_total",
        help: "Octets written to targets, commands included.",
        labels: &["type"],
        samples: by_type!(Counter, kind => kind.merged.bytes_sent as f64),
    },
    Family {
        name: "timecop_hammer_verdicts_total",
        help: "Jobs that have ended, by whether their figures can be relied on: VALID, SUSPECT or INVALID.",
        labels: &["type", "verdict"],
        samples: Samples::Counter(|totals, sample| {
            for kind in &totals.kinds {
                for (validity, &jobs) in Validity::ALL.iter().zip(&kind.verdicts) {
                    sample(&[kind.kind.name(), validity.name()], jobs as f64);
                }
            }
        }),
    },
    Family {
        name: "timecop_sink_faults_total",
        help: "Faults that the service's sink injected, by phase and action.",
        labels: &["phase", "action"],
        samples: Samples::Counter(|totals, sample| {
            totals.faults.counts().iter().for_each(|fault| sample(&[fault.phase, fault.action], fault.count as f64));
        }),
    },
    Family {
        name: "timecop_store_writable",
        help: "1 when what is to be kept can be written, 0 while it waits.",
        labels: &[],
        samples: Samples::Gauge(|totals, sample| sample(&[], f64::from(u8::from(totals.now.store_writable)))),
    },
];

pub(super) fn sides(delta: &Delta) -> [(&'static str, &Latencies); 2] {
    [("accepted", &delta.accepted), ("other", &delta.other)]
}

/// The class of a reply code, which is 200 to 599.
const fn class(code: u16) -> &'static str {
    match code {
        ..300 => "2xx",
        300..400 => "3xx",
        400..500 => "4xx",
        500.. => "5xx",
    }
}
