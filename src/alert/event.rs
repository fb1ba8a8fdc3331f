//! An event as PagerDuty's Events API v2 takes it (<https://developer.pagerduty.com/docs/events-api-v2/trigger-events/>).

use serde::{Deserialize, Serialize};
use serde_json::{Map, Value, json};

/// Characters of a `dedup_key`.
pub const DEDUP_KEY_CHARS_MAX: usize = 255;
/// Characters of a `summary`.
pub const SUMMARY_CHARS_MAX: usize = 1_024;
/// Characters of any other text; PagerDuty names no bound but that of the whole request, 512 KB.
const TEXT_CHARS_MAX: usize = 1_024;

/// How bad it is, in PagerDuty's words.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Severity {
    /// Worst.
    Critical,
    /// Bad.
    Error,
    /// Not good.
    Warning,
    /// Good to know.
    Info,
}

impl Severity {
    /// Every word with its meaning, as configurations read them.
    pub const WORDS: [(&'static str, Severity); 4] = [
        ("critical", Severity::Critical),
        ("error", Severity::Error),
        ("warning", Severity::Warning),
        ("info", Severity::Info),
    ];
}

/// An event, as it is kept: without the routing key, which is a secret.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Event {
    /// What the alert is known by.
    pub dedup_key: String,
    /// What a trigger says; `None` for a resolve, which needs no more than its key.
    pub trigger: Option<Trigger>,
}

/// What is said when an alert begins.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Trigger {
    /// One sentence.
    pub summary: String,
    /// Which service noticed it: a host's name.
    pub source: String,
    /// How bad it is.
    pub severity: Severity,
    /// When, by ISO 8601.
    pub timestamp: String,
    /// The route.
    pub component: String,
    /// The kind of what is wrong.
    pub class: String,
    /// Whatever helps.
    pub custom_details: Map<String, Value>,
    /// Where to look.
    pub client_url: Option<String>,
}

impl Event {
    /// The request's body. It has the key in it, and is to be shown nowhere.
    pub fn body(&self, routing_key: &str) -> String {
        let dedup_key = cut(&self.dedup_key, DEDUP_KEY_CHARS_MAX);
        let Some(trigger) = &self.trigger else {
            return json!({ "routing_key": routing_key, "event_action": "resolve", "dedup_key": dedup_key })
                .to_string();
        };
        let mut body = json!({
            "routing_key": routing_key,
            "event_action": "trigger",
            "dedup_key": dedup_key,
            "client": "timecop",
            "payload": {
                "summary": cut(&trigger.summary, SUMMARY_CHARS_MAX),
                "source": cut(&trigger.source, TEXT_CHARS_MAX),
                "severity": trigger.severity,
                "timestamp": trigger.timestamp,
                "component": cut(&trigger.component, TEXT_CHARS_MAX),
                "group": "timecop probe",
                "class": cut(&trigger.class, TEXT_CHARS_MAX),
                "custom_details": trigger.custom_details,
            },
        });
        if let Some(url) = &trigger.client_url {
            body["client_url"] = json!(url);
        }
        body.to_string()
    }
}

/// No more than so many characters, the last one being … where some were left out.
pub fn cut(text: &str, chars_max: usize) -> String {
    match text.char_indices().nth(chars_max) {
        None => text.to_owned(),
        Some(_) => text.chars().take(chars_max - 1).chain(['…']).collect(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn trigger() -> Trigger {
        Trigger {
            summary: "s".to_owned(),
            source: "probe.example.com".to_owned(),
            severity: Severity::Critical,
            timestamp: "2026-11-24T12:00:00Z".to_owned(),
            component: "r".to_owned(),
            class: "lost".to_owned(),
            custom_details: Map::new(),
            client_url: None,
        }
    }

    #[test]
    fn a_trigger_says_all_and_a_resolve_only_its_key() {
        let mut event = Event { dedup_key: "k".to_owned(), trigger: Some(trigger()) };
        let body: Value = serde_json::from_str(&event.body("secret")).unwrap();
        assert_eq!(
            body,
            json!({
                "routing_key": "secret", "event_action": "trigger", "dedup_key": "k", "client": "timecop",
                "payload": {
                    "summary": "s", "source": "probe.example.com", "severity": "critical",
                    "timestamp": "2026-11-24T12:00:00Z", "component": "r", "group": "timecop probe", "class": "lost",
                    "custom_details": {},
                },
            })
        );
        event.trigger = Some(Trigger { client_url: Some("https://a".to_owned()), ..trigger() });
        assert!(event.body("secret").contains(r#""client_url":"https://a""#));
        assert!(!serde_json::to_string(&event).unwrap().contains("secret") && !format!("{event:?}").contains("secret"));
        event.trigger = None;
        let body: Value = serde_json::from_str(&event.body("secret")).unwrap();
        assert_eq!(body, json!({ "routing_key": "secret", "event_action": "resolve", "dedup_key": "k" }));
    }

    #[test]
    fn texts_are_cut_by_characters_and_not_by_octets() {
        let long = "ü".repeat(2_000);
        let event = Event {
            dedup_key: long.clone(),
            trigger: Some(Trigger { summary: long.clone(), component: long, ..trigger() }),
        };
        let body: Value = serde_json::from_str(&event.body("k")).unwrap();
        let chars = |value: &Value| value.as_str().unwrap().chars().count();
        assert_eq!(chars(&body["dedup_key"]), DEDUP_KEY_CHARS_MAX);
        assert_eq!(chars(&body["payload"]["summary"]), SUMMARY_CHARS_MAX);
        assert!(body["payload"]["summary"].as_str().unwrap().ends_with("ü…"));
        assert_eq!(cut("abc", 3), "abc");
    }
}
