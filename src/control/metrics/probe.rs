//! The metrics of the round trip.

use std::collections::BTreeMap;

use super::families::{Family, Samples};
use crate::control::alert::AlertCounts;
use crate::measure::histogram::{Digits, LatencyHistogram};
use crate::probe::policy::ServerCounts;
use crate::probe::table::{Ended, Leg, Legs, Outcome, Overdue};
use crate::time::{WallTime, duration_ns};

const MS: u64 = 1_000_000;
const S: u64 = 1_000 * MS;

/// Bounds of round trips, in nanoseconds: from a fast relay's to those of greylisting and of queues that are full.
const ROUND_TRIP_BOUNDS_NS: [u64; 17] = [
    250 * MS,
    500 * MS,
    S,
    2 * S,
    3 * S,
    5 * S,
    7_500 * MS,
    10 * S,
    15 * S,
    30 * S,
    60 * S,
    120 * S,
    300 * S,
    600 * S,
    1_800 * S,
    3_600 * S,
    14_400 * S,
];

/// Bounds of legs, in nanoseconds.
const LEG_BOUNDS_NS: [u64; 13] =
    [5 * MS, 10 * MS, 25 * MS, 50 * MS, 100 * MS, 250 * MS, 500 * MS, S, 2_500 * MS, 5 * S, 10 * S, 30 * S, 60 * S];

/// Why a message that arrived ends no probe.
pub const IGNORED: [&str; 9] =
    ["absent", "duplicate", "forged", "future", "malformed", "postmaster", "unknown", "unsent", "version"];

/// What was counted of probes since the service began.
#[derive(Debug, Default)]
pub struct ProbeTotals {
    routes: BTreeMap<String, RouteTotals>,
    /// For each of [`IGNORED`].
    ignored: [u64; IGNORED.len()],
    /// Whether there is a prober; without one there are none of its metrics.
    is_there: bool,
    /// When the certificate of our own server expires, in seconds since 1970.
    pub server_certificate_expiry_unix_s: Option<i64>,
    /// What PagerDuty was told.
    pub alerts: AlertCounts,
    /// What our own server has seen.
    pub server: ServerCounts,
}

/// What was counted of a route's probes.
#[derive(Debug)]
pub struct RouteTotals {
    round_trip: LatencyHistogram,
    /// For each of [`Leg::ALL`].
    legs: [LatencyHistogram; Leg::ALL.len()],
    /// For each of [`Outcome::ALL`].
    outcomes: [u64; Outcome::ALL.len()],
    /// Those that were not in time, known so far, but for those that were excused.
    not_in_time: u64,
    /// Those that were not in time because the service itself was down.
    excused: u64,
    /// Lost ones that have arrived.
    found: u64,
    /// Those whose clocks disagreed.
    skewed: u64,
    /// Probes that were not sent, because too many were on their way.
    skipped: u64,
    /// Probes on their way.
    pub outstanding: u64,
    /// Those of them that have passed the threshold.
    pub overdue: u64,
    /// Between two probes, until one is late, and until it is lost, in seconds.
    pub times_s: [f64; 3],
    /// When the service began to send probes by it, in seconds since 1970.
    pub begin_unix_s: f64,
    /// When one last arrived in time, in seconds since 1970.
    pub last_ok_unix_s: Option<f64>,
    /// When the target's certificate expires, in seconds since 1970.
    pub certificate_expiry_unix_s: Option<i64>,
}

impl Default for RouteTotals {
    fn default() -> RouteTotals {
        RouteTotals {
            round_trip: LatencyHistogram::new(Digits::Three),
            legs: [const { LatencyHistogram::new(Digits::Two) }; Leg::ALL.len()],
            outcomes: Default::default(),
            not_in_time: 0,
            excused: 0,
            found: 0,
            skewed: 0,
            skipped: 0,
            outstanding: 0,
            overdue: 0,
            times_s: Default::default(),
            begin_unix_s: 0.0,
            last_ok_unix_s: None,
            certificate_expiry_unix_s: None,
        }
    }
}

impl RouteTotals {
    fn not_in_time(&mut self, is_excused: bool) {
        let counter = if is_excused { &mut self.excused } else { &mut self.not_in_time };
        *counter += 1;
    }
}

impl ProbeTotals {
    /// The routes that there are; what was counted of others is forgotten, so that names do not pile up.
    pub fn set_routes<'a>(&mut self, routes: impl Iterator<Item = &'a str>) {
        let mut before = std::mem::take(&mut self.routes);
        let kept = |name: &str| (name.to_owned(), before.remove(name).unwrap_or_default());
        self.routes = routes.map(kept).collect();
        self.is_there = true;
    }

    /// The counts of a route that there is.
    pub fn route(&mut self, name: &str) -> &mut RouteTotals {
        self.routes.entry(name.to_owned()).or_default()
    }

    /// Counts a probe that has passed the threshold.
    pub fn overdue(&mut self, overdue: &Overdue) {
        if let Some(route) = self.routes.get_mut(&overdue.route) {
            route.not_in_time(overdue.is_excused);
        }
    }

    /// Counts an outcome.
    pub fn ended(&mut self, ended: &Ended, wall: WallTime) {
        let Some(route) = self.routes.get_mut(&ended.route) else { return };
        route.outcomes[ended.outcome as usize] += 1;
        // One whose excuse has run out when it is lost is counted as not in time after all.
        let is_lost_after_all = ended.was_excused && ended.outcome == Outcome::Lost && !ended.is_excused;
        if ended.outcome != Outcome::Ok && (!ended.was_overdue || is_lost_after_all) {
            route.not_in_time(ended.is_excused);
        }
        route.found += u64::from(ended.was_lost);
        route.skewed += u64::from(ended.skewed);
        if let Some(time) = ended.round_trip {
            route.round_trip.record(duration_ns(time));
        }
        if ended.outcome == Outcome::Ok {
            route.last_ok_unix_s = Some(wall.as_unix_ns() as f64 / 1e9);
        }
    }

    /// Counts a probe that was not sent.
    pub fn skipped(&mut self, route: &str) {
        if let Some(route) = self.routes.get_mut(route) {
            route.skipped += 1;
        }
    }

    /// Counts these legs, where they are known.
    pub fn legs(&mut self, route: &str, legs: &Legs, which: impl Iterator<Item = Leg>) {
        let Some(route) = self.routes.get_mut(route) else { return };
        for (leg, seconds) in which.filter_map(|leg| Some((leg, legs.get(leg)?))) {
            route.legs[leg as usize].record((seconds * 1e9) as u64);
        }
    }

    /// Counts a message that ends no probe, for a reason of [`IGNORED`].
    pub fn ignore(&mut self, reason: &str) {
        let at = IGNORED.iter().position(|known| *known == reason).expect("every reason is in the table");
        self.ignored[at] += 1;
    }
}

/// A metric of which there is one sample a route, where there is a value.
macro_rules! by_route {
    ($variant:ident, $route:ident => $value:expr) => {
        Samples::$variant(|totals, sample| {
            for (name, $route) in &totals.probes.routes {
                if let Some(value) = $value {
                    sample(&[name], value);
                }
            }
        })
    };
}

/// A metric without labels, where there is a prober.
macro_rules! single {
    ($variant:ident, $probes:ident => $value:expr) => {
        Samples::$variant(|totals, sample| {
            let $probes = &totals.probes;
            if $probes.is_there
                && let Some(value) = $value
            {
                sample(&[], value);
            }
        })
    };
}

/// A counter with one label, where there is a prober: its values, and the counts of each.
macro_rules! by_label {
    ($probes:ident => $($label:literal: $count:expr),+) => {
        Samples::Counter(|totals, sample| {
            let $probes = &totals.probes;
            if $probes.is_there {
                $(sample(&[$label], $count as f64);)+
            }
        })
    };
}

/// Every metric of the round trip, in the order of their names.
pub(super) const FAMILIES: &[Family] = &[
    Family {
        name: "timecop_alert_events_total",
        help: "Events that PagerDuty has taken, that it refused for good, and that were dropped because too many waited.",
        labels: &["result"],
        samples: by_label!(probes => "taken": probes.alerts.taken, "refused": probes.alerts.refused,
            "dropped": probes.alerts.dropped),
    },
    Family {
        name: "timecop_alert_events_waiting",
        help: "Events that PagerDuty has not taken yet.",
        labels: &[],
        samples: single!(Gauge, probes => Some(probes.alerts.waiting as f64)),
    },
    Family {
        name: "timecop_alert_retries_total",
        help: "Tries to tell PagerDuty that will be made again: throttled (429) or failed (5xx, or no answer).",
        labels: &["reason"],
        samples: by_label!(probes => "throttled": probes.alerts.throttled, "failed": probes.alerts.failed),
    },
    Family {
        name: "timecop_alerts_open",
        help: "Alerts of routes that are open.",
        labels: &[],
        samples: single!(Gauge, probes => Some(probes.alerts.open as f64)),
    },
    Family {
        name: "timecop_probe_begin_timestamp_seconds",
        help: "When this service began to send probes by the route, in seconds since 1970.",
        labels: &["route"],
        samples: by_route!(Gauge, route => Some(route.begin_unix_s)),
    },
    Family {
        name: "timecop_probe_certificate_expiry_timestamp_seconds",
        help: "When the certificate of the route's target expires, in seconds since 1970.",
        labels: &["route"],
        samples: by_route!(Gauge, route => route.certificate_expiry_unix_s.map(|at| at as f64)),
    },
    Family {
        name: "timecop_probe_excused_total",
        help: "Probes that were not in time because timecop itself was down; one that is lost all the same when its excuse has run out counts as not in time as well.",
        labels: &["route"],
        samples: by_route!(Counter, route => Some(route.excused as f64)),
    },
    Family {
        name: "timecop_probe_found_total",
        help: "Probes that were lost and arrived after all; they count as lost and as late, so that neither counter goes back.",
        labels: &["route"],
        samples: by_route!(Counter, route => Some(route.found as f64)),
    },
    Family {
        name: "timecop_probe_ignored_total",
        help: "Messages for the probe address that end no probe, by why.",
        labels: &["reason"],
        samples: Samples::Counter(|totals, sample| {
            for (reason, &count) in IGNORED.iter().zip(&totals.probes.ignored) {
                if totals.probes.is_there {
                    sample(&[reason], count as f64);
                }
            }
        }),
    },
    Family {
        name: "timecop_probe_interval_seconds",
        help: "Time between two probes of the route.",
        labels: &["route"],
        samples: by_route!(Gauge, route => Some(route.times_s[0])),
    },
    Family {
        name: "timecop_probe_last_success_timestamp_seconds",
        help: "When a probe of the route last arrived in time, in seconds since 1970.",
        labels: &["route"],
        samples: by_route!(Gauge, route => route.last_ok_unix_s),
    },
    Family {
        name: "timecop_probe_leg_seconds",
        help: "How long the parts of the way took: connect, tls, auth, submit (MAIL to the final reply), transit (from there to us).",
        labels: &["route", "leg"],
        samples: Samples::Histogram(&LEG_BOUNDS_NS, |totals, sample| {
            for (name, route) in &totals.probes.routes {
                for (leg, values) in Leg::ALL.iter().zip(&route.legs) {
                    sample(&[name, leg.name()], values);
                }
            }
        }),
    },
    Family {
        name: "timecop_probe_not_in_time_total",
        help: "Probes that were not in time, each once and as soon as that is known: at the threshold, whatever becomes of them; without those that were excused.",
        labels: &["route"],
        samples: by_route!(Counter, route => Some(route.not_in_time as f64)),
    },
    Family {
        name: "timecop_probe_outcomes_total",
        help: "Probes by outcome: ok, late, lost, send_failed.",
        labels: &["route", "outcome"],
        samples: Samples::Counter(|totals, sample| {
            for (name, route) in &totals.probes.routes {
                for (outcome, &count) in Outcome::ALL.iter().zip(&route.outcomes) {
                    sample(&[name, outcome.name()], count as f64);
                }
            }
        }),
    },
    Family {
        name: "timecop_probe_outstanding",
        help: "Probes on their way.",
        labels: &["route"],
        samples: by_route!(Gauge, route => Some(route.outstanding as f64)),
    },
    Family {
        name: "timecop_probe_overdue",
        help: "Probes on their way that have passed the threshold.",
        labels: &["route"],
        samples: by_route!(Gauge, route => Some(route.overdue as f64)),
    },
    Family {
        name: "timecop_probe_skewed_total",
        help: "Probes without a round trip, because the clocks before and behind a restart disagreed.",
        labels: &["route"],
        samples: by_route!(Counter, route => Some(route.skewed as f64)),
    },
    Family {
        name: "timecop_probe_skipped_total",
        help: "Probes that were not sent: too many of the route were on their way, or being sent, or too many hosts being looked up.",
        labels: &["route"],
        samples: by_route!(Counter, route => Some(route.skipped as f64)),
    },
    Family {
        name: "timecop_probe_threshold_seconds",
        help: "After so long a probe of the route is late.",
        labels: &["route"],
        samples: by_route!(Gauge, route => Some(route.times_s[1])),
    },
    Family {
        name: "timecop_probe_timeout_seconds",
        help: "After so long a probe of the route is lost.",
        labels: &["route"],
        samples: by_route!(Gauge, route => Some(route.times_s[2])),
    },
    Family {
        name: "timecop_round_trip_seconds",
        help: "From the start of a probe to its end of data here, late ones included.",
        labels: &["route"],
        samples: Samples::Histogram(&ROUND_TRIP_BOUNDS_NS, |totals, sample| {
            totals.probes.routes.iter().for_each(|(name, route)| sample(&[name], &route.round_trip));
        }),
    },
    Family {
        name: "timecop_smtp_certificate_expiry_timestamp_seconds",
        help: "When the certificate that our own server shows expires, in seconds since 1970.",
        labels: &[],
        samples: single!(Gauge, probes => probes.server_certificate_expiry_unix_s.map(|at| at as f64)),
    },
    Family {
        name: "timecop_smtp_messages_total",
        help: "Messages that our own server took, put off, or refused.",
        labels: &["outcome"],
        samples: by_label!(probes => "accepted": probes.server.accepted, "deferred": probes.server.deferred,
            "rejected": probes.server.refused),
    },
    Family {
        name: "timecop_smtp_recipients_refused_total",
        help: "Recipients that our own server refused, because they are not the probe's address.",
        labels: &[],
        samples: single!(Counter, probes => Some(probes.server.recipients_refused as f64)),
    },
    Family {
        name: "timecop_smtp_sessions_total",
        help: "Sessions that our own server began, those that it turned away, and those that it ended to make room.",
        labels: &["result"],
        samples: by_label!(probes => "begun": probes.server.sessions, "turned_away": probes.server.sessions_refused,
            "ended_for_room": probes.server.sessions_ended),
    },
];
