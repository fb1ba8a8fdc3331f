//! Bytes that the kernel is taking.

use io_uring::types::Fixed;
use io_uring::{opcode, squeue};

use super::{Op, Ring, Sent};
use crate::outgoing::Outgoing;

/// Writes up to this size are expected to fit into the socket's buffer and ask for no completion.
const SILENT_BYTES_MAX: usize = 16 * 1_024;
/// Writes of more capacity than this are not kept for another use.
const SPARE_BYTES_MAX: usize = 64 * 1_024;
/// Most writes that are kept for another use.
const SPARE_MAX: usize = 1_024;

/// What is being sent from one file slot.
#[derive(Debug, Default)]
pub(super) struct InFlight {
    out: Option<Outgoing>,
    /// Octets of it that the kernel has taken.
    taken: usize,
    /// A completion will come for it.
    awaited: bool,
    scatter: Option<Box<Scatter>>,
}

/// The header and vector of a scatter-gather write, in memory that stays in place while the kernel reads it.
#[derive(Debug)]
pub(super) struct Scatter {
    header: libc::msghdr,
    vector: [libc::iovec; 3],
}

impl Scatter {
    /// Describes what is left of `out` once `taken` octets are gone.
    fn describe(&mut self, out: &Outgoing, mut taken: usize) {
        for (slot, segment) in self.vector.iter_mut().zip(out.segments()) {
            let skipped = taken.min(segment.len());
            taken -= skipped;
            let rest = &segment[skipped..];
            *slot = libc::iovec { iov_base: rest.as_ptr().cast_mut().cast(), iov_len: rest.len() };
        }
        self.header.msg_iov = self.vector.as_mut_ptr();
        self.header.msg_iovlen = self.vector.len();
    }
}

impl Default for Scatter {
    fn default() -> Self {
        let empty = libc::iovec { iov_base: std::ptr::null_mut(), iov_len: 0 };
        // SAFETY: all fields of a msghdr are integers and pointers, for which zero is a value: no name, no vector, no
        // control data.
        Scatter { header: unsafe { std::mem::zeroed() }, vector: [empty; 3] }
    }
}

impl Ring {
    /// Sends a write from a file slot that is not sending; the kernel takes it at the next [`Ring::wait`].
    ///
    /// A large write completes as [`Op::Send`]; a small one only when the kernel could not take all of it at once.
    pub fn send(&mut self, file: u32, out: Outgoing) {
        let slot = &mut self.in_flight[file as usize];
        debug_assert!(slot.out.is_none() && !slot.awaited, "one write at a time");
        let silent = !out.has_shared() && out.bytes.len() <= SILENT_BYTES_MAX;
        let out = slot.out.insert(out);
        slot.taken = 0;
        if !silent {
            return self.send_rest(file);
        }
        let flags = libc::MSG_NOSIGNAL | libc::MSG_WAITALL | libc::MSG_DONTWAIT;
        let entry = opcode::Send::new(Fixed(file), out.bytes.as_ptr(), out.bytes.len() as u32).flags(flags).build();
        self.unconfirmed.push(file);
        self.push(&entry.user_data(Op::Send.token(file)).flags(squeue::Flags::SKIP_SUCCESS));
    }

    /// Gives the kernel what was asked for so far, and takes nothing up. A failure shows at the next [`Ring::submit`].
    #[inline]
    pub fn hand_over(&mut self) {
        if !self.uring.submission().is_empty() {
            let _ = self.uring.submit();
        }
    }

    /// Sends what is left, with a completion.
    fn send_rest(&mut self, file: u32) {
        let slot = &mut self.in_flight[file as usize];
        let Some(out) = &slot.out else { return };
        slot.awaited = true;
        let scatter = slot.scatter.get_or_insert_default();
        scatter.describe(out, slot.taken);
        let flags = (libc::MSG_NOSIGNAL | libc::MSG_WAITALL) as u32;
        let entry = opcode::SendMsg::new(Fixed(file), &raw const scatter.header).flags(flags).build();
        self.push(&entry.user_data(Op::Send.token(file)));
    }

    /// Takes note of a [`Op::Send`] completion. Without `go_on`, which is what a closing connection wants, nothing that is
    /// left is sent: a cancelled write completes with what the kernel had taken by then.
    pub fn sent(&mut self, file: u32, result: i32, go_on: bool) -> Sent {
        let slot = &mut self.in_flight[file as usize];
        let whole = slot.out.as_ref().map_or(0, Outgoing::len);
        match result {
            _ if !go_on => {
                self.release(file);
                Sent::Failed(libc::ECANCELED)
            }
            octets if octets >= 0 => {
                slot.taken += octets as usize;
                if slot.taken < whole {
                    self.send_rest(file);
                    return Sent::Partly;
                }
                self.release(file);
                Sent::Whole
            }
            error if error == -libc::EAGAIN && !slot.awaited => {
                self.send_rest(file);
                Sent::Partly
            }
            error => {
                self.release(file);
                Sent::Failed(-error)
            }
        }
    }

    /// Whether a write of this file slot is not yet known to have gone out whole.
    #[inline]
    pub fn is_sending(&self, file: u32) -> bool {
        self.in_flight[file as usize].awaited
    }

    /// Takes back the memory of the writes that the kernel took in silence. Call it once the completions that followed
    /// their submission were handled: one that was not taken whole has said so by then.
    pub fn recycle(&mut self) {
        while let Some(file) = self.unconfirmed.pop() {
            if !self.in_flight[file as usize].awaited {
                self.release(file);
            }
        }
    }

    fn release(&mut self, file: u32) {
        let slot = &mut self.in_flight[file as usize];
        slot.awaited = false;
        if let Some(out) = slot.out.take() {
            self.keep(out);
        }
    }

    /// Keeps the memory of a write that is done with, for [`Ring::outgoing`].
    pub fn keep(&mut self, mut out: Outgoing) {
        if self.spare.len() < SPARE_MAX && out.bytes.capacity() <= SPARE_BYTES_MAX {
            out.clear();
            self.spare.push(out);
        }
    }
}
