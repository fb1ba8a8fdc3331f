//! What PagerDuty is told, held against the vendor's own description of it, where that is at hand.

use std::path::Path;
use std::sync::OnceLock;

use serde_json::Value;

/// The vendor's OpenAPI document, which is no part of this repository.
const DOCUMENT: &str = "../shared/data/pagerduty-events-v2.openapi.json";

/// Holds one request's body against the schema; says that it did not run where there is none.
pub fn check(body: &Value) {
    static READ: OnceLock<Option<Value>> = OnceLock::new();
    let document = READ.get_or_init(|| {
        let file = Path::new(env!("CARGO_MANIFEST_DIR")).join(DOCUMENT);
        let Ok(text) = std::fs::read_to_string(&file) else {
            println!("did not run: {} is not there", file.display());
            return None;
        };
        Some(serde_json::from_str(&text).expect("the document is JSON"))
    });
    if let Some(document) = document {
        let at = "/paths/~1enqueue/post/requestBody/content/application~1json/schema";
        check_value(document, document.pointer(at).expect(at), body, "event");
    }
}

/// As far as its own words of JSON Schema go: type, enum, required, properties, $ref.
fn check_value(document: &Value, schema: &Value, value: &Value, at: &str) {
    if let Some(reference) = schema["$ref"].as_str() {
        let schema = document.pointer(reference.trim_start_matches('#')).expect(reference);
        return check_value(document, schema, value, at);
    }
    if let Some(allowed) = schema["enum"].as_array() {
        assert!(allowed.contains(value), "{at}: {value} is not one of {allowed:?}");
    }
    match schema["type"].as_str() {
        Some("string") => assert!(value.is_string(), "{at}: {value} is no string"),
        Some("object") => assert!(value.is_object(), "{at}: {value} is no object"),
        Some("array") => assert!(value.is_array(), "{at}: {value} is no list"),
        _ => {}
    }
    for key in schema["required"].as_array().into_iter().flatten().filter_map(Value::as_str) {
        assert!(!value[key].is_null(), "{at}: {key} is missing in {value}");
    }
    let Some(properties) = schema["properties"].as_object() else { return };
    for (key, value) in value.as_object().expect("it is one") {
        let schema = properties.get(key).unwrap_or_else(|| panic!("{at}: the vendor knows no {key}"));
        check_value(document, schema, value, &format!("{at}.{key}"));
    }
    if schema["properties"]["timestamp"].is_object() && value["timestamp"].is_string() {
        let timestamp = value["timestamp"].as_str().expect("it is one");
        timestamp.parse::<jiff::Timestamp>().expect("ISO 8601");
    }
}
