//! Routes and probes as the API shows them.

use serde::{Deserialize, Serialize};
use utoipa::ToSchema;

use super::hops::Hop;
use super::table::{Legs, Outcome, Probe};

/// How a route stands.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "snake_case")]
pub enum RouteState {
    /// Nothing is known of any probe yet.
    Unknown,
    /// Its last probe of which something is known arrived in time.
    Ok,
    /// That one arrived late, or has not arrived within the threshold.
    Late,
    /// That one is lost.
    Lost,
    /// That one could not be sent, or none was since then, because too many are under way.
    SendFailed,
}

impl RouteState {
    /// By the route's probes, the newest first: the first of them of which something is known.
    pub fn of(probes: &[&Probe]) -> RouteState {
        let known = |probe: &&Probe| probe.outcome.or(probe.overdue.then_some(Outcome::Late));
        match probes.iter().find_map(known) {
            None => RouteState::Unknown,
            Some(Outcome::Ok) => RouteState::Ok,
            Some(Outcome::Late) => RouteState::Late,
            Some(Outcome::Lost) => RouteState::Lost,
            Some(Outcome::SendFailed) => RouteState::SendFailed,
        }
    }
}

/// A probe. Times are seconds.
#[derive(Clone, Debug, Serialize, Deserialize, ToSchema)]
pub struct ProbeView {
    /// Its number, 16 hexadecimal digits.
    pub id: String,
    /// When it was sent, in nanoseconds since 1970.
    pub sent_unix_ns: u64,
    /// What became of it; `null` while it is outstanding.
    pub outcome: Option<Outcome>,
    /// Whether it was not there at the threshold, so that it is late at best.
    pub overdue: bool,
    /// From its start to its end of data here; `null` where it has not arrived, or where that cannot be known.
    pub round_trip_s: Option<f64>,
    /// The parts of its way.
    pub legs: Legs,
    /// Why it could not be sent, or what is doubtful about that.
    pub detail: Option<String>,
    /// The servers on its way, by its Received headers, whose times have a resolution of one second.
    pub hops: Vec<Hop>,
    /// So many seconds of its way this service was down; they are no part of the round trip.
    pub down_s: f64,
    /// Whether the clocks before and behind a restart disagreed, so that the round trip cannot be known.
    pub skewed: bool,
}

impl From<&Probe> for ProbeView {
    fn from(probe: &Probe) -> ProbeView {
        ProbeView {
            id: format!("{:016x}", probe.id),
            sent_unix_ns: probe.sent_unix_ns,
            outcome: probe.outcome,
            overdue: probe.overdue,
            round_trip_s: probe.round_trip_ns.map(|ns| ns as f64 / 1e9),
            legs: probe.legs,
            detail: probe.detail.clone(),
            hops: probe.hops.clone(),
            down_s: probe.down_ns as f64 / 1e9,
            skewed: probe.skewed,
        }
    }
}

/// A route.
#[derive(Clone, Debug, Serialize, Deserialize, ToSchema)]
#[schema(as = Route)]
pub struct RouteView {
    /// Its name in the configuration.
    pub name: String,
    /// Where its probes are handed over: a target's name, or a URL.
    pub target: String,
    /// Time between two probes.
    pub interval_s: f64,
    /// After so long a probe is late.
    pub threshold_s: f64,
    /// After so long it is lost.
    pub timeout_s: f64,
    /// How it stands.
    pub state: RouteState,
    /// Alerts that are open: of `late`, `lost` and `send_failed`.
    pub alerts: Vec<Outcome>,
    /// Probes that are on their way.
    pub outstanding: usize,
    /// When a probe last arrived in time, in seconds since 1970; `null` where none has since the service began.
    pub last_ok_unix_s: Option<f64>,
    /// When the target's certificate expires, in seconds since 1970; `null` where it has none, or is not known yet.
    pub certificate_expiry_unix_s: Option<i64>,
    /// The last probes, the newest first. Absent in lists.
    #[serde(skip_serializing_if = "Option::is_none", default)]
    pub probes: Option<Vec<ProbeView>>,
}

/// All routes, in the order of the configuration, without their probes.
#[derive(Clone, Debug, Serialize, Deserialize, ToSchema)]
pub struct RouteList {
    /// The routes.
    #[serde(rename = "Items")]
    pub items: Vec<RouteView>,
}

/// A probe that has been sent off.
#[derive(Clone, Debug, Serialize, Deserialize, ToSchema)]
pub struct RouteFired {
    /// The route's name.
    pub name: String,
    /// The probe's number, by which `route.get` shows it.
    pub id: String,
}
