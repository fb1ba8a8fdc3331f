//! What a request's form says of a message, and what is wrong with it.

use super::addresses;
use crate::wire::http::form::{Fields, FormError, FormReader, Wanted};

/// Recipients of one request.
pub const RECIPIENTS_MAX: u32 = 1_000;

/// Octets of all parameters that begin with `o:`, `h:`, `v:` or `t:`, their names included.
pub const OPTIONS_BYTES_MAX: u64 = 16 << 10;

/// Octets of the largest message, its attachments as they are sent.
pub const MESSAGE_BYTES_MAX: u64 = 25 << 20;

/// Octets of one value that is looked at: more than 1,000 addresses, or variables of as many recipients, need.
const VALUE_BYTES_MAX: usize = 4 << 20;

/// Memory that is kept for the values of the next request.
const IDLE_BYTES_MAX: usize = 4 << 10;

/// What makes a request one that Mailgun refuses, with its status.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Refused {
    Form(FormError),
    FromMissing,
    FromInvalid,
    ToMissing,
    ToInvalid,
    CcInvalid,
    BccInvalid,
    TooManyRecipients,
    NoContent,
    HtmlAndTemplate,
    NoMessageFile,
    RecipientVariables,
    OptionsTooLarge,
    TooLarge,
}

impl Refused {
    pub(super) fn status(self) -> u16 {
        if self == Refused::TooLarge { 413 } else { 400 }
    }

    pub(super) fn text(self) -> &'static str {
        match self {
            Refused::Form(FormError::ContentType) => {
                "expected Content-Type: multipart/form-data or application/x-www-form-urlencoded"
            }
            Refused::Form(FormError::Boundary) => "expected a boundary of 1 to 70 characters in Content-Type",
            Refused::Form(_) => "the body is no form of the type that Content-Type says",
            Refused::FromMissing => "from parameter is missing",
            Refused::FromInvalid => "from parameter is not a valid address. please check documentation",
            Refused::ToMissing => "to parameter is missing",
            Refused::ToInvalid => "to parameter is not a valid address. please check documentation",
            Refused::CcInvalid => "cc parameter is not a valid address. please check documentation",
            Refused::BccInvalid => "bcc parameter is not a valid address. please check documentation",
            Refused::TooManyRecipients => "Too many recipients, max is 1000",
            Refused::NoContent => "Need at least one of 'text' or 'html' parameters specified",
            Refused::HtmlAndTemplate => "Only one parameters 'html' or 'template' is allowed",
            Refused::NoMessageFile => "'message' parameter is not a file",
            Refused::RecipientVariables => "'recipient-variables' parameter is not a valid JSON",
            Refused::OptionsTooLarge => {
                "Send options (parameters starting with o:, h:, v:, or t:) are limited to 16KB total"
            }
            Refused::TooLarge => "Message is too large",
        }
    }
}

/// Which endpoint was asked.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) enum Endpoint {
    /// `/messages`.
    #[default]
    Messages,
    /// `/messages.mime`.
    Mime,
}

/// The parameters that mean something here.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Parameter {
    From,
    To,
    Cc,
    Bcc,
    /// `text`, `amp-html`.
    Text,
    Html,
    Template,
    /// `attachment`, `inline`.
    File,
    /// `message`.
    Message,
    RecipientVariables,
    /// `o:`, `h:`, `v:`, `t:`.
    Option,
    Other,
}

impl Parameter {
    fn of(name: &[u8]) -> Parameter {
        match name {
            b"from" => Parameter::From,
            b"to" => Parameter::To,
            b"cc" => Parameter::Cc,
            b"bcc" => Parameter::Bcc,
            b"text" | b"amp-html" => Parameter::Text,
            b"html" => Parameter::Html,
            b"template" => Parameter::Template,
            b"attachment" | b"inline" => Parameter::File,
            b"message" => Parameter::Message,
            b"recipient-variables" => Parameter::RecipientVariables,
            [b'o' | b'h' | b'v' | b't', b':', ..] => Parameter::Option,
            _ => Parameter::Other,
        }
    }
}

/// A message that is being received.
#[derive(Debug, Default)]
pub(super) struct Message {
    form: Option<FormReader>,
    seen: Seen,
}

/// What is known of its parameters so far.
#[derive(Debug, Default)]
struct Seen {
    endpoint: Endpoint,
    bytes_max: u64,
    parameter: Option<Parameter>,
    /// The value of the parameter that is being read, where it is looked into.
    value: Vec<u8>,
    recipients: u32,
    options_bytes: u64,
    message_bytes: u64,
    has_from: bool,
    has_to: bool,
    has_text: bool,
    has_html: bool,
    has_template: bool,
    has_message_file: bool,
    /// What was found to be wrong first.
    refused: Option<Refused>,
}

impl Message {
    /// Begins the next one, which comes with this content type.
    pub(super) fn begin(&mut self, endpoint: Endpoint, bytes_max: u64, content_type: Option<&[u8]>) {
        let mut value = std::mem::take(&mut self.seen.value);
        value.clear();
        value.shrink_to(IDLE_BYTES_MAX);
        self.seen = Seen { endpoint, bytes_max, value, ..Seen::default() };
        match FormReader::new(content_type.unwrap_or_default()) {
            Ok(form) => self.form = Some(form),
            Err(error) => {
                self.form = None;
                self.seen.refused = Some(Refused::Form(error));
            }
        }
    }

    #[inline]
    pub(super) fn content(&mut self, octets: &[u8]) {
        let Some(form) = &mut self.form else { return };
        if let Err(error) = form.read(octets, &mut self.seen) {
            self.fail(error);
        }
    }

    fn fail(&mut self, error: FormError) {
        self.form = None;
        self.seen.refuse(Refused::Form(error));
    }

    /// All of it has arrived: its recipients, or what is wrong with it.
    pub(super) fn end(&mut self) -> Result<u32, Refused> {
        if let Some(form) = &mut self.form
            && let Err(error) = form.end(&mut self.seen)
        {
            self.fail(error);
        }
        self.seen.verdict()
    }
}

impl Seen {
    fn refuse(&mut self, refused: Refused) {
        self.refused.get_or_insert(refused);
    }

    /// What is missing is told before what is wrong, as Mailgun does.
    fn verdict(&self) -> Result<u32, Refused> {
        if let Some(refused @ (Refused::Form(_) | Refused::TooLarge)) = self.refused {
            return Err(refused);
        }
        let has_content = self.has_text || self.has_html || self.has_template;
        match self.endpoint {
            // A template may have a From field of its own.
            Endpoint::Messages if !self.has_from && !self.has_template => return Err(Refused::FromMissing),
            _ if !self.has_to => return Err(Refused::ToMissing),
            Endpoint::Messages if self.refused.is_none() && !has_content => return Err(Refused::NoContent),
            Endpoint::Messages if self.has_html && self.has_template => return Err(Refused::HtmlAndTemplate),
            Endpoint::Mime if self.refused.is_none() && !self.has_message_file => return Err(Refused::NoMessageFile),
            _ => {}
        }
        self.refused.map_or(Ok(self.recipients), Err)
    }

    fn add_bytes(&mut self, octets: u64) {
        match self.parameter {
            Some(Parameter::Option) => {
                self.options_bytes += octets;
                if self.options_bytes > OPTIONS_BYTES_MAX {
                    self.refuse(Refused::OptionsTooLarge);
                }
            }
            Some(Parameter::Text | Parameter::Html | Parameter::File | Parameter::Message) => {
                self.message_bytes += octets;
                if self.message_bytes > self.bytes_max {
                    // It outranks what else is wrong: a client has to know that it is its size.
                    self.refused = Some(Refused::TooLarge);
                }
            }
            _ => {}
        }
        self.value.clear();
        self.value.shrink_to(IDLE_BYTES_MAX);
    }

    /// The addresses of one value.
    fn addresses(&mut self, invalid: Refused) -> u32 {
        match addresses::count(&self.value) {
            Some(number) => number,
            None => {
                self.refuse(invalid);
                0
            }
        }
    }

    fn add_recipients(&mut self, invalid: Refused) -> bool {
        let number = self.addresses(invalid);
        self.recipients = self.recipients.saturating_add(number);
        if self.recipients > RECIPIENTS_MAX {
            self.refuse(Refused::TooManyRecipients);
        }
        !self.value.trim_ascii().is_empty()
    }
}

impl Fields for Seen {
    fn begin(&mut self, name: &[u8], is_file: bool) -> Wanted {
        let parameter = Parameter::of(name);
        self.parameter = Some(parameter);
        self.value.clear();
        match parameter {
            Parameter::From | Parameter::To | Parameter::Cc | Parameter::Bcc | Parameter::RecipientVariables => {
                return Wanted::Content;
            }
            Parameter::Option => self.add_bytes(name.len() as u64),
            Parameter::Message => self.has_message_file |= is_file,
            Parameter::Text => self.has_text = true,
            Parameter::Html => self.has_html = true,
            Parameter::Template => self.has_template = true,
            Parameter::File | Parameter::Other => {}
        }
        Wanted::Length
    }

    #[inline]
    fn content(&mut self, octets: &[u8]) {
        if self.value.len() + octets.len() <= VALUE_BYTES_MAX {
            return self.value.extend_from_slice(octets);
        }
        self.refuse(match self.parameter {
            Some(Parameter::From) => Refused::FromInvalid,
            Some(Parameter::RecipientVariables) => Refused::RecipientVariables,
            _ => Refused::TooManyRecipients,
        });
    }

    fn length(&mut self, octets: u64) {
        self.add_bytes(octets);
    }

    fn end(&mut self) {
        match self.parameter.take() {
            Some(Parameter::From) => {
                self.has_from |= !self.value.trim_ascii().is_empty();
                if self.addresses(Refused::FromInvalid) > 1 {
                    self.refuse(Refused::FromInvalid);
                }
            }
            Some(Parameter::To) => self.has_to |= self.add_recipients(Refused::ToInvalid),
            Some(Parameter::Cc) => {
                self.add_recipients(Refused::CcInvalid);
            }
            Some(Parameter::Bcc) => {
                self.add_recipients(Refused::BccInvalid);
            }
            Some(Parameter::RecipientVariables) => {
                let is_object = self.value.trim_ascii_start().starts_with(b"{");
                if !is_object || serde_json::from_slice::<serde::de::IgnoredAny>(&self.value).is_err() {
                    self.refuse(Refused::RecipientVariables);
                }
            }
            _ => {}
        }
    }
}
