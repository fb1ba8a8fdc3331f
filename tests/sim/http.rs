//! Whole jobs by HTTP in virtual time, against a server that answers as it likes. One seed decides everything.
//!
//! The client's side keeps the pump's rules: all that arrives in a turn carries the turn's time; what a worker puts out
//! leaves together at the end of the turn; a close ends everything.

use std::collections::{BTreeMap, HashSet};
use std::sync::Arc;
use std::time::Duration;

use rand::{RngExt, SeedableRng};
use rand_pcg::Pcg64;
use timecop::job::link::{LinkError, Links};
use timecop::job::plan::{Circumstances, Job};
use timecop::job::spec::http::{JobType, RawHttp};
use timecop::job::spec::{ConnectionType, JobSpec, RawSpec, Target};
use timecop::job::worker::Worker;
use timecop::measure::recorder::Delta;
use timecop::outgoing::Outgoing;
use timecop::time::{Instant, WallTime};

use crate::seeds::for_each_seed;

const MS: u64 = 1_000_000;
/// No run may take more turns.
const TURNS_MAX: u32 = 100_000;

/// What happens to a connection of the client's, told by its slot and its number.
enum Event {
    Connected,
    Refused,
    Request(Vec<u8>),
    Bytes(Vec<u8>),
    End,
    Reset,
}

#[derive(Default)]
struct End {
    out: Outgoing,
    /// The connection's number; what is of an earlier one is lost.
    number: u64,
    is_open: bool,
    wants_dial: bool,
    deadline: Option<Instant>,
    /// What the server has read of a request.
    request: Vec<u8>,
}

#[derive(Default)]
struct Ends(Vec<End>);

impl Links for Ends {
    fn dial(&mut self, slot: u32) {
        let end = &mut self.0[slot as usize];
        (end.wants_dial, end.number) = (true, end.number + 1);
        end.request.clear();
    }

    fn outgoing(&mut self, slot: u32) -> &mut Outgoing {
        &mut self.0[slot as usize].out
    }

    fn start_tls(&mut self, _: u32) {
        unreachable!("there is no TLS");
    }

    fn close(&mut self, slot: u32) {
        let end = &mut self.0[slot as usize];
        (end.is_open, end.wants_dial, end.deadline, end.number) = (false, false, None, end.number + 1);
        end.out.clear();
    }

    fn deadline(&mut self, slot: u32, at: Instant) {
        self.0[slot as usize].deadline = Some(at).filter(|at| *at != Instant::NEVER);
    }
}

struct World {
    random: Pcg64,
    now: u64,
    worker: Worker,
    ends: Ends,
    events: BTreeMap<(u64, u64), (u32, u64, Event)>,
    count: u64,
    /// Message-IDs that the server has read.
    seen: HashSet<Vec<u8>>,
    /// Requests that it has answered with 2xx.
    accepted: u64,
    /// It breaks connections and says what no server should.
    is_hostile: bool,
}

impl World {
    fn new(seed: u64) -> World {
        let mut random = Pcg64::seed_from_u64(seed);
        let one_in = |random: &mut Pcg64, n: u32| random.random_range(0..n) == 0;
        let mut raw = RawSpec {
            job_type: [JobType::Http, JobType::HttpMime][random.random_range(0..2)],
            http: RawHttp { host: "api.example".into(), path: "/v3/a".into(), ..RawHttp::default() },
            connections: Some(random.random_range(1..6)),
            messages: Some(random.random_range(1..200)),
            timeout: Some(Duration::from_secs(5).into()),
            ..RawSpec::default()
        };
        if one_in(&mut random, 2) {
            raw.rate = Some(random.random_range(1.0..500.0));
        }
        if one_in(&mut random, 4) {
            (raw.messages, raw.duration) = (None, Some(Duration::from_millis(random.random_range(100..3_000))));
        }
        if one_in(&mut random, 3) {
            raw.messages_per_connection = Some(random.random_range(1..9));
        }
        let target = Target {
            name: "http://sim".into(),
            host: "api.example".into(),
            address: ([127, 0, 0, 1], 80).into(),
            connection: ConnectionType::Plain,
        };
        let spec = JobSpec::new(raw, target, seed).expect("the job is valid");
        let (now, wall) = (Instant::from_ns(77_000 * MS), WallTime::from_unix_ns(1_700_000_000_000 * MS));
        let at = Circumstances { now, wall, run_id: 1, host: "load.example".into(), audit: None };
        let job = Arc::new(Job::new(&spec, &at).expect("the job is valid").0);
        let share = job.split(spec.connections, 1).pop().expect("there is one shard");
        let mut ends = Ends::default();
        ends.0.resize_with(share.connections as usize, End::default);
        let worker = Worker::new(job, share.pacer, share.connections);
        let is_hostile = one_in(&mut random, 2);
        let (now, events, seen) = (now.as_ns(), BTreeMap::new(), HashSet::new());
        World { random, now, worker, ends, events, count: 0, seen, accepted: 0, is_hostile }
    }

    /// Runs the job to its end.
    fn run(mut self) -> (Box<Delta>, World) {
        self.worker.start(Instant::from_ns(self.now), &mut self.ends);
        for _ in 0..TURNS_MAX {
            self.end_turn();
            if self.worker.is_finished() {
                return (self.worker.take_delta(Box::default()), self);
            }
            let event = self.events.keys().next().map_or(u64::MAX, |key| key.0);
            let deadlines = self.ends.0.iter().filter_map(|end| end.deadline);
            let next = deadlines.chain([self.worker.wake_at()]).map(Instant::as_ns).fold(event, u64::min);
            assert!(next < u64::MAX, "it waits for nothing");
            self.now = self.now.max(next);
            self.arrive();
        }
        panic!("the run does not end");
    }

    fn after(&mut self, least: u64, most: u64, slot: u32, event: Event) {
        let at = self.now + self.random.random_range(least..=most);
        self.count += 1;
        self.events.insert((at, self.count), (slot, self.ends.0[slot as usize].number, event));
    }

    fn arrive(&mut self) {
        let now = Instant::from_ns(self.now);
        while let Some(entry) = self.events.first_entry().filter(|entry| entry.key().0 <= self.now) {
            let (slot, number, event) = entry.remove();
            if self.ends.0[slot as usize].number != number {
                continue;
            }
            match event {
                Event::Connected => {
                    self.ends.0[slot as usize].is_open = true;
                    self.worker.connected(slot, now, &mut self.ends);
                }
                Event::Refused => self.worker.connect_failed(slot, now, LinkError::Refused, &mut self.ends),
                Event::Request(bytes) => self.serve(slot, &bytes),
                Event::Bytes(bytes) => self.worker.received(slot, now, now, &bytes, &mut self.ends),
                Event::End => self.worker.closed(slot, now, None, &mut self.ends),
                Event::Reset => self.worker.closed(slot, now, Some(LinkError::Reset), &mut self.ends),
            }
        }
        for slot in 0..self.ends.0.len() {
            if self.ends.0[slot].deadline.is_some_and(|at| at <= now) {
                self.ends.0[slot].deadline = None;
                self.worker.timer(slot as u32, now, &mut self.ends);
            }
        }
    }

    fn end_turn(&mut self) {
        self.worker.turn(Instant::from_ns(self.now), &mut self.ends);
        self.now += self.random.random_range(0..MS / 10);
        let sent = Instant::from_ns(self.now);
        for slot in 0..self.ends.0.len() as u32 {
            let end = &mut self.ends.0[slot as usize];
            if std::mem::take(&mut end.wants_dial) {
                self.worker.written(slot, sent, 0);
                let refused = self.random.random_range(0..10) == 0;
                self.after(MS, 5 * MS, slot, if refused { Event::Refused } else { Event::Connected });
            } else if end.is_open && !end.out.is_empty() {
                let bytes = end.out.to_vec();
                end.out.clear();
                self.worker.written(slot, sent, bytes.len());
                self.after(MS, MS, slot, Event::Request(bytes));
            }
        }
    }

    /// The server reads, and answers a request that is whole.
    fn serve(&mut self, slot: u32, bytes: &[u8]) {
        let end = &mut self.ends.0[slot as usize];
        end.request.extend_from_slice(bytes);
        let text = String::from_utf8_lossy(&end.request).into_owned();
        let (head, body) = text.split_once("\r\n\r\n").expect("a head leaves with its turn");
        let length = head.rsplit_once("Content-Length: ").and_then(|(_, length)| length.parse::<usize>().ok());
        assert_eq!(length, Some(body.len()), "one request at a time, whole");
        end.request.clear();
        let id = body.find("essage-I").expect("every request has a Message-ID");
        assert!(self.seen.insert(body.as_bytes()[id..id + 60].to_vec()), "a message was sent twice: {body}");
        let status = [200, 200, 200, 201, 302, 400, 401, 429, 429, 500, 503][self.random.random_range(0..11)];
        let fields =
            ["", "", "Retry-After: 1\r\n", "Connection: close\r\n", "Retry-After: 90\r\nConnection: close\r\n"];
        let fields = fields[self.random.random_range(0..5)];
        let mut answer = match self.random.random_range(0..4) {
            0 => format!("HTTP/1.1 {status} x\r\n{fields}Transfer-Encoding: chunked\r\n\r\n2\r\nok\r\n0\r\n\r\n"),
            1 => format!("HTTP/1.1 100 x\r\n\r\nHTTP/1.1 {status} x\r\n{fields}Content-Length: 2\r\n\r\nok"),
            2 => format!("HTTP/1.1 {status} x\r\n{fields}\r\nall"),
            _ => format!("HTTP/1.1 {status} x\r\n{fields}Content-Length: 0\r\n\r\n"),
        }
        .into_bytes();
        let ends = fields.contains("close") || answer.ends_with(b"all");
        let malice = if self.is_hostile { self.random.random_range(0..30) } else { 30 };
        match malice {
            0 => answer.truncate(answer.len() / 2),
            1 => answer.extend_from_slice(b"HTTP/1.1 408 x\r\nContent-Length: 0\r\n\r\n"),
            2 => answer = b"220 mail ESMTP\r\n".to_vec(),
            3 => return self.after(MS, MS, slot, Event::End),
            4 => return self.after(MS, MS, slot, Event::Reset),
            5 => return,
            _ => self.accepted += u64::from(status < 300),
        }
        let mut rest = &answer[..];
        let mut at = MS;
        while !rest.is_empty() {
            let (piece, others) = rest.split_at(self.random.random_range(1..=rest.len()));
            self.after(at, at, slot, Event::Bytes(piece.to_vec()));
            (rest, at) = (others, at + self.random.random_range(0..MS));
        }
        if ends || malice == 0 {
            self.after(at, at, slot, Event::End);
        }
    }
}

#[test]
fn every_message_of_a_job_by_http_has_one_end() {
    for_each_seed("every_message_of_a_job_by_http_has_one_end", 0.05, |seed| {
        let (delta, world) = World::new(seed).run();
        let counts = &delta.messages;
        let ended = counts.accepted + counts.deferred + counts.rejected + counts.failed + counts.cut;
        assert_eq!(counts.taken, ended, "{counts:?}");
        assert!(counts.sent >= world.seen.len() as u64, "the server has read more than was sent: {counts:?}");
        assert!(counts.accepted >= world.accepted.saturating_sub(counts.cut + counts.failed), "{counts:?}");
        assert!(world.is_hostile || counts.accepted <= world.accepted, "accepted what was not: {counts:?}");
        let timed = delta.accepted.response.count() + delta.other.response.count();
        assert_eq!(timed, ended - counts.cut, "one latency a message");
        let answers: u64 = delta.replies.iter().flatten().map(|reply| reply.count).sum();
        assert!(answers <= world.seen.len() as u64, "more answers than requests");
    });
}

#[test]
fn the_seeds_try_what_they_should() {
    let (mut paused, mut hostile, mut accepted) = (0, 0, 0);
    for seed in 0..100 {
        let (delta, world) = World::new(seed).run();
        paused += delta.retry_after.waits;
        hostile += u64::from(world.is_hostile);
        accepted += delta.messages.accepted;
    }
    assert!(paused > 20 && (20..80).contains(&hostile) && accepted > 500, "{paused}, {hostile}, {accepted}");
}
