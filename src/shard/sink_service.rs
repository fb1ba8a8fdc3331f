//! Incoming connections of a shard, and the sessions on them.

use std::io::{self, Write as _};
use std::path::PathBuf;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use socket2::Socket;

use super::connections::Connections;
use super::ring::Completion;
use super::tls::ServerTls;
use crate::sink::{Counts, SinkPolicy, SinkSettings};
use crate::time::Instant;
use crate::wire::smtp::server::{Flow, ServerConfig, Session};

/// How long a listener rests after the kernel had no file slot, descriptor or memory for a new connection.
const ACCEPT_PAUSE: Duration = Duration::from_millis(100);

/// Octets of replies that may wait for a client to read them.
const UNREAD_BYTES_MAX: usize = 256 << 10;

/// What a shard needs to serve.
#[derive(Debug)]
pub struct SinkSpec {
    /// Bound and listening.
    pub listeners: Vec<ListenerSpec>,
    /// The TLS of its connections: needed where a listener begins with it, or `config` offers STARTTLS.
    pub tls: Option<ServerTls>,
    /// What all sessions have in common.
    pub config: Arc<ServerConfig>,
    /// What is taken and what goes wrong.
    pub settings: SinkSettings,
    /// When the sink began; stalls count from it.
    pub start: Instant,
    /// Repeats the rolls of this shard's faults.
    pub seed: u64,
    /// Where each message is written, if anywhere.
    pub save: Option<Arc<SaveFolder>>,
}

/// A socket to accept connections from.
#[derive(Debug)]
pub struct ListenerSpec {
    /// Bound and listening.
    pub socket: Socket,
    /// Connections begin with TLS (RFC 8314 §3).
    pub implicit_tls: bool,
}

/// A folder that takes one file a message. For looking, not for speed: the shard waits for the disk.
#[derive(Debug)]
pub struct SaveFolder {
    path: PathBuf,
    next: AtomicU64,
}

impl SaveFolder {
    /// The folder, which is made if it is not there.
    pub fn open(path: PathBuf) -> io::Result<SaveFolder> {
        std::fs::create_dir_all(&path)?;
        Ok(SaveFolder { path, next: AtomicU64::new(1) })
    }

    /// Writes one message to a file that was not there before.
    fn save(&self, message: &[u8]) -> io::Result<()> {
        loop {
            let number = self.next.fetch_add(1, Ordering::Relaxed);
            let path = self.path.join(format!("{number:08}.eml"));
            match std::fs::OpenOptions::new().write(true).create_new(true).open(path) {
                Ok(mut file) => return file.write_all(message),
                Err(error) if error.kind() == io::ErrorKind::AlreadyExists => {}
                Err(error) => return Err(error),
            }
        }
    }
}

struct Listener {
    socket: Socket,
    implicit_tls: bool,
    /// Rests until then.
    paused: Option<Instant>,
}

/// The sessions of one shard.
pub struct SinkService {
    listeners: Vec<Listener>,
    config: Arc<ServerConfig>,
    tls: Option<ServerTls>,
    policy: SinkPolicy,
    /// By file slot, from `first_file` on.
    sessions: Vec<Option<Box<Session>>>,
    first_file: u32,
    save: Option<Arc<SaveFolder>>,
    save_failed: bool,
}

impl SinkService {
    /// A service whose connections get file slots from `first_file` on.
    pub fn new(spec: SinkSpec, first_file: u32) -> SinkService {
        SinkService {
            listeners: spec
                .listeners
                .into_iter()
                .map(|ListenerSpec { socket, implicit_tls }| Listener { socket, implicit_tls, paused: None })
                .collect(),
            config: spec.config,
            tls: spec.tls,
            policy: SinkPolicy::new(spec.settings, spec.start, spec.seed),
            sessions: Vec::new(),
            first_file,
            save: spec.save,
            save_failed: false,
        }
    }

    /// What has arrived so far.
    pub fn counts(&self) -> Counts {
        self.policy.counts()
    }

    /// Begins to accept.
    pub fn open(&mut self, connections: &mut Connections) {
        for (index, listener) in self.listeners.iter().enumerate() {
            connections.ring().accept(index as u32, &listener.socket);
        }
    }

    /// When [`SinkService::turn`] must be called at the latest.
    pub fn wake_at(&self) -> Instant {
        self.listeners.iter().filter_map(|listener| listener.paused).min().unwrap_or(Instant::NEVER)
    }

    /// What the passing of time brings, and the messages that the turn has brought.
    pub fn turn(&mut self, now: Instant, connections: &mut Connections) {
        for (index, listener) in self.listeners.iter_mut().enumerate() {
            if listener.paused.is_some_and(|until| until <= now) {
                listener.paused = None;
                connections.ring().accept(index as u32, &listener.socket);
            }
        }
        if let Some(folder) = &self.save {
            for message in self.policy.take_kept() {
                if let (Err(error), false) = (folder.save(&message), self.save_failed) {
                    self.save_failed = true;
                    // Whoever closed standard error does not want to know.
                    let shown = folder.path.display();
                    let _ = writeln!(io::stderr(), "timecop: some messages could not be saved: {shown}: {error}");
                }
            }
        }
    }

    /// A listener has a new connection, or could not have one.
    pub fn accept_completed(&mut self, completion: &Completion, connections: &mut Connections) {
        let now = completion.arrived;
        let listener = &mut self.listeners[completion.index as usize];
        match u32::try_from(completion.result) {
            Ok(file) => {
                if !completion.more {
                    connections.ring().accept(completion.index, &listener.socket);
                }
                let implicit_tls = listener.implicit_tls;
                self.accepted(file, now, implicit_tls, connections);
            }
            // Out of file slots, descriptors or memory: to try again at once would spin.
            Err(_) if !completion.more => listener.paused = Some(now + ACCEPT_PAUSE),
            // The kernel has closed a connection for which it had no file slot; the client sees that.
            Err(_) => {}
        }
    }

    fn accepted(&mut self, file: u32, now: Instant, implicit_tls: bool, connections: &mut Connections) {
        connections.accepted(file);
        let index = (file - self.first_file) as usize;
        if index >= self.sessions.len() {
            self.sessions.resize_with(index + 1, || None);
        }
        let session = self.sessions[index].insert(Box::new(Session::new()));
        if implicit_tls {
            session.secure(now, &self.config);
            self.start_tls(file, connections);
            return self.follow(file, Flow::Continue, connections);
        }
        let out = &mut connections.outgoing(file).bytes;
        let flow = session.connected(now, &self.config, &mut self.policy, out);
        self.follow(file, flow, connections);
    }

    /// Bytes came from a client.
    #[inline]
    pub fn received(&mut self, file: u32, arrived: Instant, bytes: &[u8], connections: &mut Connections) {
        let index = (file - self.first_file) as usize;
        let Some(session) = self.sessions.get_mut(index).and_then(Option::as_mut) else { return };
        let out = &mut connections.outgoing(file).bytes;
        let flow = session.handle(arrived, bytes, &self.config, &mut self.policy, out);
        // A client that goes on sending and reads nothing of what it is answered.
        let flow = if out.len() > UNREAD_BYTES_MAX { Flow::Drop } else { flow };
        self.follow(file, flow, connections);
    }

    fn start_tls(&mut self, file: u32, connections: &mut Connections) {
        if let Some(tls) = &self.tls {
            connections.start_tls(file, tls.accept());
        }
    }

    /// A client's TLS handshake has come to its good end.
    pub fn tls_ready(&mut self, file: u32, now: Instant, resumed: bool, connections: &mut Connections) {
        let index = (file - self.first_file) as usize;
        let Some(session) = self.sessions.get_mut(index).and_then(Option::as_mut) else { return };
        let out = &mut connections.outgoing(file).bytes;
        let flow = session.tls_ready(now, resumed, &self.config, &mut self.policy, out);
        self.follow(file, flow, connections);
    }

    /// A client's TLS handshake failed, or its TLS broke.
    pub fn tls_failed(&mut self, file: u32, connections: &mut Connections) {
        let index = (file - self.first_file) as usize;
        let Some(session) = self.sessions.get_mut(index).and_then(Option::as_mut) else { return };
        let flow = session.tls_failed(&mut self.policy);
        self.follow(file, flow, connections);
    }

    /// A session's deadline has come.
    pub fn expired(&mut self, file: u32, now: Instant, connections: &mut Connections) {
        let index = (file - self.first_file) as usize;
        let Some(session) = self.sessions.get_mut(index).and_then(Option::as_mut) else { return };
        let out = &mut connections.outgoing(file).bytes;
        let flow = session.handle_timeout(now, &self.config, &mut self.policy, out);
        self.follow(file, flow, connections);
    }

    /// A client has closed its side, or its connection broke.
    pub fn closed(&mut self, file: u32, connections: &mut Connections) {
        let index = (file - self.first_file) as usize;
        let Some(session) = self.sessions.get_mut(index).and_then(Option::as_mut) else { return };
        let flow = session.end_of_stream(&mut self.policy);
        self.follow(file, flow, connections);
    }

    #[inline]
    fn follow(&mut self, file: u32, flow: Flow, connections: &mut Connections) {
        let index = (file - self.first_file) as usize;
        match flow {
            Flow::StartTls => {
                self.start_tls(file, connections);
                self.follow(file, Flow::Continue, connections);
            }
            Flow::Continue => {
                if let Some(session) = &self.sessions[index] {
                    connections.timers.set(file, session.deadline());
                }
            }
            Flow::Close => {
                self.sessions[index] = None;
                connections.close_after_write(file);
            }
            Flow::Drop => {
                self.sessions[index] = None;
                connections.close(file);
            }
        }
    }
}
