//! Client and server in memory: what one seals the other reads, and wherever the bytes end, each side says so.

use std::time::Duration;

use bytes::Bytes;
use rustls::ClientConfig;
use rustls::client::Resumption;

use super::tickets::Tickets;
use super::*;
use crate::phase::Phase;
use crate::sink::{SinkPolicy, SinkSettings};
use crate::time::Instant;
use crate::wire::smtp::client::{self, Client, ClientError, Output, Timeouts, TlsStart, Write};
use crate::wire::smtp::server::{self as smtp, Flow, ServerConfig};

/// A certificate for localhost that its client trusts, made with this change, and its server.
fn pair(change: impl FnOnce(&mut rcgen::CertificateParams)) -> (ClientTlsFiles, ServerTls) {
    let mut made = rcgen::CertificateParams::new(vec!["localhost".to_owned()]).unwrap();
    change(&mut made);
    let key = rcgen::KeyPair::generate().unwrap();
    let pem = made.self_signed(&key).unwrap().pem();
    let server = ServerTls::from_pem(pem.as_bytes(), key.serialize_pem().as_bytes()).unwrap();
    (ClientTlsFiles { ca_pem: Some(pem.into_bytes()), identity: None }, server)
}

/// A client that trusts these files.
fn client_of(host: &str, files: &ClientTlsFiles) -> Result<ClientTls, SpecError> {
    ClientTls::new(host, false, true, files)
}

/// A client that believes everybody.
fn credulous(host: &str) -> Box<Tls> {
    ClientTls::new(host, true, true, &ClientTlsFiles::default()).unwrap().connect()
}

fn outgoing(bytes: &[u8]) -> Outgoing {
    let mut out = Outgoing::new();
    out.push(bytes);
    out
}

/// What `tls` sends for this plaintext, small enough for one turn.
fn sealed(tls: &mut Tls, plain: &[u8]) -> Vec<u8> {
    let mut out = Outgoing::new();
    assert!(tls.seal(Some(&outgoing(plain)), &mut out));
    out.to_vec()
}

/// Lets the two talk until neither has anything to say: the client's session, and what failed at either end.
fn shake(client: &mut Tls, server: &mut Tls) -> (Option<TlsSession>, [Option<TlsFailure>; 2]) {
    let (mut session, mut failed, mut plain) = (None, [None, None], Vec::new());
    for _ in 0..10 {
        let hello = sealed(client, b"");
        let heard = server.receive(&hello, &mut plain);
        failed[1] = failed[1].take().or(heard.end.and_then(Result::err));
        let answer = sealed(server, b"");
        let heard = client.receive(&answer, &mut plain);
        session = session.or(heard.ready);
        failed[0] = failed[0].take().or(heard.end.and_then(Result::err));
        if hello.is_empty() && answer.is_empty() {
            return (session, failed);
        }
    }
    panic!("the handshake does not end");
}

fn fault(host: &str, options: &ClientTlsFiles, server: &ServerTls) -> TlsFailure {
    let mut client = client_of(host, options).unwrap().connect();
    let (session, [failed, at_server]) = shake(&mut client, &mut server.accept());
    assert_eq!(session, None);
    assert!(at_server.is_some_and(|failure| failure.reason.contains("alert")), "the server is told");
    failed.expect("the client does not believe it")
}

#[test]
fn certificates_are_verified_by_issuer_name_and_time() {
    let (trusting, server) = pair(|_| {});
    let (_, other) = pair(|made| made.distinguished_name.push(rcgen::DnType::CommonName, "other"));
    let (_, namesake) = pair(|_| {});
    let (expired, expired_server) = pair(|made| made.not_after = rcgen::date_time_ymd(2001, 1, 1));
    for (host, options, server, words) in [
        ("localhost", &trusting, &other, "issuer is unknown"),
        ("localhost", &trusting, &namesake, "not signed by the issuer"),
        ("elsewhere.example", &trusting, &server, "not valid for elsewhere.example"),
        ("127.0.0.1", &trusting, &server, "not valid for 127.0.0.1"),
        ("localhost", &expired, &expired_server, "has expired"),
    ] {
        let failure = fault(host, options, server);
        assert_eq!(failure.kind, "certificate");
        assert!(failure.reason.contains(words), "{words}: {}", failure.reason);
    }
    let (session, failed) = shake(&mut client_of("localhost", &trusting).unwrap().connect(), &mut server.accept());
    assert_eq!((session.unwrap().version, failed), ("TLSv1.3", [None, None]));
    assert!(shake(&mut credulous("elsewhere.example"), &mut expired_server.accept()).0.is_some());
}

#[test]
fn the_certificate_of_a_sinks_own_making_is_good_for_this_machine() {
    assert!(ServerTls::self_signed("no name\u{e9}").is_ok(), "a name that no certificate can hold is left out");
    assert!(shake(&mut credulous("::1"), &mut ServerTls::self_signed("mx.example").unwrap().accept()).0.is_some());
}

#[test]
fn sessions_are_resumed_however_many_connect_at_once() {
    let (options, server) = pair(|_| {});
    let tls = client_of("localhost", &options).unwrap().for_shard(32);
    let connect_all = || {
        let mut pairs: Vec<_> = (0..32).map(|_| (tls.connect(), server.accept())).collect();
        let sessions = pairs.iter_mut().map(|(client, server)| shake(client, server).0.unwrap());
        sessions.filter(|session| session.resumed).count()
    };
    connect_all();
    assert_eq!((0..5).map(|_| connect_all()).collect::<Vec<_>>(), [32; 5]);

    let tls = ClientTls::new("localhost", false, false, &options).unwrap().for_shard(32);
    for _ in 0..3 {
        assert!(!shake(&mut tls.connect(), &mut server.accept()).0.unwrap().resumed);
    }
}

#[test]
fn tls_1_2_is_spoken_and_resumed_too_and_tickets_are_bounded() {
    let (options, server) = pair(|_| {});
    let mut roots = rustls::RootCertStore::empty();
    certificates("ca_file", &options.ca_pem.unwrap()).unwrap().into_iter().for_each(|ca| roots.add(ca).unwrap());
    let client = |versions: &[&'static rustls::SupportedProtocolVersion], tickets: &Arc<Tickets>| {
        let mut config = ClientConfig::builder_with_provider(provider())
            .with_protocol_versions(versions)
            .unwrap()
            .with_root_certificates(roots.clone())
            .with_no_client_auth();
        config.resumption = Resumption::store(Arc::clone(tickets) as _);
        Arc::new(config)
    };
    let shake_with = |config: &Arc<ClientConfig>| {
        let session = UnbufferedClientConnection::new(Arc::clone(config), "localhost".try_into().unwrap()).unwrap();
        shake(&mut Tls::new(Session::Client(session)), &mut server.accept()).0.unwrap()
    };
    let tickets = Arc::new(Tickets::new(1));
    let config = client(&[&rustls::version::TLS12], &tickets);
    let sessions = [shake_with(&config), shake_with(&config)];
    assert_eq!(sessions.map(|session| (session.version, session.resumed)), [("TLSv1.2", false), ("TLSv1.2", true)]);

    let config = client(&[&rustls::version::TLS13], &tickets);
    for _ in 0..50 {
        shake_with(&config);
    }
    assert_eq!(tickets.len(), 4, "each handshake brings one more than it takes");
}

/// Two that have shaken hands.
fn connected() -> (Box<Tls>, Box<Tls>) {
    let (options, server) = pair(|_| {});
    let (mut client, mut server) = (client_of("localhost", &options).unwrap().connect(), server.accept());
    assert!(shake(&mut client, &mut server).0.is_some());
    (client, server)
}

#[test]
fn a_large_message_is_sealed_in_pieces_of_bounded_size_and_arrives_whole() {
    let (mut client, mut server) = connected();
    let mut message = outgoing(&vec![b'a'; 300_000]);
    message.push_shared(Bytes::from(vec![b'b'; 3_000_000]));
    message.push(b"\r\n.\r\n");
    assert_eq!((client.news(&message), client.news(&message)), (3_300_005, 0));
    let (mut arrived, mut pieces) = (Vec::new(), 0);
    loop {
        let mut out = Outgoing::new();
        let is_whole = client.seal(Some(&message), &mut out);
        assert!(out.len() < SEALED_BYTES_MAX + (17 << 10), "{} octets at once", out.len());
        // As the ring hands them up.
        out.bytes.chunks(2_048).for_each(|piece| assert!(server.receive(piece, &mut arrived).end.is_none()));
        pieces += 1;
        if is_whole {
            break;
        }
    }
    assert!(pieces > 20 && arrived == message.to_vec(), "{pieces} pieces");
    assert_eq!(client.news(&outgoing(b"next")), 4, "the next one is news");
}

#[test]
fn a_small_message_goes_out_as_one_record() {
    let (mut client, _) = connected();
    let mut message = outgoing(b"head");
    message.push_shared(Bytes::from_static(b"body"));
    message.push(b"tail");
    let mut out = Outgoing::new();
    assert!(client.seal(Some(&message), &mut out));
    assert_eq!(out.len(), 5 + 12 + 1 + 16, "header, plaintext, type and tag");
}

#[test]
fn a_goodbye_is_heard_as_the_end_and_nothing_behind_it_is_read() {
    let (mut client, mut server) = connected();
    let mut bytes = sealed(&mut server, b"221 bye\r\n");
    server.close();
    bytes.extend(sealed(&mut server, b""));
    bytes.extend(b"whatever");
    let mut plain = Vec::new();
    assert_eq!(client.receive(&bytes, &mut plain).end, Some(Ok(())));
    assert_eq!(plain, b"221 bye\r\n");
}

#[test]
fn octets_that_are_no_tls_are_a_failed_handshake_and_broken_records_broken_tls() {
    let (options, server) = pair(|_| {});
    let mut client = client_of("localhost", &options).unwrap().connect();
    let failure = client.receive(b"220 mx.example ESMTP\r\n", &mut Vec::new()).end.unwrap().unwrap_err();
    assert_eq!(failure.kind, "handshake", "{}", failure.reason);
    let failure = server.accept().receive(b"EHLO client.example\r\n", &mut Vec::new()).end.unwrap().unwrap_err();
    assert_eq!(failure.kind, "handshake", "{}", failure.reason);

    let (mut client, mut server) = connected();
    let mut bytes = sealed(&mut server, b"250 ok\r\n");
    let last = sealed(&mut server, b"250 ok\r\n");
    bytes.extend(last.iter().map(|octet| octet ^ u8::from(*octet > 0x17)));
    let mut plain = Vec::new();
    let failure = client.receive(&bytes, &mut plain).end.unwrap().unwrap_err();
    assert_eq!((failure.kind, plain.as_slice()), ("tls", &b"250 ok\r\n"[..]), "{}", failure.reason);
    assert!(!sealed(&mut client, b"MAIL").is_empty(), "an alert goes out");
    assert!(sealed(&mut client, b"MAIL").is_empty(), "and nothing else");
}

#[test]
fn wrong_files_are_named_and_keys_never_shown() {
    let key = rcgen::KeyPair::generate().unwrap().serialize_pem();
    let (good, _) = pair(|_| {});
    let pem = good.ca_pem.clone().unwrap();
    let identity = |certificates_pem: &[u8], key_pem: &[u8]| {
        let identity = ClientIdentity { certificates_pem: certificates_pem.into(), key_pem: key_pem.into() };
        ClientTlsFiles { identity: Some(identity), ..good.clone() }
    };
    for (field, options) in [
        ("ca_file", ClientTlsFiles { ca_pem: Some(b"none".to_vec()), ..good.clone() }),
        ("client_cert", identity(b"", key.as_bytes())),
        ("client_key", identity(&pem, &pem)),
        ("client_key", identity(&pem, key.as_bytes())),
    ] {
        for skip_verify in [false, true] {
            assert_eq!(ClientTls::new("localhost", skip_verify, true, &options).unwrap_err().field, field);
        }
        assert!(!format!("{options:?}").contains("PRIVATE"), "{options:?}");
    }
    assert_eq!(client_of("no name", &good).unwrap_err().field, "target");
    assert_eq!(ServerTls::from_pem(b"", key.as_bytes()).unwrap_err().field, "tls_cert");
    assert_eq!(ServerTls::from_pem(&pem, &pem).unwrap_err().field, "tls_key");
    assert_eq!(ServerTls::from_pem(&pem, key.as_bytes()).unwrap_err().field, "tls_key");
    let mismatch = ClientTls::new("localhost", false, true, &identity(&pem, key.as_bytes())).unwrap_err().to_string();
    assert!(
        mismatch.contains("`client_cert`, got that of another one: the two files do not belong together"),
        "{mismatch}"
    );
}

/// How a session went whose streams end behind so many octets.
struct BrokenOff {
    /// What ended it at the client.
    client: Option<(Phase, ClientError)>,
    /// Whether a stream was that long.
    is_cut: bool,
    /// Messages that the server has taken.
    messages: u64,
    /// What the server does at the end.
    flow: Flow,
}

/// A session over STARTTLS whose streams, the server's and the client's, end behind so many octets.
fn broken_off(options: &ClientTlsFiles, server: &ServerTls, mut octets: usize, mut of_client: usize) -> BrokenOff {
    let now = Instant::from_ns(1);
    let timeouts = Timeouts::uniform(Duration::from_secs(1));
    let config = client::ClientConfig {
        tls: TlsStart::StartTls,
        auth: None,
        needs: Default::default(),
        pipelining: true,
        timeouts,
    };
    let server_config = ServerConfig::new("mx.example", 1_000, true).offering_starttls();
    let mut policy = SinkPolicy::new(SinkSettings::default(), now, 1);
    let (mut client, mut session) = (Client::new(), smtp::Session::new());
    let (mut client_tls, mut server_tls): (Option<Box<Tls>>, Option<Box<Tls>>) = (None, None);
    let (mut to_client, mut out) = (Vec::new(), Vec::new());
    let mut flow = session.connected(now, &server_config, &mut policy, &mut out);
    client.connected(now, &config);
    for _ in 0..40 {
        // The server's turn ends.
        if flow == Flow::StartTls {
            let mut tls = server.accept();
            tls.put_first(outgoing(&std::mem::take(&mut out)));
            server_tls = Some(tls);
            flow = Flow::Continue;
        }
        match &mut server_tls {
            Some(tls) => to_client.extend(sealed(tls, &std::mem::take(&mut out))),
            None => to_client.append(&mut out),
        }
        let piece: Vec<u8> = to_client.drain(..to_client.len().min(octets)).collect();
        octets -= piece.len();
        let is_cut = octets == 0;
        // The client's.
        let mut plain = Vec::new();
        match &mut client_tls {
            Some(tls) => {
                let heard = tls.receive(&piece, &mut plain);
                assert!(!matches!(heard.end, Some(Err(_))), "{:?}", heard.end);
                if heard.ready.is_some() {
                    client.tls_ready(now, &config);
                }
            }
            None => plain = piece,
        }
        let (mut bytes, mut to_server) = (&plain[..], Vec::new());
        let mut is_first = true;
        while is_first || !bytes.is_empty() {
            is_first = false;
            let consumed = client.handle(now, bytes, &config).consumed;
            bytes = &bytes[consumed..];
            if is_cut && bytes.is_empty() {
                client.end_of_stream();
            }
            loop {
                match client.poll_output() {
                    Output::Write(write) => {
                        to_server.extend_from_slice(match write {
                            Write::Ehlo => b"EHLO c\r\n",
                            Write::StartTls => b"STARTTLS\r\n",
                            Write::Group => b"MAIL FROM:<a@x>\r\nRCPT TO:<b@x>\r\nDATA\r\n",
                            Write::Message => b"hello\r\n.\r\n",
                            Write::Quit => b"QUIT\r\n",
                            other => panic!("{other:?} was not expected"),
                        });
                        client.written();
                    }
                    Output::StartTls => {
                        client_tls = Some(client_of("localhost", options).unwrap().connect());
                    }
                    Output::Event(client::Event::Ready) if policy.counts().messages == 0 => {
                        client.begin(now, 1, &config)
                    }
                    Output::Event(client::Event::Ready) => client.quit(now, &config),
                    Output::Event(client::Event::Failed { phase, error }) => {
                        let messages = policy.counts().messages;
                        return BrokenOff { client: Some((phase, error)), is_cut, messages, flow };
                    }
                    Output::Event(_) => {}
                    Output::Wait(_) => break,
                    Output::Close => {
                        let messages = policy.counts().messages;
                        return BrokenOff { client: None, is_cut, messages, flow };
                    }
                }
            }
        }
        if let Some(tls) = &mut client_tls {
            to_server = sealed(tls, &to_server);
        }
        to_server.truncate(of_client);
        of_client -= to_server.len();
        // The server's next turn begins.
        let mut plain = Vec::new();
        match &mut server_tls {
            Some(tls) => {
                let heard = tls.receive(&to_server, &mut plain);
                if heard.ready.is_some() {
                    flow = session.tls_ready(now, false, &server_config, &mut policy, &mut out);
                }
            }
            None => plain = to_server,
        }
        if !plain.is_empty() {
            flow = session.handle(now, &plain, &server_config, &mut policy, &mut out);
        }
        if of_client == 0 {
            flow = session.end_of_stream(&mut policy);
            return BrokenOff { client: None, is_cut: true, messages: policy.counts().messages, flow };
        }
    }
    panic!("the session does not end");
}

#[test]
fn wherever_the_stream_breaks_off_the_client_says_in_which_phase() {
    let (options, server) = pair(|_| {});
    let mut phases = Vec::new();
    for octets in 1.. {
        let BrokenOff { client: outcome, is_cut, .. } = broken_off(&options, &server, octets, usize::MAX);
        if !is_cut {
            assert_eq!(outcome, None, "with all octets the session comes to its good end");
            break;
        }
        if let Some((phase, error)) = outcome {
            assert_eq!(error.kind(), "closed", "after {octets} octets, in {phase}");
            // A signature is now and then an octet shorter, so that a phase may show once more, and the one point between
            // two messages not at all.
            if !phases.contains(&phase) && phase != Phase::Idle {
                phases.push(phase);
            }
        }
        assert!(octets < 5_000, "the stream has an end");
    }
    // The replies to a group are one record: they come together or not at all.
    let expected = [Phase::Banner, Phase::Ehlo, Phase::StartTls, Phase::Tls, Phase::Mail, Phase::Final];
    assert_eq!(phases, expected);
}

#[test]
fn wherever_the_stream_of_the_client_breaks_off_the_session_ends_and_takes_no_part_of_a_message() {
    let (options, server) = pair(|_| {});
    let mut messages = 0;
    for octets in 1.. {
        let broken = broken_off(&options, &server, usize::MAX, octets);
        if !broken.is_cut {
            assert_eq!((broken.client, broken.messages), (None, 1), "with all octets it comes to its good end");
            break;
        }
        assert!(matches!(broken.flow, Flow::Close | Flow::Drop), "after {octets} octets: {:?}", broken.flow);
        // A signature is now and then an octet shorter, so that one octet less may have been enough.
        assert!(broken.messages <= 1 && octets < 5_000, "after {octets} octets");
        messages += broken.messages;
    }
    // Only what comes behind the message may lack: QUIT and the last words of TLS, which have fewer octets than this.
    assert!((1..100).contains(&messages), "{messages}");
}
