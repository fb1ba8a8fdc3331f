//! How control speaks to a shard, and a shard to control.

use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::AtomicBool;
use std::sync::atomic::Ordering::Relaxed;
use std::thread;
use std::time::Duration;

use async_channel::{Receiver, Sender, TrySendError};
use nix::sys::eventfd::{EfdFlags, EventFd};

use super::tls::{ClientTls, ServerTls};
use crate::job::worker::Worker;
use crate::measure::recorder::Delta;
use crate::probe::policy::{Arrival, Verdict};
use crate::sink::{Faults, SinkCounts};

/// Commands that may wait for a shard, which takes all of them in each of its turns.
const COMMANDS_MAX: usize = 64;
/// How long a command waits for room. A shard that takes none for so long hangs, and control must not.
const ROOM_WITHIN: Duration = Duration::from_secs(1);
/// How often room is looked for.
const ROOM_EVERY: Duration = Duration::from_millis(1);

/// What control tells a shard. Sender: control, which waits a second at most for room, and once only. Loss: what a shard that hangs, or is
/// gone, is told.
#[derive(Debug)]
pub enum Command {
    /// Begin a share of a job.
    Start {
        /// The job's number.
        job: u64,
        /// The share.
        worker: Box<Worker>,
        /// Where its connections go.
        target: SocketAddr,
        /// How they are secured, if they are.
        tls: Option<ClientTls>,
        /// Deltas that control has emptied.
        spares: Receiver<Box<Delta>>,
    },
    /// No new messages for this job; drain.
    Stop {
        /// The job's number.
        job: u64,
    },
    /// Let the reply to an arrival go. Passed over when it waits no longer.
    Answer {
        /// As [`Arrival::ticket`].
        ticket: u64,
        /// What it says.
        verdict: Verdict,
    },
    /// Secure the connections of our own port 25 that begin from now on by this.
    Secure(ServerTls),
    /// Other faults take the place of those of the shard's sink; passed over by a shard without one.
    Faults(Faults),
    /// Close everything and end.
    Shutdown,
    /// Do what no shard does: panic, or never come back.
    #[cfg(test)]
    Fault(fn()),
}

/// What a shard tells control. Sender: a shard. Loss: none; see [`Delta`].
#[derive(Debug)]
pub enum Event {
    /// The shard runs.
    Ready,
    /// What was measured of a job up to the end of a second of its time.
    Measured {
        /// The job's number.
        job: u64,
        /// The second, 1 for the first.
        second: u64,
        /// How far into the job it reaches.
        elapsed: Duration,
        /// What was measured.
        delta: Box<Delta>,
        /// The share has ended; nothing follows.
        finished: bool,
    },
    /// A message has arrived at our own port 25, and its reply waits for [`Command::Answer`]. Loss: none; without room the
    /// shard puts the message off.
    Arrived(Arrival),
    /// What the shard's sink has taken, when the shard ends.
    Sunk(SinkCounts),
    /// The shard has ended in good order.
    Ended,
    /// The shard cannot go on.
    Failed(String),
}

/// Control's end of a shard's mailbox.
#[derive(Clone, Debug)]
pub struct Mailbox {
    commands: Sender<Command>,
    /// A command was given up for want of room, and none had room since: for the next ones nobody waits.
    is_stuck: Arc<AtomicBool>,
    bell: Arc<EventFd>,
}

/// The shard's end of its mailbox.
#[derive(Debug)]
pub struct Inbox {
    commands: Receiver<Command>,
    bell: Arc<EventFd>,
}

/// Makes a mailbox.
pub fn mailbox() -> std::io::Result<(Mailbox, Inbox)> {
    let (sender, receiver) = async_channel::bounded(COMMANDS_MAX);
    let bell = Arc::new(EventFd::from_flags(EfdFlags::EFD_CLOEXEC | EfdFlags::EFD_NONBLOCK)?);
    Ok((
        Mailbox { commands: sender, is_stuck: Arc::default(), bell: Arc::clone(&bell) },
        Inbox { commands: receiver, bell },
    ))
}

impl Mailbox {
    /// Gives the shard a command; hands it back when the shard is gone, or has had no room for any for a second.
    pub fn send(&self, mut command: Command) -> Result<(), Command> {
        let mut waited = if self.is_stuck.load(Relaxed) { ROOM_WITHIN } else { Duration::ZERO };
        loop {
            command = match self.commands.try_send(command) {
                Ok(()) => break,
                Err(TrySendError::Full(command)) if waited < ROOM_WITHIN => command,
                Err(error) => {
                    self.is_stuck.store(true, Relaxed);
                    return Err(error.into_inner());
                }
            };
            thread::sleep(ROOM_EVERY);
            waited += ROOM_EVERY;
        }
        self.is_stuck.store(false, Relaxed);
        // A full counter would mean 2^64 unread rings of the bell, and the shard reads it whenever it rings.
        let _ = self.bell.write(1);
        Ok(())
    }
}

impl Inbox {
    /// What rings when there is a command.
    pub fn bell(&self) -> &EventFd {
        &self.bell
    }

    /// Silences the bell; to be called before the commands are taken.
    pub fn silence(&self) {
        let _ = self.bell.read();
    }

    /// The next command.
    pub fn next(&self) -> Option<Command> {
        self.commands.try_recv().ok()
    }
}
