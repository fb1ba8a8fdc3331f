//! How much a job sends, and when: its load model, its limit and its warm-up, from raw values to valid ones.

use std::sync::Arc;
use std::time::Duration;

use super::{DURATION_MAX, Limit, LoadModel, MESSAGES_MAX, RawSpec, SpecError};
use crate::load::connections::ConnectionStages;
use crate::load::stages::{Stage, Stages};
use crate::load::warmup::Warmup;
use crate::load::{Arrival, Rate};

/// What decides when messages are sent.
pub(super) fn load_model(raw: &RawSpec) -> Result<LoadModel, SpecError> {
    if let Some(stages) = raw.stages.as_ref().filter(|list| list.iter().any(Stage::is_of_connections)) {
        let beside = [("rate", raw.rate.is_some()), ("connections", raw.connections.is_some())];
        if let Some((field, _)) = beside.into_iter().find(|(_, said)| *said) {
            return Err(SpecError::new(
                field,
                "none beside `stages` of connections, which say how many there are",
                "one",
            ));
        }
        if raw.arrival.is_some() {
            return Err(SpecError::new("arrival", "a `rate`, or `stages` of rates beside it", "stages of connections"));
        }
        let stages = ConnectionStages::new(stages.clone()).map_err(|error| SpecError::of("stages", error))?;
        return Ok(LoadModel::Ramped(Arc::new(stages)));
    }
    if let Some(stages) = &raw.stages {
        let stages = Stages::new(raw.rate.unwrap_or(0.0), stages.clone());
        let stages = Arc::new(stages.map_err(|error| SpecError::of("stages", error))?);
        return Ok(LoadModel::Staged { stages, arrival: raw.arrival.unwrap_or(Arrival::Poisson) });
    }
    match (raw.rate, raw.arrival) {
        (None, None) => Ok(LoadModel::Closed),
        (None, Some(_)) => Err(SpecError::new("arrival", "a `rate` or `stages` beside it", "neither")),
        (Some(rate), arrival) => {
            let rate = Rate::per_second(rate)
                .map_err(|_| SpecError::new("rate", "messages a second, above 0 and at most 100000000", rate))?;
            Ok(LoadModel::Open { rate, arrival: arrival.unwrap_or(Arrival::Poisson) })
        }
    }
}

/// When the job ends by itself.
pub(super) fn limit(raw: &RawSpec, load: &LoadModel) -> Result<Limit, SpecError> {
    let of_stages = match load {
        LoadModel::Staged { stages, .. } => Some(stages.duration()),
        LoadModel::Ramped(stages) => Some(stages.duration()),
        LoadModel::Closed | LoadModel::Open { .. } => None,
    };
    if let Some(duration) = of_stages {
        return match (raw.messages, raw.duration, duration) {
            (None, None, duration) if duration <= DURATION_MAX => Ok(Limit::Duration(duration)),
            (None, None, duration) => Err(SpecError::new("stages", "at most 30 days in all", pretty(duration))),
            _ => Err(SpecError::new("stages", "neither `messages` nor `duration` beside it", "one of them")),
        };
    }
    match (raw.messages, raw.duration) {
        (Some(_), Some(_)) => Err(SpecError::new("messages", "either `messages` or `duration`", "both")),
        (None, None) => Err(SpecError::new("messages", "either `messages` or `duration`", "neither")),
        (Some(messages), None) if (1..=MESSAGES_MAX).contains(&messages) => Ok(Limit::Messages(messages)),
        (Some(messages), None) => Err(SpecError::new("messages", format!("1 to {MESSAGES_MAX}"), messages)),
        (None, Some(duration)) if !duration.is_zero() && duration <= DURATION_MAX => Ok(Limit::Duration(duration)),
        (None, Some(duration)) => Err(SpecError::new("duration", "more than 0 and at most 30 days", pretty(duration))),
    }
}

/// A warm-up is part of the run, and something must be left of that.
pub(super) fn warmup(raw: &RawSpec, limit: Limit) -> Result<Option<Warmup>, SpecError> {
    let Some(warmup) = raw.warmup else { return Ok(None) };
    match (warmup, limit) {
        (Warmup::Duration(warmup), Limit::Duration(run)) if warmup >= run => {
            Err(SpecError::new("warmup", format!("less than the whole run, {}", pretty(run)), pretty(warmup)))
        }
        (Warmup::Messages(warmup), Limit::Messages(run)) if warmup >= run => {
            Err(SpecError::new("warmup", format!("fewer than all messages, {run}"), warmup))
        }
        (Warmup::Duration(warmup), _) if warmup.is_zero() || warmup > DURATION_MAX => {
            Err(SpecError::new("warmup", "more than 0 and at most 30 days", pretty(warmup)))
        }
        (Warmup::Messages(0), _) => Err(SpecError::new("warmup", "at least 1 message", 0)),
        _ => Ok(Some(warmup)),
    }
}

fn pretty(duration: Duration) -> String {
    format!("{duration:?}")
}
