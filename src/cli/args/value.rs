//! Values of arguments, read.

use std::time::Duration;

use crate::load::RATE_PER_S_MAX;
use crate::shard::placement;

/// `--cpus`.
#[derive(Clone, Debug)]
pub(in crate::cli) struct Cpus(pub(in crate::cli) Vec<usize>);

pub(super) fn cpus(text: &str) -> Result<Cpus, String> {
    placement::parse_cpus(text).map(Cpus)
}

pub(super) fn duration(text: &str) -> Result<Duration, String> {
    humantime::parse_duration(text)
        .map_err(|error| format!("expected a time with its unit, such as 30s, 500ms or 1m30s, got {text:?}: {error}"))
}

pub(super) fn whole_number<N: TryFrom<u128>>(text: &str) -> Result<N, String> {
    let number: u128 = text.parse().map_err(|_| format!("expected a whole number, got {text:?}"))?;
    N::try_from(number).map_err(|_| format!("expected a smaller number, got {text}"))
}

pub(super) fn rate(text: &str) -> Result<f64, String> {
    let rate: f64 =
        text.parse().map_err(|_| format!("expected messages a second, such as 5000 or 0.5, got {text:?}"))?;
    match rate > 0.0 && rate <= RATE_PER_S_MAX {
        true => Ok(rate),
        false => Err(format!("expected messages a second, above 0 and at most {RATE_PER_S_MAX}, got {text}")),
    }
}
