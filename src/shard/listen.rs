//! Sockets that many shards listen on.

use std::io;
use std::net::SocketAddr;
use std::time::{Duration, Instant};

use socket2::{Domain, Protocol, Socket, Type};
use thiserror::Error;

/// Connections that may wait to be accepted; the kernel caps it at `net.core.somaxconn`.
const BACKLOG: i32 = 65_535;
/// How long an address that is in use may take to become free.
const FREE_WITHIN: Duration = Duration::from_millis(500);

/// An address that could not be listened on, and what to do about it.
#[derive(Debug, Error)]
#[error("cannot listen on {address}: {reason}{}", remedy(reason))]
pub struct ListenError {
    /// The address.
    pub address: SocketAddr,
    /// Why, as the kernel says it.
    pub reason: io::Error,
}

fn remedy(reason: &io::Error) -> &'static str {
    match reason.kind() {
        io::ErrorKind::AddrInUse => "; end what listens there (ss -ltnp shows it), or name another port",
        io::ErrorKind::AddrNotAvailable => "; no interface of this machine has this address (ip address shows them)",
        io::ErrorKind::PermissionDenied => {
            "; a port below 1024 is for root, or a program with the right: setcap cap_net_bind_service=+ep on it, or \
             AmbientCapabilities=CAP_NET_BIND_SERVICE in its systemd unit"
        }
        _ => "",
    }
}

/// One socket for each of `shards` shards, all bound to `address`. The kernel spreads connections over them
/// (`SO_REUSEPORT`). Returns the address with the port that was given where 0 was asked for.
///
/// # Errors
///
/// Why the kernel refuses the address.
pub fn listen(address: SocketAddr, shards: usize) -> Result<(Vec<Socket>, SocketAddr), ListenError> {
    listening(address, shards).map_err(|reason| ListenError { address, reason })
}

fn listening(address: SocketAddr, shards: usize) -> io::Result<(Vec<Socket>, SocketAddr)> {
    // SO_REUSEPORT would let us share the port with another program of ours without a word: so it is first bound
    // without it.
    let probe = bound_once_free(address)?;
    let address = probe.local_addr()?.as_socket().unwrap_or(address);
    if shards == 1 {
        probe.listen(BACKLOG)?;
        return Ok((vec![probe], address));
    }
    drop(probe);
    let mut sockets = Vec::with_capacity(shards);
    for _ in 0..shards {
        let socket = bound(address, true)?;
        socket.listen(BACKLOG)?;
        sockets.push(socket);
    }
    Ok((sockets, address))
}

/// Binds an address that may be about to become free: the kernel ends the rings of a process that was killed, and with
/// them the listeners that they accept on, some time after the process.
fn bound_once_free(address: SocketAddr) -> io::Result<Socket> {
    let begun = Instant::now();
    loop {
        match bound(address, false) {
            Err(error) if error.kind() == io::ErrorKind::AddrInUse && begun.elapsed() < FREE_WITHIN => {
                std::thread::sleep(FREE_WITHIN / 20);
            }
            result => return result,
        }
    }
}

fn bound(address: SocketAddr, shared: bool) -> io::Result<Socket> {
    let socket = Socket::new(Domain::for_address(address), Type::STREAM, Some(Protocol::TCP))?;
    socket.set_reuse_address(true)?;
    socket.set_reuse_port(shared)?;
    // Accepted connections inherit it.
    socket.set_tcp_nodelay(true)?;
    if address.is_ipv6() {
        socket.set_only_v6(true)?;
    }
    socket.bind(&address.into())?;
    Ok(socket)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_port_in_use_is_refused_even_to_ourselves() {
        let any = "127.0.0.1:0".parse().unwrap();
        for shards in [1, 3] {
            let (sockets, address) = listen(any, shards).unwrap();
            assert_eq!(sockets.len(), shards);
            assert_ne!(address.port(), 0);
            let error = listen(address, 2).unwrap_err();
            assert_eq!(error.reason.kind(), io::ErrorKind::AddrInUse);
            assert!(error.to_string().contains(&format!("{address}: Address already in use")), "{error}");
            assert!(error.to_string().ends_with("or name another port"), "{error}");
        }
    }

    #[test]
    fn an_address_of_another_machine_and_a_port_of_root_are_refused_with_a_remedy() {
        let elsewhere = listen("192.0.2.1:0".parse().unwrap(), 1).unwrap_err();
        assert!(elsewhere.to_string().contains("no interface of this machine"), "{elsewhere}");
        let reason = io::Error::from(io::ErrorKind::PermissionDenied);
        let privileged = ListenError { address: "127.0.0.1:25".parse().unwrap(), reason };
        assert!(privileged.to_string().contains("setcap cap_net_bind_service"), "{privileged}");
    }
}
