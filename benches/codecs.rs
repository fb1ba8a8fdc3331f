//! Cost of taking bytes apart: lines, replies, and the content of a message, which both sides pay for every octet.

mod common;

use std::hint::black_box;

use common::Benches;
use timecop::wire::line::LineScanner;
use timecop::wire::smtp::data::{DataDecoder, stuff};
use timecop::wire::smtp::reply::ReplyLine;

fn lines(benches: &mut Benches) {
    let mut scanner = LineScanner::new(2_048);
    benches
        .run("line", "scan, whole", || black_box(scanner.scan(black_box(b"RCPT TO:<load@example.com>\r\n"))).consumed);
    benches.run("line", "scan, torn in two", || {
        scanner.scan(black_box(b"RCPT TO:<load@exa"));
        black_box(scanner.scan(black_box(b"mple.com>\r\n"))).consumed
    });
    benches.run("line", "scan and parse a reply", || {
        let scan = scanner.scan(black_box(b"250 2.1.5 ok\r\n"));
        let line = scan.line.and_then(Result::ok).and_then(|line| ReplyLine::parse(line).ok());
        black_box(line.map(|line| (line.class(), line.enhanced().0)))
    });
}

/// About `bytes` octets in lines of 76, of which one in `dotted` begins with a dot.
fn text(bytes: usize, dotted: usize) -> Vec<u8> {
    let mut text = Vec::with_capacity(bytes + 80);
    for line in 0.. {
        if text.len() >= bytes {
            return text;
        }
        text.push(if dotted > 0 && line % dotted == 0 { b'.' } else { b'a' });
        text.extend_from_slice(&[b'x'; 75]);
        text.extend_from_slice(b"\r\n");
    }
    text
}

fn content(benches: &mut Benches) {
    for (name, bytes, dotted) in
        [("1 kB", 1_024, 0), ("64 kB", 65_536, 0), ("64 kB, every 10th line dotted", 65_536, 10)]
    {
        let text = text(bytes, dotted);
        benches.run_over("content", &format!("stuff {name}"), Some(text.len()), || stuff(black_box(&text)));
        let sent = [&stuff(&text)[..], b".\r\n"].concat();
        let mut decoder = DataDecoder::new();
        // Pieces are as long as the ring's receive buffers.
        benches.run_over("content", &format!("decode {name}"), Some(text.len()), || {
            let mut octets = 0;
            for piece in black_box(&sent).chunks(2_048) {
                black_box(decoder.decode(piece, &mut |slice| octets += slice.len()));
            }
            octets
        });
    }
}

fn main() {
    common::main(&[lines, content]);
}
