//! timecop against real peers, each started and ended by the test that needs it: Postfix, its smtp-sink and smtp-source,
//! aiosmtpd, swaks, msmtp, openssl, Python's smtplib, Prometheus, schemathesis. A missing peer fails the test; `tools/test` installs
//! them all.

mod auth;
mod bench;
mod control;
mod faults;
mod generator;
mod run;
mod search;
mod service;
mod sink;
mod support;
mod tls;
