//! The client against any replies: every split of them gives the same outputs, nothing is written after the close, and it
//! always either waits for something that is sure to come or is over.

use std::sync::Arc;
use std::time::Duration;

use secrecy::SecretString;
use timecop::phase::Phase;
use timecop::time::Instant;
use timecop::wire::smtp::auth::Credentials;
use timecop::wire::smtp::client::{Client, ClientConfig, Event, Needs, Output, Timeouts, TlsStart, Write};

use super::{SPLITS, Settings};

const CONFIG: ClientConfig = ClientConfig {
    tls: TlsStart::Never,
    auth: None,
    needs: Needs { eight_bit_mime: false, smtp_utf8: false },
    pipelining: true,
    timeouts: Timeouts::uniform(Duration::from_secs(9)),
};
/// Messages that a session is given, so that it ends.
const MESSAGES: u32 = 3;

/// One thing that a driver would notice.
#[derive(Debug, PartialEq)]
enum Noticed {
    Reply(Phase, u16, Vec<u8>),
    Write(Write),
    Event(Event),
    Close,
}

struct Driver {
    client: Client,
    config: ClientConfig,
    recipients: u32,
    messages: u32,
    now: Instant,
    noticed: Vec<Noticed>,
    is_closed: bool,
    /// Recipients of the transaction under way, if one is.
    transaction: Option<u32>,
}

/// Asserts all of it for one input.
pub fn check(input: &[u8]) {
    let (settings, replies) = Settings::split(input);
    let play = |split| {
        let mut driver = Driver::new(&settings);
        for piece in settings.pieces(replies, split) {
            driver.receive(piece);
        }
        driver.end(settings.get(1) & 1 == 1);
        driver.noticed
    };
    let whole = play(0);
    for split in 1..SPLITS {
        assert_eq!(play(split), whole, "split {split} differs from the whole");
    }
}

impl Driver {
    fn new(settings: &Settings<'_>) -> Driver {
        let credentials = || Credentials::new("tim".to_owned(), SecretString::from("tanstaaftanstaaf"));
        let auth = (settings.get(0) & 8 == 8).then(|| Arc::new(credentials().expect("a user and a password")));
        let config = ClientConfig { pipelining: settings.get(0) & 1 == 0, auth, ..CONFIG };
        let recipients = 1 + u32::from(settings.get(0) >> 1 & 3);
        let now = Instant::from_ns(1);
        let (client, noticed) = (Client::new(), Vec::new());
        let mut driver = Driver {
            client,
            config,
            recipients,
            messages: MESSAGES,
            now,
            noticed,
            is_closed: false,
            transaction: None,
        };
        driver.client.connected(now, &driver.config);
        driver.drain();
        driver
    }

    fn receive(&mut self, mut bytes: &[u8]) {
        self.now += Duration::from_millis(1);
        let mut calls = 0;
        while !bytes.is_empty() && !self.is_closed {
            let handled = self.client.handle(self.now, bytes, &self.config);
            assert!(handled.consumed > 0 && handled.consumed <= bytes.len(), "each call eats something");
            bytes = &bytes[handled.consumed..];
            if let Some(reply) = handled.reply {
                assert!((200..600).contains(&reply.code));
                self.noticed.push(Noticed::Reply(reply.phase, reply.code, reply.text.to_vec()));
            }
            self.drain();
            calls += 1;
            assert!(calls <= 1 << 20, "no input makes it loop");
        }
    }

    fn drain(&mut self) {
        for _ in 0..10 {
            match self.client.poll_output() {
                Output::Write(write) => {
                    assert!(!self.is_closed, "{write:?} after the close");
                    assert_eq!(self.transaction.is_some(), is_of_transaction(write), "{write:?} in its place");
                    self.noticed.push(Noticed::Write(write));
                    if let Write::Auth(_) | Write::AuthAnswer = write {
                        let mut line = Vec::new();
                        self.client.write_auth(&mut line);
                        assert!(line.ends_with(b"\r\n"), "there is a line to be written");
                    }
                    // Whether a reply came before its command has left depends on the split. Here they never do.
                    self.client.written();
                }
                Output::Event(event) => self.event(event),
                Output::StartTls => unreachable!("none was asked for"),
                Output::Wait(deadline) => {
                    let is_sure = deadline > self.now && deadline <= self.now + Duration::from_secs(9);
                    assert!(is_sure, "waits for {deadline:?} in {:?} at {:?}", self.client.phase(), self.now);
                    return;
                }
                Output::Close => {
                    self.noticed.push(Noticed::Close);
                    self.is_closed = true;
                    assert_eq!(self.client.poll_output(), Output::Close);
                    return;
                }
            }
        }
        panic!("the outputs do not end");
    }

    fn event(&mut self, event: Event) {
        self.noticed.push(Noticed::Event(event));
        match event {
            Event::Ready => {
                assert_eq!(self.transaction, None, "ready within a transaction");
                match self.messages.checked_sub(1) {
                    None => self.client.quit(self.now, &self.config),
                    Some(left) => {
                        self.messages = left;
                        self.transaction = Some(self.recipients);
                        self.client.begin(self.now, self.recipients, &self.config);
                    }
                }
            }
            Event::Done { recipients, .. } => {
                let tallied = recipients.accepted + recipients.deferred + recipients.rejected;
                assert_eq!(self.transaction.take(), Some(tallied), "each recipient has one fate");
            }
            Event::Refused { .. } | Event::Failed { .. } => self.transaction = None,
        }
    }

    /// The peer says no more: the connection ends, or time does.
    fn end(&mut self, in_silence: bool) {
        if in_silence {
            self.now += Duration::from_secs(10);
            self.client.timed_out(self.now);
        } else {
            self.client.end_of_stream();
        }
        if !self.is_closed {
            self.drain();
        }
        assert!(self.is_closed, "neither silence nor the end of the stream ends it");
    }
}

fn is_of_transaction(write: Write) -> bool {
    !matches!(write, Write::Ehlo | Write::Helo | Write::Auth(_) | Write::AuthAnswer | Write::Rset | Write::Quit)
}
