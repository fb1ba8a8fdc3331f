//! What the sink answers.

use super::capacity::Capacity;
use super::counts::Counts;
use super::fault::{FaultPhase, Faults, Striker, Struck, TlsFault};
use super::stall::Stall;
use crate::audit::ledger::{Ledger, Reader};
use crate::time::Instant;
use crate::wire::smtp::server::{Answer, Decision, Event, Policy, Question, Refusal};
use std::net::IpAddr;
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
    /// When nothing is said at all.
    pub stall: Option<Stall>,
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
    /// There is none where nothing goes wrong.
    striker: Option<Box<Striker>>,
    seed: u64,
    counts: Counts,
    kept: Vec<Vec<u8>>,
    audit: Option<Box<Reader>>,
}

impl SinkPolicy {
    /// The policy of a shard that starts at `start`. `seed` repeats the rolls of its faults; each shard needs its own.
    pub fn new(settings: SinkSettings, start: Instant, seed: u64) -> SinkPolicy {
        let striker = Striker::new(&settings.faults, start, seed);
        let audit = settings.audit.clone().map(|ledger| Box::new(Reader::new(ledger)));
        SinkPolicy { settings, start, striker, seed, counts: Counts::default(), kept: Vec::new(), audit }
    }

    /// Other faults take the place of these, at once and for all connections. `open` are the numbers of those that there are.
    pub fn set_faults(&mut self, faults: Faults, open: impl Iterator<Item = usize>) {
        match &mut self.striker {
            Some(striker) if !faults.is_empty() => striker.replace(&faults),
            _ => {
                self.striker = Striker::new(&faults, self.start, self.seed);
                open.for_each(|number| self.enter(number, None));
            }
        }
        self.settings.faults = faults;
    }

    /// The faults in force.
    pub fn faults(&self) -> &Faults {
        &self.settings.faults
    }

    /// Whether anything goes wrong: only then need connections enter and leave.
    #[inline]
    pub fn is_faulty(&self) -> bool {
        self.striker.is_some()
    }

    /// A connection is there, from this address, if that is known.
    pub fn enter(&mut self, number: usize, address: Option<IpAddr>) {
        if let Some(striker) = &mut self.striker {
            striker.enter(number, address);
        }
    }

    /// A connection has gone.
    pub fn leave(&mut self, number: usize) {
        if let Some(striker) = &mut self.striker {
            striker.leave(number);
        }
    }

    /// What follows is of this connection, of which something has come at `arrived`: faults and an audit tell connections
    /// apart by it.
    #[inline]
    pub fn attend(&mut self, number: usize, arrived: Instant) {
        if let Some(striker) = &mut self.striker {
            striker.attend(number);
        }
        if let Some(audit) = &mut self.audit {
            audit.attend(number, arrived);
        }
    }

    /// What strikes the connection in hand before anything is said on it.
    pub fn strike_connect(&mut self, now: Instant) -> Struck {
        let strike = |striker: &mut Box<Striker>| striker.strike(now, FaultPhase::Connect, None);
        self.striker.as_mut().map(strike).unwrap_or_default()
    }

    /// How the TLS handshake of the connection in hand goes wrong, if it does.
    pub fn strike_tls(&mut self, now: Instant) -> Option<TlsFault> {
        self.striker.as_mut()?.strike(now, FaultPhase::Tls, None).tls
    }

    /// How slowly, in octets a second, the connection in hand is to be read from now on; said once.
    pub fn take_slow(&mut self) -> Option<u32> {
        self.striker.as_mut()?.take_slow()
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

impl SinkPolicy {
    /// Whether a message has room, and how long it waits for it.
    fn admit(&self, now: Instant) -> Decision {
        match self.settings.capacity.as_ref().map(|capacity| capacity.admit(self.start, now)) {
            None => Decision::ACCEPT,
            Some(Some(hold)) => Decision { answer: Answer::Accept, hold },
            Some(None) => Decision::refuse(FULL),
        }
    }

    /// The answer to a question that faults have struck, or not; `no` is what it is without them, if it is no.
    fn struck(&mut self, now: Instant, question: Question<'_>, struck: Struck, no: Option<Refusal>) -> Decision {
        let hold = struck.hold;
        if struck.drop || struck.reset {
            return Decision { answer: if struck.reset { Answer::Reset } else { Answer::Drop }, hold };
        }
        if let Some(refusal) = no.or(struck.refusal) {
            return Decision { answer: Answer::Refuse(refusal), hold };
        }
        match question {
            Question::Rcpt { forward_path } => {
                if let Some(striker) = &mut self.striker {
                    striker.accepted(forward_path);
                }
                Decision { answer: Answer::Accept, hold }
            }
            // What is not accepted takes nothing of the capacity.
            Question::Message { .. } => {
                let Decision { answer, hold: wait } = self.admit(now);
                Decision { answer, hold: hold + wait }
            }
            _ => Decision { answer: Answer::Accept, hold },
        }
    }
}

impl Policy for SinkPolicy {
    #[inline]
    fn decide(&mut self, now: Instant, question: Question<'_>) -> Decision {
        if let (Some(audit), Question::Data { .. }) = (&mut self.audit, question) {
            audit.begin();
        }
        let no = match question {
            Question::Rcpt { forward_path } if !self.is_taken(forward_path) => Some(OTHER_DOMAIN),
            _ => None,
        };
        match (&mut self.striker, no) {
            (Some(striker), no) => {
                let struck = striker.ask(now, &question, no.is_some());
                self.struck(now, question, struck, no)
            }
            (None, Some(no)) => Decision::refuse(no),
            (None, None) => match (&self.settings.capacity, question) {
                (Some(_), Question::Message { .. }) => self.admit(now),
                _ => Decision::ACCEPT,
            },
        }
    }

    #[inline]
    fn release(&self, due: Instant) -> Instant {
        self.settings.stall.map_or(due, |stall| stall.release(self.start, due))
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
    use crate::sink::FaultCounters;
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
        counters: FaultCounters,
    }

    impl Drive {
        fn faulty(rules: &[&str], accept_domains: Vec<String>) -> Drive {
            let counters = FaultCounters::default();
            let faults = Faults::new(rules.iter().map(|rule| rule.parse().unwrap()), counters.clone()).unwrap();
            Drive { counters, ..Drive::new(SinkSettings { faults, accept_domains, ..SinkSettings::default() }) }
        }

        fn new(settings: SinkSettings) -> Drive {
            let policy = SinkPolicy::new(settings, at_ms(0), 7);
            let config = ServerConfig::new("sink.example", 1_000_000, true);
            let (session, flow) = (Session::new(), Flow::Continue);
            let mut drive = Drive {
                policy,
                session,
                config,
                now_ms: 0,
                flow,
                replies: Vec::new(),
                counters: FaultCounters::default(),
            };
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

    fn faults(rules: &[&str]) -> SinkSettings {
        let faults = Faults::new(rules.iter().map(|rule| rule.parse().unwrap()), FaultCounters::default());
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
        let mut drive = Drive::new(faults(&["banner=delay:5ms", "rcpt=delay:10ms", "final=delay:1s"]));
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
        let settings = SinkSettings { capacity, ..faults(&["final=delay:5ms"]) };
        let refusing = SinkSettings { capacity: settings.capacity.clone(), ..faults(&["final=554"]) };
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
        let mut drive = Drive::new(SinkSettings { stall: Some("1s@5s".parse().unwrap()), ..SinkSettings::default() });
        for ms in [4_999, 5_000, 5_500, 5_999, 6_000] {
            drive.send_at(ms, b"NOOP\r\n");
        }
        let times: Vec<u64> = drive.replies[1..].iter().map(|(ms, _)| *ms).collect();
        assert_eq!(times, [4_999, 6_000, 6_000, 6_000, 6_000]);
    }

    #[test]
    fn an_injected_refusal_is_no_message_and_no_error() {
        let mut drive = Drive::new(faults(&["final=451,100%,later"]));
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
        let mut drive = Drive::new(faults(&["final=drop"]));
        drive.send_at(0, ENVELOPE);
        let replies = drive.replies.len();
        drive.send_at(0, b"hello\r\n.\r\n");
        assert_eq!((drive.flow, drive.replies.len(), drive.policy.counts().messages), (Flow::Close, replies, 0));
        let drive = Drive::new(faults(&["banner=drop"]));
        assert_eq!((drive.flow, drive.replies.len()), (Flow::Close, 0));
    }

    /// What was counted: phase, action, how often.
    fn counted(drive: &Drive) -> Vec<(&'static str, &'static str, u64)> {
        drive.counters.counts().iter().map(|count| (count.phase, count.action, count.count)).collect()
    }

    #[test]
    fn what_does_not_happen_is_not_counted() {
        let accept_domains = vec!["ours.example".to_string()];
        let mut drive = Drive::faulty(&["rcpt=451,100%,later", "rcpt=delay:1ms"], accept_domains);
        drive.send_at(0, b"EHLO c\r\nMAIL FROM:<a@x>\r\nRCPT TO:<b@x.example>\r\n");
        drive.send_at(1, b"");
        assert_eq!(
            (drive.last().1, counted(&drive)),
            ("550 5.7.1 no mail for this domain here", vec![("rcpt", "delay", 1)])
        );
        drive.send_at(2, b"RCPT TO:<b@ours.example>\r\n");
        assert_eq!(counted(&drive), [("rcpt", "reply", 1), ("rcpt", "delay", 2)]);

        let mut drive = Drive::faulty(&["ehlo=without:PIPELINING"], Vec::new());
        drive.send_at(0, b"HELO c\r\n");
        assert_eq!(counted(&drive), [], "HELO offers nothing");
        drive.send_at(0, b"EHLO c\r\n");
        assert_eq!(counted(&drive), [("ehlo", "without", 1)]);

        let mut drive = Drive::faulty(&["ehlo=without:PIPELINING", "ehlo=slow:5/s", "ehlo=drop"], Vec::new());
        drive.send_at(0, b"EHLO c\r\n");
        assert_eq!(counted(&drive), [("ehlo", "drop", 1)], "nothing is offered by whoever drops, and nothing read");
    }

    #[test]
    fn a_reset_comes_behind_its_delay_and_what_was_answered_before() {
        let mut drive = Drive::faulty(&["data=reset"], Vec::new());
        drive.send_at(0, ENVELOPE);
        assert_eq!((drive.flow, drive.last().1), (Flow::Reset, "250 2.1.5 ok"));

        let mut drive = Drive::faulty(&["data=delay:2s", "data=reset"], Vec::new());
        drive.send_at(0, ENVELOPE);
        assert_eq!((drive.flow, drive.last().1), (Flow::Continue, "250 2.1.5 ok"));
        drive.send_at(1_999, b"NOOP\r\n");
        assert_eq!((drive.flow, drive.last().1), (Flow::Continue, "250 2.1.5 ok"), "nothing follows");
        drive.send_at(2_000, b"");
        assert_eq!((drive.flow, drive.last().1), (Flow::Reset, "250 2.1.5 ok"));
        assert_eq!(counted(&drive), [("data", "reset", 1), ("data", "delay", 1)]);
    }

    #[test]
    fn the_same_seed_rolls_the_same_faults() {
        let settings = faults(&["mail=delay:exp:10ms", "rcpt=451,50%", "final=drop,5%"]);
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
