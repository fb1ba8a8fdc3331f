//! The session itself.

use std::mem::MaybeUninit;
use std::time::Duration;

use super::head::{self, Found, Parsed, Scan};
use super::response::{self, CONTINUE, Fault, Staying};
use super::{Answer, Decision, Event, Intake, Policy, RequestHead, SessionError};
use crate::time::Instant;
use crate::wire::flow::Flow;
use crate::wire::held::Held;
use crate::wire::http::HEADERS_MAX;
use crate::wire::http::body::{BodyReader, Framing};

/// Each octet of a body moves the deadline by a part of a second: a peer that stays below this rate uses up
/// [`ServerConfig::body_timeout`], however evenly it sends.
pub const BODY_BYTES_A_SECOND_MIN: u64 = 1_000;

/// Octets that are read and thrown away behind a response that closes the connection: a client that is still sending
/// would otherwise lose the response with the connection.
pub const LINGER_BYTES_MAX: u64 = 128 << 20;

/// For how long that is done.
const LINGER: Duration = Duration::from_secs(5);

/// Memory that an idle session keeps for the next head that comes in pieces.
const IDLE_BYTES_MAX: usize = 2_048;

/// The settings of a server. Made once, lent to every call of a session.
#[derive(Clone, Debug)]
pub struct ServerConfig {
    /// Octets of content of the largest request taken; a larger one is answered with 413.
    pub body_bytes_max: u64,
    /// From a response, or the connection's beginning, to the first octet of the next request. Then it is closed.
    pub idle_timeout: Duration,
    /// From the first octet of a request to the end of its head. Then it is answered with 408.
    pub head_timeout: Duration,
    /// From the end of the head to that of the content, and at most so long ahead at any time; see
    /// [`BODY_BYTES_A_SECOND_MIN`]. Then it is answered with 408.
    pub body_timeout: Duration,
}

impl ServerConfig {
    /// The usual time limits: 5 minutes between requests, 30 seconds for a head, 2 minutes for content.
    pub const fn new(body_bytes_max: u64) -> ServerConfig {
        ServerConfig {
            body_bytes_max,
            idle_timeout: Duration::from_secs(5 * 60),
            head_timeout: Duration::from_secs(30),
            body_timeout: Duration::from_secs(2 * 60),
        }
    }
}

#[derive(Debug)]
enum State {
    /// The TLS handshake of a new connection is under way.
    Handshake,
    /// A request's head is to come, or is coming.
    Head,
    /// A request's content is coming.
    Body(Body),
    /// The last response is on its way; whatever arrives is thrown away until the peer closes.
    Lingering { octets: u64 },
    /// The connection closes when all held responses have gone out. Whatever arrives is ignored.
    Closing,
    /// The connection is to be dropped.
    Dropped,
}

#[derive(Debug)]
struct Body {
    reader: BodyReader,
    octets: u64,
    intake: Intake,
    staying: Staying,
    is_head: bool,
}

/// One HTTP session of a server. `R` is what its policy remembers of a request.
#[derive(Debug)]
pub struct Session<R> {
    state: State,
    /// A head that comes in pieces.
    head: Vec<u8>,
    scan: Scan,
    request: R,
    /// Made when a response is held for the first time.
    held: Option<Box<Held>>,
    /// When the peer has been silent for too long.
    silence_deadline: Instant,
}

/// The arguments of one call.
struct Turn<'a, P> {
    now: Instant,
    config: &'a ServerConfig,
    policy: &'a mut P,
    out: &'a mut Vec<u8>,
}

impl<R: Default> Default for Session<R> {
    fn default() -> Session<R> {
        Session::new()
    }
}

impl<R: Default> Session<R> {
    /// A session whose connection is not accepted yet.
    pub fn new() -> Session<R> {
        Session {
            state: State::Head,
            head: Vec::new(),
            scan: Scan::default(),
            request: R::default(),
            held: None,
            silence_deadline: Instant::NEVER,
        }
    }

    /// The connection is accepted, and TLS, where there is any, is ready.
    pub fn connected<P: Policy<Request = R>>(&mut self, now: Instant, config: &ServerConfig, policy: &mut P) -> Flow {
        policy.observe(Event::SessionOpened);
        self.state = State::Head;
        self.silence_deadline = now + config.idle_timeout;
        Flow::Continue
    }

    /// The connection is accepted and TLS comes first: [`Session::tls_ready`] then takes the place of
    /// [`Session::connected`].
    pub fn secure(&mut self, now: Instant, config: &ServerConfig) {
        self.state = State::Handshake;
        self.silence_deadline = now + config.head_timeout;
    }

    /// The TLS handshake has come to its good end.
    pub fn tls_ready<P: Policy<Request = R>>(
        &mut self,
        now: Instant,
        resumed: bool,
        config: &ServerConfig,
        policy: &mut P,
    ) -> Flow {
        policy.observe(Event::Secured { resumed });
        self.connected(now, config, policy)
    }

    /// The TLS handshake failed, or TLS broke: nothing can be said any more.
    pub fn tls_failed<P: Policy<Request = R>>(&mut self, policy: &mut P) -> Flow {
        policy.observe(Event::Error(SessionError::Tls));
        self.state = State::Dropped;
        self.flow()
    }

    /// Consumes all of `bytes` and appends the responses to `out`.
    pub fn handle<P: Policy<Request = R>>(
        &mut self,
        now: Instant,
        bytes: &[u8],
        config: &ServerConfig,
        policy: &mut P,
        out: &mut Vec<u8>,
    ) -> Flow {
        let mut turn = Turn { now, config, policy, out };
        self.release(&mut turn);
        let mut rest = bytes;
        while !rest.is_empty() {
            let consumed = match &mut self.state {
                State::Head => self.take_head(&mut turn, rest),
                State::Body(_) => self.take_body(&mut turn, rest),
                State::Lingering { octets } => {
                    *octets += rest.len() as u64;
                    if *octets > LINGER_BYTES_MAX {
                        self.state = State::Closing;
                    }
                    break;
                }
                State::Closing | State::Dropped | State::Handshake => break,
            };
            rest = &rest[consumed..];
        }
        self.flow()
    }

    /// The deadline has come: lets held responses go, or gives up a silent peer. Does nothing when called too early.
    pub fn handle_timeout<P: Policy<Request = R>>(
        &mut self,
        now: Instant,
        config: &ServerConfig,
        policy: &mut P,
        out: &mut Vec<u8>,
    ) -> Flow {
        let mut turn = Turn { now, config, policy, out };
        self.release(&mut turn);
        if now >= self.silence_deadline {
            match self.state {
                State::Closing | State::Dropped => {}
                State::Lingering { .. } => self.state = State::Closing,
                State::Head if self.head.is_empty() => self.state = State::Closing,
                State::Handshake => {
                    turn.policy.observe(Event::Error(SessionError::TimedOut));
                    self.state = State::Dropped;
                }
                State::Head | State::Body(_) => {
                    self.fault(&mut turn, &Fault::TIMED_OUT);
                    if let State::Lingering { .. } = self.state {
                        self.state = State::Closing;
                    }
                }
            }
        }
        self.flow()
    }

    /// The peer will send nothing more. A request that is cut off by it is an error. Says whether responses are still
    /// held, which the peer may be waiting for.
    pub fn end_of_stream<P: Policy<Request = R>>(&mut self, policy: &mut P) -> Flow {
        if matches!(self.state, State::Body(_)) || !self.head.is_empty() {
            policy.observe(Event::Error(SessionError::CutOff));
        }
        if !matches!(self.state, State::Dropped) {
            self.state = State::Closing;
        }
        self.flow()
    }

    /// When [`Session::handle_timeout`] is to be called: a held response is due, or the peer has been silent for too long.
    #[inline]
    pub fn deadline(&self) -> Instant {
        let due = self.held.as_ref().map_or(Instant::NEVER, |held| held.due());
        match self.state {
            State::Closing | State::Dropped => due,
            _ => due.min(self.silence_deadline),
        }
    }

    fn flow(&self) -> Flow {
        match self.state {
            State::Dropped => Flow::Drop,
            State::Closing if !self.is_holding() => Flow::Close,
            _ => Flow::Continue,
        }
    }

    // Heads.

    /// Octets consumed.
    #[inline]
    fn take_head<P: Policy<Request = R>>(&mut self, turn: &mut Turn<'_, P>, input: &[u8]) -> usize {
        if self.head.is_empty() {
            // Empty lines before a request are nothing (RFC 9112 §2.2).
            match input {
                [b'\r', b'\n', ..] => return 2,
                [b'\r', _, ..] => {
                    self.fault(turn, &Fault::MALFORMED);
                    return input.len();
                }
                _ => {}
            }
            self.scan = Scan::default();
            match self.scan.find(input) {
                Ok(Found::End(at)) => {
                    self.request(turn, &input[..at]);
                    return at;
                }
                Ok(Found::Nothing) => {
                    self.head.extend_from_slice(input);
                    self.silence_deadline = self.last_release(turn.now) + turn.config.head_timeout;
                }
                Err(fault) => self.fault(turn, fault),
            }
            return input.len();
        }
        if self.head == b"\r" {
            self.head.clear();
            if input[0] == b'\n' {
                self.silence_deadline = self.last_release(turn.now) + turn.config.idle_timeout;
                return 1;
            }
            self.fault(turn, &Fault::MALFORMED);
            return input.len();
        }
        // No more is copied than a head may have, with one octet more to see that it is too large.
        let before = self.head.len();
        let piece = &input[..input.len().min(head::HEAD_BYTES_MAX + 1 - before)];
        self.head.extend_from_slice(piece);
        match self.scan.find(&self.head) {
            Ok(Found::End(at)) => {
                let mut head = std::mem::take(&mut self.head);
                self.request(turn, &head[..at]);
                head.clear();
                head.shrink_to(IDLE_BYTES_MAX);
                self.head = head;
                at - before
            }
            Ok(Found::Nothing) => piece.len(),
            Err(fault) => {
                self.fault(turn, fault);
                input.len()
            }
        }
    }

    /// A whole head is there.
    #[inline]
    fn request<P: Policy<Request = R>>(&mut self, turn: &mut Turn<'_, P>, head: &[u8]) {
        let mut fields = [const { MaybeUninit::uninit() }; HEADERS_MAX];
        let Parsed { method, target, headers, framing, keeps_alive, is_1_0, expects_100 } =
            match head::parse(head, &mut fields) {
                Ok(parsed) => parsed,
                Err(fault) => return self.fault(turn, fault),
            };
        if let Framing::Length(octets) = framing
            && octets > turn.config.body_bytes_max
        {
            return self.fault(turn, &Fault::BODY_TOO_LARGE);
        }
        let staying = match (keeps_alive, is_1_0) {
            (false, _) => Staying::Close,
            (true, true) => Staying::OpenSaid,
            (true, false) => Staying::Open,
        };
        let is_head = method == "HEAD";
        let intake = turn.policy.begin(turn.now, &RequestHead { method, target, headers }, &mut self.request);
        if expects_100 && intake == Intake::Discard {
            // Whether the client sends the content after that is up to it: what follows cannot be told apart.
            if self.decide(turn, Staying::Close, is_head) {
                self.linger(turn);
            }
            return;
        }
        if framing == Framing::NONE {
            self.decide(turn, staying, is_head);
            return;
        }
        if expects_100 {
            turn.out.extend_from_slice(CONTINUE);
            let written = turn.out.len() - CONTINUE.len();
            self.hold(turn, written, Duration::ZERO);
            if let State::Dropped = self.state {
                return;
            }
        }
        self.state = State::Body(Body { reader: BodyReader::new(framing), octets: 0, intake, staying, is_head });
        self.silence_deadline = self.last_release(turn.now) + turn.config.body_timeout;
    }

    // Bodies.

    /// Octets consumed.
    #[inline]
    fn take_body<P: Policy<Request = R>>(&mut self, turn: &mut Turn<'_, P>, input: &[u8]) -> usize {
        let State::Body(body) = &mut self.state else { return input.len() };
        let run = match body.reader.read(input) {
            Ok(run) => run,
            Err(_) => {
                self.fault(turn, &Fault::CHUNKS);
                return input.len();
            }
        };
        body.octets += run.content.len() as u64;
        if body.octets > turn.config.body_bytes_max {
            self.fault(turn, &Fault::BODY_TOO_LARGE);
            return input.len();
        }
        if body.intake == Intake::Read && !run.content.is_empty() {
            turn.policy.content(&mut self.request, run.content);
        }
        if run.ended {
            let (staying, is_head) = (body.staying, body.is_head);
            self.decide(turn, staying, is_head);
        } else {
            let credit = Duration::from_nanos(run.consumed as u64 * (1_000_000_000 / BODY_BYTES_A_SECOND_MIN));
            self.silence_deadline = (self.silence_deadline + credit).min(turn.now + turn.config.body_timeout);
        }
        run.consumed
    }

    // Responses.

    /// Whether there was an answer.
    #[inline]
    fn decide<P: Policy<Request = R>>(&mut self, turn: &mut Turn<'_, P>, staying: Staying, is_head: bool) -> bool {
        let written = turn.out.len();
        let Decision { answer, hold } = turn.policy.decide(turn.now, &mut self.request);
        let status = answer.map(|answer| {
            response::write(turn.out, &answer, staying, is_head);
            answer.status
        });
        if let Some(status) = status {
            turn.policy.observe(Event::Answered { status });
        }
        self.hold(turn, written, hold);
        match self.state {
            State::Dropped => {}
            _ if status.is_none() || staying == Staying::Close => self.state = State::Closing,
            _ => {
                self.state = State::Head;
                self.silence_deadline = self.last_release(turn.now) + turn.config.idle_timeout;
            }
        }
        status.is_some()
    }

    /// The request is wrong in itself: a last response.
    #[cold]
    fn fault<P: Policy<Request = R>>(&mut self, turn: &mut Turn<'_, P>, fault: &Fault) {
        self.head.clear();
        turn.policy.observe(Event::Error(match fault.status {
            408 => SessionError::TimedOut,
            413 => SessionError::BodyTooLarge,
            414 | 431 => SessionError::HeadTooLarge,
            _ => SessionError::Malformed,
        }));
        turn.policy.observe(Event::Answered { status: fault.status });
        let written = turn.out.len();
        let mut answer: Answer<'_> = fault.answer();
        let limit;
        if *fault == Fault::BODY_TOO_LARGE {
            limit = format!(r#"{{"message":"request body too large, max is {} bytes"}}"#, turn.config.body_bytes_max);
            answer.json = limit.as_bytes();
        }
        response::write(turn.out, &answer, Staying::Close, false);
        self.hold(turn, written, Duration::ZERO);
        self.linger(turn);
    }

    fn linger<P>(&mut self, turn: &Turn<'_, P>) {
        if !matches!(self.state, State::Dropped) {
            self.state = State::Lingering { octets: 0 };
            self.silence_deadline = self.last_release(turn.now) + LINGER;
        }
    }

    /// Holds what was written to `out` from `written` on, if it is not due yet.
    #[inline]
    fn hold<P: Policy<Request = R>>(&mut self, turn: &mut Turn<'_, P>, written: usize, hold: Duration) {
        let due = turn.policy.release(self.last_release(turn.now) + hold);
        if due <= turn.now && !self.is_holding() {
            return;
        }
        let is_held = self.held.get_or_insert_default().push(due, &turn.out[written..]);
        turn.out.truncate(written);
        if !is_held {
            turn.policy.observe(Event::Error(SessionError::TooManyHeld));
            self.state = State::Dropped;
        }
    }

    // Time.

    fn is_holding(&self) -> bool {
        self.held.as_ref().is_some_and(|held| !held.is_empty())
    }

    /// When the last response goes out: now, unless it is held.
    fn last_release(&self, now: Instant) -> Instant {
        self.held.as_ref().map_or(now, |held| held.last().max(now))
    }

    fn release<P>(&mut self, turn: &mut Turn<'_, P>) {
        if let Some(held) = &mut self.held {
            held.release(turn.now, turn.out);
        }
    }
}

#[cfg(test)]
mod tests;
