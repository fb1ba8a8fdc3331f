//! The AUTH command (RFC 4954 §4), as a server reads it.

use std::fmt;

use super::Mechanism;

/// AUTH and its arguments.
#[derive(Clone, Copy, PartialEq, Eq)]
pub struct Auth<'a> {
    /// `None` for one that we do not know, or for none at all.
    pub mechanism: Option<Mechanism>,
    /// What stands behind the mechanism's name: the initial response, or nonsense.
    pub initial: Option<&'a [u8]>,
}

impl<'a> Auth<'a> {
    /// Understands what stands behind the verb.
    pub(in crate::wire::smtp) fn parse(argument: &'a [u8]) -> Auth<'a> {
        let mut words = argument.splitn(2, |octet| *octet == b' ');
        let mechanism = words.next().and_then(Mechanism::parse);
        Auth { mechanism, initial: words.next().map(<[u8]>::trim_ascii_start) }
    }
}

/// The initial response may hold a password.
impl fmt::Debug for Auth<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Auth { mechanism, initial } = self;
        write!(f, "Auth({mechanism:?}, initial response: {})", initial.is_some())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_mechanism_is_known_in_any_case_and_the_response_is_not_shown() {
        let auth = Auth::parse(b"plain  AGEAYg==");
        assert_eq!((auth.mechanism, auth.initial), (Some(Mechanism::Plain), Some(&b"AGEAYg=="[..])));
        assert!(!format!("{auth:?}").contains("AGEA"));
        assert_eq!(Auth::parse(b"LOGIN"), Auth { mechanism: Some(Mechanism::Login), initial: None });
        for unknown in [&b""[..], b"GSSAPI x", b"PLAIN\tx"] {
            assert_eq!(Auth::parse(unknown).mechanism, None);
        }
    }
}
