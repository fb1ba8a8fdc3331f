//! One connection's bytes, as hyper wants them, and the deadlines that its client has to meet.

use std::cell::Cell;
use std::io;
use std::net::TcpStream;
use std::pin::Pin;
use std::rc::Rc;
use std::task::{Context, Poll, ready};
use std::time::{Duration, Instant};

use futures_lite::{AsyncRead as _, AsyncWrite as _, AsyncWriteExt as _};
use hyper::StatusCode;
use hyper::rt::{Read, ReadBufCursor, Write};
use memchr::memmem;

use super::{HttpLimits, Refusal};

/// Octets taken from the socket at once.
const READ_BYTES: usize = 8 << 10;
/// How long a connection that we close may go on sending what nobody reads. Closing a socket with unread octets resets
/// it, and a reset may take our last response from the client.
const LINGER_WITHIN: Duration = Duration::from_secs(2);
/// Reads of a closing connection before others get their turn.
const LINGER_READS_MAX: usize = 16;
/// The most octets that hyper's own answer to what is no request has.
const OWN_ANSWER_BYTES_MAX: usize = 256;
/// Deadlines are looked at no more often than this.
const LOOK_EVERY_MIN: Duration = Duration::from_millis(1);

/// What a connection waits for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Phase {
    /// The rest of a request's head.
    Head,
    /// The rest of a request's body.
    Body,
    /// Our own answer: the client owes nothing.
    Handling,
    /// A next request, once the response has left.
    Idle,
    /// The client's end of the stream, after ours.
    Closing,
}

/// Until when the client of one connection has to do what. The stream and the service move the deadlines, and
/// [`missed`](Deadlines::missed) watches them: hyper's own timers would have to be `Send`, which glommio's are not.
pub(super) struct Deadlines {
    limits: HttpLimits,
    phase: Cell<Phase>,
    /// Some of the head that is waited for has come.
    has_begun: Cell<bool>,
    /// When what the phase waits for has to be complete.
    read_by: Cell<Option<Instant>>,
    /// When a blocked write has to have got on.
    write_by: Cell<Option<Instant>>,
}

impl Deadlines {
    /// Those of a new connection, whose first request is due at once.
    pub(super) fn new(limits: HttpLimits) -> Deadlines {
        let deadlines = Deadlines {
            limits,
            phase: Cell::new(Phase::Head),
            has_begun: Cell::new(false),
            read_by: Cell::new(None),
            write_by: Cell::new(None),
        };
        deadlines.enter(Phase::Head);
        deadlines
    }

    /// Begins a phase, now.
    pub(super) fn enter(&self, phase: Phase) {
        let within = match phase {
            Phase::Head => Some(self.limits.header_within),
            Phase::Body => Some(self.limits.body_within),
            Phase::Handling => None,
            Phase::Idle => Some(self.limits.idle_within),
            Phase::Closing => Some(LINGER_WITHIN),
        };
        self.phase.set(phase);
        self.has_begun.set(false);
        self.read_by.set(within.and_then(|within| Instant::now().checked_add(within)));
    }

    /// A request's first octet starts the clock of its head; no later one moves it.
    fn has_read(&self) {
        if self.phase.get() == Phase::Idle {
            self.enter(Phase::Head);
        }
        self.has_begun.set(true);
    }

    /// hyper asks for the next request while the response still leaves: idle time counts from its last octet.
    fn has_written(&self) {
        self.write_by.set(None);
        if self.phase.get() == Phase::Idle {
            self.enter(Phase::Idle);
        }
    }

    fn is_blocked(&self) {
        if self.write_by.get().is_none() {
            self.write_by.set(Instant::now().checked_add(self.limits.write_within));
        }
        if self.phase.get() == Phase::Idle {
            self.read_by.set(None);
        }
    }

    /// What a client that has missed a deadline is told: nothing where it has begun no request, or reads no response.
    pub(super) fn unmet(&self) -> Option<Refusal> {
        let (what, within) = match self.phase.get() {
            _ if self.write_by.get().is_some() => return None,
            Phase::Head if self.has_begun.get() => ("head", self.limits.header_within),
            Phase::Body => ("body", self.limits.body_within),
            _ => return None,
        };
        let reason = format!("{what}: expected all of it within {within:?}, got a part; send it sooner");
        Some(Refusal::new(StatusCode::REQUEST_TIMEOUT, reason))
    }

    /// Resolves when the client has missed a deadline.
    pub(super) async fn missed(&self) {
        let HttpLimits { header_within, body_within, idle_within, write_within, .. } = self.limits;
        // A deadline is never set less ahead than this, so that a look so often finds each in time, and nobody has to
        // tell that one was moved.
        let shortest = header_within.min(body_within).min(idle_within).min(write_within).min(LINGER_WITHIN);
        loop {
            let next = [self.read_by.get(), self.write_by.get()].into_iter().flatten().min();
            let left = next.map(|next| next.saturating_duration_since(Instant::now()));
            if left == Some(Duration::ZERO) {
                return;
            }
            glommio::timer::sleep(left.unwrap_or(shortest).min(shortest).max(LOOK_EVERY_MIN)).await;
        }
    }
}

/// A socket that hyper reads and writes.
pub(super) struct Stream {
    socket: glommio::net::TcpStream,
    deadlines: Rc<Deadlines>,
    /// hyper's buffer may be uninitialised, and can be filled without `unsafe` only from another one.
    read: Box<[u8]>,
    /// Our side has ended.
    is_closed: bool,
}

impl Stream {
    /// Takes a connection over into the executor that this runs on.
    pub(super) fn new(socket: TcpStream, deadlines: Rc<Deadlines>) -> Stream {
        let socket = socket2_of_glommio::Socket::from(socket);
        Stream { socket: socket.into(), deadlines, read: vec![0; READ_BYTES].into(), is_closed: false }
    }

    /// Writes what hyper has not written.
    pub(super) async fn say(&mut self, octets: &[u8]) -> io::Result<()> {
        self.socket.write_all(octets).await
    }
}

/// Where the answer begins that hyper gives by itself to what is no request, and with which what it writes then ends: an
/// empty one, of the only kind that has no `Cache-Control`.
fn own_answer(octets: &[u8]) -> Option<usize> {
    let from = octets.len().saturating_sub(OWN_ANSWER_BYTES_MAX);
    let begin = from + memmem::rfind(&octets[from..], b"HTTP/1.")?;
    let head = octets[begin..].strip_suffix(b"\r\n\r\n")?;
    let has = |line: &[u8]| memmem::find(head, line).is_some();
    (has(b"\r\ncontent-length: 0") && !has(b"\r\ncache-control:")).then_some(begin)
}

impl Read for Stream {
    fn poll_read(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        mut buffer: ReadBufCursor<'_>,
    ) -> Poll<io::Result<()>> {
        let Stream { socket, deadlines, read, .. } = &mut *self;
        let room = buffer.remaining().min(read.len());
        let octets = ready!(Pin::new(socket).poll_read(context, &mut read[..room]))?;
        if octets > 0 {
            deadlines.has_read();
        }
        buffer.put_slice(&read[..octets]);
        Poll::Ready(Ok(()))
    }
}

impl Write for Stream {
    /// All but hyper's own answers, which have no reason: whoever owns the connection has one to give.
    fn poll_write(mut self: Pin<&mut Self>, context: &mut Context<'_>, octets: &[u8]) -> Poll<io::Result<usize>> {
        let octets = match own_answer(octets) {
            Some(0) => return Poll::Ready(Ok(octets.len())),
            Some(begin) => &octets[..begin],
            None => octets,
        };
        let written = Pin::new(&mut self.socket).poll_write(context, octets);
        match &written {
            Poll::Ready(_) => self.deadlines.has_written(),
            Poll::Pending => self.deadlines.is_blocked(),
        }
        written
    }

    fn poll_flush(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.socket).poll_flush(context)
    }

    /// Ends our side, then waits for the end of the client's.
    fn poll_shutdown(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        let Stream { socket, read, is_closed, .. } = &mut *self;
        if !*is_closed {
            ready!(Pin::new(&mut *socket).poll_close(context))?;
            *is_closed = true;
        }
        for _ in 0..LINGER_READS_MAX {
            if ready!(Pin::new(&mut *socket).poll_read(context, read))? == 0 {
                return Poll::Ready(Ok(()));
            }
        }
        context.waker().wake_by_ref();
        Poll::Pending
    }
}
