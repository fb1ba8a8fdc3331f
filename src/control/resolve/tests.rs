//! MX resolution against a name server of the test's own.

use std::collections::BTreeSet;
use std::net::{Ipv4Addr, UdpSocket};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread::JoinHandle;

use hickory_resolver::config::{ConnectionConfig, NameServerConfig};
use hickory_resolver::proto::op::{Message, ResponseCode};
use hickory_resolver::proto::rr::Record;
use hickory_resolver::proto::rr::rdata::{A, AAAA, MX};

use super::*;

/// What the server says of a name: nothing at all, or a code and records.
pub(in crate::control) type Answers = fn(&str, RecordType) -> Option<(ResponseCode, Vec<RData>)>;

/// A name server on loopback, over UDP; ends when it is dropped.
pub(in crate::control) struct NameServer {
    address: SocketAddr,
    ended: Arc<AtomicBool>,
    thread: Option<JoinHandle<()>>,
}

impl NameServer {
    pub(in crate::control) fn start(answers: Answers) -> NameServer {
        let socket = UdpSocket::bind("127.0.0.1:0").unwrap();
        let address = socket.local_addr().unwrap();
        let ended = Arc::new(AtomicBool::new(false));
        let end = Arc::clone(&ended);
        let thread = std::thread::spawn(move || {
            let mut datagram = [0; 4_096];
            while let Ok((length, peer)) = socket.recv_from(&mut datagram) {
                if end.load(Ordering::Relaxed) {
                    return;
                }
                if let Some(answer) = answer(&datagram[..length], answers) {
                    socket.send_to(&answer, peer).unwrap();
                }
            }
        });
        NameServer { address, ended, thread: Some(thread) }
    }

    pub(in crate::control) fn mx(&self, domain: &str, seed: u64) -> Result<Vec<MxHost>, MxError> {
        self.mx_with(ResolverOpts::default(), domain, seed)
    }

    fn mx_with(&self, options: ResolverOpts, domain: &str, seed: u64) -> Result<Vec<MxHost>, MxError> {
        let mut connection = ConnectionConfig::udp();
        connection.port = self.address.port();
        let server = NameServerConfig::new(self.address.ip(), true, vec![connection]);
        mx_from(ResolverConfig::from_name_servers(vec![server]), options, domain, seed)
    }
}

impl Drop for NameServer {
    fn drop(&mut self) {
        self.ended.store(true, Ordering::Relaxed);
        let waker = UdpSocket::bind("127.0.0.1:0").unwrap();
        waker.send_to(b"end", self.address).unwrap();
        let ended = self.thread.take().unwrap().join();
        assert!(ended.is_ok() || std::thread::panicking());
    }
}

fn answer(datagram: &[u8], answers: Answers) -> Option<Vec<u8>> {
    let mut message = Message::from_vec(datagram).unwrap().into_response();
    let query = message.queries[0].clone();
    let (code, records) = answers(&query.name().to_ascii().to_lowercase(), query.query_type())?;
    message.metadata.response_code = code;
    message.metadata.recursion_available = true;
    message.answers = records.into_iter().map(|data| Record::from_rdata(query.name().clone(), 60, data)).collect();
    Some(message.to_vec().unwrap())
}

pub(in crate::control) fn found(records: &[RData]) -> Option<(ResponseCode, Vec<RData>)> {
    Some((ResponseCode::NoError, records.to_vec()))
}

pub(in crate::control) fn mx_record(preference: u16, exchange: &str) -> RData {
    RData::MX(MX::new(preference, Name::from_ascii(exchange).unwrap()))
}

fn a(last: u8) -> RData {
    RData::A(A(Ipv4Addr::new(192, 0, 2, last)))
}

fn zone(name: &str, of: RecordType) -> Option<(ResponseCode, Vec<RData>)> {
    match (name, of) {
        ("example.com.", RecordType::MX) => found(&[
            mx_record(20, "backup.example.com."),
            mx_record(10, "c.example.com."),
            mx_record(10, "a.example.com."),
            mx_record(10, "b.example.com."),
        ]),
        ("a.example.com.", RecordType::A) => found(&[a(1)]),
        ("b.example.com.", RecordType::A) => found(&[a(2)]),
        ("c.example.com.", RecordType::A) => found(&[a(3)]),
        ("backup.example.com.", RecordType::A) => found(&[a(9)]),
        ("backup.example.com.", RecordType::AAAA) => found(&[RData::AAAA(AAAA("2001:db8::9".parse().unwrap()))]),
        ("null.example.", RecordType::MX) => found(&[mx_record(0, ".")]),
        ("half-null.example.", RecordType::MX) => found(&[mx_record(0, "."), mx_record(5, "a.example.com.")]),
        ("xn--bcher-kva.example." | "plain.example.", RecordType::A) => found(&[a(7)]),
        ("broken.example.", _) => Some((ResponseCode::ServFail, Vec::new())),
        ("one-broken.example.", RecordType::MX) => {
            found(&[mx_record(1, "broken.example."), mx_record(2, "a.example.com.")])
        }
        ("all-broken.example.", RecordType::MX) => {
            found(&[mx_record(1, "broken.example."), mx_record(2, "none.example.")])
        }
        ("dangling.example.", RecordType::MX) => found(&[mx_record(1, "none.example.")]),
        ("gone.example.", _) => Some((ResponseCode::NXDomain, Vec::new())),
        ("silent.example.", _) => None,
        _ => found(&[]),
    }
}

fn addresses(hosts: &[MxHost]) -> Vec<String> {
    hosts.iter().map(|host| format!("{} {}", host.host, host.address)).collect()
}

#[test]
fn the_most_preferred_exchanger_comes_first_and_the_seed_decides_among_equals() {
    let server = NameServer::start(zone);
    let mut orders = BTreeSet::new();
    for seed in 0..32 {
        let hosts = server.mx("example.com", seed).unwrap();
        assert_eq!(hosts, server.mx("EXAMPLE.com.", seed).unwrap(), "the seed repeats it");
        let mut hosts = addresses(&hosts);
        assert_eq!(hosts.split_off(3), ["backup.example.com 192.0.2.9:25", "backup.example.com [2001:db8::9]:25"]);
        orders.insert(hosts.clone());
        hosts.sort();
        assert_eq!(hosts, ["a.example.com 192.0.2.1:25", "b.example.com 192.0.2.2:25", "c.example.com 192.0.2.3:25"]);
    }
    assert_eq!(orders.len(), 6, "every order of the three: {orders:?}");
}

#[test]
fn a_domain_without_mx_is_its_own_exchanger() {
    let server = NameServer::start(zone);
    assert_eq!(addresses(&server.mx("plain.example", 1).unwrap()), ["plain.example 192.0.2.7:25"]);
    assert_eq!(addresses(&server.mx("bücher.example", 1).unwrap()), ["xn--bcher-kva.example 192.0.2.7:25"]);
}

#[test]
fn a_null_mx_says_that_the_domain_takes_no_mail() {
    let server = NameServer::start(zone);
    assert_eq!(server.mx("null.example", 1), Err(MxError::NoMail));
    assert_eq!(addresses(&server.mx("half-null.example", 1).unwrap()), ["a.example.com 192.0.2.1:25"]);
}

#[test]
fn an_exchanger_that_cannot_be_resolved_is_passed_over_while_there_is_another() {
    let server = NameServer::start(zone);
    assert_eq!(addresses(&server.mx("one-broken.example", 1).unwrap()), ["a.example.com 192.0.2.1:25"]);
}

#[test]
fn every_failure_says_whether_it_will_pass() {
    let server = NameServer::start(zone);
    let error = |domain| server.mx(domain, 1).unwrap_err();
    assert_eq!(error("gone.example"), MxError::NoSuchDomain);
    assert_eq!(error("dangling.example"), MxError::NoAddress("none.example.".into()));
    assert_eq!(error("empty.example"), MxError::NoAddress("empty.example.".into()));
    for temporary in ["broken.example", "all-broken.example"] {
        assert!(matches!(error(temporary), MxError::Temporary(_)), "{}", error(temporary));
    }
}

#[test]
fn a_name_server_that_is_silent_is_not_waited_for_for_ever() {
    let server = NameServer::start(zone);
    let mut options = ResolverOpts::default();
    (options.timeout, options.attempts) = (Duration::from_millis(50), 1);
    let error = server.mx_with(options, "silent.example", 1).unwrap_err();
    assert!(matches!(error, MxError::Temporary(_) | MxError::TimedOut), "{error}");
}

#[test]
fn what_is_no_domain_is_not_asked_for() {
    let server = NameServer::start(|name, _| panic!("asked for {name}"));
    let label = "x".repeat(64);
    for wrong in ["", ".", "127.0.0.1", "[::1]", "a b.example", "example.com:25", "u@example.com", "a\r\nb", &label] {
        let error = server.mx(wrong, 1).unwrap_err();
        assert!(matches!(error, MxError::Domain(_)), "{wrong:?}: {error}");
        assert!(!error.to_string().contains('\n'), "{error}");
    }
}
