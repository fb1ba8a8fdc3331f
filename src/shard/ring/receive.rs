//! Receiving, with and without the kernel's stamps.
//!
//! Connections that were dialled are measured, so each receive of theirs says when what it brings had arrived
//! (`SO_TIMESTAMPNS`, as control data of a multishot `recvmsg`). The buffer then holds a head of the ring's, the control
//! data, and the octets. The stamp is calendar time, taken when the kernel takes a segment from the network, and of a
//! stream that of the last segment that was read. Accepted connections are not measured by their arrivals: they receive
//! plainly, which saves their side of the machine the head and the control data.

use io_uring::types::{Fixed, RecvMsgOut};
use io_uring::{opcode, squeue};
use socket2::{Domain, Protocol, Socket, Type};

use super::{Completion, Op, Ring, switch_on};
use crate::time::WallTime;

/// Octets of the ring's own head, `struct io_uring_recvmsg_out`.
const OUT_BYTES: usize = 16;
/// Where the stamp begins in its control data: a `cmsghdr` is before it, whose size needs no padding.
const STAMP_AT: usize = size_of::<libc::cmsghdr>();
/// Octets of the control data: a `cmsghdr` and a `timespec`, both whole numbers of words.
const CONTROL_BYTES: usize = STAMP_AT + size_of::<libc::timespec>();
/// Octets that stand before what was received.
pub(super) const HEAD_BYTES: usize = OUT_BYTES + CONTROL_BYTES;

/// Octets that were received, where a receive of this result has a head; an error stays what it is.
#[inline]
pub(super) fn octets(result: i32) -> i32 {
    if result < 0 { result } else { (result - HEAD_BYTES as i32).max(0) }
}

/// Asks the kernel to stamp what arrives for a socket.
pub(super) fn stamp(socket: &Socket) -> std::io::Result<()> {
    switch_on(socket, libc::SOL_SOCKET, libc::SO_TIMESTAMPNS)
}

/// A socket that is never used and asks for stamps. The kernel stamps nothing on the whole machine while nobody asks, and
/// begins and ends it by patching itself, with all CPUs stopped. So that a connection a message does not make it do so a
/// message, somebody asks as long as there is a ring that dials. Without the socket all goes well, a little slower.
pub(super) fn keep_stamping(dialed_files: u32) -> Option<Socket> {
    let socket = Socket::new(Domain::IPV4, Type::STREAM, Some(Protocol::TCP)).ok().filter(|_| dialed_files > 0)?;
    stamp(&socket).ok().map(|()| socket)
}

/// What the kernel is told of the head that it puts before each receive.
#[derive(Debug)]
pub(super) struct Head(libc::msghdr);

impl Default for Head {
    fn default() -> Head {
        // SAFETY: all fields of a msghdr are integers and pointers, for which zero is a value: no name, no vector, no
        // control data.
        let mut header: libc::msghdr = unsafe { std::mem::zeroed() };
        header.msg_controllen = CONTROL_BYTES as _;
        Head(header)
    }
}

impl Head {
    /// What stands behind the head of a receive, and its stamp.
    #[inline]
    pub(super) fn read<'a>(&self, buffer: &'a [u8]) -> (&'a [u8], Option<WallTime>) {
        let octets = buffer.get(HEAD_BYTES..).unwrap_or_default();
        (octets, RecvMsgOut::parse(buffer, &self.0).ok().and_then(|out| stamp_of(out.control_data())))
    }
}

/// The stamp in control data, if that is what it is.
#[inline]
fn stamp_of(control: &[u8]) -> Option<WallTime> {
    let at = std::mem::offset_of!(libc::cmsghdr, cmsg_level);
    let level = i32::from_ne_bytes(*control.get(at..)?.first_chunk()?);
    let at = std::mem::offset_of!(libc::cmsghdr, cmsg_type);
    let kind = i32::from_ne_bytes(*control.get(at..)?.first_chunk()?);
    if (level, kind) != (libc::SOL_SOCKET, libc::SCM_TIMESTAMPNS) {
        return None;
    }
    let seconds = libc::time_t::from_ne_bytes(*control.get(STAMP_AT..)?.first_chunk()?);
    let at = STAMP_AT + std::mem::offset_of!(libc::timespec, tv_nsec);
    let ns = libc::c_long::from_ne_bytes(*control.get(at..)?.first_chunk()?);
    let (seconds, ns) = (u64::try_from(seconds).ok()?, u64::try_from(ns).ok()?);
    Some(WallTime::from_unix_ns(seconds.checked_mul(1_000_000_000)?.checked_add(ns)?))
}

impl Completion {
    /// Whether the kernel was asked for the time at which this arrived.
    #[inline]
    pub fn is_stamped(&self) -> bool {
        self.stamped
    }
}

impl Ring {
    /// Receives from a connection until it ends; completes as [`Op::Receive`] while [`Completion::more`] says so.
    pub fn receive(&mut self, file: u32) {
        let entry = match file < self.dialed_files {
            // The header stays in place as long as the buffers, which outlive every operation of the kernel.
            true => opcode::RecvMsgMulti::new(Fixed(file), &raw const self.buffers.head.0, 0).build(),
            false => opcode::RecvMulti::new(Fixed(file), 0).build(),
        };
        self.push(&entry.user_data(Op::Receive.token(file)));
    }

    /// Receives once from an accepted connection, at most so many octets; completes as [`Op::Receive`].
    pub fn receive_once(&mut self, file: u32, octets: u32) {
        debug_assert!(file >= self.dialed_files);
        // The memory is that of the buffers, of which the kernel chooses one.
        let entry = opcode::Recv::new(Fixed(file), std::ptr::null_mut(), octets).buf_group(0).build();
        self.push(&entry.flags(squeue::Flags::BUFFER_SELECT).user_data(Op::Receive.token(file)));
    }

    /// Ends the receive that is armed on a connection; it completes.
    pub fn cancel_receive(&mut self, file: u32) {
        let entry = opcode::AsyncCancel::new(Op::Receive.token(file)).build();
        self.push(&entry.user_data(Op::Ignored.token(file)).flags(squeue::Flags::SKIP_SUCCESS));
    }
}

#[cfg(test)]
mod tests {
    use std::io::Write as _;
    use std::net::TcpListener;
    use std::time::Duration;

    use super::super::RingConfig;
    use super::*;
    use crate::shard::clock::wall_now;
    use crate::time::Instant;

    /// The next completions, within a bounded time.
    fn next(ring: &mut Ring) -> Vec<Completion> {
        for _ in 0..100 {
            // The submit gives the kernel the buffers back.
            if ring.submit().unwrap() == 0 {
                ring.wait(Duration::from_millis(100)).unwrap();
            }
            let count = ring.gather(Instant::ZERO);
            if count > 0 {
                return (0..count).map(|at| ring.completion(at)).collect();
            }
        }
        panic!("nothing completed within ten seconds");
    }

    #[test]
    fn what_a_dialled_connection_receives_bears_the_time_at_which_it_arrived() {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let mut ring = Ring::new(RingConfig { dialed_files: 1, accepted_files: 0, buffers: 16 }).unwrap();
        let target = ring.target(listener.local_addr().unwrap(), &[]);
        ring.connect(0, target).unwrap();
        assert_eq!(next(&mut ring)[0].op, Op::Connect);
        ring.receive(0);
        let (mut peer, _) = listener.accept().unwrap();
        let mut stamped = 0;
        // The kernel begins to stamp soon after it was asked to, and not at once.
        for piece in [&[b'x'; 5_000][..], b"250 ok\r\n"].iter().cycle().take(10_000) {
            let begun = wall_now();
            peer.write_all(piece).unwrap();
            let mut received = Vec::new();
            while received.len() < piece.len() {
                for mut completion in next(&mut ring) {
                    assert!(completion.is_stamped() && completion.more);
                    let (buffer, buffers) = (completion.take_buffer().unwrap(), ring.buffers());
                    let (octets, stamp) = buffers.received(&buffer, &completion);
                    received.extend_from_slice(octets);
                    if let Some(stamp) = stamp {
                        assert!((begun..=wall_now()).contains(&stamp), "{begun:?} {stamp:?}");
                        stamped += 1;
                    }
                    buffers.give_back(buffer);
                }
            }
            assert_eq!(received, *piece);
            if stamped > 4 {
                return;
            }
        }
        panic!("the kernel does not stamp");
    }

    #[test]
    fn control_data_that_is_no_stamp_says_no_time() {
        let mut control = vec![0; CONTROL_BYTES];
        assert_eq!(stamp_of(&control), None);
        control[8..12].copy_from_slice(&libc::SOL_SOCKET.to_ne_bytes());
        control[12..16].copy_from_slice(&libc::SCM_TIMESTAMPNS.to_ne_bytes());
        control[16..24].copy_from_slice(&3i64.to_ne_bytes());
        control[24..].copy_from_slice(&7i64.to_ne_bytes());
        assert_eq!(stamp_of(&control), Some(WallTime::from_unix_ns(3_000_000_007)));
        assert_eq!(stamp_of(&control[..31]), None);
        control[16..24].copy_from_slice(&(-1i64).to_ne_bytes());
        assert_eq!(stamp_of(&control), None);
        assert_eq!(stamp_of(&[]), None);
    }

    #[test]
    fn the_head_is_no_part_of_what_a_receive_has_brought() {
        assert_eq!([octets(-11), octets(0), octets(48), octets(50)], [-11, 0, 0, 2]);
    }
}
