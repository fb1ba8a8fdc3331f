//! What our own port 25 answers, and what it lets wait.

use super::*;
use crate::wire::smtp::server::{Flow, Session};

const ADDRESS: &str = "Probe@timecop.example.com";

/// A listener in virtual time.
struct Listener {
    policy: ProbePolicy,
    config: ServerConfig,
}

struct Client {
    session: Session,
    visitor: Visitor,
    flow: Flow,
    greeting: String,
}

impl Listener {
    fn new(limits: ServerLimits) -> Listener {
        let address = Mailbox::parse(ADDRESS).unwrap();
        let policy = ProbePolicy::new(address, "mx.example.org".to_owned(), limits);
        Listener { policy, config: limits.config("mx.example.org") }
    }

    fn connect(&mut self, from: &str) -> Client {
        let mut visitor = self.policy.enter(Instant::ZERO, Some(from.parse().unwrap()));
        let (mut session, mut out) = (Session::new(), Vec::new());
        let flow = session.connected(Instant::ZERO, &self.config, &mut self.policy.of(&mut visitor), &mut out);
        Client { session, visitor, flow, greeting: String::from_utf8(out).unwrap() }
    }

    /// Sends, and gives the replies.
    fn send(&mut self, client: &mut Client, bytes: impl AsRef<[u8]>) -> String {
        let mut out = Vec::new();
        let mut policy = self.policy.of(&mut client.visitor);
        client.flow = client.session.handle(Instant::from_ns(7), bytes.as_ref(), &self.config, &mut policy, &mut out);
        String::from_utf8(out).unwrap()
    }

    /// Sends a message whose content is `content`, for the probe address, and gives what waits.
    fn deliver(&mut self, content: &[u8]) -> (String, Vec<Arrival>) {
        let mut client = self.connect("192.0.2.1");
        self.send(&mut client, format!("EHLO c\r\nMAIL FROM:<a@x>\r\nRCPT TO:<{ADDRESS}>\r\nDATA\r\n"));
        let reply = self.send(&mut client, [content, b".\r\n"].concat());
        (reply, self.policy.take_arrivals())
    }
}

#[test]
fn mail_for_the_probe_address_is_taken_and_no_other() {
    let mut listener = Listener::new(ServerLimits::default());
    let mut client = listener.connect("192.0.2.1");
    listener.send(&mut client, "EHLO c\r\nMAIL FROM:<a@x>\r\n");
    for (path, code) in [
        ("probe@timecop.example.com", "250 2.1.5"),
        ("PROBE@TIMECOP.EXAMPLE.COM", "250 2.1.5"),
        ("probe@example.com", "550 5.7.1"),
        ("probe@timecop.example.com.", "501 5.1.3"),
        ("probe@timecop.example.computer", "550 5.7.1"),
        ("xprobe@timecop.example.com", "550 5.7.1"),
        ("probe%example.com@timecop.example.com", "550 5.7.1"),
        ("\"probe@timecop.example.com\"@example.net", "550 5.7.1"),
        ("someone@example.net", "550 5.7.1"),
        // Whom every server must take mail for (RFC 5321 §4.5.1).
        ("Postmaster", "250 2.1.5"),
        ("postmaster@timecop.example.com", "250 2.1.5"),
        ("postmaster@mx.example.org", "250 2.1.5"),
        ("postmaster@example.net", "550 5.7.1"),
    ] {
        let reply = listener.send(&mut client, format!("RCPT TO:<{path}>\r\n"));
        assert!(reply.starts_with(code), "{path}: {reply}");
    }
    assert_eq!(listener.policy.counts.recipients_refused, 7);
}

#[test]
fn of_a_message_the_header_block_is_kept_until_control_has_spoken() {
    let mut listener = Listener::new(ServerLimits::default());
    let (reply, arrivals) = listener.deliver(b"A: 1\r\nB: 2\r\n 3\r\n\r\nthe body\r\n\r\n..\r\n");
    assert_eq!(reply, "", "it waits");
    let [arrival] = &arrivals[..] else { panic!("{arrivals:?}") };
    assert_eq!((&arrival.header[..], arrival.bytes), (&b"A: 1\r\nB: 2\r\n 3\r\n\r\n"[..], 33));
    assert_eq!((arrival.arrived, &arrival.reverse_path[..]), (Instant::from_ns(7), &b"a@x"[..]));
    assert_eq!((arrival.client, arrival.secured), (Some("192.0.2.1".parse().unwrap()), false));
    assert!(!arrival.to_postmaster);
    let (_, next) = listener.deliver(b"A: 1\r\n\r\n");
    assert_ne!(next[0].ticket, arrival.ticket);
}

#[test]
fn a_message_for_the_postmaster_alone_is_known_as_such() {
    let mut listener = Listener::new(ServerLimits::default());
    let mut client = listener.connect("192.0.2.1");
    listener.send(&mut client, "HELO c\r\nMAIL FROM:<>\r\nRCPT TO:<postmaster>\r\nDATA\r\n");
    listener.send(&mut client, "\r\nplease\r\n.\r\n");
    let arrivals = listener.policy.take_arrivals();
    assert!(arrivals[0].to_postmaster && arrivals[0].reverse_path.is_empty() && &arrivals[0].header[..] == b"\r\n");
}

#[test]
fn a_header_block_may_be_all_there_is_and_has_a_bound() {
    let mut listener = Listener::new(ServerLimits::default());
    assert_eq!(&listener.deliver(b"A: 1\r\n").1[0].header[..], b"A: 1\r\n");
    assert_eq!(&listener.deliver(b"").1[0].header[..], b"");
    let line = [&[b'x'; 62][..], b"\r\n"].concat();
    let header = |bytes: usize| line.iter().copied().cycle().take(bytes).collect::<Vec<u8>>();
    let fits = [&header(HEADER_BYTES_MAX - 64)[..], &[b'x'; 60], b"\r\n\r\n", b"body\r\n"].concat();
    assert_eq!(listener.deliver(&fits).1[0].header.len(), HEADER_BYTES_MAX);
    let whole = header(HEADER_BYTES_MAX);
    assert_eq!(listener.deliver(&whole).1[0].header.len(), HEADER_BYTES_MAX);
    let longer = [&header(HEADER_BYTES_MAX)[..], b"\r\nbody\r\n"].concat();
    let (reply, arrivals) = listener.deliver(&longer);
    assert!(reply.starts_with("552 5.3.4") && arrivals.is_empty(), "{reply}");
    assert_eq!((listener.policy.counts.malformed, listener.policy.counts.refused), (1, 1));
}

#[test]
fn what_no_mail_may_contain_is_refused_and_reaches_nobody() {
    let mut listener = Listener::new(ServerLimits { message_bytes_max: 100, ..ServerLimits::default() });
    for (content, code) in [
        (&b"A: 1\n\r\nx\r\n"[..], "550 5.6.0"),
        (b"A: 1\r\n\r\nx\n.\nMAIL FROM:<b@x>\r\n", "550 5.6.0"),
        (b"A: \0\r\n", "550 5.6.0"),
        (&[b'x'; 101], "552 5.3.4"),
    ] {
        let content = [content, if content.ends_with(b"\n") { b"" } else { b"\r\n" }].concat();
        let (reply, arrivals) = listener.deliver(&content);
        assert!(reply.starts_with(code) && arrivals.is_empty(), "{reply}");
    }
    assert_eq!((listener.policy.counts.refused, listener.policy.counts.malformed), (4, 0));
}

#[test]
fn connections_are_bounded_in_all_and_for_each_client() {
    let limits = ServerLimits { connections_max: 4, connections_per_client_max: 2, ..ServerLimits::default() };
    let mut listener = Listener::new(limits);
    let first = [listener.connect("192.0.2.1"), listener.connect("::ffff:192.0.2.1")];
    assert!(first.iter().all(|client| client.greeting.starts_with("220 ")));
    let third = listener.connect("192.0.2.1");
    assert!(third.greeting.starts_with("421 4.7.0 too many connections from your address"), "{}", third.greeting);
    assert_eq!(third.flow, Flow::Close);
    listener.policy.leave(&third.visitor);
    // One customer's addresses of IPv6 are one client.
    let six = [listener.connect("2001:db8::1"), listener.connect("2001:db8::2:1")];
    assert!(six.iter().all(|client| client.greeting.starts_with("220 ")));
    let full = listener.connect("198.51.100.1");
    assert!(full.greeting.starts_with("421 4.7.0 too many connections,"), "{}", full.greeting);
    listener.policy.leave(&full.visitor);
    first.iter().chain(&six).for_each(|client| listener.policy.leave(&client.visitor));
    assert!(listener.policy.clients.is_empty() && listener.policy.connections == 0);
    assert!(listener.connect("192.0.2.1").greeting.starts_with("220 "));
    assert_eq!((listener.policy.counts.sessions, listener.policy.counts.sessions_refused), (7, 2));
}

#[test]
fn a_session_has_so_many_messages_and_no_more() {
    let limits = ServerLimits { messages_per_session_max: 2, ..ServerLimits::default() };
    let mut listener = Listener::new(limits);
    let mut client = listener.connect("192.0.2.1");
    listener.send(&mut client, "EHLO c\r\n");
    assert_eq!(
        listener.send(&mut client, "MAIL FROM:<a@x>\r\nRSET\r\nMAIL FROM:<a@x>\r\nRSET\r\n").matches("250").count(),
        4
    );
    assert!(listener.send(&mut client, "MAIL FROM:<a@x>\r\n").starts_with("421 4.7.0"));
    assert_eq!(client.flow, Flow::Close);
}

#[test]
fn a_few_addresses_cannot_keep_out_all_others() {
    let limits = ServerLimits { connections_max: 4, connections_per_client_max: 2, ..ServerLimits::default() };
    let mut listener = Listener::new(limits);
    let crowd: Vec<Client> = (0..4).map(|n| listener.connect(["192.0.2.1", "192.0.2.2"][n % 2])).collect();
    assert!(crowd.iter().all(|client| client.greeting.starts_with("220 ")));
    let visitor = listener.policy.enter(Instant::ZERO, Some("192.0.2.3".parse().unwrap()));
    let named = listener.policy.crowd(&visitor).expect("one of them has more than the newcomer");
    let of_it: Vec<&Client> = crowd.iter().filter(|client| client.visitor.is_of(named)).collect();
    assert_eq!(of_it.len(), 2);
    // The listener ends one of its sessions, and there is room.
    listener.policy.leave(&of_it[0].visitor);
    assert_eq!(listener.policy.crowd(&visitor), None);
    // Where all have as much, the newcomer is turned away.
    let another = listener.policy.enter(Instant::ZERO, Some("192.0.2.3".parse().unwrap()));
    assert_eq!(listener.policy.crowd(&another), None);
}
