//! Cost of taking bytes apart: lines, replies, and the content of a message, which both sides pay for every octet.

use std::hint::black_box;
use std::time::Duration;

use criterion::{Criterion, Throughput, criterion_group, criterion_main};
use timecop::wire::line::LineScanner;
use timecop::wire::smtp::data::{DataDecoder, stuff};
use timecop::wire::smtp::reply::ReplyLine;

fn lines(criterion: &mut Criterion) {
    let mut group = criterion.benchmark_group("line");
    let mut scanner = LineScanner::new(2_048);
    group.bench_function("scan, whole", |bencher| {
        bencher.iter(|| black_box(scanner.scan(black_box(b"RCPT TO:<load@example.com>\r\n"))).consumed);
    });
    group.bench_function("scan, torn in two", |bencher| {
        bencher.iter(|| {
            scanner.scan(black_box(b"RCPT TO:<load@exa"));
            black_box(scanner.scan(black_box(b"mple.com>\r\n"))).consumed
        });
    });
    group.bench_function("scan and parse a reply", |bencher| {
        bencher.iter(|| {
            let scan = scanner.scan(black_box(b"250 2.1.5 ok\r\n"));
            let line = scan.line.and_then(Result::ok).and_then(|line| ReplyLine::parse(line).ok());
            black_box(line.map(|line| (line.class(), line.enhanced().0)))
        });
    });
    group.finish();
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

fn content(criterion: &mut Criterion) {
    let mut group = criterion.benchmark_group("content");
    for (name, bytes, dotted) in
        [("1 kB", 1_024, 0), ("64 kB", 65_536, 0), ("64 kB, every 10th line dotted", 65_536, 10)]
    {
        let text = text(bytes, dotted);
        group.throughput(Throughput::Bytes(text.len() as u64));
        group.bench_function(format!("stuff {name}"), |bencher| bencher.iter(|| stuff(black_box(&text))));
        let sent = [&stuff(&text)[..], b".\r\n"].concat();
        group.bench_function(format!("decode {name}"), |bencher| {
            let mut decoder = DataDecoder::new();
            // Pieces are as long as the ring's receive buffers.
            bencher.iter(|| {
                let mut octets = 0;
                for piece in black_box(&sent).chunks(2_048) {
                    black_box(decoder.decode(piece, &mut |slice| octets += slice.len()));
                }
                octets
            });
        });
    }
    group.finish();
}

fn short() -> Criterion {
    Criterion::default().warm_up_time(Duration::from_millis(300)).measurement_time(Duration::from_secs(1))
}

criterion_group! { name = benches; config = short(); targets = lines, content }
criterion_main!(benches);
