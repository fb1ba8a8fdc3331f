//! Recipient variables: what differs in a message from recipient to recipient.

use std::collections::BTreeMap;
use std::fmt;

use serde_json::Value;

use super::escape::Escape;
use super::{AddressBuffer, MAILBOX_BYTES_MAX, Recipients};

/// Most octets of the JSON that recipient variables are given as.
pub const VARIABLES_BYTES_MAX: usize = 16 << 20;
/// Most octets of one variable with its name, as it stands in a header field: it cannot be folded, and a line has no room
/// for more.
const FIELD_MEMBER_BYTES_MAX: usize = 900;
/// The field that takes them by SMTP (Mailgun's documentation, "Batch sending").
pub(super) const FIELD_BEGIN: &[u8] = b"X-Mailgun-Recipient-Variables: {";
/// How far a line of the field is filled, in octets, where its members allow.
const FIELD_LINE_BYTES: usize = 76;

/// The variables of each recipient, by its address: Mailgun's form, `{"bob@x":{"first":"Bob","id":1}}`.
#[derive(Clone, Default, PartialEq, Eq)]
pub struct RecipientVariables {
    recipients: BTreeMap<String, BTreeMap<String, Value>>,
}

/// Recipient variables that no message can have.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum VariablesError {
    /// The text is too long.
    #[error("expected at most {VARIABLES_BYTES_MAX} octets, got {0}; split the job")]
    TooLong(usize),
    /// It is no JSON of that form.
    #[error(
        "expected the JSON of an object with an object of scalar values for each recipient, as {{\"bob@x\":{{\"id\":1}}}}, \
         got {0}"
    )]
    Form(String),
    /// A name or value could break out of its line, or control whatever shows it.
    #[error("expected names and values without control characters, got one in what {0:?} has; remove it")]
    Control(String),
    /// A variable fits into no line of a header.
    #[error(
        "expected variables of at most {FIELD_MEMBER_BYTES_MAX} octets as JSON, which a header's line has room for, got \
         {got} in {name:?} of {recipient:?}; shorten it, or let `expand` put it into the message"
    )]
    Member {
        /// Whose it is.
        recipient: String,
        /// Its name.
        name: String,
        /// Its octets.
        got: usize,
    },
}

impl fmt::Debug for RecipientVariables {
    /// Whose they are is nobody's business in a log.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "RecipientVariables(of {})", self.recipients.len())
    }
}

/// What is kept ready of each recipient, by its address.
pub(super) type ByRecipient<T> = BTreeMap<Box<[u8]>, T>;
/// Values of a recipient's variables in a known order; `None` where one lacks.
pub(super) type Row = Box<[Option<Box<[u8]>>]>;

impl RecipientVariables {
    /// Reads the JSON of an object with an object of scalar values for each recipient. `null` is an empty value.
    ///
    /// # Errors
    ///
    /// When it is anything else, is longer than [`VARIABLES_BYTES_MAX`], or holds a control character of ASCII.
    pub fn parse(json: &[u8]) -> Result<RecipientVariables, VariablesError> {
        if json.len() > VARIABLES_BYTES_MAX {
            return Err(VariablesError::TooLong(json.len()));
        }
        let recipients: BTreeMap<String, BTreeMap<String, Value>> =
            serde_json::from_slice(json).map_err(|error| VariablesError::Form(error.to_string()))?;
        let breaks = |text: &str| text.bytes().any(|octet| octet.is_ascii_control());
        for (recipient, variables) in &recipients {
            if recipient.len() > MAILBOX_BYTES_MAX {
                return Err(VariablesError::Form(format!("{:?} as an address", shortened(recipient))));
            }
            let control = || VariablesError::Control(recipient.chars().take(60).collect());
            if breaks(recipient) {
                return Err(control());
            }
            for (name, value) in variables {
                if breaks(name) || value.as_str().is_some_and(breaks) {
                    return Err(control());
                }
                if value.is_array() || value.is_object() {
                    return Err(VariablesError::Form(format!("a list or an object as {:?}", shortened(name))));
                }
            }
        }
        Ok(RecipientVariables { recipients })
    }

    /// Recipients that have variables.
    pub fn len(&self) -> usize {
        self.recipients.len()
    }

    /// Whether all their values are ASCII.
    pub(super) fn is_ascii(&self) -> bool {
        let mut values = self.recipients.values().flat_map(BTreeMap::values);
        values.all(|value| value.as_str().is_none_or(str::is_ascii))
    }

    /// Whether this recipient has any.
    pub(super) fn contains(&self, recipient: &[u8]) -> bool {
        std::str::from_utf8(recipient).is_ok_and(|recipient| self.recipients.contains_key(recipient))
    }

    /// Whether nobody has any.
    pub fn is_empty(&self) -> bool {
        self.recipients.is_empty()
    }

    /// Most octets that the variables of so many recipients have as JSON.
    pub fn bytes_of(&self, recipients: u32) -> usize {
        let mut members: Vec<usize> = self.members(Escape::None).values().map(|member| member.len()).collect();
        members.sort_unstable_by(|one, other| other.cmp(one));
        members.iter().take(recipients as usize).sum()
    }

    /// The values of these names for each recipient, written in this way.
    pub(super) fn values(&self, names: &[String], escape: Escape) -> ByRecipient<Row> {
        let of = |variables: &BTreeMap<String, Value>| {
            let value = |name| variables.get(name).map(|value| escape.text(text(value).as_bytes()).into());
            names.iter().map(value).collect()
        };
        self.recipients.iter().map(|(recipient, variables)| (recipient.as_bytes().into(), of(variables))).collect()
    }

    /// The member of each recipient, `"bob@x":{"id":1}`, of the object that Mailgun takes, written in this way.
    pub(super) fn members(&self, escape: Escape) -> ByRecipient<Box<[u8]>> {
        let of = |recipient: &String, variables| {
            let member = format!("{}:{}", Value::from(recipient.as_str()), serde_json::json!(variables));
            escape.text(member.as_bytes()).into()
        };
        let all = self.recipients.iter();
        all.map(|(recipient, variables)| (recipient.as_bytes().into(), of(recipient, variables))).collect()
    }

    /// The same in ASCII, on lines of its own: each begins with CRLF and a blank, and none is longer than a header's may
    /// be (RFC 5322, 2.2.3).
    pub(super) fn folded_members(&self) -> Result<ByRecipient<Box<[u8]>>, VariablesError> {
        let all = self.recipients.iter();
        all.map(|(recipient, variables)| {
            let mut text = format!("\r\n {}:{{", ascii(&Value::from(recipient.as_str())));
            let mut line = text.len() - 2;
            for (i, (name, value)) in variables.iter().enumerate() {
                let member = format!("{}:{}", ascii(&Value::from(name.as_str())), ascii(value));
                if member.len() > FIELD_MEMBER_BYTES_MAX {
                    let (recipient, name) = (shortened(recipient), shortened(name));
                    return Err(VariablesError::Member { recipient, name, got: member.len() });
                }
                if i > 0 {
                    text.push(',');
                    line += 1;
                }
                if line + member.len() > FIELD_LINE_BYTES {
                    text.push_str("\r\n ");
                    line = 1;
                }
                text.push_str(&member);
                line += member.len();
            }
            text.push('}');
            Ok((recipient.as_bytes().into(), text.into_bytes().into()))
        })
        .collect()
    }
}

impl Recipients {
    /// Gives the members that recipients of message `sequence` have, with commas between them.
    #[inline]
    pub(super) fn each_member(
        &self,
        sequence: u64,
        members: &ByRecipient<Box<[u8]>>,
        comma: &[u8],
        push: &mut impl FnMut(&[u8]),
    ) {
        let mut buffer = AddressBuffer::new();
        let mut is_first = true;
        for j in 0..self.per_message() {
            let Some(member) = members.get(self.of(sequence, j, &mut buffer)) else { continue };
            if !std::mem::replace(&mut is_first, false) {
                push(comma);
            }
            push(member);
        }
    }
}

fn shortened(text: &str) -> String {
    text.chars().take(60).collect()
}

/// A value as it stands in a text.
fn text(value: &Value) -> String {
    match value {
        Value::Null => String::new(),
        Value::String(text) => text.clone(),
        value => value.to_string(),
    }
}

/// JSON without a character beyond ASCII.
fn ascii(value: &Value) -> String {
    let mut ascii = String::new();
    for c in value.to_string().chars() {
        match c.is_ascii() {
            true => ascii.push(c),
            false => c.encode_utf16(&mut [0; 2]).iter().for_each(|unit| ascii.push_str(&format!("\\u{unit:04x}"))),
        }
    }
    ascii
}

#[cfg(test)]
mod tests {
    use super::*;

    fn parse(json: &str) -> Result<RecipientVariables, VariablesError> {
        RecipientVariables::parse(json.as_bytes())
    }

    #[test]
    fn values_are_text_whatever_their_kind() {
        let variables = parse(r#"{"bob@x":{"first":"Bob \"B\"","id":1,"on":true,"none":null},"al@x":{}}"#).unwrap();
        let names = ["first", "id", "on", "none", "other"].map(str::to_owned);
        let values = variables.values(&names, Escape::Json);
        let bob: Vec<_> = values[&b"bob@x"[..]].iter().map(|value| value.as_deref()).collect();
        assert_eq!(bob, [Some(&b"Bob \\\"B\\\""[..]), Some(b"1"), Some(b"true"), Some(b""), None]);
        assert!(values[&b"al@x"[..]].iter().all(Option::is_none));
        assert_eq!(variables.len(), 2);
        assert_eq!(format!("{variables:?}"), "RecipientVariables(of 2)");
    }

    #[test]
    fn what_could_break_a_line_is_refused() {
        for json in [
            r#"{"a@x":{"v":"a\r\nb"}}"#,
            r#"{"a@x":{"v":"\n"}}"#,
            r#"{"a@x":{"v\u0000":1}}"#,
            r#"{"a\r@x":{"v":1}}"#,
            r#"{"a\n@x":{}}"#,
        ] {
            assert!(matches!(parse(json), Err(VariablesError::Control(_))), "{json}");
        }
        for json in ["", "[]", "{\"a\":1}", r#"{"a@x":{"v":[1]}}"#, r#"{"a@x":{"v":{}}}"#, "{} {}"] {
            assert!(matches!(parse(json), Err(VariablesError::Form(_))), "{json}");
        }
        let long = vec![b' '; VARIABLES_BYTES_MAX + 1];
        assert_eq!(RecipientVariables::parse(&long), Err(VariablesError::TooLong(long.len())));
    }

    #[test]
    fn a_folded_member_is_ascii_in_short_lines_and_the_same_json() {
        let words = "word ".repeat(100);
        let json =
            serde_json::json!({"jörg@x": {"a": "é😀", "b": words, "c": "x".repeat(60), "d": "y".repeat(60), "e": 1}});
        let variables = parse(&json.to_string()).unwrap();
        let members = variables.folded_members().unwrap();
        let folded = String::from_utf8(members["jörg@x".as_bytes()].to_vec()).unwrap();
        assert!(folded.is_ascii() && folded.starts_with("\r\n "));
        assert!(folded[2..].split("\r\n").all(|line| line.len() <= 998 && (line.starts_with(' '))), "{folded}");
        let unfolded = format!("{{{}}}", folded.replace("\r\n", ""));
        assert_eq!(serde_json::from_str::<Value>(&unfolded).unwrap(), json);
        let long = parse(&format!(r#"{{"a@x":{{"v":"{}"}}}}"#, "é".repeat(200))).unwrap().folded_members();
        assert!(matches!(long, Err(VariablesError::Member { got: 1206, .. })), "{long:?}");
    }
}
