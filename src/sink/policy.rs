//! What the sink answers.

use super::capacity::Capacity;
use super::counts::Counts;
use super::fault::{Faults, phase_of};
use crate::audit::ledger::{Ledger, Reader};
use crate::time::Instant;
use crate::wire::smtp::server::{Answer, Decision, Event, Policy, Question, Refusal};
use rand::SeedableRng;
use rand_pcg::Pcg64;
use std::sync::Arc;

const OTHER_DOMAIN: Refusal = Refusal::from_static("550 5.7.1 no mail for this domain here\r\n");
const FULL: Refusal = Refusal::from_static("452 4.3.1 too many messages in line, try again later\r\n");

/// What a sink is told.
#[derive(Clone, Debug, Default)]
pub struct SinkSettings {
    /// Domains that mail is taken for, in any case; every domain if there is none. `postmaster` is always taken.
    pub accept_domains: Vec<String>,
    /// What is to go wrong.
    pub faults: Faults,
    /// How many messages a second are accepted; without it, as many as come.
    pub capacity: Option<Capacity>,
    /// Octets of each message that are kept for [`SinkPolicy::take_kept`]; 0 keeps none.
    pub keep_bytes_max: usize,
    /// Where arrivals are put down, if they are audited; shared by all shards.
    pub audit: Option<Arc<Ledger>>,
}

/// The policy of one shard of a sink.
#[derive(Debug)]
pub struct SinkPolicy {
    settings: SinkSettings,
    /// When the sink started; stalls count from it.
    start: Instant,
    random: Pcg64,
    counts: Counts,
    kept: Vec<Vec<u8>>,
    audit: Option<Box<Reader>>,
}

impl SinkPolicy {
    /// The policy of a shard that starts at `start`. `seed` repeats the rolls of its faults; each shard needs its own.
    pub fn new(settings: SinkSettings, start: Instant, seed: u64) -> SinkPolicy {
        let random = Pcg64::seed_from_u64(seed);
        let audit = settings.audit.clone().map(|ledger| Box::new(Reader::new(ledger)));
        SinkPolicy { settings, start, random, counts: Counts::default(), kept: Vec::new(), audit }
    }

    /// What follows is of this connection, whose octets have arrived at `arrived`: an audit tells messages apart by it.
    #[inline]
    pub fn attend(&mut self, connection: usize, arrived: Instant) {
        if let Some(audit) = &mut self.audit {
            audit.attend(connection, arrived);
        }
    }

    /// What has arrived so far.
    pub fn counts(&self) -> Counts {
        self.counts
    }

    /// The messages that were accepted since the last call, as received, without dot-stuffing. To be called after each
    /// turn when messages are kept, since nothing else bounds their number.
    pub fn take_kept(&mut self) -> std::vec::Drain<'_, Vec<u8>> {
        self.kept.drain(..)
    }

    fn is_taken(&self, forward_path: &[u8]) -> bool {
        let domains = &self.settings.accept_domains;
        // A local part may hold an @ in quotes, a domain never does.
        let Some(at) = memchr::memrchr(b'@', forward_path) else {
            return true;
        };
        let domain = &forward_path[at + 1..];
        domains.is_empty() || domains.iter().any(|taken| domain.eq_ignore_ascii_case(taken.as_bytes()))
    }
}

impl Policy for SinkPolicy {
    #[inline]
    fn decide(&mut self, now: Instant, question: Question<'_>) -> Decision {
        let mut struck = self.settings.faults.strike(phase_of(&question), &mut self.random);
        // What is not accepted takes nothing of the capacity.
        if let (Some(capacity), Question::Message { .. }, false, None) =
            (&self.settings.capacity, question, struck.drop, &struck.refusal)
        {
            match capacity.admit(self.start, now) {
                Some(wait) => struck.hold += wait,
                None => struck.refusal = Some(FULL),
            }
        }
        let answer = if struck.drop {
            Answer::Drop
        } else if let Question::Rcpt { forward_path } = question
            && !self.is_taken(forward_path)
        {
            Answer::Refuse(OTHER_DOMAIN)
        } else {
            struck.refusal.map_or(Answer::Accept, Answer::Refuse)
        };
        if let (Some(audit), Question::Data { .. }) = (&mut self.audit, question) {
            audit.begin();
        }
        Decision { answer, hold: struck.hold }
    }

    #[inline]
    fn release(&self, due: Instant) -> Instant {
        self.settings.faults.stall.map_or(due, |stall| stall.release(self.start, due))
    }

    #[inline]
    fn content_bytes_wanted(&self) -> usize {
        self.settings.keep_bytes_max
    }

    #[inline]
    fn reads_content(&self) -> bool {
        self.audit.as_ref().is_some_and(|audit| audit.is_reading())
    }

    #[inline]
    fn content(&mut self, octets: &[u8]) {
        if let Some(audit) = &mut self.audit {
            audit.update(octets);
        }
    }

    #[inline]
    fn observe(&mut self, event: Event) {
        self.counts.add(&event);
        if let (Some(audit), Event::Message { .. }) = (&mut self.audit, &event) {
            audit.accepted();
        }
        if let Event::Message { content, .. } = event
            && self.settings.keep_bytes_max > 0
        {
            self.kept.push(content);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::wire::smtp::server::{Flow, ServerConfig, Session};

    fn at_ms(ms: u64) -> Instant {
        Instant::from_ns(ms * 1_000_000)
    }

    /// One session of a sink, driven in virtual time: replies as lines with the millisecond in which they came.
    struct Drive {
        policy: SinkPolicy,
        session: Session,
        config: ServerConfig,
        now_ms: u64,
        flow: Flow,
        replies: Vec<(u64, String)>,
    }

    impl Drive {
        fn new(settings: SinkSettings) -> Drive {
            let policy = SinkPolicy::new(settings, at_ms(0), 7);
            let config = ServerConfig::new("sink.example", 1_000_000, true);
            let (session, flow) = (Session::new(), Flow::Continue);
            let mut drive = Drive { policy, session, config, now_ms: 0, flow, replies: Vec::new() };
            let mut out = Vec::new();
            drive.flow = drive.session.connected(at_ms(0), &drive.config, &mut drive.policy, &mut out);
            drive.note(&out);
            drive
        }

        fn note(&mut self, out: &[u8]) {
            let text = std::str::from_utf8(out).unwrap();
            self.replies.extend(text.lines().map(|line| (self.now_ms, line.to_string())));
        }

        /// Sends at `ms`, after all deadlines up to then.
        fn send_at(&mut self, ms: u64, bytes: &[u8]) {
            while self.session.deadline() <= at_ms(ms) {
                self.now_ms = self.session.deadline().as_ns().div_ceil(1_000_000);
                let mut out = Vec::new();
                let now = self.session.deadline();
                self.flow = self.session.handle_timeout(now, &self.config, &mut self.policy, &mut out);
                self.note(&out);
            }
            self.now_ms = ms;
            let mut out = Vec::new();
            self.flow = self.session.handle(at_ms(ms), bytes, &self.config, &mut self.policy, &mut out);
            self.note(&out);
        }

        fn last(&self) -> (u64, &str) {
            self.replies.last().map(|(ms, line)| (*ms, line.as_str())).unwrap()
        }
    }

    const ENVELOPE: &[u8] = b"EHLO c\r\nMAIL FROM:<a@x>\r\nRCPT TO:<b@x.example>\r\nDATA\r\n";

    fn faults(delays: &[&str], replies: &[&str], drops: &[&str], stall: Option<&str>) -> SinkSettings {
        let faults = Faults::new(
            delays.iter().map(|text| text.parse().unwrap()),
            replies.iter().map(|text| text.parse().unwrap()),
            drops.iter().map(|text| text.parse().unwrap()),
            stall.map(|text| text.parse().unwrap()),
        );
        SinkSettings { faults: faults.unwrap(), ..SinkSettings::default() }
    }

    #[test]
    fn everything_is_taken_and_counted_and_nothing_kept() {
        let mut drive = Drive::new(SinkSettings::default());
        drive.send_at(0, ENVELOPE);
        drive.send_at(0, b"hello\r\n.\r\nWHAT\r\nQUIT\r\n");
        let counts =
            Counts { sessions: 1, messages: 1, recipients: 1, bytes: 7, commands: 6, errors: 1, ..Counts::default() };
        assert_eq!((drive.policy.counts(), drive.flow), (counts, Flow::Close));
        assert_eq!(drive.policy.take_kept().count(), 0);
    }

    #[test]
    fn messages_are_kept_as_received() {
        let mut drive = Drive::new(SinkSettings { keep_bytes_max: 1_000_000, ..SinkSettings::default() });
        for message in [&b"..one\r\n.\r\n"[..], b"two\r\n.\r\n"] {
            drive.send_at(0, ENVELOPE);
            drive.send_at(0, message);
        }
        assert_eq!(drive.policy.take_kept().collect::<Vec<_>>(), [b".one\r\n".to_vec(), b"two\r\n".to_vec()]);
        assert_eq!(drive.policy.take_kept().count(), 0);
    }

    #[test]
    fn domains_that_are_not_accepted_are_refused() {
        let accept_domains = vec!["x.example".to_string()];
        let mut drive = Drive::new(SinkSettings { accept_domains, ..SinkSettings::default() });
        drive.send_at(0, b"EHLO c\r\nMAIL FROM:<a@y.example>\r\n");
        for (path, code) in [
            ("b@X.Example", "250 2.1.5"),
            ("postmaster", "250 2.1.5"),
            ("b@y.example", "550 5.7.1"),
            ("b@sub.x.example", "550 5.7.1"),
            ("\"b@x.example\"@y.example", "550 5.7.1"),
            ("@x.example:b@y.example", "550 5.7.1"),
            ("b%y.example@x.example", "250 2.1.5"),
        ] {
            drive.send_at(0, format!("RCPT TO:<{path}>\r\n").as_bytes());
            assert_eq!(drive.last().1[..9], *code, "{path}");
        }
        assert_eq!(drive.policy.counts().errors, 0);
    }

    #[test]
    fn delays_are_exact() {
        let mut drive = Drive::new(faults(&["banner=5ms", "rcpt=10ms", "final=1s"], &[], &[], None));
        drive.send_at(5, ENVELOPE);
        drive.send_at(20, b"hello\r\n.\r\n");
        drive.send_at(5_000, b"QUIT\r\n");
        let codes: Vec<(u64, &str)> = drive.replies.iter().map(|(ms, line)| (*ms, &line[..4])).collect();
        assert_eq!(codes[0], (5, "220 "));
        assert_eq!(codes[8..], [(5, "250 "), (15, "250 "), (15, "354 "), (1_020, "250 "), (5_000, "221 ")]);
        assert_eq!(drive.policy.counts().messages, 1);
    }

    #[test]
    fn messages_wait_for_the_capacity_over_all_sessions_and_a_full_line_defers() {
        let capacity = Some("10/s,queue=1".parse().unwrap());
        let settings = SinkSettings { capacity, ..faults(&["final=5ms"], &[], &[], None) };
        let refusing = SinkSettings { capacity: settings.capacity.clone(), ..faults(&[], &["final=554"], &[], None) };
        let mut sessions: Vec<Drive> =
            [&refusing, &settings, &settings, &settings].map(|s| Drive::new(s.clone())).into();
        for drive in &mut sessions {
            drive.send_at(0, ENVELOPE);
            drive.send_at(0, b"hello\r\n.\r\n");
        }
        for drive in &mut sessions {
            drive.send_at(1_000, b"");
        }
        let last: Vec<(u64, &str)> = sessions.iter().map(|drive| (drive.last().0, &drive.last().1[..9])).collect();
        // What is refused takes nothing of the capacity, and a delay comes on top.
        assert_eq!(last, [(0, "554 5.0.0"), (105, "250 2.6.0"), (205, "250 2.6.0"), (5, "452 4.3.1")]);
    }

    #[test]
    fn a_stall_silences_every_reply_for_its_length() {
        let mut drive = Drive::new(faults(&[], &[], &[], Some("1s@5s")));
        for ms in [4_999, 5_000, 5_500, 5_999, 6_000] {
            drive.send_at(ms, b"NOOP\r\n");
        }
        let times: Vec<u64> = drive.replies[1..].iter().map(|(ms, _)| *ms).collect();
        assert_eq!(times, [4_999, 6_000, 6_000, 6_000, 6_000]);
    }

    #[test]
    fn an_injected_refusal_is_no_message_and_no_error() {
        let mut drive = Drive::new(faults(&[], &["final=451,100%,later"], &[], None));
        drive.send_at(0, ENVELOPE);
        drive.send_at(0, b"hello\r\n.\r\n");
        assert_eq!(drive.last(), (0, "451 4.3.0 later"));
        let counts = drive.policy.counts();
        assert_eq!((counts.messages, counts.bytes, counts.errors), (0, 0, 0));
        drive.send_at(0, ENVELOPE);
        assert_eq!(&drive.last().1[..3], "354");
    }

    #[test]
    fn an_injected_drop_closes_without_a_word() {
        let mut drive = Drive::new(faults(&[], &[], &["final=100%"], None));
        drive.send_at(0, ENVELOPE);
        let replies = drive.replies.len();
        drive.send_at(0, b"hello\r\n.\r\n");
        assert_eq!((drive.flow, drive.replies.len(), drive.policy.counts().messages), (Flow::Close, replies, 0));
        let drive = Drive::new(faults(&[], &[], &["banner=100%"], None));
        assert_eq!((drive.flow, drive.replies.len()), (Flow::Close, 0));
    }

    #[test]
    fn the_same_seed_rolls_the_same_faults() {
        let settings = faults(&["mail=exp:10ms"], &["rcpt=451,50%"], &["final=5%"], None);
        let play = || {
            let mut drive = Drive::new(settings.clone());
            for round in 0..50 {
                drive
                    .send_at(round * 1_000, b"EHLO c\r\nMAIL FROM:<a@x>\r\nRCPT TO:<b@x>\r\nRCPT TO:<c@x>\r\nRSET\r\n");
            }
            drive.replies
        };
        assert_eq!(play(), play());
    }
}
