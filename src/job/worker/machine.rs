//! A slot's protocol machine: which one it is, is the job's to say.

use crate::job::plan::{Job, Payload};
use crate::phase::Phase;
use crate::time::Instant;
use crate::wire::http;
use crate::wire::smtp::auth::Mechanism;
use crate::wire::smtp::client::Client;

/// One connection's machine.
#[derive(Debug)]
pub(super) enum Machine {
    Smtp(Client),
    Http(http::client::Client),
}

impl Machine {
    /// A machine whose connection is being opened.
    pub(super) fn new(job: &Job) -> Machine {
        match job.payload {
            Payload::Smtp(_) => Machine::Smtp(Client::new()),
            Payload::Http(_) => Machine::Http(http::client::Client::new()),
        }
    }

    pub(super) fn connected(&mut self, now: Instant, job: &Job) {
        match (self, &job.payload) {
            (Machine::Http(client), Payload::Http(http)) => client.connected(now, &http.client),
            (Machine::Smtp(client), _) => client.connected(now, &job.client),
            (Machine::Http(_), Payload::Smtp(_)) => debug_assert!(false, "a machine of another job"),
        }
    }

    pub(super) fn tls_ready(&mut self, now: Instant, job: &Job) {
        match self {
            Machine::Smtp(client) => client.tls_ready(now, &job.client),
            Machine::Http(client) => client.tls_ready(),
        }
    }

    pub(super) fn timed_out(&mut self, now: Instant) {
        match self {
            Machine::Smtp(client) => client.timed_out(now),
            Machine::Http(client) => client.timed_out(now),
        }
    }

    #[inline]
    pub(super) fn written(&mut self) {
        match self {
            Machine::Smtp(client) => client.written(),
            Machine::Http(client) => client.written(),
        }
    }

    #[inline]
    pub(super) fn begin(&mut self, now: Instant, job: &Job) {
        match (self, &job.payload) {
            (Machine::Smtp(client), _) => client.begin(now, job.recipients.per_message(), &job.client),
            (Machine::Http(client), Payload::Http(http)) => client.begin(now, &http.client),
            (Machine::Http(_), Payload::Smtp(_)) => debug_assert!(false, "a machine of another job"),
        }
    }

    /// Ends the connection in good order.
    pub(super) fn quit(&mut self, now: Instant, job: &Job) {
        match self {
            Machine::Smtp(client) => client.quit(now, &job.client),
            Machine::Http(client) => client.quit(),
        }
    }

    pub(super) fn phase(&self) -> Phase {
        match self {
            Machine::Smtp(client) => client.phase(),
            Machine::Http(client) => client.phase(),
        }
    }

    pub(super) fn is_over(&self) -> bool {
        match self {
            Machine::Smtp(client) => client.is_over(),
            Machine::Http(client) => client.is_over(),
        }
    }

    /// How the session logs in, where it does so once for all.
    pub(super) fn auth_mechanism(&self) -> Option<Mechanism> {
        match self {
            Machine::Smtp(client) => client.auth_mechanism(),
            Machine::Http(_) => None,
        }
    }
}
