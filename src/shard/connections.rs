//! A shard's connections: what the ring's file slots are used for, and what is to be written to each.

use std::collections::VecDeque;
use std::io;
use std::rc::Rc;
use std::sync::Arc;
use std::sync::atomic::{AtomicU32, Ordering::Relaxed};

use super::ring::{Buffers, Completion, Ring, Sent};
use super::timers::Timers;
use super::tls::{Heard, Tls};
use crate::job::link::LinkError;
use crate::outgoing::Outgoing;
use crate::time::Instant;

/// Connections that are being opened at once; more wait in line, so that a listener's queue is not overrun.
pub const DIALING_MAX: u32 = 256;

/// Where a file slot stands.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Stage {
    /// Unused.
    Free,
    /// In line to be dialled.
    Queued,
    /// Being opened.
    Dialing,
    /// Open.
    Open,
    /// Waits for whatever is armed on it to end, and then for its close.
    Closing,
}

/// How a connection is read that is read slowly.
#[derive(Clone, Copy, Debug)]
struct Sip {
    /// Octets at once, at most.
    octets: u32,
    bytes_per_s: u32,
}

#[derive(Debug)]
struct Connection {
    stage: Stage,
    /// A receive is armed.
    receiving: bool,
    /// The close was submitted.
    close_submitted: bool,
    /// It is in the list of those that something is to be told about at the end of the turn.
    touched: bool,
    /// It closes once everything was written.
    close_after_write: bool,
    /// It closes by a reset.
    resets: bool,
    /// To be dialled when it is free again.
    redial: Option<usize>,
    target: usize,
    /// It is read once at a time, whenever [`Connections::read_on`] says so.
    sip: Option<Sip>,
    /// In the clear, where TLS protects it too.
    out: Option<Outgoing>,
    tls: Option<Box<Tls>>,
    /// What TLS has made of it so far in this turn.
    records: Option<Outgoing>,
    /// Octets in the clear of which the owner is to be told that they leave.
    leaving: usize,
    /// What is received from now on cannot have arrived before: its last write, or its last arrival.
    heard: Instant,
}

impl Connection {
    const UNUSED: Connection = Connection {
        stage: Stage::Free,
        receiving: false,
        close_submitted: false,
        touched: false,
        close_after_write: false,
        resets: false,
        redial: None,
        target: 0,
        sip: None,
        out: None,
        tls: None,
        records: None,
        leaving: 0,
        heard: Instant::ZERO,
    };
}

/// What the owner of a connection must hear.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Notice {
    /// Nothing.
    None,
    /// It is open.
    Connected,
    /// A write is out that was too much to leave at once.
    Left,
    /// It could not be opened, and is free again.
    ConnectFailed(LinkError),
    /// The peer closed its side, or the connection broke.
    Closed(Option<LinkError>),
    /// It is closed and nobody uses it.
    Freed,
}

/// All connections of a shard, by file slot.
pub struct Connections {
    ring: Ring,
    connections: Vec<Connection>,
    /// Deadlines by file slot.
    pub timers: Timers,
    touched: Vec<u32>,
    in_line: VecDeque<u32>,
    dialing: u32,
    /// Those that can be shut down in the next turn, when their last write is known to be out.
    parting: Vec<u32>,
    /// Times that the kernel found no receive buffer.
    pub buffers_exhausted: u64,
    /// Writes that the kernel did not take whole at once.
    pub short_writes: u64,
    /// Receives that ended though their connection goes on, and were armed again.
    pub rearms: u64,
    /// See [`Connections::take_sipped`].
    sipped: Vec<(u32, u32, u32)>,
    /// File slots in use, those in line included, for whoever asks from another thread.
    used: Arc<AtomicU32>,
}

impl Connections {
    /// No connection yet; the ring has `files` file slots. `used` is told how many of them are in use.
    pub fn new(ring: Ring, files: u32, used: Arc<AtomicU32>) -> Connections {
        Connections {
            ring,
            connections: (0..files).map(|_| Connection::UNUSED).collect(),
            timers: Timers::new(files),
            touched: Vec::new(),
            in_line: VecDeque::new(),
            dialing: 0,
            parting: Vec::new(),
            buffers_exhausted: 0,
            short_writes: 0,
            rearms: 0,
            sipped: Vec::new(),
            used,
        }
    }

    /// The ring, to wait in it.
    pub fn ring(&mut self) -> &mut Ring {
        &mut self.ring
    }

    /// The ring's receive buffers.
    pub fn buffers(&self) -> Rc<Buffers> {
        self.ring.buffers()
    }

    /// Whether something is left to be done before the ring is waited in.
    pub fn is_pressed(&self) -> bool {
        !self.parting.is_empty()
    }

    /// Whether bytes that arrive mean something to somebody.
    #[inline]
    pub fn is_open(&self, file: u32) -> bool {
        let connection = &self.connections[file as usize];
        connection.stage == Stage::Open && !connection.close_after_write
    }

    /// Whether TLS protects it, or is about to.
    #[inline]
    pub fn is_secured(&self, file: u32) -> bool {
        self.connections[file as usize].tls.is_some()
    }

    /// Before when nothing that is received now can have arrived.
    #[inline]
    pub fn heard_mut(&mut self, file: u32) -> &mut Instant {
        &mut self.connections[file as usize].heard
    }

    /// Whether the slot is unused.
    pub fn is_free(&self, file: u32) -> bool {
        self.connections[file as usize].stage == Stage::Free
    }

    /// Where bytes for the peer are put until the end of the turn.
    #[inline]
    pub fn outgoing(&mut self, file: u32) -> &mut Outgoing {
        self.touch(file);
        let connection = &mut self.connections[file as usize];
        connection.out.get_or_insert_with(|| self.ring.outgoing())
    }

    /// From now on everything goes through `tls`, behind what was put out so far.
    pub fn start_tls(&mut self, file: u32, mut tls: Box<Tls>) {
        self.touch(file);
        let connection = &mut self.connections[file as usize];
        tls.put_first(connection.out.take().unwrap_or_default());
        connection.tls = Some(tls);
    }

    /// Gives bytes that arrived to the connection's TLS, which appends the plaintext in them to `plain`.
    pub fn decipher(&mut self, file: u32, bytes: &[u8], plain: &mut Vec<u8>) -> Heard {
        // Whatever arrives may want an answer of TLS itself.
        self.touch(file);
        match &mut self.connections[file as usize].tls {
            Some(tls) => tls.receive(bytes, plain),
            None => Heard::default(),
        }
    }

    #[inline]
    fn touch(&mut self, file: u32) {
        let connection = &mut self.connections[file as usize];
        if !connection.touched {
            connection.touched = true;
            self.touched.push(file);
        }
    }

    /// Opens a connection as soon as the slot is free and it is its turn.
    pub fn dial(&mut self, file: u32, target: usize) {
        let connection = &mut self.connections[file as usize];
        if connection.stage == Stage::Free {
            connection.stage = Stage::Queued;
            self.used.fetch_add(1, Relaxed);
            connection.target = target;
            self.in_line.push_back(file);
        } else {
            debug_assert_eq!(connection.stage, Stage::Closing);
            connection.redial = Some(target);
        }
    }

    /// Takes the next connection out of the line and begins to open it. Hands back those that failed on the spot.
    pub fn dial_next(&mut self) -> Option<(u32, Result<(), LinkError>)> {
        while self.dialing < DIALING_MAX {
            let file = self.in_line.pop_front()?;
            let connection = &mut self.connections[file as usize];
            if connection.stage != Stage::Queued {
                continue;
            }
            let target = connection.target;
            match self.ring.connect(file, target) {
                Ok(()) => {
                    connection.stage = Stage::Dialing;
                    self.dialing += 1;
                    self.touch(file);
                    return Some((file, Ok(())));
                }
                Err(error) => {
                    connection.stage = Stage::Free;
                    self.used.fetch_sub(1, Relaxed);
                    return Some((file, Err(link_error(&error))));
                }
            }
        }
        None
    }

    /// The kernel has put an accepted connection into this slot.
    pub fn accepted(&mut self, file: u32) {
        let connection = &mut self.connections[file as usize];
        debug_assert_eq!(connection.stage, Stage::Free);
        *connection = Connection { stage: Stage::Open, receiving: true, ..Connection::UNUSED };
        self.used.fetch_add(1, Relaxed);
        self.ring.receive(file);
    }

    /// From now on a connection is read once at a time, so many octets at most: again when [`Connections::read_on`] is
    /// called, which [`Connections::take_sipped`] says the time for.
    pub fn sip(&mut self, file: u32, octets: u32, bytes_per_s: u32) {
        let connection = &mut self.connections[file as usize];
        if connection.stage == Stage::Open && connection.sip.replace(Sip { octets, bytes_per_s }).is_none() {
            self.ring.shrink_window(file);
            if connection.receiving {
                self.ring.cancel_receive(file);
            }
        }
    }

    /// From now on a connection is read like others, if it was one of those that are read slowly.
    pub fn gulp(&mut self, file: u32) {
        let connection = &mut self.connections[file as usize];
        if connection.stage == Stage::Open && connection.sip.take().is_some() && !connection.receiving {
            connection.receiving = true;
            self.ring.receive(file);
        }
    }

    /// Whether [`Connections::take_sipped`] has any.
    #[inline]
    pub fn has_sipped(&self) -> bool {
        !self.sipped.is_empty()
    }

    /// Connections that have been read once and wait to be read on: file slot, octets, and how many of them a second are
    /// to be read.
    pub fn take_sipped(&mut self) -> Vec<(u32, u32, u32)> {
        std::mem::take(&mut self.sipped)
    }

    /// Reads a connection once, if it is one of those that are read so and waits for it.
    pub fn read_on(&mut self, file: u32) {
        let connection = &mut self.connections[file as usize];
        if let (Stage::Open, false, Some(Sip { octets, .. })) = (connection.stage, connection.receiving, connection.sip)
        {
            connection.receiving = true;
            self.ring.receive_once(file, octets);
        }
    }

    /// Resets a connection once what was put out for it is written.
    pub fn reset_after_write(&mut self, file: u32) {
        self.connections[file as usize].resets = true;
        self.close_after_write(file);
    }

    /// Closes a connection, whatever it is doing; what was not yet sent is forgotten.
    pub fn close(&mut self, file: u32) {
        self.timers.set(file, Instant::NEVER);
        let connection = &mut self.connections[file as usize];
        connection.out = None;
        match connection.stage {
            Stage::Free => {}
            Stage::Closing => connection.redial = None,
            Stage::Queued => {
                connection.stage = Stage::Free;
                self.used.fetch_sub(1, Relaxed);
            }
            Stage::Dialing => {
                connection.stage = Stage::Closing;
                self.ring.cancel_connect(file);
            }
            Stage::Open => {
                connection.stage = Stage::Closing;
                if connection.resets {
                    // TLS says no last word.
                    connection.tls = None;
                    self.ring.reset(file);
                }
                let is_secured = connection.tls.is_some();
                if connection.receiving || self.ring.is_sending(file) {
                    self.ring.cancel(file);
                }
                self.close_when_quiet(file);
                if is_secured {
                    // A last word leaves with what the turn sends, unless the connection is closed before.
                    self.touch(file);
                }
            }
        }
    }

    /// Closes a connection once what was put out for it is written.
    pub fn close_after_write(&mut self, file: u32) {
        self.timers.set(file, Instant::NEVER);
        self.connections[file as usize].close_after_write = true;
        self.touch(file);
    }

    /// Submits the close of a closing connection on which nothing is armed any more.
    fn close_when_quiet(&mut self, file: u32) {
        let connection = &mut self.connections[file as usize];
        let quiet = !connection.receiving && !self.ring.is_sending(file);
        if connection.stage == Stage::Closing && quiet && !connection.close_submitted {
            connection.close_submitted = true;
            self.ring.close(file);
        }
    }

    /// A connect has completed.
    pub fn connect_completed(&mut self, completion: &Completion) -> Notice {
        let file = completion.index;
        self.dialing -= 1;
        let connection = &mut self.connections[file as usize];
        if connection.stage == Stage::Closing {
            self.close_when_quiet(file);
            return Notice::None;
        }
        debug_assert_eq!(connection.stage, Stage::Dialing);
        if completion.result < 0 {
            connection.stage = Stage::Closing;
            self.close_when_quiet(file);
            return Notice::ConnectFailed(errno_to_link_error(-completion.result));
        }
        connection.stage = Stage::Open;
        connection.receiving = true;
        self.ring.receive(file);
        Notice::Connected
    }

    /// A receive has completed; its bytes, if any, were delivered.
    #[inline]
    pub fn receive_completed(&mut self, completion: &Completion) -> Notice {
        if completion.more {
            return Notice::None;
        }
        let file = completion.index;
        let connection = &mut self.connections[file as usize];
        connection.receiving = false;
        let exhausted = completion.result == -libc::ENOBUFS;
        self.buffers_exhausted += u64::from(exhausted);
        match connection.stage {
            Stage::Closing => {
                self.close_when_quiet(file);
                Notice::None
            }
            Stage::Open if completion.result != 0 && !is_broken(completion.result) && connection.sip.is_some() => {
                let bytes_per_s = connection.sip.map_or(1, |sip| sip.bytes_per_s);
                self.sipped.push((file, completion.result.max(0) as u32, bytes_per_s));
                Notice::None
            }
            // It was to be read slowly, and is no more.
            Stage::Open if completion.result > 0 || exhausted || completion.result == -libc::ECANCELED => {
                connection.receiving = true;
                self.rearms += u64::from(completion.result != -libc::ECANCELED);
                self.ring.receive(file);
                Notice::None
            }
            // Its owner has already parted with it.
            Stage::Open if completion.result < 0 && connection.close_after_write => {
                self.close(file);
                Notice::None
            }
            Stage::Open if completion.result == 0 => Notice::Closed(None),
            Stage::Open => Notice::Closed(Some(errno_to_link_error(-completion.result))),
            Stage::Free | Stage::Queued | Stage::Dialing => Notice::None,
        }
    }

    /// A write has completed that was not taken at once.
    pub fn send_completed(&mut self, completion: &Completion) -> Notice {
        let file = completion.index;
        let connection = &mut self.connections[file as usize];
        let sent = self.ring.sent(file, completion.result, connection.stage == Stage::Open);
        match (connection.stage, sent) {
            (_, Sent::Partly) => {
                self.short_writes += 1;
                Notice::None
            }
            (Stage::Closing, _) => {
                self.close_when_quiet(file);
                Notice::None
            }
            (Stage::Open, Sent::Failed(_)) if connection.close_after_write => {
                self.close(file);
                Notice::None
            }
            (Stage::Open, Sent::Failed(errno)) => Notice::Closed(Some(errno_to_link_error(errno))),
            (Stage::Open, Sent::Whole) => {
                if connection.out.is_some() || connection.tls.is_some() || connection.close_after_write {
                    self.touch(file);
                }
                Notice::Left
            }
            _ => Notice::None,
        }
    }

    /// A close has completed: the slot is free, or dialled anew.
    pub fn close_completed(&mut self, completion: &Completion) -> Notice {
        let file = completion.index;
        let connection = &mut self.connections[file as usize];
        let redial = connection.redial.take();
        let touched = connection.touched;
        *connection = Connection { touched, ..Connection::UNUSED };
        self.used.fetch_sub(1, Relaxed);
        match redial {
            None => Notice::Freed,
            Some(target) => {
                self.dial(file, target);
                Notice::None
            }
        }
    }

    /// After the turn's completions were handled: the writes of the last turn are out, so their memory is used again
    /// and connections that waited for them are closed.
    pub fn settle(&mut self) {
        self.ring.recycle();
        while let Some(file) = self.parting.pop() {
            if self.connections[file as usize].stage == Stage::Open && !self.ring.is_sending(file) {
                self.close(file);
            }
        }
    }

    /// How many connections have something for [`Connections::flush`] to look at, at most.
    #[inline]
    pub fn touched(&self) -> usize {
        self.touched.len()
    }

    /// At the end of the turn: hands everything that was put out to the ring and says for which connection, and how
    /// many octets; is told when they leave. `singly` gives each write to the kernel before the next is looked at; the
    /// last one goes with [`Ring::submit`], as all do otherwise.
    #[inline]
    pub fn flush(&mut self, singly: bool, mut leaving: impl FnMut(u32, usize) -> Instant) {
        let mut touched = std::mem::take(&mut self.touched);
        for file in touched.drain(..) {
            if singly {
                self.ring.hand_over();
            }
            let connection = &mut self.connections[file as usize];
            connection.touched = false;
            if connection.stage == Stage::Dialing {
                connection.heard = leaving(file, 0);
                continue;
            }
            if connection.tls.is_some() {
                self.flush_secured(file, &mut leaving);
                continue;
            }
            if connection.stage != Stage::Open || self.ring.is_sending(file) {
                continue;
            }
            if let Some(out) = connection.out.take().filter(|out| !out.is_empty()) {
                connection.heard = leaving(file, out.len());
                self.ring.send(file, out);
            }
            if connection.close_after_write && !self.ring.is_sending(file) {
                self.parting.push(file);
            }
        }
        self.touched = touched;
    }
}

impl Connections {
    /// Seals what was put out for a connection with TLS, if it has any, while the keys and the octets are still in the
    /// cache; the records leave with the turn.
    pub fn seal(&mut self, file: u32) {
        let connection = &mut self.connections[file as usize];
        if connection.stage == Stage::Open && !self.ring.is_sending(file) {
            let Some((records, _)) = connection.seal(&mut self.ring) else { return };
            match records.is_empty() {
                true => self.ring.keep(records),
                false => connection.records = Some(records),
            }
        }
    }

    /// As [`Connections::flush`], for one connection with TLS.
    fn flush_secured(&mut self, file: u32, leaving: &mut impl FnMut(u32, usize) -> Instant) {
        let connection = &mut self.connections[file as usize];
        let is_open = connection.stage == Stage::Open;
        let may_speak = is_open || connection.stage == Stage::Closing && !connection.close_submitted;
        if !may_speak || self.ring.is_sending(file) {
            return;
        }
        let is_last = !is_open || connection.close_after_write;
        let says_so = is_last && !connection.resets;
        let records = match connection.records.take_if(|_| connection.out.is_none() && !is_last) {
            Some(records) => records,
            None => {
                let Some((mut records, is_whole)) = connection.seal(&mut self.ring) else { return };
                if let Some(tls) = connection.tls.as_mut().filter(|_| says_so && (is_whole || !is_open)) {
                    tls.close();
                    tls.seal(None, &mut records);
                }
                records
            }
        };
        let octets = std::mem::take(&mut connection.leaving);
        if octets > 0 {
            connection.heard = leaving(file, octets);
        }
        match records.is_empty() {
            true => self.ring.keep(records),
            false => self.ring.send(file, records),
        }
        let connection = &mut self.connections[file as usize];
        if is_open && connection.close_after_write && !self.ring.is_sending(file) {
            self.parting.push(file);
        }
    }
}

impl Connection {
    /// Puts records of what is in hand behind those that wait; says whether all of it is in records now. `None` without
    /// TLS.
    fn seal(&mut self, ring: &mut Ring) -> Option<(Outgoing, bool)> {
        let tls = self.tls.as_mut()?;
        if let Some(plain) = &self.out {
            self.leaving += tls.news(plain);
        }
        let mut records = self.records.take().unwrap_or_else(|| ring.outgoing());
        let is_whole = tls.seal(self.out.as_ref(), &mut records);
        if let Some(whole) = self.out.take_if(|_| is_whole) {
            ring.keep(whole);
        }
        Some((records, is_whole))
    }
}

/// Whether the result of a receive says that nothing more will come.
fn is_broken(result: i32) -> bool {
    result < 0 && !matches!(-result, libc::ENOBUFS | libc::ECANCELED)
}

/// The kernel's error in the words of a job.
fn link_error(error: &io::Error) -> LinkError {
    errno_to_link_error(error.raw_os_error().unwrap_or(0))
}

fn errno_to_link_error(errno: i32) -> LinkError {
    match errno {
        libc::ECONNREFUSED => LinkError::Refused,
        libc::ECONNRESET | libc::EPIPE | libc::ECONNABORTED => LinkError::Reset,
        libc::EHOSTUNREACH | libc::ENETUNREACH | libc::ENETDOWN | libc::EHOSTDOWN => LinkError::Unreachable,
        libc::ETIMEDOUT => LinkError::TimedOut,
        libc::EADDRNOTAVAIL | libc::EADDRINUSE => LinkError::NoPorts,
        libc::EMFILE | libc::ENFILE => LinkError::NoDescriptors,
        libc::ENOMEM | libc::ENOBUFS => LinkError::NoMemory,
        errno => LinkError::Other(errno),
    }
}

#[cfg(test)]
mod tests {
    use std::io::Write as _;
    use std::net::TcpListener;
    use std::time::Duration;

    use super::super::ring::{Op, RingConfig};
    use super::*;

    /// One turn, in which no receive buffer is given back.
    fn turn(connections: &mut Connections) {
        connections.flush(false, |_, _| Instant::ZERO);
        if connections.ring().submit().unwrap() == 0 {
            connections.ring().wait(Duration::from_millis(10)).unwrap();
        }
        for at in 0..connections.ring().gather(Instant::ZERO) {
            let mut completion = connections.ring().completion(at);
            let _ = completion.take_buffer();
            match completion.op {
                Op::Connect => connections.connect_completed(&completion),
                Op::Receive => connections.receive_completed(&completion),
                Op::Send => connections.send_completed(&completion),
                op => panic!("{op:?}"),
            };
        }
        connections.settle();
    }

    #[test]
    fn what_a_steady_run_has_none_of_is_counted() {
        const TURNS_MAX: usize = 10_000;
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let ring = Ring::new(RingConfig { dialed_files: 1, accepted_files: 0, buffers: 16 }).unwrap();
        let mut connections = Connections::new(ring, 1, Arc::default());
        let target = connections.ring().target(listener.local_addr().unwrap(), &[]);
        connections.dial(0, target);
        assert_eq!(connections.dial_next(), Some((0, Ok(()))));
        turn(&mut connections);
        let (mut peer, _) = listener.accept().unwrap();
        peer.write_all(b"220\r\n").unwrap();
        (0..10).for_each(|_| turn(&mut connections));
        assert_eq!((connections.short_writes, connections.rearms, connections.buffers_exhausted), (0, 0, 0));
        // The peer reads nothing until the socket is full, and then no buffer comes back until none is left.
        let fill = (0..TURNS_MAX).find(|_| {
            connections.outgoing(0).bytes.extend_from_slice(&[b'x'; 8_192]);
            turn(&mut connections);
            connections.short_writes > 0
        });
        assert!(fill.is_some() && connections.short_writes == 1, "{}", connections.short_writes);
        let drain = (0..TURNS_MAX).find(|_| {
            peer.write_all(b"250\r\n").unwrap();
            turn(&mut connections);
            connections.rearms > 0
        });
        assert!(drain.is_some() && connections.rearms == connections.buffers_exhausted, "{}", connections.rearms);
    }
}
