//! A network in virtual time between workers and an SMTP server. One seed decides everything that happens in it.
//!
//! The client's side keeps the pump's rules: all that arrives in a turn carries the turn's time; what a worker puts out
//! leaves together at the end of the turn; a close ends everything; a dial waits for the close before it.

mod ends;

use std::collections::{BTreeMap, VecDeque};
use std::hash::{DefaultHasher, Hash, Hasher};

use rand::{RngExt, SeedableRng};
use rand_pcg::Pcg64;
use timecop::job::link::{LinkError, Links, TlsFailure, TlsSession};
use timecop::job::worker::Worker;
use timecop::sink::fault::TlsFault;
use timecop::time::Instant;

use self::ends::{Ends, Stage, Tls};
use crate::server::{Parting, Peer, Server};

/// What every good handshake of the simulation comes to.
const TLS_SESSION: TlsSession = TlsSession { version: "TLSv1.3", cipher: "TLS13_AES_256_GCM_SHA384", resumed: false };

/// What the network does to connections. Times in nanoseconds, the rest probabilities.
#[derive(Clone, Debug, Default)]
pub struct Conditions {
    /// One way, the least and the most; each connection has its own.
    pub latency_ns: (u64, u64),
    /// Most that is added for a piece.
    pub jitter_ns: u64,
    /// A write is torn into pieces.
    pub split: f64,
    /// Most that a turn of the client lasts, and that it wakes too late.
    pub turn_ns: u64,
    /// A connect is refused.
    pub refuse: f64,
    /// A connect is never answered.
    pub ignore: f64,
    /// A connect fails before it has begun.
    pub no_ports: f64,
    /// A write breaks its connection.
    pub reset: f64,
    /// A write is lost with all that follows it.
    pub swallow: f64,
    /// A close is a reset.
    pub rude_close: f64,
    /// Connects at once; 0 for any number.
    pub dialing_max: usize,
    /// The kernel takes a part of a write, and the rest later.
    pub short_write: f64,
    /// A TLS handshake fails, on either side.
    pub tls_fail: f64,
    /// TLS breaks at a piece that arrives, on either side.
    pub tls_break: f64,
}

/// Which way octets go.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
enum Way {
    ToServer,
    ToClient,
}

#[derive(Debug)]
enum Item {
    Bytes(Vec<u8>),
    /// The first flight of a TLS handshake, and the server's answer.
    Hello,
    /// The server's answer with a certificate that nobody should believe.
    BadHello,
    /// The client's last word of a handshake.
    Finished,
    End,
    Reset,
}

#[derive(Debug, Default)]
struct Pipe {
    items: VecDeque<(u64, Item)>,
    /// When the last item arrives.
    last_ns: u64,
    /// Nothing more gets through.
    is_dead: bool,
}

impl Pipe {
    fn arrived(&mut self, at_ns: u64) -> Option<Item> {
        self.items.front().filter(|item| item.0 <= at_ns)?;
        self.items.pop_front().map(|(_, item)| item)
    }
}

struct Connection {
    shard: usize,
    slot: u32,
    latency_ns: u64,
    to_server: Pipe,
    to_client: Pipe,
    /// None before the server has accepted it.
    peer: Option<Peer>,
    timer_queued_ns: u64,
    /// What the kernel has not yet taken of the client's writes.
    unsent: Vec<u8>,
    /// The end of what the client has read, for [`World::accepted_heard`].
    heard: Vec<u8>,
}

impl Connection {
    fn pipe(&mut self, way: Way) -> &mut Pipe {
        match way {
            Way::ToServer => &mut self.to_server,
            Way::ToClient => &mut self.to_client,
        }
    }
}

#[derive(Debug, Hash)]
enum Event {
    /// Something has come out of a pipe.
    Arrive(usize, Way),
    /// The server accepts.
    Accept(usize),
    Connected(usize),
    ConnectFailed(usize, LinkError),
    /// The kernel takes the rest of a write.
    Left(usize),
    /// A closed slot can be dialled again.
    Freed(usize, u32),
    SessionTimer(usize),
    /// A hostile server does something unasked.
    Mischief(usize),
}

/// A worker and its ends.
pub struct Shard {
    /// Under test.
    pub worker: Worker,
    /// Its connections.
    pub ends: Ends,
}

/// Everything there is.
pub struct World {
    /// Virtual nanoseconds.
    pub now_ns: u64,
    /// The clients.
    pub shards: Vec<Shard>,
    /// The target.
    pub server: Server,
    /// Octets that workers have written.
    pub written: u64,
    /// Connections that workers were told to be open.
    pub connected: u64,
    /// Replies by which the server accepted a message and which a worker has read.
    pub accepted_heard: u64,
    /// Writes that the kernel did not take at once.
    pub short_writes: u64,
    /// Everything that has happened, in order.
    log: DefaultHasher,
    conditions: Conditions,
    random: Pcg64,
    connections: Vec<Connection>,
    events: BTreeMap<(u64, u64), Event>,
    event_number: u64,
}

impl World {
    /// A world at `now_ns`, in which nothing was dialled yet.
    pub fn new(now_ns: u64, workers: Vec<Worker>, server: Server, conditions: Conditions, seed: u64) -> World {
        let shard = |worker: Worker| Shard { ends: Ends::new(worker.connections()), worker };
        World {
            now_ns,
            shards: workers.into_iter().map(shard).collect(),
            server,
            written: 0,
            connected: 0,
            accepted_heard: 0,
            short_writes: 0,
            log: DefaultHasher::new(),
            conditions,
            random: Pcg64::seed_from_u64(seed),
            connections: Vec::new(),
            events: BTreeMap::new(),
            event_number: 0,
        }
    }

    /// Starts all workers.
    pub fn start(&mut self) {
        let now = Instant::from_ns(self.now_ns);
        for shard in 0..self.shards.len() {
            self.with(shard, |worker, ends| worker.start(now, ends));
        }
        self.end_of_turn();
    }

    /// A number that stands for everything that has happened: for every event with its time, and for every octet.
    pub fn log(&self) -> u64 {
        self.log.finish()
    }

    /// Stops all workers.
    pub fn stop(&mut self) {
        let now = Instant::from_ns(self.now_ns);
        for shard in 0..self.shards.len() {
            self.with(shard, |worker, ends| worker.stop(now, ends));
        }
        self.end_of_turn();
    }

    /// Whether every worker is done.
    pub fn is_finished(&self) -> bool {
        self.shards.iter().all(|shard| shard.worker.is_finished())
    }

    /// Whether no client's end is in use.
    pub fn is_closed(&self) -> bool {
        let ends = self.shards.iter().flat_map(|shard| &shard.ends.ends);
        ends.into_iter().all(|end| matches!(end.stage, Stage::Free | Stage::Closing) && !end.redial)
    }

    /// Whether the server has no session open, but for those whose end was lost on the way.
    pub fn is_closed_at_server(&self) -> bool {
        let open = |connection: &Connection| connection.peer.as_ref().is_some_and(|peer| peer.is_open);
        self.connections.iter().all(|connection| !open(connection) || connection.to_server.is_dead)
    }

    /// When something happens next, if anything ever does.
    pub fn next_ns(&self) -> Option<u64> {
        let mut next = self.events.first_key_value().map_or(u64::MAX, |(key, _)| key.0);
        for Shard { worker, ends } in self.shards.iter().filter(|shard| !shard.worker.is_finished()) {
            let timer = ends.timers.first().map_or(Instant::NEVER, |timer| timer.0);
            next = next.min(timer.min(worker.wake_at()).as_ns());
        }
        (next < u64::MAX).then_some(next.max(self.now_ns))
    }

    /// One turn of every worker, when something happens next; false when nothing ever does.
    pub fn turn(&mut self) -> bool {
        let Some(next) = self.next_ns() else { return false };
        self.now_ns = next + self.up_to(self.conditions.turn_ns);
        while let Some(entry) = self.events.first_entry().filter(|entry| entry.key().0 <= self.now_ns) {
            let ((at_ns, _), event) = entry.remove_entry();
            self.happen(at_ns, event);
        }
        let now = Instant::from_ns(self.now_ns);
        for shard in 0..self.shards.len() {
            self.expire(shard);
            self.with(shard, |worker, ends| worker.turn(now, ends));
        }
        self.end_of_turn();
        true
    }

    fn up_to(&mut self, most: u64) -> u64 {
        if most == 0 { 0 } else { self.random.random_range(0..=most) }
    }

    fn chance(&mut self, probability: f64) -> bool {
        probability > 0.0 && self.random.random_bool(probability)
    }

    fn later(&mut self, at_ns: u64, event: Event) {
        self.event_number += 1;
        self.events.insert((at_ns, self.event_number), event);
    }

    /// Lets a worker act and carries out what it closed.
    fn with<R>(&mut self, shard: usize, act: impl FnOnce(&mut Worker, &mut Ends) -> R) -> R {
        let Shard { worker, ends } = &mut self.shards[shard];
        let result = act(worker, ends);
        for (slot, was_dialing) in std::mem::take(&mut self.shards[shard].ends.closed) {
            let id = self.shards[shard].ends.ends[slot as usize].connection;
            let freed_ns = self.now_ns + 1 + self.up_to(self.conditions.turn_ns);
            self.later(freed_ns, Event::Freed(shard, slot));
            // A connection that no longer leads anywhere may still reach the server before its end does.
            if self.connections.get(id).is_some_and(|connection| !was_dialing || connection.peer.is_some()) {
                let rude = self.chance(self.conditions.rude_close);
                self.put(id, Way::ToServer, self.now_ns, if rude { Item::Reset } else { Item::End });
            }
        }
        result
    }

    fn expire(&mut self, shard: usize) {
        let now = Instant::from_ns(self.now_ns);
        while let Some(&(at, slot)) = self.shards[shard].ends.timers.first()
            && at <= now
        {
            self.shards[shard].ends.set_deadline(slot, Instant::NEVER);
            self.with(shard, |worker, ends| worker.timer(slot, now, ends));
        }
    }

    /// Dials those in line, and lets everything leave that was put out.
    fn end_of_turn(&mut self) {
        for shard in 0..self.shards.len() {
            self.dial_those_in_line(shard);
        }
        self.now_ns += self.up_to(self.conditions.turn_ns);
        let sent = Instant::from_ns(self.now_ns);
        for shard in 0..self.shards.len() {
            for slot in std::mem::take(&mut self.shards[shard].ends.touched) {
                let Shard { worker, ends } = &mut self.shards[shard];
                let end = &mut ends.ends[slot as usize];
                end.is_touched = false;
                match end.stage {
                    Stage::Dialing => {
                        worker.written(slot, sent, 0);
                        self.connect(shard, slot);
                    }
                    Stage::Open => {
                        let (bytes, id) = (end.out.to_vec(), end.connection);
                        end.out.clear();
                        let begins_tls = end.tls == Tls::Wanted;
                        if begins_tls {
                            end.tls = Tls::Handshaking;
                        }
                        if !bytes.is_empty() {
                            worker.written(slot, sent, bytes.len());
                            self.written += bytes.len() as u64;
                            self.log.write(&bytes);
                            self.write(id, bytes);
                        }
                        if begins_tls {
                            self.connections[id].to_server.is_dead |= self.chance(self.conditions.swallow);
                            self.put(id, Way::ToServer, self.now_ns, Item::Hello);
                        }
                    }
                    _ => {}
                }
            }
        }
    }

    /// Hands octets to the kernel, which may take some of them only later.
    fn write(&mut self, id: usize, mut bytes: Vec<u8>) {
        if !self.connections[id].unsent.is_empty() {
            return self.connections[id].unsent.append(&mut bytes);
        }
        if self.chance(self.conditions.short_write) {
            let rest = bytes.split_off(self.up_to(bytes.len() as u64 - 1) as usize);
            self.connections[id].unsent = rest;
            self.short_writes += 1;
            let left_ns = self.now_ns + 1 + self.up_to(2 * self.connections[id].latency_ns);
            self.later(left_ns, Event::Left(id));
        }
        self.transmit(id, Way::ToServer, self.now_ns, &bytes);
    }

    fn dial_those_in_line(&mut self, shard: usize) {
        let most = self.conditions.dialing_max;
        while most == 0 || self.shards[shard].ends.dialing < most {
            let ends = &mut self.shards[shard].ends;
            let Some(slot) = ends.in_line.pop_front() else { return };
            if ends.ends[slot as usize].stage != Stage::InLine {
                continue;
            }
            if self.chance(self.conditions.no_ports) {
                let now = Instant::from_ns(self.now_ns);
                self.shards[shard].ends.ends[slot as usize].stage = Stage::Free;
                self.with(shard, |worker, ends| worker.connect_failed(slot, now, LinkError::NoPorts, ends));
                continue;
            }
            let ends = &mut self.shards[shard].ends;
            ends.dialing += 1;
            ends.ends[slot as usize].stage = Stage::Dialing;
            ends.touch(slot);
        }
    }

    /// The first packet of a connection leaves.
    fn connect(&mut self, shard: usize, slot: u32) {
        let (id, (least, most)) = (self.connections.len(), self.conditions.latency_ns);
        let latency_ns = least + self.up_to(most - least);
        let end = &mut self.shards[shard].ends.ends[slot as usize];
        (end.connection, end.tls) = (id, Tls::None);
        self.connections.push(Connection {
            shard,
            slot,
            latency_ns,
            to_server: Pipe::default(),
            to_client: Pipe::default(),
            peer: None,
            timer_queued_ns: u64::MAX,
            unsent: Vec::new(),
            heard: Vec::new(),
        });
        let there_ns = self.now_ns + latency_ns;
        if self.chance(self.conditions.refuse) {
            let error = if self.chance(0.8) { LinkError::Refused } else { LinkError::Unreachable };
            self.later(there_ns + latency_ns, Event::ConnectFailed(id, error));
        } else if !self.chance(self.conditions.ignore) {
            self.later(there_ns, Event::Accept(id));
        }
    }

    fn happen(&mut self, at_ns: u64, event: Event) {
        let now = Instant::from_ns(self.now_ns);
        (at_ns, self.now_ns, &event).hash(&mut self.log);
        match event {
            Event::Left(id) => {
                let Connection { shard, slot, .. } = self.connections[id];
                let rest = std::mem::take(&mut self.connections[id].unsent);
                // What a client that closes has not sent by then is not sent.
                if self.shards[shard].ends.leads(slot, id, Stage::Open) {
                    self.transmit(id, Way::ToServer, at_ns, &rest);
                    self.shards[shard].worker.left(slot, now);
                }
            }
            Event::Arrive(id, Way::ToServer) => self.arrive_at_server(id, at_ns),
            Event::Arrive(id, Way::ToClient) => self.arrive_at_client(id, at_ns),
            Event::Accept(id) => self.accept(id, at_ns),
            Event::Connected(id) => {
                let Connection { shard, slot, .. } = self.connections[id];
                let ends = &mut self.shards[shard].ends;
                if ends.leads(slot, id, Stage::Dialing) {
                    ends.ends[slot as usize].stage = Stage::Open;
                    ends.dialing -= 1;
                    self.connected += 1;
                    self.with(shard, |worker, ends| worker.connected(slot, now, ends));
                }
            }
            Event::ConnectFailed(id, error) => {
                let Connection { shard, slot, .. } = self.connections[id];
                let ends = &mut self.shards[shard].ends;
                if ends.leads(slot, id, Stage::Dialing) {
                    ends.ends[slot as usize].stage = Stage::Closing;
                    ends.dialing -= 1;
                    let freed_ns = self.now_ns + 1 + self.up_to(self.conditions.turn_ns);
                    self.later(freed_ns, Event::Freed(shard, slot));
                    self.with(shard, |worker, ends| worker.connect_failed(slot, now, error, ends));
                }
            }
            Event::Freed(shard, slot) => {
                let end = &mut self.shards[shard].ends.ends[slot as usize];
                assert_eq!(end.stage, Stage::Closing);
                end.stage = Stage::Free;
                if std::mem::take(&mut end.redial) {
                    self.shards[shard].ends.dial(slot);
                }
            }
            Event::SessionTimer(id) => {
                self.connections[id].timer_queued_ns = u64::MAX;
                let due = self.connections[id].peer.as_ref().is_some_and(|peer| peer.deadline().as_ns() <= at_ns);
                if due { self.serve(id, at_ns, Server::timeout) } else { self.set_session_timer(id) }
            }
            Event::Mischief(id) => self.serve(id, at_ns, Server::mischief),
        }
    }

    fn accept(&mut self, id: usize, at_ns: u64) {
        let connection = &mut self.connections[id];
        let client_ns = at_ns + connection.latency_ns;
        connection.to_client.last_ns = client_ns;
        connection.peer = Some(self.server.accept());
        self.later(client_ns, Event::Connected(id));
        if self.server.is_hostile() {
            let mischief_ns = at_ns + self.up_to(self.server.mischief_ns);
            self.later(mischief_ns, Event::Mischief(id));
        }
        self.serve(id, at_ns, Server::connected);
        let Connection { shard, slot, .. } = self.connections[id];
        let ends = &self.shards[shard].ends;
        if !ends.leads(slot, id, Stage::Dialing) {
            // The client gave up on it meanwhile.
            self.put(id, Way::ToServer, at_ns, Item::Reset);
        }
    }

    /// Lets the server act on a connection and sends what it answers.
    fn serve(
        &mut self,
        id: usize,
        at_ns: u64,
        act: impl FnOnce(&mut Server, &mut Peer, Instant, &mut Vec<u8>) -> Parting,
    ) {
        let Some(peer) = self.connections[id].peer.as_mut().filter(|peer| peer.is_open) else { return };
        let mut out = Vec::new();
        let parting = act(&mut self.server, peer, Instant::from_ns(at_ns), &mut out);
        peer.is_open = parting == Parting::Stay;
        if parting != Parting::Drop && !out.is_empty() {
            self.transmit(id, Way::ToClient, at_ns, &out);
        }
        let rude = self.chance(self.conditions.rude_close);
        match parting {
            Parting::Stay => self.set_session_timer(id),
            Parting::StartTls => {
                if let Some(peer) = self.connections[id].peer.as_mut() {
                    (peer.is_open, peer.is_handshaking) = (true, true);
                }
                self.set_session_timer(id);
            }
            Parting::Close if !rude => self.put(id, Way::ToClient, at_ns, Item::End),
            Parting::Close | Parting::Drop | Parting::Reset => self.put(id, Way::ToClient, at_ns, Item::Reset),
        }
    }

    fn set_session_timer(&mut self, id: usize) {
        let connection = &mut self.connections[id];
        let Some(peer) = connection.peer.as_ref().filter(|peer| peer.is_open) else { return };
        let deadline_ns = peer.deadline().as_ns();
        if deadline_ns < connection.timer_queued_ns {
            connection.timer_queued_ns = deadline_ns;
            self.later(deadline_ns, Event::SessionTimer(id));
        }
    }

    fn arrive_at_server(&mut self, id: usize, at_ns: u64) {
        while let Some(item) = self.connections[id].to_server.arrived(at_ns) {
            let peer = self.connections[id].peer.as_ref().filter(|peer| peer.is_open);
            let (is_open, is_handshaking) = (peer.is_some(), peer.is_some_and(|peer| peer.is_handshaking));
            match item {
                Item::Hello if is_handshaking => self.shake_hands(id, at_ns),
                Item::Finished if is_handshaking => self.serve(id, at_ns, Server::tls_ready),
                Item::Hello | Item::BadHello | Item::Finished => self.serve(id, at_ns, Server::record),
                Item::Bytes(_) if self.is_secured(id) && self.chance(self.conditions.tls_break) => {
                    self.serve(id, at_ns, Server::tls_failed);
                }
                Item::Bytes(bytes) if is_open => {
                    self.serve(id, at_ns, |server, peer, now, out| server.received(peer, now, &bytes, out));
                }
                // A kernel answers octets for a closed socket with a reset, which overtakes what the client has not read.
                Item::Bytes(_) if self.chance(self.conditions.rude_close) => {
                    self.put(id, Way::ToClient, at_ns, Item::Reset)
                }
                Item::Bytes(_) => {}
                Item::End => self.serve(id, at_ns, Server::end_of_stream),
                Item::Reset => self.serve(id, at_ns, Server::broken),
            }
        }
    }

    /// A client's hello has come.
    fn shake_hands(&mut self, id: usize, at_ns: u64) {
        let peer = self.connections[id].peer.as_ref();
        let fault = peer.and_then(|peer| self.server.strike_tls(peer, Instant::from_ns(at_ns)));
        match fault {
            Some(TlsFault::Drop | TlsFault::Reset) => self.serve(id, at_ns, Server::tls_failed),
            Some(TlsFault::Refuse | TlsFault::Expired | TlsFault::WrongName) => {
                self.put(id, Way::ToClient, at_ns, Item::BadHello);
            }
            None if !self.chance(self.conditions.tls_fail) => self.put(id, Way::ToClient, at_ns, Item::Hello),
            None if self.chance(0.5) => self.put(id, Way::ToClient, at_ns, Item::BadHello),
            None => self.serve(id, at_ns, Server::tls_failed),
        }
    }

    fn arrive_at_client(&mut self, id: usize, at_ns: u64) {
        let mut together = Vec::new();
        while let Some(item) = self.connections[id].to_client.arrived(at_ns) {
            match item {
                Item::Bytes(_) if self.is_secured(id) && self.chance(self.conditions.tls_break) => {
                    self.give(id, &std::mem::take(&mut together));
                    self.tell_tls_failed(id, "tls");
                }
                Item::Hello => {
                    self.give(id, &std::mem::take(&mut together));
                    self.tell_tls_ready(id);
                }
                Item::BadHello | Item::Finished => {
                    self.give(id, &std::mem::take(&mut together));
                    self.tell_tls_failed(id, "certificate");
                }
                Item::Bytes(bytes) => {
                    together.extend_from_slice(&bytes);
                    if self.chance(0.5) {
                        self.give(id, &std::mem::take(&mut together));
                    }
                }
                Item::End => {
                    self.give(id, &std::mem::take(&mut together));
                    self.tell_closed(id, None);
                }
                Item::Reset => {
                    self.give(id, &std::mem::take(&mut together));
                    self.tell_closed(id, Some(LinkError::Reset));
                }
            }
        }
        self.give(id, &together);
    }

    /// Gives octets to a worker, in as many calls as the kernel's buffers would make of them.
    fn give(&mut self, id: usize, mut bytes: &[u8]) {
        let Connection { shard, slot, .. } = self.connections[id];
        let now = Instant::from_ns(self.now_ns);
        while !bytes.is_empty() && self.shards[shard].ends.leads(slot, id, Stage::Open) {
            if matches!(self.shards[shard].ends.ends[slot as usize].tls, Tls::Wanted | Tls::Handshaking) {
                // Octets in the clear are no handshake.
                return self.tell_tls_failed(id, "handshake");
            }
            let length = if self.chance(self.conditions.split) {
                self.random.random_range(1..=bytes.len())
            } else {
                bytes.len()
            };
            let (piece, rest) = bytes.split_at(length);
            bytes = rest;
            self.note_heard(id, piece);
            self.with(shard, |worker, ends| worker.received(slot, now, now, piece, ends));
        }
    }

    fn note_heard(&mut self, id: usize, piece: &[u8]) {
        let heard = &mut self.connections[id].heard;
        heard.extend_from_slice(piece);
        self.log.write(piece);
        let accepted = self.server.accepts_by();
        while let Some(at) = memchr::memmem::find(heard, accepted) {
            self.accepted_heard += 1;
            heard.drain(..at + accepted.len());
        }
        heard.drain(..heard.len().saturating_sub(accepted.len()));
    }

    /// Whether the client's side of a connection goes through TLS.
    fn is_secured(&self, id: usize) -> bool {
        let Connection { shard, slot, .. } = self.connections[id];
        let ends = &self.shards[shard].ends;
        ends.leads(slot, id, Stage::Open) && ends.ends[slot as usize].tls == Tls::Ready
    }

    fn tell_tls_ready(&mut self, id: usize) {
        let Connection { shard, slot, .. } = self.connections[id];
        let now = Instant::from_ns(self.now_ns);
        let ends = &mut self.shards[shard].ends;
        if ends.leads(slot, id, Stage::Open) && ends.ends[slot as usize].tls == Tls::Handshaking {
            ends.ends[slot as usize].tls = Tls::Ready;
            self.put(id, Way::ToServer, self.now_ns, Item::Finished);
            self.with(shard, |worker, ends| worker.tls_ready(slot, now, now, TLS_SESSION, ends));
        }
    }

    fn tell_tls_failed(&mut self, id: usize, kind: &'static str) {
        let Connection { shard, slot, .. } = self.connections[id];
        let now = Instant::from_ns(self.now_ns);
        if self.shards[shard].ends.leads(slot, id, Stage::Open) {
            let failure = TlsFailure { kind, reason: "made up".to_owned() };
            self.with(shard, |worker, ends| worker.tls_failed(slot, now, &failure, ends));
        }
    }

    fn tell_closed(&mut self, id: usize, error: Option<LinkError>) {
        let Connection { shard, slot, .. } = self.connections[id];
        let now = Instant::from_ns(self.now_ns);
        if self.shards[shard].ends.leads(slot, id, Stage::Open) {
            self.with(shard, |worker, ends| worker.closed(slot, now, error, ends));
        }
    }

    /// Sends octets on their way, in pieces, or loses them.
    fn transmit(&mut self, id: usize, way: Way, at_ns: u64, mut bytes: &[u8]) {
        if self.chance(self.conditions.swallow) {
            self.connections[id].pipe(way).is_dead = true;
        }
        if self.chance(self.conditions.reset) {
            let whole = self.up_to(bytes.len() as u64) as usize;
            self.put(id, way, at_ns, Item::Bytes(bytes[..whole].to_vec()));
            for way in [Way::ToServer, Way::ToClient] {
                self.put(id, way, at_ns, Item::Reset);
                self.connections[id].pipe(way).is_dead = true;
            }
            return;
        }
        while !bytes.is_empty() {
            let length = if self.chance(self.conditions.split) {
                self.random.random_range(1..=bytes.len())
            } else {
                bytes.len()
            };
            let (piece, rest) = bytes.split_at(length);
            bytes = rest;
            self.put(id, way, at_ns, Item::Bytes(piece.to_vec()));
        }
    }

    fn put(&mut self, id: usize, way: Way, at_ns: u64, item: Item) {
        let jitter_ns = self.up_to(self.conditions.jitter_ns);
        let connection = &mut self.connections[id];
        let latency_ns = connection.latency_ns;
        let pipe = connection.pipe(way);
        if !pipe.is_dead {
            let arrival_ns = pipe.last_ns.max(at_ns + latency_ns + jitter_ns);
            pipe.last_ns = arrival_ns;
            pipe.items.push_back((arrival_ns, item));
            self.later(arrival_ns, Event::Arrive(id, way));
        }
    }
}
