//! The shard's own io_uring, and all of the project's unsafe code.
//!
//! The ring owns whatever the kernel may still look at: the receive buffers, the bytes being sent, the addresses being
//! connected to. Its callers deal in file slots (the ring's table of direct descriptors) and never in pointers.
//!
//! *Sending.* A small write goes out with `MSG_DONTWAIT | MSG_WAITALL` and `IOSQE_CQE_SKIP_SUCCESS`: either the kernel
//! copies all of it while it takes the submission, and says nothing, or it posts a completion with what it took, and
//! the rest is sent with a completion. Either way the kernel holds no pointer to a write for which, once the
//! completions of its `enter` were drained, no completion is awaited; that is when its bytes are used again.

mod accept;
mod buffers;
mod receive;
mod send;

use std::io;
use std::net::{IpAddr, SocketAddr};
use std::os::fd::{AsFd, AsRawFd};
use std::rc::Rc;
use std::time::Duration;

use io_uring::types::{CancelBuilder, Fd, Fixed, SubmitArgs, Timespec};
use io_uring::{IoUring, cqueue, opcode, squeue};
use socket2::{Domain, Protocol, SockAddr, Socket, Type};

use crate::outgoing::Outgoing;
use crate::time::Instant;
use accept::PeerRoom;
pub use buffers::{BUFFER_BYTES, BUFFERS_MAX, BufferId, Buffers};
use send::InFlight;

/// Entries of the submission queue: when it is full it is submitted in mid-turn.
const SUBMISSIONS: u32 = 2_048;
/// Entries of the completion queue. When it overflows the kernel keeps the rest for the next turn.
const COMPLETIONS: u32 = 16_384;

/// `IORING_ENTER_GETEVENTS`: deferred work is done only in a call that asks for events.
const IORING_ENTER_GETEVENTS: u32 = 1;
/// Pieces of deferred work that the kernel does in a call that waits for none (since Linux 6.2; before, all of it).
const TASK_WORK_MAX: usize = 20;
/// Most calls of one submit, so that a turn ends.
const ROUNDS_MAX: usize = 64;

/// How a ring is made.
#[derive(Clone, Copy, Debug)]
pub struct RingConfig {
    /// File slots that the caller numbers himself: outgoing connections.
    pub dialed_files: u32,
    /// File slots behind those, which the kernel gives to accepted connections.
    pub accepted_files: u32,
    /// Receive buffers: a power of two, at most [`BUFFERS_MAX`].
    pub buffers: u16,
}

/// What a completion is about.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Op {
    /// Bytes, or the end of them.
    Receive,
    /// A write that could not be taken at once.
    Send,
    /// A connection was opened, or not.
    Connect,
    /// A listener has a new connection.
    Accept,
    /// A file slot is free again.
    Close,
    /// The mailbox has something.
    Wake,
    /// Something whose failure changes nothing.
    Ignored,
}

impl Op {
    const fn token(self, index: u32) -> u64 {
        ((self as u64) << 32) | index as u64
    }
}

/// One completion of a turn.
#[derive(Debug)]
pub struct Completion {
    /// What it is about.
    pub op: Op,
    /// The file slot, or the listener's number.
    pub index: u32,
    /// As the kernel gives it: a count, a file slot, or an error number below zero.
    pub result: i32,
    /// Whether the operation goes on and will complete again.
    pub more: bool,
    /// By when it had happened: the turn's clock. What a dialled connection received has a stamp of its own, see
    /// [`Buffers::received`].
    pub arrived: Instant,
    buffer: Option<u16>,
    /// What was received stands behind a head and the kernel's stamp.
    stamped: bool,
}

impl Completion {
    fn new(entry: &cqueue::Entry, arrived: Instant, dialed_files: u32) -> Completion {
        const OPS: [Op; 7] = [Op::Receive, Op::Send, Op::Connect, Op::Accept, Op::Close, Op::Wake, Op::Ignored];
        let token = entry.user_data();
        let (flags, index) = (entry.flags(), token as u32);
        let op = OPS[((token >> 32) as usize).min(OPS.len() - 1)];
        let (more, buffer) = (cqueue::more(flags), cqueue::buffer_select(flags));
        let stamped = op == Op::Receive && index < dialed_files;
        let result = if stamped { receive::octets(entry.result()) } else { entry.result() };
        Completion { op, index, result, more, arrived, buffer, stamped }
    }

    /// The buffer that the kernel chose for what it received; it must be given back.
    #[inline]
    pub fn take_buffer(&mut self) -> Option<BufferId> {
        self.buffer.take().map(BufferId::new)
    }
}

/// What became of a write that asked for a completion.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Sent {
    /// All of it went out.
    Whole,
    /// The rest is on its way.
    Partly,
    /// The connection is broken, by this error number.
    Failed(i32),
}

/// The ring of one shard. Made on the shard's thread and used by it alone (`IORING_SETUP_SINGLE_ISSUER`).
pub struct Ring {
    uring: IoUring,
    buffers: Rc<Buffers>,
    dialed_files: u32,
    /// See [`receive::keep_stamping`].
    _stamping: Option<Socket>,
    in_flight: Vec<InFlight>,
    /// File slots whose last write asked for no completion, since the last `enter`.
    unconfirmed: Vec<u32>,
    spare: Vec<Outgoing>,
    targets: Vec<Target>,
    /// By listener; boxed, because the kernel may write to it while the list grows.
    peers: Vec<Option<Box<PeerRoom>>>,
    batch: Vec<cqueue::Entry>,
    gathered: Instant,
}

/// Where connections go.
struct Target {
    /// Boxed, because the kernel may read it while the list grows.
    address: Box<SockAddr>,
    /// Where they come from, in turns; empty leaves it to the kernel.
    sources: Vec<SockAddr>,
    /// How many sources were used.
    turns: usize,
    /// How congestion is controlled; `None` leaves it to the kernel.
    congestion: Option<String>,
}

impl Ring {
    /// Sets the ring up on the calling thread.
    pub fn new(config: RingConfig) -> io::Result<Ring> {
        Ring::with_queues(config, SUBMISSIONS, COMPLETIONS)
    }

    /// Makes the smallest ring that has every part of a shard's ring, and drops it: the error is the one that a shard
    /// would meet. Small, because the kernel counts the memory of a closed ring for some 50 ms more, and the shards
    /// that start meanwhile may need all that the limit allows.
    pub fn try_out() -> io::Result<()> {
        Ring::with_queues(RingConfig { dialed_files: 1, accepted_files: 1, buffers: 1 }, 8, 16).map(drop)
    }

    fn with_queues(config: RingConfig, submissions: u32, completions: u32) -> io::Result<Ring> {
        let uring = IoUring::builder()
            .setup_single_issuer()
            .setup_defer_taskrun()
            .setup_coop_taskrun()
            .setup_cqsize(completions)
            .build(submissions)?;
        let files = config.dialed_files + config.accepted_files;
        uring.submitter().register_files_sparse(files)?;
        let buffers = Rc::new(Buffers::register(&uring, config.buffers)?);
        let mut ring = Ring {
            uring,
            buffers,
            dialed_files: config.dialed_files,
            _stamping: receive::keep_stamping(config.dialed_files),
            in_flight: Vec::new(),
            unconfirmed: Vec::new(),
            spare: Vec::new(),
            targets: Vec::new(),
            peers: Vec::new(),
            batch: Vec::with_capacity(completions as usize),
            gathered: Instant::ZERO,
        };
        ring.in_flight.resize_with(files as usize, InFlight::default);
        if config.accepted_files > 0 {
            ring.limit_accepted(config.dialed_files, config.accepted_files)?;
        }
        Ok(ring)
    }

    /// Keeps accepted connections out of the slots that the caller numbers (`IORING_REGISTER_FILE_ALLOC_RANGE`).
    fn limit_accepted(&self, first: u32, count: u32) -> io::Result<()> {
        const IORING_REGISTER_FILE_ALLOC_RANGE: libc::c_ulong = 25;
        #[repr(C)]
        struct FileIndexRange {
            off: u32,
            len: u32,
            resv: u64,
        }
        let range = FileIndexRange { off: first, len: count, resv: 0 };
        // SAFETY: the kernel reads one `io_uring_file_index_range`, which `range` is, during the call.
        let result = unsafe {
            let fd = self.uring.as_raw_fd();
            libc::syscall(libc::SYS_io_uring_register, fd, IORING_REGISTER_FILE_ALLOC_RANGE, &raw const range, 0)
        };
        if result < 0 { Err(io::Error::last_os_error()) } else { Ok(()) }
    }

    /// Submits everything that was asked for and takes up what has arrived meanwhile, without waiting; returns how many
    /// completions there are.
    pub fn submit(&mut self) -> io::Result<usize> {
        self.buffers.publish();
        let mut there = 0;
        for _ in 0..ROUNDS_MAX {
            let submissions = self.uring.submission().len() as u32;
            // SAFETY: no argument is passed. Submitted entries are those of `push`, whose pointers stay valid.
            let result =
                unsafe { self.uring.submitter().enter::<libc::sigset_t>(submissions, 0, IORING_ENTER_GETEVENTS, None) };
            tolerate(result)?;
            let before = std::mem::replace(&mut there, self.uring.completion().len());
            // The kernel does this much deferred work a call: with less, nothing is left.
            if there - before < TASK_WORK_MAX {
                break;
            }
        }
        Ok(there)
    }

    /// Waits until something completes or `timeout` is over.
    pub fn wait(&mut self, timeout: Duration) -> io::Result<()> {
        let timeout = Timespec::new().sec(timeout.as_secs()).nsec(timeout.subsec_nanos());
        tolerate(self.uring.submitter().submit_with_args(1, &SubmitArgs::new().timespec(&timeout)))
    }

    /// Moves the completions that have come by `now` into the turn's batch; returns how many there are.
    pub fn gather(&mut self, now: Instant) -> usize {
        self.gathered = now;
        self.batch.clear();
        self.batch.extend(self.uring.completion());
        self.batch.len()
    }

    /// Completion `at` of the batch.
    #[inline]
    pub fn completion(&self, at: usize) -> Completion {
        Completion::new(&self.batch[at], self.gathered, self.dialed_files)
    }

    /// The receive buffers, so that what arrived can be read while the ring is given new work.
    pub fn buffers(&self) -> Rc<Buffers> {
        Rc::clone(&self.buffers)
    }

    #[inline]
    fn push(&mut self, entry: &squeue::Entry) {
        loop {
            // SAFETY: every caller is a method of this type, and all that its entry points to is owned by `self` and
            // stays in place until its completion was seen (see the module's documentation for silent sends).
            if unsafe { self.uring.submission().push(entry) }.is_ok() {
                return;
            }
            // Full: let the kernel take what is there. A failure leaves the queue full and shows at the next `wait`.
            let _ = self.uring.submit();
        }
    }

    /// Makes an address known that connections will be opened to, and from which of this machine's addresses: they
    /// take turns, and of none the kernel chooses. The target's number stays valid as long as the ring lives.
    pub fn target(&mut self, address: SocketAddr, sources: &[IpAddr]) -> usize {
        let address = Box::new(SockAddr::from(address));
        self.targets.push(Target { address, sources: socket_addresses(sources), turns: 0, congestion: None });
        self.targets.len() - 1
    }

    /// Puts another target in the place of one to which no connection will be opened any more.
    pub fn retarget(&mut self, target: usize, address: SocketAddr, sources: &[IpAddr]) {
        let target = &mut self.targets[target];
        // The box stays: the kernel may not yet have read the address of a connect that was cancelled.
        *target.address = SockAddr::from(address);
        (target.sources, target.turns, target.congestion) = (socket_addresses(sources), 0, None);
    }

    /// Says how the kernel is to control congestion on the connections to a target (`TCP_CONGESTION`); `None` leaves it to
    /// the kernel.
    pub fn control_congestion(&mut self, target: usize, name: Option<String>) {
        self.targets[target].congestion = name;
    }

    /// Opens a connection to a known target in an empty file slot; completes as [`Op::Connect`].
    pub fn connect(&mut self, file: u32, target: usize) -> io::Result<()> {
        let target = &mut self.targets[target];
        let family = target.address.family();
        let socket = Socket::new(Domain::from(i32::from(family)), Type::STREAM, Some(Protocol::TCP))?;
        // Nagle's algorithm would hold back the last segment of a large message until the one before was acknowledged.
        socket.set_tcp_nodelay(true)?;
        // A kernel that will not stamp leaves it to the turn's clock.
        let _ = receive::stamp(&socket);
        if let Some(name) = &target.congestion {
            socket.set_tcp_congestion(name.as_bytes())?;
        }
        if !target.sources.is_empty() {
            // One that can no longer be bound must not hold up the others.
            let turn = target.turns % target.sources.len();
            target.turns += 1;
            leave_port_to_connect(&socket)?;
            socket.bind(&target.sources[turn])?;
        }
        self.uring.submitter().register_files_update(file, &[socket.as_raw_fd()])?;
        drop(socket);
        let address = &target.address;
        let entry = opcode::Connect::new(Fixed(file), address.as_ptr().cast(), address.len()).build();
        self.push(&entry.user_data(Op::Connect.token(file)));
        Ok(())
    }

    /// Gives up a connection that is being opened; [`Op::Connect`] completes with an error.
    pub fn cancel_connect(&mut self, file: u32) {
        let entry = opcode::AsyncCancel::new(Op::Connect.token(file)).build();
        self.push(&entry.user_data(Op::Ignored.token(file)).flags(squeue::Flags::SKIP_SUCCESS));
    }

    /// Leaves the kernel little room for what a peer sends on an open connection, so that it sees a small window. Where the
    /// kernel knows no such request (before Linux 6.7) the window stays as it is.
    pub fn shrink_window(&mut self, file: u32) {
        // The kernel doubles it.
        static BYTES: libc::c_int = 4 << 10;
        let (value, length) = ((&raw const BYTES).cast(), size_of_val(&BYTES) as u32);
        let (level, name) = (libc::SOL_SOCKET as u32, libc::SO_RCVBUF as u32);
        let entry = opcode::SetSockOpt::new(Fixed(file), level, name, value, length).build();
        self.push(&entry.user_data(Op::Ignored.token(file)).flags(squeue::Flags::SKIP_SUCCESS));
    }

    /// Resets an open connection (RFC 9293 §3.5.2): whatever has not left is forgotten, and the peer is told so by a RST. The
    /// file slot is as it was, and has to be closed.
    ///
    /// A connect to no address is what the kernel takes for it, and it does so at once.
    pub fn reset(&mut self, file: u32) {
        /// Of the family `AF_UNSPEC`, which is 0.
        static NO_ADDRESS: [u64; 2] = [0; 2];
        let entry = opcode::Connect::new(Fixed(file), (&raw const NO_ADDRESS).cast(), size_of_val(&NO_ADDRESS) as u32);
        self.push(&entry.build().user_data(Op::Ignored.token(file)).flags(squeue::Flags::SKIP_SUCCESS));
    }

    /// Says whenever the mailbox's eventfd becomes readable; completes as [`Op::Wake`].
    pub fn watch(&mut self, eventfd: &impl AsFd) {
        let eventfd = Fd(eventfd.as_fd().as_raw_fd());
        let entry = opcode::PollAdd::new(eventfd, libc::POLLIN as u32).multi(true).build();
        self.push(&entry.user_data(Op::Wake.token(0)));
    }

    /// Ends what is armed on a connection; each of it completes.
    ///
    /// A shutdown would do so too, but the kernel carries it out on a thread of its own, and looks the file slot up only
    /// then: it could strike the slot's next connection.
    pub fn cancel(&mut self, file: u32) {
        for op in [Op::Receive, Op::Send] {
            let entry = opcode::AsyncCancel::new(op.token(file)).build();
            self.push(&entry.user_data(Op::Ignored.token(file)).flags(squeue::Flags::SKIP_SUCCESS));
        }
    }

    /// Frees a file slot on which nothing is armed any more; completes as [`Op::Close`].
    pub fn close(&mut self, file: u32) {
        debug_assert!(!self.is_sending(file));
        self.push(&opcode::Close::new(Fixed(file)).build().user_data(Op::Close.token(file)));
    }

    /// An empty write, with the memory of an earlier one if there is any.
    #[inline]
    pub fn outgoing(&mut self) -> Outgoing {
        self.spare.pop().unwrap_or_default()
    }
}

fn socket_addresses(addresses: &[IpAddr]) -> Vec<SockAddr> {
    addresses.iter().map(|&address| SockAddr::from(SocketAddr::new(address, 0))).collect()
}

/// Lets `bind` choose the address alone (`IP_BIND_ADDRESS_NO_PORT`): a port chosen there would have to differ from those
/// towards all other targets too. The option belongs to IP and holds for IPv6 as well.
fn leave_port_to_connect(socket: &Socket) -> io::Result<()> {
    switch_on(socket, libc::IPPROTO_IP, libc::IP_BIND_ADDRESS_NO_PORT)
}

/// Switches an option of a socket on that is a whole number of C.
fn switch_on(socket: &Socket, level: libc::c_int, option: libc::c_int) -> io::Result<()> {
    let on: libc::c_int = 1;
    // SAFETY: the kernel reads one `c_int`, which `on` is, during the call.
    let result = unsafe {
        let (value, length) = ((&raw const on).cast(), size_of_val(&on) as libc::socklen_t);
        libc::setsockopt(socket.as_raw_fd(), level, option, value, length)
    };
    if result < 0 { Err(io::Error::last_os_error()) } else { Ok(()) }
}

/// Passes over what is no error of the ring: time is over; a signal came; the completion queue is full, which draining
/// it mends.
fn tolerate(result: io::Result<usize>) -> io::Result<()> {
    match result.map_err(|error| (error.raw_os_error(), error)) {
        Ok(_) | Err((Some(libc::ETIME | libc::EINTR | libc::EBUSY), _)) => Ok(()),
        Err((_, error)) => Err(error),
    }
}

impl Drop for Ring {
    fn drop(&mut self) {
        // The kernel ends operations only some time after the ring's descriptor is closed, and until then it may write
        // to our buffers. So everything is cancelled while they are still there. A kernel that could not do it within
        // the time keeps the memory instead.
        let limit = Timespec::new().sec(5);
        let cancelled = self.uring.submitter().register_sync_cancel(Some(limit), CancelBuilder::any());
        if cancelled.is_err_and(|error| error.raw_os_error() != Some(libc::ENOENT)) {
            std::mem::forget(Rc::clone(&self.buffers));
            std::mem::forget(std::mem::take(&mut self.in_flight));
            std::mem::forget(std::mem::take(&mut self.peers));
        }
        // What was cancelled lets go of its sockets only in deferred work. A listener that were left to the kernel's own
        // end of the ring would keep its port for some time after the process.
        let _ = self.submit();
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::io::{Read, Write};
    use std::net::{TcpListener, TcpStream};

    const SMALL: RingConfig = RingConfig { dialed_files: 4, accepted_files: 4, buffers: 16 };

    fn connected() -> (Ring, TcpStream) {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let mut ring = Ring::new(SMALL).unwrap();
        let target = ring.target(listener.local_addr().unwrap(), &[]);
        ring.connect(0, target).unwrap();
        let (peer, _) = listener.accept_within(&mut ring);
        (ring, peer)
    }

    trait AcceptWithin {
        fn accept_within(&self, ring: &mut Ring) -> (TcpStream, SocketAddr);
    }

    impl AcceptWithin for TcpListener {
        fn accept_within(&self, ring: &mut Ring) -> (TcpStream, SocketAddr) {
            assert_eq!(next(ring).op, Op::Connect);
            self.accept().unwrap()
        }
    }

    /// The next completion, within a bounded time.
    fn next(ring: &mut Ring) -> Completion {
        for _ in 0..100 {
            if ring.submit().unwrap() == 0 {
                ring.wait(Duration::from_millis(100)).unwrap();
            }
            let count = ring.gather(Instant::ZERO);
            ring.recycle();
            if count > 0 {
                assert_eq!(count, 1);
                return ring.completion(0);
            }
        }
        panic!("nothing completed within ten seconds");
    }

    fn write_of(bytes: &[u8]) -> Outgoing {
        let mut out = Outgoing::new();
        out.push(bytes);
        out
    }

    #[test]
    fn a_ring_can_be_tried_out_before_it_is_needed() {
        Ring::try_out().unwrap();
    }

    #[test]
    fn a_small_write_leaves_without_a_completion_and_its_memory_comes_back() {
        let (mut ring, mut peer) = connected();
        ring.send(0, write_of(b"hello"));
        assert!(!ring.is_sending(0));
        ring.submit().unwrap();
        assert_eq!(ring.gather(Instant::ZERO), 0);
        ring.recycle();
        assert!(ring.outgoing().bytes.capacity() >= 5);
        let mut read = [0; 5];
        peer.read_exact(&mut read).unwrap();
        assert_eq!(&read, b"hello");
    }

    #[test]
    fn a_write_larger_than_the_sockets_buffer_arrives_whole_and_in_order() {
        for shared in [false, true] {
            let (mut ring, mut peer) = connected();
            let body: Vec<u8> = (0..20_000_000u32).map(|i| (i * 7 % 251) as u8).collect();
            let mut out = write_of(b"head");
            match shared {
                true => out.push_shared(body.clone().into()),
                false => out.push(&body),
            }
            out.push(b"tail");
            ring.send(0, out);
            assert!(ring.is_sending(0));
            let reader = std::thread::spawn(move || {
                let mut all = Vec::new();
                peer.read_to_end(&mut all).unwrap();
                all
            });
            while {
                let completion = next(&mut ring);
                assert_eq!(completion.op, Op::Send);
                ring.sent(0, completion.result, true) != Sent::Whole
            } {}
            ring.close(0);
            assert_eq!(next(&mut ring).op, Op::Close);
            let all = reader.join().unwrap();
            assert!(all == [b"head", body.as_slice(), b"tail"].concat(), "shared: {shared}, {} octets", all.len());
        }
    }

    #[test]
    fn a_small_write_into_a_full_socket_is_finished_with_a_completion() {
        let (mut ring, mut peer) = connected();
        let mut sent = 0;
        // Fill the socket with small writes until one is not taken at once.
        let piece = [b'x'; 8_192];
        let completion = loop {
            ring.send(0, write_of(&piece));
            sent += piece.len();
            ring.submit().unwrap();
            let count = ring.gather(Instant::ZERO);
            if count > 0 {
                break ring.completion(0);
            }
            ring.recycle();
            assert!(sent < 1 << 30, "the socket takes everything");
        };
        assert_eq!(completion.op, Op::Send);
        assert_eq!(ring.sent(0, completion.result, true), Sent::Partly);
        ring.recycle();
        assert!(ring.is_sending(0));
        let reader = std::thread::spawn(move || {
            let mut all = vec![0; sent];
            peer.read_exact(&mut all).unwrap();
            all
        });
        let completion = next(&mut ring);
        assert_eq!((completion.op, ring.sent(0, completion.result, true)), (Op::Send, Sent::Whole));
        assert!(reader.join().unwrap().iter().all(|&b| b == b'x'));
    }

    #[test]
    fn a_large_write_that_is_cancelled_in_the_middle_lets_the_slot_be_closed() {
        let (mut ring, peer) = connected();
        ring.send(0, write_of(&vec![b'x'; 20_000_000]));
        ring.submit().unwrap();
        // The peer reads nothing, so the kernel has taken a part and waits.
        ring.cancel(0);
        // Beside it comes the word that no receive was there to be cancelled.
        let mut completions = Vec::new();
        while !completions.iter().any(|completion: &Completion| completion.op == Op::Send) {
            assert!(completions.len() < 3, "{completions:?}");
            ring.wait(Duration::from_secs(10)).unwrap();
            let count = ring.gather(Instant::ZERO);
            completions.extend((0..count).map(|at| ring.completion(at)));
        }
        let completion = completions.iter().find(|completion| completion.op == Op::Send).unwrap();
        assert!(completion.result > 0, "what had been taken by then");
        assert_eq!(ring.sent(0, completion.result, false), Sent::Failed(libc::ECANCELED));
        assert!(!ring.is_sending(0));
        ring.close(0);
        assert_eq!(next(&mut ring).op, Op::Close);
        drop(peer);
    }

    #[test]
    fn all_that_has_arrived_is_taken_up_by_one_submit() {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let mut ring = Ring::new(RingConfig { dialed_files: 100, accepted_files: 0, buffers: 128 }).unwrap();
        let target = ring.target(listener.local_addr().unwrap(), &[]);
        let mut peers = Vec::new();
        for file in 0..100 {
            ring.connect(file, target).unwrap();
            assert_eq!(next(&mut ring).op, Op::Connect);
            peers.push(listener.accept().unwrap().0);
            ring.receive(file);
        }
        ring.submit().unwrap();
        assert_eq!(ring.gather(Instant::ZERO), 0);
        peers.iter_mut().for_each(|peer| peer.write_all(b"250 ok\r\n").unwrap());
        assert_eq!(ring.submit().unwrap(), 100);
    }

    #[test]
    fn receiving_goes_on_until_the_peer_closes() {
        let (mut ring, mut peer) = connected();
        ring.receive(0);
        peer.write_all(b"one").unwrap();
        let mut completion = next(&mut ring);
        let buffer = completion.take_buffer().unwrap();
        assert_eq!(ring.buffers().received(&buffer, &completion).0, b"one");
        assert!(completion.more && completion.is_stamped());
        ring.buffers().give_back(buffer);
        drop(peer);
        let mut completion = next(&mut ring);
        assert_eq!((completion.op, completion.result, completion.more), (Op::Receive, 0, false));
        assert!(completion.take_buffer().is_some(), "the end of a stream takes a buffer, for its head");
    }

    #[test]
    fn connections_take_turns_over_the_source_addresses() {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let mut ring = Ring::new(SMALL).unwrap();
        let sources = ["127.0.0.2", "127.0.0.3"].map(|source| source.parse().unwrap());
        let target = ring.target(listener.local_addr().unwrap(), &sources);
        let came_from = |ring: &mut Ring, file| {
            ring.connect(file, target).unwrap();
            listener.accept_within(ring).1.ip()
        };
        assert_eq!([0, 1, 2].map(|file| came_from(&mut ring, file)), [sources[0], sources[1], sources[0]]);
        // What is not an address of this machine fails alone.
        let sources = ["192.0.2.1", "127.0.0.4"].map(|source| source.parse().unwrap());
        ring.retarget(target, listener.local_addr().unwrap(), &sources);
        assert_eq!(ring.connect(3, target).unwrap_err().raw_os_error(), Some(libc::EADDRNOTAVAIL));
        assert_eq!(came_from(&mut ring, 3), sources[1]);
        ring.close(3);
        assert_eq!(next(&mut ring).op, Op::Close);
        ring.retarget(target, listener.local_addr().unwrap(), &[]);
        assert_eq!(came_from(&mut ring, 3), listener.local_addr().unwrap().ip());
    }

    #[test]
    fn a_refused_connection_completes_with_its_error() {
        let unused = TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap();
        let mut ring = Ring::new(SMALL).unwrap();
        let target = ring.target(unused, &[]);
        ring.connect(3, target).unwrap();
        let completion = next(&mut ring);
        assert_eq!((completion.op, completion.index, completion.result), (Op::Connect, 3, -libc::ECONNREFUSED));
    }
}
