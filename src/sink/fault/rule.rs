//! One rule of faults, and how it is written: `PHASE[:TO]=ACTION[,CONDITION…][,TEXT]`.

use std::fmt;
use std::str::FromStr;
use std::time::Duration;

use thiserror::Error;

use super::phase::{FaultPhase, Kind, TlsFault};
use crate::sink::capacity::RateLimit;
use crate::wire::smtp::server::{Capabilities, Capability};

/// The longest rule, with room for a probability that is printed with all of its digits.
pub const RULE_BYTES_MAX: usize = 2_048;
/// The longest number of a rate.
const RATE_BYTES_MAX: usize = 32;
/// The longest text of an injected reply, so that its line stays within RFC 5321's 512 octets.
pub const TEXT_BYTES_MAX: usize = 400;
/// The longest pattern of recipients, like a path (RFC 5321 §4.5.3.1.3).
pub const PATTERN_BYTES_MAX: usize = 256;
/// Octets a second of the fastest slow read: beyond it, a turn of the loop is longer than a pause.
pub const SLOW_BYTES_PER_S_MAX: u32 = 1_000_000;
/// The longest delay, and the longest time of a greylist.
pub const TIME_MAX: Duration = Duration::from_secs(24 * 3_600);
/// Characters of what came that an error shows.
const SHOWN_CHARS_MAX: usize = 80;

const TEXT_USUAL: &str = "fault injected by the sink";
const EXAMPLE: &str = "rcpt=451,5%,try again later";
const DELAY_EXAMPLE: &str = "rcpt=10ms or final=exp:10ms";
const DROP_EXAMPLE: &str = "data=1%";
const ACTIONS: &str = "CODE, drop, reset, delay:TIME, delay:exp:TIME, slow:OCTETS/s, refuse, expired, wrong-name or \
                       without:CAPABILITY";
const CONDITIONS: &str = "5%, above:100/s, connections:10, connections:10/address or greylist:5m";

/// A fault that was asked for in a way we do not understand.
#[derive(Clone, Debug, PartialEq, Eq, Error)]
#[error("expected {expected}, got {got:?}; for example {example}")]
pub struct FaultError {
    expected: String,
    got: String,
    example: &'static str,
}

impl FaultError {
    fn new(expected: impl Into<String>, got: &str, example: &'static str) -> FaultError {
        FaultError { expected: expected.into(), got: got.chars().take(SHOWN_CHARS_MAX).collect(), example }
    }
}

/// What goes wrong, where, and when.
#[derive(Clone, Debug, PartialEq)]
pub struct Rule {
    pub(super) phase: FaultPhase,
    /// Whom the message is for: one recipient at least; everybody where there is none.
    pub(super) to: Option<Pattern>,
    pub(super) action: Action,
    pub(super) conditions: Conditions,
}

/// What happens.
#[derive(Clone, Debug, PartialEq)]
pub(super) enum Action {
    /// Another reply, of 4xx or 5xx.
    Reply { code: u16, text: Option<String> },
    /// The connection is closed.
    Drop,
    /// The connection is reset.
    Reset,
    /// The reply waits.
    Delay { mean: Duration, exponential: bool },
    /// From then on the client is read slowly.
    Slow { bytes_per_s: u32 },
    /// The TLS handshake fails.
    Tls(TlsFault),
    /// Capabilities are not offered.
    Without(Capabilities),
}

impl Action {
    pub(super) fn kind(&self) -> Kind {
        match self {
            Action::Reply { .. } => Kind::Reply,
            Action::Drop => Kind::Drop,
            Action::Reset => Kind::Reset,
            Action::Delay { .. } => Kind::Delay,
            Action::Slow { .. } => Kind::Slow,
            Action::Tls(TlsFault::Refuse) => Kind::Refuse,
            Action::Tls(TlsFault::Expired) => Kind::Expired,
            Action::Tls(TlsFault::WrongName) => Kind::WrongName,
            Action::Tls(TlsFault::Drop) => Kind::Drop,
            Action::Tls(TlsFault::Reset) => Kind::Reset,
            Action::Without(_) => Kind::Without,
        }
    }
}

/// What must all be true for it to happen.
#[derive(Clone, Debug, Default, PartialEq)]
pub(super) struct Conditions {
    /// How often, from 0 to 100.
    pub(super) percent: Option<f64>,
    /// More a second than this, over all shards: as it was written.
    pub(super) above: Option<String>,
    /// More connections open than this.
    pub(super) connections: Option<Connections>,
    /// The first try of sender, recipient and client was less than this ago.
    pub(super) greylist: Option<Duration>,
}

/// A cap of connections.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Connections {
    pub(super) most: u32,
    /// Those of one address; else of all.
    pub(super) of_address: bool,
}

impl FromStr for Rule {
    type Err = FaultError;

    fn from_str(text: &str) -> Result<Rule, FaultError> {
        let ((phase, to), mut action, mut rest) = parts(text)?;
        let mut conditions = Conditions::default();
        let mut is_first = true;
        while let Some(left) = rest {
            let (part, behind) = left.split_once(',').map_or((left, None), |(part, behind)| (part, Some(behind)));
            if conditions.take(part)? {
                (rest, is_first) = (behind, false);
                continue;
            }
            // A text stands behind a condition, so that a condition that is misspelt is not taken for one.
            let Action::Reply { text, .. } = &mut action else {
                return Err(FaultError::new(format!("one of the conditions {CONDITIONS}"), part, EXAMPLE));
            };
            if is_first {
                let expected = format!("one of the conditions {CONDITIONS}, and a text behind it alone");
                return Err(FaultError::new(expected, part, EXAMPLE));
            }
            *text = Some(reply_text(left)?);
            break;
        }
        Rule { phase, to, action, conditions }.checked(text)
    }
}

impl Rule {
    /// `PHASE=TIME` or `PHASE=exp:TIME`, the short form of a delay.
    ///
    /// # Errors
    ///
    /// What was expected, and what came.
    pub fn delay(text: &str) -> Result<Rule, FaultError> {
        let (phase, to, value) = short(text, DELAY_EXAMPLE)?;
        let action = delay(value, DELAY_EXAMPLE)?;
        Rule { phase, to, action, conditions: Conditions::default() }.checked(text)
    }

    /// `PHASE=P%`, the short form of a drop.
    ///
    /// # Errors
    ///
    /// What was expected, and what came.
    pub fn drop(text: &str) -> Result<Rule, FaultError> {
        let (phase, to, value) = short(text, DROP_EXAMPLE)?;
        let percent = Some(percent(value, DROP_EXAMPLE)?);
        let action = if phase == FaultPhase::Tls { Action::Tls(TlsFault::Drop) } else { Action::Drop };
        Rule { phase, to, action, conditions: Conditions { percent, ..Conditions::default() } }.checked(text)
    }

    /// `PHASE=CODE[,P%[,TEXT]]`, which is a rule as it stands.
    ///
    /// # Errors
    ///
    /// What was expected, and what came.
    pub fn reply(text: &str) -> Result<Rule, FaultError> {
        let rule: Rule = text.parse()?;
        match rule.action {
            Action::Reply { .. } => Ok(rule),
            _ => Err(FaultError::new("a reply code", text, EXAMPLE)),
        }
    }

    /// The whole reply, for an action that is one.
    pub(super) fn reply_line(&self) -> Option<String> {
        let Action::Reply { code, text } = &self.action else { return None };
        let enhanced = if self.phase.has_enhanced_codes() { enhanced_code(*code) } else { "" };
        Some(format!("{code} {enhanced}{}\r\n", text.as_deref().unwrap_or(TEXT_USUAL)))
    }

    /// Whether its parts go together.
    fn checked(self, text: &str) -> Result<Rule, FaultError> {
        let Rule { phase, to, action, conditions } = &self;
        let is_smtp = *phase != FaultPhase::Http;
        let (fits, expected) = match action {
            Action::Reply { .. } => (*phase == FaultPhase::Http || phase.is_replied_to(), "drop or reset, at connect"),
            Action::Delay { .. } => {
                (*phase == FaultPhase::Http || phase.is_replied_to(), "a delay of a reply, so not at connect or tls")
            }
            Action::Slow { .. } => (phase.is_replied_to(), "a slow read in a phase of SMTP that is replied to"),
            Action::Drop | Action::Tls(_) => (true, ""),
            Action::Reset => (is_smtp, "drop, at http"),
            Action::Without(_) => (
                *phase == FaultPhase::Ehlo && *conditions == Conditions::default(),
                "without:CAPABILITY at ehlo alone, and always",
            ),
        };
        if !fits {
            return Err(FaultError::new(expected, text, EXAMPLE));
        }
        if to.is_some() && !matches!(phase, FaultPhase::Rcpt | FaultPhase::Data | FaultPhase::Final) {
            let expected = "a pattern of recipients at rcpt, data or final alone";
            return Err(FaultError::new(expected, text, "rcpt:*@example.com=451,5%"));
        }
        let is_deferral = matches!(action, Action::Reply { code: 400..500, .. });
        if conditions.greylist.is_some() && !(*phase == FaultPhase::Rcpt && is_deferral) {
            return Err(FaultError::new("a greylist at rcpt alone, with a code of 4xx", text, "rcpt=450,greylist:5m"));
        }
        if conditions.connections.is_some() && !is_smtp {
            let expected = "a cap of connections at connect, tls or a phase of SMTP";
            return Err(FaultError::new(expected, text, "connect=drop,connections:100"));
        }
        Ok(self)
    }
}

impl Conditions {
    /// Whether a part is a condition; then it is noted.
    fn take(&mut self, part: &str) -> Result<bool, FaultError> {
        let is_new = if let Some(rate) = part.strip_prefix("above:") {
            let expected = "above:RATE/s with a rate above 0";
            Some(rate)
                .filter(|rate| rate.len() <= RATE_BYTES_MAX)
                .unwrap_or_default()
                .parse::<RateLimit>()
                .map_err(|_| FaultError::new(expected, part, "mail=421,above:100/s"))?;
            self.above.replace(rate.to_owned()).is_none()
        } else if let Some(cap) = part.strip_prefix("connections:") {
            let (most, of_address) = cap.strip_suffix("/address").map_or((cap, false), |most| (most, true));
            let expected = "connections:NUMBER or connections:NUMBER/address";
            let most =
                whole(most).ok_or_else(|| FaultError::new(expected, part, "banner=421,connections:10/address"))?;
            self.connections.replace(Connections { most, of_address }).is_none()
        } else if let Some(time) = part.strip_prefix("greylist:") {
            self.greylist.replace(duration(time, "rcpt=450,greylist:5m")?).is_none()
        } else if part.strip_suffix('%').is_some_and(is_like_a_number) {
            self.percent.replace(percent(part, EXAMPLE)?).is_none()
        } else {
            return Ok(false);
        };
        match is_new {
            true => Ok(true),
            false => Err(FaultError::new("each kind of condition once", part, EXAMPLE)),
        }
    }
}

/// A rule's phase, and whom it is for.
type Head = (FaultPhase, Option<Pattern>);

/// A rule's head, its action, and what stands behind that.
fn parts(text: &str) -> Result<(Head, Action, Option<&str>), FaultError> {
    bounded(text, EXAMPLE)?;
    // A pattern may hold equals signs and commas, and an action neither: it stands behind the first equals sign that one follows.
    let holds_none = |at: &usize| text[at + 1..].split(',').next().is_some_and(|action| !action.contains('='));
    let mut wrong = None;
    for at in text.match_indices('=').map(|(at, _)| at).filter(holds_none) {
        let value = &text[at + 1..];
        let (name, rest) = value.split_once(',').map_or((value, None), |(name, rest)| (name, Some(rest)));
        match head(&text[..at], EXAMPLE).and_then(|(phase, to)| Ok(((phase, to), action(phase, name)?, rest))) {
            Ok(parts) => return Ok(parts),
            Err(error) => wrong = wrong.or(Some(error)),
        }
    }
    Err(wrong.unwrap_or_else(|| FaultError::new("PHASE=VALUE", text, EXAMPLE)))
}

/// The phase of a short form, whom it is for, and its value, which holds no equals sign.
fn short<'a>(text: &'a str, example: &'static str) -> Result<(FaultPhase, Option<Pattern>, &'a str), FaultError> {
    bounded(text, example)?;
    let (before, value) = text.rsplit_once('=').ok_or_else(|| FaultError::new("PHASE=VALUE", text, example))?;
    head(before, example).map(|(phase, to)| (phase, to, value))
}

fn bounded(text: &str, example: &'static str) -> Result<(), FaultError> {
    match text.len() > RULE_BYTES_MAX {
        true => Err(FaultError::new(format!("a rule of at most {RULE_BYTES_MAX} octets"), text, example)),
        false => Ok(()),
    }
}

/// The phase, and whom it is for.
fn head(head: &str, example: &'static str) -> Result<Head, FaultError> {
    let (name, to) = head.split_once(':').map_or((head, None), |(name, to)| (name, Some(to)));
    let Some(phase) = FaultPhase::ALL.into_iter().find(|phase| phase.name() == name) else {
        let names = FaultPhase::ALL.map(FaultPhase::name).join(", ");
        return Err(FaultError::new(format!("one of the phases {names}"), name, example));
    };
    Ok((phase, to.map(Pattern::parse).transpose()?))
}

fn action(phase: FaultPhase, text: &str) -> Result<Action, FaultError> {
    if let (FaultPhase::Tls, Some(fault)) = (phase, TLS_FAULTS.iter().find(|(name, _)| *name == text)) {
        return Ok(Action::Tls(fault.1));
    }
    if phase == FaultPhase::Tls {
        return Err(FaultError::new("one of refuse, expired, wrong-name, drop and reset", text, "tls=expired,10%"));
    }
    if let Some(time) = text.strip_prefix("delay:") {
        return delay(time, "rcpt=delay:10ms or final=delay:exp:10ms");
    }
    if let Some(rate) = text.strip_prefix("slow:") {
        let bytes_per_s = rate.strip_suffix("/s").and_then(whole).filter(|n| (1..=SLOW_BYTES_PER_S_MAX).contains(n));
        let expected = || format!("slow:OCTETS/s, with 1 to {SLOW_BYTES_PER_S_MAX} octets");
        let wrong = || FaultError::new(expected(), text, "data=slow:10/s");
        return bytes_per_s.map(|bytes_per_s| Action::Slow { bytes_per_s }).ok_or_else(wrong);
    }
    if let Some(names) = text.strip_prefix("without:") {
        return without(names);
    }
    match text {
        "drop" => Ok(Action::Drop),
        "reset" => Ok(Action::Reset),
        "refuse" | "expired" | "wrong-name" => {
            Err(FaultError::new("refuse, expired and wrong-name at tls alone", text, "tls=expired,10%"))
        }
        code => Ok(Action::Reply { code: reply_code(phase, code)?, text: None }),
    }
}

const TLS_FAULTS: [(&str, TlsFault); 5] = [
    ("refuse", TlsFault::Refuse),
    ("expired", TlsFault::Expired),
    ("wrong-name", TlsFault::WrongName),
    ("drop", TlsFault::Drop),
    ("reset", TlsFault::Reset),
];

fn without(names: &str) -> Result<Action, FaultError> {
    let mut all = Capabilities::default();
    for name in names.split('+') {
        let known = Capability::ALL.into_iter().find(|capability| capability.name().eq_ignore_ascii_case(name));
        let expected = || format!("capabilities out of {}", Capability::ALL.map(Capability::name).join(", "));
        all = all.with(known.ok_or_else(|| FaultError::new(expected(), name, "ehlo=without:PIPELINING+SIZE"))?);
    }
    Ok(Action::Without(all))
}

fn delay(text: &str, example: &'static str) -> Result<Action, FaultError> {
    let (mean, exponential) = text.strip_prefix("exp:").map_or((text, false), |mean| (mean, true));
    Ok(Action::Delay { mean: duration(mean, example)?, exponential })
}

fn duration(text: &str, example: &'static str) -> Result<Duration, FaultError> {
    let expected = || format!("a duration such as 10ms or 1s, at most {}", humantime::format_duration(TIME_MAX));
    let duration = humantime::parse_duration(text).ok().filter(|duration| *duration <= TIME_MAX);
    duration.ok_or_else(|| FaultError::new(expected(), text, example))
}

/// Whether what stands before a percent sign means a number, and not the beginning of a text.
fn is_like_a_number(text: &str) -> bool {
    let begins = text.starts_with(|first: char| first.is_ascii_digit() || "+-.".contains(first));
    text.parse::<f64>().is_ok() || begins && !text.contains(char::is_whitespace)
}

fn percent(text: &str, example: &'static str) -> Result<f64, FaultError> {
    let percent = text.strip_suffix('%').and_then(|percent| percent.parse::<f64>().ok());
    let percent = percent.filter(|percent| (0.0..=100.0).contains(percent));
    percent.ok_or_else(|| FaultError::new("a probability from 0% to 100%", text, example))
}

fn whole(text: &str) -> Option<u32> {
    text.bytes().all(|octet| octet.is_ascii_digit()).then(|| text.parse().ok())?
}

fn reply_text(text: &str) -> Result<String, FaultError> {
    match (1..=TEXT_BYTES_MAX).contains(&text.len()) && text.bytes().all(|octet| matches!(octet, b' '..=b'~')) {
        true => Ok(text.to_owned()),
        false => {
            let expected = format!("a text of 1 to {TEXT_BYTES_MAX} printable ASCII characters");
            Err(FaultError::new(expected, text, EXAMPLE))
        }
    }
}

fn reply_code(phase: FaultPhase, text: &str) -> Result<u16, FaultError> {
    let is_code = match (phase, text.as_bytes()) {
        // RFC 9110 §15.5 and §15.6.
        (FaultPhase::Http, [b'4' | b'5', b'0'..=b'9', b'0'..=b'9']) => true,
        // The ranges of RFC 5321 §4.2.
        (_, [b'4' | b'5', b'0'..=b'5', b'0'..=b'9']) => phase != FaultPhase::Http,
        _ => false,
    };
    let wrong = || match phase {
        FaultPhase::Http => FaultError::new("a status from 400 to 599, drop or delay:TIME", text, "http=503,5%"),
        _ if text.bytes().all(|octet| octet.is_ascii_digit()) => {
            FaultError::new("a reply code from 400 to 459 or from 500 to 559", text, EXAMPLE)
        }
        _ => FaultError::new(format!("one of the actions {ACTIONS}"), text, EXAMPLE),
    };
    is_code.then(|| text.parse().ok()).flatten().ok_or_else(wrong)
}

/// The enhanced status code (RFC 3463) that goes best with a reply code, and a space.
fn enhanced_code(code: u16) -> &'static str {
    match code {
        421 => "4.3.2 ",
        450 => "4.2.1 ",
        451 => "4.3.0 ",
        452 => "4.3.1 ",
        454 => "4.7.0 ",
        455 => "4.5.4 ",
        504 | 555 => "5.5.4 ",
        500 | 501 => "5.5.2 ",
        502 | 503 => "5.5.1 ",
        530 | 535 => "5.7.0 ",
        550 => "5.7.1 ",
        551 => "5.1.6 ",
        552 => "5.2.2 ",
        553 => "5.1.3 ",
        556 => "5.1.10 ",
        ..500 => "4.0.0 ",
        _ => "5.0.0 ",
    }
}

/// A pattern of addresses: `*` stands for any octets, `?` for one. Case does not matter.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Pattern(String);

impl Pattern {
    fn parse(text: &str) -> Result<Pattern, FaultError> {
        match (1..=PATTERN_BYTES_MAX).contains(&text.len()) && text.bytes().all(|octet| octet.is_ascii_graphic()) {
            true => Ok(Pattern(text.to_owned())),
            false => {
                let expected =
                    format!("a pattern of 1 to {PATTERN_BYTES_MAX} printable ASCII characters without spaces");
                Err(FaultError::new(expected, text, "rcpt:*@example.com=451,5%"))
            }
        }
    }

    /// Whether an address fits. At most as many steps as the product of both lengths.
    pub(super) fn fits(&self, address: &[u8]) -> bool {
        let pattern = self.0.as_bytes();
        let (mut at, mut in_pattern) = (0, 0);
        // Where to go on when what stands behind the last star does not fit: it takes one octet more.
        let mut star: Option<(usize, usize)> = None;
        while at < address.len() {
            match pattern.get(in_pattern) {
                Some(b'*') => {
                    star = Some((in_pattern, at));
                    in_pattern += 1;
                }
                Some(octet) if *octet == b'?' || octet.eq_ignore_ascii_case(&address[at]) => {
                    in_pattern += 1;
                    at += 1;
                }
                _ => match &mut star {
                    Some((of_star, taken)) => {
                        *taken += 1;
                        (in_pattern, at) = (*of_star + 1, *taken);
                    }
                    None => return false,
                },
            }
        }
        pattern[in_pattern..].iter().all(|octet| *octet == b'*')
    }
}

impl fmt::Display for Rule {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.phase.name())?;
        self.to.as_ref().map_or(Ok(()), |to| write!(f, ":{}", to.0))?;
        f.write_str("=")?;
        let mut text = None;
        match &self.action {
            Action::Reply { code, text: given } => {
                text = given.as_deref();
                write!(f, "{code}")?;
            }
            Action::Delay { mean, exponential } => {
                let exp = if *exponential { "exp:" } else { "" };
                write!(f, "delay:{exp}{}", humantime::format_duration(*mean))?;
            }
            Action::Slow { bytes_per_s } => write!(f, "slow:{bytes_per_s}/s")?,
            Action::Without(capabilities) => {
                let names: Vec<&str> = capabilities.iter().map(Capability::name).collect();
                write!(f, "without:{}", names.join("+"))?;
            }
            Action::Drop | Action::Reset | Action::Tls(_) => f.write_str(self.action.kind().name())?,
        }
        let Conditions { percent, above, connections, greylist } = &self.conditions;
        percent.map_or(Ok(()), |percent| write!(f, ",{percent}%"))?;
        above.as_ref().map_or(Ok(()), |rate| write!(f, ",above:{rate}"))?;
        if let Some(Connections { most, of_address }) = connections {
            write!(f, ",connections:{most}{}", if *of_address { "/address" } else { "" })?;
        }
        greylist.map_or(Ok(()), |time| write!(f, ",greylist:{}", humantime::format_duration(time)))?;
        text.map_or(Ok(()), |text| write!(f, ",{text}"))
    }
}

#[cfg(test)]
mod tests;
