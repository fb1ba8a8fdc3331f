//! Start and stop of shards: glommio places each on its CPU and runs it there.

use std::sync::Arc;
use std::sync::atomic::{AtomicU32, Ordering::Relaxed};
use std::thread;
use std::time::Duration;

use async_channel::{Receiver, Sender, TryRecvError};
use glommio::{ExecutorJoinHandle, LocalExecutorBuilder, Placement};
use thiserror::Error;

use super::clock::Clock;
use super::connections::Connections;
use super::mailbox::{Command, Event, Inbox, Mailbox, mailbox};
use super::pump::{Pump, PumpParts};
use super::ring::{Ring, RingConfig};
use super::service::{Service, ServiceSpec};
use crate::probe::policy::ARRIVALS_PENDING_MAX;

/// Memory for glommio's own I/O, of which a shard does none.
const EXECUTOR_IO_BYTES: usize = 64 << 10;
/// How long shards may take to end, which they do in their next turn.
pub const SHARDS_END_WITHIN: Duration = Duration::from_secs(5);
/// How often ending shards are listened to.
const LISTEN_EVERY: Duration = Duration::from_millis(1);
/// Measurements that may wait for control, for each shard.
const EVENTS_PER_SHARD: usize = 4;

/// What a ring that was refused for want of memory means.
const NO_LOCKED_MEMORY: &str = "the kernel has no more locked memory for this user's rings, those of processes that \
     have just ended included: try again, use fewer --shards, or raise the limit (timecop doctor says how)";

/// What a shard is made of.
#[derive(Debug)]
pub struct ShardSpec {
    /// Where it runs; `None` leaves it to the kernel.
    pub cpu: Option<usize>,
    /// Its ring.
    pub ring: RingConfig,
    /// What it serves, if anything.
    pub sink: Option<ServiceSpec>,
}

impl ShardSpec {
    /// Events that may wait for control.
    fn events_max(&self) -> usize {
        match self.sink {
            Some(ServiceSpec::Probe(_)) => EVENTS_PER_SHARD + ARRIVALS_PENDING_MAX,
            Some(ServiceSpec::Sink(_)) | None => EVENTS_PER_SHARD,
        }
    }
}

/// Why the shards did not start.
#[derive(Debug, Error)]
pub enum PoolError {
    /// One of them could not.
    #[error("shard {shard} on {} did not start: {reason}", cpu.map_or("any CPU".to_owned(), |cpu| format!("CPU {cpu}")))]
    Shard {
        /// Which.
        shard: usize,
        /// Where it was to run.
        cpu: Option<usize>,
        /// As the kernel or the executor says it.
        reason: String,
    },
}

/// A shard hangs.
#[derive(Clone, Debug, PartialEq, Eq, Error)]
#[error("a shard has not ended within {0:?} and is left behind; this is a fault of timecop")]
pub struct LeftBehind(Duration);

/// Running shards.
#[derive(Debug)]
pub struct Pool {
    shards: Vec<Shard>,
    events: Receiver<(usize, Event)>,
    clock: Clock,
}

#[derive(Debug)]
struct Shard {
    mailbox: Mailbox,
    thread: ExecutorJoinHandle<()>,
    files: u32,
    files_used: Arc<AtomicU32>,
}

impl Pool {
    /// Starts one shard for each spec and waits until all of them run.
    pub fn start(specs: Vec<ShardSpec>, clock: Clock) -> Result<Pool, PoolError> {
        let cpus: Vec<Option<usize>> = specs.iter().map(|spec| spec.cpu).collect();
        let room = specs.iter().map(ShardSpec::events_max).sum::<usize>().max(1);
        let (sender, events) = async_channel::bounded(room);
        let mut shards = Vec::with_capacity(specs.len());
        for (number, spec) in specs.into_iter().enumerate() {
            let failed = |reason: String| PoolError::Shard { shard: number, cpu: cpus[number], reason };
            let (mailbox, inbox) = mailbox().map_err(|error| failed(error.to_string()))?;
            let events = sender.clone();
            let files = spec.ring.dialed_files + spec.ring.accepted_files;
            let files_used = Arc::new(AtomicU32::new(0));
            let counted = Arc::clone(&files_used);
            let thread = LocalExecutorBuilder::new(spec.cpu.map_or(Placement::Unbound, Placement::Fixed))
                .name(&format!("timecop-shard-{number}"))
                .io_memory(EXECUTOR_IO_BYTES)
                .spawn(move || async move { run(number, spec, inbox, events, clock, counted) })
                .map_err(|error| failed(error.to_string()))?;
            shards.push(Shard { mailbox, thread, files, files_used });
        }
        drop(sender);
        let pool = Pool { shards, events, clock };
        for _ in 0..pool.shards.len() {
            match pool.events.recv_blocking() {
                Ok((_, Event::Ready)) => {}
                Ok((shard, Event::Failed(reason))) => {
                    return Err(PoolError::Shard { shard, cpu: cpus[shard], reason });
                }
                Ok(_) | Err(_) => unreachable!("a shard's first word is that it is ready, or has failed"),
            }
        }
        Ok(pool)
    }

    /// The clock that all shards share.
    pub fn clock(&self) -> Clock {
        self.clock
    }

    /// Number of shards.
    pub fn len(&self) -> usize {
        self.shards.len()
    }

    /// File slots of all rings: those in use, and all.
    pub fn file_slots(&self) -> (u64, u64) {
        let of = |shard: &Shard| (u64::from(shard.files_used.load(Relaxed)), u64::from(shard.files));
        self.shards.iter().map(of).fold((0, 0), |(used, all), (more, files)| (used + more, all + files))
    }

    /// Whether there is no shard.
    pub fn is_empty(&self) -> bool {
        self.shards.is_empty()
    }

    /// What the shards say, each word with its shard's number. Closed once all have ended.
    pub fn events(&self) -> &Receiver<(usize, Event)> {
        &self.events
    }

    /// Gives a shard a command. A shard that is gone has said so in its last event; one that hangs is not waited for long.
    pub fn send(&self, shard: usize, command: Command) {
        if let Some(shard) = self.shards.get(shard) {
            let _ = shard.mailbox.send(command);
        }
    }

    /// Tells all shards to end, gives what they still say to `take`, and waits for their threads. Blocks, no longer than
    /// `within`.
    ///
    /// # Errors
    ///
    /// A shard has not ended by then, because it hangs; it is left behind.
    pub fn end(&mut self, within: Duration, mut take: impl FnMut(usize, Event)) -> Result<(), LeftBehind> {
        (0..self.len()).for_each(|shard| self.send(shard, Command::Shutdown));
        let until = self.clock.now() + within;
        loop {
            match self.events.try_recv() {
                Ok((shard, event)) => take(shard, event),
                Err(TryRecvError::Closed) => break,
                Err(TryRecvError::Empty) if self.clock.now() >= until => return Err(LeftBehind(within)),
                Err(TryRecvError::Empty) => thread::sleep(LISTEN_EVERY),
            }
        }
        for shard in self.shards.drain(..) {
            // A shard that panicked has said so in its last event.
            let _ = shard.thread.join();
        }
        Ok(())
    }
}

/// The whole life of a shard, on its own thread.
fn run(
    shard: usize,
    spec: ShardSpec,
    inbox: Inbox,
    events: Sender<(usize, Event)>,
    clock: Clock,
    files_used: Arc<AtomicU32>,
) {
    let _last_word = LastWord { shard, events: events.clone() };
    let fail = |error: std::io::Error| {
        let _ = events.send_blocking((shard, Event::Failed(error.to_string())));
    };
    // Wake-ups may be late by the timer slack, 50 us by default.
    let _ = nix::sys::prctl::set_timerslack(1);
    let ring = match Ring::new(spec.ring) {
        Ok(ring) => ring,
        Err(error) if error.raw_os_error() == Some(libc::ENOMEM) => {
            let _ = events.send_blocking((shard, Event::Failed(NO_LOCKED_MEMORY.to_owned())));
            return;
        }
        Err(error) => return fail(error),
    };
    let connections = Connections::new(ring, spec.ring.dialed_files + spec.ring.accepted_files, files_used);
    let dialed_files = spec.ring.dialed_files;
    let sink = spec.sink.map(|sink| Service::new(sink, dialed_files, shard, events.clone()));
    let events_of_pump = events.clone();
    let mut pump =
        Pump::new(PumpParts { clock, shard, inbox, events: events_of_pump, connections, dialed_files, sink });
    let _ = events.send_blocking((shard, Event::Ready));
    if let Err(error) = pump.run() {
        fail(error);
    }
}

/// Tells control when a shard's thread unwinds, so that nobody waits for it.
struct LastWord {
    shard: usize,
    events: Sender<(usize, Event)>,
}

impl Drop for LastWord {
    fn drop(&mut self) {
        if thread::panicking() {
            let reason = "the shard panicked; this is a fault of timecop".to_owned();
            let _ = self.events.send_blocking((self.shard, Event::Failed(reason)));
        }
    }
}
