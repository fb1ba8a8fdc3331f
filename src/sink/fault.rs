//! Faults that a sink injects: how they are written, and when they strike.

use crate::phase::Phase;
use crate::time::{Instant, duration_ns};
use crate::wire::smtp::server::{Question, Refusal};
use rand::{Rng, RngExt};
use rand_distr::{Distribution, Exp1};
use std::str::FromStr;
use std::time::Duration;
use thiserror::Error;

/// The longest text of an injected reply, so that its line stays within RFC 5321's 512 octets.
pub const TEXT_BYTES_MAX: usize = 400;

/// A fault that was asked for in a way we do not understand.
#[derive(Clone, Debug, PartialEq, Eq, Error)]
pub enum FaultError {
    /// No `PHASE=` at the beginning.
    #[error("expected PHASE=VALUE, got {got:?}; for example {example}")]
    NoPhase {
        /// What came.
        got: String,
        /// What would have been right.
        example: &'static str,
    },
    /// A phase that does not exist.
    #[error(
        "expected one of the phases banner, ehlo, starttls, auth, mail, rcpt, data, final, http, got {got:?}; for example {example}"
    )]
    UnknownPhase {
        /// What came.
        got: String,
        /// What would have been right.
        example: &'static str,
    },
    /// A duration that is none.
    #[error("expected a duration such as 10ms or 1s, got {got:?}; for example {example}")]
    Duration {
        /// What came.
        got: String,
        /// What would have been right.
        example: &'static str,
    },
    /// A probability that is none.
    #[error("expected a probability from 0% to 100%, got {got:?}; for example {example}")]
    Probability {
        /// What came.
        got: String,
        /// What would have been right.
        example: &'static str,
    },
    /// A reply code that refuses nothing.
    #[error("expected a reply code from 400 to 459 or from 500 to 559, got {got:?}; for example rcpt=451,5%")]
    Code {
        /// What came.
        got: String,
    },
    /// A status that is no failure.
    #[error("expected a status from 400 to 599, got {got:?}; for example http=503,5%")]
    Status {
        /// What came.
        got: String,
    },
    /// A text that cannot be part of a reply.
    #[error("expected a text of 1 to {TEXT_BYTES_MAX} printable ASCII characters, got {got:?}; for example {example}")]
    Text {
        /// What came.
        got: String,
        /// What would have been right.
        example: &'static str,
    },
    /// A stall without its beginning.
    #[error("expected DURATION@START, got {got:?}; for example {STALL_EXAMPLE}")]
    Stall {
        /// What came.
        got: String,
    },
    /// Two faults of one kind that exclude each other.
    #[error("expected at most one {kind} for the phase {phase}, got two")]
    Twice {
        /// `delay` or `drop`.
        kind: &'static str,
        /// The phase's name.
        phase: &'static str,
    },
}

const DELAY_EXAMPLE: &str = "rcpt=10ms or final=exp:10ms";
const REPLY_EXAMPLE: &str = "rcpt=451,5% or rcpt=451,5%,try again later";
const DROP_EXAMPLE: &str = "data=1%";
const STALL_EXAMPLE: &str = "1s@5s, which is silence for 1 s from 5 s after the start";

/// An answer of the sink that a fault may concern.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum FaultPhase {
    /// The greeting.
    Banner,
    /// The reply to EHLO or HELO.
    Ehlo,
    /// The reply to STARTTLS.
    StartTls,
    /// The reply that ends AUTH.
    Auth,
    /// The reply to MAIL.
    Mail,
    /// The reply to RCPT.
    Rcpt,
    /// The reply to DATA.
    Data,
    /// The reply to the message.
    Final,
    /// The response to an HTTP request.
    Http,
}

impl FaultPhase {
    /// All of them.
    pub const ALL: [FaultPhase; 9] = [
        FaultPhase::Banner,
        FaultPhase::Ehlo,
        FaultPhase::StartTls,
        FaultPhase::Auth,
        FaultPhase::Mail,
        FaultPhase::Rcpt,
        FaultPhase::Data,
        FaultPhase::Final,
        FaultPhase::Http,
    ];

    /// As it is written.
    pub const fn name(self) -> &'static str {
        match self {
            FaultPhase::Banner => Phase::Banner.name(),
            FaultPhase::Ehlo => Phase::Ehlo.name(),
            FaultPhase::StartTls => Phase::StartTls.name(),
            FaultPhase::Auth => Phase::Auth.name(),
            FaultPhase::Mail => Phase::Mail.name(),
            FaultPhase::Rcpt => Phase::Rcpt.name(),
            FaultPhase::Data => Phase::Data.name(),
            FaultPhase::Final => Phase::Final.name(),
            FaultPhase::Http => "http",
        }
    }
}

/// The phase in which a question is asked.
#[inline]
pub const fn phase_of(question: &Question<'_>) -> FaultPhase {
    match question {
        Question::Connect => FaultPhase::Banner,
        Question::Ehlo { .. } => FaultPhase::Ehlo,
        Question::StartTls => FaultPhase::StartTls,
        Question::Auth { .. } => FaultPhase::Auth,
        Question::Mail { .. } => FaultPhase::Mail,
        Question::Rcpt { .. } => FaultPhase::Rcpt,
        Question::Data { .. } => FaultPhase::Data,
        Question::Message { .. } => FaultPhase::Final,
    }
}

/// Neither the greeting nor the reply to EHLO carries an enhanced status code (RFC 2034 §4), and HTTP knows none.
const fn has_enhanced_codes(phase: FaultPhase) -> bool {
    !matches!(phase, FaultPhase::Banner | FaultPhase::Ehlo | FaultPhase::Http)
}

/// `PHASE=10ms` or `PHASE=exp:10ms`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct PhaseDelay {
    /// Whose reply waits.
    pub phase: FaultPhase,
    /// For how long, on average.
    pub mean: Duration,
    /// Whether it is exponentially distributed; else it is always the same.
    pub exponential: bool,
}

impl FromStr for PhaseDelay {
    type Err = FaultError;

    fn from_str(text: &str) -> Result<PhaseDelay, FaultError> {
        let (phase, value) = phase_and_value(text, DELAY_EXAMPLE)?;
        let (value, exponential) = match value.strip_prefix("exp:") {
            Some(mean) => (mean, true),
            None => (value, false),
        };
        Ok(PhaseDelay { phase, mean: duration(value, DELAY_EXAMPLE)?, exponential })
    }
}

/// `PHASE=451`, `PHASE=451,5%` or `PHASE=451,5%,text`.
#[derive(Clone, Debug, PartialEq)]
pub struct PhaseReply {
    /// Whose reply it takes the place of.
    pub phase: FaultPhase,
    /// The reply.
    pub refusal: Refusal,
    /// From 0 to 1.
    pub probability: f64,
}

impl FromStr for PhaseReply {
    type Err = FaultError;

    fn from_str(text: &str) -> Result<PhaseReply, FaultError> {
        let (phase, value) = phase_and_value(text, REPLY_EXAMPLE)?;
        let mut parts = value.splitn(3, ',');
        let code = reply_code(phase, parts.next().unwrap_or_default())?;
        let probability = parts.next().map_or(Ok(1.0), |part| probability(part, REPLY_EXAMPLE))?;
        let text = parts.next().unwrap_or("fault injected by the sink");
        if text.is_empty() || text.len() > TEXT_BYTES_MAX || !text.bytes().all(|octet| matches!(octet, b' '..=b'~')) {
            return Err(FaultError::Text { got: text.into(), example: REPLY_EXAMPLE });
        }
        let enhanced = if has_enhanced_codes(phase) { enhanced_code(code) } else { "" };
        let line = format!("{code} {enhanced}{text}\r\n");
        Ok(PhaseReply { phase, refusal: Refusal::new(line.into_bytes().into()), probability })
    }
}

/// `PHASE=1%`.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct PhaseDrop {
    /// In place of whose reply the connection is dropped.
    pub phase: FaultPhase,
    /// From 0 to 1.
    pub probability: f64,
}

impl FromStr for PhaseDrop {
    type Err = FaultError;

    fn from_str(text: &str) -> Result<PhaseDrop, FaultError> {
        let (phase, value) = phase_and_value(text, DROP_EXAMPLE)?;
        Ok(PhaseDrop { phase, probability: probability(value, DROP_EXAMPLE)? })
    }
}

/// `1s@5s`: no reply leaves within this span; those that would are held to its end.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Stall {
    /// How long it lasts.
    pub length: Duration,
    /// When it begins, from the start of the sink.
    pub after: Duration,
}

impl FromStr for Stall {
    type Err = FaultError;

    fn from_str(text: &str) -> Result<Stall, FaultError> {
        let (length, after) = text.split_once('@').ok_or_else(|| FaultError::Stall { got: text.into() })?;
        Ok(Stall { length: duration(length, STALL_EXAMPLE)?, after: duration(after, STALL_EXAMPLE)? })
    }
}

impl Stall {
    /// When a reply that is due at `due` goes out, if the sink started at `start`.
    #[inline]
    pub fn release(&self, start: Instant, due: Instant) -> Instant {
        let begin = start + self.after;
        let end = begin + self.length;
        if due >= begin && due < end { end } else { due }
    }
}

/// What is to go wrong in one phase.
#[derive(Clone, Debug, Default)]
struct PhaseFaults {
    delay: Option<PhaseDelay>,
    replies: Vec<PhaseReply>,
    drop: Option<PhaseDrop>,
}

/// What strikes one reply.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Struck {
    /// The connection is dropped instead.
    pub drop: bool,
    /// This is sent instead.
    pub refusal: Option<Refusal>,
    /// It is held for so long.
    pub hold: Duration,
}

/// All faults of a sink.
#[derive(Clone, Debug, Default)]
pub struct Faults {
    phases: [PhaseFaults; FaultPhase::ALL.len()],
    /// Silence for all sessions.
    pub stall: Option<Stall>,
}

impl Faults {
    /// Of those that were asked for. Several replies for one phase are tried in their order.
    pub fn new(
        delays: impl IntoIterator<Item = PhaseDelay>,
        replies: impl IntoIterator<Item = PhaseReply>,
        drops: impl IntoIterator<Item = PhaseDrop>,
        stall: Option<Stall>,
    ) -> Result<Faults, FaultError> {
        let mut faults = Faults { stall, ..Faults::default() };
        for delay in delays {
            let twice = FaultError::Twice { kind: "delay", phase: delay.phase.name() };
            let earlier = faults.phases[delay.phase as usize].delay.replace(delay);
            earlier.map_or(Ok(()), |_| Err(twice))?;
        }
        for reply in replies {
            faults.phases[reply.phase as usize].replies.push(reply);
        }
        for drop in drops {
            let twice = FaultError::Twice { kind: "drop", phase: drop.phase.name() };
            let earlier = faults.phases[drop.phase as usize].drop.replace(drop);
            earlier.map_or(Ok(()), |_| Err(twice))?;
        }
        Ok(faults)
    }

    /// What strikes the next reply of `phase`. Draws nothing from `random` for a phase without faults.
    #[inline]
    pub fn strike(&self, phase: FaultPhase, random: &mut impl Rng) -> Struck {
        let faults = &self.phases[phase as usize];
        let mut struck = Struck::default();
        if let Some(drop) = &faults.drop {
            struck.drop = random.random_bool(drop.probability);
        }
        for reply in &faults.replies {
            if random.random_bool(reply.probability) && struck.refusal.is_none() {
                struck.refusal = Some(reply.refusal.clone());
            }
        }
        if let Some(delay) = &faults.delay {
            struck.hold = match delay.exponential {
                false => delay.mean,
                true => {
                    let factor: f64 = Exp1.sample(random);
                    Duration::from_nanos((duration_ns(delay.mean) as f64 * factor) as u64)
                }
            };
        }
        struck
    }
}

fn phase_and_value<'a>(text: &'a str, example: &'static str) -> Result<(FaultPhase, &'a str), FaultError> {
    let (name, value) = text.split_once('=').ok_or_else(|| FaultError::NoPhase { got: text.into(), example })?;
    match FaultPhase::ALL.into_iter().find(|phase| phase.name() == name) {
        Some(phase) => Ok((phase, value)),
        None => Err(FaultError::UnknownPhase { got: name.into(), example }),
    }
}

fn duration(text: &str, example: &'static str) -> Result<Duration, FaultError> {
    humantime::parse_duration(text).map_err(|_| FaultError::Duration { got: text.into(), example })
}

fn probability(text: &str, example: &'static str) -> Result<f64, FaultError> {
    let percent = text.strip_suffix('%').and_then(|percent| percent.parse::<f64>().ok());
    match percent {
        Some(percent) if (0.0..=100.0).contains(&percent) => Ok(percent / 100.0),
        _ => Err(FaultError::Probability { got: text.into(), example }),
    }
}

fn reply_code(phase: FaultPhase, text: &str) -> Result<u16, FaultError> {
    match (phase, text.as_bytes()) {
        // RFC 9110 §15.5 and §15.6.
        (FaultPhase::Http, [b'4' | b'5', b'0'..=b'9', b'0'..=b'9']) => text.parse().ok(),
        // The ranges of RFC 5321 §4.2.
        (_, [b'4' | b'5', b'0'..=b'5', b'0'..=b'9']) => text.parse().ok(),
        _ => None,
    }
    .ok_or_else(|| match phase {
        FaultPhase::Http => FaultError::Status { got: text.into() },
        _ => FaultError::Code { got: text.into() },
    })
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

#[cfg(test)]
mod tests {
    use super::*;
    use rand::SeedableRng;
    use rand_pcg::Pcg64;

    fn line(text: &str) -> String {
        let reply: PhaseReply = text.parse().unwrap();
        String::from_utf8(reply.refusal.line().to_vec()).unwrap()
    }

    #[test]
    fn replies_carry_a_fitting_enhanced_code_where_one_belongs() {
        assert_eq!(line("rcpt=451,5%"), "451 4.3.0 fault injected by the sink\r\n");
        assert_eq!(line("final=554"), "554 5.0.0 fault injected by the sink\r\n");
        assert_eq!(line("data=550,100%,no, never"), "550 5.7.1 no, never\r\n");
        assert_eq!(line("banner=421"), "421 fault injected by the sink\r\n");
        assert_eq!(line("http=599"), "599 fault injected by the sink\r\n");
        assert_eq!(line("ehlo=550"), "550 fault injected by the sink\r\n");
        for code in (400..460).chain(500..560) {
            let line = line(&format!("mail={code}"));
            assert_eq!(line.as_bytes()[0], line.as_bytes()[4], "{line}");
        }
    }

    #[test]
    fn values_are_read() {
        let delay = |mean_ms, exponential| PhaseDelay {
            phase: FaultPhase::Rcpt,
            mean: Duration::from_millis(mean_ms),
            exponential,
        };
        assert_eq!("rcpt=10ms".parse(), Ok(delay(10, false)));
        assert_eq!("rcpt=exp:1s".parse(), Ok(delay(1000, true)));
        assert_eq!("final=0.5%".parse(), Ok(PhaseDrop { phase: FaultPhase::Final, probability: 0.005 }));
        let stall = Stall { length: Duration::from_secs(1), after: Duration::from_secs(5) };
        assert_eq!("1s@5s".parse(), Ok(stall));
    }

    #[test]
    fn errors_say_what_was_expected_and_what_came() {
        let delay = |text: &str| text.parse::<PhaseDelay>().unwrap_err().to_string();
        let reply = |text: &str| text.parse::<PhaseReply>().unwrap_err().to_string();
        let drop = |text: &str| text.parse::<PhaseDrop>().unwrap_err().to_string();
        for (error, expected) in [
            (delay("10ms"), "expected PHASE=VALUE, got \"10ms\"; for example rcpt=10ms or final=exp:10ms"),
            (
                delay("body=10ms"),
                "expected one of the phases banner, ehlo, starttls, auth, mail, rcpt, data, final, http, got \"body\"; for example rcpt=10ms or final=exp:10ms",
            ),
            (
                delay("rcpt=10"),
                "expected a duration such as 10ms or 1s, got \"10\"; for example rcpt=10ms or final=exp:10ms",
            ),
            (drop("rcpt=5"), "expected a probability from 0% to 100%, got \"5\"; for example data=1%"),
            (drop("rcpt=101%"), "expected a probability from 0% to 100%, got \"101%\"; for example data=1%"),
            (drop("rcpt=NaN%"), "expected a probability from 0% to 100%, got \"NaN%\"; for example data=1%"),
            (
                reply("rcpt=250"),
                "expected a reply code from 400 to 459 or from 500 to 559, got \"250\"; for example rcpt=451,5%",
            ),
            (reply("http=302"), "expected a status from 400 to 599, got \"302\"; for example http=503,5%"),
            (
                reply("rcpt=+51"),
                "expected a reply code from 400 to 459 or from 500 to 559, got \"+51\"; for example rcpt=451,5%",
            ),
            (
                "5s".parse::<Stall>().unwrap_err().to_string(),
                "expected DURATION@START, got \"5s\"; for example 1s@5s, which is silence for 1 s from 5 s after the start",
            ),
        ] {
            assert_eq!(error, expected);
        }
        assert!(reply("rcpt=451,5%,a\r\nb").starts_with("expected a text of 1 to 400 printable ASCII characters"));
        let twice = Faults::new(["rcpt=1s".parse().unwrap(), "rcpt=2s".parse().unwrap()], [], [], None);
        assert_eq!(twice.unwrap_err().to_string(), "expected at most one delay for the phase rcpt, got two");
    }

    #[test]
    fn a_stall_holds_replies_to_its_end() {
        let stall: Stall = "1s@5s".parse().unwrap();
        let at = |ms: u64| Instant::from_ns(ms * 1_000_000);
        for (due, released) in [(5_999, 5_999), (6_000, 7_000), (6_999, 7_000), (7_000, 7_000), (8_000, 8_000)] {
            assert_eq!(stall.release(at(1_000), at(due)), at(released));
        }
    }

    #[test]
    fn faults_strike_as_often_as_was_asked_for() {
        let faults = Faults::new(
            ["mail=exp:10ms".parse().unwrap()],
            ["rcpt=451,20%".parse().unwrap(), "rcpt=550,50%".parse().unwrap()],
            ["data=5%".parse().unwrap()],
            None,
        )
        .unwrap();
        let mut random = Pcg64::seed_from_u64(1);
        let (mut hold, mut first, mut second, mut drops) = (Duration::ZERO, 0, 0, 0);
        for _ in 0..10_000 {
            hold += faults.strike(FaultPhase::Mail, &mut random).hold;
            match faults.strike(FaultPhase::Rcpt, &mut random).refusal {
                Some(refusal) if refusal.line().starts_with(b"451") => first += 1,
                Some(_) => second += 1,
                None => {}
            }
            drops += u32::from(faults.strike(FaultPhase::Data, &mut random).drop);
            assert_eq!(faults.strike(FaultPhase::Final, &mut random), Struck::default());
        }
        assert!((97..103).contains(&hold.as_secs()), "{hold:?}");
        assert!((1_850..2_150).contains(&first), "{first}");
        // Half of those that the first reply left.
        assert!((3_850..4_150).contains(&second), "{second}");
        assert!((430..570).contains(&drops), "{drops}");
    }
}
