//! The kinds of values that load control has: how a run warms up, how its rate goes up and down, and what ends or fails it.

use std::collections::BTreeMap;
use std::fmt;
use std::time::Duration;

use serde::de::{Deserialize, Deserializer, MapAccess, Visitor};
use serde::ser::Serialize;
use serde_json::value::RawValue;
use serde_json::{Value, json};
use utoipa::openapi::RefOr;
use utoipa::openapi::schema::{
    AdditionalProperties, AnyOfBuilder, ArrayBuilder, Object, ObjectBuilder, Schema, SchemaType, Type,
};

use super::duration::{self, GO_DURATION_NS_MAX};
use super::field::{Field, or_null, plain, types};
use super::{advice, short};
use crate::job::spec::CONNECTIONS_MAX;
use crate::job::time_limits::{DEFAULT, LIMITED, TimeLimits};
use crate::load::RATE_PER_S_MAX;
use crate::load::stages::{Goal, STAGES_MAX, Stage};
use crate::load::warmup::Warmup;
use crate::measure::abort::{ABORT_RULES_MAX, AbortRule, GRACE, WINDOW};
use crate::measure::threshold::{Metric, THRESHOLDS_MAX, Threshold};
use crate::phase::Phase;
use crate::time::duration_ns;

/// Most characters of a condition that is a text.
const CONDITION_CHARS_MAX: usize = 100;
/// Keys of an object that are looked at; none here knows so many, so that one of them is unknown or there twice.
const ENTRIES_MAX: usize = 32;

/// A duration, or a number of messages.
impl Field for Warmup {
    fn expected() -> String {
        "a duration such as \"10s\", or {\"messages\": 1000}".to_owned()
    }

    fn read(json: &RawValue) -> Option<Warmup> {
        Self::take(json).ok()
    }

    fn take(json: &RawValue) -> Result<Warmup, String> {
        match json.get().as_bytes()[0] {
            // A number alone would be messages on a command line, and nanoseconds elsewhere.
            b'"' => Duration::take(json).map(Warmup::Duration),
            _ => Ok(Warmup::Messages(needed("messages", object::<Warmup, 1>(json, &["messages"])?[0])?)),
        }
    }

    fn echo(&self) -> impl Serialize {
        match self {
            Warmup::Duration(time) => json!(duration::format(*time)),
            Warmup::Messages(messages) => json!({ "messages": messages }),
        }
    }

    fn schema() -> Schema {
        let messages = ObjectBuilder::new().schema_type(Type::Integer).minimum(Some(1));
        let both = types([Type::String, Type::Object]).pattern(Some(duration::PATTERN));
        closed(both.property("messages", messages).required("messages")).into()
    }
}

/// A duration, or an object of them by phase.
impl Field for TimeLimits {
    fn expected() -> String {
        "a duration such as \"10s\", or {\"default\": \"10s\", \"connect\": \"5s\"}".to_owned()
    }

    fn read(json: &RawValue) -> Option<TimeLimits> {
        Self::take(json).ok()
    }

    fn take(json: &RawValue) -> Result<TimeLimits, String> {
        if json.get().as_bytes()[0] != b'{' {
            return Duration::take(json).map(TimeLimits::from);
        }
        let Entries(entries) =
            plain(json).ok_or_else(|| format!("expected {}, got {}", Self::expected(), short(json.get())))?;
        let mut limits = TimeLimits::default();
        for (key, json) in entries.into_iter().filter(|(_, json)| json.get() != "null") {
            limits.set(&short(&key), needed(&short(&key), Some(json))?)?;
        }
        Ok(limits)
    }

    fn echo(&self) -> impl Serialize {
        limits_to_json(self)
    }

    fn schema() -> Schema {
        let mut limits = types([Type::String, Type::Integer, Type::Object]).pattern(Some(duration::PATTERN));
        for name in LIMITED.map(Phase::name).into_iter().chain([DEFAULT]) {
            limits = limits.property(name, Duration::schema());
        }
        closed(limits).into()
    }
}

/// Time limits as a request has them.
pub fn limits_to_json(limits: &TimeLimits) -> Value {
    let default = limits.default.as_ref().map(value);
    match default {
        Some(default) if limits.phases.is_empty() => default,
        default => {
            let phases = limits.phases.iter().map(|(phase, limit)| (phase.name(), value(limit)));
            json!(phases.chain(default.map(|default| (DEFAULT, default))).collect::<BTreeMap<_, _>>())
        }
    }
}

/// What may stand in a [`List`].
pub(super) trait Item: Field {
    /// What one is called in errors.
    const NAME: &'static str;
    /// Most of them.
    const MAX: usize;
    /// Whether one may stand for a list of itself.
    const MAY_STAND_ALONE: bool = false;
}

/// At least one of them, in an order that is kept.
#[derive(Clone, Debug, PartialEq)]
pub struct List<T>(pub Vec<T>);

impl<T: Item> Field for List<T> {
    fn expected() -> String {
        format!("a list of 1 to {} {}s", T::MAX, T::NAME)
    }

    fn read(json: &RawValue) -> Option<List<T>> {
        Self::take(json).ok()
    }

    fn take(json: &RawValue) -> Result<List<T>, String> {
        let wrong = |got| Err(format!("expected {}, got {got}", Self::expected()));
        match plain::<Vec<&RawValue>>(json) {
            None if T::MAY_STAND_ALONE => Ok(List(vec![T::take(json)?])),
            None => wrong(short(json.get())),
            Some(list) if !(1..=T::MAX).contains(&list.len()) => wrong(list.len().to_string()),
            Some(list) => {
                let item =
                    |(at, json)| T::take(json).map_err(|problem| format!("{} {}: {problem}", T::NAME, at + 1usize));
                list.into_iter().enumerate().map(item).collect::<Result<_, _>>().map(List)
            }
        }
    }

    fn echo(&self) -> impl Serialize {
        self.0.iter().map(Field::echo).collect::<Vec<_>>()
    }

    fn schema() -> Schema {
        let list = ArrayBuilder::new().items(RefOr::T(T::schema())).min_items(Some(1)).max_items(Some(T::MAX));
        match T::MAY_STAND_ALONE {
            true => {
                let null = ObjectBuilder::new().schema_type(Type::Null);
                AnyOfBuilder::new().item(T::schema()).item(list).item(null).into()
            }
            false => list.schema_type(or_null([Type::Array])).build().into(),
        }
    }
}

const STAGE_KEYS: [&str; 3] = ["duration", "rate", "connections"];

impl Item for Stage {
    const NAME: &'static str = "stage";
    const MAX: usize = STAGES_MAX;
}

impl Field for Stage {
    fn expected() -> String {
        "an object such as {\"duration\": \"1m\", \"rate\": 1000} or {\"duration\": \"1m\", \"connections\": 50}"
            .to_owned()
    }

    fn read(json: &RawValue) -> Option<Stage> {
        Self::take(json).ok()
    }

    fn take(json: &RawValue) -> Result<Stage, String> {
        let [duration, rate, connections] = object::<Stage, 3>(json, &STAGE_KEYS)?;
        let goal = match connections {
            Some(_) if rate.is_some() => return Err("expected either rate or connections, got both".to_owned()),
            Some(_) => Goal::Connections(needed("connections", connections)?),
            None => Goal::Rate(needed("rate", rate)?),
        };
        Ok(Stage { duration: needed("duration", duration)?, goal })
    }

    fn echo(&self) -> impl Serialize {
        stage_to_json(self)
    }

    fn schema() -> Schema {
        let rate = ObjectBuilder::new().schema_type(Type::Number).minimum(Some(0)).maximum(Some(RATE_PER_S_MAX));
        let stage = ObjectBuilder::new().schema_type(Type::Object);
        let stage = stage.property("duration", Duration::schema()).required("duration");
        let connections =
            ObjectBuilder::new().schema_type(Type::Integer).minimum(Some(0)).maximum(Some(CONNECTIONS_MAX));
        closed(stage.property("rate", rate).property("connections", connections)).into()
    }
}

/// A stage as a request has it.
pub fn stage_to_json(stage: &Stage) -> Value {
    let duration = value(&stage.duration);
    match &stage.goal {
        Goal::Rate(per_s) => json!({ "duration": duration, "rate": value(per_s) }),
        Goal::Connections(number) => json!({ "duration": duration, "connections": number }),
    }
}

/// The keys of an object under `abort_on`: two that say when, then those that say what, of which it has one.
const ABORT_KEYS: [&str; 10] = ["window", "grace", FAILURE_RATE, "p50", "p90", "p95", "p99", "p99.9", "max", "mean"];
const FAILURE_RATE: &str = "failure_rate";

impl Item for AbortRule {
    const NAME: &'static str = "condition";
    const MAX: usize = ABORT_RULES_MAX;
    const MAY_STAND_ALONE: bool = true;
}

/// An object, or a text as on the command line, which can say `below` as well.
impl Field for AbortRule {
    fn expected() -> String {
        "an object such as {\"failure_rate\": 0.05, \"window\": \"10s\", \"grace\": \"5s\"} or {\"p99\": \"2s\"}, a text \
         such as \"rate<1000,window=10s\", or a list of them"
            .to_owned()
    }

    fn read(json: &RawValue) -> Option<AbortRule> {
        Self::take(json).ok()
    }

    fn take(json: &RawValue) -> Result<AbortRule, String> {
        if json.get().starts_with('"') {
            let rule = AbortRule::parse(&condition(json)?).map_err(|error| error.to_string())?;
            // It is shown with its window and grace, and what is shown may be asked for again.
            return if rule.to_string().len() <= CONDITION_CHARS_MAX { Ok(rule) } else { Err(too_long(json)) };
        }
        let [window, grace, conditions @ ..] = object::<AbortRule, { ABORT_KEYS.len() }>(json, &ABORT_KEYS)?;
        let mut given = ABORT_KEYS[2..].iter().zip(conditions).filter_map(|(key, json)| Some((*key, json?)));
        let (Some((key, bound)), None) = (given.next(), given.next()) else {
            return Err(format!("expected exactly one of {}, got none or several", ABORT_KEYS[2..].join(", ")));
        };
        let text = match key {
            FAILURE_RATE => match needed(key, Some(bound))? {
                share if (0.0..=1.0).contains(&share) => failures_above(share),
                share => return Err(format!("{key}: expected a share from 0 to 1, got {share}")),
            },
            _ => time_above(key, needed(key, Some(bound))?),
        };
        let threshold = Threshold::parse(&text).map_err(|error| error.to_string())?;
        let span = |key, json: Option<_>, usual| json.map_or(Ok(usual), |json| needed(key, Some(json)));
        AbortRule::new(threshold, span("window", window, WINDOW)?, span("grace", grace, GRACE)?)
            .map_err(|error| error.to_string())
    }

    /// The object, where one says the same.
    fn echo(&self) -> impl Serialize {
        let Threshold { metric, bound, .. } = *self.threshold();
        let time = Duration::try_from_secs_f64(bound).ok().filter(|time| duration_ns(*time) <= GO_DURATION_NS_MAX);
        let (key, bound, text) = match (metric, time) {
            (Metric::Failures, _) => (FAILURE_RATE, value(&bound), failures_above(bound)),
            (Metric::Rate, _) | (_, None) => return json!(self.to_string()),
            (_, Some(time)) => (metric.name(), value(&time), time_above(metric.name(), time)),
        };
        match text == self.threshold().to_string() {
            true => json!({ key: bound, "window": value(&self.window()), "grace": value(&self.grace()) }),
            false => json!(self.to_string()),
        }
    }

    fn schema() -> Schema {
        let mut rule = ObjectBuilder::new().schema_type(SchemaType::from_iter([Type::Object, Type::String]));
        for key in ABORT_KEYS {
            rule = match key {
                FAILURE_RATE => rule.property(key, types([Type::Number]).minimum(Some(0)).maximum(Some(1))),
                _ => rule.property(key, Duration::schema()),
            };
        }
        closed(rule.max_length(Some(CONDITION_CHARS_MAX))).into()
    }
}

impl Item for Threshold {
    const NAME: &'static str = "condition";
    const MAX: usize = THRESHOLDS_MAX;
}

impl Field for Threshold {
    fn expected() -> String {
        "a condition such as \"p99>300ms\"".to_owned()
    }

    fn read(json: &RawValue) -> Option<Threshold> {
        Self::take(json).ok()
    }

    fn take(json: &RawValue) -> Result<Threshold, String> {
        Threshold::parse(&condition(json)?).map_err(|error| error.to_string())
    }

    fn echo(&self) -> impl Serialize {
        self.to_string()
    }

    fn schema() -> Schema {
        ObjectBuilder::new().schema_type(Type::String).max_length(Some(CONDITION_CHARS_MAX)).build().into()
    }
}

/// The text of a condition, of which every error can repeat the whole.
pub(super) fn condition(json: &RawValue) -> Result<String, String> {
    String::read(json).filter(|text| text.is_ascii() && text.len() <= CONDITION_CHARS_MAX).ok_or_else(|| too_long(json))
}

fn too_long(json: &RawValue) -> String {
    let got = short(json.get());
    format!("expected a text of at most {CONDITION_CHARS_MAX} ASCII characters such as \"p99>300ms\", got {got}")
}

fn failures_above(share: f64) -> String {
    format!("{}>{share}", Metric::Failures.name())
}

/// A condition on times, which are written with one unit.
fn time_above(key: &str, time: Duration) -> String {
    match time.subsec_nanos() {
        0 => format!("{key}>{}s", time.as_secs()),
        _ => format!("{key}>{}ms", time.as_nanos() as f64 / 1e6),
    }
}

/// A value as a job shows it.
pub(super) fn value<T: Field>(field: &T) -> Value {
    json!(field.echo())
}

/// A value without which its object means nothing.
pub(super) fn needed<T: Field>(key: &str, json: Option<&RawValue>) -> Result<T, String> {
    match json {
        Some(json) => T::take(json).map_err(|problem| format!("{key}: {problem}")),
        None => Err(format!("{key}: expected {}, got none", T::expected())),
    }
}

/// A schema that takes no other keys.
pub(super) fn closed(object: ObjectBuilder) -> Object {
    object.additional_properties(Some(AdditionalProperties::<Schema>::FreeForm(false))).build()
}

/// The values of an object that may have these keys, in their order. As in the request itself, they match without regard
/// to case and stand once, and `null` counts as absent.
pub(super) fn object<'a, T: Field, const N: usize>(
    json: &'a RawValue,
    keys: &[&str; N],
) -> Result<[Option<&'a RawValue>; N], String> {
    let Entries(entries) =
        plain(json).ok_or_else(|| format!("expected {}, got {}", T::expected(), short(json.get())))?;
    let mut values = [None; N];
    for (key, json) in entries {
        let at = keys.iter().position(|known| known.eq_ignore_ascii_case(&key));
        let at = at.ok_or_else(|| format!("unknown key {}", advice(&key, keys)))?;
        if values[at].replace(json).is_some() {
            return Err(format!("{}: expected the key once, got it twice", keys[at]));
        }
    }
    Ok(values.map(|json| json.filter(|json| json.get() != "null")))
}

/// The first entries of an object.
struct Entries<'a>(Vec<(String, &'a RawValue)>);

impl<'de> Deserialize<'de> for Entries<'de> {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Entries<'de>, D::Error> {
        deserializer.deserialize_map(EntriesVisitor)
    }
}

struct EntriesVisitor;

impl<'de> Visitor<'de> for EntriesVisitor {
    type Value = Entries<'de>;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("a JSON object")
    }

    fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<Entries<'de>, A::Error> {
        let mut entries = Vec::new();
        while let Some(entry) = map.next_entry()? {
            if entries.len() < ENTRIES_MAX {
                entries.push(entry);
            }
        }
        Ok(Entries(entries))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn read<T: Field>(json: &str) -> Result<T, String> {
        T::take(&RawValue::from_string(json.to_owned()).unwrap())
    }

    fn echo<T: Field>(json: &str) -> String {
        value(&read::<T>(json).unwrap_or_else(|error| panic!("{json}: {error}"))).to_string()
    }

    fn refused<T: Field>(table: &[(&str, &str)]) {
        for (json, words) in table {
            let error = read::<T>(json).err().unwrap_or_else(|| panic!("{json} was taken"));
            assert!(error.contains(words) && error.len() < 500, "{json}: {error}");
        }
    }

    #[test]
    fn a_warm_up_is_a_time_or_a_number_of_messages() {
        assert_eq!(read(r#""1m30s""#), Ok(Warmup::Duration(Duration::from_secs(90))));
        assert_eq!(read(r#"{"Messages":1000}"#), Ok(Warmup::Messages(1_000)));
        assert_eq!(echo::<Warmup>(r#""90s""#), r#""1m30s""#);
        assert_eq!(echo::<Warmup>(r#"{"messages":7}"#), r#"{"messages":7}"#);
        refused::<Warmup>(&[
            ("1000", r#"expected a duration such as "10s", or {"messages": 1000}, got 1000"#),
            (r#""ten""#, r#"got "ten""#),
            ("{}", "messages: expected a whole number from 0 to 18446744073709551615, got none"),
            (r#"{"messages":null}"#, "got none"),
            (r#"{"messages":-1}"#, "messages: expected a whole number"),
            (r#"{"messages":1,"messages":1}"#, "messages: expected the key once, got it twice"),
            (r#"{"message":1}"#, "unknown key \"message\"; did you mean `messages`?"),
            ("[]", "expected a duration"),
        ]);
    }

    #[test]
    fn stages_are_read_one_by_one() {
        let stages: List<Stage> =
            read(r#"[{"duration":"1m","rate":1000},{"RATE":0.5,"duration":1000000000}]"#).unwrap();
        let stage = |seconds, rate| Stage { duration: Duration::from_secs(seconds), goal: Goal::Rate(rate) };
        assert_eq!(stages.0, [stage(60, 1_000.0), stage(1, 0.5)]);
        assert_eq!(value(&stages).to_string(), r#"[{"duration":"1m0s","rate":1000},{"duration":"1s","rate":0.5}]"#);
        assert_eq!(
            echo::<List<Stage>>(r#"[{"connections":50,"duration":"1m"}]"#),
            r#"[{"connections":50,"duration":"1m0s"}]"#
        );
        let too_many = format!("[{}1]", "1,".repeat(STAGES_MAX));
        refused::<List<Stage>>(&[
            ("[]", "expected a list of 1 to 1000 stages, got 0"),
            (&too_many, "expected a list of 1 to 1000 stages, got 1001"),
            (r#"{"duration":"1m","rate":1000}"#, "expected a list of 1 to 1000 stages, got {"),
            ("[1]", "stage 1: expected an object such as {\"duration\": \"1m\", \"rate\": 1000} or"),
            (
                r#"[{"duration":"1m","rate":1,"connections":1}]"#,
                "stage 1: expected either rate or connections, got both",
            ),
            (r#"[{"duration":"1m","rate":1},{"duration":"1m"}]"#, "stage 2: rate: expected a number, got none"),
            (r#"[{"duration":"1m","rate":"1"}]"#, r#"stage 1: rate: expected a number, got "1""#),
            (r#"[{"duration":"1 m","rate":1}]"#, "stage 1: duration: expected a duration such as"),
            (
                r#"[{"duration":"1m","rate":1,"ramp":1}]"#,
                "stage 1: unknown key \"ramp\"; expected one of duration, rate, connections",
            ),
        ]);
    }

    #[test]
    fn a_run_is_given_up_on_the_conditions_of_the_command_line() {
        let same = |json: &str, text: &str| {
            let rules: List<AbortRule> = read(json).unwrap_or_else(|error| panic!("{json}: {error}"));
            assert_eq!(rules.0, [AbortRule::parse(text).unwrap()], "{json}");
        };
        same(r#"{"failure_rate":0.05,"window":"10s","grace":"5s"}"#, "failures>0.05");
        same(r#"[{"failure_rate":0.0000001,"window":"1m","grace":0}]"#, "failures>0.0000001,window=1m,grace=0s");
        same(r#"{"p99":"2s"}"#, "p99>2s");
        same(r#"{"p99.9":"1.5s","window":null}"#, "p99.9>1500ms");
        same(r#""rate<1000,window=3s""#, "rate<1000,window=3s");
        for key in ["p50", "p90", "p95", "p99", "p99.9", "max", "mean"] {
            same(&format!(r#"{{"{key}":"1.5ms"}}"#), &format!("{key}>1.5ms"));
        }
        let padded = format!("\"p99>{:080}s\"", 1);
        let words = r#"expected exactly one of failure_rate, p50, p90"#;
        refused::<List<AbortRule>>(&[
            ("{}", words),
            (r#"{"window":"10s"}"#, words),
            (r#"{"p99":"1s","failure_rate":0.1}"#, words),
            (r#"[{"p99":"1s"},{"p99":"1s","p50":"1s"}]"#, "condition 2: expected exactly one of"),
            (r#"{"p98":"1s"}"#, "unknown key \"p98\"; did you mean"),
            (r#"{"p99":"1s","windw":"1s"}"#, "unknown key \"windw\"; did you mean `window`?"),
            (r#"{"rate":1000}"#, "unknown key \"rate\"; expected one of window, grace, failure_rate"),
            (r#"{"failure_rate":5}"#, "failure_rate: expected a share from 0 to 1, got 5"),
            (r#"{"failure_rate":"5%"}"#, r#"failure_rate: expected a number, got "5%""#),
            (r#"{"p99":"1s","window":"500ms"}"#, "expected a window of whole seconds, 1 s to 1 h, got 500ms"),
            (r#"{"p99":"1s","grace":"2h"}"#, "expected a grace of whole seconds"),
            (r#""p99>2""#, "expected a time with its unit"),
            (&padded, "expected a text of at most 100 ASCII characters"),
            (r#""p99>2\u200bs""#, "expected a text of at most 100 ASCII characters"),
            ("7", "expected an object such as"),
            ("[]", "expected a list of 1 to 16 conditions, got 0"),
        ]);
    }

    /// What a job shows of its conditions can be asked for again.
    #[test]
    fn an_echo_is_read_back_as_what_it_was_made_of() {
        let texts = ["failures>5%", "failures>0.05", "p99.9>1.5ms", "mean>1m,window=1m,grace=0s", "p99>=2s", "rate<5"];
        let long = ["max<1s", "p50>9999999999999999s", "p99>99999999999999999999999999999999s", "p90>0.0000001us"];
        let texts = texts.iter().chain(&long).map(|text| format!("\"{text}\""));
        let objects = [r#"{"failure_rate":5e-324}"#, r#"{"p99":9223372036854775807}"#, r#"{"max":"1m1.000000001s"}"#];
        for json in texts.chain(objects.map(str::to_owned)) {
            let rules: List<AbortRule> = read(&json).unwrap_or_else(|error| panic!("{json}: {error}"));
            let echo = value(&rules).to_string();
            assert_eq!(read(&echo), Ok(rules), "{echo}");
        }
        assert_eq!(
            echo::<List<AbortRule>>(r#"{"failure_rate":0.05}"#),
            r#"[{"failure_rate":0.05,"grace":"5s","window":"10s"}]"#
        );
    }

    #[test]
    fn conditions_that_fail_a_run_are_texts() {
        assert_eq!(echo::<List<Threshold>>(r#"["p99 > 300ms","failures>0.1%"]"#), r#"["p99>300ms","failures>0.1%"]"#);
        let long = format!("[\"p99>{}ms\"]", "1".repeat(1_000));
        refused::<List<Threshold>>(&[
            (r#""p99>300ms""#, "expected a list of 1 to 16 conditions"),
            (r#"["p99>300ms","p99=1"]"#, "condition 2: expected a condition such as p99>300ms"),
            (r#"["p99>300"]"#, "condition 1: expected a time with its unit"),
            (r#"["p99>3\u0000"]"#, "condition 1: expected a text of at most 100 ASCII characters"),
            (&long, "condition 1: expected a text of at most 100 ASCII characters"),
            ("[7]", "condition 1: expected a text"),
        ]);
    }
}
