//! `[hammer.defaults]`: what a job of the service is like where its request says nothing.

use std::time::Duration;

use super::section::Section;
use crate::job::request::load_control::List;
use crate::job::request::{JobRequest, MESSAGES};
use crate::job::search::{CONFIRM, RawSearch, SearchSpec, TRIAL};
use crate::job::spec::DURATION_MAX;
use crate::job::time_limits::TimeLimits;
use crate::load::RATE_PER_S_MAX;
use crate::load::connections::ConnectionStages;
use crate::load::stages::{self, Stage, Stages};
use crate::load::warmup::Warmup;
use crate::measure::abort::{ABORT_RULES_MAX, AbortRule};
use crate::measure::threshold::{THRESHOLDS_MAX, Threshold};

/// The values of `[hammer.defaults]`. What a request says of the same field counts alone.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Defaults {
    /// The first part of the run, which is shown apart; of runs that are longer.
    pub warmup: Option<Warmup>,
    /// Ramps of jobs that say nothing of how much is sent, or for how long.
    pub stages: Option<Vec<Stage>>,
    /// Conditions under which the run is given up.
    pub abort_on: Vec<AbortRule>,
    /// Time limits of the connect and of each reply.
    pub timeout: Option<TimeLimits>,
    /// Conditions under which the result is a failure; not of searches, which have their own.
    pub fail_if: Vec<Threshold>,
    /// What a search is like where its request leaves something out.
    pub search: RawSearch,
}

impl Defaults {
    /// Values are texts as on the command line.
    pub(super) fn read(mut section: Section<'_, '_>) -> Defaults {
        let warmup = section.text("warmup", "a time, or a number of messages", warmup);
        let stages = section.text("stages", "stages such as 1m@1000,5m@5000", |text| {
            let list = stages::parse(text).map_err(|error| error.to_string())?;
            let duration = match list.iter().any(Stage::is_of_connections) {
                true => ConnectionStages::new(list.clone()).map(|stages| stages.duration()),
                false => Stages::new(0.0, list.clone()).map(|stages| stages.duration()),
            };
            match duration.map_err(|error| error.to_string())? <= DURATION_MAX {
                true => Ok(list),
                false => Err(format!("expected at most 30 days in all, got {text:?}")),
            }
        });
        let timeout = section.text("timeout", "a time such as 10s, or 10s,connect=5s", |text| {
            let limits = TimeLimits::parse(text)?;
            limits.checked().map_err(|error| error.problem)
        });
        let rule = |text: &str| AbortRule::parse(text).map_err(|error| error.to_string());
        let abort_on = section.texts("abort_on", "conditions", rule).unwrap_or_default();
        let threshold = |text: &str| Threshold::parse(text).map_err(|error| error.to_string());
        let fail_if = section.texts("fail_if", "conditions", threshold).unwrap_or_default();
        for (key, most, got) in
            [("abort_on", ABORT_RULES_MAX, abort_on.len()), ("fail_if", THRESHOLDS_MAX, fail_if.len())]
        {
            if got > most {
                section.fault(key, super::expected(format!("at most {most} conditions"), got));
            }
        }
        let search = search(section.section("search"));
        section.finish();
        Defaults { warmup, stages, abort_on, timeout, fail_if, search }
    }

    /// Fills in what a request does not say. What nobody asked for is no reason to refuse a job: a warm-up that is not
    /// shorter than the run is left out, of which the result is to say this.
    pub fn complete(&self, request: &mut JobRequest) -> Option<String> {
        let says_how_much = request.messages.is_some() || request.duration.is_some() || request.stages.is_some();
        let says_how_fast = request.rate.is_some() || request.connections.is_some() || request.arrival.is_some();
        if !says_how_much && !says_how_fast && request.search.is_none() {
            request.stages = self.stages.clone().map(List);
        }
        let list = |rules: &Vec<AbortRule>| (!rules.is_empty()).then(|| List(rules.clone()));
        request.abort_on = request.abort_on.take().or_else(|| list(&self.abort_on));
        request.timeout = request.timeout.take().or_else(|| self.timeout.clone());
        if request.fail_if.is_none() && request.search.is_none() && !self.fail_if.is_empty() {
            request.fail_if = Some(List(self.fail_if.clone()));
        }
        if let Some(search) = &mut request.search {
            let usual = self.search.clone();
            if search.slo.is_empty() {
                search.slo = usual.slo;
            }
            search.start_rate = search.start_rate.or(usual.start_rate);
            search.max_rate = search.max_rate.or(usual.max_rate);
            search.trial = search.trial.or(usual.trial);
            search.confirm = search.confirm.or(usual.confirm);
            search.cool_down = search.cool_down.or(usual.cool_down);
            search.precision = search.precision.or(usual.precision);
        }
        let warmup = self.warmup.filter(|_| request.warmup.is_none())?;
        if is_shorter(warmup, request) {
            request.warmup = Some(warmup);
            return None;
        }
        Some("the service's default warm-up was left out, for the run is not longer".to_owned())
    }
}

/// `[hammer.defaults.search]`, with the keys of a request's `search`.
fn search(mut section: Section<'_, '_>) -> RawSearch {
    let threshold = |text: &str| Threshold::parse(text).map_err(|error| error.to_string());
    let usual = RawSearch {
        slo: section.texts("slo", "conditions", threshold).unwrap_or_default(),
        start_rate: section.number("start_rate", RATE_PER_S_MAX),
        max_rate: section.number("max_rate", RATE_PER_S_MAX),
        trial: section.duration("trial", DURATION_MAX),
        confirm: section.duration("confirm", DURATION_MAX),
        // A target need not rest.
        cool_down: section.text("cool_down", "a time such as 1s", |text| {
            let time = humantime::parse_duration(text).ok().filter(|time| *time <= DURATION_MAX);
            time.ok_or_else(|| super::expected("a time such as 1s, at most 30 days", super::shown(text)))
        }),
        precision: section.number("precision", 1.0),
    };
    // What a request may not say is no default either; of conditions there may be none.
    let mut whole = usual.clone();
    if whole.slo.is_empty() {
        whole.slo.extend(Threshold::parse("p99<1s"));
    }
    if let Err(error) = SearchSpec::new(whole) {
        section.fault_of_all(error.problem);
    }
    section.finish();
    usual
}

fn warmup(text: &str) -> Result<Warmup, String> {
    let warmup: Warmup = text.parse().map_err(|error: crate::load::warmup::WarmupError| error.to_string())?;
    match warmup {
        Warmup::Duration(time) if time.is_zero() || time > DURATION_MAX => {
            Err(super::expected("more than 0 and at most 30 days", super::shown(text)))
        }
        Warmup::Messages(0) => Err(super::expected("at least 1 message", 0)),
        warmup => Ok(warmup),
    }
}

/// Whether a warm-up leaves something of the run.
fn is_shorter(warmup: Warmup, request: &JobRequest) -> bool {
    let run: Option<Duration> = match (&request.search, &request.stages, request.duration) {
        (Some(search), ..) => Some(search.trial.unwrap_or(TRIAL).min(search.confirm.unwrap_or(CONFIRM))),
        (_, Some(List(stages)), _) => {
            Some(stages.iter().fold(Duration::ZERO, |sum, stage| sum.saturating_add(stage.duration)))
        }
        (.., duration) => duration,
    };
    match (warmup, run) {
        (Warmup::Duration(warmup), Some(run)) => warmup < run,
        (Warmup::Messages(warmup), None) => warmup < request.messages.unwrap_or(MESSAGES),
        _ => true,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn request(rest: &str) -> JobRequest {
        let json = format!(r#"{{"smtp_connection_type":"plain","msg_size":1000{rest}}}"#);
        JobRequest::parse(json.as_bytes()).unwrap()
    }

    fn defaults() -> Defaults {
        Defaults {
            warmup: Some(Warmup::Duration(Duration::from_secs(10))),
            stages: Some(stages::parse("1m@100").unwrap()),
            abort_on: vec![AbortRule::parse("failures>5%").unwrap()],
            timeout: Some(TimeLimits::parse("10s,connect=5s").unwrap()),
            fail_if: vec![Threshold::parse("p99>1s").unwrap()],
            search: RawSearch {
                slo: vec![Threshold::parse("p99<250ms").unwrap()],
                trial: Some(Duration::from_secs(2)),
                max_rate: Some(5_000.0),
                ..RawSearch::default()
            },
        }
    }

    #[test]
    fn a_request_that_says_nothing_is_completed() {
        let mut silent = request("");
        assert_eq!(defaults().complete(&mut silent), None);
        let shown = silent.echo();
        for said in [
            r#""stages":[{"duration":"1m0s","rate":100}]"#,
            r#""warmup":"10s""#,
            r#""abort_on":["failures>5%,window=10s,grace=5s"]"#,
            r#""timeout":{"connect":"5s","default":"10s"}"#,
            r#""fail_if":["p99>1s"]"#,
        ] {
            assert!(shown.get().contains(said), "{said}: {shown}");
        }
        let mut untouched = request("");
        assert_eq!(Defaults::default().complete(&mut untouched), None);
        assert_eq!(untouched, request(""));
    }

    #[test]
    fn what_a_request_says_counts_alone() {
        let said = r#","rate":5,"duration":"1m","warmup":"1s","abort_on":"p99>2s","timeout":"3s","fail_if":["max>9s"]"#;
        let mut request = request(said);
        let before = request.clone();
        assert_eq!(defaults().complete(&mut request), None);
        assert_eq!(request, before);
    }

    #[test]
    fn a_warm_up_that_leaves_nothing_is_left_out_and_told_of() {
        for (rest, fits) in [
            (r#","duration":"10s""#, false),
            (r#","duration":"11s""#, true),
            (r#","messages":5"#, true),
            (r#","stages":[{"duration":"9s","rate":1}]"#, false),
            (r#","search":{"slo":"p99<1s"}"#, false),
            (r#","search":{"slo":"p99<1s","trial":"20s"}"#, true),
        ] {
            let mut request = request(rest);
            assert_eq!(defaults().complete(&mut request).is_none(), fits, "{rest}");
            assert_eq!(request.warmup.is_some(), fits, "{rest}");
        }
        let by_number = Defaults { warmup: Some(Warmup::Messages(MESSAGES)), ..Defaults::default() };
        assert!(by_number.complete(&mut request("")).is_some());
        assert!(by_number.complete(&mut request(r#","messages":1001"#)).is_none());
    }

    #[test]
    fn a_search_takes_what_it_does_not_say() {
        let mut silent = request(r#","search":{}"#);
        defaults().complete(&mut silent);
        assert_eq!(silent.search, Some(defaults().search));
        let mut other = request(r#","search":{"slo":"p50<1s","trial":"30s","start_rate":7}"#);
        defaults().complete(&mut other);
        let search = other.search.unwrap();
        assert_eq!(search.slo, [Threshold::parse("p50<1s").unwrap()]);
        assert_eq!((search.trial, search.start_rate), (Some(Duration::from_secs(30)), Some(7.0)));
        assert_eq!((search.max_rate, search.precision), (Some(5_000.0), None));
        let mut no_search = request("");
        defaults().complete(&mut no_search);
        assert_eq!(no_search.search, None);
    }

    #[test]
    fn a_search_has_conditions_of_its_own() {
        let mut request = request(r#","search":{"slo":"p99<1s"}"#);
        defaults().complete(&mut request);
        assert!(request.fail_if.is_none() && request.stages.is_none() && request.abort_on.is_some());
    }
}
