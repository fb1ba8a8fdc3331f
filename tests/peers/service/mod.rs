//! The service from outside: its job API, its store through a kill, its metrics, its limits.

mod api;
mod fields;
mod http;
mod limits;
mod metrics;
mod probe;
mod probe_down;
mod search;
mod survival;
