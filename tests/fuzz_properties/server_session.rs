//! The server against any octets: every split of them gives the same replies, events and questions, and memory is bounded.
//!
//! One thing does depend on the split, and must: octets that arrive together with DATA are refused, since the peer cannot
//! have seen the 354. So no piece goes beyond the end of a line of DATA. The same holds for AUTH and its answers, and STARTTLS.
//!
//! Settings: 0, how often is refused, dropped and reset; 1, whether replies are held (bit 0), and whether messages wait for a
//! decision (bit 1); 2, whether a login is asked for (bit 0), STARTTLS is offered (bit 1), and its handshake fails (bit 2); 3, what is
//! withheld, a bit each.

use std::time::Duration;

use timecop::time::Instant;
use timecop::wire::smtp::auth::Users;
use timecop::wire::smtp::server::{
    Answer, Capabilities, Capability, Decision, Event, Flow, HELD_BYTES_MAX, Policy, Question, Refusal, ServerConfig,
    Session,
};

use super::{SPLITS, Settings};

const MESSAGE_BYTES_MAX: u64 = 2_000;
const CONTENT_BYTES: usize = 500;

/// Answers as the settings say; remembers everything.
struct Told {
    refuse: u8,
    hold: bool,
    /// Messages wait for [`Session::settle`].
    waits: bool,
    asked: u32,
    seen: Vec<String>,
}

impl Policy for Told {
    fn decide(&mut self, _now: Instant, question: Question<'_>) -> Decision {
        self.asked += 1;
        self.seen.push(format!("{question:?}"));
        let answer = match self.refuse {
            every if every > 0 && self.asked.is_multiple_of(u32::from(every)) => match self.asked % 6 {
                0 => Answer::Drop,
                5 => Answer::Reset,
                1 => Answer::Refuse(Refusal::from_static("421 4.3.2 closing\r\n")),
                2 => Answer::Refuse(Refusal::from_static("550 5.7.1 no\r\n")),
                _ => Answer::Refuse(Refusal::from_static("451 4.7.1 later\r\n")),
            },
            _ if self.waits && matches!(question, Question::Message { .. }) => {
                let otherwise = Refusal::from_static("451 4.3.0 nobody has decided\r\n");
                let answer = Answer::Pending { ticket: u64::from(self.asked), otherwise };
                return Decision { answer, hold: Duration::from_secs(1) };
            }
            _ => Answer::Accept,
        };
        Decision { answer, hold: Duration::from_millis(u64::from(self.hold)) }
    }

    fn content_bytes_wanted(&self) -> usize {
        CONTENT_BYTES
    }

    fn observe(&mut self, event: Event) {
        if let Event::Message { bytes, content, .. } = &event {
            assert_eq!(content.len() as u64, (*bytes).min(CONTENT_BYTES as u64));
            assert!(*bytes <= MESSAGE_BYTES_MAX);
        }
        self.seen.push(format!("{event:?}"));
    }
}

/// All that the other side and the policy have seen of a session.
#[derive(Debug, PartialEq)]
struct Seen {
    replies: String,
    policy: Vec<String>,
    flow: Flow,
}

/// Asserts all of it for one input.
pub fn check(input: &[u8]) {
    let (settings, octets) = Settings::split(input);
    let whole = play(&settings, octets, 0);
    for split in 1..SPLITS {
        assert_eq!(play(&settings, octets, split), whole, "split {split} differs from the whole");
    }
}

fn play(settings: &Settings<'_>, octets: &[u8], split: usize) -> Seen {
    let config = ServerConfig::new("sink.example", MESSAGE_BYTES_MAX, true);
    let bit = |setting: usize, bit: u8| settings.get(setting) >> bit & 1 == 1;
    let (asks_for_login, offers_starttls, tls_fails) = (bit(2, 0), bit(2, 1), bit(2, 2));
    let config = match asks_for_login {
        true => config.requiring_auth(Users::parse("tim:tanstaaftanstaaf").expect("a table").into(), || 7),
        false => config,
    };
    let config = if offers_starttls { config.offering_starttls() } else { config };
    let withheld = Capability::ALL.into_iter().enumerate().filter(|(at, _)| bit(3, *at as u8));
    let config = config.without(withheld.fold(Capabilities::default(), |all, (_, withheld)| all.with(withheld)));
    // Held replies make what a peer may send depend on time, which passes by pieces: they only may not panic.
    let hold = bit(1, 0);
    let mut policy = Told { refuse: settings.get(0) % 16, hold, waits: bit(1, 1), asked: 0, seen: Vec::new() };
    let (mut session, mut out, mut now) = (Session::new(), Vec::new(), Instant::from_ns(1));
    let mut flow = match asks_for_login && !offers_starttls {
        true => {
            session.secure(now, &config);
            session.tls_ready(now, false, &config, &mut policy, &mut out)
        }
        false => session.connected(now, &config, &mut policy, &mut out),
    };
    for line in lines(octets, asks_for_login || offers_starttls) {
        for piece in settings.pieces(line, split) {
            if flow != Flow::Continue {
                break;
            }
            let before = out.len();
            flow = session.handle(now, piece, &config, &mut policy, &mut out);
            assert!(session.deadline() > now, "a deadline is ahead");
            assert!(out.len() - before <= 120 * (piece.len() + 2) + HELD_BYTES_MAX, "replies are bounded by commands");
            if let Some(ticket) = session.pending() {
                let no = Refusal::from_static("550 5.7.1 decided otherwise\r\n");
                let refusal = ticket.is_multiple_of(3).then_some(&no);
                let settled = session.settle(now, (ticket, refusal), &config, &mut policy, &mut out);
                flow = settled.expect("it waits");
                assert_eq!(session.settle(now, (ticket, refusal), &config, &mut policy, &mut out), None, "once");
            }
            if flow == Flow::StartTls {
                flow = match tls_fails {
                    true => session.tls_failed(&mut policy),
                    false => session.tls_ready(now, false, &config, &mut policy, &mut out),
                };
            }
            if hold {
                now += Duration::from_micros(700);
            }
        }
    }
    if flow == Flow::Continue {
        flow = session.end_of_stream(&mut policy);
    }
    while flow == Flow::Continue {
        now = session.deadline();
        assert!(now < Instant::NEVER, "what is held is due some time");
        flow = session.handle_timeout(now, &config, &mut policy, &mut out);
    }
    if flow == Flow::Drop {
        // What is in `out` is forgotten, and how much of it had gone before depends on the split.
        out.clear();
    }
    let replies = String::from_utf8(out).expect("replies are ASCII");
    assert!(replies.is_empty() || replies.ends_with("\r\n"), "{replies:?}");
    assert!(replies.split_terminator("\r\n").all(is_reply_line), "{replies:?}");
    if hold {
        return Seen { replies: String::new(), policy: Vec::new(), flow: Flow::Close };
    }
    Seen { replies, policy: policy.seen, flow }
}

/// The octets, cut behind every line that is DATA; with logins and STARTTLS behind each line, which may be one of theirs.
fn lines(octets: &[u8], cut_all: bool) -> Vec<&[u8]> {
    let (mut begin, mut line, mut lines) = (0, 0, Vec::new());
    for (at, octet) in octets.iter().enumerate() {
        if *octet == b'\n' {
            let text = octets[line..at].trim_ascii();
            if cut_all || text.eq_ignore_ascii_case(b"DATA") {
                lines.push(&octets[begin..=at]);
                begin = at + 1;
            }
            line = at + 1;
        }
    }
    lines.push(&octets[begin..]);
    lines
}

fn is_reply_line(line: &str) -> bool {
    let bytes = line.as_bytes();
    bytes.len() > 4 && bytes[..3].iter().all(u8::is_ascii_digit) && matches!(bytes[3], b' ' | b'-')
}
