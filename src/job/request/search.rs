//! `search`: the kind of value that makes a job a search for the highest rate.

use std::time::Duration;

use serde::ser::Serialize;
use serde_json::value::RawValue;
use serde_json::{Map, Value};
use utoipa::openapi::RefOr;
use utoipa::openapi::schema::{AnyOfBuilder, ObjectBuilder, Schema, Type};

use super::field::{Field, types};
use super::load_control::{List, closed, condition, needed, object, value};
use crate::job::search::RawSearch;
use crate::load::RATE_PER_S_MAX;
use crate::load::search::PRECISION_MIN;
use crate::measure::threshold::Threshold;

const KEYS: [&str; 7] = ["slo", "start_rate", "max_rate", "trial", "confirm", "cool_down", "precision"];

/// An object. `slo` is a text as on the command line, or a list of conditions; what is left out may be among the service's
/// defaults, and of `slo` there has to be one in the end.
impl Field for RawSearch {
    fn expected() -> String {
        "an object such as {\"slo\": \"p99<250ms,failures<0.1%\"}".to_owned()
    }

    fn read(json: &RawValue) -> Option<RawSearch> {
        Self::take(json).ok()
    }

    fn take(json: &RawValue) -> Result<RawSearch, String> {
        let [slo, start_rate, max_rate, trial, confirm, cool_down, precision] =
            object::<RawSearch, { KEYS.len() }>(json, &KEYS)?;
        Ok(RawSearch {
            slo: match slo {
                None => Vec::new(),
                Some(slo) => conditions(slo).map_err(|problem| format!("slo: {problem}"))?,
            },
            start_rate: given("start_rate", start_rate)?,
            max_rate: given("max_rate", max_rate)?,
            trial: given("trial", trial)?,
            confirm: given("confirm", confirm)?,
            cool_down: given("cool_down", cool_down)?,
            precision: given("precision", precision)?,
        })
    }

    fn echo(&self) -> impl Serialize {
        to_json(self)
    }

    fn schema() -> Schema {
        let number = |most| types([Type::Number]).exclusive_minimum(Some(0)).maximum(Some(most));
        let text = ObjectBuilder::new().schema_type(Type::String);
        let slo = AnyOfBuilder::new().item(text).item(RefOr::T(List::<Threshold>::schema()));
        let mut search = types([Type::Object]).property("slo", slo);
        for key in ["start_rate", "max_rate"] {
            search = search.property(key, number(RATE_PER_S_MAX));
        }
        for key in ["trial", "confirm", "cool_down"] {
            search = search.property(key, Duration::schema());
        }
        closed(search.property("precision", types([Type::Number]).minimum(Some(PRECISION_MIN)).maximum(Some(1)))).into()
    }
}

/// A search as a request has it.
pub fn to_json(search: &RawSearch) -> Value {
    let mut shown = Map::new();
    if !search.slo.is_empty() {
        shown.insert("slo".to_owned(), search.slo.iter().map(ToString::to_string).collect());
    }
    let others = [
        ("start_rate", search.start_rate.as_ref().map(value)),
        ("max_rate", search.max_rate.as_ref().map(value)),
        ("trial", search.trial.as_ref().map(value)),
        ("confirm", search.confirm.as_ref().map(value)),
        ("cool_down", search.cool_down.as_ref().map(value)),
        ("precision", search.precision.as_ref().map(value)),
    ];
    shown.extend(others.into_iter().filter_map(|(key, value)| Some((key.to_owned(), value?))));
    Value::Object(shown)
}

fn given<T: Field>(key: &str, json: Option<&RawValue>) -> Result<Option<T>, String> {
    json.map(|json| needed(key, Some(json))).transpose()
}

/// Conditions with commas between them, or a list of them.
fn conditions(json: &RawValue) -> Result<Vec<Threshold>, String> {
    if json.get().starts_with('"') {
        let conditions = condition(json)?;
        let conditions = conditions.split(',').map(Threshold::parse).collect::<Result<_, _>>();
        return conditions.map_err(|error| error.to_string());
    }
    List::take(json).map(|list: List<Threshold>| list.0)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn read(json: &str) -> Result<RawSearch, String> {
        RawSearch::take(&RawValue::from_string(json.to_owned()).unwrap())
    }

    #[test]
    fn a_search_is_read_as_it_is_shown() {
        let json = r#"{"slo":"p99<250ms,failures<0.1%","start_rate":50,"max_rate":1e4,"trial":"2s","confirm":3000000000,"cool_down":"0s","precision":0.02}"#;
        let search = read(json).unwrap();
        assert_eq!(search.slo, ["p99<250ms", "failures<0.1%"].map(|text| Threshold::parse(text).unwrap()));
        assert_eq!((search.start_rate, search.max_rate, search.precision), (Some(50.0), Some(10_000.0), Some(0.02)));
        assert_eq!((search.trial, search.confirm), (Some(Duration::from_secs(2)), Some(Duration::from_secs(3))));
        let echo = value(&search).to_string();
        assert_eq!(read(&echo), Ok(search), "{echo}");
        let least = read(r#"{"SLO":["p50<1s"]}"#).unwrap();
        assert_eq!(value(&least).to_string(), r#"{"slo":["p50<1s"]}"#);
        let silent = read("{}").unwrap();
        assert_eq!((&silent, value(&silent).to_string()), (&RawSearch::default(), "{}".to_owned()));
    }

    #[test]
    fn what_is_wrong_is_named() {
        for (json, words) in [
            ("true", "expected an object such as"),
            (r#"{"slo":"p99=1s"}"#, "slo: expected a condition such as"),
            (r#"{"slo":["p99<1s","fast"]}"#, "slo: condition 2: expected a condition such as"),
            (r#"{"slo":[]}"#, "slo: expected a list of 1 to 16 conditions, got 0"),
            (r#"{"slo":"p99<1s","trial":"soon"}"#, "trial: expected a duration such as"),
            (r#"{"slo":"p99<1s","start_rate":"5"}"#, "start_rate: expected a number"),
            (r#"{"slo":"p99<1s","trials":"5s"}"#, "unknown key \"trials\"; did you mean `trial`?"),
            (r#"{"slo":"p99<1s","slo":"p99<1s"}"#, "slo: expected the key once, got it twice"),
        ] {
            let error = read(json).expect_err(json);
            assert!(error.contains(words) && error.len() < 500, "{json}: {error}");
        }
    }
}
