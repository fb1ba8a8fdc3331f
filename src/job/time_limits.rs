//! Time limits: one for every phase, and others for some.

use std::collections::BTreeMap;
use std::time::Duration;

use super::plan::CONNECT_TIMEOUT;
use super::spec::{SpecError, TIMEOUT_MAX};
use crate::phase::Phase;
use crate::wire::http::client as http;
use crate::wire::smtp::client::Timeouts;

/// What a time limit is called that is for every phase without one of its own.
pub const DEFAULT: &str = "default";
/// The phases that can have a time limit of their own.
pub const LIMITED: [Phase; 14] = [
    Phase::Connect,
    Phase::Tls,
    Phase::Banner,
    Phase::Ehlo,
    Phase::StartTls,
    Phase::Auth,
    Phase::Mail,
    Phase::Rcpt,
    Phase::Data,
    Phase::Final,
    Phase::Rset,
    Phase::Quit,
    Phase::FirstByte,
    Phase::LastByte,
];

/// How long each phase may take. A limit of zero stands for the usual one: that of RFC 5321 §4.5.3.2 for a reply by
/// SMTP, [`http::TIMEOUT`] by HTTP, and [`CONNECT_TIMEOUT`] for the connect.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct TimeLimits {
    /// Of every phase without a limit of its own; `None` is as zero.
    pub default: Option<Duration>,
    /// Of some phases, all of them in [`LIMITED`].
    pub phases: BTreeMap<Phase, Duration>,
}

impl From<Duration> for TimeLimits {
    fn from(default: Duration) -> TimeLimits {
        TimeLimits { default: Some(default), phases: BTreeMap::new() }
    }
}

impl TimeLimits {
    /// Reads `10s`, `connect=5s,data=1m`, or both in one: `10s,connect=5s`.
    ///
    /// # Errors
    ///
    /// When a time is none, or a phase is unknown or there twice. How long a limit may be is looked at by
    /// [`TimeLimits::checked`].
    pub fn parse(text: &str) -> Result<TimeLimits, String> {
        let mut limits = TimeLimits::default();
        for part in text.split(',') {
            let (name, time) = part.split_once('=').map_or((DEFAULT, part), |(name, time)| (name.trim(), time));
            let limit = humantime::parse_duration(time.trim()).map_err(|error| {
                format!("expected TIME or PHASE=TIME, such as 10s or connect=5s,data=1m, got {part:?}: {error}")
            })?;
            limits.set(name, limit)?;
        }
        Ok(limits)
    }

    /// Sets the limit of a phase, or that of all others under the name of [`DEFAULT`].
    ///
    /// # Errors
    ///
    /// When there is no such phase, or it has a limit already.
    pub fn set(&mut self, name: &str, limit: Duration) -> Result<(), String> {
        let before = match LIMITED.into_iter().find(|phase| phase.name().eq_ignore_ascii_case(name)) {
            Some(phase) => self.phases.insert(phase, limit),
            None if name.eq_ignore_ascii_case(DEFAULT) => self.default.replace(limit),
            None => {
                let known = LIMITED.map(Phase::name).join(", ");
                return Err(format!("expected a phase, one of {known}, or {DEFAULT} for all others, got {name:?}"));
            }
        };
        before.map_or(Ok(()), |_| Err(format!("expected one time limit of {name}, got two")))
    }

    /// The same without limits of zero that say nothing, if none is too long.
    ///
    /// # Errors
    ///
    /// When one is longer than [`TIMEOUT_MAX`].
    pub fn checked(mut self) -> Result<TimeLimits, SpecError> {
        let named = self.phases.iter().map(|(phase, limit)| (phase.name(), *limit));
        let mut all = named.chain(self.default.map(|limit| (DEFAULT, limit)));
        if let Some((name, limit)) = all.find(|(_, limit)| *limit > TIMEOUT_MAX) {
            let of = if name == DEFAULT { String::new() } else { format!("{name}=") };
            let expected = "at most 1 hour, or 0s for the limits of RFC 5321";
            return Err(SpecError::new("timeout", expected, format!("{of}{limit:?}")));
        }
        self.default = self.default.filter(|limit| !limit.is_zero());
        Ok(self)
    }

    /// The limit of a phase, if it is not the usual one.
    fn of(&self, phase: Phase) -> Option<Duration> {
        let limit = self.phases.get(&phase).copied().or(self.default);
        limit.filter(|limit| !limit.is_zero())
    }

    /// That of the connect.
    pub fn connect(&self) -> Duration {
        self.of(Phase::Connect).unwrap_or(CONNECT_TIMEOUT)
    }

    /// Those of an HTTP connection.
    pub fn http(&self) -> http::Timeouts {
        let of = |phase| self.of(phase).unwrap_or(http::TIMEOUT);
        http::Timeouts { tls: of(Phase::Tls), first_byte: of(Phase::FirstByte), last_byte: of(Phase::LastByte) }
    }

    /// Those of an SMTP session.
    pub fn smtp(&self) -> Timeouts {
        let mut limits = self.default.filter(|limit| !limit.is_zero()).map_or(Timeouts::RFC_5321, Timeouts::uniform);
        let usual = Timeouts::RFC_5321;
        let each = [
            (Phase::Tls, &mut limits.tls, usual.tls),
            (Phase::Banner, &mut limits.banner, usual.banner),
            (Phase::Ehlo, &mut limits.ehlo, usual.ehlo),
            (Phase::StartTls, &mut limits.starttls, usual.starttls),
            (Phase::Auth, &mut limits.auth, usual.auth),
            (Phase::Mail, &mut limits.mail, usual.mail),
            (Phase::Rcpt, &mut limits.rcpt, usual.rcpt),
            (Phase::Data, &mut limits.data, usual.data),
            (Phase::Final, &mut limits.message, usual.message),
            (Phase::Rset, &mut limits.rset, usual.rset),
            (Phase::Quit, &mut limits.quit, usual.quit),
        ];
        for (phase, limit, usual) in each {
            if self.phases.contains_key(&phase) {
                *limit = self.of(phase).unwrap_or(usual);
            }
        }
        limits
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const fn s(seconds: u64) -> Duration {
        Duration::from_secs(seconds)
    }

    #[test]
    fn one_limit_is_for_all_phases_and_none_for_those_of_the_rfc() {
        let all = TimeLimits::parse("10s").unwrap();
        assert_eq!((all.smtp(), all.connect()), (Timeouts::uniform(s(10)), s(10)));
        for usual in [TimeLimits::parse("0s").unwrap(), TimeLimits::default()] {
            assert_eq!((usual.smtp(), usual.connect()), (Timeouts::RFC_5321, CONNECT_TIMEOUT));
        }
    }

    #[test]
    fn a_phase_has_its_own_limit_beside_that_of_the_others() {
        let some = TimeLimits::parse("connect=5s, final=1m,data=7s").unwrap();
        assert_eq!(some.connect(), s(5));
        assert_eq!(some.smtp(), Timeouts { message: s(60), data: s(7), ..Timeouts::RFC_5321 });
        let both = TimeLimits::parse("10s,BANNER=3s,mail=0s").unwrap();
        let expected = Timeouts { banner: s(3), mail: Timeouts::RFC_5321.mail, ..Timeouts::uniform(s(10)) };
        assert_eq!((both.smtp(), both.connect()), (expected, s(10)));
    }

    #[test]
    fn every_limited_phase_changes_the_limits_of_those_who_have_it() {
        for phase in LIMITED {
            let limits = TimeLimits::parse(&format!("{phase}=7s")).unwrap();
            let by_http = matches!(phase, Phase::FirstByte | Phase::LastByte);
            let changed = (limits.connect() == s(7), limits.smtp() != Timeouts::RFC_5321);
            assert_eq!(changed, (phase == Phase::Connect, phase != Phase::Connect && !by_http), "{phase}");
            let usual = http::Timeouts::uniform(http::TIMEOUT);
            assert_eq!(limits.http() != usual, by_http || phase == Phase::Tls, "{phase}");
        }
    }

    #[test]
    fn what_is_no_limit_is_refused_with_what_would_be() {
        for wrong in ["", "10", "connect", "connect=", "idle=5s", "bannner=5s", "mail=1s,mail=2s", "1s,2s", "=1s"] {
            let problem = TimeLimits::parse(wrong).unwrap_err();
            assert!(problem.contains("expected") && problem.contains("got"), "{wrong}: {problem}");
        }
        assert!(TimeLimits::parse("idle=5s").unwrap_err().contains("connect, tls, banner"));
        for long in ["2h", "rcpt=2h"] {
            assert_eq!(TimeLimits::parse(long).unwrap().checked().unwrap_err().field, "timeout");
        }
    }
}
