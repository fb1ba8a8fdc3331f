//! The buffers into which the kernel puts what arrives (`IORING_REGISTER_PBUF_RING`).

use std::cell::Cell;
use std::io;
use std::ptr::NonNull;
use std::sync::atomic::{AtomicU16, Ordering};

use io_uring::{IoUring, types::BufRingEntry};

use super::Completion;
use super::receive::{self, Head};
use crate::time::WallTime;

/// Octets of one buffer. Small, so that thousands of connections share few megabytes.
pub const BUFFER_BYTES: usize = 2_048;
/// Most buffers of one ring: 8 MiB.
pub const BUFFERS_MAX: u16 = 4_096;

/// A buffer that the kernel has filled and that is ours until it is given back.
#[derive(Debug)]
pub struct BufferId(u16);

impl BufferId {
    pub(super) const fn new(id: u16) -> BufferId {
        BufferId(id)
    }
}

/// A fixed number of equal buffers that the kernel fills and we give back.
#[derive(Debug)]
pub struct Buffers {
    entries: Mapping,
    memory: Mapping,
    count: u16,
    tail: Cell<u16>,
    /// Here, because it must stay in place as long as the buffers.
    pub(super) head: Head,
}

impl Buffers {
    /// Registers `count` buffers, a power of two, as group 0 of `uring`, which must not outlive them.
    pub(super) fn register(uring: &IoUring, count: u16) -> io::Result<Buffers> {
        assert!(count.is_power_of_two() && count <= BUFFERS_MAX, "a power of two of at most {BUFFERS_MAX} buffers");
        let entries = Mapping::new(usize::from(count) * size_of::<BufRingEntry>())?;
        let memory = Mapping::new(usize::from(count) * BUFFER_BYTES)?;
        // SAFETY: the mapping holds `count` entries and is page-aligned. `Ring` owns a reference to the buffers and
        // ends every operation of the kernel before it lets go of it.
        unsafe { uring.submitter().register_buf_ring_with_flags(entries.start.as_ptr() as u64, count, 0, 0)? };
        let buffers = Buffers { entries, memory, count, tail: Cell::new(0), head: Head::default() };
        (0..count).for_each(|id| buffers.give_back(BufferId(id)));
        buffers.publish();
        Ok(buffers)
    }

    /// What a receive has put into its buffer, and when the last of it arrived by the kernel's stamp, if it has one.
    #[inline]
    pub fn received<'a>(&'a self, id: &'a BufferId, completion: &Completion) -> (&'a [u8], Option<WallTime>) {
        let octets = completion.result.max(0) as usize;
        match completion.is_stamped() {
            true => self.head.read(self.filled(id, receive::HEAD_BYTES + octets)),
            false => (self.filled(id, octets), None),
        }
    }

    /// The first `len` octets of a buffer.
    #[inline]
    fn filled<'a>(&'a self, id: &'a BufferId, len: usize) -> &'a [u8] {
        let at = usize::from(id.0) * BUFFER_BYTES;
        // SAFETY: a `BufferId` is made from the kernel's completions alone, so it is below `count` and the range lies
        // within the mapping. The kernel writes to a buffer only after it was given back, which takes the `BufferId`
        // that the slice borrows.
        unsafe { std::slice::from_raw_parts(self.memory.start.as_ptr().add(at), len.min(BUFFER_BYTES)) }
    }

    /// Puts a buffer back in line; the kernel sees it after the next submit.
    #[inline]
    pub fn give_back(&self, id: BufferId) {
        debug_assert!(id.0 < self.count);
        let tail = self.tail.get();
        let slot = usize::from(tail & (self.count - 1));
        // SAFETY: `slot` is below `count`, so the entry lies within its mapping, and so does the buffer in the other.
        // The kernel reads an entry only after the tail was moved past it, and no other reference to it exists.
        unsafe {
            let entry = &mut *self.entries.start.as_ptr().cast::<BufRingEntry>().add(slot);
            entry.set_addr(self.memory.start.as_ptr().add(usize::from(id.0) * BUFFER_BYTES) as u64);
            entry.set_len(BUFFER_BYTES as u32);
            entry.set_bid(id.0);
        }
        self.tail.set(tail.wrapping_add(1));
    }

    /// Lets the kernel see all that was given back.
    #[inline]
    pub(super) fn publish(&self) {
        // SAFETY: the ring's tail lies in the first entry and is shared with the kernel, hence the atomic store;
        // release order makes the entries visible before it.
        unsafe {
            let tail = BufRingEntry::tail(self.entries.start.as_ptr().cast()).cast::<AtomicU16>();
            (*tail).store(self.tail.get(), Ordering::Release);
        }
    }
}

/// Anonymous memory of our own, page-aligned and zeroed.
#[derive(Debug)]
struct Mapping {
    start: NonNull<u8>,
    bytes: usize,
}

impl Mapping {
    fn new(bytes: usize) -> io::Result<Mapping> {
        let protection = libc::PROT_READ | libc::PROT_WRITE;
        let flags = libc::MAP_PRIVATE | libc::MAP_ANONYMOUS;
        // SAFETY: an anonymous private mapping at an address of the kernel's choice touches no memory of ours.
        let start = unsafe { libc::mmap(std::ptr::null_mut(), bytes, protection, flags, -1, 0) };
        if start == libc::MAP_FAILED {
            return Err(io::Error::last_os_error());
        }
        Ok(Mapping { start: NonNull::new(start.cast()).expect("a mapping is never at address 0"), bytes })
    }
}

impl Drop for Mapping {
    fn drop(&mut self) {
        // SAFETY: mapped in `new` with this very length, and unmapped nowhere else.
        unsafe { libc::munmap(self.start.as_ptr().cast(), self.bytes) };
    }
}
