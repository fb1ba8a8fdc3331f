//! Durations as Go writes them: `1h15m30.918s`, `300ms`, `0`.

use std::time::Duration;

/// The longest duration: Go counts nanoseconds in a signed integer of 64 bits, about 292 years.
pub const GO_DURATION_NS_MAX: u64 = i64::MAX as u64;

const UNITS: [(&str, u64); 8] = [
    ("ns", 1),
    ("us", 1_000),
    ("µs", 1_000), // the micro sign
    ("μs", 1_000), // the Greek letter
    ("ms", 1_000_000),
    ("s", 1_000_000_000),
    ("m", 60 * 1_000_000_000),
    ("h", 3_600 * 1_000_000_000),
];

/// What [`parse`] takes, as a regular expression for the schema.
pub(super) const PATTERN: &str = r"^\+?(0|(([0-9]+(\.[0-9]*)?|\.[0-9]+)(ns|us|µs|μs|ms|s|m|h))+)$";

/// Reads a duration by the rules of Go's `time.ParseDuration` (<https://pkg.go.dev/time#ParseDuration>), but for a minus
/// sign: no duration here is negative. `None` when it is no duration, or longer than [`GO_DURATION_NS_MAX`].
pub fn parse(text: &str) -> Option<Duration> {
    let mut rest = text.strip_prefix('+').unwrap_or(text);
    if rest == "0" {
        return Some(Duration::ZERO);
    }
    let mut total: u64 = 0;
    loop {
        let (digits, after) = split(rest, |c| c.is_ascii_digit());
        let (fraction, after) = match after.strip_prefix('.') {
            Some(after) => split(after, |c| c.is_ascii_digit()),
            None => ("", after),
        };
        let (unit, after) = split(after, |c| c != '.' && !c.is_ascii_digit());
        let (_, unit_ns) = UNITS.into_iter().find(|(name, _)| *name == unit)?;
        let whole: u64 = match (digits, fraction) {
            ("", "") => return None,
            ("", _) => 0,
            (digits, _) => digits.parse().ok()?,
        };
        let ns = whole.checked_mul(unit_ns)?.checked_add(fraction_ns(fraction, unit_ns))?;
        total = total.checked_add(ns).filter(|total| *total <= GO_DURATION_NS_MAX)?;
        rest = after;
        if rest.is_empty() {
            return Some(Duration::from_nanos(total));
        }
    }
}

/// The decimals of a number in nanoseconds. Computed as Go does it, in floating point, so that `0.333…h` is 20 minutes.
fn fraction_ns(decimals: &str, unit_ns: u64) -> u64 {
    let (mut number, mut scale) = (0_u64, 1.0);
    for digit in decimals.bytes() {
        match number.checked_mul(10).and_then(|n| n.checked_add(u64::from(digit - b'0'))) {
            Some(more) if more <= 1 << 63 => (number, scale) = (more, scale * 10.0),
            _ => break, // too small to matter
        }
    }
    (number as f64 * (unit_ns as f64 / scale)) as u64
}

/// Where the characters that `belong` end.
fn split(text: &str, belong: impl Fn(char) -> bool) -> (&str, &str) {
    text.split_at(text.find(|c| !belong(c)).unwrap_or(text.len()))
}

/// Writes a duration as Go's `Duration.String` does: `1m30s`, `1.5ms`, `0s`.
pub fn format(duration: Duration) -> String {
    let ns = crate::time::duration_ns(duration);
    let decimal = |unit_ns: u64, ns: u64, name: &str| {
        let width = unit_ns.ilog10() as usize;
        let number = format!("{}.{:0width$}", ns / unit_ns, ns % unit_ns);
        format!("{}{name}", number.trim_end_matches('0').trim_end_matches('.'))
    };
    match ns {
        0 => "0s".to_owned(),
        1..1_000 => format!("{ns}ns"),
        1_000..1_000_000 => decimal(1_000, ns, "µs"),
        1_000_000..1_000_000_000 => decimal(1_000_000, ns, "ms"),
        _ => {
            let minutes = ns / 60_000_000_000;
            let seconds = decimal(1_000_000_000, ns % 60_000_000_000, "s");
            match (minutes / 60, minutes % 60) {
                (0, 0) => seconds,
                (0, minutes) => format!("{minutes}m{seconds}"),
                (hours, minutes) => format!("{hours}h{minutes}m{seconds}"),
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    const US: u64 = 1_000;
    const MS: u64 = 1_000 * US;
    const S: u64 = 1_000 * MS;
    const M: u64 = 60 * S;
    const H: u64 = 60 * M;

    /// The table of Go's own tests (`time/time_test.go`) without its negative durations.
    #[test]
    fn durations_are_read_as_go_reads_them() {
        let known = [
            ("0", 0),
            ("5s", 5 * S),
            ("30s", 30 * S),
            ("1478s", 1478 * S),
            ("+5s", 5 * S),
            ("+0", 0),
            ("5.0s", 5 * S),
            ("5.6s", 5 * S + 600 * MS),
            ("5.s", 5 * S),
            (".5s", 500 * MS),
            ("1.0s", S),
            ("1.00s", S),
            ("1.004s", S + 4 * MS),
            ("1.0040s", S + 4 * MS),
            ("100.00100s", 100 * S + MS),
            ("10ns", 10),
            ("11us", 11 * US),
            ("12µs", 12 * US),
            ("12μs", 12 * US),
            ("13ms", 13 * MS),
            ("14s", 14 * S),
            ("15m", 15 * M),
            ("16h", 16 * H),
            ("3h30m", 3 * H + 30 * M),
            ("10.5s4m", 4 * M + 10 * S + 500 * MS),
            ("2m3.4s", 2 * M + 3 * S + 400 * MS),
            ("1h2m3s4ms5us6ns", H + 2 * M + 3 * S + 4 * MS + 5 * US + 6),
            ("39h9m14.425s", 39 * H + 9 * M + 14 * S + 425 * MS),
            ("52763797000ns", 52_763_797_000),
            ("0.3333333333333333333h", 20 * M),
            ("9007199254740993ns", (1 << 53) + 1),
            ("9223372036854775807ns", i64::MAX as u64),
            ("9223372036854775.807us", i64::MAX as u64),
            ("9223372036s854ms775us807ns", i64::MAX as u64),
            ("0.100000000000000000000h", 6 * M),
            ("0.830103483285477580700h", 49 * M + 48 * S + 372_539_827),
            ("0s", 0),
            ("0h0m0s", 0),
            ("00s", 0),
            ("1h15m30.918273645s", H + 15 * M + 30 * S + 918_273_645),
        ];
        for (text, ns) in known {
            assert_eq!(parse(text), Some(Duration::from_nanos(ns)), "{text}");
        }
    }

    #[test]
    fn what_is_no_duration_is_refused() {
        let wrong = [
            "",
            "3",
            "-",
            "s",
            ".",
            "-.",
            ".s",
            "+.s",
            "+",
            "1d",
            "1 s",
            " 1s",
            "1s ",
            "1S",
            "-5s",
            "-0",
            "-0s",
            "++1s",
            "1h-2m",
            "0.0",
            "00",
            "1e3s",
            "١s",
            "\u{85}85",
            "\u{ffff}",
            "hello \u{ffff} world",
            "9223372036854775810ns",
            "9223372036854775808ns",
            "9223372036854775.808us",
            "9223372036854ms775us808ns",
            "3000000h",
            "99999999999999999999h",
        ];
        for text in wrong {
            assert_eq!(parse(text), None, "{text:?}");
        }
    }

    #[test]
    fn durations_are_written_as_go_writes_them() {
        let known = [
            (0, "0s"),
            (1, "1ns"),
            (1_100, "1.1µs"),
            (2_200_000, "2.2ms"),
            (3_300_000_000, "3.3s"),
            (4 * M + 5 * S, "4m5s"),
            (4 * M + 5_001 * MS, "4m5.001s"),
            (5 * H + 6 * M + 7_001 * MS, "5h6m7.001s"),
            (8 * M + 1, "8m0.000000001s"),
            (90 * S, "1m30s"),
            (10 * S, "10s"),
            (H, "1h0m0s"),
            (999_999_999, "999.999999ms"),
            (i64::MAX as u64, "2562047h47m16.854775807s"),
        ];
        for (ns, text) in known {
            assert_eq!(format(Duration::from_nanos(ns)), text);
        }
    }

    proptest! {
        #[test]
        fn what_is_written_is_read_again(ns in 0..=GO_DURATION_NS_MAX) {
            let duration = Duration::from_nanos(ns);
            prop_assert_eq!(parse(&format(duration)), Some(duration));
        }

        #[test]
        fn no_text_is_too_odd(text in "[+0-9.a-zµμ]{0,30}") {
            if let Some(duration) = parse(&text) {
                prop_assert!(duration.as_nanos() <= u128::from(GO_DURATION_NS_MAX));
            }
        }
    }
}
