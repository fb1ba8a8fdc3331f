//! A job as the API shows it and the store keeps it.

use std::sync::Arc;

use jiff::Timestamp;
use serde::{Deserialize, Serialize};
use serde_json::value::RawValue;
use utoipa::ToSchema;

use super::request::JobEcho;
use super::search::SearchReport;
use crate::measure::report::Report;
use crate::time::WallTime;

/// What a time that has not come looks like: Go's zero time.
pub const ZERO_TIME: &str = "Mon, 01 Jan 0001 00:00:00 UTC";

/// How a job stands.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "lowercase")]
pub enum JobState {
    /// It sends, or drains.
    Running,
    /// It came to its end by itself.
    Finished,
    /// Somebody stopped it.
    Stopped,
    /// The service ended while it ran.
    Interrupted,
    /// It was given up; its result says why.
    Failed,
}

impl JobState {
    /// All of them.
    pub const ALL: [JobState; 5] =
        [JobState::Running, JobState::Finished, JobState::Stopped, JobState::Interrupted, JobState::Failed];

    /// Those that do not change any more.
    pub const FINAL: [JobState; 4] = [JobState::Finished, JobState::Stopped, JobState::Interrupted, JobState::Failed];

    /// The name in the API, the store and metrics.
    pub const fn name(self) -> &'static str {
        match self {
            JobState::Running => "running",
            JobState::Finished => "finished",
            JobState::Stopped => "stopped",
            JobState::Interrupted => "interrupted",
            JobState::Failed => "failed",
        }
    }

    /// The state of that name.
    pub fn parse(name: &str) -> Option<JobState> {
        JobState::ALL.into_iter().find(|state| state.name() == name)
    }
}

/// A job. Cloning shares what is long.
#[derive(Clone, Debug)]
pub struct JobRecord {
    /// Its number, which no other job ever has.
    pub id: u64,
    /// What was asked for: [`super::request::JobRequest::echo`].
    pub job: Arc<RawValue>,
    /// How it stands.
    pub state: JobState,
    /// When it began.
    pub start: WallTime,
    /// When it ended, or was told to; `None` while it runs.
    pub stop: Option<WallTime>,
    /// What its result says of itself, when it has ended; see [`JobView::verdict`].
    pub verdict: Option<String>,
}

impl JobRecord {
    /// As the API shows it: with its result, a [`Report`] as JSON, or as lists do without.
    pub fn view<'a>(&'a self, result: Option<&'a RawValue>) -> JobView<'a> {
        JobView {
            id: self.id.to_string(),
            job: &self.job,
            start_time: rfc_1123(self.start),
            stop_time: self.stop.map_or_else(|| ZERO_TIME.to_owned(), rfc_1123),
            state: self.state,
            verdict: self.verdict.as_deref(),
            result,
        }
    }
}

/// A job.
#[derive(Clone, Debug, Serialize, ToSchema)]
#[schema(as = Job)]
pub struct JobView<'a> {
    /// A decimal number that no other job ever has.
    #[schema(pattern = "^(0|[1-9][0-9]{0,19})$", examples("1234"))]
    pub id: String,
    /// The fields that were set.
    #[schema(value_type = JobEcho)]
    pub job: &'a RawValue,
    /// When it began, by RFC 1123 in UTC.
    #[schema(examples("Thu, 29 Apr 2021 01:50:39 UTC"))]
    pub start_time: String,
    /// When it ended, or was told to; the year 1 while it runs.
    #[schema(examples("Mon, 01 Jan 0001 00:00:00 UTC"))]
    pub stop_time: String,
    /// How it stands.
    pub state: JobState,
    /// What its result says of itself: VALID, SUSPECT or INVALID; of a search found, at_least, none or unfinished. Absent as
    /// long as nothing is said.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub verdict: Option<&'a str>,
    /// What came of it so far. Absent in lists, where `result=false` asks for the job without, and as long as nothing is known.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schema(value_type = JobResult)]
    pub result: Option<&'a RawValue>,
}

/// What came of a job: a report, or for a search what came of that.
#[derive(Clone, Debug, Serialize, ToSchema)]
#[serde(untagged)]
pub enum JobResult {
    /// Of a job.
    Job(Box<Report>),
    /// Of a search.
    Search(Box<SearchReport>),
}

/// All jobs that are kept, the newest first, without their results.
#[derive(Clone, Debug, Serialize, ToSchema)]
pub struct JobList<'a> {
    /// The jobs.
    #[serde(rename = "Items")]
    pub items: Vec<JobView<'a>>,
}

/// The number behind an id: decimal, without sign, spaces or leading zeros. Anything else is nobody's id.
pub fn parse_id(text: &str) -> Option<u64> {
    let id: u64 = text.parse().ok()?;
    (id.to_string() == text).then_some(id)
}

/// `Thu, 29 Apr 2021 01:50:39 UTC`: RFC 1123 as Go writes it, in UTC.
pub fn rfc_1123(wall: WallTime) -> String {
    let timestamp = i64::try_from(wall.unix_seconds()).ok().and_then(|second| Timestamp::from_second(second).ok());
    // A wall time ends in the year 2554, a timestamp in 9999.
    timestamp.unwrap_or(Timestamp::MAX).strftime("%a, %d %b %Y %H:%M:%S UTC").to_string()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn raw(json: &str) -> Arc<RawValue> {
        RawValue::from_string(json.to_owned()).unwrap().into()
    }

    fn at(second: u64) -> WallTime {
        WallTime::from_unix_ns(second * 1_000_000_000 + 999_999_999)
    }

    #[test]
    fn a_job_is_shown_as_the_contract_shows_it() {
        let mut record = JobRecord {
            id: 1234,
            job: raw(r#"{"Type":"smtp","messages":1000}"#),
            state: JobState::Running,
            start: at(1_619_661_039),
            stop: None,
            verdict: None,
        };
        let shown = |view| serde_json::to_string(&view).unwrap();
        assert_eq!(
            shown(record.view(Some(&raw(r#"{"version":1}"#)))),
            r#"{"id":"1234","job":{"Type":"smtp","messages":1000},"start_time":"Thu, 29 Apr 2021 01:50:39 UTC","stop_time":"Mon, 01 Jan 0001 00:00:00 UTC","state":"running","result":{"version":1}}"#
        );
        (record.state, record.stop) = (JobState::Stopped, Some(at(1_619_661_041)));
        record.verdict = Some("SUSPECT".to_owned());
        let listed = JobList { items: vec![record.view(None)] };
        assert_eq!(
            serde_json::to_string(&listed).unwrap(),
            r#"{"Items":[{"id":"1234","job":{"Type":"smtp","messages":1000},"start_time":"Thu, 29 Apr 2021 01:50:39 UTC","stop_time":"Thu, 29 Apr 2021 01:50:41 UTC","state":"stopped","verdict":"SUSPECT"}]}"#
        );
        assert_eq!(serde_json::to_string(&JobList { items: Vec::new() }).unwrap(), r#"{"Items":[]}"#);
    }

    #[test]
    fn states_have_the_same_name_everywhere() {
        for state in JobState::ALL {
            assert_eq!(serde_json::to_value(state).unwrap(), state.name());
            assert_eq!(JobState::parse(state.name()), Some(state));
        }
        assert_eq!(JobState::parse("Running"), None);
    }

    #[test]
    fn an_id_has_one_spelling() {
        assert_eq!(parse_id("0"), Some(0));
        assert_eq!(parse_id("18446744073709551615"), Some(u64::MAX));
        for odd in ["", "+1", "-1", " 1", "1 ", "01", "00", "1.0", "0x1", "١", "18446744073709551616", "1\0"] {
            assert_eq!(parse_id(odd), None, "{odd:?}");
        }
    }

    #[test]
    fn times_are_those_of_the_calendar() {
        assert_eq!(rfc_1123(at(0)), "Thu, 01 Jan 1970 00:00:00 UTC");
        assert_eq!(rfc_1123(at(951_782_400)), "Tue, 29 Feb 2000 00:00:00 UTC");
        assert!(rfc_1123(WallTime::from_unix_ns(u64::MAX)).starts_with("Sun, 21 Jul 2554"));
    }
}
