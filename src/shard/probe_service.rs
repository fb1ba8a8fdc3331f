//! Our own port 25 on a shard: incoming connections, and the sessions on them whose last reply waits for control.

use std::net::{IpAddr, SocketAddr};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use async_channel::Sender;

use super::connections::Connections;
use super::listeners::{Accept, Listeners};
use super::mailbox::Event;
use super::ring::Completion;
use super::sink_service::{ListenerSpec, UNREAD_BYTES_MAX};
use super::tls::ServerTls;
use crate::probe::policy::{DEFERRED, MADE_ROOM, ProbePolicy, ServerCounts, Verdict, Visitor, VisitorPolicy};
use crate::time::Instant;
use crate::wire::smtp::server::{Flow, ServerConfig, Session};

/// How long a client may take to read its last reply.
pub(super) const PARTING_TIME_MAX: Duration = Duration::from_secs(30);

/// What a shard needs to serve our own port 25.
#[derive(Debug)]
pub struct ProbeSpec {
    /// Bound and listening.
    pub listeners: Vec<ListenerSpec>,
    /// Needed where `config` offers STARTTLS, or a listener begins with it.
    pub tls: Option<ServerTls>,
    /// What all sessions have in common.
    pub config: ServerConfig,
    /// What is taken.
    pub policy: ProbePolicy,
    /// Where what was seen is written for others to read.
    pub counts: Arc<Mutex<ServerCounts>>,
}

struct Visit {
    session: Session,
    visitor: Visitor,
}

/// The sessions of our own port 25.
pub struct ProbeService {
    spec: ProbeSpec,
    listeners: Listeners,
    /// By file slot, from `first_file` on.
    visits: Vec<Option<Box<Visit>>>,
    first_file: u32,
    shard: usize,
    events: Sender<(usize, Event)>,
    /// What others can read.
    published: ServerCounts,
}

impl ProbeService {
    /// A service whose connections get file slots from `first_file` on, and which tells control of arrivals.
    pub fn new(mut spec: ProbeSpec, first_file: u32, shard: usize, events: Sender<(usize, Event)>) -> ProbeService {
        let listeners = Listeners::new(std::mem::take(&mut spec.listeners), Accept::One);
        let published = ServerCounts::default();
        ProbeService { spec, listeners, visits: Vec::new(), first_file, shard, events, published }
    }

    /// Begins to accept.
    pub fn open(&mut self, connections: &mut Connections) {
        self.listeners.open(connections);
    }

    /// When [`ProbeService::turn`] must be called at the latest.
    pub fn wake_at(&self) -> Instant {
        self.listeners.wake_at()
    }

    /// What the passing of time brings.
    pub fn turn(&mut self, now: Instant, connections: &mut Connections) {
        self.listeners.turn(now, connections);
        if self.published != self.spec.policy.counts {
            self.published = self.spec.policy.counts;
            *self.spec.counts.lock().unwrap_or_else(PoisonError::into_inner) = self.published;
        }
    }

    /// A listener has a new connection, or could not have one.
    pub fn accept_completed(&mut self, completion: &Completion, connections: &mut Connections) {
        let client = connections.ring().take_peer(completion.index);
        if let Some((file, listener)) = self.listeners.accepted(completion, connections) {
            let implicit_tls = listener.implicit_tls;
            self.accepted(file, completion.arrived, client, implicit_tls, connections);
        }
    }

    fn accepted(
        &mut self,
        file: u32,
        now: Instant,
        client: Option<SocketAddr>,
        implicit_tls: bool,
        connections: &mut Connections,
    ) {
        connections.accepted(file);
        let index = (file - self.first_file) as usize;
        if index >= self.visits.len() {
            self.visits.resize_with(index + 1, || None);
        }
        let client = client.map(|client| client.ip());
        let visitor = self.spec.policy.enter(now, client);
        if let Some(crowd) = self.spec.policy.crowd(&visitor) {
            self.make_room(crowd, now, connections);
        }
        self.visits[index] = Some(Box::new(Visit { session: Session::new(), visitor }));
        self.with(file, now, connections, |session, config, policy, out| match implicit_tls {
            true => {
                session.secure(now, config);
                Some(Flow::Continue)
            }
            false => Some(session.connected(now, config, policy, out)),
        });
        if implicit_tls {
            self.start_tls(file, connections);
        }
    }

    /// Ends the oldest session of a client, but for one whose message waits for its reply.
    fn make_room(&mut self, client: IpAddr, now: Instant, connections: &mut Connections) {
        let visits = self.visits.iter().enumerate().filter_map(|(index, visit)| Some((index, visit.as_ref()?)));
        let of_client = visits.filter(|(_, visit)| visit.visitor.is_of(client) && visit.session.pending().is_none());
        let Some((index, _)) = of_client.min_by_key(|(_, visit)| visit.visitor.until()) else { return };
        let file = index as u32 + self.first_file;
        connections.outgoing(file).bytes.extend_from_slice(MADE_ROOM);
        self.spec.policy.counts.sessions_ended += 1;
        self.follow(file, now, Flow::Close, connections);
    }

    /// Connections that begin from now on are secured by this, where STARTTLS is offered.
    pub fn secure(&mut self, tls: ServerTls) {
        self.spec.tls = Some(tls);
    }

    fn start_tls(&self, file: u32, connections: &mut Connections) {
        if let Some(tls) = &self.spec.tls {
            connections.start_tls(file, tls.accept());
        }
    }

    /// Bytes came from a client.
    pub fn received(&mut self, file: u32, arrived: Instant, bytes: &[u8], connections: &mut Connections) {
        self.with(file, arrived, connections, |session, config, policy, out| {
            let flow = session.handle(arrived, bytes, config, policy, out);
            // A client that goes on sending and reads nothing of what it is answered.
            Some(if out.len() > UNREAD_BYTES_MAX { Flow::Drop } else { flow })
        });
    }

    /// A client's TLS handshake has come to its good end.
    pub fn tls_ready(&mut self, file: u32, now: Instant, resumed: bool, connections: &mut Connections) {
        self.with(file, now, connections, |session, config, policy, out| {
            Some(session.tls_ready(now, resumed, config, policy, out))
        });
    }

    /// A client's TLS handshake failed, or its TLS broke.
    pub fn tls_failed(&mut self, file: u32, now: Instant, connections: &mut Connections) {
        self.with(file, now, connections, |session, _, policy, _| Some(session.tls_failed(policy)));
    }

    /// A client has closed its side, or its connection broke.
    pub fn closed(&mut self, file: u32, now: Instant, connections: &mut Connections) {
        self.with(file, now, connections, |session, _, policy, _| Some(session.end_of_stream(policy)));
    }

    /// A deadline has come.
    pub fn expired(&mut self, file: u32, now: Instant, connections: &mut Connections) {
        let index = (file - self.first_file) as usize;
        match self.visits.get(index).and_then(Option::as_ref) {
            // It has not read its last reply.
            None => connections.close(file),
            Some(visit) if now >= visit.visitor.until() => self.follow(file, now, Flow::Drop, connections),
            Some(visit) => {
                let waited = visit.session.pending();
                self.with(file, now, connections, |session, config, policy, out| {
                    Some(session.handle_timeout(now, config, policy, out))
                });
                let waits = self.visits[index].as_ref().and_then(|visit| visit.session.pending());
                self.spec.policy.counts.deferred += u64::from(waited.is_some() && waits.is_none());
            }
        }
    }

    /// Control has decided over an arrival. One that waits no longer is passed over.
    pub fn answer(&mut self, ticket: u64, verdict: Verdict, now: Instant, connections: &mut Connections) {
        let waits = |visit: &Option<Box<Visit>>| visit.as_ref().is_some_and(|v| v.session.pending() == Some(ticket));
        let Some(index) = self.visits.iter().position(waits) else { return };
        let refusal = match verdict {
            Verdict::Accept => None,
            Verdict::Defer => Some(&DEFERRED),
        };
        match verdict {
            Verdict::Accept => self.spec.policy.counts.accepted += 1,
            Verdict::Defer => self.spec.policy.counts.deferred += 1,
        }
        self.with(index as u32 + self.first_file, now, connections, |session, config, policy, out| {
            session.settle(now, (ticket, refusal), config, policy, out)
        });
    }

    /// Calls a session, does as it says, and tells control of what it has brought.
    fn with(
        &mut self,
        file: u32,
        now: Instant,
        connections: &mut Connections,
        call: impl FnOnce(&mut Session, &ServerConfig, &mut VisitorPolicy<'_>, &mut Vec<u8>) -> Option<Flow>,
    ) {
        let index = (file - self.first_file) as usize;
        let Some(visit) = self.visits.get_mut(index).and_then(Option::as_mut) else { return };
        let Visit { session, visitor } = &mut **visit;
        let out = &mut connections.outgoing(file).bytes;
        let flow = call(session, &self.spec.config, &mut self.spec.policy.of(visitor), out);
        if let Some(flow) = flow {
            self.follow(file, now, flow, connections);
        }
        for arrival in self.spec.policy.take_arrivals() {
            let ticket = arrival.ticket;
            if self.events.try_send((self.shard, Event::Arrived(arrival))).is_err() {
                self.answer(ticket, Verdict::Defer, now, connections);
            }
        }
    }

    fn follow(&mut self, file: u32, now: Instant, flow: Flow, connections: &mut Connections) {
        let index = (file - self.first_file) as usize;
        if flow == Flow::StartTls {
            self.start_tls(file, connections);
        }
        match flow {
            Flow::StartTls | Flow::Continue => {
                if let Some(visit) = &self.visits[index] {
                    connections.timers.set(file, visit.session.deadline().min(visit.visitor.until()));
                }
            }
            Flow::Close | Flow::Drop | Flow::Reset => {
                if let Some(visit) = self.visits[index].take() {
                    self.spec.policy.leave(&visit.visitor);
                }
                if flow != Flow::Close {
                    return connections.close(file);
                }
                connections.close_after_write(file);
                connections.timers.set(file, now + PARTING_TIME_MAX);
            }
        }
    }
}
