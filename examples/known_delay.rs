//! A target whose delay is known to the microsecond, for `tools/truth --single`.
//!
//! `known_delay ADDR DELAY_US` answers each request of HTTP/1.1 when so much time has passed since the kernel took its last
//! segment from the network, by the kernel's own stamp. It never sleeps, so it wants a CPU of its own (`taskset`). When the
//! last connection is closed it says how late its answers were by its own clock: `{"answers": N, "p50_us": …, "p99_us": …,
//! "max_us": …}`. A request has to arrive in one segment.

use std::collections::{HashMap, VecDeque};
use std::io::{IoSliceMut, Write};
use std::net::{TcpListener, TcpStream};
use std::os::fd::AsRawFd;
use std::time::{SystemTime, UNIX_EPOCH};

use nix::sys::epoll::{Epoll, EpollCreateFlags, EpollEvent, EpollFlags, EpollTimeout};
use nix::sys::socket::sockopt::ReceiveTimestampns;
use nix::sys::socket::{ControlMessageOwned, MsgFlags, recvmsg, setsockopt};
use nix::sys::time::TimeSpec;

const ANSWER: &[u8] = b"HTTP/1.1 200 OK\r\nContent-Length: 0\r\n\r\n";
/// Events that are taken up at once.
const EVENTS_MAX: usize = 64;
/// What epoll calls the listener; connections are called by their descriptors.
const LISTENER: u64 = u64::MAX;

fn now_ns() -> u64 {
    SystemTime::now().duration_since(UNIX_EPOCH).expect("the calendar is past 1970").as_nanos() as u64
}

/// One request off a connection: when it arrived; `None` at the connection's end.
fn receive(stream: &TcpStream) -> nix::Result<Option<u64>> {
    let mut bytes = [0; 4_096];
    let mut room = nix::cmsg_space!(TimeSpec);
    let mut slices = [IoSliceMut::new(&mut bytes)];
    let message = recvmsg::<()>(stream.as_raw_fd(), &mut slices, Some(&mut room), MsgFlags::MSG_DONTWAIT)?;
    let stamp = message.cmsgs()?.find_map(|control| match control {
        ControlMessageOwned::ScmTimestampns(at) => Some(at.tv_sec() as u64 * 1_000_000_000 + at.tv_nsec() as u64),
        _ => None,
    });
    match message.bytes {
        0 => Ok(None),
        octets => {
            assert!(
                bytes[..octets].starts_with(b"POST ") || bytes[..octets].starts_with(b"GET "),
                "a request in pieces"
            );
            Ok(Some(stamp.expect("the kernel stamps what arrives, once it was asked to")))
        }
    }
}

fn main() {
    let arguments: Vec<String> = std::env::args().collect();
    let [_, address, delay_us] = arguments.as_slice() else { panic!("usage: known_delay ADDR DELAY_US") };
    let delay_ns = delay_us.parse::<u64>().expect("a delay in microseconds") * 1_000;
    let listener = TcpListener::bind(address).expect("an address to listen on");
    listener.set_nonblocking(true).expect("a socket that does not block");
    // Accepted connections inherit it, so that the first request has a stamp, too.
    setsockopt(&listener, ReceiveTimestampns, &true).expect("a kernel that stamps");
    let epoll = Epoll::new(EpollCreateFlags::empty()).expect("an epoll");
    epoll.add(&listener, EpollEvent::new(EpollFlags::EPOLLIN, LISTENER)).expect("the listener to be watched");
    println!("listening on {}", listener.local_addr().expect("a bound socket"));
    let mut connections: HashMap<u64, TcpStream> = HashMap::new();
    let mut due: VecDeque<(u64, u64)> = VecDeque::new();
    let mut late_ns: Vec<u64> = Vec::with_capacity(1 << 22);
    let mut events = [EpollEvent::empty(); EVENTS_MAX];
    let mut was_used = false;
    while !was_used || !connections.is_empty() {
        while let Some(&(at, connection)) = due.front() {
            let now = now_ns();
            if now < at {
                break;
            }
            due.pop_front();
            if let Some(mut stream) = connections.get(&connection) {
                late_ns.push(now - at);
                let _ = stream.write_all(ANSWER);
            }
        }
        let count = epoll.wait(&mut events, EpollTimeout::ZERO).unwrap_or(0);
        for event in &events[..count] {
            if event.data() == LISTENER {
                let Ok((stream, _)) = listener.accept() else { continue };
                stream.set_nodelay(true).and_then(|()| stream.set_nonblocking(true)).expect("a TCP socket");
                let name = stream.as_raw_fd() as u64;
                epoll.add(&stream, EpollEvent::new(EpollFlags::EPOLLIN, name)).expect("a connection to be watched");
                connections.insert(name, stream);
                was_used = true;
                continue;
            }
            match connections.get(&event.data()).map(receive) {
                Some(Ok(Some(arrived))) => due.push_back((arrived + delay_ns, event.data())),
                Some(Err(nix::Error::EAGAIN)) | None => {}
                Some(Ok(None) | Err(_)) => drop(connections.remove(&event.data())),
            }
        }
    }
    late_ns.sort_unstable();
    let us = |share: f64| {
        late_ns.get((late_ns.len() as f64 * share) as usize).or(late_ns.last()).map_or(0.0, |ns| *ns as f64 / 1e3)
    };
    println!(
        "{{\"answers\": {}, \"p50_us\": {}, \"p99_us\": {}, \"max_us\": {}}}",
        late_ns.len(),
        us(0.5),
        us(0.99),
        us(1.0)
    );
}
