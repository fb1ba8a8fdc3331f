//! The kinds of values of the fields that say what is sent: sizes and texts.

use serde::Deserialize;
use serde::ser::Serialize;
use serde_json::json;
use serde_json::value::RawValue;
use utoipa::openapi::RefOr;
use utoipa::openapi::schema::{AnyOfBuilder, ArrayBuilder, ObjectBuilder, Schema, Type};

use super::field::{Field, digest_schema, or_null, plain, sha256, types};
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

/// A text of any length. Echoed as its size and digest.
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
        "a string".to_owned()
    }

    fn read(json: &RawValue) -> Option<Text> {
        plain(json).map(Text)
    }

    fn echo(&self) -> impl Serialize {
        json!({ "bytes": self.0.len(), "sha256": sha256(&self.0) })
    }

    fn schema() -> Schema {
        types([Type::String]).build().into()
    }
}
