//! The client's side of an HTTP/1.1 connection as a machine without I/O: one request after another, each with its answer
//! before the next one. Nothing is pipelined, redirected or sent again.
//!
//! It is driven as [`crate::wire::smtp::client::Client`] is: feed it with [`Client::handle`] and its siblings, then drain
//! [`Client::poll_output`]. The driver, who knows the request, writes it when told and calls [`Client::written`] when it
//! leaves.

use std::time::Duration;

use thiserror::Error;

use super::response::{ResponseError, ResponseReader, RetryAfter};
use crate::phase::Phase;
use crate::time::Instant;
use crate::wire::smtp::reply::Class;

/// Time limit of a handshake, of the wait for an answer's first octet, and from there to its last, where a job sets none.
/// HTTP names no such limit; it is that of most replies in RFC 5321 §4.5.3.2.
pub const TIMEOUT: Duration = Duration::from_secs(300);

/// How long a connection waits.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Timeouts {
    /// For the TLS handshake.
    pub tls: Duration,
    /// For an answer's first octet, from the request's beginning.
    pub first_byte: Duration,
    /// From an answer's first octet to its last.
    pub last_byte: Duration,
}

impl Timeouts {
    /// The same limit for each.
    pub const fn uniform(limit: Duration) -> Timeouts {
        Timeouts { tls: limit, first_byte: limit, last_byte: limit }
    }
}

/// How all connections of a job talk.
#[derive(Clone, Copy, Debug)]
pub struct ClientConfig {
    /// TLS begins with the connection.
    pub tls: bool,
    /// Requests are HEAD, whose answers have no body.
    pub is_head: bool,
    /// How long each of them waits.
    pub timeouts: Timeouts,
}

/// What broke a connection. All of these are the peer's doing.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Error)]
pub enum ClientError {
    /// The peer closed the connection where an answer, or the rest of one, was due, or between two requests.
    #[error("the server closed the connection")]
    Closed,
    /// No answer within the time limit.
    #[error("no answer within the time limit")]
    TimedOut,
    /// An answer that is none.
    #[error(transparent)]
    Response(ResponseError),
    /// An answer that nothing had asked for, or that came before its request had left.
    #[error("an answer without a request: a server that speaks first is none of HTTP")]
    Unsolicited,
}

impl ClientError {
    /// A short name from a closed set, for reports and metrics.
    pub const fn kind(self) -> &'static str {
        match self {
            ClientError::Closed => "closed",
            ClientError::TimedOut => "timeout",
            ClientError::Response(_) | ClientError::Unsolicited => "protocol",
        }
    }
}

/// What happened, as far as the driver must act on it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Event {
    /// The connection takes the next [`Client::begin`] or [`Client::quit`].
    Ready,
    /// The request has its answer.
    Done {
        /// 200 to 599.
        status: u16,
        /// What the answer makes of the message.
        verdict: Verdict,
        /// When the server wants to be asked again.
        retry_after: Option<RetryAfter>,
    },
    /// The connection broke.
    Failed {
        /// Where it broke.
        phase: Phase,
        /// How.
        error: ClientError,
    },
}

/// What an answer makes of a message.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Verdict {
    /// 2xx.
    Accepted,
    /// 429, and 503 that says when to come back.
    Deferred,
    /// 3xx, which is never followed, and 4xx.
    Rejected,
    /// 5xx.
    Failed,
}

impl Verdict {
    fn of(status: u16, retry_after: Option<RetryAfter>) -> Verdict {
        match status {
            200..=299 => Verdict::Accepted,
            429 => Verdict::Deferred,
            503 if retry_after.is_some() => Verdict::Deferred,
            300..=499 => Verdict::Rejected,
            _ => Verdict::Failed,
        }
    }

    /// The outcome in SMTP's classes; a failure has none.
    pub const fn class(self) -> Option<Class> {
        match self {
            Verdict::Accepted => Some(Class::Positive),
            Verdict::Deferred => Some(Class::Transient),
            Verdict::Rejected => Some(Class::Permanent),
            Verdict::Failed => None,
        }
    }
}

/// What [`Client::poll_output`] asks for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Output {
    /// Write the request.
    Write,
    /// Take note of this.
    Event(Event),
    /// Begin the TLS handshake. Answered by [`Client::tls_ready`].
    StartTls,
    /// Nothing to do before input comes or this instant has passed.
    Wait(Instant),
    /// Close the connection; nothing follows.
    Close,
}

/// A whole answer, for whoever counts answers.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Answer<'a> {
    /// 200 to 599.
    pub status: u16,
    /// What it makes of the message.
    pub verdict: Verdict,
    /// When its first octet came; those of interim answers before it do not count.
    pub first_byte: Instant,
    /// The beginning of the body.
    pub text: &'a [u8],
}

/// What one call of [`Client::handle`] did.
#[derive(Debug, PartialEq, Eq)]
pub struct Handled<'a> {
    /// Octets eaten: call again with the rest, after draining the outputs.
    pub consumed: usize,
    /// The answer that was completed by them.
    pub answer: Option<Answer<'a>>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum State {
    Connecting,
    Handshake,
    Ready,
    /// The request was begun and nothing of its answer has come.
    FirstByte,
    LastByte,
    Over,
}

/// One client connection.
#[derive(Debug)]
pub struct Client {
    state: State,
    response: ResponseReader,
    deadline: Instant,
    /// When the first octet came of the answer, or of an interim one before it.
    first_byte: Instant,
    /// When that must have come at the latest.
    first_byte_by: Instant,
    event: Option<Event>,
    write: bool,
    /// The request has not left yet.
    unsent: bool,
    ready: bool,
    start_tls: bool,
}

impl Client {
    /// A connection that is being opened.
    pub const fn new() -> Client {
        Client {
            state: State::Connecting,
            response: ResponseReader::new(),
            deadline: Instant::NEVER,
            first_byte: Instant::NEVER,
            first_byte_by: Instant::NEVER,
            event: None,
            write: false,
            unsent: false,
            ready: false,
            start_tls: false,
        }
    }

    /// The connection is open.
    pub fn connected(&mut self, now: Instant, config: &ClientConfig) {
        debug_assert_eq!(self.state, State::Connecting);
        match config.tls {
            true => {
                self.start_tls = true;
                (self.state, self.deadline) = (State::Handshake, now + config.timeouts.tls);
            }
            false => self.become_ready(),
        }
    }

    /// The TLS handshake that [`Output::StartTls`] asked for has come to its good end.
    pub fn tls_ready(&mut self) {
        debug_assert_eq!(self.state, State::Handshake);
        self.become_ready();
    }

    /// Begins a request; only after [`Event::Ready`].
    #[inline]
    pub fn begin(&mut self, now: Instant, config: &ClientConfig) {
        debug_assert_eq!(self.state, State::Ready);
        self.response.begin(config.is_head);
        (self.ready, self.write, self.unsent) = (false, true, true);
        self.first_byte_by = now + config.timeouts.first_byte;
        (self.state, self.deadline) = (State::FirstByte, self.first_byte_by);
    }

    /// The request is on its way: from now on an answer can be one to it.
    #[inline]
    pub fn written(&mut self) {
        self.unsent = false;
    }

    /// Takes octets up to the end of an answer.
    #[inline]
    pub fn handle<'a>(&'a mut self, now: Instant, bytes: &[u8], config: &ClientConfig) -> Handled<'a> {
        let mut consumed = 0;
        match self.state {
            State::FirstByte | State::LastByte if !self.unsent => {}
            State::Over => return Handled { consumed: bytes.len(), answer: None },
            _ => {
                self.forget_unsent();
                self.fail(ClientError::Unsolicited);
                return Handled { consumed: bytes.len(), answer: None };
            }
        }
        while consumed < bytes.len() && !self.response.is_complete() {
            if self.state == State::FirstByte {
                self.first_byte = now;
                (self.state, self.deadline) = (State::LastByte, now + config.timeouts.last_byte);
            }
            match self.response.read(&bytes[consumed..]) {
                Ok(eaten) => consumed += eaten,
                Err(error) => {
                    self.fail(ClientError::Response(error));
                    return Handled { consumed: bytes.len(), answer: None };
                }
            }
            if !self.response.is_begun() {
                // That was an interim answer.
                (self.state, self.deadline) = (State::FirstByte, self.first_byte_by);
            }
        }
        let answer = if self.response.is_complete() { self.answered() } else { None };
        Handled { consumed, answer }
    }

    /// The peer closed its side, which may be the end of an answer.
    pub fn end_of_stream(&mut self) -> Option<Answer<'_>> {
        match self.state {
            State::Over => None,
            State::LastByte if self.response.may_end_here() => self.answered(),
            _ => {
                self.forget_unsent();
                self.fail(ClientError::Closed);
                None
            }
        }
    }

    /// The instant of the last [`Output::Wait`] has come.
    pub fn timed_out(&mut self, now: Instant) {
        if self.state != State::Over && now >= self.deadline {
            self.fail(ClientError::TimedOut);
        }
    }

    /// Ends the connection; only after [`Event::Ready`].
    pub fn quit(&mut self) {
        debug_assert_eq!(self.state, State::Ready);
        self.close();
    }

    /// The next thing to do.
    #[inline]
    pub fn poll_output(&mut self) -> Output {
        if let Some(event) = self.event.take() {
            return Output::Event(event);
        }
        if std::mem::take(&mut self.write) {
            return Output::Write;
        }
        if std::mem::take(&mut self.ready) {
            return Output::Event(Event::Ready);
        }
        if std::mem::take(&mut self.start_tls) {
            return Output::StartTls;
        }
        if self.is_over() { Output::Close } else { Output::Wait(self.deadline) }
    }

    /// Whether nothing but [`Output::Close`] is left to come.
    pub fn is_over(&self) -> bool {
        self.state == State::Over
    }

    /// What the connection is waiting for.
    pub fn phase(&self) -> Phase {
        match self.state {
            State::Connecting => Phase::Connect,
            State::Handshake => Phase::Tls,
            State::Ready | State::Over => Phase::Idle,
            State::FirstByte if self.unsent => Phase::Write,
            State::FirstByte => Phase::FirstByte,
            State::LastByte => Phase::LastByte,
        }
    }

    #[inline]
    fn answered(&mut self) -> Option<Answer<'_>> {
        let head = self.response.head()?;
        let verdict = Verdict::of(head.status, head.retry_after);
        self.event = Some(Event::Done { status: head.status, verdict, retry_after: head.retry_after });
        match head.keeps_alive {
            true => self.become_ready(),
            false => self.close(),
        }
        Some(Answer { status: head.status, verdict, first_byte: self.first_byte, text: self.response.text() })
    }

    /// A request that has not left yet is not waited for: nothing was asked for yet, which is all that the peer can know.
    fn forget_unsent(&mut self) {
        if self.unsent {
            self.state = State::Ready;
        }
    }

    fn become_ready(&mut self) {
        self.ready = true;
        (self.state, self.deadline) = (State::Ready, Instant::NEVER);
    }

    fn fail(&mut self, error: ClientError) {
        self.event = Some(Event::Failed { phase: self.phase(), error });
        self.close();
    }

    fn close(&mut self) {
        self.state = State::Over;
        (self.write, self.ready, self.start_tls) = (false, false, false);
    }
}

impl Default for Client {
    fn default() -> Client {
        Client::new()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const CONFIG: ClientConfig =
        ClientConfig { tls: false, is_head: false, timeouts: Timeouts::uniform(Duration::from_secs(5)) };

    fn at(second: u64) -> Instant {
        Instant::ZERO + Duration::from_secs(second)
    }

    /// A client whose request has left at second 1.
    fn asking() -> Client {
        let mut client = Client::new();
        client.connected(at(0), &CONFIG);
        assert_eq!(client.poll_output(), Output::Event(Event::Ready));
        client.begin(at(1), &CONFIG);
        assert_eq!(client.poll_output(), Output::Write);
        assert_eq!((client.phase(), client.poll_output()), (Phase::Write, Output::Wait(at(6))));
        client.written();
        assert_eq!(client.phase(), Phase::FirstByte);
        client
    }

    fn done(status: u16, verdict: Verdict) -> Output {
        Output::Event(Event::Done { status, verdict, retry_after: None })
    }

    fn failed(phase: Phase, error: ClientError) -> Output {
        Output::Event(Event::Failed { phase, error })
    }

    #[test]
    fn a_connection_serves_one_request_after_another() {
        let mut client = asking();
        let handled = client.handle(at(2), b"HTTP/1.1 100 x\r\n\r\nHTTP/1.1 2", &CONFIG);
        assert_eq!(handled, Handled { consumed: 28, answer: None });
        assert_eq!((client.phase(), client.poll_output()), (Phase::LastByte, Output::Wait(at(7))));
        let handled = client.handle(at(3), b"02 x\r\nContent-Length: 2\r\n\r\nokHTTP", &CONFIG);
        let answer = Answer { status: 202, verdict: Verdict::Accepted, first_byte: at(2), text: b"ok" };
        assert_eq!(handled, Handled { consumed: 29, answer: Some(answer) });
        assert_eq!(client.poll_output(), done(202, Verdict::Accepted));
        assert_eq!(client.poll_output(), Output::Event(Event::Ready));
        client.begin(at(3), &CONFIG);
        assert_eq!(client.poll_output(), Output::Write);
    }

    #[test]
    fn interim_answers_leave_the_wait_for_the_answer_as_it_is() {
        let timeouts = Timeouts { last_byte: Duration::from_secs(2), ..CONFIG.timeouts };
        let config = ClientConfig { timeouts, ..CONFIG };
        let mut client = asking();
        for second in [2, 3] {
            client.handle(at(second), b"HTTP/1.1 103 x\r\n\r\n", &config);
            assert_eq!((client.phase(), client.poll_output()), (Phase::FirstByte, Output::Wait(at(6))));
        }
        client.handle(at(4), b"H", &config);
        assert_eq!((client.phase(), client.poll_output()), (Phase::LastByte, Output::Wait(at(6))));
        client.handle(at(5), b"TTP/1.1 103 x\r\n\r\n", &config);
        client.timed_out(at(6));
        assert_eq!(client.poll_output(), failed(Phase::FirstByte, ClientError::TimedOut));
    }

    #[test]
    fn statuses_have_their_verdicts() {
        for (status, field, verdict) in [
            (200, "", Verdict::Accepted),
            (301, "Location: /a", Verdict::Rejected),
            (400, "", Verdict::Rejected),
            (429, "", Verdict::Deferred),
            (500, "", Verdict::Failed),
            (503, "", Verdict::Failed),
            (503, "Retry-After: 1", Verdict::Deferred),
        ] {
            let mut client = asking();
            let field = if field.is_empty() { String::new() } else { format!("{field}\r\n") };
            let response = format!("HTTP/1.1 {status} x\r\n{field}Content-Length: 0\r\n\r\n");
            let handled = client.handle(at(2), response.as_bytes(), &CONFIG);
            assert_eq!(handled.answer.map(|answer| (answer.status, answer.verdict)), Some((status, verdict)));
        }
    }

    #[test]
    fn a_server_may_close_behind_its_answer() {
        let mut client = asking();
        client.handle(at(2), b"HTTP/1.1 400 x\r\nConnection: close\r\nContent-Length: 0\r\n\r\n", &CONFIG);
        assert_eq!(client.poll_output(), done(400, Verdict::Rejected));
        assert_eq!(client.poll_output(), Output::Close);

        let mut client = asking();
        assert_eq!(client.handle(at(2), b"HTTP/1.1 200 x\r\n\r\nall", &CONFIG).answer, None);
        assert_eq!(client.end_of_stream().map(|answer| answer.text), Some(&b"all"[..]));
        assert_eq!(client.poll_output(), done(200, Verdict::Accepted));
        assert_eq!(client.poll_output(), Output::Close);
    }

    #[test]
    fn a_connection_that_ends_elsewhere_has_failed() {
        let mut client = asking();
        assert_eq!(client.end_of_stream(), None);
        assert_eq!(client.poll_output(), failed(Phase::FirstByte, ClientError::Closed));
        assert_eq!(client.poll_output(), Output::Close);

        let mut client = asking();
        client.handle(at(2), b"HTTP/1.1 200 x\r\nContent-Length: 9\r\n\r\nall", &CONFIG);
        assert_eq!(client.end_of_stream(), None);
        assert_eq!(client.poll_output(), failed(Phase::LastByte, ClientError::Closed));

        let mut client = Client::new();
        client.connected(at(0), &CONFIG);
        client.end_of_stream();
        assert_eq!(client.poll_output(), failed(Phase::Idle, ClientError::Closed));
    }

    #[test]
    fn time_runs_out_before_and_within_an_answer() {
        let mut client = asking();
        client.timed_out(at(5));
        assert_eq!(client.poll_output(), Output::Wait(at(6)));
        client.timed_out(at(6));
        assert_eq!(client.poll_output(), failed(Phase::FirstByte, ClientError::TimedOut));

        let mut client = asking();
        client.handle(at(4), b"H", &CONFIG);
        client.handle(at(8), b"T", &CONFIG);
        client.timed_out(at(9));
        assert_eq!(client.poll_output(), failed(Phase::LastByte, ClientError::TimedOut));
    }

    #[test]
    fn an_answer_without_a_request_ends_the_connection() {
        const STALE: &[u8] = b"HTTP/1.1 408 x\r\nContent-Length: 0\r\n\r\n";
        let mut idle = Client::new();
        idle.connected(at(0), &CONFIG);
        idle.handle(at(1), STALE, &CONFIG);
        assert_eq!(idle.poll_output(), failed(Phase::Idle, ClientError::Unsolicited));
        // It cannot be the answer to a request that has not left.
        let mut client = Client::new();
        client.connected(at(0), &CONFIG);
        client.begin(at(1), &CONFIG);
        assert_eq!(client.handle(at(1), STALE, &CONFIG).answer, None);
        assert_eq!(client.poll_output(), failed(Phase::Idle, ClientError::Unsolicited));
        assert_eq!(client.poll_output(), Output::Close);
    }

    #[test]
    fn tls_comes_before_the_first_request() {
        let config = ClientConfig { tls: true, ..CONFIG };
        let mut client = Client::new();
        client.connected(at(0), &config);
        assert_eq!((client.poll_output(), client.phase()), (Output::StartTls, Phase::Tls));
        assert_eq!(client.poll_output(), Output::Wait(at(5)));
        client.tls_ready();
        assert_eq!(client.poll_output(), Output::Event(Event::Ready));
        client.quit();
        assert_eq!(client.poll_output(), Output::Close);
    }
}
