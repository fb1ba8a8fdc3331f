//! What must be true of every run.

use std::collections::HashSet;

use timecop::audit::{join, stamp};
use timecop::job::content;
use timecop::job::plan::Job;
use timecop::job::spec::Limit;
use timecop::measure::recorder::{Delta, Latencies, MessageCounts};
use timecop::message::DateCache;
use timecop::outgoing::Outgoing;
use timecop::phase::Phase;
use timecop::time::Instant;

use super::{Outcome, RUN_ID, Scenario, Weather, circumstances};

impl Scenario {
    /// What must be true of every run.
    pub fn check(&self, outcome: &Outcome) {
        self.check_messages(outcome);
        self.check_recipients(outcome);
        self.check_connections(outcome);
        check_latencies(&outcome.totals);
        check_rows(outcome);
        self.check_audit(outcome);
        if self.kind != Weather::Hostile {
            self.check_server(outcome);
            self.check_contents(outcome);
        }
    }

    fn check_messages(&self, outcome: &Outcome) {
        for counts in [outcome.totals.messages, outcome.totals.warmup] {
            let ended = counts.accepted + counts.not_accepted() + counts.cut;
            assert_eq!(counts.taken, ended, "each message that was taken has one outcome: {counts:?}");
            assert!(counts.sent <= counts.taken && counts.accepted <= counts.sent, "{counts:?}");
        }
        let messages = all_messages(outcome);
        match self.spec.limit {
            Limit::Messages(asked) => {
                assert!(messages.taken + messages.missed <= asked, "{messages:?} of {asked}");
                let is_whole = messages.taken == asked && messages.missed == 0;
                assert!(is_whole || outcome.stopped, "{messages:?} of {asked}");
            }
            Limit::Duration(_) if outcome.job.is_open_loop() && !outcome.stopped => {
                assert_eq!(messages.taken + messages.missed, self.due(&outcome.job), "{messages:?}");
            }
            Limit::Duration(_) => {}
        }
        if !outcome.job.is_open_loop() {
            assert_eq!(messages.missed, 0, "nothing is missed in a closed loop");
        }
        if self.kind == Weather::Kind && !outcome.stopped {
            assert_eq!((messages.failed, messages.cut), (0, 0), "{:?}", outcome.totals.errors);
            assert_eq!(outcome.totals.errors, []);
        }
    }

    /// How many messages the whole schedule has.
    fn due(&self, job: &Job) -> u64 {
        let count = |mut pacer: timecop::load::Pacer| {
            while pacer.take(Instant::NEVER).is_some() {}
            pacer.taken()
        };
        job.split(self.spec.connections, self.shards).into_iter().map(|share| count(share.pacer)).sum()
    }

    fn check_recipients(&self, outcome: &Outcome) {
        let (recipients, messages) = (outcome.totals.recipients, outcome.totals.messages);
        let answered = messages.accepted + messages.deferred + messages.rejected;
        let tallied = recipients.accepted + recipients.deferred + recipients.rejected;
        assert_eq!(tallied, answered * u64::from(self.spec.recipients.per_message()), "{recipients:?} {messages:?}");
        assert!(recipients.accepted >= messages.accepted, "an accepted message has a recipient: {recipients:?}");
    }

    fn check_connections(&self, outcome: &Outcome) {
        for gauges in &outcome.gauges {
            assert_eq!((gauges.open, gauges.held, gauges.waiting), (0, 0, 0), "{gauges:?}");
        }
        let held_max: u64 = outcome.gauges.iter().map(|gauges| gauges.held_max).sum();
        assert!(held_max <= u64::from(self.spec.connections), "{:?}", outcome.gauges);
        let connections = outcome.totals.connections;
        assert_eq!(connections.opened, outcome.connected);
        // Octets of the warm-up are left out.
        match self.spec.warmup {
            None => assert_eq!(outcome.totals.bytes_sent, outcome.written),
            Some(_) => assert!(outcome.totals.bytes_sent <= outcome.written),
        }
        assert!(connections.held_max <= connections.opened, "{connections:?}");
        let first = connections.opened - connections.reopened;
        assert!(
            first <= u64::from(self.spec.connections) && (first > 0) == (connections.opened > 0),
            "{connections:?}"
        );
    }

    fn check_server(&self, outcome: &Outcome) {
        let (messages, counts) = (all_messages(outcome), outcome.counts);
        let MessageCounts { accepted, cut, .. } = messages;
        // A reply that came for a message that was cut meanwhile is heard by nobody.
        assert_eq!(accepted, outcome.accepted_heard, "of {counts:?}");
        assert!(counts.messages >= accepted && outcome.totals.recipients.accepted <= counts.recipients, "{counts:?}");
        if self.kind == Weather::Kind && cut == 0 {
            assert_eq!(counts.messages, accepted, "nothing was lost");
            if self.spec.warmup.is_none() {
                assert_eq!(counts.recipients, outcome.totals.recipients.accepted);
            }
        }
        let broken = messages.failed + cut;
        assert!(counts.messages <= accepted + broken, "a message counts as accepted here or as failed: {counts:?}");
        if self.spec.http.is_none() {
            assert_eq!(outcome.kept.len() as u64, counts.messages);
        }
        let is_mild = self.message_bytes_max > 700 && self.kind == Weather::Kind && cut == 0;
        if is_mild && !outcome.stopped {
            assert_eq!(counts.errors, 0, "the client keeps to the protocol");
        }
    }

    /// What was accepted has arrived or is missing, and what arrives is what was sent, whatever the network does.
    fn check_audit(&self, outcome: &Outcome) {
        let Some(audit) = outcome.job.audit.as_deref().map(join::report) else {
            assert!(!self.spec.audit, "it was asked for");
            return;
        };
        let arrivals = audit.arrivals.as_ref().expect("the ledger is of this process");
        assert_eq!(audit.accepted, all_messages(outcome).accepted);
        assert_eq!(arrivals.arrived - arrivals.unacknowledged + arrivals.missing, audit.accepted, "{audit:?}");
        let strays = arrivals.forged + arrivals.malformed + arrivals.unstamped + arrivals.other_runs;
        assert_eq!(arrivals.arrived + arrivals.duplicate + strays, outcome.counts.messages, "{audit:?}");
        assert_eq!((arrivals.duplicate, arrivals.skewed), (0, 0), "{audit:?}");
        // A hostile server says of messages that they are accepted which it has not taken, and takes commands for messages.
        if self.kind != Weather::Hostile {
            assert_eq!((arrivals.missing, arrivals.altered, strays), (0, 0, 0), "{audit:?}");
        }
    }

    fn check_contents(&self, outcome: &Outcome) {
        if self.spec.http.is_some() {
            return;
        }
        let mut seen = HashSet::new();
        // As the messages are before they are dot-stuffed.
        let at = circumstances(self.spec.audit);
        let mut template = content::messages(&self.spec, &at, false).expect("scenarios have valid jobs").0;
        if let Some(audit) = at.audit {
            template = template.stamped(RUN_ID, audit.signer).expect("a stamp has room");
        }
        let (mut dates, mut expected) = (DateCache::new(), Outgoing::new());
        for message in &outcome.kept {
            let message = &without_stamp(message);
            let text = String::from_utf8_lossy(message);
            let id = text.strip_prefix("Message-ID: <").and_then(|text| text.get(..16));
            let sequence =
                id.and_then(|id| u64::from_str_radix(id, 16).ok()).expect("a message begins with its number");
            assert!(seen.insert(sequence), "message {sequence} arrived twice");
            expected.clear();
            template.write(sequence, outcome.job.wall_start, &mut dates, &mut expected);
            let expected = without_stamp(&expected.to_vec());
            assert_eq!(without_date(message), without_date(&expected), "message {sequence} as {text}");
        }
        if let Limit::Messages(asked) = self.spec.limit {
            assert!(seen.iter().all(|sequence| *sequence < asked));
        }
    }
}

/// The stamp says when a message was written.
fn without_stamp(message: &[u8]) -> Vec<u8> {
    let mut message = message.to_vec();
    if let Some(at) = memchr::memmem::find(&message, stamp::NAME.as_bytes()) {
        message.drain(at..at + stamp::FIELD_BYTES);
    }
    message
}

fn without_date(message: &[u8]) -> (&[u8], &[u8]) {
    let at = memchr::memmem::find(message, b"\r\nDate: ").expect("a message has a date");
    (&message[..at], &message[at + b"\r\nDate: Tue, 14 Nov 2023 22:13:20 +0000".len()..])
}

/// Messages of the warm-up, and all others.
fn all_messages(outcome: &Outcome) -> MessageCounts {
    let mut all = outcome.totals.messages;
    all.add(&outcome.totals.warmup);
    all
}

/// The rows of the series are all that was measured, second by second.
fn check_rows(outcome: &Outcome) {
    let Some(followed) = &outcome.followed else { return };
    assert!(followed.is_finished());
    let rows = followed.rows();
    assert!(rows.is_sorted_by(|earlier, later| earlier.t_s <= later.t_s), "{rows:?}");
    let messages = followed.merged.messages;
    let sum = rows.iter().fold((0, 0, 0), |sum, row| (sum.0 + row.sent, sum.1 + row.accepted, sum.2 + row.other));
    let all = (messages.sent, messages.accepted, messages.not_accepted());
    // A second in which messages of the warm-up were begun has no row.
    match followed.merged.warmup.taken {
        0 => assert_eq!(sum, all, "{rows:?}"),
        _ => assert!(sum.0 <= all.0 && sum.1 <= all.1 && sum.2 <= all.2, "{rows:?} of {messages:?}"),
    }
}

fn check_latencies(totals: &Delta) {
    let messages = totals.messages;
    assert_eq!(totals.accepted.service.count(), messages.accepted, "an accepted message was begun");
    for (latencies, count) in [(&totals.accepted, messages.accepted), (&totals.other, messages.not_accepted())] {
        let Latencies { response, service, lateness, .. } = latencies;
        assert_eq!(response.count(), count);
        assert_eq!(service.count(), lateness.count());
        // A message that failed for want of a connection was never begun.
        if service.count() < count {
            continue;
        }
        let sum = |histogram: &timecop::measure::histogram::LatencyHistogram| histogram.summary().mean * count as f64;
        let (whole, parts) = (sum(response), sum(service) + sum(lateness));
        let error = (whole - parts).abs();
        assert!(error <= whole * 2e-3 + count as f64 * 4e-9, "response {whole} s is service + lateness {parts} s");
    }
    let decisive = totals.accepted.phases[Phase::Final as usize].count()
        + totals.accepted.phases[Phase::LastByte as usize].count();
    assert!(decisive >= messages.accepted, "an accepted message was answered");
}
