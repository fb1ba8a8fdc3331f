//! From the outcomes of a route's probes to alerts: one a route and kind, however many probes say the same.
//!
//! `after` probes in a row that are not well raise the alert of the last one's kind; `for` probes in a row that are well
//! resolve all alerts of the route. The alert of lost probes is resolved as well once all that were lost have arrived.
//! A probe may be bad twice, late at first and lost later on; in a row it counts once.
//!
//! That a probe is not well is known long after it was sent. One that was sent before those that have ended an alert says
//! nothing new of the route, and raises none: what it tells of is over.

use std::collections::BTreeSet;

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

    /// By its name in events.
    pub fn parse(name: &str) -> Option<Kind> {
        Kind::ALL.into_iter().find(|kind| kind.name() == name)
    }

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

/// Lost probes of a route whose arrival is waited for. Where more are missing, only probes that are well resolve the
/// alert.
pub const MISSING_MAX: usize = 100;

/// How a route stands. It is kept, so that an alert is resolved whatever restarts lie between.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct RouteAlerts {
    /// The probes in a row that were not well; no more of them than the rule asks for.
    row: BTreeSet<u64>,
    /// Probes in a row that were well.
    well: u32,
    /// The place of the first of them that was sent, in the order in which all are.
    well_from: u64,
    /// The same of those that ended the last alert.
    cured_from: u64,
    /// Probes that were lost, since the last time that all was well, and have not arrived.
    lost: BTreeSet<u64>,
    /// Whether more than [`MISSING_MAX`] were.
    lost_more: bool,
    /// Alerts that were raised and not resolved, in that order.
    open: Vec<Kind>,
    /// Those of them of which nobody was told: their event was refused or dropped, or there was nobody.
    untold: Vec<Kind>,
    /// Alerts that are over of whose end nobody was told, because that event was refused or dropped.
    unended: Vec<Kind>,
}

impl RouteAlerts {
    /// The alerts that are open.
    pub fn open(&self) -> &[Kind] {
        &self.open
    }

    /// A probe was well; `order` is its place in the order in which all are sent.
    pub fn well(&mut self, order: u64, rule: Rule) -> Vec<Action> {
        self.row.clear();
        self.well_from = if self.well == 0 { order } else { self.well_from.min(order) };
        self.well = self.well.saturating_add(1);
        if self.well < rule.well_for {
            return Vec::new();
        }
        self.lost.clear();
        self.lost_more = false;
        if !self.open.is_empty() {
            self.cured_from = self.cured_from.max(self.well_from);
        }
        self.resolve_all()
    }

    /// A probe was not; `order` is its place in the order in which all are sent. Of an alert that is open nothing is told
    /// again, unless nobody was told of it.
    pub fn bad(&mut self, probe: u64, order: u64, kind: Kind, rule: Rule) -> Vec<Action> {
        if order < self.cured_from {
            return Vec::new();
        }
        self.well = 0;
        if self.row.len() < rule.after as usize {
            self.row.insert(probe);
        }
        if kind == Kind::Lost {
            let has_room = self.lost.len() < MISSING_MAX;
            self.lost_more |= !has_room;
            if has_room {
                self.lost.insert(probe);
            }
        }
        let is_open = self.open.contains(&kind);
        if self.row.len() < rule.after as usize || (is_open && !self.untold.contains(&kind)) {
            return Vec::new();
        }
        if !is_open {
            self.open.push(kind);
        }
        self.unended.retain(|other| *other != kind);
        self.untold.retain(|other| *other != kind);
        vec![Action::Trigger(kind)]
    }

    /// A probe that had been lost has arrived. That it was late is no news by itself: if the route is slow, those behind
    /// it will be late too. One that raised no alert, because it was lost before a restart or before all was well, ends
    /// none.
    pub fn found(&mut self, probe: u64) -> Vec<Action> {
        if !self.lost.remove(&probe) || !self.lost.is_empty() || self.lost_more {
            return Vec::new();
        }
        self.untold.retain(|kind| *kind != Kind::Lost);
        match self.open.iter().position(|kind| *kind == Kind::Lost) {
            Some(at) => vec![Action::Resolve(self.open.remove(at))],
            None => Vec::new(),
        }
    }

    /// The event that told of an alert has reached nobody and never will: the next probe that is not well tells of it
    /// again.
    pub fn told_nobody(&mut self, kind: Kind) {
        if self.open.contains(&kind) && !self.untold.contains(&kind) {
            self.untold.push(kind);
        }
    }

    /// The event that told of an alert's end has reached nobody and never will: the next probe that is well tells of it
    /// again.
    pub fn end_told_nobody(&mut self, kind: Kind) {
        if !self.open.contains(&kind) && !self.unended.contains(&kind) {
            self.unended.push(kind);
        }
    }

    /// Whether nobody was told that an alert is over.
    pub fn is_unended(&self) -> bool {
        !self.unended.is_empty()
    }

    /// Ends whatever is open, as for a route that there no longer is.
    pub fn resolve_all(&mut self) -> Vec<Action> {
        self.untold.clear();
        self.open.drain(..).chain(self.unended.drain(..)).map(Action::Resolve).collect()
    }
}

#[cfg(test)]
mod tests {
    use super::Action::{Resolve, Trigger};
    use super::*;

    const ONCE: Rule = Rule { after: 1, well_for: 3 };
    /// Before all others, so that none of them is old news.
    const FIRST: u64 = 0;

    /// A route and the number of its next probe.
    #[derive(Default)]
    struct Route {
        alerts: RouteAlerts,
        probes: u64,
    }

    impl Route {
        /// Another probe was bad.
        fn bad(&mut self, kind: Kind, rule: Rule) -> Vec<Action> {
            self.probes += 1;
            self.alerts.bad(self.probes, self.probes, kind, rule)
        }

        fn well(&mut self, rule: Rule) -> Vec<Action> {
            self.probes += 1;
            self.alerts.well(self.probes, rule)
        }
    }

    #[test]
    fn one_alert_is_raised_however_many_probes_say_the_same_and_resolved_when_all_was_well_for_long_enough() {
        let mut route = Route::default();
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
        let mut route = Route::default();
        assert_eq!((route.bad(Kind::Late, rule), route.bad(Kind::Lost, rule)), (vec![], vec![]));
        assert_eq!(route.well(rule), []);
        assert_eq!((route.bad(Kind::Late, rule), route.bad(Kind::Lost, rule)), (vec![], vec![]));
        assert_eq!(route.bad(Kind::SendFailed, rule), [Trigger(Kind::SendFailed)]);
        assert_eq!(route.well(rule), [Resolve(Kind::SendFailed)]);
    }

    #[test]
    fn the_alert_of_lost_mail_ends_when_all_of_it_was_found() {
        let mut route = RouteAlerts::default();
        route.bad(1, 1, Kind::Lost, ONCE);
        route.bad(2, 2, Kind::Lost, ONCE);
        route.bad(3, 3, Kind::Late, ONCE);
        assert_eq!(route.found(1), []);
        assert_eq!(route.found(2), [Resolve(Kind::Lost)]);
        assert_eq!(route.found(2), [], "one from before may come later yet");
        assert_eq!(route.open(), [Kind::Late]);
    }

    /// Its loss was no reason to call anybody, so its arrival is none to say that all is well.
    #[test]
    fn a_probe_that_raised_no_alert_ends_none_when_it_is_found() {
        let mut route = RouteAlerts::default();
        route.bad(1, 1, Kind::Lost, ONCE);
        assert_eq!(route.found(9), [], "it was lost while nobody was there");
        assert_eq!(route.open(), [Kind::Lost]);
        (0..3).for_each(|_| drop(route.well(FIRST, ONCE)));
        route.bad(2, 2, Kind::Lost, ONCE);
        assert_eq!(route.found(1), [], "it was lost before all was well");
        assert_eq!(route.found(2), [Resolve(Kind::Lost)]);
    }

    #[test]
    fn of_too_many_lost_probes_the_last_one_that_is_found_ends_nothing() {
        let mut route = RouteAlerts::default();
        let lost = 0..MISSING_MAX as u64 + 1;
        lost.clone().for_each(|probe| drop(route.bad(probe, probe, Kind::Lost, ONCE)));
        assert!(lost.map(|probe| route.found(probe)).all(|actions| actions.is_empty()));
        let actions: Vec<Action> = (0..3).flat_map(|_| route.well(FIRST, ONCE)).collect();
        assert_eq!(actions, [Resolve(Kind::Lost)]);
        route.bad(1_000, 1_000, Kind::Lost, ONCE);
        assert_eq!(route.found(1_000), [Resolve(Kind::Lost)], "all was well in between");
    }

    #[test]
    fn a_probe_that_is_late_and_then_lost_counts_once_in_a_row() {
        let rule = Rule { after: 2, well_for: 1 };
        let mut route = RouteAlerts::default();
        assert_eq!((route.bad(1, 1, Kind::Late, rule), route.bad(1, 1, Kind::Lost, rule)), (vec![], vec![]));
        assert_eq!(route.bad(2, 2, Kind::Late, rule), [Trigger(Kind::Late)]);
        assert_eq!(route.bad(2, 2, Kind::Lost, rule), [Trigger(Kind::Lost)]);
        route.well(FIRST, rule);
        assert_eq!(route.bad(2, 2, Kind::Lost, rule), [], "a row that was broken begins anew");
        assert_eq!(route.bad(3, 3, Kind::Lost, rule), [Trigger(Kind::Lost)]);
    }

    #[test]
    fn an_alert_of_which_nobody_was_told_is_told_again_by_the_next_probe_that_is_bad() {
        let mut route = RouteAlerts::default();
        route.bad(1, 1, Kind::Lost, ONCE);
        route.told_nobody(Kind::Late);
        assert_eq!(route.bad(2, 2, Kind::Lost, ONCE), []);
        route.told_nobody(Kind::Lost);
        assert_eq!(route.open(), [Kind::Lost], "it is so, whoever knows");
        assert_eq!(route.bad(3, 3, Kind::Lost, ONCE), [Trigger(Kind::Lost)]);
        assert_eq!(route.bad(4, 4, Kind::Lost, ONCE), []);
        route.told_nobody(Kind::Lost);
        let actions: Vec<Action> = (0..3).flat_map(|_| route.well(FIRST, ONCE)).collect();
        assert_eq!(actions, [Resolve(Kind::Lost)]);
        assert_eq!(route, RouteAlerts { well: 3, ..RouteAlerts::default() });
    }

    #[test]
    fn an_end_of_which_nobody_was_told_is_told_again_by_the_next_probe_that_is_well() {
        let rule = Rule { after: 1, well_for: 1 };
        let mut route = RouteAlerts::default();
        route.bad(1, 1, Kind::Lost, rule);
        assert_eq!(route.well(FIRST, rule), [Resolve(Kind::Lost)]);
        route.end_told_nobody(Kind::Lost);
        assert!(route.open().is_empty());
        assert_eq!((route.well(FIRST, rule), route.well(FIRST, rule)), (vec![Resolve(Kind::Lost)], vec![]));
        route.end_told_nobody(Kind::Lost);
        assert_eq!(route.bad(2, 2, Kind::Lost, rule), [Trigger(Kind::Lost)]);
        route.end_told_nobody(Kind::Lost);
        assert_eq!(route.well(FIRST, rule), [Resolve(Kind::Lost)], "once, that of the alert that has begun since");
    }

    /// Three were lost; the last of them is known to be when all is well again already.
    #[test]
    fn a_probe_that_was_sent_before_the_cure_raises_no_alert_after_it() {
        let mut route = RouteAlerts::default();
        assert_eq!(route.bad(1, 10, Kind::Late, ONCE), [Trigger(Kind::Late)]);
        // In whatever order they arrive.
        let actions = [40, 30, 50].map(|order| route.well(order, ONCE));
        assert_eq!(actions, [vec![], vec![], vec![Resolve(Kind::Late)]]);
        assert_eq!(route.bad(1, 10, Kind::Lost, ONCE), []);
        assert_eq!(route.bad(2, 20, Kind::Late, ONCE), []);
        assert_eq!(route.bad(2, 20, Kind::Lost, ONCE), []);
        assert!(route.open().is_empty() && route.found(1).is_empty());
        assert_eq!(
            route.bad(3, 35, Kind::Late, ONCE),
            [Trigger(Kind::Late)],
            "this one was among those that were well"
        );
        assert_eq!(route.bad(2, 20, Kind::SendFailed, ONCE), [], "nor while there is another");
        let actions: Vec<Action> = [60, 70, 80].into_iter().flat_map(|order| route.well(order, ONCE)).collect();
        assert_eq!(actions, [Resolve(Kind::Late)]);
        let kept = serde_json::to_string(&route).unwrap();
        let mut again: RouteAlerts = serde_json::from_str(&kept).unwrap();
        assert_eq!(again.bad(4, 59, Kind::Lost, ONCE), [], "after a restart");
        assert_eq!(again.bad(5, 60, Kind::Lost, ONCE), [Trigger(Kind::Lost)]);
    }

    /// Without an alert there is no cure: the many that are well between those that are not hide none.
    #[test]
    fn what_is_known_late_raises_an_alert_where_none_had_ended_since() {
        let mut route = RouteAlerts::default();
        (1..100).for_each(|order| drop(route.well(order, ONCE)));
        assert_eq!(route.bad(1, 50, Kind::Lost, ONCE), [Trigger(Kind::Lost)]);
    }

    /// One that is known late is in no row with those that come after the cure.
    #[test]
    fn a_probe_that_was_sent_before_the_cure_is_in_no_row_after_it() {
        let rule = Rule { after: 2, well_for: 1 };
        let mut route = RouteAlerts::default();
        route.bad(1, 10, Kind::Lost, rule);
        assert_eq!(route.bad(2, 20, Kind::Lost, rule), [Trigger(Kind::Lost)]);
        assert_eq!(route.well(40, rule), [Resolve(Kind::Lost)]);
        assert_eq!((route.bad(3, 30, Kind::Lost, rule), route.bad(4, 50, Kind::Lost, rule)), (vec![], vec![]));
        assert_eq!(route.bad(5, 60, Kind::Lost, rule), [Trigger(Kind::Lost)]);
    }

    #[test]
    fn what_is_kept_comes_back_as_it_was() {
        let mut route = RouteAlerts::default();
        route.bad(1, 1, Kind::Lost, ONCE);
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
            for probe in 0..200 {
                let order = random.random_range(0..=probe);
                let actions = match random.random_range(0..5) {
                    0 | 1 => route.well(order, rule),
                    2 => route.found(random.random_range(0..=probe)),
                    3 => route.bad(probe, order, Kind::Lost, rule),
                    _ => route.bad(probe, order, Kind::ALL[random.random_range(0..3)], rule),
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
                route.well(FIRST, rule).iter().for_each(|action| open.retain(|kind| *action != Resolve(*kind)));
            }
            assert_eq!((open, route.open()), (Vec::new(), &[][..]), "seed {seed}");
        }
    }
}
