//! Numbers and times as people read them.

/// A number with commas.
pub fn thousands(number: u64) -> String {
    let digits = number.to_string();
    let mut text = String::with_capacity(digits.len() * 4 / 3);
    for (index, digit) in digits.chars().enumerate() {
        if index > 0 && (digits.len() - index).is_multiple_of(3) {
            text.push(',');
        }
        text.push(digit);
    }
    text
}

/// A time, given in seconds, in the unit that suits it.
pub fn time(seconds: f64) -> String {
    match seconds {
        s if s <= 0.0 => "0".to_owned(),
        s if s < 1e-3 => format!("{:.0} us", s * 1e6),
        s if s < 1e-2 => format!("{:.2} ms", s * 1e3),
        s if s < 1.0 => format!("{:.1} ms", s * 1e3),
        s => format!("{s:.2} s"),
    }
}

/// Messages a second.
pub fn rate(per_second: f64) -> String {
    if per_second >= 100.0 { thousands(per_second.round() as u64) } else { format!("{per_second:.2}") }
}

/// A share, given between 0 and 1, in per cent.
pub fn percent(share: f64) -> String {
    match share * 100.0 {
        p if p != 0.0 && p.abs() < 1.0 => format!("{p:.3} %"),
        p => format!("{p:.1} %"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn figures_are_shown_in_the_unit_that_suits_them() {
        for (number, text) in [(0, "0"), (999, "999"), (1_000, "1,000"), (1_234_567, "1,234,567")] {
            assert_eq!(thousands(number), text);
        }
        for (seconds, text) in
            [(0.0, "0"), (250e-6, "250 us"), (1.5e-3, "1.50 ms"), (0.0123, "12.3 ms"), (75.0, "75.00 s")]
        {
            assert_eq!(time(seconds), text);
        }
        assert_eq!((rate(99.5), rate(12_345.6)), ("99.50".to_owned(), "12,346".to_owned()));
        assert_eq!((percent(0.0), percent(0.0005), percent(0.5)), ("0.0 %".into(), "0.050 %".into(), "50.0 %".into()));
    }
}
