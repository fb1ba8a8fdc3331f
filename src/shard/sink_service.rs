//! Incoming connections of a shard, and the sessions on them.

use std::cmp::Reverse;
use std::collections::BinaryHeap;
use std::io::{self, Write as _};
use std::net::IpAddr;
use std::path::PathBuf;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use socket2::Socket;

use super::connections::Connections;
use super::http_service::{HttpService, HttpSession, HttpSpec};
use super::listeners::{Accept, Listeners};
use super::probe_service::PARTING_TIME_MAX;
use super::ring::Completion;
use super::tls::{FaultyTls, ServerTls};
use crate::sink::fault::TlsFault;
use crate::sink::{Faults, SinkCounts, SinkPolicy, SinkSettings};
use crate::time::Instant;
use crate::wire::smtp::server::{Flow, ServerConfig, Session};

/// Octets of replies that may wait for a client to read them.
pub(super) const UNREAD_BYTES_MAX: usize = 256 << 10;

/// What a shard needs to serve.
#[derive(Debug)]
pub struct SinkSpec {
    /// Bound and listening.
    pub listeners: Vec<ListenerSpec>,
    /// The TLS of its connections: needed where a listener begins with it, or `config` offers STARTTLS.
    pub tls: Option<ServerTls>,
    /// What goes wrong with TLS; needed where there is TLS.
    pub faulty_tls: Option<FaultyTls>,
    /// What the listeners for HTTP serve, where there are any.
    pub http: Option<HttpSpec>,
    /// What all SMTP sessions have in common.
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
    /// What is spoken on them.
    pub protocol: Protocol,
}

/// What a listener's connections speak.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Protocol {
    /// RFC 5321.
    Smtp,
    /// HTTP/1.1, to the stub of a mail provider's API.
    Http,
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

/// The session on one connection.
enum Conversation {
    Smtp(Session),
    Http(Box<HttpSession>),
    /// None: what comes first, which is the beginning of a TLS handshake, ends the connection.
    Doomed {
        resets: bool,
    },
}

/// Times a second that a client is read which is read slowly, if it is not fewer octets.
const SIPS_PER_S: u32 = 10;
/// How long a doomed connection waits for its client to begin.
const DOOMED_FOR: Duration = Duration::from_secs(60);

/// How connections are accepted: rules may have to know where they come from.
fn accept_by(faults: &Faults) -> Accept {
    if faults.want_addresses() { Accept::One } else { Accept::Many }
}

/// The sessions of one shard.
pub struct SinkService {
    listeners: Listeners,
    /// With what it could offer.
    whole_config: Arc<ServerConfig>,
    /// Without what faults withhold.
    config: Arc<ServerConfig>,
    tls: Option<ServerTls>,
    faulty_tls: Option<FaultyTls>,
    /// Connections that are read slowly, by when they are read on.
    sipping: BinaryHeap<Reverse<(Instant, u32)>>,
    policy: SinkPolicy,
    http: Option<HttpService>,
    /// By file slot, from `first_file` on.
    sessions: Vec<Option<Box<Conversation>>>,
    first_file: u32,
    save: Option<Arc<SaveFolder>>,
    save_failed: bool,
}

impl SinkService {
    /// A service whose connections get file slots from `first_file` on.
    pub fn new(spec: SinkSpec, first_file: u32) -> SinkService {
        SinkService {
            listeners: Listeners::new(spec.listeners, accept_by(&spec.settings.faults)),
            config: Arc::clone(&spec.config),
            whole_config: spec.config,
            tls: spec.tls,
            faulty_tls: spec.faulty_tls,
            sipping: BinaryHeap::new(),
            policy: SinkPolicy::new(spec.settings, spec.start, spec.seed),
            http: spec.http.map(|http| HttpService::new(http, spec.start, spec.seed)),
            sessions: Vec::new(),
            first_file,
            save: spec.save,
            save_failed: false,
        }
    }

    /// What has arrived so far.
    pub fn counts(&self) -> SinkCounts {
        SinkCounts { smtp: self.policy.counts(), http: self.http.as_ref().map(HttpService::counts) }
    }

    /// Begins to accept.
    pub fn open(&mut self, connections: &mut Connections) {
        self.prepare_faults();
        self.listeners.open(connections);
    }

    /// Other faults take the place of these, for connections that are open, too.
    pub fn set_faults(&mut self, faults: Faults, connections: &mut Connections) {
        if let Some(http) = &mut self.http {
            http.set_faults(faults.clone());
        }
        self.listeners.set_accept(accept_by(&faults), connections);
        let open = self.sessions.iter().enumerate().filter(|(_, session)| session.is_some()).map(|(index, _)| index);
        // Whoever was read slowly is so no more, unless the new rules say it again.
        self.sipping.clear();
        open.clone().for_each(|index| connections.gulp(self.first_file + index as u32));
        self.policy.set_faults(faults, open);
        self.prepare_faults();
    }

    /// What faults need beside the policy.
    fn prepare_faults(&mut self) {
        let faults = self.policy.faults();
        self.config = match faults.withheld() {
            none if none.is_empty() => Arc::clone(&self.whole_config),
            withheld => Arc::new(ServerConfig::clone(&self.whole_config).without(withheld)),
        };
    }

    /// When [`SinkService::turn`] must be called at the latest.
    pub fn wake_at(&self) -> Instant {
        let rested = self.listeners.wake_at();
        self.sipping.peek().map_or(rested, |Reverse((due, _))| rested.min(*due))
    }

    /// What the passing of time brings, and the messages that the turn has brought.
    pub fn turn(&mut self, now: Instant, connections: &mut Connections) {
        self.listeners.turn(now, connections);
        while self.sipping.peek().is_some_and(|Reverse((due, _))| *due <= now)
            && let Some(Reverse((_, file))) = self.sipping.pop()
        {
            connections.read_on(file);
        }
        if connections.has_sipped() {
            self.rest_sippers(now, connections);
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
        let client = connections.ring().take_peer(completion.index).map(|client| client.ip());
        if let Some((file, listener)) = self.listeners.accepted(completion, connections) {
            let (implicit_tls, protocol) = (listener.implicit_tls, listener.protocol);
            self.accepted(file, completion.arrived, (implicit_tls, protocol), client, connections);
        }
    }

    fn accepted(
        &mut self,
        file: u32,
        now: Instant,
        (implicit_tls, protocol): (bool, Protocol),
        client: Option<IpAddr>,
        connections: &mut Connections,
    ) {
        connections.accepted(file);
        let index = (file - self.first_file) as usize;
        if index >= self.sessions.len() {
            self.sessions.resize_with(index + 1, || None);
        }
        let session = match protocol {
            Protocol::Smtp => Conversation::Smtp(Session::new()),
            Protocol::Http => Conversation::Http(Box::new(HttpSession::new())),
        };
        let session = self.sessions[index].insert(Box::new(session));
        if self.policy.is_faulty() {
            self.policy.enter(index, client);
            self.policy.attend(index, now);
            let struck = self.policy.strike_connect(now);
            if struck.drop || struck.reset {
                return self.follow(file, now, if struck.reset { Flow::Reset } else { Flow::Drop }, connections);
            }
        }
        if implicit_tls {
            match (&mut **session, &self.http) {
                (Conversation::Smtp(session), _) => session.secure(now, &self.config),
                (Conversation::Http(session), Some(http)) => session.secure(now, &http.config),
                (Conversation::Http(_), None) | (Conversation::Doomed { .. }, _) => {}
            }
            self.start_tls(file, now, connections);
            return self.follow(file, now, Flow::Continue, connections);
        }
        let out = &mut connections.outgoing(file).bytes;
        let flow = match (&mut **session, &mut self.http) {
            (Conversation::Smtp(session), _) => session.connected(now, &self.config, &mut self.policy, out),
            (Conversation::Http(session), Some(http)) => session.connected(now, &http.config, &mut http.stub),
            (Conversation::Http(_), None) | (Conversation::Doomed { .. }, _) => Flow::Drop,
        };
        self.follow(file, now, flow, connections);
    }

    /// Bytes came from a client.
    #[inline]
    pub fn received(&mut self, file: u32, now: Instant, bytes: &[u8], connections: &mut Connections) {
        let index = (file - self.first_file) as usize;
        let Some(session) = self.sessions.get_mut(index).and_then(Option::as_mut) else { return };
        self.policy.attend(index, now);
        let out = &mut connections.outgoing(file).bytes;
        let flow = match (&mut **session, &mut self.http) {
            (Conversation::Smtp(session), _) => session.handle(now, bytes, &self.config, &mut self.policy, out),
            (Conversation::Http(session), Some(http)) => session.handle(now, bytes, &http.config, &mut http.stub, out),
            (Conversation::Doomed { resets: true }, _) => Flow::Reset,
            (Conversation::Http(_), None) | (Conversation::Doomed { .. }, _) => Flow::Drop,
        };
        // A client that goes on sending and reads nothing of what it is answered.
        let flow = if out.len() > UNREAD_BYTES_MAX { Flow::Drop } else { flow };
        self.follow(file, now, flow, connections);
    }

    fn start_tls(&mut self, file: u32, now: Instant, connections: &mut Connections) {
        let index = (file - self.first_file) as usize;
        let fault = match self.policy.is_faulty() {
            true => {
                self.policy.attend(index, now);
                self.policy.strike_tls(now)
            }
            false => None,
        };
        if let Some(TlsFault::Drop | TlsFault::Reset) = fault {
            let resets = fault == Some(TlsFault::Reset);
            self.sessions[index] = Some(Box::new(Conversation::Doomed { resets }));
            return connections.timers.set(file, now + DOOMED_FOR);
        }
        let (tls, faulty) = match (self.sessions[index].as_deref(), &self.http) {
            (Some(Conversation::Http(_)), Some(http)) => (&http.tls, &http.faulty_tls),
            _ => (&self.tls, &self.faulty_tls),
        };
        let tls = match (fault, faulty) {
            (Some(TlsFault::Refuse), Some(faulty)) => Some(&faulty.refusing),
            (Some(TlsFault::Expired), Some(faulty)) => Some(&faulty.expired),
            (Some(TlsFault::WrongName), Some(faulty)) => Some(&faulty.wrong_name),
            _ => tls.as_ref(),
        };
        if let Some(tls) = tls {
            connections.start_tls(file, tls.accept());
        }
    }

    /// Connections that are read slowly and have been read rest for as long as what they had is worth.
    #[cold]
    fn rest_sippers(&mut self, now: Instant, connections: &mut Connections) {
        for (file, octets, bytes_per_s) in connections.take_sipped() {
            let rest = Duration::from_nanos(u64::from(octets) * 1_000_000_000 / u64::from(bytes_per_s));
            self.sipping.push(Reverse((now + rest, file)));
        }
    }

    /// A client's TLS handshake has come to its good end.
    pub fn tls_ready(&mut self, file: u32, now: Instant, resumed: bool, connections: &mut Connections) {
        let index = (file - self.first_file) as usize;
        let Some(session) = self.sessions.get_mut(index).and_then(Option::as_mut) else { return };
        if self.policy.is_faulty() {
            self.policy.attend(index, now);
        }
        let out = &mut connections.outgoing(file).bytes;
        let flow = match (&mut **session, &mut self.http) {
            (Conversation::Smtp(session), _) => session.tls_ready(now, resumed, &self.config, &mut self.policy, out),
            (Conversation::Http(session), Some(http)) => session.tls_ready(now, resumed, &http.config, &mut http.stub),
            (Conversation::Http(_), None) | (Conversation::Doomed { .. }, _) => Flow::Drop,
        };
        self.follow(file, now, flow, connections);
    }

    /// A client's TLS handshake failed, or its TLS broke.
    pub fn tls_failed(&mut self, file: u32, now: Instant, connections: &mut Connections) {
        let index = (file - self.first_file) as usize;
        let Some(session) = self.sessions.get_mut(index).and_then(Option::as_mut) else { return };
        let flow = match (&mut **session, &mut self.http) {
            (Conversation::Smtp(session), _) => session.tls_failed(&mut self.policy),
            (Conversation::Http(session), Some(http)) => session.tls_failed(&mut http.stub),
            (Conversation::Http(_), None) | (Conversation::Doomed { .. }, _) => Flow::Drop,
        };
        self.follow(file, now, flow, connections);
    }

    /// A session's deadline has come.
    pub fn expired(&mut self, file: u32, now: Instant, connections: &mut Connections) {
        let index = (file - self.first_file) as usize;
        let Some(session) = self.sessions.get_mut(index).and_then(Option::as_mut) else {
            // It has not read its last reply.
            return connections.close(file);
        };
        let out = &mut connections.outgoing(file).bytes;
        let flow = match (&mut **session, &mut self.http) {
            (Conversation::Smtp(session), _) => session.handle_timeout(now, &self.config, &mut self.policy, out),
            (Conversation::Http(session), Some(http)) => session.handle_timeout(now, &http.config, &mut http.stub, out),
            (Conversation::Http(_), None) | (Conversation::Doomed { .. }, _) => Flow::Drop,
        };
        self.follow(file, now, flow, connections);
    }

    /// A client has closed its side, or its connection broke.
    pub fn closed(&mut self, file: u32, now: Instant, connections: &mut Connections) {
        let index = (file - self.first_file) as usize;
        let Some(session) = self.sessions.get_mut(index).and_then(Option::as_mut) else { return };
        let flow = match (&mut **session, &mut self.http) {
            (Conversation::Smtp(session), _) => session.end_of_stream(&mut self.policy),
            (Conversation::Http(session), Some(http)) => session.end_of_stream(&mut http.stub),
            (Conversation::Http(_), None) | (Conversation::Doomed { .. }, _) => Flow::Drop,
        };
        self.follow(file, now, flow, connections);
    }

    #[inline]
    fn follow(&mut self, file: u32, now: Instant, flow: Flow, connections: &mut Connections) {
        let index = (file - self.first_file) as usize;
        let is_faulty = self.policy.is_faulty();
        match flow {
            Flow::StartTls => {
                self.start_tls(file, now, connections);
                self.follow(file, now, Flow::Continue, connections);
            }
            Flow::Continue => {
                let deadline = match self.sessions[index].as_deref() {
                    Some(Conversation::Smtp(session)) => session.deadline(),
                    Some(Conversation::Http(session)) => session.deadline(),
                    Some(Conversation::Doomed { .. }) | None => return,
                };
                connections.timers.set(file, deadline);
                if is_faulty {
                    self.policy.attend(index, now);
                    if let Some(bytes_per_s) = self.policy.take_slow() {
                        connections.sip(file, (bytes_per_s / SIPS_PER_S).max(1), bytes_per_s);
                    }
                }
            }
            Flow::Close | Flow::Drop | Flow::Reset => {
                self.sessions[index] = None;
                if is_faulty {
                    self.policy.leave(index);
                }
                match flow {
                    Flow::Drop => connections.close(file),
                    _ => {
                        match flow {
                            Flow::Reset => connections.reset_after_write(file),
                            _ => connections.close_after_write(file),
                        }
                        connections.timers.set(file, now + PARTING_TIME_MAX);
                    }
                }
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::shard::connections::Notice;
    use crate::shard::ring::{Op, Ring, RingConfig};
    use crate::sink::StubSettings;
    use crate::sink::mailgun::REQUEST_BYTES_MAX;
    use crate::wire::http::server::ServerConfig as HttpConfig;

    const FIRST_FILE: u32 = 1;

    fn service() -> SinkService {
        let http = HttpSpec {
            tls: None,
            faulty_tls: None,
            config: Arc::new(HttpConfig::new(REQUEST_BYTES_MAX)),
            settings: StubSettings::default(),
        };
        let spec = SinkSpec {
            listeners: Vec::new(),
            tls: None,
            faulty_tls: None,
            http: Some(http),
            config: Arc::new(ServerConfig::new("sink.example.com", 1_000, true)),
            settings: SinkSettings::default(),
            start: Instant::ZERO,
            seed: 1,
            save: None,
        };
        SinkService::new(spec, FIRST_FILE)
    }

    /// Whether the slot becomes free. No socket is in it, of which the ring's completions tell.
    fn is_freed(file: u32, connections: &mut Connections) -> bool {
        for _ in 0..100 {
            if connections.ring().submit().unwrap() == 0 {
                connections.ring().wait(Duration::from_millis(10)).unwrap();
            }
            for index in 0..connections.ring().gather(Instant::ZERO) {
                let completion = connections.ring().completion(index);
                let notice = match completion.op {
                    Op::Receive => connections.receive_completed(&completion),
                    Op::Close => connections.close_completed(&completion),
                    _ => Notice::None,
                };
                if matches!(notice, Notice::Freed) {
                    return connections.is_free(file);
                }
            }
            connections.ring().recycle();
        }
        false
    }

    /// However far its last reply has come by then.
    #[test]
    fn a_client_that_does_not_read_its_last_reply_is_cut_off_when_its_time_is_over() {
        let request = &b"GET / HTTP/1.1\r\nHost: a.example\r\nConnection: close\r\n\r\n"[..];
        for (protocol, last) in [(Protocol::Http, request), (Protocol::Smtp, b"QUIT\r\n")] {
            let ring = Ring::new(RingConfig { dialed_files: 1, accepted_files: 2, buffers: 16 }).unwrap();
            let mut connections = Connections::new(ring, 3, Arc::default());
            let (mut service, file, now) = (service(), FIRST_FILE, Instant::from_ns(1_000_000_000));
            service.accepted(file, now, (false, protocol), None, &mut connections);
            assert!(connections.is_open(file), "{protocol:?}");
            service.received(file, now, last, &mut connections);
            assert!(!connections.is_open(file), "{protocol:?}: it has said its last word");
            let until = now + PARTING_TIME_MAX;
            let just_before = now + (PARTING_TIME_MAX - Duration::from_nanos(1));
            assert_eq!(connections.timers.expired(just_before), None, "{protocol:?}");
            assert_eq!(connections.timers.expired(until), Some(file), "{protocol:?}");
            service.expired(file, until, &mut connections);
            assert!(is_freed(file, &mut connections), "{protocol:?}");
        }
    }
}
