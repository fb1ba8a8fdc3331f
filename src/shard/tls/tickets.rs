//! Sessions to be resumed: the tickets that one target has given to one shard.

use std::collections::VecDeque;
use std::sync::Mutex;

use rustls::NamedGroup;
use rustls::client::{ClientSessionStore, Tls12ClientSessionValue, Tls13ClientSessionValue};
use rustls::pki_types::ServerName;

/// Tickets that are kept for each connection. One is used up by each handshake under TLS 1.3, and most servers give two
/// back: what is kept must last while all connect at once, with something to spare.
const TICKETS_PER_CONNECTION: usize = 4;
/// Tickets that are kept in all, of some kB each: many more than connections are opened at once.
const TICKETS_MAX: usize = 16_384;

/// The store of one shard for one job, whose target is always the same, so that names are not looked at. No other thread
/// ever waits for its lock.
#[derive(Debug)]
pub(super) struct Tickets {
    room: usize,
    held: Mutex<Held>,
}

#[derive(Debug, Default)]
struct Held {
    tls13: VecDeque<Tls13ClientSessionValue>,
    /// May be used again and again.
    tls12: Option<Tls12ClientSessionValue>,
    group: Option<NamedGroup>,
}

impl Tickets {
    pub(super) fn new(connections: u32) -> Tickets {
        let room = (connections as usize * TICKETS_PER_CONNECTION).min(TICKETS_MAX);
        Tickets { room, held: Mutex::default() }
    }

    fn with<T>(&self, act: impl FnOnce(&mut Held) -> T) -> T {
        act(&mut self.held.lock().unwrap_or_else(|poisoned| poisoned.into_inner()))
    }

    #[cfg(test)]
    pub(super) fn len(&self) -> usize {
        self.with(|held| held.tls13.len())
    }
}

impl ClientSessionStore for Tickets {
    fn set_kx_hint(&self, _: ServerName<'static>, group: NamedGroup) {
        self.with(|held| held.group = Some(group));
    }

    fn kx_hint(&self, _: &ServerName<'_>) -> Option<NamedGroup> {
        self.with(|held| held.group)
    }

    fn set_tls12_session(&self, _: ServerName<'static>, value: Tls12ClientSessionValue) {
        self.with(|held| held.tls12 = Some(value));
    }

    fn tls12_session(&self, _: &ServerName<'_>) -> Option<Tls12ClientSessionValue> {
        self.with(|held| held.tls12.clone())
    }

    fn remove_tls12_session(&self, _: &ServerName<'static>) {
        self.with(|held| held.tls12 = None);
    }

    fn insert_tls13_ticket(&self, _: ServerName<'static>, value: Tls13ClientSessionValue) {
        self.with(|held| {
            if held.tls13.len() >= self.room {
                held.tls13.pop_front();
            }
            held.tls13.push_back(value);
        });
    }

    fn take_tls13_ticket(&self, _: &ServerName<'static>) -> Option<Tls13ClientSessionValue> {
        // The newest one has the longest to live.
        self.with(|held| held.tls13.pop_back())
    }
}
