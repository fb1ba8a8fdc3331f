//! `X-Timecop-Audit`: the header field by which a message is known again.
//!
//! Its value has one spelling and one length, so that it is written in place:
//! `v=1; run=RUN; seq=SEQUENCE; sent=UNIX_NANOSECONDS; body=HASH; mac=MAC`, all numbers in lower-case hexadecimal digits, 16
//! each, MAC 32. RUN names the generator's run, since every generator draws its own; SEQUENCE is the message's number in it,
//! which no two shards share. MAC is the HMAC-SHA256 (RFC 2104) of version and the four numbers, cut to its first 128 bits
//! (RFC 2104, section 5). White space that a server may have put between the fields is of no consequence.

use std::fmt;

use hmac::{Hmac, KeyInit as _, Mac as _};
use secrecy::{ExposeSecret as _, SecretBox};
use sha2::Sha256;
use thiserror::Error;

use crate::time::WallTime;

/// The field's name.
pub const NAME: &str = "X-Timecop-Audit";
/// The version that is written, and the only one that is read.
const VERSION: u8 = 1;
/// Octets of the longest value that is looked at. One that was written here has 131.
pub const VALUE_BYTES_MAX: usize = 990;
/// Octets of a key.
pub const KEY_BYTES: usize = 32;
/// Octets of a MAC.
const MAC_BYTES: usize = 16;

/// The whole field as it is written, with zeros for digits.
const FIELD: &[u8; FIELD_BYTES] = b"X-Timecop-Audit: v=1; run=0000000000000000; seq=0000000000000000; \
    sent=0000000000000000; body=0000000000000000; mac=00000000000000000000000000000000\r\n";
/// Octets of the whole field with its CRLF: all messages have a field of this length.
pub const FIELD_BYTES: usize = 150;
/// Where in [`FIELD`] the digits of run, sequence, time and body stand.
const NUMBERS_AT: [usize; 4] = [26, 48, 71, 94];
/// Where in [`FIELD`] the digits of the MAC stand.
const MAC_AT: usize = 116;

/// What tells our messages from those of others. Shown nowhere.
pub struct Key(SecretBox<[u8; KEY_BYTES]>);

impl Key {
    /// A key of these octets.
    pub fn new(octets: [u8; KEY_BYTES]) -> Key {
        Key(SecretBox::new(Box::new(octets)))
    }

    /// Reads 64 hexadecimal digits.
    pub fn parse(text: &str) -> Option<Key> {
        hex_octets(text.as_bytes()).map(Key::new)
    }

    /// A MAC over nothing yet.
    pub fn mac(&self) -> Hmac<Sha256> {
        Hmac::new_from_slice(self.0.expose_secret()).expect("HMAC takes a key of any length")
    }
}

impl Clone for Key {
    fn clone(&self) -> Key {
        Key::new(*self.0.expose_secret())
    }
}

impl fmt::Debug for Key {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Key([REDACTED])")
    }
}

/// A key made ready: half of the work of a MAC is the key's alone, and done once.
#[derive(Clone)]
pub struct Signer(Hmac<Sha256>);

impl Signer {
    /// Signs with this key.
    pub fn new(key: &Key) -> Signer {
        Signer(key.mac())
    }

    fn mac(&self, stamp: &Stamp) -> Hmac<Sha256> {
        let mut signed = [VERSION; 1 + 4 * 8];
        for (octets, number) in signed[1..].chunks_exact_mut(8).zip(stamp.numbers()) {
            octets.copy_from_slice(&number.to_be_bytes());
        }
        let mut mac = self.0.clone();
        mac.update(&signed);
        mac
    }
}

impl fmt::Debug for Signer {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Signer([REDACTED])")
    }
}

/// What the field says.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Stamp {
    /// The run, by a number that no other run has.
    pub run: u64,
    /// The message's number in it.
    pub sequence: u64,
    /// When it was written, by the generator's wall clock.
    pub sent: WallTime,
    /// [`super::body::BodyHasher`]'s number for its body.
    pub body: u64,
}

/// Why a message is not one of ours.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Error)]
pub enum StampFault {
    /// It has a field that says something else than ours do, or several.
    #[error("the field {NAME} is malformed: {0}")]
    Malformed(&'static str),
    /// Of another version of timecop.
    #[error("the field {NAME} has a version that is not known here")]
    Version,
    /// Its MAC is not the one that the key gives: made by somebody else, or changed.
    #[error("the field {NAME} is forged: its MAC is wrong")]
    Forged,
}

impl Stamp {
    fn numbers(&self) -> [u64; 4] {
        [self.run, self.sequence, self.sent.as_unix_ns(), self.body]
    }

    /// Writes the whole field, CRLF included. Allocates nothing.
    #[inline]
    pub fn write(&self, signer: &Signer, field: &mut [u8; FIELD_BYTES]) {
        *field = *FIELD;
        for (at, number) in NUMBERS_AT.into_iter().zip(self.numbers()) {
            write_hex(&number.to_be_bytes(), &mut field[at..at + 16]);
        }
        let mac = signer.mac(self).finalize().into_bytes();
        write_hex(&mac[..MAC_BYTES], &mut field[MAC_AT..MAC_AT + 2 * MAC_BYTES]);
    }

    /// Reads a field's value.
    ///
    /// # Errors
    ///
    /// Why the message is not one of ours. The MAC is compared in constant time, so that nobody can feel his way to the
    /// right one.
    pub fn parse(value: &[u8], signer: &Signer) -> Result<Stamp, StampFault> {
        let malformed = |what| Err(StampFault::Malformed(what));
        if value.len() > VALUE_BYTES_MAX {
            return malformed("it is too long");
        }
        let mut fields = value.split(|&octet| octet == b';').map(trim);
        let mut field = |name: &[u8]| fields.next().and_then(|field| field.strip_prefix(name));
        match field(b"v=") {
            Some(b"1") => {}
            Some(version) if !version.is_empty() && version.iter().all(u8::is_ascii_digit) => {
                return Err(StampFault::Version);
            }
            _ => return malformed("it does not begin with a version"),
        }
        let mut number = |name: &[u8]| field(name).and_then(hex_octets).map(u64::from_be_bytes);
        let numbers = [number(b"run="), number(b"seq="), number(b"sent="), number(b"body=")];
        let [Some(run), Some(sequence), Some(sent), Some(body)] = numbers else {
            return malformed("run, seq, sent and body are not 16 hexadecimal digits each");
        };
        let Some(mac) = field(b"mac=").and_then(hex_octets::<MAC_BYTES>) else {
            return malformed("mac is not 32 hexadecimal digits");
        };
        if fields.next().is_some() {
            return malformed("something follows its mac");
        }
        let stamp = Stamp { run, sequence, sent: WallTime::from_unix_ns(sent), body };
        signer.mac(&stamp).verify_truncated_left(&mac).map_err(|_| StampFault::Forged)?;
        Ok(stamp)
    }
}

/// Without white space at either end.
fn trim(field: &[u8]) -> &[u8] {
    let is_space = |octet: &u8| matches!(octet, b' ' | b'\t' | b'\r' | b'\n');
    let begin = field.iter().position(|octet| !is_space(octet)).unwrap_or(field.len());
    let end = field.iter().rposition(|octet| !is_space(octet)).map_or(begin, |last| last + 1);
    &field[begin..end]
}

/// Two digits an octet.
#[inline]
fn write_hex(octets: &[u8], digits: &mut [u8]) {
    const DIGITS: &[u8; 16] = b"0123456789abcdef";
    for (pair, octet) in digits.chunks_exact_mut(2).zip(octets) {
        pair[0] = DIGITS[usize::from(octet >> 4)];
        pair[1] = DIGITS[usize::from(octet & 0xf)];
    }
}

/// Exactly `N` octets in lower-case hexadecimal.
pub fn hex_octets<const N: usize>(text: &[u8]) -> Option<[u8; N]> {
    let digit = |octet: u8| match octet {
        b'0'..=b'9' => Some(octet - b'0'),
        b'a'..=b'f' => Some(octet - b'a' + 10),
        _ => None,
    };
    let mut octets = [0; N];
    if text.len() != 2 * N {
        return None;
    }
    for (octet, pair) in octets.iter_mut().zip(text.chunks_exact(2)) {
        *octet = digit(pair[0])? << 4 | digit(pair[1])?;
    }
    Some(octets)
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn signer() -> Signer {
        Signer::new(&Key::new([7; KEY_BYTES]))
    }

    fn stamp() -> Stamp {
        Stamp { run: 0xab, sequence: 77, sent: WallTime::from_unix_ns(1_700_000_000_123_456_789), body: u64::MAX }
    }

    fn value(stamp: &Stamp) -> String {
        let mut field = [0; FIELD_BYTES];
        stamp.write(&signer(), &mut field);
        let field = std::str::from_utf8(&field).unwrap();
        field.strip_prefix(NAME).unwrap().strip_prefix(": ").unwrap().strip_suffix("\r\n").unwrap().to_owned()
    }

    #[test]
    fn what_is_written_is_read_again_whatever_folded_it() {
        let text = value(&stamp());
        assert_eq!(
            &text[..text.find("; mac=").unwrap()],
            "v=1; run=00000000000000ab; seq=000000000000004d; sent=17979cfe3d85cd15; body=ffffffffffffffff"
        );
        for text in [text.clone(), text.replace("; ", ";\r\n\t"), text.replace("; ", ";"), format!(" {text}  ")] {
            assert_eq!(Stamp::parse(text.as_bytes(), &signer()), Ok(stamp()), "{text}");
        }
    }

    #[test]
    fn a_changed_digit_and_another_key_are_forgeries() {
        let text = value(&stamp());
        for at in text.char_indices().filter(|(_, c)| c.is_ascii_hexdigit()).map(|(at, _)| at) {
            let mut changed = text.clone().into_bytes();
            changed[at] = if changed[at] == b'0' { b'1' } else { b'0' };
            assert!(Stamp::parse(&changed, &signer()).is_err(), "{at}");
        }
        let other = Signer::new(&Key::new([8; KEY_BYTES]));
        assert_eq!(Stamp::parse(text.as_bytes(), &other), Err(StampFault::Forged));
    }

    #[test]
    fn what_says_something_else_is_told_apart() {
        let text = value(&stamp());
        let malformed = [
            String::new(),
            text.replace("v=1", "v=x"),
            text.replace("v=1; ", ""),
            text.replace("seq=0", "seq="),
            text.replace("ab", "AB"),
            text.replace("mac=", "mac=0"),
            format!("{text}; x=1"),
            format!("{text}{}", " ".repeat(VALUE_BYTES_MAX)),
        ];
        for text in malformed {
            let parsed = Stamp::parse(text.as_bytes(), &signer());
            assert!(matches!(parsed, Err(StampFault::Malformed(_))), "{text}: {parsed:?}");
        }
        let newer = text.replace("v=1", "v=2");
        assert_eq!(Stamp::parse(newer.as_bytes(), &signer()), Err(StampFault::Version));
    }

    #[test]
    fn a_key_is_shown_nowhere() {
        let key = Key::parse(&"0a".repeat(KEY_BYTES)).unwrap();
        assert_eq!(format!("{key:?}{:?}", Signer::new(&key)), "Key([REDACTED])Signer([REDACTED])");
        assert!(Key::parse(&"0A".repeat(KEY_BYTES)).is_none() && Key::parse("0a").is_none());
    }

    proptest! {
        #[test]
        fn every_stamp_survives_its_field(run: u64, sequence: u64, sent: u64, body: u64) {
            let stamp = Stamp { run, sequence, sent: WallTime::from_unix_ns(sent), body };
            prop_assert_eq!(Stamp::parse(value(&stamp).as_bytes(), &signer()), Ok(stamp));
        }
    }
}
