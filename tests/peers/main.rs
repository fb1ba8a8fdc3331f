//! timecop against real peers, each started and ended by the test that needs it: Postfix, its smtp-sink and smtp-source,
//! aiosmtpd, swaks, msmtp, openssl, curl, Python's smtplib, Mailgun's own clients, Prometheus, schemathesis, nginx. A missing peer fails the test; `tools/test` installs
//! them all.

mod audit;
mod auth;
mod bench;
mod content;
mod control;
mod faults;
mod generator;
mod http;
mod mailgun;
mod mx;
mod probe;
mod run;
mod search;
mod service;
mod sink;
mod sink_faults;
mod support;
mod tls;
