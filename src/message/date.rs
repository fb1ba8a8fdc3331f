//! The date of a message.

use jiff::Timestamp;
use jiff::tz::Offset;

use crate::time::WallTime;

/// Octets of a rendered date: `Thu, 01 Jan 1970 00:00:00 +0000`.
pub(super) const DATE_BYTES: usize = 31;
/// The first date. All have their letters, digits and marks in the same places.
pub(super) const DATE_FIRST: &[u8; DATE_BYTES] = b"Thu, 01 Jan 1970 00:00:00 +0000";

const WEEKDAYS: [&[u8; 3]; 7] = [b"Mon", b"Tue", b"Wed", b"Thu", b"Fri", b"Sat", b"Sun"];
const MONTHS: [&[u8; 3]; 12] =
    [b"Jan", b"Feb", b"Mar", b"Apr", b"May", b"Jun", b"Jul", b"Aug", b"Sep", b"Oct", b"Nov", b"Dec"];

/// The date of the current second as RFC 5322, 3.3, writes it, in UTC. Rendered anew only when the second changes: a
/// shard that sends 100,000 messages a second renders one date for all of them.
#[derive(Clone, Debug)]
pub struct DateCache {
    second: u64,
    text: [u8; DATE_BYTES],
}

impl DateCache {
    /// A cache that holds the first second of 1970.
    pub fn new() -> DateCache {
        DateCache { second: 0, text: *DATE_FIRST }
    }

    /// The date at `wall`, as `Thu, 01 Jan 1970 00:00:00 +0000`. Of the same length always.
    #[inline]
    pub fn text(&mut self, wall: WallTime) -> &[u8; DATE_BYTES] {
        if wall.unix_seconds() != self.second {
            self.render(wall.unix_seconds());
        }
        &self.text
    }

    #[cold]
    fn render(&mut self, second: u64) {
        self.second = second;
        // A wall time ends in the year 2554, a timestamp in 9999.
        let timestamp = i64::try_from(second).ok().and_then(|second| Timestamp::from_second(second).ok());
        let civil = Offset::UTC.to_datetime(timestamp.unwrap_or(Timestamp::MAX));
        let text = &mut self.text;
        text[0..3].copy_from_slice(WEEKDAYS[civil.weekday().to_monday_zero_offset() as usize]);
        two_digits(&mut text[5..7], civil.day().into());
        text[8..11].copy_from_slice(MONTHS[civil.month() as usize - 1]);
        two_digits(&mut text[12..14], civil.year() / 100);
        two_digits(&mut text[14..16], civil.year() % 100);
        two_digits(&mut text[17..19], civil.hour().into());
        two_digits(&mut text[20..22], civil.minute().into());
        two_digits(&mut text[23..25], civil.second().into());
    }
}

impl Default for DateCache {
    fn default() -> DateCache {
        DateCache::new()
    }
}

/// Writes a number below 100.
fn two_digits(at: &mut [u8], number: i16) {
    at[0] = b'0' + (number / 10) as u8;
    at[1] = b'0' + (number % 10) as u8;
}

#[cfg(test)]
mod tests {
    use super::*;

    fn at(second: u64) -> WallTime {
        WallTime::from_unix_ns(second * 1_000_000_000 + 999_999_999)
    }

    #[test]
    fn dates_are_those_of_the_calendar() {
        let mut dates = DateCache::new();
        let known = [
            (0, "Thu, 01 Jan 1970 00:00:00 +0000"),
            (951_782_400, "Tue, 29 Feb 2000 00:00:00 +0000"),
            (1_700_000_000, "Tue, 14 Nov 2023 22:13:20 +0000"),
            (1_735_689_599, "Tue, 31 Dec 2024 23:59:59 +0000"),
            (1_735_689_600, "Wed, 01 Jan 2025 00:00:00 +0000"),
        ];
        for (second, text) in known {
            assert_eq!(dates.text(at(second)), text.as_bytes());
            assert_eq!(dates.text(at(second)), text.as_bytes(), "from the cache");
        }
        assert!(dates.text(WallTime::from_unix_ns(u64::MAX)).starts_with(b"Sun, 21 Jul 2554"));
    }
}
