//! From the outcomes of a route's probes to alerts: one a route and kind, however many probes say the same.
//!
//! `after` probes in a row that are not well raise the alert of the last one's kind; `for` probes in a row that are well
//! resolve all alerts of the route. The alert of lost probes is resolved as well once all that were lost have arrived.

use serde::{Deserialize, Serialize};

/// What can be wrong with a route, each with an alert of its own.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Kind {
    /// Mail is late.
    Late,
    /// Mail does not arrive.
    Lost,
    /// Mail cannot be handed over.
    SendFailed,
}

impl Kind {
    /// All of them.
    pub const ALL: [Kind; 3] = [Kind::Late, Kind::Lost, Kind::SendFailed];

    /// The name in events and their keys.
    pub const fn name(self) -> &'static str {
        match self {
            Kind::Late => "late",
            Kind::Lost => "lost",
            Kind::SendFailed => "send_failed",
        }
    }
}

/// When alerts of a route are raised and resolved.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Rule {
    /// So many probes in a row that are not well raise an alert; at least 1.
    pub after: u32,
    /// So many in a row that are well resolve it; at least 1.
    pub well_for: u32,
}

/// What is to be told.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Action {
    /// An alert begins.
    Trigger(Kind),
    /// It is over.
    Resolve(Kind),
}

/// How a route stands. It is kept, so that an alert is resolved whatever restarts lie between.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct RouteAlerts {
    /// Probes in a row that were not well.
    bad: u32,
    /// Probes in a row that were well.
    well: u32,
    /// Probes that were lost, since the last time that all was well, and have not arrived.
    missing: u32,
    /// Alerts that were raised and not resolved, in that order.
    open: Vec<Kind>,
}

impl RouteAlerts {
    /// The alerts that are open.
    pub fn open(&self) -> &[Kind] {
        &self.open
    }

    /// A probe was well.
    pub fn well(&mut self, rule: Rule) -> Vec<Action> {
        self.bad = 0;
        self.well = self.well.saturating_add(1);
        if self.well < rule.well_for {
            return Vec::new();
        }
        self.missing = 0;
        self.resolve_all()
    }

    /// A probe was not.
    pub fn bad(&mut self, kind: Kind, rule: Rule) -> Vec<Action> {
        self.well = 0;
        self.bad = self.bad.saturating_add(1);
        if kind == Kind::Lost {
            self.missing = self.missing.saturating_add(1);
        }
        if self.bad < rule.after || self.open.contains(&kind) {
            return Vec::new();
        }
        self.open.push(kind);
        vec![Action::Trigger(kind)]
    }

    /// A probe that had been lost has arrived. That it was late is no news by itself: if the route is slow, those behind
    /// it will be late too.
    pub fn found(&mut self) -> Vec<Action> {
        self.missing = self.missing.saturating_sub(1);
        match self.open.iter().position(|kind| *kind == Kind::Lost) {
            Some(at) if self.missing == 0 => vec![Action::Resolve(self.open.remove(at))],
            _ => Vec::new(),
        }
    }

    /// Ends whatever is open, as for a route that there no longer is.
    pub fn resolve_all(&mut self) -> Vec<Action> {
        self.open.drain(..).map(Action::Resolve).collect()
    }
}

#[cfg(test)]
mod tests {
    use super::Action::{Resolve, Trigger};
    use super::*;

    const ONCE: Rule = Rule { after: 1, well_for: 3 };

    #[test]
    fn one_alert_is_raised_however_many_probes_say_the_same_and_resolved_when_all_was_well_for_long_enough() {
        let mut route = RouteAlerts::default();
        assert_eq!(route.bad(Kind::Lost, ONCE), [Trigger(Kind::Lost)]);
        assert_eq!(route.bad(Kind::Lost, ONCE), []);
        assert_eq!(route.bad(Kind::Late, ONCE), [Trigger(Kind::Late)]);
        assert_eq!((route.well(ONCE), route.well(ONCE)), (vec![], vec![]));
        assert_eq!(route.bad(Kind::Late, ONCE), [], "the count of those that are well begins anew");
        assert_eq!((route.well(ONCE), route.well(ONCE)), (vec![], vec![]));
        assert_eq!(route.well(ONCE), [Resolve(Kind::Lost), Resolve(Kind::Late)]);
        assert_eq!(route.well(ONCE), []);
        assert_eq!(route.bad(Kind::Lost, ONCE), [Trigger(Kind::Lost)], "and the next one is an alert again");
    }

    #[test]
    fn probes_in_a_row_are_counted_whatever_is_wrong_with_them() {
        let rule = Rule { after: 3, well_for: 1 };
        let mut route = RouteAlerts::default();
        assert_eq!((route.bad(Kind::Late, rule), route.bad(Kind::Lost, rule)), (vec![], vec![]));
        assert_eq!(route.well(rule), []);
        assert_eq!((route.bad(Kind::Late, rule), route.bad(Kind::Lost, rule)), (vec![], vec![]));
        assert_eq!(route.bad(Kind::SendFailed, rule), [Trigger(Kind::SendFailed)]);
        assert_eq!(route.well(rule), [Resolve(Kind::SendFailed)]);
    }

    #[test]
    fn the_alert_of_lost_mail_ends_when_all_of_it_was_found() {
        let mut route = RouteAlerts::default();
        route.bad(Kind::Lost, ONCE);
        route.bad(Kind::Lost, ONCE);
        route.bad(Kind::Late, ONCE);
        assert_eq!(route.found(), []);
        assert_eq!(route.found(), [Resolve(Kind::Lost)]);
        assert_eq!(route.found(), [], "one from before may come later yet");
        assert_eq!(route.open(), [Kind::Late]);
    }

    #[test]
    fn what_is_kept_comes_back_as_it_was() {
        let mut route = RouteAlerts::default();
        route.bad(Kind::Lost, ONCE);
        let kept = serde_json::to_string(&route).unwrap();
        let mut again: RouteAlerts = serde_json::from_str(&kept).unwrap();
        assert_eq!(again, route);
        assert_eq!(again.resolve_all(), [Resolve(Kind::Lost)]);
    }

    /// Whatever comes, an alert is raised only while it is not open and resolved only while it is.
    #[test]
    fn triggers_and_resolves_of_a_kind_take_turns() {
        use rand::{RngExt as _, SeedableRng as _};
        for seed in 0..500 {
            let mut random = rand_pcg::Pcg64::seed_from_u64(seed);
            let rule = Rule { after: random.random_range(1..4), well_for: random.random_range(1..4) };
            let (mut route, mut open) = (RouteAlerts::default(), Vec::new());
            for _ in 0..200 {
                let actions = match random.random_range(0..5) {
                    0 | 1 => route.well(rule),
                    2 => route.found(),
                    3 => route.bad(Kind::Lost, rule),
                    _ => route.bad(Kind::ALL[random.random_range(0..3)], rule),
                };
                for action in actions {
                    match action {
                        Trigger(kind) => assert!(!open.contains(&kind), "seed {seed}: {kind:?} twice"),
                        Resolve(kind) => assert!(open.contains(&kind), "seed {seed}: {kind:?} was not open"),
                    }
                    match action {
                        Trigger(kind) => open.push(kind),
                        Resolve(kind) => open.retain(|other| *other != kind),
                    }
                }
            }
            for _ in 0..rule.well_for {
                route.well(rule).iter().for_each(|action| open.retain(|kind| *action != Resolve(*kind)));
            }
            assert_eq!((open, route.open()), (Vec::new(), &[][..]), "seed {seed}");
        }
    }
}
