//! timecop against real peers, each started and ended by the test that needs it: Postfix, its smtp-sink and smtp-source,
//! aiosmtpd, swaks, openssl and Python's smtplib. A missing peer fails the test; `tools/test` installs them all.

mod bench;
mod faults;
mod generator;
mod run;
mod sink;
mod support;
mod tls;
