//! What is told of probes: to the metrics, the log, and the alerts.

use std::time::Duration;

use serde_json::{Map, json};

use super::{Mail, Prober};
use crate::alert::policy::Kind;
use crate::config::Route;
use crate::control::alert::Account;
use crate::probe::header;
use crate::probe::table::{Ended, Outcome, Overdue};
use crate::shard::clock::wall_now;
use crate::time::Instant;

/// Lines a minute that mail for the postmaster may take in the log: whoever sends it is a stranger.
const POSTMASTER_LINES_MAX: u64 = 10;
const MINUTE: Duration = Duration::from_secs(60);

impl Prober {
    /// Says an outcome to everybody.
    pub(super) fn ended(&mut self, ended: &Ended) {
        let wall = wall_now();
        self.metrics.probes(|totals| totals.ended(ended, wall));
        self.keep(ended.id);
        if self.route(&ended.route).is_none() {
            // It has outlived its route.
            self.table.keep_routes(|name| self.routes.iter().any(|route| route.name == name));
        }
        self.forget();
        let round_trip_s = ended.round_trip.map(|time| time.as_secs_f64());
        tracing::debug!(route = ended.route, outcome = ended.outcome.name(), round_trip_s, "probe ended");
        let Some(route) = self.route(&ended.route) else { return };
        let kind = match ended.outcome {
            Outcome::Ok => return self.alerts.well(&route.name, ended.order, route.rule),
            Outcome::Late if ended.was_lost => return self.alerts.found(&route.name, ended.id),
            Outcome::Late if ended.was_overdue => return,
            _ if ended.is_excused => return,
            Outcome::Late => Kind::Late,
            Outcome::Lost => Kind::Lost,
            Outcome::SendFailed => Kind::SendFailed,
        };
        self.alert(ended.id, kind, &route, None);
    }

    /// A probe has passed its threshold, and may come yet.
    pub(super) fn overdue(&mut self, overdue: &Overdue) {
        self.metrics.probes(|totals| totals.overdue(overdue));
        self.keep(overdue.id);
        tracing::debug!(route = overdue.route, "probe overdue");
        if let Some(route) = self.route(&overdue.route).filter(|_| !overdue.is_excused) {
            self.alert(overdue.id, Kind::Late, &route, None);
        }
    }

    /// A probe that was due was not sent, because too much is under way. Nothing is known of the route any more, which is
    /// as bad as if mail could not be sent.
    pub(super) fn skipped(&mut self, route: &Route, reason: String) {
        // A reload may have taken it away meanwhile.
        if self.routes.contains(route) {
            self.skipped.insert(route.name.clone());
            self.alert(rand::random(), Kind::SendFailed, route, Some(reason));
        }
    }

    fn route(&self, name: &str) -> Option<Route> {
        self.routes.iter().find(|route| route.name == name).cloned()
    }

    /// Tells the alerts of a probe that was not well; why, where the table does not know it.
    fn alert(&mut self, id: u64, kind: Kind, route: &Route, why: Option<String>) {
        let wall = wall_now();
        let probe = self.table.get(id);
        // One that is not known was to be sent now.
        let order = probe.map_or_else(|| self.table.next_order(wall), |probe| probe.order);
        let detail = why.or_else(|| probe.and_then(|probe| probe.detail.clone()));
        let round_trip_ns = probe.and_then(|probe| probe.round_trip_ns);
        let round_trip_s = round_trip_ns.map(|ns| ns as f64 / 1e9);
        let shown = |time| humantime::format_duration(time).to_string();
        let what = match (kind, round_trip_ns) {
            (Kind::Late, Some(took)) => {
                // Rounded up, so that what is a little too long does not look as long as it may be.
                let took = Duration::from_millis(took.div_ceil(1_000_000));
                format!("mail is late: it took {}, more than {}", shown(took), shown(route.threshold))
            }
            (Kind::Late, None) => {
                format!("mail is late: it has not arrived within {}", shown(route.threshold))
            }
            (Kind::Lost, _) => format!("mail is lost: it has not arrived within {}", shown(route.timeout)),
            (Kind::SendFailed, _) => {
                format!("mail cannot be sent: {}", detail.as_deref().unwrap_or("the server does not take it"))
            }
        };
        let mut details = Map::new();
        details.insert("probe".to_owned(), json!(format!("{id:016x}")));
        details.insert("target".to_owned(), json!(route.target));
        details.insert("round_trip_s".to_owned(), json!(round_trip_s));
        details.insert("threshold_s".to_owned(), json!(route.threshold.as_secs_f64()));
        details.insert("timeout_s".to_owned(), json!(route.timeout.as_secs_f64()));
        details.insert("detail".to_owned(), json!(detail));
        let summary = format!("timecop route {}: {what}", route.name);
        let account = Account { route: &route.name, probe: id, order, severity: route.severity, summary, details };
        self.alerts.bad(kind, route.rule, wall, account);
    }
}

/// Mail for the postmaster in the log. Whoever reads that is the postmaster.
#[derive(Debug, Default)]
pub(super) struct PostmasterLog {
    /// The minute in which these have arrived ends then.
    until: Instant,
    arrived: u64,
}

impl PostmasterLog {
    pub(super) fn tell(&mut self, mail: &Mail, now: Instant) {
        self.look(now);
        if self.arrived == 0 {
            self.until = now + MINUTE;
        }
        self.arrived += 1;
        if self.arrived <= POSTMASTER_LINES_MAX {
            let (from, subject) = (String::from_utf8_lossy(&mail.reverse_path), header::subject(&mail.header));
            tracing::info!(client = ?mail.client, %from, subject, "mail for the postmaster arrived, which is not kept");
        }
    }

    /// Says how many more there were when the minute is over.
    pub(super) fn look(&mut self, now: Instant) {
        if now < self.until {
            return;
        }
        let more = std::mem::take(&mut self.arrived).saturating_sub(POSTMASTER_LINES_MAX);
        if more > 0 {
            tracing::info!(more, "more mail for the postmaster arrived within that minute");
        }
    }
}
