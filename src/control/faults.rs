//! The faults of the service's sink, which may be changed while it runs.

use std::ops::Range;

use serde::{Deserialize, Serialize};
use thiserror::Error;
use utoipa::ToSchema;

use crate::shard::mailbox::Command;
use crate::shard::pool::Pool;
use crate::sink::fault::{RULES_MAX, Served};
use crate::sink::{FaultCounters, FaultError, Faults, Rule};

/// The body of `fault.set`.
#[derive(Debug, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub struct FaultRequest {
    /// The rules that are to be in force, in the order in which they are tried, such as `rcpt=451,5%`; at most 64.
    pub rules: Vec<String>,
}

/// The rules in force.
#[derive(Debug, Serialize, ToSchema)]
pub struct FaultList {
    /// In the order in which they are tried.
    #[serde(rename = "Items")]
    pub items: Vec<FaultView>,
    /// What is to be said of those that can never strike here; absent where there are none.
    #[serde(rename = "Warnings", skip_serializing_if = "Vec::is_empty")]
    pub warnings: Vec<String>,
}

/// One rule in force.
#[derive(Debug, Serialize, ToSchema)]
#[schema(as = Fault)]
pub struct FaultView {
    /// As it can be given back to `fault.set`.
    pub rule: String,
    /// How often it has struck since it came into force.
    pub struck: u64,
}

/// Rules that are none.
#[derive(Debug, Error)]
pub enum FaultsError {
    /// One of them.
    #[error("rules[{at}]: {error}")]
    Rule {
        /// Its place, from 0.
        at: usize,
        /// What is wrong with it.
        error: FaultError,
    },
    /// All of them.
    #[error("rules: expected at most {RULES_MAX}, got more")]
    TooMany,
}

/// The faults of the service's sink.
#[derive(Debug)]
pub struct SinkFaults {
    /// Its shards in the pool.
    shards: Range<usize>,
    in_force: Faults,
    /// What the configuration said when it was read last.
    configured: Vec<Rule>,
    served: Served,
    counters: FaultCounters,
}

impl SinkFaults {
    /// Of a sink on these shards, which serves so much and has begun with `in_force` of its configuration; what strikes is
    /// counted by `counters`.
    pub fn new(shards: Range<usize>, served: Served, in_force: Faults, counters: FaultCounters) -> SinkFaults {
        let configured = in_force.rules().map(|(rule, _)| rule.clone()).collect();
        SinkFaults { shards, in_force, configured, served, counters }
    }

    /// The configuration was read again: puts its rules in force if they are others than it had before. Else those that are
    /// go on, with all that they remember. Says whether they have changed.
    pub fn reload(&mut self, rules: Vec<Rule>, pool: &Pool) -> Result<bool, FaultsError> {
        if rules == self.configured {
            return Ok(false);
        }
        self.set(rules.clone(), pool)?;
        self.configured = rules;
        Ok(true)
    }

    /// Puts rules in force in the place of those that are. A shard takes them up within a turn.
    pub fn set(&mut self, rules: Vec<Rule>, pool: &Pool) -> Result<(), FaultsError> {
        let faults = Faults::new(rules, self.counters.clone()).ok_or(FaultsError::TooMany)?;
        for shard in self.shards.clone() {
            pool.send(shard, Command::Faults(faults.clone()));
        }
        self.in_force = faults;
        Ok(())
    }

    /// The rules in force.
    pub fn list(&self) -> FaultList {
        let view = |(rule, struck): (&Rule, u64)| FaultView { rule: rule.to_string(), struck };
        FaultList { items: self.in_force.rules().map(view).collect(), warnings: self.in_force.warnings(self.served) }
    }
}

impl FaultRequest {
    /// The rules as they are understood.
    ///
    /// # Errors
    ///
    /// The first one that is wrong.
    pub fn parse(self) -> Result<Vec<Rule>, FaultsError> {
        // More are refused without being looked at.
        if self.rules.len() > RULES_MAX {
            return Err(FaultsError::TooMany);
        }
        let parse = |(at, rule): (usize, &String)| rule.parse().map_err(|error| FaultsError::Rule { at, error });
        self.rules.iter().enumerate().map(parse).collect()
    }
}
