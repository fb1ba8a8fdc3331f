//! Received headers (RFC 5321 §4.4): the way that a message took, as the servers on it wrote it down. Their times have a
//! resolution of one second and are those of many clocks.

use serde::{Deserialize, Serialize};
use utoipa::ToSchema;

use super::header::headers_only;

/// Hops that are kept, those nearest to us; RFC 5321 §6.3 lets a server call 100 a loop.
pub const HOPS_MAX: usize = 30;
/// Characters of a server's name that are kept.
const SERVER_CHARS_MAX: usize = 80;

/// One server on the way.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct Hop {
    /// The server that took the message, as it names itself; empty where it does not.
    pub by: String,
    /// When, in whole seconds since 1970; `null` where its date cannot be read.
    pub unix_s: Option<i64>,
    /// Seconds since the hop before it, which may be negative, because the clocks are two.
    pub after_s: Option<i64>,
}

/// The hops of a header block, in the order in which the message took them.
pub fn hops(headers: &[u8]) -> Vec<Hop> {
    let Some(message) = headers_only(headers, |parser| parser.header_received("Received")) else { return Vec::new() };
    let received = message.headers().iter().filter_map(|header| header.value.as_received());
    let mut hops: Vec<Hop> = received
        .take(HOPS_MAX)
        .map(|received| Hop {
            by: received.by().map(|host| host.to_string()).map_or_else(String::new, |host| printable(&host)),
            unix_s: received.date().map(|date| date.to_timestamp()),
            after_s: None,
        })
        .collect();
    hops.reverse();
    for at in 1..hops.len() {
        hops[at].after_s = hops[at].unix_s.zip(hops[at - 1].unix_s).and_then(|(now, before)| now.checked_sub(before));
    }
    hops
}

/// What others wrote, short and without what would control a terminal.
fn printable(text: &str) -> String {
    text.chars().filter(|c| !c.is_control()).take(SERVER_CHARS_MAX).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    const BLOCK: &[u8] = b"Received: from relay.example.net (relay.example.net [192.0.2.2])\r\n\tby probe.example.com \
(timecop) with ESMTPS id 1;\r\n\tTue, 24 Nov 2026 12:00:05 +0000\r\nReceived: from client (localhost [127.0.0.1])\r\n\
\tby relay.example.net (Postfix) with ESMTPSA id 4ABC\r\n\tfor <probe@example.com>; Tue, 24 Nov 2026 13:00:02 +0100 (CET)\r\n\
Received: by nowhere\r\nSubject: x\r\n\r\nReceived: by body.example.com; Tue, 24 Nov 2026 13:00:02 +0100\r\n";

    #[test]
    fn hops_come_in_the_order_of_the_way() {
        let found = hops(BLOCK);
        let named: Vec<_> = found.iter().map(|hop| (hop.by.as_str(), hop.after_s)).collect();
        assert_eq!(named[1..], [("relay.example.net", None), ("probe.example.com", Some(3))]);
        assert_eq!(found[2].unix_s, Some(1_795_521_605));
    }

    #[test]
    fn what_is_kept_is_bounded_whatever_comes() {
        let long = format!("Received: by {}\u{7};\r\n", "a".repeat(10_000)).repeat(200);
        let found = hops(long.as_bytes());
        assert!(found.len() <= HOPS_MAX && found.iter().all(|hop| hop.by.chars().count() <= SERVER_CHARS_MAX));
        assert_eq!(hops(b""), []);
        hops(b"Received: \xff\xfe\x00;;;;");
    }
}
