//! A message whose reply waits for somebody's decision.

use super::*;

const LATER: Refusal = Refusal::from_static("451 4.3.0 later\r\n");
const WITHIN_MS: u64 = 10_000;

/// Lets every message wait.
#[derive(Default)]
struct Waits {
    tickets: u64,
    events: Vec<Event>,
}

impl Policy for Waits {
    fn decide(&mut self, _now: Instant, question: Question<'_>) -> Decision {
        let Question::Message { .. } = question else { return Decision::ACCEPT };
        self.tickets += 1;
        let answer = Answer::Pending { ticket: self.tickets, otherwise: LATER };
        Decision { answer, hold: Duration::from_millis(WITHIN_MS) }
    }

    fn observe(&mut self, event: Event) {
        self.events.push(event);
    }
}

struct Line {
    session: Session,
    config: ServerConfig,
    policy: Waits,
    now: Instant,
    flow: Flow,
    out: Vec<u8>,
}

impl Line {
    /// Behind the 354.
    fn in_data() -> Line {
        let config = ServerConfig::new("mx.example", 1_000, true).offering_starttls();
        let mut line = Line {
            session: Session::new(),
            config,
            policy: Waits::default(),
            now: at_ms(0),
            flow: Flow::Continue,
            out: Vec::new(),
        };
        line.flow = line.session.connected(line.now, &line.config, &mut line.policy, &mut line.out);
        line.send("EHLO c\r\nMAIL FROM:<a@x>\r\nRCPT TO:<b@x>\r\nDATA\r\n");
        line.out.clear();
        line
    }

    fn send(&mut self, bytes: impl AsRef<[u8]>) {
        self.flow = self.session.handle(self.now, bytes.as_ref(), &self.config, &mut self.policy, &mut self.out);
    }

    fn wait_until(&mut self, ms: u64) {
        self.now = at_ms(ms);
        self.flow = self.session.handle_timeout(self.now, &self.config, &mut self.policy, &mut self.out);
    }

    /// Whether the ticket was still waited for.
    fn settle(&mut self, ticket: u64, refusal: Option<&Refusal>) -> bool {
        let decision = (ticket, refusal);
        let flow = self.session.settle(self.now, decision, &self.config, &mut self.policy, &mut self.out);
        if let Some(flow) = flow {
            self.flow = flow;
        }
        flow.is_some()
    }

    /// The codes of what has gone out since the last call.
    fn heard(&mut self) -> Vec<String> {
        let replies = String::from_utf8(std::mem::take(&mut self.out)).unwrap();
        codes(&replies).into_iter().map(str::to_owned).collect()
    }
}

#[test]
fn a_message_waits_until_it_is_decided_over() {
    for (refusal, code) in [(None, "250 2.6.0"), (Some(&LATER), "451 4.3.0")] {
        let mut line = Line::in_data();
        line.send("hello\r\n.\r\n");
        assert_eq!((line.heard(), line.session.pending()), (vec![], Some(1)));
        line.wait_until(WITHIN_MS - 1);
        assert_eq!(line.heard(), [""; 0]);
        assert!(line.settle(1, refusal));
        assert_eq!((line.heard(), line.session.pending(), line.flow), (vec![code.to_owned()], None, Flow::Continue));
        assert!(!line.settle(1, refusal), "it is decided once");
        line.send("MAIL FROM:<a@x>\r\n");
        assert_eq!(line.heard(), ["250 2.1.0"]);
    }
}

#[test]
fn a_decision_that_does_not_come_in_time_is_put_off_and_comes_too_late() {
    let mut line = Line::in_data();
    line.send("hello\r\n.\r\n");
    assert_eq!(line.session.deadline(), at_ms(WITHIN_MS));
    line.wait_until(WITHIN_MS);
    assert_eq!((line.heard(), line.session.pending()), (vec!["451 4.3.0".to_owned()], None));
    assert!(!line.settle(1, None));
    assert_eq!(line.heard(), [""; 0]);
}

#[test]
fn a_ticket_of_another_message_decides_nothing() {
    let mut line = Line::in_data();
    line.send("hello\r\n.\r\n");
    assert!(!line.settle(2, None) && !line.settle(0, None));
    assert_eq!((line.heard(), line.session.pending()), (vec![], Some(1)));
    line.wait_until(WITHIN_MS);
    line.out.clear();
    line.send("MAIL FROM:<a@x>\r\nRCPT TO:<b@x>\r\nDATA\r\n");
    line.send("again\r\n.\r\n");
    line.out.clear();
    assert!(!line.settle(1, None), "the first one was put off, and is not the second");
    assert!(line.settle(2, None));
    assert_eq!(line.heard(), ["250 2.6.0"]);
}

#[test]
fn what_is_sent_behind_a_waiting_message_is_answered_behind_it() {
    let mut line = Line::in_data();
    line.send("hello\r\n.\r\nNOOP\r\nMAIL FROM:<a@x>\r\n");
    line.send("RCPT TO:<b@x>\r\nDATA\r\n");
    assert_eq!(line.heard(), [""; 0]);
    assert!(line.settle(1, None));
    assert_eq!(line.heard(), ["250 2.6.0", "250 2.0.0", "250 2.1.0", "250 2.1.5", "354 go ah"]);
    line.send("second\r\n.\r\n");
    assert!(line.settle(2, None));
    assert_eq!(line.heard(), ["250 2.6.0"]);
}

#[test]
fn a_message_before_its_354_is_refused_though_the_354_waits() {
    let mut line = Line::in_data();
    line.send("hello\r\n.\r\nMAIL FROM:<a@x>\r\nRCPT TO:<b@x>\r\nDATA\r\n");
    line.send("smuggled\r\n.\r\n");
    assert_eq!(line.flow, Flow::Continue);
    assert!(line.settle(1, None));
    assert_eq!(line.heard(), ["250 2.6.0", "250 2.1.0", "250 2.1.5", "554 5.5.0"]);
    assert_eq!((line.flow, line.policy.tickets), (Flow::Close, 1));
}

#[test]
fn a_client_that_quits_or_closes_still_gets_its_reply() {
    let mut line = Line::in_data();
    line.send("hello\r\n.\r\nQUIT\r\n");
    assert_eq!((line.heard(), line.flow), (vec![], Flow::Continue));
    assert!(line.settle(1, None));
    assert_eq!((line.heard(), line.flow), (vec!["250 2.6.0".to_owned(), "221 2.0.0".to_owned()], Flow::Close));

    let mut line = Line::in_data();
    line.send("hello\r\n.\r\n");
    assert_eq!(line.session.end_of_stream(&mut line.policy), Flow::Continue);
    assert_eq!(line.session.deadline(), at_ms(WITHIN_MS), "it is not waited for any longer");
    assert!(line.settle(1, None));
    assert_eq!((line.heard(), line.flow), (vec!["250 2.6.0".to_owned()], Flow::Close));

    let mut line = Line::in_data();
    line.send("hello\r\n.\r\n");
    let _ = line.session.end_of_stream(&mut line.policy);
    line.wait_until(WITHIN_MS);
    assert_eq!((line.heard(), line.flow), (vec!["451 4.3.0".to_owned()], Flow::Close));
}

#[test]
fn tls_behind_a_waiting_message_begins_when_it_is_decided_over() {
    let mut line = Line::in_data();
    line.send("hello\r\n.\r\nSTARTTLS\r\n");
    assert_eq!((line.heard(), line.flow), (vec![], Flow::Continue));
    assert!(line.settle(1, None));
    assert_eq!((line.heard(), line.flow), (vec!["250 2.6.0".to_owned(), "220 2.0.0".to_owned()], Flow::StartTls));
}

#[test]
fn a_client_that_waits_is_not_silent_and_one_that_was_answered_is() {
    let mut line = Line::in_data();
    line.send("hello\r\n.\r\n");
    line.wait_until(WITHIN_MS - 1);
    assert!(line.settle(1, None));
    line.out.clear();
    line.wait_until(WITHIN_MS - 1 + 5 * 60 * 1_000 - 1);
    assert_eq!(line.flow, Flow::Continue);
    line.wait_until(WITHIN_MS - 1 + 5 * 60 * 1_000);
    assert_eq!((line.heard(), line.flow), (vec!["421 4.4.2".to_owned()], Flow::Close));
}

#[test]
fn too_many_commands_without_a_message_end_the_session() {
    let mut line = Line::in_data();
    line.config.idle_commands_max = 5;
    // EHLO, MAIL, RCPT and DATA brought a message.
    line.send("hello\r\n.\r\n");
    assert!(line.settle(1, None));
    line.out.clear();
    line.send("NOOP\r\nRSET\r\nEHLO c\r\nNOOP\r\nNOOP\r\n");
    assert_eq!(line.flow, Flow::Continue);
    line.out.clear();
    line.send("NOOP\r\nMAIL FROM:<a@x>\r\n");
    assert_eq!((line.heard(), line.flow), (vec!["421 4.7.0".to_owned()], Flow::Close));
}

/// What may happen to a session with a waiting message.
#[derive(Clone, Debug)]
enum Happening {
    Send(&'static str),
    Settle { right: bool, accept: bool },
    Wait { ms: u64 },
}

fn happening() -> impl Strategy<Value = Happening> {
    const LINES: [&str; 7] =
        ["NOOP\r\n", "RSET\r\n", "MAIL FROM:<a@x>\r\n", "RCPT TO:<b@x>\r\n", "DATA\r\n", "text\r\n.\r\n", "WHAT\r\n"];
    prop_oneof![
        4 => (0..LINES.len()).prop_map(|at| Happening::Send(LINES[at])),
        1 => (any::<bool>(), any::<bool>()).prop_map(|(right, accept)| Happening::Settle { right, accept }),
        1 => (1..WITHIN_MS).prop_map(|ms| Happening::Wait { ms }),
    ]
}

proptest! {
    /// Whatever happens in whatever order: each message has one reply, which is the one that was decided or, after its
    /// time, the one for want of a decision; and replies keep the order of what they answer.
    #[test]
    fn each_message_has_one_reply_in_its_place(happenings in proptest::collection::vec(happening(), 0..60)) {
        let mut line = Line::in_data();
        line.send("first\r\n.\r\n");
        let mut decided: Vec<&str> = Vec::new();
        let mut heard = Vec::new();
        for happening in happenings {
            if line.flow != Flow::Continue {
                break;
            }
            let before = line.session.pending();
            match happening {
                Happening::Send(text) => line.send(text),
                Happening::Settle { right, accept } => {
                    let ticket = before.unwrap_or(99) + u64::from(!right);
                    let settled = line.settle(ticket, (!accept).then_some(&LATER));
                    prop_assert_eq!(settled, right && before.is_some());
                    if settled {
                        decided.push(if accept { "250 2.6.0" } else { "451 4.3.0" });
                    }
                }
                Happening::Wait { ms } => {
                    let now_ms = line.now.as_ns() / 1_000_000;
                    line.wait_until(now_ms + ms);
                    if before.is_some() && line.session.pending().is_none() {
                        decided.push("451 4.3.0");
                    }
                }
            }
            // Sending may also find that the time of an earlier message was over; time does not pass there.
            let came = line.heard();
            if line.session.pending().is_some() && before == line.session.pending() {
                prop_assert!(came.is_empty(), "{came:?} overtook the message");
            }
            heard.extend(came);
        }
        let of_messages: Vec<&String> = heard.iter().filter(|code| code.starts_with("250 2.6") || code.starts_with("451")).collect();
        prop_assert_eq!(of_messages, decided.iter().collect::<Vec<_>>());
        prop_assert_eq!(line.policy.tickets, decided.len() as u64 + u64::from(line.session.pending().is_some()));
    }
}
