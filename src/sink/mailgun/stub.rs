//! What the stub answers.

use std::time::Duration;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use secrecy::{ExposeSecret, SecretString};
use subtle::ConstantTimeEq;

use super::counts::HttpCounts;
use super::message::{Endpoint, MESSAGE_BYTES_MAX, Message, Refused};
use crate::sink::capacity::{Capacity, RateLimit};
use crate::sink::fault::{FaultPhase, Faults, Striker};
use crate::sink::stall::Stall;
use crate::time::{Instant, WallTime};
use crate::wire::http::server::{Answer, Decision, Event, Intake, Policy, RequestHead};

/// Octets of content of the largest request: 52.4 MiB.
pub const REQUEST_BYTES_MAX: u64 = 54_945_382;

/// Octets of `user:key` in an Authorization field, encoded.
const CREDENTIALS_BYTES_MAX: usize = 1_024;

/// Octets of a domain (RFC 1035 §2.3.4).
const DOMAIN_BYTES_MAX: usize = 253;

/// The user that the keys of Mailgun belong to.
const USER: &[u8] = b"api";

/// For how long a client is asked to stay away whose message finds the line of a [`Capacity`] full.
const FULL_RETRY: Duration = Duration::from_secs(1);

const FORBIDDEN: Fixed =
    Fixed { status: 401, fields: b"WWW-Authenticate: Basic realm=\"MG API\"\r\n", json: b"\"Forbidden\"" };
const NOT_FOUND: Fixed = Fixed {
    status: 404,
    fields: b"",
    json: br#"{"message":"Not Found: expected /v3/DOMAIN/messages or /v3/DOMAIN/messages.mime"}"#,
};
const NOT_ALLOWED: Fixed =
    Fixed { status: 405, fields: b"Allow: POST\r\n", json: br#"{"message":"Method Not Allowed: expected POST"}"# };

/// An answer that is always the same.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Fixed {
    status: u16,
    fields: &'static [u8],
    json: &'static [u8],
}

/// What a stub is told.
#[derive(Clone, Debug)]
pub struct StubSettings {
    /// Domains that messages are taken for, in any case; every domain if there is none.
    pub accept_domains: Vec<String>,
    /// The only key that is right; without it, any key is.
    pub key: Option<SecretString>,
    /// Messages a second above which the answer is 429.
    pub rate: Option<RateLimit>,
    /// What is to go wrong.
    pub faults: Faults,
    /// When nothing is said at all.
    pub stall: Option<Stall>,
    /// How many messages a second are accepted, one after the other; without it, as many as come.
    pub capacity: Option<Capacity>,
    /// Octets of the largest message, at most [`MESSAGE_BYTES_MAX`].
    pub message_bytes_max: u64,
    /// The calendar time of the sink's start.
    pub wall_start: WallTime,
    /// Makes ids unlike those of any other shard and run.
    pub id_nonce: u64,
}

impl Default for StubSettings {
    fn default() -> StubSettings {
        StubSettings {
            accept_domains: Vec::new(),
            key: None,
            rate: None,
            faults: Faults::default(),
            stall: None,
            capacity: None,
            message_bytes_max: MESSAGE_BYTES_MAX,
            wall_start: WallTime::default(),
            id_nonce: 0,
        }
    }
}

/// The policy of one shard of a stub.
#[derive(Debug)]
pub struct Stub {
    settings: StubSettings,
    /// When the sink started; stalls count from it.
    start: Instant,
    /// There is none where nothing goes wrong.
    striker: Option<Box<Striker>>,
    seed: u64,
    counts: HttpCounts,
    next_id: u64,
    /// What the answer in hand is made of.
    fields: Vec<u8>,
    json: Vec<u8>,
}

/// What the stub remembers of the request that a session is receiving.
#[derive(Debug, Default)]
pub struct Request {
    domain: Vec<u8>,
    message: Message,
    bytes: u64,
    /// The answer, where it is known from the head.
    known: Option<Known>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Known {
    Fixed(&'static Fixed),
    NoDomain,
}

impl Stub {
    /// The policy of a shard that starts at `start`. `seed` repeats the rolls of its faults; each shard needs its own.
    pub fn new(settings: StubSettings, start: Instant, seed: u64) -> Stub {
        Stub {
            striker: Striker::new(&settings.faults, start, seed),
            settings,
            start,
            seed,
            counts: HttpCounts::default(),
            next_id: 0,
            fields: Vec::new(),
            json: Vec::new(),
        }
    }

    /// Other faults take the place of these, at once.
    pub fn set_faults(&mut self, faults: Faults) {
        self.striker = Striker::new(&faults, self.start, self.seed);
        self.settings.faults = faults;
    }

    /// What has arrived so far.
    pub fn counts(&self) -> &HttpCounts {
        &self.counts
    }

    fn is_taken(&self, domain: &[u8]) -> bool {
        let domains = &self.settings.accept_domains;
        domains.is_empty() || domains.iter().any(|taken| domain.eq_ignore_ascii_case(taken.as_bytes()))
    }

    /// `Basic`, and the user `api` with the key (RFC 7617).
    fn is_authorized(&self, field: Option<&[u8]>) -> bool {
        let Some((scheme, encoded)) = field.and_then(|field| field.split_at_checked(6)) else { return false };
        let mut decoded = [0; CREDENTIALS_BYTES_MAX];
        let Ok(length) = STANDARD.decode_slice(encoded.trim_ascii(), &mut decoded) else { return false };
        let Some((user, key)) = decoded[..length].split_at_checked(USER.len()) else { return false };
        let key = key.strip_prefix(b":").filter(|_| scheme.eq_ignore_ascii_case(b"Basic ") && user == USER);
        match (key, &self.settings.key) {
            (Some(key), Some(right)) => key.ct_eq(right.expose_secret().as_bytes()).into(),
            (key, None) => key.is_some(),
            (None, _) => false,
        }
    }

    fn fixed(fixed: &'static Fixed, hold: Duration) -> Decision<'static> {
        let Fixed { status, fields, json } = *fixed;
        Decision { answer: Some(Answer { status, fields, json }), hold }
    }

    /// `{"message":"…"}` with what is written by `text`, which needs no escapes.
    fn say(&mut self, status: u16, hold: Duration, text: &[&[u8]]) -> Decision<'_> {
        self.json.clear();
        self.json.extend_from_slice(br#"{"message":""#);
        for part in text {
            self.json.extend_from_slice(part);
        }
        self.json.extend_from_slice(br#""}"#);
        Decision { answer: Some(Answer { status, fields: &self.fields, json: &self.json }), hold }
    }

    /// 429, and when to come back.
    fn too_many(&mut self, now: Instant, retry: Duration, hold: Duration, text: &[&[u8]]) -> Decision<'_> {
        let seconds = retry.as_secs() + u64::from(retry.subsec_nanos() > 0);
        let reset = (self.settings.wall_start.as_unix_ns() + now.ns_since(self.start)) / 1_000_000_000 + seconds;
        let mut number = itoa::Buffer::new();
        self.fields.extend_from_slice(b"Retry-After: ");
        self.fields.extend_from_slice(number.format(seconds).as_bytes());
        self.fields.extend_from_slice(b"\r\nX-RateLimit-Reset: ");
        self.fields.extend_from_slice(itoa::Buffer::new().format(reset).as_bytes());
        self.fields.extend_from_slice(b"\r\n");
        let again = [b", try again after ", number.format(seconds).as_bytes(), b" seconds"].concat();
        let text = [text, &[&again]].concat();
        self.say(429, hold, &text)
    }
}

/// The endpoint and the domain in a request's target, in origin or absolute form (RFC 9112 §3.2).
fn route(target: &str) -> Option<(Endpoint, &str)> {
    let path = match target.split_once("://") {
        Some((_, rest)) if !target.starts_with('/') => &rest[rest.find('/')?..],
        _ => target,
    };
    let path = path.split_once('?').map_or(path, |(path, _)| path);
    let (domain, endpoint) = path.strip_prefix("/v3/")?.split_once('/')?;
    match endpoint {
        "messages" => Some((Endpoint::Messages, domain)),
        "messages.mime" => Some((Endpoint::Mime, domain)),
        _ => None,
    }
}

/// What may stand in an id and in an answer as it is.
fn is_domain(text: &str) -> bool {
    (1..=DOMAIN_BYTES_MAX).contains(&text.len())
        && text.bytes().all(|octet| octet.is_ascii_alphanumeric() || matches!(octet, b'-' | b'.' | b'_'))
}

impl Policy for Stub {
    type Request = Request;

    fn begin(&mut self, _now: Instant, head: &RequestHead<'_>, request: &mut Request) -> Intake {
        request.bytes = 0;
        request.domain.clear();
        let routed = route(head.target).filter(|(_, domain)| is_domain(domain));
        request.known = match routed {
            None => Some(Known::Fixed(&NOT_FOUND)),
            Some(_) if head.method != "POST" => Some(Known::Fixed(&NOT_ALLOWED)),
            Some(_) if !self.is_authorized(head.field("authorization")) => Some(Known::Fixed(&FORBIDDEN)),
            Some((endpoint, domain)) => {
                request.domain.extend_from_slice(domain.as_bytes());
                let content_type = head.field("content-type");
                request.message.begin(endpoint, self.settings.message_bytes_max, content_type);
                (!self.is_taken(domain.as_bytes())).then_some(Known::NoDomain)
            }
        };
        if request.known.is_some() { Intake::Discard } else { Intake::Read }
    }

    #[inline]
    fn content(&mut self, request: &mut Request, octets: &[u8]) {
        request.bytes += octets.len() as u64;
        request.message.content(octets);
    }

    fn decide(&mut self, now: Instant, request: &mut Request) -> Decision<'_> {
        let strike = |striker: &mut Box<Striker>| striker.strike(now, FaultPhase::Http, None);
        let struck = self.striker.as_mut().map(strike).unwrap_or_default();
        let mut hold = struck.hold;
        self.fields.clear();
        if struck.drop {
            return Decision { answer: None, hold };
        }
        if let Some(refusal) = struck.refusal {
            let (status, text) = refusal.code_and_text();
            self.json.clear();
            // What is injected may hold a quote.
            let text = serde_json::to_vec(&String::from_utf8_lossy(text)).unwrap_or_default();
            self.json.extend_from_slice(br#"{"message":"#);
            self.json.extend_from_slice(&text);
            self.json.push(b'}');
            return Decision { answer: Some(Answer { status, fields: b"", json: &self.json }), hold };
        }
        match request.known {
            Some(Known::Fixed(fixed)) => return Stub::fixed(fixed, hold),
            Some(Known::NoDomain) => return self.say(404, hold, &[b"Domain not found: ", &request.domain]),
            None => {}
        }
        let recipients = match request.message.end() {
            Ok(recipients) => recipients,
            Err(Refused::TooLarge) => {
                let mut number = itoa::Buffer::new();
                let limit = number.format(self.settings.message_bytes_max).as_bytes();
                let text = Refused::TooLarge.text().as_bytes();
                return self.say(Refused::TooLarge.status(), hold, &[text, b", max is ", limit, b" bytes"]);
            }
            Err(refused) => return self.say(refused.status(), hold, &[refused.text().as_bytes()]),
        };
        if let Some(Err(retry)) = self.settings.rate.as_ref().map(|rate| rate.admit(self.start, now)) {
            let text: [&[u8]; 3] =
                [b"Domain ", &request.domain, b" is not allowed to send: requests-per-sec limit exceeded"];
            return self.too_many(now, retry, hold, &text);
        }
        if let Some(capacity) = &self.settings.capacity {
            match capacity.admit(self.start, now) {
                Some(wait) => hold += wait,
                None => return self.too_many(now, FULL_RETRY, hold, &[b"Too many messages in line"]),
            }
        }
        self.counts.messages += 1;
        self.counts.recipients += u64::from(recipients);
        self.counts.bytes += request.bytes;
        self.next_id += 1;
        self.json.clear();
        self.json.extend_from_slice(br#"{"id":"<"#);
        self.json.extend_from_slice(itoa::Buffer::new().format(self.next_id).as_bytes());
        self.json.push(b'.');
        self.json.extend_from_slice(itoa::Buffer::new().format(self.settings.id_nonce).as_bytes());
        self.json.push(b'@');
        self.json.extend_from_slice(&request.domain);
        self.json.extend_from_slice(br#">","message":"Queued. Thank you."}"#);
        Decision { answer: Some(Answer { status: 200, fields: b"", json: &self.json }), hold }
    }

    #[inline]
    fn release(&self, due: Instant) -> Instant {
        self.settings.stall.map_or(due, |stall| stall.release(self.start, due))
    }

    #[inline]
    fn observe(&mut self, event: Event) {
        match event {
            Event::SessionOpened => self.counts.connections += 1,
            Event::Secured { resumed } => {
                self.counts.tls_handshakes += 1;
                self.counts.tls_resumed += u64::from(resumed);
            }
            Event::Answered { status } => {
                self.counts.requests += 1;
                *self.counts.statuses.entry(status).or_default() += 1;
            }
            Event::Error(_) => self.counts.errors += 1,
        }
    }
}

#[cfg(test)]
mod tests;
