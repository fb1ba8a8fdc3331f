//! Accepting connections, with and without the address that they come from.

use std::net::SocketAddr;
use std::os::fd::{AsFd, AsRawFd};

use io_uring::opcode;
use io_uring::squeue::Flags;
use io_uring::types::{DestinationSlot, Fd};
use socket2::{SockAddr, SockAddrStorage};

use super::{Op, Ring};

/// Where the kernel puts the address of a listener's next connection.
#[derive(Debug)]
pub(super) struct PeerRoom {
    address: SockAddrStorage,
    length: libc::socklen_t,
}

impl Ring {
    /// Takes connections from a listener, each into a file slot of its own; completes as [`Op::Accept`], again and
    /// again while [`Completion::more`](super::Completion::more) says so.
    pub fn accept(&mut self, listener: u32, socket: &impl AsFd) {
        let socket = Fd(socket.as_fd().as_raw_fd());
        let entry = opcode::AcceptMulti::new(socket).allocate_file_index(true).build();
        self.push(&entry.user_data(Op::Accept.token(listener)));
    }

    /// Ends what is armed on a listener; it completes with `ECANCELED`, unless a connection came first.
    pub fn cancel_accept(&mut self, listener: u32) {
        let entry = opcode::AsyncCancel::new(Op::Accept.token(listener)).build();
        self.push(&entry.user_data(Op::Ignored.token(listener)).flags(Flags::SKIP_SUCCESS));
    }

    /// Takes one connection from a listener; completes as [`Op::Accept`], after which [`Ring::take_peer`] says where it comes
    /// from. To be called again when it has completed, and not before.
    pub fn accept_one(&mut self, listener: u32, socket: &impl AsFd) {
        let index = listener as usize;
        if self.peers.len() <= index {
            self.peers.resize_with(index + 1, || None);
        }
        let socket = Fd(socket.as_fd().as_raw_fd());
        let room = self.peers[index]
            .get_or_insert_with(|| Box::new(PeerRoom { address: SockAddrStorage::zeroed(), length: 0 }));
        room.length = room.address.size_of();
        let (address, length) = ((&raw mut room.address).cast(), &raw mut room.length);
        let entry =
            opcode::Accept::new(socket, address, length).file_index(Some(DestinationSlot::auto_target())).build();
        self.push(&entry.user_data(Op::Accept.token(listener)));
    }

    /// Where the connection comes from that the last [`Ring::accept_one`] of this listener took; once for each.
    pub fn take_peer(&mut self, listener: u32) -> Option<SocketAddr> {
        let room = self.peers.get_mut(listener as usize)?.as_mut()?;
        let length = std::mem::take(&mut room.length);
        let address = std::mem::replace(&mut room.address, SockAddrStorage::zeroed());
        // SAFETY: the kernel has written an address of its family, this long at most. An all-zero storage is an address of
        // no family.
        let address = unsafe { SockAddr::new(address, length.min(size_of::<SockAddrStorage>() as libc::socklen_t)) };
        address.as_socket()
    }
}

#[cfg(test)]
mod tests {
    use std::io::{Read as _, Write as _};
    use std::net::{IpAddr, TcpListener, TcpStream};
    use std::time::Duration;

    use super::super::{Completion, RingConfig};
    use super::*;
    use crate::time::Instant;

    fn next(ring: &mut Ring) -> Completion {
        for _ in 0..100 {
            ring.wait(Duration::from_secs(1)).unwrap();
            if ring.gather(Instant::ZERO) > 0 {
                return ring.completion(0);
            }
        }
        panic!("nothing completes");
    }

    #[test]
    fn each_connection_comes_with_its_own_address() {
        for bound in ["127.0.0.1:0", "[::1]:0"] {
            let listener = TcpListener::bind(bound).unwrap();
            let mut ring = Ring::new(RingConfig { dialed_files: 0, accepted_files: 4, buffers: 16 }).unwrap();
            assert_eq!(ring.take_peer(0), None);
            let mut clients = Vec::new();
            for _ in 0..3 {
                ring.accept_one(0, &listener);
                clients.push(TcpStream::connect(listener.local_addr().unwrap()).unwrap());
                let completion = next(&mut ring);
                assert!(completion.op == Op::Accept && completion.result >= 0 && !completion.more);
                assert_eq!(ring.take_peer(0), clients.last().map(|client| client.local_addr().unwrap()));
            }
            assert_ne!(clients[0].local_addr().unwrap(), clients[1].local_addr().unwrap());
            // The slots are real ones.
            ring.receive(2);
            clients[2].write_all(b"x").unwrap();
            assert_eq!(next(&mut ring).result, 1);
            drop(ring);
            clients[0].set_read_timeout(Some(Duration::from_secs(10))).unwrap();
            assert_eq!(clients[0].read(&mut [0]).unwrap_or(0), 0);
        }
    }

    #[test]
    fn a_client_of_ipv4_is_known_as_such() {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let mut ring = Ring::new(RingConfig { dialed_files: 0, accepted_files: 4, buffers: 16 }).unwrap();
        ring.accept_one(3, &listener);
        let _client = TcpStream::connect(listener.local_addr().unwrap()).unwrap();
        assert_eq!(next(&mut ring).index, 3);
        assert_eq!(ring.take_peer(3).map(|peer| peer.ip()), Some(IpAddr::from([127, 0, 0, 1])));
    }
}
