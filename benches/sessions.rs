//! Cost of one message in the machines: the client's alone, the server's alone, and a worker against a session in memory.
//!
//! The last is a turn of the pump without the kernel: everything that a shard does for a message but the ring, in its
//! order (received, written, with all that is measured), and the sink's side with it. The pump itself owns its loop and
//! its thread, so it is measured as a process, not here.

mod common;

use std::hint::black_box;
use std::sync::Arc;
use std::time::Duration;

use common::Benches;
use timecop::job::link::Links;
use timecop::job::plan::{Circumstances, Job};
use timecop::job::spec::{ConnectionType, JobSpec, RawSpec, Target};
use timecop::job::worker::Worker;
use timecop::outgoing::Outgoing;
use timecop::sink::{SinkPolicy, SinkSettings};
use timecop::time::{Instant, WallTime};
use timecop::wire::smtp::client::{Client, ClientConfig, Output, Timeouts, TlsStart};
use timecop::wire::smtp::server::{ServerConfig, Session};

const HELLO: &[u8] = b"220 sink.example ESMTP\r\n250-sink.example\r\n250-PIPELINING\r\n250 HELP\r\n";
const REPLIES: [&[u8]; 4] = [b"250 2.1.0 ok\r\n", b"250 2.1.5 ok\r\n", b"354 go ahead\r\n", b"250 2.6.0 accepted\r\n"];

/// A client that has drained its outputs.
fn feed(client: &mut Client, mut bytes: &[u8], config: &ClientConfig) {
    let now = Instant::from_ns(1);
    while !bytes.is_empty() {
        let handled = client.handle(now, bytes, config);
        bytes = &bytes[handled.consumed..];
        black_box(handled.reply);
        loop {
            match client.poll_output() {
                Output::Wait(_) | Output::Close => break,
                Output::Write(write) => {
                    black_box(write);
                    client.written();
                }
                Output::Event(event) => drop(black_box(event)),
                Output::StartTls => unreachable!("the session is a plain one"),
            }
        }
    }
}

fn client(benches: &mut Benches) {
    const GROUP: &str = "client machine, per message";
    let now = Instant::from_ns(1);
    for (name, pipelining) in [("dialogue", false), ("pipelined", true)] {
        let config = ClientConfig {
            tls: TlsStart::Never,
            auth: None,
            needs: Default::default(),
            pipelining,
            timeouts: Timeouts::RFC_5321,
        };
        let mut client = Client::new();
        client.connected(now, &config);
        feed(&mut client, HELLO, &config);
        let group_of_replies = REPLIES[..3].concat();
        benches.run(GROUP, name, || {
            client.begin(now, 1, &config);
            assert!(matches!(client.poll_output(), Output::Write(_)));
            client.written();
            if pipelining {
                feed(&mut client, black_box(&group_of_replies), &config);
                feed(&mut client, black_box(REPLIES[3]), &config);
            } else {
                REPLIES.iter().for_each(|reply| feed(&mut client, black_box(reply), &config));
            }
        });
    }
}

fn server(benches: &mut Benches) {
    const GROUP: &str = "server session, per message of 1 kB";
    let message = [&[&[b'x'; 76][..], b"\r\n"].concat().repeat(13)[..], b".\r\n"].concat();
    let envelope: [&[u8]; 3] =
        [b"MAIL FROM:<a@example.com> SIZE=1014\r\n", b"RCPT TO:<b@example.com>\r\n", b"DATA\r\n"];
    let together = envelope.concat();
    for (name, pieces) in [
        ("dialogue", vec![envelope[0], envelope[1], envelope[2], &message]),
        ("pipelined", vec![&together[..], &message]),
    ] {
        let config = ServerConfig::new("sink.example", 1_000_000, true);
        let mut policy = SinkPolicy::new(SinkSettings::default(), Instant::ZERO, 1);
        let (mut session, mut out, now) = (Session::new(), Vec::new(), Instant::from_ns(1));
        let _ = session.connected(now, &config, &mut policy, &mut out);
        let _ = session.handle(now, b"EHLO c\r\n", &config, &mut policy, &mut out);
        benches.run(GROUP, name, || {
            for piece in &pieces {
                out.clear();
                let _ = black_box(session.handle(now, black_box(piece), &config, &mut policy, &mut out));
            }
        });
        assert_eq!(policy.counts().errors, 0);
    }
}

/// One connection, whose other end is a session.
#[derive(Default)]
struct Wire {
    out: Outgoing,
    deadline: Instant,
}

impl Links for Wire {
    fn dial(&mut self, _slot: u32) {}

    fn outgoing(&mut self, _slot: u32) -> &mut Outgoing {
        &mut self.out
    }

    fn start_tls(&mut self, _slot: u32) {}

    fn close(&mut self, _slot: u32) {}

    fn deadline(&mut self, _slot: u32, at: Instant) {
        self.deadline = at;
    }
}

fn turn(benches: &mut Benches) {
    const GROUP: &str = "a turn without the kernel, worker and session, per message of 1 kB";
    for (name, pipelining) in [("dialogue", false), ("pipelined", true)] {
        let raw = RawSpec { duration: Some(Duration::from_secs(86_400)), ..RawSpec::default() };
        let target = Target {
            name: "smtp://memory".into(),
            host: "127.0.0.1".into(),
            address: ([127, 0, 0, 1], 25).into(),
            connection: ConnectionType::Plain,
        };
        let spec = JobSpec::new(raw, target, 1).expect("the job is valid");
        let mut now = Instant::from_ns(1);
        let at = Circumstances { now, wall: WallTime::default(), run_id: 1, host: "load.example".into(), audit: None };
        let job = Arc::new(Job::new(&spec, &at).expect("the job is valid").0);
        let share = job.split(1, 1).pop().expect("there is one shard");
        let mut worker = Worker::new(job, share.pacer, 1);
        let config = ServerConfig::new("sink.example", 1_000_000, pipelining);
        let mut policy = SinkPolicy::new(SinkSettings::default(), now, 1);
        let (mut session, mut wire, mut replies) = (Session::new(), Wire::default(), Vec::new());
        worker.start(now, &mut wire);
        worker.connected(0, now, &mut wire);
        let _ = session.connected(now, &config, &mut policy, &mut replies);
        benches.run(GROUP, name, || {
            let target = policy.counts().messages + 1;
            while policy.counts().messages < target {
                // 200 ns a turn: the run's end stays far.
                now = Instant::from_ns(now.as_ns() + 200);
                worker.received(0, now, now, &replies, &mut wire);
                worker.turn(now, &mut wire);
                worker.written(0, now, wire.out.len());
                replies.clear();
                for segment in wire.out.segments().into_iter().filter(|segment| !segment.is_empty()) {
                    let _ = session.handle(now, segment, &config, &mut policy, &mut replies);
                }
                wire.out.clear();
            }
        });
        let accepted = worker.delta_mut().messages.accepted;
        assert!(accepted + 1 >= policy.counts().messages && policy.counts().errors == 0);
    }
}

fn main() {
    common::main(&[client, server, turn]);
}
