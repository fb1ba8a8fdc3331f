//! A TCP proxy that does to each connection what a network may: it holds octets up, resets, or closes one side.

use std::io::{Read as _, Write as _};
use std::net::{Shutdown, SocketAddr, TcpListener, TcpStream};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::thread::{self, JoinHandle};
use std::time::Duration;

use socket2::SockRef;

use super::Draws;

/// Positions are drawn below these: within the first few messages of a connection, and within what answers them.
const POSITION_MAX: u64 = 7_000;
const POSITION_OF_ANSWERS_MAX: u64 = 400;
/// How long octets are held up at most.
const DELAY_MS_MAX: u64 = 40;

/// What happens to one direction of a connection, behind so many octets.
#[derive(Clone, Copy, Debug)]
enum Fault {
    /// What follows comes later.
    Delay(Duration),
    /// Both sides get a reset.
    Reset,
    /// What follows is swallowed, and the receiver is told that the sender has closed its side.
    HalfClose,
}

/// A running proxy.
pub struct Proxy {
    address: SocketAddr,
    ended: Arc<AtomicBool>,
    broken: Arc<AtomicU64>,
    listener: Option<JoinHandle<()>>,
}

impl Proxy {
    /// Starts one before a port of this machine.
    pub fn start(port: u16, mut draws: Draws) -> Proxy {
        let listener = TcpListener::bind("127.0.0.1:0").expect("a free port");
        let address = listener.local_addr().expect("it is bound");
        let (ended, broken) = (Arc::new(AtomicBool::new(false)), Arc::new(AtomicU64::new(0)));
        let (end, count) = (Arc::clone(&ended), Arc::clone(&broken));
        let listener = thread::spawn(move || {
            for client in listener.incoming().flatten() {
                if end.load(Ordering::Relaxed) {
                    break;
                }
                let Ok(server) = TcpStream::connect(("127.0.0.1", port)) else { continue };
                // One direction has a fault, the other none.
                let towards_server = draws.of(0..2) == 0;
                let fault = match draws.of(0..4) {
                    0 => Fault::Reset,
                    1 => Fault::HalfClose,
                    _ => Fault::Delay(Duration::from_millis(draws.of(1..DELAY_MS_MAX))),
                };
                let position_max = if towards_server { POSITION_MAX } else { POSITION_OF_ANSWERS_MAX };
                let fault = (draws.of(0..position_max), fault);
                for (from, to, is_faulty) in [(&client, &server, towards_server), (&server, &client, !towards_server)] {
                    let copies = from.try_clone().and_then(|from| Ok((from, to.try_clone()?)));
                    let (from, to) = copies.expect("descriptors are left");
                    let (fault, count) = (is_faulty.then_some(fault), Arc::clone(&count));
                    // It ends with the connection, which client and server end.
                    thread::spawn(move || forward(from, to, fault, &count));
                }
            }
        });
        Proxy { address, ended, broken, listener: Some(listener) }
    }

    /// Where it listens.
    pub fn port(&self) -> u16 {
        self.address.port()
    }

    /// Connections that it has broken.
    pub fn broken(&self) -> u64 {
        self.broken.load(Ordering::SeqCst)
    }
}

impl Drop for Proxy {
    fn drop(&mut self) {
        self.ended.store(true, Ordering::Relaxed);
        let _ = TcpStream::connect(self.address); // wakes the listener
        if let Some(listener) = self.listener.take() {
            let _ = listener.join();
        }
    }
}

fn forward(mut from: TcpStream, mut to: TcpStream, mut fault: Option<(u64, Fault)>, broken: &AtomicU64) {
    let (mut passed, mut piece) = (0, vec![0; 8 << 10]);
    while let Ok(octets @ 1..) = from.read(&mut piece) {
        let mut rest = &piece[..octets];
        if let Some((position, what)) = fault.filter(|(position, _)| *position < passed + octets as u64) {
            let (before, behind) = rest.split_at((position - passed) as usize);
            let _ = to.write_all(before);
            fault = None;
            match what {
                Fault::Delay(time) => thread::sleep(time),
                Fault::Reset => {
                    broken.fetch_add(1, Ordering::SeqCst);
                    for side in [&from, &to] {
                        // Closing it then sends a reset, and the shutdown lets the other thread let go of its copies.
                        let _ = SockRef::from(side).set_linger(Some(Duration::ZERO));
                        let _ = side.shutdown(Shutdown::Read);
                    }
                    return;
                }
                Fault::HalfClose => {
                    broken.fetch_add(1, Ordering::SeqCst);
                    break;
                }
            }
            rest = behind;
        }
        if to.write_all(rest).is_err() {
            break;
        }
        passed += octets as u64;
    }
    let _ = to.shutdown(Shutdown::Write);
    // What is still sent has nobody to go to; it is read, so that closing resets nothing.
    while from.read(&mut piece).is_ok_and(|octets| octets > 0) {}
}
