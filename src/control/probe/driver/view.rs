//! Routes and probes as API and metrics show them.

use super::Prober;
use crate::alert::policy::Kind;
use crate::config::Route;
use crate::control::metrics::ProbeTotals;
use crate::probe::table::Outcome;
use crate::probe::view::{ProbeView, RouteList, RouteState, RouteView};

/// Probes of a route that the API shows.
const PROBES_SHOWN: usize = 20;

impl Prober {
    /// Whether alerts can be told, or why not.
    ///
    /// # Errors
    ///
    /// In words.
    pub fn health(&self) -> Result<(), String> {
        self.alerts.health()
    }

    /// All routes.
    pub fn list(&self) -> RouteList {
        RouteList { items: self.routes.iter().map(|route| self.view(route)).collect() }
    }

    /// A route with its last probes, or with the one that has this number, if it is known.
    pub fn get(&self, name: &str, id: Option<u64>) -> Option<RouteView> {
        let route = self.routes.iter().find(|route| route.name == name)?;
        let probes = match id {
            Some(id) => self.table.get(id).filter(|probe| probe.route == name).into_iter().collect(),
            None => self.table.last(name, PROBES_SHOWN),
        };
        let probes = probes.into_iter().map(ProbeView::from).collect();
        Some(RouteView { probes: Some(probes), ..self.view(route) })
    }

    fn view(&self, route: &Route) -> RouteView {
        let name = &route.name;
        let state = match self.skipped.contains(name) {
            true => RouteState::SendFailed,
            false => RouteState::of(&self.table.last(name, usize::MAX)),
        };
        let (last_ok_unix_s, certificate_expiry_unix_s) = self
            .metrics
            .probes(|totals| (totals.route(name).last_ok_unix_s, totals.route(name).certificate_expiry_unix_s));
        let kinds = self.alerts.open(name).iter().map(|kind| match kind {
            Kind::Late => Outcome::Late,
            Kind::Lost => Outcome::Lost,
            Kind::SendFailed => Outcome::SendFailed,
        });
        RouteView {
            name: name.clone(),
            target: route.target.clone(),
            interval_s: route.interval.as_secs_f64(),
            threshold_s: route.threshold.as_secs_f64(),
            timeout_s: route.timeout.as_secs_f64(),
            state,
            alerts: kinds.collect(),
            outstanding: self.table.outstanding(name),
            last_ok_unix_s,
            certificate_expiry_unix_s,
            probes: None,
        }
    }

    /// Brings what is not counted but stands so and so into the metrics.
    pub fn measure(&self) {
        self.metrics.probes(|totals: &mut ProbeTotals| {
            totals.alerts = self.alerts.counts();
            totals.server = self.shard.counts();
            totals.server_certificate_expiry_unix_s = self.shard.certificate_expiry_unix_s();
            for route in &self.routes {
                let totals = totals.route(&route.name);
                totals.outstanding = self.table.outstanding(&route.name) as u64;
                totals.overdue = self.table.outstanding_overdue(&route.name) as u64;
            }
        });
    }
}
