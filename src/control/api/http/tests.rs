//! The server against clients on real sockets, most of which misbehave.

use std::io::{BufRead as _, BufReader, ErrorKind, Read as _, Write as _};
use std::net::Shutdown;
use std::thread::JoinHandle;

use glommio::{LocalExecutorBuilder, Placement};

use super::*;
use crate::shard::listen::listen;

/// A client that waits so long for the server fails its test.
const PATIENCE: Duration = Duration::from_secs(30);
/// A deadline that no test lives to see.
const NEVER: Duration = Duration::from_secs(300);
/// A deadline that a test lets pass.
const SOON: Duration = Duration::from_millis(200);
/// The response to `/large`: more than the buffers of two sockets hold.
const LARGE_BYTES: usize = 32 << 20;

const GET: &str = "GET /echo HTTP/1.1\r\nHost: h\r\n\r\n";

fn limits() -> HttpLimits {
    HttpLimits {
        connections_max: 16,
        body_bytes_max: 1_000,
        bodies_bytes_max: 1 << 20,
        header_within: NEVER,
        body_within: NEVER,
        idle_within: NEVER,
        write_within: NEVER,
        shutdown_within: NEVER,
    }
}

struct Server {
    address: SocketAddr,
    /// A word for each request to `/slow` that is being handled.
    entered: Receiver<()>,
    /// Lets one of them end.
    release: Sender<()>,
    /// A word for each request that reached the handler.
    handled: Receiver<String>,
    shutdown: Sender<()>,
    thread: Option<JoinHandle<()>>,
}

impl Server {
    fn start(limits: HttpLimits) -> Server {
        let (mut sockets, address) = listen("127.0.0.1:0".parse().unwrap(), 1).unwrap();
        let listener = TcpListener::from(sockets.remove(0));
        let (in_slow, entered) = async_channel::bounded(100);
        let (release, released) = async_channel::bounded(100);
        let (in_handler, handled) = async_channel::unbounded();
        let (shutdown, shutting_down) = async_channel::bounded(1);
        let handler = async move |request: Request| {
            let path = request.uri().path().to_owned();
            in_handler.send(path.clone()).await.unwrap();
            match path.as_str() {
                "/echo" => Response::new(Full::from(request.into_body())),
                "/large" => Response::new(Full::from(vec![b'x'; LARGE_BYTES])),
                "/slow" => {
                    in_slow.send(()).await.unwrap();
                    released.recv().await.unwrap();
                    Response::new(Full::from("done"))
                }
                _ => reason(StatusCode::NOT_FOUND, "expected a path that is served"),
            }
        };
        let before_body = |head: &Parts| match head.uri.path() {
            "/refused" => Err(Refusal::new(StatusCode::FORBIDDEN, "expected another path")),
            _ => Ok(()),
        };
        let thread = std::thread::spawn(move || {
            let executor = LocalExecutorBuilder::new(Placement::Unbound).io_memory(64 << 10).make().unwrap();
            executor.run(async move {
                let shutdown = async {
                    let _ = shutting_down.recv().await;
                };
                serve(listener, limits, Rc::new(before_body), Rc::new(handler), shutdown).await.unwrap();
            });
        });
        Server { address, entered, release, handled, shutdown, thread: Some(thread) }
    }

    fn connect(&self) -> Client {
        let stream = TcpStream::connect(self.address).unwrap();
        stream.set_read_timeout(Some(PATIENCE)).unwrap();
        stream.set_write_timeout(Some(PATIENCE)).unwrap();
        Client(BufReader::new(stream))
    }

    /// Joins the server's thread, after its shutdown.
    fn join(&mut self) {
        self.thread.take().unwrap().join().unwrap();
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        if let Some(thread) = self.thread.take() {
            let _ = self.shutdown.try_send(());
            // Lets what may still be handled end.
            self.release.close();
            let ended = thread.join();
            assert!(ended.is_ok() || std::thread::panicking(), "the server panicked");
        }
    }
}

struct Client(BufReader<TcpStream>);

#[derive(Debug)]
struct Reply {
    status: u16,
    /// In lower case.
    head: String,
    body: Vec<u8>,
}

impl Client {
    fn send(&mut self, octets: impl AsRef<[u8]>) {
        self.0.get_mut().write_all(octets.as_ref()).unwrap();
    }

    fn half_close(&self) {
        self.0.get_ref().shutdown(Shutdown::Write).unwrap();
    }

    /// One response.
    fn reply(&mut self) -> Reply {
        let mut head = String::new();
        while !head.ends_with("\r\n\r\n") {
            assert_ne!(self.0.read_line(&mut head).unwrap(), 0, "closed within the head: {head:?}");
        }
        let head = head.to_ascii_lowercase();
        let status = head.split(' ').nth(1).unwrap().parse().unwrap();
        let length = head.lines().find_map(|line| line.strip_prefix("content-length: ")).unwrap_or("0");
        let mut body = vec![0; length.parse().unwrap()];
        self.0.read_exact(&mut body).unwrap();
        Reply { status, head, body }
    }

    fn ask(&mut self, octets: impl AsRef<[u8]>) -> Reply {
        self.send(octets);
        self.reply()
    }

    /// Whether the server has closed, orderly or not; waits for it.
    fn is_closed(&mut self) -> bool {
        match self.0.read(&mut [0]) {
            Ok(octets) => octets == 0,
            Err(error) => error.kind() == ErrorKind::ConnectionReset,
        }
    }

    /// Sends one octet after the other, each a moment after the last, until the server has had enough; what it says then.
    fn trickle(&mut self, octets: impl Iterator<Item = u8>) -> Reply {
        for octet in octets {
            self.send([octet]);
            self.0.get_ref().set_read_timeout(Some(SOON / 10)).unwrap();
            match self.0.fill_buf() {
                Ok(_) => {
                    self.0.get_ref().set_read_timeout(Some(PATIENCE)).unwrap();
                    return self.reply();
                }
                Err(error) => assert!([ErrorKind::WouldBlock, ErrorKind::TimedOut].contains(&error.kind()), "{error}"),
            }
        }
        panic!("the server waits for ever");
    }
}

fn post(path: &str, body: &str) -> String {
    format!("POST {path} HTTP/1.1\r\nHost: h\r\nContent-Length: {}\r\n\r\n{body}", body.len())
}

fn post_chunked(chunks: &[&str]) -> String {
    let chunks: String = chunks.iter().map(|chunk| format!("{:x}\r\n{chunk}\r\n", chunk.len())).collect();
    format!("POST /echo HTTP/1.1\r\nHost: h\r\nTransfer-Encoding: chunked\r\n\r\n{chunks}0\r\n\r\n")
}

#[test]
fn a_connection_serves_one_request_after_another() {
    let server = Server::start(limits());
    let mut client = server.connect();
    for body in ["one", "", "three"] {
        let reply = client.ask(post("/echo", body));
        assert_eq!((reply.status, reply.body), (200, body.into()));
        assert!(reply.head.contains("\r\ncache-control: no-store\r\n"), "{}", reply.head);
        assert!(reply.head.contains("\r\nx-content-type-options: nosniff\r\n"), "{}", reply.head);
        assert!(!reply.head.contains("\r\nconnection:"), "{}", reply.head);
    }
    let reply = client.ask("GET /nothing HTTP/1.1\r\nHost: h\r\n\r\n");
    assert_eq!(reply.status, 404);
    assert!(reply.head.contains("\r\ncontent-type: application/json\r\n"), "{}", reply.head);
    assert_eq!(reply.body, br#"{"Reason":"expected a path that is served"}"#);
    assert_eq!(client.ask("GET /echo HTTP/1.1\r\nHost: h\r\nConnection: close\r\n\r\n").status, 200);
    assert!(client.is_closed());
}

#[test]
fn pipelined_requests_are_answered_in_their_order() {
    let server = Server::start(limits());
    let mut client = server.connect();
    client.send(post("/echo", "one") + &post("/echo", "two") + GET + &post_chunked(&["th", "ree"]));
    for body in ["one", "two", "", "three"] {
        assert_eq!(client.reply().body, body.as_bytes());
    }
}

#[test]
fn a_chunked_body_is_joined_however_it_arrives() {
    let server = Server::start(limits());
    let mut client = server.connect();
    assert_eq!(client.ask(post_chunked(&["a"; 1_000])).body, [b'a'; 1_000]);
    for octet in post_chunked(&["sm", "all", " pieces"]).bytes() {
        client.send([octet]);
    }
    assert_eq!(client.reply().body, b"small pieces");
}

#[test]
fn a_body_over_the_limit_is_refused_before_it_is_read() {
    let server = Server::start(limits());
    let mut client = server.connect();
    assert_eq!(client.ask(post("/echo", &"x".repeat(1_000))).status, 200, "exactly the limit");
    server.handled.try_recv().unwrap();
    // None of it has been sent.
    let reply = client.ask("POST /echo HTTP/1.1\r\nHost: h\r\nContent-Length: 1001\r\n\r\n");
    assert_eq!(reply.status, 413);
    let text = r#"{"Reason":"body: expected at most 1000 octets (body_bytes_max in [api]), got 1001"}"#;
    assert_eq!(String::from_utf8(reply.body).unwrap(), text);
    assert!(reply.head.contains("\r\nconnection: close\r\n"), "{}", reply.head);
    client.half_close();
    assert!(client.is_closed());

    // Its end has not been sent.
    let mut client = server.connect();
    let head = "POST /echo HTTP/1.1\r\nHost: h\r\nTransfer-Encoding: chunked\r\n\r\n";
    let reply = client.ask(format!("{head}3e9\r\n{}", "x".repeat(1_001)));
    assert_eq!(reply.status, 413);
    assert!(reply.head.contains("\r\nconnection: close\r\n"), "{}", reply.head);
    client.half_close();
    assert!(client.is_closed());
    assert!(server.handled.is_empty());
}

#[test]
fn a_client_that_sends_its_whole_body_first_still_learns_that_it_is_refused() {
    let server = Server::start(limits());
    for path in ["/echo", "/refused"] {
        let mut client = server.connect();
        let reply = client.ask(post(path, &"x".repeat(8 << 20)));
        assert!([403, 413].contains(&reply.status), "{}", reply.head);
        client.half_close();
        assert!(client.is_closed());
    }
    assert!(server.handled.is_empty());
}

#[test]
fn the_body_of_a_refused_head_is_neither_invited_nor_read() {
    let server = Server::start(limits());
    let expects = "Host: h\r\nContent-Length: 4\r\nExpect: 100-continue\r\n\r\n";
    let mut client = server.connect();
    let reply = client.ask(format!("POST /refused HTTP/1.1\r\n{expects}"));
    assert_eq!((reply.status, reply.body), (403, br#"{"Reason":"expected another path"}"#.to_vec()));
    assert!(reply.head.contains("\r\nconnection: close\r\n"), "{}", reply.head);
    assert!(reply.head.contains("\r\ncache-control: no-store\r\n"), "{}", reply.head);
    client.half_close();
    assert!(client.is_closed());

    let mut client = server.connect();
    assert_eq!(client.ask(format!("POST /echo HTTP/1.1\r\n{expects}")).status, 100);
    assert_eq!(client.ask("body").body, b"body");
    // Without a body the connection goes on.
    assert_eq!(client.ask("GET /refused HTTP/1.1\r\nHost: h\r\n\r\n").status, 403);
    assert_eq!(client.ask(GET).status, 200);
}

#[test]
fn a_body_that_is_cut_short_or_badly_framed_never_reaches_the_handler() {
    let server = Server::start(limits());
    let mut client = server.connect();
    client.send("POST /echo HTTP/1.1\r\nHost: h\r\nContent-Length: 10\r\n\r\nshort");
    client.half_close();
    assert_eq!(client.reply().status, 400);
    assert!(client.is_closed());
    let mut client = server.connect();
    let reply = client.ask("POST /echo HTTP/1.1\r\nHost: h\r\nTransfer-Encoding: chunked\r\n\r\nnonsense\r\n");
    assert_eq!(reply.status, 400);
    client.half_close();
    assert!(client.is_closed());
    assert!(server.handled.is_empty());
}

#[test]
fn a_head_has_to_be_whole_in_time_however_it_trickles() {
    // Long enough for the whole requests among them.
    let server = Server::start(HttpLimits { header_within: 5 * SOON, ..limits() });
    let mut silent = server.connect();
    let mut client = server.connect();
    assert_eq!(client.ask(GET).status, 200);
    server.handled.try_recv().unwrap();
    let beginning = || "GET /echo HTTP/1.1\r\nX: ".bytes().chain([b'x'; 1_000]);
    let (second, mut fresh) = (client.trickle(beginning()), server.connect());
    for (reply, client) in [(second, &mut client), (fresh.trickle(beginning()), &mut fresh)] {
        assert_eq!(reply.status, 408);
        let reason = r#"{"Reason":"head: expected all of it within 1s, got a part; send it sooner"}"#;
        assert_eq!(String::from_utf8(reply.body).unwrap(), reason);
        client.half_close();
        assert!(client.is_closed());
    }
    assert!(silent.is_closed(), "without a word: it has begun no request");
    assert!(server.handled.is_empty());
}

#[test]
fn a_body_has_to_be_whole_in_time_however_it_trickles() {
    let server = Server::start(HttpLimits { body_within: SOON, ..limits() });
    let mut client = server.connect();
    client.send("POST /echo HTTP/1.1\r\nHost: h\r\nContent-Length: 1000\r\n\r\n");
    let reply = client.trickle([b'x'; 999].into_iter());
    assert_eq!(reply.status, 408);
    let reason = r#"{"Reason":"body: expected all of it within 200ms, got a part; send it sooner"}"#;
    assert_eq!(String::from_utf8(reply.body).unwrap(), reason);
    client.half_close();
    assert!(client.is_closed());
    assert!(server.handled.is_empty());
}

#[test]
fn an_idle_connection_is_closed_and_one_that_is_being_handled_is_not() {
    let server = Server::start(HttpLimits { idle_within: SOON, body_within: SOON, ..limits() });
    let mut slow = server.connect();
    slow.send("GET /slow HTTP/1.1\r\nHost: h\r\n\r\n");
    server.entered.recv_blocking().unwrap();
    let mut idle = server.connect();
    assert_eq!(idle.ask(GET).status, 200);
    assert!(idle.is_closed());
    // By now the slow one has been handled for longer than it might have been idle, or sent a body.
    server.release.try_send(()).unwrap();
    assert_eq!(slow.reply().body, b"done");
    assert!(slow.is_closed());
}

#[test]
fn further_connections_wait_for_a_free_place() {
    let server = Server::start(HttpLimits { connections_max: 1, ..limits() });
    let mut first = server.connect();
    first.send("GET /slow HTTP/1.1\r\nHost: h\r\n\r\n");
    server.entered.recv_blocking().unwrap();
    let mut others: Vec<Client> = (0..10).map(|_| server.connect()).collect();
    others.iter_mut().for_each(|other| other.send(GET));
    let other = &mut others[0];
    other.0.get_ref().set_read_timeout(Some(SOON)).unwrap();
    assert_eq!(other.0.read(&mut [0]).unwrap_err().kind(), ErrorKind::WouldBlock, "there is no place for it");
    other.0.get_ref().set_read_timeout(Some(PATIENCE)).unwrap();
    server.release.try_send(()).unwrap();
    let reply = first.reply();
    assert!(reply.head.contains("\r\nconnection: close\r\n"), "others wait for its place: {}", reply.head);
    drop(first);
    for mut other in others {
        assert_eq!(other.reply().status, 200);
    }
}

#[test]
fn a_client_that_has_closed_its_side_gets_the_whole_response() {
    let server = Server::start(limits());
    let mut client = server.connect();
    client.send("GET /slow HTTP/1.1\r\nHost: h\r\n\r\n");
    client.half_close();
    server.entered.recv_blocking().unwrap();
    server.release.try_send(()).unwrap();
    assert_eq!(client.reply().body, b"done");
    assert!(client.is_closed());
    let mut client = server.connect();
    client.send("GET /large HTTP/1.1\r\nHost: h\r\n\r\n");
    client.half_close();
    assert_eq!(client.reply().body.len(), LARGE_BYTES);
    assert!(client.is_closed());
}

#[test]
fn a_client_that_reads_no_response_loses_its_place() {
    let server = Server::start(HttpLimits { connections_max: 1, write_within: SOON, ..limits() });
    let mut deaf = server.connect();
    deaf.send("GET /large HTTP/1.1\r\nHost: h\r\n\r\n");
    assert_eq!(server.handled.recv_blocking().unwrap(), "/large");
    assert_eq!(server.connect().ask(GET).status, 200);
}

#[test]
fn a_slow_reader_is_not_idle() {
    let server = Server::start(HttpLimits { idle_within: SOON, ..limits() });
    let mut slow = server.connect();
    slow.send("GET /large HTTP/1.1\r\nHost: h\r\n\r\n");
    assert_eq!(server.handled.recv_blocking().unwrap(), "/large");
    // Others are found idle meanwhile, the second one while nothing more of the response can leave.
    for _ in 0..2 {
        let mut idle = server.connect();
        assert_eq!(idle.ask(GET).status, 200);
        assert!(idle.is_closed());
    }
    assert_eq!(slow.reply().body.len(), LARGE_BYTES);
    assert!(slow.is_closed(), "idle at last");
}

#[test]
fn what_is_no_request_is_answered_with_4xx_and_the_end() {
    let server = Server::start(limits());
    let long = "x".repeat(HEAD_BYTES_MAX);
    for (sent, wanted) in [
        ("nonsense\r\n\r\n".to_owned(), 400),
        ("GET / HTTP/9.9\r\n\r\n".to_owned(), 400),
        ("PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n".to_owned(), 400),
        ("GET / HTTP/1.1\r\nno colon\r\n\r\n".to_owned(), 400),
        ("POST / HTTP/1.1\r\nHost: h\r\nContent-Length: -1\r\n\r\n".to_owned(), 400),
        ("POST / HTTP/1.1\r\nHost: h\r\nContent-Length: 1\r\nContent-Length: 2\r\n\r\n".to_owned(), 400),
        ("\u{16}\u{3}\u{1}\u{2}\0\u{1}\0".to_owned(), 400),
        (format!("GET / HTTP/1.1\r\nX: {long}\r\n\r\n"), 431),
        (format!("GET / HTTP/1.1\r\nX: {long}"), 431),
        (format!("GET / HTTP/1.1\r\n{}\r\n", "X: y\r\n".repeat(101)), 431),
    ] {
        let mut client = server.connect();
        let reply = client.ask(&sent);
        let shown = &sent[..sent.len().min(60)];
        assert_eq!(reply.status, wanted, "{shown:?}");
        assert!(reply.head.contains("\r\ncontent-type: application/json\r\n"), "{}", reply.head);
        assert!(reply.head.contains("\r\nconnection: close\r\n"), "{}", reply.head);
        assert!(reply.head.contains(" gmt\r\n"), "{}", reply.head);
        let reason: serde_json::Value = serde_json::from_slice(&reply.body).unwrap();
        let reason = reason["Reason"].as_str().unwrap();
        assert!(reason.starts_with("head: expected ") && reason.contains(", got "), "{shown:?}: {reason}");
        client.half_close();
        assert!(client.is_closed());
    }
    // Behind responses that are still to be read, in the same buffer.
    let mut client = server.connect();
    client.send(GET.repeat(3) + &post("/echo", "last") + "nonsense\r\n\r\n");
    for body in ["", "", "", "last"] {
        let reply = client.reply();
        assert_eq!((reply.status, reply.body), (200, body.into()));
        server.handled.try_recv().unwrap();
    }
    let reply = client.reply();
    assert!(reply.status == 400 && reply.body.starts_with(b"{\"Reason\":\"head: expected"), "{reply:?}");
    client.half_close();
    assert!(client.is_closed());
    assert!(server.handled.is_empty());
    assert_eq!(server.connect().ask(GET).status, 200, "others are served as before");
}

#[test]
fn a_shutdown_lets_requests_under_way_end_and_closes_what_is_idle() {
    let mut server = Server::start(limits());
    let (mut idle, mut fresh, mut slow) = (server.connect(), server.connect(), server.connect());
    assert_eq!(idle.ask(GET).status, 200);
    slow.send("GET /slow HTTP/1.1\r\nHost: h\r\n\r\n");
    server.entered.recv_blocking().unwrap();
    server.shutdown.try_send(()).unwrap();
    assert!(idle.is_closed());
    assert!(fresh.is_closed());
    drop((idle, fresh));
    assert_eq!(TcpStream::connect(server.address).unwrap_err().kind(), ErrorKind::ConnectionRefused);
    server.release.try_send(()).unwrap();
    let reply = slow.reply();
    assert_eq!(reply.body, b"done");
    assert!(reply.head.contains("\r\nconnection: close\r\n"), "{}", reply.head);
    drop(slow);
    server.join();
    listen(server.address, 1).unwrap();
}

#[test]
fn a_shutdown_waits_for_no_request_for_ever() {
    let mut server = Server::start(HttpLimits { shutdown_within: SOON, ..limits() });
    let mut slow = server.connect();
    slow.send("GET /slow HTTP/1.1\r\nHost: h\r\n\r\n");
    server.entered.recv_blocking().unwrap();
    let mut half = server.connect();
    half.send("GET /half");
    server.shutdown.try_send(()).unwrap();
    assert!(slow.is_closed());
    assert!(half.is_closed());
    server.join();
}

#[test]
fn bodies_of_all_connections_share_one_budget() {
    let server = Server::start(HttpLimits { bodies_bytes_max: 1_500, ..limits() });
    let post =
        |path: &str| format!("POST {path} HTTP/1.1\r\nHost: h\r\nContent-Length: 1000\r\n\r\n{}", "x".repeat(1_000));
    let mut first = server.connect();
    first.send(post("/slow"));
    server.entered.recv_blocking().unwrap();
    // The first one's body is held for as long as it is handled.
    let mut second = server.connect();
    second.send(post("/echo"));
    let refused = second.reply();
    assert_eq!(refused.status, 503, "{refused:?}");
    assert!(refused.head.contains("\r\nretry-after: 1\r\n"), "{refused:?}");
    assert!(String::from_utf8(refused.body).unwrap().starts_with("{\"Reason\":\"body: expected"));
    server.release.send_blocking(()).unwrap();
    assert_eq!(first.reply().status, 200);
    let mut third = server.connect();
    third.send(post("/echo"));
    assert_eq!(third.reply().status, 200, "there is room again");
}
