//! Ports for test servers.

use std::net::TcpListener;
use std::sync::atomic::{AtomicU32, Ordering};

/// Below the range from which the system takes ports of outgoing connections: a server there would collide with them.
const LOWEST: u32 = 20_000;
const PAIRS: u32 = 6_000;

/// A free port of 127.0.0.1, nobody else's as long as this lives.
///
/// The port is left unbound for the server to be started. What keeps other tests away from it, those of other processes
/// too, is the odd port above it, which stays bound.
pub struct Port {
    number: u16,
    _claim: TcpListener,
}

impl Port {
    /// Claims a free port.
    pub fn claim() -> Port {
        static NEXT: AtomicU32 = AtomicU32::new(0);
        for _ in 0..PAIRS {
            let pair = (std::process::id().wrapping_mul(61) + NEXT.fetch_add(1, Ordering::Relaxed)) % PAIRS;
            let number = u16::try_from(LOWEST + 2 * pair).expect("the range ends below 32768");
            let Ok(claim) = TcpListener::bind(("127.0.0.1", number + 1)) else { continue };
            if TcpListener::bind(("127.0.0.1", number)).is_ok() {
                return Port { number, _claim: claim };
            }
        }
        panic!("no free port between {LOWEST} and {}", LOWEST + 2 * PAIRS);
    }

    /// Its number.
    pub fn number(&self) -> u16 {
        self.number
    }
}
