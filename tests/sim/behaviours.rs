//! What a worker does, one thing at a time, against a server whose every octet the test writes.

use std::borrow::Cow;
use std::sync::Arc;
use std::time::Duration;

use timecop::job::link::{LinkError, Links, TlsFailure, TlsSession};
use timecop::job::plan::{Circumstances, Job};
use timecop::job::spec::{ConnectionType, JobSpec, RawSpec, Target};
use timecop::job::worker::{BACKOFF_FIRST, BACKOFF_MAX, DRAIN, Worker};
use timecop::load::Arrival;
use timecop::measure::recorder::{Delta, MessageCounts, RecipientCounts};
use timecop::outgoing::Outgoing;
use timecop::phase::Phase;
use timecop::time::{Instant, WallTime};

const SECOND: Duration = Duration::from_secs(1);

/// The connections of a worker, whose peer is the test.
#[derive(Default)]
struct Recorded {
    out: Vec<Outgoing>,
    dialed: Vec<u32>,
    secured: Vec<u32>,
    closed: Vec<u32>,
    deadlines: Vec<Instant>,
}

impl Links for Recorded {
    fn dial(&mut self, slot: u32) {
        self.dialed.push(slot);
    }

    fn outgoing(&mut self, slot: u32) -> &mut Outgoing {
        &mut self.out[slot as usize]
    }

    fn start_tls(&mut self, slot: u32) {
        self.secured.push(slot);
    }

    fn close(&mut self, slot: u32) {
        self.closed.push(slot);
        self.out[slot as usize].clear();
        self.deadlines[slot as usize] = Instant::NEVER;
    }

    fn deadline(&mut self, slot: u32, at: Instant) {
        self.deadlines[slot as usize] = at;
    }
}

/// A worker and the test that plays its peer. Each call is a turn of its own.
struct Play {
    worker: Worker,
    links: Recorded,
    now: Instant,
}

impl Play {
    fn new(change: impl FnOnce(&mut RawSpec)) -> Play {
        Play::over(ConnectionType::Plain, change)
    }

    fn over(connection: ConnectionType, change: impl FnOnce(&mut RawSpec)) -> Play {
        let mut raw = RawSpec { messages: Some(10), ..RawSpec::default() };
        change(&mut raw);
        if raw.duration.is_some() {
            raw.messages = None;
        }
        let target = Target {
            name: "smtp://play".into(),
            host: "127.0.0.1".into(),
            address: ([127, 0, 0, 1], 25).into(),
            connection,
        };
        let spec = JobSpec::new(raw, target, 1).expect("the job is valid");
        let (now, wall) = (Instant::from_ns(1_000_000_000_000), WallTime::from_unix_ns(1_700_000_000_000_000_000));
        let at = Circumstances { now, wall, run_id: 1, host: "load.example".into(), audit: None };
        let job = Arc::new(Job::new(&spec, &at).expect("the job is valid").0);
        let share = job.split(spec.connections, 1).pop().expect("there is one shard");
        let mut links = Recorded::default();
        links.out.resize_with(share.connections as usize, Outgoing::new);
        links.deadlines.resize(share.connections as usize, Instant::NEVER);
        let mut play = Play { worker: Worker::new(job, share.pacer, share.connections), links, now };
        play.worker.start(now, &mut play.links);
        play.end_turn();
        play
    }

    /// Lets everything leave, a millisecond passes. What was written to each slot comes back.
    fn end_turn(&mut self) -> Vec<String> {
        self.worker.turn(self.now, &mut self.links);
        let mut written = Vec::new();
        for (slot, out) in self.links.out.iter_mut().enumerate() {
            if !out.is_empty() {
                self.worker.written(slot as u32, self.now, out.len());
            }
            written.push(String::from_utf8_lossy(&out.to_vec()).into_owned());
            out.clear();
        }
        self.links.dialed.iter().for_each(|slot| self.worker.written(*slot, self.now, 0));
        self.now += Duration::from_millis(1);
        written
    }

    /// The server says this on slot 0; what the worker writes to it comes back.
    fn say(&mut self, text: &str) -> String {
        self.say_on(0, text)
    }

    fn say_on(&mut self, slot: u32, text: &str) -> String {
        self.worker.received(slot, self.now, self.now, text.as_bytes(), &mut self.links);
        self.end_turn().swap_remove(slot as usize)
    }

    fn connect(&mut self, slot: u32) {
        self.links.dialed.retain(|dialed| *dialed != slot);
        self.worker.connected(slot, self.now, &mut self.links);
        self.end_turn();
    }

    /// Connects slot 0 and goes through the greeting; what the worker writes behind EHLO comes back.
    fn session(&mut self, capabilities: &str) -> String {
        self.connect(0);
        assert_eq!(self.say("220 hi\r\n"), "EHLO load.example\r\n");
        self.say(&format!("250-hi\r\n{capabilities}250 HELP\r\n"))
    }

    /// Time passes up to the slot's deadline, which comes.
    fn wait_for_deadline(&mut self, slot: u32) -> Duration {
        let waited = self.links.deadlines[slot as usize] - self.now;
        self.now = self.links.deadlines[slot as usize];
        self.links.deadlines[slot as usize] = Instant::NEVER;
        self.worker.timer(slot, self.now, &mut self.links);
        self.end_turn();
        waited
    }

    fn pass(&mut self, span: Duration) -> Vec<String> {
        self.now += span;
        self.end_turn()
    }

    /// Slots that were closed, all told.
    fn closed(&self) -> Vec<u32> {
        self.links.closed.clone()
    }

    /// Slots that are being dialled.
    fn dialed(&self) -> Vec<u32> {
        self.links.dialed.clone()
    }

    fn delta(&mut self) -> Box<Delta> {
        self.worker.take_delta(Box::default())
    }

    fn messages(&mut self) -> MessageCounts {
        self.worker.delta_mut().messages
    }

    fn error(&mut self) -> Option<(&'static str, Phase)> {
        self.worker.delta_mut().errors.first().map(|error| match error.kind {
            Cow::Borrowed(kind) => (kind, error.phase),
            Cow::Owned(_) => panic!("what is measured is named by constants"),
        })
    }
}

/// A dialogue without pipelining up to the end of the message, the final reply excluded.
fn send_message(play: &mut Play) {
    assert!(play.say("250 ok\r\n").starts_with("RCPT"));
    assert_eq!(play.say("250 ok\r\n"), "DATA\r\n");
    assert!(play.say("354 go\r\n").ends_with("\r\n.\r\n"));
}

#[test]
fn without_pipelining_each_command_waits_for_its_reply() {
    let mut play = Play::new(|raw| raw.messages = Some(1));
    assert_eq!(play.session(""), "MAIL FROM:<timecop@example.com>\r\n");
    assert_eq!(play.say("250 ok\r\n"), "RCPT TO:<load@example.com>\r\n");
    assert_eq!(play.say("250 ok\r\n"), "DATA\r\n");
    let message = play.say("354 go\r\n");
    assert_eq!(message.len(), 1_024 + 3);
    assert!(message.starts_with("Message-ID: <0000000000000000.") && message.ends_with("\r\n.\r\n"));
    assert_eq!(play.say("250 ok\r\n"), "QUIT\r\n");
    play.say("221 bye\r\n");
    assert!(play.worker.is_finished());
    assert_eq!(play.links.closed, [0]);
    let delta = play.delta();
    assert_eq!((delta.messages.accepted, delta.recipients.accepted, delta.messages.taken), (1, 1, 1));
    // Due and started when the connection was dialled; every turn lasts a millisecond.
    assert_eq!(delta.accepted.response.quantile_ns(1.0).map(|ns| ns / 10_000), Some(700));
    assert_eq!(delta.accepted.lateness.quantile_ns(1.0), Some(0));
    assert_eq!(delta.accepted.phases[Phase::Rcpt as usize].quantile_ns(1.0).map(|ns| ns / 100_000), Some(10));
}

#[test]
fn with_pipelining_a_transaction_is_two_writes() {
    let mut play = Play::new(|raw| {
        raw.recipients = vec!["a@example.com".into(), "b@example.com".into()];
        raw.recipients_per_message = Some(2);
    });
    let group =
        "MAIL FROM:<timecop@example.com> SIZE=1024\r\nRCPT TO:<a@example.com>\r\nRCPT TO:<b@example.com>\r\nDATA\r\n";
    assert_eq!(play.session("250-PIPELINING\r\n250-SIZE 1000000\r\n"), group);
    assert_eq!(play.say("250 ok\r\n250 ok\r\n"), "");
    assert!(play.say("550 no\r\n354 go\r\n").ends_with("\r\n.\r\n"));
    // The next MAIL waits for the reply to the message.
    assert_eq!(play.say("250 ok\r\n"), group);
    let tally = RecipientCounts { accepted: 1, deferred: 0, rejected: 1 };
    assert_eq!((play.messages().accepted, play.worker.delta_mut().recipients), (1, tally));
}

#[test]
fn pipelining_that_is_offered_and_not_wanted_is_left_alone() {
    let mut play = Play::new(|raw| raw.pipelining = Some(false));
    assert_eq!(play.session("250-PIPELINING\r\n"), "MAIL FROM:<timecop@example.com>\r\n");
}

#[test]
fn ehlo_refused_falls_back_to_helo() {
    let mut play = Play::new(|_| {});
    play.connect(0);
    play.say("220 hi\r\n");
    assert_eq!(play.say("502 what?\r\n"), "HELO load.example\r\n");
    assert_eq!(play.say("250 hi\r\n"), "MAIL FROM:<timecop@example.com>\r\n");
    assert_eq!((play.messages().failed, play.error()), (0, None));
}

#[test]
fn helo_refused_as_well_is_the_messages_outcome() {
    let mut play = Play::new(|_| {});
    play.connect(0);
    play.say("220 hi\r\n");
    play.say("502 what?\r\n");
    assert_eq!(play.say("554 go away\r\n"), "");
    assert_eq!((play.messages().rejected, play.worker.delta_mut().recipients.rejected), (1, 1));
    assert_eq!((play.closed(), play.messages().sent), (vec![0], 0));
}

#[test]
fn a_354_after_no_accepted_recipient_is_answered_with_the_dot_alone() {
    let mut play = Play::new(|_| {});
    play.session("250-PIPELINING\r\n");
    assert_eq!(play.say("250 ok\r\n550 no\r\n354 go\r\n"), ".\r\n");
    // Whatever it says to that, the recipient was rejected.
    assert!(play.say("250 thanks\r\n").starts_with("MAIL"));
    assert_eq!((play.messages().rejected, play.messages().accepted), (1, 0));
    assert_eq!(play.worker.delta_mut().recipients, RecipientCounts { rejected: 1, ..RecipientCounts::default() });
}

#[test]
fn a_354_after_mail_was_refused_is_answered_with_the_dot_alone() {
    let mut play = Play::new(|_| {});
    play.session("250-PIPELINING\r\n");
    // What it says of a recipient that it has no transaction for is no fate of that recipient.
    assert_eq!(play.say("451 later\r\n550 no\r\n354 go\r\n"), ".\r\n");
    assert!(play.say("250 thanks\r\n").starts_with("MAIL"));
    assert_eq!(play.worker.delta_mut().recipients, RecipientCounts { deferred: 1, ..RecipientCounts::default() });
}

#[test]
fn a_rejected_transaction_is_reset_before_the_next() {
    let mut play = Play::new(|_| {});
    play.session("");
    play.say("250 ok\r\n");
    assert_eq!(play.say("550 no\r\n"), "RSET\r\n");
    assert_eq!(play.messages().rejected, 1);
    assert_eq!(play.say("250 ok\r\n"), "MAIL FROM:<timecop@example.com>\r\n");
    // DATA refused: the transaction is still open.
    play.say("250 ok\r\n");
    play.say("250 ok\r\n");
    assert_eq!(play.say("451 later\r\n"), "RSET\r\n");
    // MAIL refused: there is none.
    assert!(play.say("250 ok\r\n").starts_with("MAIL"));
    assert!(play.say("550 no\r\n").starts_with("MAIL"));
    // The message refused: it is over.
    send_message(&mut play);
    assert!(play.say("554 no\r\n").starts_with("MAIL"));
    assert_eq!((play.messages().rejected, play.messages().deferred), (3, 1));
}

#[test]
fn no_message_is_sent_twice() {
    let mut play = Play::new(|raw| raw.messages = Some(4));
    let mut sequences = Vec::new();
    for _ in 0..4 {
        play.session("");
        for reply in ["250 ok\r\n", "250 ok\r\n"] {
            play.say(reply);
        }
        sequences.push(play.say("354 go\r\n")[13..29].to_owned());
        // The connection breaks where the reply is due: nobody knows whether the message was taken.
        let now = play.now;
        play.worker.closed(0, now, Some(LinkError::Reset), &mut play.links);
        play.end_turn();
        if !play.worker.is_finished() {
            play.wait_for_deadline(0);
        }
    }
    assert!(play.worker.is_finished());
    assert_eq!(sequences, (0..4).map(|i| format!("{i:016x}")).collect::<Vec<_>>());
    assert_eq!((play.messages().failed, play.messages().taken, play.error()), (4, 4, Some(("reset", Phase::Final))));
}

#[test]
fn a_slot_that_cannot_connect_backs_off_100_ms_doubling_to_5_s() {
    let mut play = Play::new(|raw| raw.messages = Some(9));
    let mut waits = Vec::new();
    for failed in 1..=9 {
        let now = play.now;
        play.links.dialed.clear();
        play.worker.connect_failed(0, now, LinkError::Refused, &mut play.links);
        assert_eq!(play.messages().failed, failed);
        if !play.worker.is_finished() {
            waits.push(play.wait_for_deadline(0).as_millis());
            assert_eq!(play.links.dialed, [0]);
        }
    }
    assert_eq!(waits, [100, 200, 400, 800, 1_600, 3_200, 5_000, 5_000]);
    assert_eq!((BACKOFF_FIRST.as_millis(), BACKOFF_MAX.as_millis()), (100, 5_000));
    assert!(play.worker.is_finished());
    assert_eq!(play.delta().connections.waiting_max, 1);
}

#[test]
fn an_accepted_message_ends_the_back_off() {
    let mut play = Play::new(|_| {});
    for expected in [100, 200] {
        let now = play.now;
        play.worker.connect_failed(0, now, LinkError::Refused, &mut play.links);
        assert_eq!(play.wait_for_deadline(0).as_millis(), expected);
    }
    play.session("");
    send_message(&mut play);
    play.say("250 ok\r\n");
    let now = play.now;
    play.worker.closed(0, now, None, &mut play.links);
    assert_eq!(play.wait_for_deadline(0).as_millis(), 100);
}

#[test]
fn a_connect_that_hangs_is_given_up_at_its_time_limit() {
    let mut play = Play::new(|raw| raw.timeout = Some((3 * SECOND).into()));
    assert_eq!(play.wait_for_deadline(0).as_millis(), 2_999);
    assert_eq!((play.closed(), play.error()), (vec![0], Some(("timeout", Phase::Connect))));
    assert_eq!(play.messages().failed, 1);
}

#[test]
fn a_reply_that_does_not_come_is_given_up_at_its_time_limit() {
    let mut play = Play::new(|raw| raw.timeout = Some((3 * SECOND).into()));
    play.session("");
    // Half a reply does not put it off.
    play.pass(2 * SECOND);
    play.say("250-still");
    assert!(play.wait_for_deadline(0) < SECOND);
    assert_eq!((play.messages().failed, play.error()), (1, Some(("timeout", Phase::Mail))));
    // It counts at the time it waited, apart from the successes.
    let delta = play.delta();
    assert_eq!((delta.other.response.count(), delta.accepted.response.count()), (1, 0));
    assert!(delta.other.response.summary().max > 3.0);
}

#[test]
fn a_421_closes_and_the_slot_reconnects_after_its_back_off() {
    // In a transaction it did so at once, and stormed a server that had asked to be left alone.
    for stage in 0..4 {
        let mut play = Play::new(|_| {});
        play.session("");
        for reply in ["250 ok\r\n", "250 ok\r\n", "354 go\r\n"].into_iter().take(stage) {
            play.say(reply);
        }
        play.links.dialed.clear();
        assert_eq!(play.say("421 4.3.2 closing\r\n"), "");
        assert_eq!((play.closed(), play.messages().deferred), (vec![0], 1));
        assert_eq!(play.links.dialed, [0; 0]);
        assert_eq!((play.wait_for_deadline(0).as_millis(), play.dialed()), (99, vec![0]));
    }
}

#[test]
fn a_421_between_two_messages_costs_no_message() {
    // It failed the message that was due longest, though other connections could have taken it.
    let mut play =
        Play::new(|raw| (raw.rate, raw.arrival, raw.connections) = (Some(10.0), Some(Arrival::Constant), Some(1)));
    assert_eq!(play.session(""), "");
    play.pass(SECOND);
    send_message(&mut play);
    // The next message is due by now, and the server ends the session right behind its reply to the first.
    play.now += SECOND;
    play.say("250 ok\r\n421 4.3.2 idle for too long\r\n");
    let messages = play.messages();
    assert_eq!((messages.accepted, messages.taken, messages.failed), (1, 1, 0));
}

#[test]
fn a_reply_that_comes_before_its_command_has_left_answers_nothing() {
    // A server that said all of this in one go had a message counted as accepted that had not been sent.
    let mut play = Play::new(|_| {});
    play.session("");
    send_message(&mut play);
    assert_eq!(play.say("250 ok\r\n250 ok\r\n250 ok\r\n354 go\r\n250 ok\r\n"), "");
    // What had not left goes on the next connection.
    assert_eq!((play.messages().accepted, play.messages().failed, play.messages().sent), (1, 0, 1));
    assert_eq!((play.error(), play.closed(), play.dialed()), (Some(("protocol", Phase::Idle)), vec![0], vec![0]));
    // A greeting that runs ahead.
    let mut play = Play::new(|_| {});
    play.connect(0);
    assert_eq!(play.say("220 hi\r\n250 hi\r\n"), "");
    assert_eq!((play.messages().failed, play.closed()), (1, vec![0]));
}

#[test]
fn after_the_drain_time_messages_in_flight_are_cut() {
    let mut play = Play::new(|raw| {
        (raw.duration, raw.rate, raw.arrival) = (Some(SECOND), Some(10.0), Some(Arrival::Constant));
        raw.connections = Some(2);
    });
    play.connect(0);
    play.say("220 hi\r\n");
    play.say("250 hi\r\n");
    let end = play.worker.job().end.expect("the run has an end");
    play.now = play.worker.job().start;
    assert!(play.end_turn()[0].starts_with("MAIL"));
    // The second connection was never open.
    play.now = end;
    play.end_turn();
    assert_eq!(play.messages(), MessageCounts { taken: 1, sent: 1, ..MessageCounts::default() });
    assert_eq!((play.closed(), play.worker.wake_at()), (vec![1], end + DRAIN));
    play.now = end + (DRAIN - Duration::from_nanos(1));
    play.end_turn();
    assert!(!play.worker.is_finished());
    play.now = end + DRAIN;
    play.end_turn();
    assert!(play.worker.is_finished());
    // What was missed is counted last, so that nothing in flight waits for it.
    assert_eq!((play.messages().cut, play.messages().missed), (1, 9));
    let connections = play.delta().connections;
    assert_eq!((connections.held, connections.waiting, play.closed()), (0, 0, vec![1, 0]));
}

#[test]
fn a_stop_lets_the_message_in_flight_end_and_begins_none() {
    let mut play = Play::new(|raw| raw.connections = Some(3));
    play.session("");
    play.connect(1);
    let now = play.now;
    play.worker.stop(now, &mut play.links);
    // Slot 2 is being dialled for a message that was taken: it is still sent.
    play.connect(2);
    send_message(&mut play);
    assert_eq!(play.say("250 ok\r\n"), "QUIT\r\n");
    play.say("221 bye\r\n");
    for slot in [1, 2] {
        play.say_on(slot, "220 hi\r\n");
        assert!(play.say_on(slot, "250 hi\r\n").starts_with("MAIL"));
        assert_eq!(play.say_on(slot, "550 no\r\n"), "QUIT\r\n");
        play.say_on(slot, "221 bye\r\n");
    }
    assert!(play.worker.is_finished());
    assert_eq!((play.messages().taken, play.messages().accepted, play.messages().rejected), (3, 1, 2));
}

#[test]
fn messages_per_connection_is_kept_and_the_next_connection_follows_at_once() {
    let mut play = Play::new(|raw| (raw.messages, raw.messages_per_connection) = (Some(3), Some(2)));
    play.session("");
    send_message(&mut play);
    assert!(play.say("250 ok\r\n").starts_with("MAIL"));
    send_message(&mut play);
    assert_eq!(play.say("250 ok\r\n"), "QUIT\r\n");
    play.links.dialed.clear();
    play.say("221 bye\r\n");
    assert_eq!((play.dialed(), play.messages().taken), (vec![0], 3));
    assert!(play.session("").starts_with("MAIL"));
    let connections = play.worker.take_delta(Box::default()).connections;
    assert_eq!((connections.opened, connections.reopened), (2, 1));
}

#[test]
fn a_peer_that_is_gone_after_quit_owes_nothing() {
    for error in [None, Some(LinkError::Reset)] {
        let mut play = Play::new(|raw| raw.messages = Some(1));
        play.session("");
        send_message(&mut play);
        assert_eq!(play.say("250 ok\r\n"), "QUIT\r\n");
        let now = play.now;
        play.worker.closed(0, now, error, &mut play.links);
        assert!(play.worker.is_finished());
        assert_eq!((play.error(), play.messages().accepted), (None, 1));
    }
}

#[test]
fn a_message_that_finds_no_connection_fails_and_one_that_is_not_due_does_not() {
    let mut play =
        Play::new(|raw| (raw.rate, raw.arrival, raw.connections) = (Some(1.0), Some(Arrival::Constant), Some(1)));
    let now = play.now;
    play.worker.connect_failed(0, now, LinkError::Refused, &mut play.links);
    assert_eq!(play.messages().failed, 0);
    play.wait_for_deadline(0);
    play.pass(SECOND);
    let now = play.now;
    play.worker.connect_failed(0, now, LinkError::Refused, &mut play.links);
    assert_eq!((play.messages().failed, play.messages().sent), (1, 0));
}

#[test]
fn due_messages_go_to_the_connection_that_has_been_idle_longest() {
    let mut play =
        Play::new(|raw| (raw.rate, raw.arrival, raw.connections) = (Some(1.0), Some(Arrival::Constant), Some(2)));
    for slot in [1, 0] {
        play.connect(slot);
        play.say_on(slot, "220 hi\r\n");
        play.say_on(slot, "250 hi\r\n");
    }
    play.now = play.worker.job().start;
    let written = play.end_turn();
    assert!(written[0].is_empty() && written[1].starts_with("MAIL"), "{written:?}");
}

#[test]
fn an_open_loop_ends_though_a_connection_that_nothing_needs_was_never_greeted() {
    let mut play = Play::new(|raw| {
        (raw.messages, raw.rate, raw.arrival) = (Some(1), Some(10.0), Some(Arrival::Constant));
        raw.connections = Some(2);
    });
    play.connect(0);
    play.connect(1);
    play.say("220 hi\r\n");
    play.say("250 hi\r\n");
    play.now = play.worker.job().start;
    assert!(play.end_turn()[0].starts_with("MAIL"));
    assert_eq!(play.closed(), vec![1], "the one that still waits for its greeting");
    let connections = play.delta().connections;
    assert_eq!((connections.open, connections.held), (1, 1));
    assert!(!play.worker.is_finished());
}

const STARTTLS: &str = "250-STARTTLS\r\n";

fn tls_session() -> TlsSession {
    TlsSession { version: "TLSv1.3", cipher: "TLS13_AES_256_GCM_SHA384", resumed: false }
}

impl Play {
    fn tls_ready(&mut self) -> String {
        self.worker.tls_ready(0, self.now, self.now, tls_session(), &mut self.links);
        self.end_turn().swap_remove(0)
    }
}

#[test]
fn tls_comes_before_the_greeting_and_is_a_phase_of_its_own() {
    let mut play = Play::over(ConnectionType::Tls, |_| {});
    play.connect(0);
    assert_eq!(play.links.secured, [0]);
    assert_eq!(play.tls_ready(), "", "the greeting is awaited");
    assert_eq!(play.say("220 hi\r\n"), "EHLO load.example\r\n");
    assert!(play.say("250-hi\r\n250-STARTTLS\r\n250 HELP\r\n").starts_with("MAIL"), "TLS is in use already");
    let delta = play.delta();
    assert_eq!((delta.tls[0].full, delta.tls[0].resumed), (1, 0));
    for phase in [Phase::Tls, Phase::Banner, Phase::Ehlo] {
        assert_eq!(delta.accepted.phases[phase as usize].count(), 1, "{phase}");
    }
}

#[test]
fn starttls_comes_between_two_ehlos_and_forgets_what_the_first_one_said() {
    let mut play = Play::over(ConnectionType::StartTls, |_| {});
    assert_eq!(play.session("250-PIPELINING\r\n250-SIZE 5\r\n250-STARTTLS\r\n"), "STARTTLS\r\n");
    assert_eq!(play.say("220 go\r\n"), "");
    assert_eq!(play.links.secured, [0]);
    assert_eq!(play.tls_ready(), "EHLO load.example\r\n");
    assert_eq!(play.say("250 hi\r\n"), "MAIL FROM:<timecop@example.com>\r\n", "neither pipelined nor with SIZE");
    let delta = play.delta();
    let count = |phase: Phase| delta.accepted.phases[phase as usize].count();
    assert_eq!((count(Phase::StartTls), count(Phase::Tls), count(Phase::Ehlo)), (1, 1, 2));
}

#[test]
fn starttls_never_falls_back() {
    let play_to = |offers: &str, replies: &[&str]| {
        let mut play = Play::over(ConnectionType::StartTls, |_| {});
        let mut written = play.session(offers);
        replies.iter().for_each(|reply| written += &play.say(reply));
        let written = written.replace("STARTTLS\r\n", "");
        (written, play.messages().failed, play.error().expect("there is an error"))
    };
    let nothing = String::new;
    assert_eq!(play_to("", &[]), (nothing(), 1, ("not_offered", Phase::StartTls)));
    for refusal in ["454 later\r\n", "502 what?\r\n", "250 ok\r\n"] {
        assert_eq!(play_to(STARTTLS, &[refusal]), (nothing(), 1, ("not_granted", Phase::StartTls)), "{refusal}");
    }
    let injected = play_to(STARTTLS, &["220 go\r\n250 ok\r\n"]);
    assert_eq!(injected, (nothing(), 1, ("injection", Phase::StartTls)));
    let mut play = Play::over(ConnectionType::StartTls, |_| {});
    play.connect(0);
    play.say("220 hi\r\n");
    assert_eq!(play.say("502 what?\r\n"), "", "HELO offers nothing, so it is not tried");
    assert_eq!(play.error(), Some(("not_offered", Phase::StartTls)));
}

#[test]
fn a_failed_handshake_is_a_failure_of_its_phase_and_tls_that_breaks_later_one_of_that_time() {
    let failure = TlsFailure { kind: "certificate", reason: "the certificate has expired".into() };
    let mut play = Play::over(ConnectionType::Tls, |_| {});
    play.connect(0);
    play.worker.tls_failed(0, play.now, &failure, &mut play.links);
    assert_eq!((play.messages().failed, play.error()), (1, Some(("certificate", Phase::Tls))));
    assert_eq!((play.closed(), play.delta().other.phases[Phase::Tls as usize].count()), (vec![0], 1));

    let mut play = Play::over(ConnectionType::Tls, |_| {});
    play.connect(0);
    play.tls_ready();
    play.say("220 hi\r\n");
    play.say("250 hi\r\n");
    play.worker.tls_failed(0, play.now, &TlsFailure { kind: "tls", ..failure }, &mut play.links);
    assert_eq!((play.messages().failed, play.error()), (1, Some(("tls", Phase::Mail))));
}

#[test]
fn a_handshake_that_does_not_end_is_given_up_and_one_that_is_broken_off_fails() {
    let mut play = Play::over(ConnectionType::Tls, |raw| raw.timeout = Some(SECOND.into()));
    play.connect(0);
    play.wait_for_deadline(0);
    assert_eq!((play.messages().failed, play.error()), (1, Some(("timeout", Phase::Tls))));
    let mut play = Play::over(ConnectionType::Tls, |_| {});
    play.connect(0);
    play.worker.closed(0, play.now, None, &mut play.links);
    assert_eq!((play.messages().failed, play.error()), (1, Some(("closed", Phase::Tls))));
}

#[test]
fn messages_made_here_go_to_no_server_that_cannot_take_them() {
    let made = |values: &str, capabilities: &str| {
        let mut play = Play::new(|raw| {
            raw.text = Some("Hi %recipient.first%\n".into());
            raw.subject = Some("Hi %recipient.first%".into());
            (raw.expand, raw.recipient_variables) = (Some(true), Some(values.into()));
        });
        let written = play.session(capabilities);
        (written, play.error())
    };
    let (ascii, beyond) = (r#"{"load@example.com":{"first":"Ann"}}"#, r#"{"load@example.com":{"first":"Jörg"}}"#);
    assert!(made(ascii, "").0.starts_with("MAIL FROM:<timecop@example.com>"));
    assert_eq!(made(beyond, "250-8BITMIME\r\n"), (String::new(), Some(("smtputf8_not_offered", Phase::Ehlo))));
    assert!(made(beyond, "250-8BITMIME\r\n250-SMTPUTF8\r\n").0.contains(" BODY=8BITMIME SMTPUTF8"));
    let in_text = |capabilities: &str| {
        let mut play = Play::new(|raw| {
            raw.text = Some("Hi %recipient.first%\n".into());
            (raw.expand, raw.recipient_variables) = (Some(true), Some(beyond.into()));
        });
        let written = play.session(capabilities);
        (written, play.error())
    };
    assert_eq!(in_text(""), (String::new(), Some(("8bitmime_not_offered", Phase::Ehlo))));
    assert!(in_text("250-8BITMIME\r\n").0.contains(" BODY=8BITMIME"));
    // Without variables such a text is encoded, which any server takes.
    let mut play = Play::new(|raw| (raw.text, raw.subject) = (Some("Grüße\n".into()), Some("Grüße".into())));
    assert!(play.session("").starts_with("MAIL"));
}

/// Peers that are no mail servers.
mod strangers;

/// Logins (AUTH).
mod login;

/// Jobs by HTTP.
mod http;
