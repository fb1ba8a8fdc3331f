//! The HTTP client against any answers: every split of them gives the same outputs, nothing is written after the close, and
//! each request ends once.

use std::time::Duration;

use timecop::time::Instant;
use timecop::wire::http::client::{Client, ClientConfig, Event, Output, Timeouts, Verdict};

use super::{SPLITS, Settings};

/// Requests that a connection is given, so that it ends.
const REQUESTS: u32 = 4;

/// One thing that a driver would notice.
#[derive(Debug, PartialEq)]
enum Noticed {
    Answer(u16, Verdict, Vec<u8>),
    Write,
    Event(Event),
    Close,
}

struct Driver {
    client: Client,
    config: ClientConfig,
    requests: u32,
    in_hand: bool,
    noticed: Vec<Noticed>,
}

/// Asserts all of it for one input.
pub fn check(input: &[u8]) {
    let (settings, answers) = Settings::split(input);
    let play = |split| {
        let mut driver = Driver::new(settings.get(0) & 1 == 1);
        for piece in settings.pieces(answers, split) {
            driver.receive(piece);
        }
        driver.end();
        driver.noticed
    };
    let whole = play(0);
    for split in 1..SPLITS {
        assert_eq!(play(split), whole, "split {split} differs from the whole");
    }
}

impl Driver {
    fn new(is_head: bool) -> Driver {
        let config = ClientConfig { tls: false, is_head, timeouts: Timeouts::uniform(Duration::from_secs(9)) };
        let mut client = Client::new();
        client.connected(Instant::ZERO, &config);
        let mut driver = Driver { client, config, requests: 0, in_hand: false, noticed: Vec::new() };
        driver.drain();
        driver
    }

    fn receive(&mut self, mut bytes: &[u8]) {
        while !bytes.is_empty() && !self.client.is_over() {
            let handled = self.client.handle(Instant::ZERO, bytes, &self.config);
            assert!(handled.consumed > 0, "a call without progress");
            bytes = &bytes[handled.consumed..];
            if let Some(answer) = handled.answer {
                let text = answer.text.to_vec();
                self.noticed.push(Noticed::Answer(answer.status, answer.verdict, text));
            }
            self.drain();
        }
    }

    fn end(&mut self) {
        if let Some(answer) = self.client.end_of_stream() {
            let text = answer.text.to_vec();
            self.noticed.push(Noticed::Answer(answer.status, answer.verdict, text));
        }
        self.drain();
        assert!(self.client.is_over() && !self.in_hand, "a request is left without an end");
        assert!(self.noticed.last() == Some(&Noticed::Close));
    }

    fn drain(&mut self) {
        loop {
            if self.noticed.last() == Some(&Noticed::Close) {
                return;
            }
            match self.client.poll_output() {
                Output::Write => {
                    self.noticed.push(Noticed::Write);
                    self.client.written();
                }
                Output::Event(event) => {
                    self.noticed.push(Noticed::Event(event));
                    match event {
                        Event::Ready if self.requests == REQUESTS => self.client.quit(),
                        Event::Ready => {
                            self.client.begin(Instant::ZERO, &self.config);
                            (self.in_hand, self.requests) = (true, self.requests + 1);
                        }
                        Event::Done { .. } => assert!(std::mem::take(&mut self.in_hand), "an answer to nothing"),
                        Event::Failed { .. } => self.in_hand = false,
                    }
                }
                Output::StartTls => unreachable!("there is no TLS"),
                Output::Wait(_) => return,
                Output::Close => self.noticed.push(Noticed::Close),
            }
        }
    }
}
