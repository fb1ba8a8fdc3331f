//! The kinds of values of the fields that say what is sent: sizes, texts and options.

use std::fmt;

use serde::de::{Deserializer, MapAccess, Visitor};
use serde::ser::{Serialize, Serializer};
use serde::{Deserialize, de};
use serde_json::json;
use serde_json::value::RawValue;
use utoipa::openapi::RefOr;
use utoipa::openapi::schema::{AnyOfBuilder, ArrayBuilder, ObjectBuilder, Schema, Type};

use super::field::{Field, HARMLESS_PATTERN, digest, digest_schema, is_harmless, or_null, plain, types};
use super::short;
use crate::job::spec::http::{OPTION_PREFIXES, OPTIONS_BYTES_MAX, OPTIONS_MAX};
use crate::message::{MESSAGE_BYTES_MAX, SIZE_WEIGHT_MAX, SIZES_MAX, WeightedSize};

/// `msg_size`: one size, or a mix.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum MessageSize {
    /// All messages are so large, in octets.
    Exactly(u64),
    /// Each message draws one of these.
    Mix(Vec<WeightedSize>),
}

/// A size of a mix as JSON.
#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Size {
    bytes: u64,
    weight: u64,
}

impl Field for MessageSize {
    fn expected() -> String {
        format!("a whole number from 0 to {}, or a list of at most {SIZES_MAX} objects with bytes and weight", u64::MAX)
    }

    fn read(json: &RawValue) -> Option<MessageSize> {
        if let Some(bytes) = plain(json) {
            return Some(MessageSize::Exactly(bytes));
        }
        let list: Vec<Size> = plain(json)?;
        let size = |Size { bytes, weight }| WeightedSize { bytes, weight };
        (!list.is_empty() && list.len() <= SIZES_MAX).then(|| MessageSize::Mix(list.into_iter().map(size).collect()))
    }

    fn echo(&self) -> impl Serialize {
        match self {
            MessageSize::Exactly(bytes) => json!(bytes),
            MessageSize::Mix(list) => {
                let size = |size: &WeightedSize| json!({ "bytes": size.bytes, "weight": size.weight });
                json!(list.iter().map(size).collect::<Vec<_>>())
            }
        }
    }

    fn schema() -> Schema {
        let whole = |least: u64, most: u64| {
            ObjectBuilder::new().schema_type(Type::Integer).minimum(Some(least)).maximum(Some(most))
        };
        let size = ObjectBuilder::new()
            .schema_type(Type::Object)
            .property("bytes", whole(0, MESSAGE_BYTES_MAX))
            .property("weight", whole(1, SIZE_WEIGHT_MAX))
            .required("bytes")
            .required("weight");
        let list = ArrayBuilder::new()
            .schema_type(or_null([Type::Array]))
            .items(size)
            .min_items(Some(1))
            .max_items(Some(SIZES_MAX));
        let exactly = types([Type::Integer]).minimum(Some(0)).maximum(Some(MESSAGE_BYTES_MAX));
        AnyOfBuilder::new().item(exactly).item(list).build().into()
    }
}

/// A text of any length, in lines. Echoed as its size and digest.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Text(pub String);

impl Text {
    /// What it looks like in a job.
    pub(super) fn echo_schema() -> RefOr<Schema> {
        digest_schema("bytes", "The text that was given, by its size in octets and its SHA-256 in hexadecimal.").into()
    }
}

impl Field for Text {
    fn expected() -> String {
        "a string without control characters but tab, LF and CRLF".to_owned()
    }

    fn read(json: &RawValue) -> Option<Text> {
        plain(json).filter(|text: &String| is_of_lines(text)).map(Text)
    }

    fn got(json: &RawValue) -> String {
        match plain::<String>(json) {
            Some(_) => "one with others".to_owned(),
            None => short(json.get()),
        }
    }

    fn echo(&self) -> impl Serialize {
        digest(&self.0)
    }

    fn schema() -> Schema {
        types([Type::String]).pattern(Some(LINES_PATTERN)).build().into()
    }
}

/// [`is_of_lines`] as a regular expression for the schema.
const LINES_PATTERN: &str = r"^(\r\n|[^\u0000-\u0008\u000b-\u001f\u007f])*$";

/// Whether nothing in a text controls anything but where its lines end.
fn is_of_lines(text: &str) -> bool {
    let controls = |octet: u8| octet.is_ascii_control() && !matches!(octet, b'\t' | b'\n');
    !text.replace("\r\n", "\n").bytes().any(controls)
}

/// The options of an API, by their names, in the order in which they were given. A value may be a key: what is shown of it
/// is its size and digest.
#[derive(Clone, PartialEq, Eq)]
pub struct Options(pub Vec<(String, String)>);

impl fmt::Debug for Options {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_set().entries(self.0.iter().map(|(name, _)| name)).finish()
    }
}

impl Options {
    /// What they look like in a job.
    pub(super) fn echo_schema() -> RefOr<Schema> {
        let description = "The options by their names, each value by its size in octets and its SHA-256.";
        let value = Schema::from(digest_schema("bytes", ""));
        types([Type::Object]).additional_properties(Some(value)).description(Some(description)).build().into()
    }
}

impl Field for Options {
    fn expected() -> String {
        let prefixes = OPTION_PREFIXES.join(", ");
        format!(
            "an object of at most {OPTIONS_MAX} strings without control characters, {OPTIONS_BYTES_MAX} octets in all, each \
             under a name of its own that begins with one of {prefixes}"
        )
    }

    fn read(json: &RawValue) -> Option<Options> {
        let Options(list) = plain(json)?;
        let bytes: usize = list.iter().map(|(name, value)| name.len() + value.len()).sum();
        let fits = |(name, value): &(String, String)| {
            let is_known = OPTION_PREFIXES.iter().any(|prefix| name.len() > prefix.len() && name.starts_with(prefix));
            is_known && is_harmless(name) && is_harmless(value)
        };
        (bytes <= OPTIONS_BYTES_MAX && list.iter().all(fits)).then_some(Options(list))
    }

    fn echo(&self) -> impl Serialize {
        self
    }

    fn schema() -> Schema {
        let value = ObjectBuilder::new().schema_type(Type::String).pattern(Some(HARMLESS_PATTERN));
        let name = ObjectBuilder::new().schema_type(Type::String).pattern(Some("^[ohvt]:."));
        types([Type::Object])
            .additional_properties(Some(value))
            .property_names(Some(name))
            .max_properties(Some(OPTIONS_MAX))
            .build()
            .into()
    }
}

impl Serialize for Options {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_map(self.0.iter().map(|(name, value)| (name, digest(value))))
    }
}

/// A name may stand once only, and no more are read than there may be.
impl<'de> Deserialize<'de> for Options {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Options, D::Error> {
        deserializer.deserialize_map(OptionsVisitor)
    }
}

struct OptionsVisitor;

impl<'de> Visitor<'de> for OptionsVisitor {
    type Value = Options;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("an object of strings")
    }

    fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<Options, A::Error> {
        let mut list: Vec<(String, String)> = Vec::new();
        while let Some((name, value)) = map.next_entry::<String, String>()? {
            if list.len() == OPTIONS_MAX || list.iter().any(|(known, _)| *known == name) {
                return Err(de::Error::custom("a name twice, or too many"));
            }
            list.push((name, value));
        }
        Ok(Options(list))
    }
}
