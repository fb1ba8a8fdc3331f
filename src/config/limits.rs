//! What one job of the service may ask for at most.

use std::time::Duration;

use super::section::Section;
use crate::job::search::{self, CONFIRM, RawSearch, TRIAL};
use crate::job::spec::{CONNECTIONS_MAX, DURATION_MAX, JobSpec, Limit, LoadModel, MESSAGES_MAX, SpecError};
use crate::load::RATE_PER_S_MAX;
use crate::message::{MESSAGE_BYTES_MAX, RECIPIENTS_MAX};

/// Most jobs at once that may be configured: they share the machine.
pub const JOBS_MAX: u32 = 16;

/// The caps of `[hammer]`.
#[derive(Clone, Debug, PartialEq)]
pub struct Limits {
    /// Jobs at once, 1 to [`JOBS_MAX`].
    pub jobs_max: u32,
    /// Connections of one job.
    pub connections_max: u32,
    /// Messages of one job that is limited by their number.
    pub messages_max: u64,
    /// Size of one message in octets, generated or given.
    pub msg_size_max: u64,
    /// Addresses in one job's list of recipients.
    pub recipients_max: usize,
    /// Length of one job that is limited by time.
    pub duration_max: Duration,
    /// Messages a second of one open loop.
    pub rate_max: f64,
}

impl Default for Limits {
    fn default() -> Limits {
        Limits {
            jobs_max: JOBS_MAX,
            connections_max: 10_000,
            messages_max: 100_000_000,
            msg_size_max: 50 << 20,
            recipients_max: 1_000,
            duration_max: Duration::from_secs(24 * 3_600),
            rate_max: 1_000_000.0,
        }
    }
}

impl Limits {
    pub(super) fn read(section: &mut Section<'_, '_>) -> Limits {
        let usual = Limits::default();
        let or = |read: Option<u64>, usual: u64| read.unwrap_or(usual);
        Limits {
            jobs_max: or(section.whole("jobs_max", 1..=JOBS_MAX.into()), usual.jobs_max.into()) as u32,
            connections_max: or(
                section.whole("connections_max", 1..=CONNECTIONS_MAX.into()),
                usual.connections_max.into(),
            ) as u32,
            messages_max: or(section.whole("messages_max", 1..=MESSAGES_MAX), usual.messages_max),
            msg_size_max: or(section.whole("msg_size_max", 1..=MESSAGE_BYTES_MAX), usual.msg_size_max),
            recipients_max: or(section.whole("recipients_max", 1..=RECIPIENTS_MAX as u64), usual.recipients_max as u64)
                as usize,
            duration_max: section.duration("duration_max", DURATION_MAX).unwrap_or(usual.duration_max),
            rate_max: section.number("rate_max", RATE_PER_S_MAX).unwrap_or(usual.rate_max),
        }
    }

    /// A search that stays within the caps of one job, with its highest rate as the most that it may offer; trials are
    /// looked at one by one.
    ///
    /// # Errors
    ///
    /// Names the value of `search` and the key of the cap.
    pub fn search(&self, search: RawSearch) -> Result<RawSearch, SpecError> {
        let of = "in [hammer] of the configuration";
        for (name, rate) in [("start_rate", search.start_rate), ("max_rate", search.max_rate)] {
            if let Some(rate) = rate.filter(|&rate| rate > self.rate_max) {
                return Err(search::wrong(name, format!("at most {} (rate_max {of})", self.rate_max), rate));
            }
        }
        for (name, time) in [("trial", search.trial), ("confirm", search.confirm)] {
            if let Some(time) = time.filter(|&time| time > self.duration_max) {
                let [most, got] = [self.duration_max, time].map(humantime::format_duration);
                return Err(search::wrong(name, format!("at most {most} (duration_max {of})"), got));
            }
        }
        // Nobody asked for the usual values, so that they are no reason to refuse a search.
        Ok(RawSearch {
            max_rate: Some(search.max_rate.unwrap_or(self.rate_max)),
            trial: Some(search.trial.unwrap_or(TRIAL.min(self.duration_max))),
            confirm: Some(search.confirm.unwrap_or(CONFIRM.min(self.duration_max))),
            ..search
        })
    }

    /// Whether a job stays within the caps of one job.
    ///
    /// # Errors
    ///
    /// Names the job's field and the key of the cap.
    pub fn check(&self, spec: &JobSpec) -> Result<(), SpecError> {
        let most = |field: &'static str, key: &str, most: String, got: String| {
            Err(SpecError::new(field, format!("at most {most} ({key} in [hammer] of the configuration)"), got))
        };
        if spec.connections > self.connections_max {
            let (cap, got) = (self.connections_max.to_string(), spec.connections.to_string());
            let field = if matches!(spec.load, LoadModel::Ramped(_)) { "stages" } else { "connections" };
            return most(field, "connections_max", cap, got);
        }
        let (field, bytes) = spec.content.largest();
        if bytes > self.msg_size_max {
            return most(field, "msg_size_max", format!("{} octets", self.msg_size_max), bytes.to_string());
        }
        let recipients = spec.recipients.entries().len();
        if recipients > self.recipients_max {
            return most("recipients", "recipients_max", self.recipients_max.to_string(), recipients.to_string());
        }
        match spec.limit {
            Limit::Messages(messages) if messages > self.messages_max => {
                return most("messages", "messages_max", self.messages_max.to_string(), messages.to_string());
            }
            Limit::Duration(time) if time > self.duration_max => {
                let [cap, got] = [self.duration_max, time].map(|time| humantime::format_duration(time).to_string());
                let is_staged = matches!(spec.load, LoadModel::Staged { .. } | LoadModel::Ramped(_));
                let field = if is_staged { "stages" } else { "duration" };
                return most(field, "duration_max", cap, got);
            }
            _ => {}
        }
        if let (Limit::Messages(messages), LoadModel::Open { rate, .. }) = (spec.limit, &spec.load) {
            let within = self.duration_max.as_secs_f64() * rate.as_per_second();
            if messages as f64 > within {
                let cap = format!("{} at {} a second", within.floor(), rate.as_per_second());
                return most("messages", "duration_max", cap, messages.to_string());
            }
        }
        let (field, rate) = match &spec.load {
            LoadModel::Closed | LoadModel::Ramped(_) => return Ok(()),
            LoadModel::Open { rate, .. } => ("rate", rate.as_per_second()),
            LoadModel::Staged { stages, .. } => ("stages", stages.rate_per_s_max()),
        };
        match rate > self.rate_max {
            true => most(field, "rate_max", self.rate_max.to_string(), rate.to_string()),
            false => Ok(()),
        }
    }

    /// Whether a job's messages stay within their cap once variables are replaced in them, up to which size `expanded` says.
    ///
    /// # Errors
    ///
    /// As [`Limits::check`].
    pub fn check_expanded(&self, expanded: Option<u64>) -> Result<(), SpecError> {
        match expanded {
            Some(bytes) if bytes > self.msg_size_max => Err(SpecError::new(
                "recipient_variables",
                format!(
                    "messages of at most {} octets once variables are replaced (msg_size_max in [hammer] of the configuration)",
                    self.msg_size_max
                ),
                format!("up to {bytes}"),
            )),
            _ => Ok(()),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::job::spec::{ConnectionType, RawSpec, Target};
    use crate::load::stages;

    #[test]
    fn a_search_stays_within_the_caps() {
        let limits = Limits { duration_max: Duration::from_secs(10), rate_max: 50.0, ..Limits::default() };
        let usual = limits.search(RawSearch::default()).unwrap();
        assert_eq!((usual.max_rate, usual.trial, usual.confirm), (Some(50.0), Some(TRIAL), Some(limits.duration_max)));
        for (name, key, raw) in [
            ("start_rate", "rate_max", RawSearch { start_rate: Some(51.0), ..RawSearch::default() }),
            ("max_rate", "rate_max", RawSearch { max_rate: Some(51.0), ..RawSearch::default() }),
            ("trial", "duration_max", RawSearch { trial: Some(Duration::from_secs(61)), ..RawSearch::default() }),
            ("confirm", "duration_max", RawSearch { confirm: Some(Duration::from_secs(61)), ..RawSearch::default() }),
        ] {
            let error = limits.search(raw).unwrap_err().to_string();
            assert!(error.starts_with(&format!("search: {name}: expected at most")) && error.contains(key), "{error}");
        }
    }

    #[test]
    fn messages_stay_within_their_cap_once_variables_are_replaced() {
        let limits = Limits { msg_size_max: 1_000, ..Limits::default() };
        assert_eq!(limits.check_expanded(None), Ok(()));
        assert_eq!(limits.check_expanded(Some(1_000)), Ok(()));
        let error = limits.check_expanded(Some(1_001)).unwrap_err().to_string();
        assert!(error.starts_with("recipient_variables: expected messages of at most 1000 octets once"), "{error}");
        assert!(error.contains("msg_size_max") && error.ends_with("got up to 1001"), "{error}");
    }

    #[test]
    fn each_cap_refuses_what_exceeds_it_and_names_its_key() {
        let limits = Limits {
            jobs_max: 1,
            connections_max: 10,
            messages_max: 100,
            msg_size_max: 1_000,
            recipients_max: 2,
            duration_max: Duration::from_secs(60),
            rate_max: 50.0,
        };
        let most = RawSpec {
            messages: Some(100),
            connections: Some(10),
            msg_size: Some(1_000),
            recipients: vec!["a@example.com".to_owned(); 2],
            rate: Some(50.0),
            ..RawSpec::default()
        };
        let check = |raw| {
            let target = Target {
                name: "t".to_owned(),
                host: "t".to_owned(),
                address: "127.0.0.1:25".parse().unwrap(),
                connection: ConnectionType::Plain,
            };
            limits.check(&JobSpec::new(raw, target, 1).unwrap())
        };
        assert_eq!(check(most.clone()), Ok(()));
        let by_time = |time| RawSpec { messages: None, duration: Some(Duration::from_secs(time)), ..most.clone() };
        assert_eq!(check(by_time(60)), Ok(()));
        for (field, raw) in [
            ("connections", RawSpec { connections: Some(11), ..most.clone() }),
            ("messages", RawSpec { messages: Some(101), ..most.clone() }),
            ("msg_size", RawSpec { msg_size: Some(1_001), ..most.clone() }),
            ("body", RawSpec { msg_size: None, body: Some(vec![b'a'; 1_001]), ..most.clone() }),
            ("recipients", RawSpec { recipients: vec!["a@example.com".to_owned(); 3], ..most.clone() }),
            ("rate", RawSpec { rate: Some(51.0), ..most.clone() }),
            ("duration", by_time(61)),
        ] {
            let error = check(raw).unwrap_err();
            assert_eq!(error.field, field, "{error}");
            let key = if field == "body" { "msg_size_max".to_owned() } else { format!("{field}_max") };
            assert!(error.problem.contains(&key) && error.problem.contains("got"), "{error}");
        }
        let slow = check(RawSpec { rate: Some(1.0), ..most.clone() }).unwrap_err();
        assert!(slow.field == "messages" && slow.problem.contains("duration_max"), "{slow}: 100 s of a schedule");
        let staged = |rate, stages: &str| RawSpec {
            messages: None,
            rate: Some(rate),
            stages: Some(stages::parse(stages).unwrap()),
            ..most.clone()
        };
        assert_eq!(check(staged(50.0, "30s@50,30s@0")), Ok(()));
        for (raw, key) in [
            (staged(1.0, "10s@51,10s@1"), "rate_max"),
            (staged(51.0, "10s@1"), "rate_max"),
            (staged(1.0, "30s@1,31s@1"), "duration_max"),
        ] {
            let error = check(raw).unwrap_err();
            assert!(error.field == "stages" && error.problem.contains(key), "{error}");
        }
    }
}
