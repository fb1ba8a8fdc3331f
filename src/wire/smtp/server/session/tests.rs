//! What a session answers, and what it does not.

use super::*;
use crate::wire::smtp::auth::Users;
use crate::wire::smtp::server::{Capabilities, Capability, HELD_BYTES_MAX};
use proptest::prelude::*;

/// Holds and answers as told; remembers what happened.
#[derive(Default)]
struct Told {
    hold_ms: u64,
    quiet: Option<(Instant, Instant)>,
    refuse_banner: bool,
    drop_at_mail: bool,
    refuse_quit: bool,
    wanted: usize,
    events: Vec<Event>,
    asked: Vec<String>,
}

impl Policy for Told {
    fn decide(&mut self, _now: Instant, question: Question<'_>) -> Decision {
        self.asked.push(format!("{question:?}"));
        let answer = match question {
            Question::Connect if self.refuse_banner => Answer::Refuse(Refusal::from_static("554 no\r\n")),
            Question::Rcpt { forward_path: b"closing@x" } => Answer::Refuse(Refusal::from_static("421 4.3.2 bye\r\n")),
            Question::Rcpt { forward_path: b"no@x" } => Answer::Refuse(Refusal::from_static("550 5.1.1 no\r\n")),
            Question::Auth { user: Some("banned") } => Answer::Refuse(Refusal::from_static("535 5.7.8 not you\r\n")),
            Question::Mail { .. } if self.drop_at_mail => Answer::Drop,
            Question::Mail { reverse_path: b"reset@x", .. } => Answer::Reset,
            Question::Quit if self.refuse_quit => Answer::Refuse(Refusal::from_static("451 4.3.0 stay\r\n")),
            _ => Answer::Accept,
        };
        let hold_ms = if question == Question::Quit { 0 } else { self.hold_ms };
        Decision { answer, hold: Duration::from_millis(hold_ms) }
    }

    fn release(&self, due: Instant) -> Instant {
        match self.quiet {
            Some((begin, end)) if due >= begin && due < end => end,
            _ => due,
        }
    }

    fn content_bytes_wanted(&self) -> usize {
        self.wanted
    }

    fn observe(&mut self, event: Event) {
        self.events.push(event);
    }
}

/// A session with everything it needs, in virtual time.
struct Bench {
    session: Session,
    config: ServerConfig,
    policy: Told,
    now: Instant,
    flow: Flow,
}

fn at_ms(ms: u64) -> Instant {
    Instant::from_ns(ms * 1_000_000)
}

impl Bench {
    fn new(policy: Told) -> Bench {
        let config = ServerConfig::new("mx.example", 1_000, true);
        Bench { session: Session::new(), config, policy, now: at_ms(0), flow: Flow::Continue }
    }

    /// Connected and, if so wanted, behind EHLO.
    fn ready() -> Bench {
        let mut bench = Bench::new(Told::default());
        assert_eq!(bench.connect(), "220 mx.example ESMTP\r\n");
        bench.send("EHLO client.example\r\n");
        bench
    }

    fn connect(&mut self) -> String {
        let mut out = Vec::new();
        self.flow = self.session.connected(self.now, &self.config, &mut self.policy, &mut out);
        String::from_utf8(out).unwrap()
    }

    fn send(&mut self, bytes: impl AsRef<[u8]>) -> String {
        let mut out = Vec::new();
        self.flow = self.session.handle(self.now, bytes.as_ref(), &self.config, &mut self.policy, &mut out);
        String::from_utf8(out).unwrap()
    }

    /// Time goes on to `ms`; the deadlines before it are kept.
    fn wait_until(&mut self, ms: u64) -> String {
        self.now = at_ms(ms);
        let mut out = Vec::new();
        self.flow = self.session.handle_timeout(self.now, &self.config, &mut self.policy, &mut out);
        String::from_utf8(out).unwrap()
    }

    fn errors(&self) -> Vec<SessionError> {
        let error = |event: &Event| match event {
            Event::Error(error) => Some(*error),
            _ => None,
        };
        self.policy.events.iter().filter_map(error).collect()
    }

    fn messages(&self) -> usize {
        self.policy.events.iter().filter(|event| matches!(event, Event::Message { .. })).count()
    }
}

const ENVELOPE: &str = "MAIL FROM:<a@x>\r\nRCPT TO:<b@x>\r\n";

/// The first words of each reply.
fn codes(replies: &str) -> Vec<&str> {
    replies.lines().map(|line| &line[..9.min(line.len())]).collect()
}

#[test]
fn an_idle_session_is_small_and_has_nothing_on_the_heap() {
    assert!(size_of::<Session>() <= 200, "{}", size_of::<Session>());
    let bench = Bench::ready();
    assert!(bench.session.held.is_none() && bench.session.content.capacity() == 0);
}

#[test]
fn a_dialogue_ends_in_a_message() {
    let mut bench = Bench::new(Told { wanted: 8, ..Told::default() });
    bench.connect();
    let ehlo = "250-mx.example\r\n250-PIPELINING\r\n250-SIZE 1000\r\n250-8BITMIME\r\n250-SMTPUTF8\r\n250-ENHANCEDSTATUSCODES\r\n250 HELP\r\n";
    assert_eq!(bench.send("EHLO client.example\r\n"), ehlo);
    assert_eq!(bench.send("MAIL FROM:<a@x> SIZE=20\r\n"), "250 2.1.0 ok\r\n");
    assert_eq!(bench.send("RCPT TO:<b@x>\r\n"), "250 2.1.5 ok\r\n");
    assert_eq!(bench.send("RCPT TO:<no@x>\r\n"), "550 5.1.1 no\r\n");
    assert_eq!(bench.send("DATA\r\n"), "354 go ahead, end with <CRLF>.<CRLF>\r\n");
    assert!(bench.session.is_receiving_data());
    assert_eq!(bench.send("..first\r\nsecond\r\n.\r"), "");
    assert_eq!(bench.messages(), 0, "counted before its last octet had come");
    assert_eq!(bench.send("\n"), "250 2.6.0 accepted\r\n");
    let message = Event::Message { bytes: 16, recipients: 1, content: b".first\r\n".to_vec() };
    assert_eq!(bench.policy.events.last(), Some(&message));
    assert_eq!(bench.send("QUIT\r\n"), "221 2.0.0 goodbye\r\n");
    assert_eq!(bench.flow, Flow::Close);
    assert_eq!(bench.send("NOOP\r\n"), "");
    assert_eq!(bench.errors(), []);
    let words = |text: &String| text.split_whitespace().next().unwrap().to_string();
    let asked: Vec<String> = bench.policy.asked.iter().map(words).collect();
    assert_eq!(asked, ["Connect", "Ehlo", "Mail", "Rcpt", "Rcpt", "Data", "Message", "Quit"]);
}

#[test]
fn pipelined_commands_are_answered_in_order() {
    let mut bench = Bench::ready();
    let replies = bench.send([ENVELOPE, "NOOP\r\nVRFY b\r\nHELP\r\nDATA\r\n"].concat());
    assert_eq!(codes(&replies), ["250 2.1.0", "250 2.1.5", "250 2.0.0", "252 2.0.0", "214 2.0.0", "354 go ah"]);
    // The next transaction may come with the end of data (RFC 2920 §3.1).
    let replies = bench.send(["a\r\n.\r\n", ENVELOPE, "RSET\r\nQUIT\r\n"].concat());
    assert_eq!(codes(&replies), ["250 2.6.0", "250 2.1.0", "250 2.1.5", "250 2.0.0", "221 2.0.0"]);
}

#[test]
fn commands_out_of_their_place_are_refused() {
    let mut bench = Bench::new(Told::default());
    bench.connect();
    let replies = bench.send("MAIL FROM:<a@x>\r\nRCPT TO:<b@x>\r\nRSET\r\nHELO c\r\nRCPT TO:<b@x>\r\n");
    assert_eq!(codes(&replies), ["503 5.5.1", "503 5.5.1", "250 2.0.0", "250 mx.ex", "503 5.5.1"]);
    assert_eq!(codes(&bench.send("DATA\r\n")), ["503 5.5.1"]);
    assert_eq!(
        codes(&bench.send("MAIL FROM:<a@x>\r\nMAIL FROM:<a@x>\r\nDATA\r\n")),
        ["250 2.1.0", "503 5.5.1", "554 5.5.1"]
    );
    // EHLO ends a transaction as RSET does.
    assert_eq!(bench.send("EHLO c\r\nRCPT TO:<b@x>\r\n").lines().last().unwrap()[..9], *"503 5.5.1");
    assert_eq!(bench.errors(), [SessionError::Sequence; 7]);
}

#[test]
fn what_follows_a_refusal_in_its_group_is_no_error_of_the_peer() {
    // A client that pipelines was thrown out with 421 once the server had refused it some ten messages.
    let mut bench = Bench::ready();
    for _ in 0..30 {
        let replies = bench.send("MAIL FROM:<a@x> SIZE=9999\r\nRCPT TO:<b@x>\r\nDATA\r\n");
        assert_eq!(codes(&replies), ["552 5.3.4", "503 5.5.1", "503 5.5.1"]);
        let replies = bench.send("MAIL FROM:<a@x>\r\nRCPT TO:<no@x>\r\nDATA\r\n");
        assert_eq!(codes(&replies), ["250 2.1.0", "550 5.1.1", "554 5.5.1"]);
        assert_eq!(codes(&bench.send("RSET\r\n")), ["250 2.0.0"]);
    }
    assert!(bench.errors().iter().all(|error| *error == SessionError::TooLarge));
    assert_eq!(codes(&bench.send("DATA\r\n")), ["503 5.5.1"]);
    assert_eq!(bench.errors().last(), Some(&SessionError::Sequence));
}

#[test]
fn after_a_refused_greeting_only_quit_is_of_use() {
    let mut bench = Bench::new(Told { refuse_banner: true, ..Told::default() });
    assert_eq!(bench.connect(), "554 no\r\n");
    assert_eq!(codes(&bench.send("EHLO c\r\nMAIL FROM:<a@x>\r\nQUIT\r\n")), ["503 5.5.1", "503 5.5.1", "221 2.0.0"]);
    assert_eq!(bench.flow, Flow::Close);
}

#[test]
fn a_reply_of_421_closes() {
    let mut bench = Bench::ready();
    let replies = bench.send("MAIL FROM:<a@x>\r\nRCPT TO:<closing@x>\r\nNOOP\r\n");
    assert_eq!(codes(&replies), ["250 2.1.0", "421 4.3.2"]);
    assert_eq!(bench.flow, Flow::Close);
}

#[test]
fn a_drop_closes_once_the_replies_before_it_are_out() {
    let mut bench = Bench::ready();
    bench.policy.drop_at_mail = true;
    assert_eq!(codes(&bench.send("NOOP\r\nMAIL FROM:<a@x>\r\nNOOP\r\n")), ["250 2.0.0"]);
    assert_eq!(bench.flow, Flow::Close);
    assert_eq!(bench.send("NOOP\r\n"), "");
    assert_eq!(bench.flow, Flow::Close);
}

#[test]
fn smuggled_commands_are_content() {
    let ends = ["\r\n", "\n", "\r", "\r\r", "\n\n", "\n\r", "\0\r\n", "\r\n\0", "\r\n\n", "\r\n\r"];
    for before in ends {
        for after in ends {
            let ends_data = before.ends_with("\r\n") && after.starts_with("\r\n");
            if ends_data && after == "\r\n" {
                continue;
            }
            let mut bench = Bench::ready();
            bench.send([ENVELOPE, "DATA\r\n"].concat());
            // Where CRLF.CRLF is part of it, what follows is a faulty command line, and no command either.
            let replies = bench.send(["x", before, ".", after, ENVELOPE, "DATA\r\nevil\r\n.\r\n"].concat());
            let (replies, of_message) = (codes(&replies), if before == "\r\n" { "250 2.6.0" } else { "550 5.6.0" });
            match ends_data {
                true => assert_eq!(replies, [of_message, "500 5.5.2"], "{before:?} {after:?}"),
                false => assert_eq!(replies, ["550 5.6.0"], "{before:?} {after:?}"),
            }
            assert!(bench.messages() <= 1);
            assert_eq!(bench.policy.asked.iter().filter(|asked| asked.starts_with("Mail")).count(), 1);
        }
    }
}

#[test]
fn after_a_faulty_message_the_session_goes_on() {
    let mut bench = Bench::ready();
    bench.send([ENVELOPE, "DATA\r\n"].concat());
    assert_eq!(codes(&bench.send("a\nb\r\n.\r\n")), ["550 5.6.0"]);
    assert_eq!((bench.messages(), bench.errors()), (0, vec![SessionError::DataFault]));
    bench.send([ENVELOPE, "DATA\r\n"].concat());
    assert_eq!(codes(&bench.send("a\r\n.\r\n")), ["250 2.6.0"]);
}

#[test]
fn an_over_long_line_is_refused_and_its_tail_is_no_command() {
    let mut bench = Bench::ready();
    let long = "x".repeat(LINE_BYTES_MAX as usize + 1);
    assert_eq!(codes(&bench.send([&long, "QUIT\r\nNOOP\r\n"].concat())), ["500 5.5.2", "250 2.0.0"]);
    assert_eq!(bench.flow, Flow::Continue);
    let longest = ["NOOP ", &"x".repeat(LINE_BYTES_MAX as usize - 5), "\r\n"].concat();
    assert_eq!(codes(&bench.send(longest)), ["250 2.0.0"]);
}

#[test]
fn stray_octets_in_a_command_close_the_session() {
    for line in ["NOOP\nNOOP\r\n", "NO\rOP\r\nNOOP\r\n", "NO\0OP\r\nNOOP\r\n"] {
        let mut bench = Bench::ready();
        assert_eq!(codes(&bench.send(line)), ["500 5.5.2"]);
        assert_eq!((bench.flow, bench.errors()), (Flow::Close, vec![SessionError::LineFault]));
    }
}

#[test]
fn octets_beyond_ascii_in_the_envelope_need_smtputf8() {
    let mut bench = Bench::ready();
    let replies =
        bench.send("MAIL FROM:<\u{e9}@x>\r\nMAIL FROM:<a@x>\r\nRCPT TO:<\u{e9}@x>\r\nRCPT TO:<\x01@x>\r\nRSET\r\n");
    assert_eq!(codes(&replies), ["553 5.6.7", "250 2.1.0", "553 5.6.7", "501 5.1.3", "250 2.0.0"]);
    assert_eq!(
        codes(&bench.send("MAIL FROM:<\u{e9}@x> SMTPUTF8\r\nRCPT TO:<\u{e9}@x>\r\n")),
        ["250 2.1.0", "250 2.1.5"]
    );
}

#[test]
fn recipients_beyond_the_limit_are_deferred() {
    let mut bench = Bench::ready();
    bench.config.recipients_max = 100;
    let replies = bench.send(["MAIL FROM:<a@x>\r\n", &"RCPT TO:<b@x>\r\n".repeat(102), "DATA\r\n"].concat());
    let codes = codes(&replies);
    assert!(codes[1..101].iter().all(|code| *code == "250 2.1.5"));
    assert_eq!(codes[101..], ["452 4.5.3", "452 4.5.3", "354 go ah"]);
    bench.send(".\r\n");
    let message = Event::Message { bytes: 0, recipients: 100, content: vec![] };
    assert_eq!(bench.policy.events.last(), Some(&message));
}

#[test]
fn after_20_errors_the_next_one_closes() {
    let mut bench = Bench::ready();
    let replies = bench.send("WHAT\r\n".repeat(30));
    let codes = codes(&replies);
    assert_eq!((codes.len(), codes[19], codes[20]), (21, "500 5.5.2", "421 4.7.0"));
    assert_eq!(bench.flow, Flow::Close);
}

#[test]
fn a_message_that_is_too_large_is_refused_when_announced_and_when_sent() {
    let mut bench = Bench::ready();
    assert_eq!(codes(&bench.send("MAIL FROM:<a@x> SIZE=1001\r\n")), ["552 5.3.4"]);
    for (length, code) in [(998, "250 2.6.0"), (999, "552 5.3.4")] {
        bench.send([ENVELOPE, "DATA\r\n"].concat());
        assert_eq!(codes(&bench.send(["x".repeat(length).as_str(), "\r\n.\r\n"].concat())), [code]);
    }
    assert_eq!((bench.messages(), bench.errors()), (1, vec![SessionError::TooLarge; 2]));
}

#[test]
fn octets_behind_data_are_neither_message_nor_commands() {
    for envelope in [ENVELOPE, "MAIL FROM:<a@x>\r\n", ""] {
        let mut bench = Bench::ready();
        let replies = bench.send([envelope, "DATA\r\n", "evil\r\n.\r\n", ENVELOPE].concat());
        assert_eq!(codes(&replies).last(), Some(&"554 5.5.0"));
        assert_eq!((bench.flow, bench.errors()), (Flow::Close, vec![SessionError::TooEarly]));
        assert_eq!(bench.messages(), 0);
    }
}

#[test]
fn octets_before_a_held_354_or_greeting_close_the_session() {
    let mut bench = Bench::ready();
    bench.send(ENVELOPE);
    bench.policy.hold_ms = 10;
    assert_eq!(bench.send("DATA\r\n"), "");
    // The 354, which nobody has seen, is taken back.
    assert_eq!(codes(&bench.send("evil\r\n.\r\n")), ["554 5.5.0"]);
    assert_eq!(bench.flow, Flow::Close);

    let mut bench = Bench::new(Told { hold_ms: 10, ..Told::default() });
    assert_eq!(bench.connect(), "");
    assert_eq!(codes(&bench.send("EHLO early\r\n")), ["554 5.5.0"]);
    assert_eq!(bench.flow, Flow::Close);
}

#[test]
fn held_replies_keep_their_order_and_add_up() {
    let mut bench = Bench::ready();
    bench.policy.hold_ms = 10;
    assert_eq!(bench.send([ENVELOPE, "NOOP\r\n"].concat()), "");
    assert_eq!(bench.session.deadline(), at_ms(10));
    assert_eq!(bench.wait_until(9), "");
    assert_eq!(codes(&bench.wait_until(10)), ["250 2.1.0"]);
    assert_eq!(bench.session.deadline(), at_ms(20));
    // Input goes on while replies are held; QUIT, which is not delayed itself, waits behind the last of them.
    bench.now = at_ms(15);
    assert_eq!(bench.send("RCPT TO:<c@x>\r\nQUIT\r\n"), "");
    assert_eq!(bench.flow, Flow::Continue);
    assert_eq!(codes(&bench.wait_until(20)), ["250 2.1.5", "250 2.0.0"]);
    assert_eq!(bench.session.deadline(), at_ms(30));
    assert_eq!(codes(&bench.wait_until(30)), ["250 2.1.5", "221 2.0.0"]);
    assert_eq!(bench.flow, Flow::Close);
}

#[test]
fn a_session_that_was_held_once_answers_at_once_again() {
    let mut bench = Bench::ready();
    bench.policy.hold_ms = 10;
    bench.send("MAIL FROM:<a@x>\r\n");
    bench.wait_until(10);
    bench.policy.hold_ms = 0;
    assert_eq!(bench.send("RCPT TO:<b@x>\r\n"), "250 2.1.5 ok\r\n");
}

#[test]
fn nothing_leaves_within_a_stall() {
    let mut bench = Bench::ready();
    bench.policy.quiet = Some((at_ms(50), at_ms(100)));
    bench.now = at_ms(49);
    assert_eq!(codes(&bench.send("NOOP\r\n")), ["250 2.0.0"]);
    bench.now = at_ms(50);
    assert_eq!(bench.send("NOOP\r\nWHAT\r\n"), "");
    assert_eq!(bench.session.deadline(), at_ms(100));
    assert_eq!(bench.wait_until(99), "");
    assert_eq!(codes(&bench.wait_until(100)), ["250 2.0.0", "500 5.5.2"]);
    assert_eq!(codes(&bench.send("NOOP\r\n")), ["250 2.0.0"]);
}

#[test]
fn held_replies_are_bounded() {
    let mut bench = Bench::ready();
    bench.policy.quiet = Some((at_ms(0), at_ms(100)));
    let enough = HELD_BYTES_MAX / HELP_OK.len();
    bench.send("HELP\r\n".repeat(enough));
    assert_eq!(bench.flow, Flow::Continue);
    bench.send("HELP\r\n");
    assert_eq!((bench.flow, bench.errors()), (Flow::Drop, vec![SessionError::TooManyHeld]));
}

#[test]
fn a_silent_peer_is_given_up() {
    let mut bench = Bench::ready();
    let deadline = bench.session.deadline();
    assert_eq!(deadline, at_ms(300_000));
    // Single octets win no time.
    bench.now = at_ms(200_000);
    bench.send("NO");
    assert_eq!(bench.session.deadline(), deadline);
    assert_eq!(bench.wait_until(299_999), "");
    assert_eq!(codes(&bench.wait_until(300_000)), ["421 4.4.2"]);
    assert_eq!((bench.flow, bench.errors()), (Flow::Close, vec![SessionError::TimedOut]));
}

#[test]
fn a_message_has_time_as_long_as_it_comes_fast_enough() {
    let mut bench = Bench::ready();
    bench.send([ENVELOPE, "DATA\r\n"].concat());
    assert_eq!(bench.session.deadline(), at_ms(600_000));
    bench.now = at_ms(100_000);
    bench.send("x".repeat(50_000));
    assert_eq!(bench.session.deadline(), at_ms(650_000));
    bench.send("x".repeat(500_000));
    assert_eq!(bench.session.deadline(), at_ms(700_000));
    bench.send("\r\n.\r\n");
    assert_eq!(bench.session.deadline(), at_ms(400_000));
}

#[test]
fn a_message_that_is_cut_off_is_an_error() {
    let mut bench = Bench::ready();
    assert_eq!(bench.session.end_of_stream(&mut bench.policy), Flow::Close);
    assert_eq!(bench.errors(), []);
    let mut bench = Bench::ready();
    bench.send([ENVELOPE, "DATA\r\n"].concat());
    bench.send("half");
    assert_eq!(bench.session.end_of_stream(&mut bench.policy), Flow::Close);
    assert_eq!((bench.messages(), bench.errors()), (0, vec![SessionError::CutOff]));
}

/// Groups of octets, each sent only when the replies to the one before were seen. None goes on behind DATA: that is an
/// error only when both come together.
fn scripts() -> impl Strategy<Value = Vec<&'static str>> {
    let steps: Vec<&[&str]> = vec![
        &["EHLO client.example\r\n"],
        &["MAIL FROM:<a@x> SIZE=7\r\nRCPT TO:<b@x>\r\nRCPT TO:<no@x>\r\nDATA\r\n", "..a\r\n.b\r\n\r\n.\r\nNOOP\r\n"],
        &["RSET\r\nMAIL FROM:<>\r\nRCPT TO:<b@x>\r\nDATA\r\n", "a\nb\r\n\n.\r\n.\r\r\n.\r\n"],
        &["RSET\r\nMAIL FROM:<a@x>\r\nRCPT TO:<b@x>\r\nDATA\r\n", ".\r\n"],
        &["WHAT\r\nVRFY\r\nMAIL FROM:<\r\nNOOP x\r\n"],
        &["MAIL FROM:<a@x>\r\nDATA\r\n"],
        &["NO\0OP\r\n"],
        &["RSET\r\nMAIL FROM:<a@x>\r\nRCPT TO:<closing@x>\r\n"],
        &["QUIT\r\n"],
    ];
    proptest::collection::vec(proptest::sample::select(steps), 0..12).prop_map(|steps| steps.concat())
}

/// All replies, all events and the last word on the connection.
fn play(script: &[&str], cuts: &[usize]) -> (String, Vec<Event>, Flow) {
    let mut bench = Bench::new(Told { wanted: 100, ..Told::default() });
    let mut replies = bench.connect();
    for group in script {
        let mut cuts: Vec<usize> = cuts.iter().map(|cut| *cut.min(&group.len())).collect();
        cuts.extend([0, group.len()]);
        cuts.sort_unstable();
        for pair in cuts.windows(2) {
            replies += &bench.send(&group[pair[0]..pair[1]]);
        }
    }
    (replies, bench.policy.events, bench.flow)
}

proptest! {
    #[test]
    fn any_split_of_a_session_gives_the_same_replies_and_counts(
        script in scripts(),
        cuts in proptest::collection::vec(0usize..90, 0..8),
    ) {
        prop_assert_eq!(play(&script, &cuts), play(&script, &[]));
    }

    #[test]
    fn no_octets_make_a_session_panic(
        pieces in proptest::collection::vec(proptest::sample::select(vec![
            "EHLO a\r\n", "MAIL FROM:<a@x>", "RCPT TO:<b@x>\r\n", "DATA\r\n", ".", "\r", "\n", "\0", "QUIT", "x",
        ]), 0..60),
        hold_ms in 0u64..3,
    ) {
        let mut bench = Bench::new(Told { hold_ms, ..Told::default() });
        bench.connect();
        for (index, piece) in pieces.into_iter().enumerate() {
            bench.send(piece);
            bench.wait_until(index as u64);
        }
    }
}

impl Bench {
    /// Behind EHLO on a server that offers STARTTLS.
    fn offering_starttls() -> Bench {
        let mut bench = Bench::new(Told::default());
        bench.config = bench.config.offering_starttls();
        bench.connect();
        bench.send("EHLO client.example\r\n");
        bench
    }

    fn tls_ready(&mut self) -> String {
        let mut out = Vec::new();
        self.flow = self.session.tls_ready(self.now, false, &self.config, &mut self.policy, &mut out);
        String::from_utf8(out).unwrap()
    }
}

#[test]
fn starttls_is_offered_in_the_clear_only_and_makes_the_session_anew() {
    let mut bench = Bench::offering_starttls();
    let offers = bench.send("EHLO client.example\r\n");
    assert!(offers.starts_with("250-mx.example\r\n250-STARTTLS\r\n"), "{offers}");
    assert_eq!(codes(&bench.send("STARTTLS\r\n")), ["220 2.0.0"]);
    assert_eq!(bench.flow, Flow::StartTls);
    assert_eq!(bench.send("NOOP\r\n"), "", "nothing in the clear is carried out any more");
    assert_eq!((bench.tls_ready().as_str(), bench.flow), ("", Flow::Continue));
    assert_eq!(codes(&bench.send(ENVELOPE)), ["503 5.5.1", "503 5.5.1"], "what was said before is forgotten");
    assert!(!bench.send("EHLO client.example\r\n").contains("STARTTLS"));
    assert_eq!(codes(&bench.send("STARTTLS\r\n")), ["503 5.5.1"]);
    assert_eq!(codes(&bench.send(ENVELOPE)), ["250 2.1.0", "250 2.1.5"]);
}

#[test]
fn octets_in_the_clear_behind_starttls_end_the_session_unexecuted() {
    let mut bench = Bench::offering_starttls();
    assert_eq!(codes(&bench.send(["STARTTLS\r\n", ENVELOPE].concat())), ["554 5.5.0"]);
    assert_eq!((bench.flow, bench.errors()), (Flow::Close, vec![SessionError::TooEarly]));
    // The 220 is held back: the peer cannot have seen it.
    let mut bench = Bench::offering_starttls();
    bench.policy.hold_ms = 10;
    assert_eq!((bench.send("STARTTLS\r\n").as_str(), bench.flow), ("", Flow::Continue));
    assert_eq!(codes(&bench.send("EHLO other.example\r\n")), ["554 5.5.0"], "the 220 is taken back");
    assert_eq!(bench.flow, Flow::Close);
}

#[test]
fn a_held_reply_to_starttls_begins_tls_when_it_goes_out() {
    let mut bench = Bench::offering_starttls();
    bench.policy.hold_ms = 10;
    assert_eq!((bench.send("STARTTLS\r\n").as_str(), bench.flow), ("", Flow::Continue));
    assert_eq!(codes(&bench.wait_until(200)), ["220 2.0.0"]);
    assert_eq!(bench.flow, Flow::StartTls);
}

#[test]
fn starttls_out_of_place_is_refused() {
    let mut bench = Bench::ready();
    assert_eq!(codes(&bench.send("STARTTLS\r\n")), ["502 5.5.1"]);
    let mut bench = Bench::offering_starttls();
    bench.send(ENVELOPE);
    assert_eq!(codes(&bench.send("STARTTLS\r\n")), ["503 5.5.1"]);
    assert_eq!(codes(&bench.send("STARTTLS now\r\n")), ["501 5.5.4"]);
}

#[test]
fn a_session_that_begins_with_tls_greets_behind_the_handshake() {
    let mut bench = Bench::new(Told::default());
    bench.session.secure(bench.now, &bench.config);
    assert_eq!(bench.tls_ready(), "220 mx.example ESMTP\r\n");
    assert_eq!(codes(&bench.send("NOOP\r\n")), ["250 2.0.0"]);
}

#[test]
fn a_handshake_that_fails_or_takes_too_long_drops_the_session_without_a_word() {
    let mut bench = Bench::new(Told::default());
    bench.session.secure(bench.now, &bench.config);
    assert_eq!((bench.wait_until(5 * 60 * 1_000).as_str(), bench.flow), ("", Flow::Drop));
    assert_eq!(bench.errors(), [SessionError::TimedOut]);
    let mut bench = Bench::offering_starttls();
    bench.send("STARTTLS\r\n");
    assert_eq!(bench.session.tls_failed(&mut bench.policy), Flow::Drop);
    assert_eq!(bench.errors(), [SessionError::Tls]);
}

mod login;
mod pending;

#[test]
fn a_reset_says_nothing_and_waits_for_what_is_held() {
    let mut bench = Bench::ready();
    assert_eq!(bench.send(b"MAIL FROM:<reset@x>\r\n"), "");
    assert_eq!(bench.flow, Flow::Reset);
    let mut bench = Bench::ready();
    bench.policy.hold_ms = 10;
    assert_eq!(bench.send(b"MAIL FROM:<a@x>\r\nRSET\r\nMAIL FROM:<reset@x>\r\nNOOP\r\n"), "");
    assert_eq!((bench.wait_until(10).as_str(), bench.flow), ("250 2.1.0 ok\r\n250 2.0.0 ok\r\n", Flow::Continue));
    assert_eq!((bench.wait_until(20).as_str(), bench.flow), ("", Flow::Reset));
}

#[test]
fn quit_ends_the_session_whatever_is_answered() {
    let mut bench = Bench::ready();
    bench.policy.refuse_quit = true;
    assert_eq!(bench.send(b"QUIT\r\n"), "451 4.3.0 stay\r\n");
    assert_eq!(bench.flow, Flow::Close);
}

#[test]
fn what_is_withheld_is_neither_named_nor_taken() {
    let mut bench = Bench::ready();
    let whole = bench.send(b"EHLO c\r\n");
    assert_eq!(bench.send(b"MAIL FROM:<a@x> SIZE=5\r\n"), "250 2.1.0 ok\r\n");
    let withheld = Capabilities::default().with(Capability::Size).with(Capability::SmtpUtf8);
    bench.config = bench.config.clone().without(withheld);
    let kept: String =
        whole.split_inclusive('\n').filter(|line| !line.contains("SIZE") && !line.contains("UTF8")).collect();
    assert!(kept.len() < whole.len());
    assert_eq!(bench.send(b"EHLO c\r\n"), kept);
    for (parameter, code) in [("SIZE=5", "555 5.5.4"), ("SMTPUTF8", "555 5.5.4"), ("BODY=8BITMIME", "250 2.1.0")] {
        assert_eq!(&bench.send(format!("MAIL FROM:<a@x> {parameter}\r\n").as_bytes())[..9], code, "{parameter}");
    }
    let all = Capability::ALL.into_iter().fold(Capabilities::default(), Capabilities::with);
    bench.config = bench.config.clone().offering_starttls().without(all);
    assert_eq!(bench.send(b"EHLO c\r\n"), "250-mx.example\r\n250 HELP\r\n");
    assert_eq!(&bench.send(b"STARTTLS\r\n")[..9], "502 5.5.1");
}

#[test]
fn chunks_are_not_offered_and_bdat_is_refused() {
    let mut bench = Bench::ready();
    assert!(!bench.send("EHLO c\r\n").contains("CHUNKING"));
    bench.send(ENVELOPE);
    for line in ["BDAT 5 LAST", "BDAT 99999999999999999999999 LAST", "BDAT -1", "BDAT"] {
        assert_eq!(codes(&bench.send(format!("{line}\r\n"))), ["502 5.5.1"], "{line}");
    }
    assert_eq!(bench.messages(), 0);
}
