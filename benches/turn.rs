//! One turn of a shard over a real ring on loopback: a reply is taken up, handed to the parser, and the command that follows
//! leaves. What the peer does in between, a write and a read, is part of the figure; of the time, the kernel's TCP is most.

mod common;

use std::hint::black_box;
use std::io::{Read as _, Write as _};
use std::net::TcpListener;
use std::time::Duration;

use common::Benches;
use timecop::shard::ring::{Op, Ring, RingConfig};
use timecop::time::Instant;
use timecop::wire::smtp::reply::ReplyLine;

const COMMAND: &[u8] = b"MAIL FROM:<timecop@example.com> SIZE=1024\r\n";
const REPLY: &[u8] = b"250 2.1.0 ok\r\n";

fn turn(benches: &mut Benches) {
    let listener = TcpListener::bind("127.0.0.1:0").expect("a free port");
    let mut ring = Ring::new(RingConfig { dialed_files: 1, accepted_files: 0, buffers: 64 }).expect("a ring");
    let target = ring.target(listener.local_addr().expect("it has an address"), &[]);
    ring.connect(0, target).expect("a socket");
    ring.submit().expect("the ring works");
    ring.wait(Duration::from_secs(10)).expect("the ring works");
    assert!(ring.gather(Instant::ZERO) == 1 && ring.completion(0).op == Op::Connect);
    let (mut peer, _) = listener.accept().expect("the ring has connected");
    let buffers = ring.buffers();
    ring.receive(0);
    ring.submit().expect("the ring works");
    let mut command = [0; COMMAND.len()];
    benches.run("a turn over the ring", "reply in, command out", || {
        peer.write_all(REPLY).expect("the connection is open");
        if ring.submit().expect("the ring works") == 0 {
            ring.wait(Duration::from_secs(10)).expect("the ring works");
        }
        for at in 0..ring.gather(Instant::ZERO) {
            let mut completion = ring.completion(at);
            let buffer = completion.take_buffer().expect("a reply came");
            let (bytes, _) = buffers.received(&buffer, &completion);
            black_box(ReplyLine::parse(bytes.trim_ascii_end()).expect("a reply is a reply").code);
            buffers.give_back(buffer);
        }
        let mut out = ring.outgoing();
        out.push(COMMAND);
        ring.send(0, out);
        ring.submit().expect("the ring works");
        ring.recycle();
        peer.read_exact(&mut command).expect("the command left");
    });
}

fn main() {
    common::main(&[turn]);
}
