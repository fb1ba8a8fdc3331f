//! The HTTP server with the stub behind it, forms included, against any octets: every split of them gives the same
//! responses and counts, each response is one that HTTP's readers understand, and memory is bounded.

use std::time::Duration;

use timecop::sink::{FaultCounters, Faults, HttpCounts, Stub, StubSettings};
use timecop::time::Instant;
use timecop::wire::flow::Flow;
use timecop::wire::http::server::{ServerConfig, Session};

use super::{SPLITS, Settings};

const BODY_BYTES_MAX: u64 = 3_000;
const MESSAGE_BYTES_MAX: u64 = 2_000;

/// All that the other side and the stub have seen of a session.
#[derive(Debug, PartialEq)]
struct Seen {
    responses: String,
    counts: HttpCounts,
    flow: Flow,
}

/// Asserts all of it for one input.
pub fn check(input: &[u8]) {
    let (settings, octets) = Settings::split(input);
    let whole = play(&settings, octets, 0);
    for split in 1..SPLITS {
        assert_eq!(play(&settings, octets, split), whole, "split {split} differs from the whole");
    }
}

fn play(settings: &Settings<'_>, octets: &[u8], split: usize) -> Seen {
    let (config, start) = (ServerConfig::new(BODY_BYTES_MAX), Instant::from_ns(1));
    let text = |wanted: u8, text: &'static str| (settings.get(0) & wanted > 0).then_some(text);
    let rules = [text(1, "http=delay:1ms"), text(4, "http=drop,10%"), text(2, "http=503,30%,no \"more\"")];
    let rules = rules.into_iter().flatten().map(|rule| rule.parse().expect("a rule"));
    let faults = Faults::new(rules, FaultCounters::default());
    let mut stub = Stub::new(
        StubSettings {
            accept_domains: text(8, "a.b").map(str::to_owned).into_iter().collect(),
            key: text(16, "key").map(|key| key.to_owned().into()),
            rate: text(32, "3/s").map(|rate| rate.parse().expect("a rate")),
            faults: faults.expect("faults"),
            message_bytes_max: MESSAGE_BYTES_MAX,
            ..StubSettings::default()
        },
        start,
        settings.get(1).into(),
    );
    let (mut session, mut out, mut now) = (Session::new(), Vec::new(), start);
    let mut flow = session.connected(now, &config, &mut stub);
    for piece in settings.pieces(octets, split) {
        if flow != Flow::Continue {
            break;
        }
        let before = out.len();
        flow = session.handle(now, piece, &config, &mut stub, &mut out);
        assert!(session.deadline() > now || flow != Flow::Continue, "a deadline is ahead");
        assert!(out.len() - before <= 500 * (piece.len() + 2), "responses are bounded by requests");
    }
    if flow == Flow::Continue {
        flow = session.end_of_stream(&mut stub);
    }
    while flow == Flow::Continue {
        now = session.deadline();
        assert!(now < start + Duration::from_secs(3_600), "what is held is due some time");
        flow = session.handle_timeout(now, &config, &mut stub, &mut out);
    }
    if flow == Flow::Drop {
        // What is in `out` is forgotten, and how much of it had gone before depends on the split.
        out.clear();
    }
    let responses = String::from_utf8(out).expect("responses are UTF-8");
    assert_eq!(count_of(responses.as_bytes()), stub.counts().requests, "{responses}");
    Seen { responses, counts: stub.counts().clone(), flow }
}

/// The final responses in `octets`, each with its content, that of none being an answer to HEAD.
fn count_of(mut octets: &[u8]) -> u64 {
    let mut count = 0;
    while !octets.is_empty() {
        let text = std::str::from_utf8(octets).expect("UTF-8");
        let (head, _) = text.split_once("\r\n\r\n").expect("a whole head");
        let status: u16 = head.strip_prefix("HTTP/1.1 ").and_then(|rest| rest[..3].parse().ok()).expect("a status");
        octets = &octets[head.len() + 4..];
        if status < 200 {
            continue;
        }
        count += 1;
        let length = head.lines().find_map(|line| line.strip_prefix("Content-Length: ")).expect("a length");
        // The answer to HEAD says how long its content would be.
        if !octets.is_empty() && !octets.starts_with(b"HTTP/1.1 ") {
            octets = &octets[length.parse().expect("a number")..];
        }
    }
    count
}
