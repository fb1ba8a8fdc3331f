//! The sockets that a service accepts connections from. One for which the kernel had no room rests for a while.

use std::time::Duration;

use super::connections::Connections;
use super::ring::Completion;
use super::sink_service::ListenerSpec;
use crate::time::Instant;

/// How long a listener rests after the kernel had no file slot, descriptor or memory for a new connection.
const ACCEPT_PAUSE: Duration = Duration::from_millis(100);

/// How connections are accepted.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Accept {
    /// As many as come, without where they come from.
    Many,
    /// One after the other, each with its peer's address.
    One,
}

/// The listeners of a service, by their index in completions.
pub(super) struct Listeners {
    listeners: Vec<Listener>,
    accept: Accept,
}

struct Listener {
    spec: ListenerSpec,
    /// Rests until then.
    paused: Option<Instant>,
}

impl Listeners {
    pub(super) fn new(specs: Vec<ListenerSpec>, accept: Accept) -> Listeners {
        let listeners = specs.into_iter().map(|spec| Listener { spec, paused: None }).collect();
        Listeners { listeners, accept }
    }

    /// Begins to accept.
    pub(super) fn open(&self, connections: &mut Connections) {
        (0..self.listeners.len()).for_each(|index| self.arm(index, connections));
    }

    fn arm(&self, index: usize, connections: &mut Connections) {
        let socket = &self.listeners[index].spec.socket;
        match self.accept {
            Accept::Many => connections.ring().accept(index as u32, socket),
            Accept::One => connections.ring().accept_one(index as u32, socket),
        }
    }

    /// From now on connections are accepted like this.
    pub(super) fn set_accept(&mut self, accept: Accept, connections: &mut Connections) {
        if accept == Accept::One && self.accept == Accept::Many {
            // What is armed does not say where connections come from; behind its end it is armed anew.
            (0..self.listeners.len()).for_each(|index| connections.ring().cancel_accept(index as u32));
        }
        self.accept = accept;
    }

    /// When [`Listeners::turn`] must be called at the latest.
    pub(super) fn wake_at(&self) -> Instant {
        self.listeners.iter().filter_map(|listener| listener.paused).min().unwrap_or(Instant::NEVER)
    }

    /// Wakes those that have rested.
    pub(super) fn turn(&mut self, now: Instant, connections: &mut Connections) {
        for index in 0..self.listeners.len() {
            if self.listeners[index].paused.take_if(|until| *until <= now).is_some() {
                self.arm(index, connections);
            }
        }
    }

    /// Goes on accepting, or rests; gives the file slot of the new connection, if there is one, and its listener.
    pub(super) fn accepted(
        &mut self,
        completion: &Completion,
        connections: &mut Connections,
    ) -> Option<(u32, &ListenerSpec)> {
        let index = completion.index as usize;
        let file = u32::try_from(completion.result).ok();
        match file {
            Some(_) if !completion.more => self.arm(index, connections),
            // See `set_accept`.
            None if -completion.result == libc::ECANCELED => self.arm(index, connections),
            // Out of file slots, descriptors or memory, or the client is gone: to try again at once might spin.
            None if !completion.more => self.listeners[index].paused = Some(completion.arrived + ACCEPT_PAUSE),
            // It goes on by itself. A connection for which the kernel had no file slot it has closed; the client sees that.
            _ => {}
        }
        Some((file?, &self.listeners[index].spec))
    }
}
