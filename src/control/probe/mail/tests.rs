//! Probes on their way out, and mail on its way in.

use std::io::{BufRead as _, BufReader, Read as _, Write as _};
use std::net::{Shutdown, TcpListener, TcpStream};

use super::*;
use crate::config::TargetUrl;
use crate::control::targets::{Unresolved, resolve};
use crate::probe::policy::ARRIVALS_PENDING_MAX;

const HEADER: &str = "v=1; id=1";

fn mailbox(text: &str) -> Mailbox {
    Mailbox::parse(text).unwrap()
}

fn shard(limits: ServerLimits) -> ProbeShard {
    let plan = ProbeShardPlan {
        listen: vec!["127.0.0.1:0".parse().unwrap()],
        hostname: "mx.example".to_owned(),
        tls: Some(ServerTls::self_signed("mx.example").unwrap()),
        address: mailbox("probe@mx.example"),
        limits,
        cpu: None,
    };
    ProbeShard::start(plan, Clock::start()).unwrap()
}

/// What the shard says next that is of use.
fn hear(shard: &mut ProbeShard) -> Heard {
    loop {
        let (_, event) = shard.events().recv_blocking().unwrap();
        if let Some(heard) = shard.take(event).unwrap() {
            return heard;
        }
    }
}

fn arrival(shard: &mut ProbeShard) -> Arrival {
    match hear(shard) {
        Heard::Arrived(arrival, _) => arrival,
        Heard::Posted(posted) => panic!("{posted:?}"),
    }
}

fn posted(shard: &mut ProbeShard) -> Posted {
    match hear(shard) {
        Heard::Posted(posted) => posted,
        Heard::Arrived(arrival, _) => panic!("{arrival:?}"),
    }
}

fn target(address: SocketAddr) -> ResolvedTarget {
    let url = TargetUrl::parse(&format!("smtp://{address}")).unwrap();
    resolve(Unresolved::unrestricted(url)).unwrap()
}

/// Sends a probe of 2,000 octets, by a route that no more are sent by than may be.
fn post(shard: &mut ProbeShard, id: u64, target: &ResolvedTarget, timeout: Duration) {
    let job_type = if target.request.path.is_empty() { JobType::Smtp } else { JobType::HttpMime };
    let route = (id / SENDING_OF_ROUTE_MAX as u64).to_string();
    let post = Post { id, route, timeout, ..small(target, job_type, 2_000) };
    shard.post(post.build(shard.host().to_owned(), Instant::ZERO).unwrap()).unwrap();
}

/// A probe of so many octets.
fn small(target: &ResolvedTarget, job_type: JobType, size: u64) -> Post {
    Post {
        id: 1,
        route: "r".to_owned(),
        target: target.clone(),
        job_type,
        from: ReversePath::parse("timecop@mx.example").unwrap(),
        to: mailbox("probe@mx.example"),
        header: HEADER.to_owned(),
        size,
        timeout: Duration::from_secs(1),
    }
}

/// A client of our own port 25.
struct Client(BufReader<TcpStream>);

impl Client {
    fn connect(shard: &ProbeShard) -> Client {
        let stream = TcpStream::connect(shard.addresses()[0]).unwrap();
        stream.set_read_timeout(Some(Duration::from_secs(30))).unwrap();
        let mut client = Client(BufReader::new(stream));
        client.read();
        client
    }

    /// With a message that waits.
    fn with_message(shard: &ProbeShard, text: &str) -> Client {
        let mut client = Client::connect(shard);
        for command in ["HELO c", "MAIL FROM:<a@x>", "RCPT TO:<probe@mx.example>", "DATA"] {
            client.say(command);
            assert!(matches!(client.read().as_bytes()[0], b'2' | b'3'));
        }
        client.say(&format!("Subject: {text}\r\n\r\nbody\r\n."));
        client
    }

    fn say(&mut self, text: &str) {
        self.0.get_mut().write_all(format!("{text}\r\n").as_bytes()).unwrap();
    }

    /// One line; empty at the end.
    fn read(&mut self) -> String {
        let mut line = String::new();
        self.0.read_line(&mut line).unwrap();
        line
    }
}

#[test]
fn a_probe_to_ourselves_goes_out_comes_in_and_is_accepted_when_control_says_so() {
    let mut shard = shard(ServerLimits::default());
    let target = target(shard.addresses()[0]);
    let before = wall_now();
    post(&mut shard, 7, &target, Duration::from_secs(30));
    assert_eq!(shard.posting(), 1);
    let Heard::Arrived(arrived, wall) = hear(&mut shard) else { panic!("it is accepted before it is stored") };
    assert!(wall >= before && wall <= wall_now());
    assert_eq!(arrived.bytes, 2_000, "it is padded");
    let header = String::from_utf8(arrived.header.to_vec()).unwrap();
    assert!(header.contains("\r\nX-Timecop-Probe: v=1; id=1\r\nAuto-Submitted: auto-generated\r\n\r\n"), "{header}");
    for field in
        ["Message-ID: <", "Date: ", "From: <timecop@mx.example>\r\n", "To: <probe@mx.example>\r\n", "Subject: "]
    {
        assert_eq!(header.matches(field).count(), 1, "{field}: {header}");
    }
    shard.answer(arrived.ticket, Verdict::Accept);
    let posted = posted(&mut shard);
    let PostOutcome::Accepted { at } = posted.outcome else { panic!("{posted:?}") };
    assert!(posted.id == 7 && at > arrived.arrived && at <= shard.pool.clock().now());
    assert!(posted.legs.connect.is_some() && posted.legs.tls.is_none() && posted.legs.auth.is_none());
    let submit = posted.legs.submit.unwrap();
    assert!(submit > at - arrived.arrived, "the reply was waited for: {submit:?}");
    assert_eq!((shard.posting(), shard.counts().accepted), (0, 1));
    shard.end();
}

#[test]
fn a_probe_of_any_size_is_valid_and_of_that_size() {
    let target = target("127.0.0.1:25".parse().unwrap());
    let at =
        Circumstances { now: Instant::ZERO, wall: wall_now(), run_id: 1, host: "mx.example".to_owned(), audit: None };
    let bytes = |size| {
        let from = ReversePath::parse("").unwrap();
        let post = Post { from, ..small(&target, JobType::Smtp, size) };
        let (_, (job, conversion)) = built(&post, &at).unwrap();
        assert!(!conversion.is_any(), "{size}");
        job.message_bytes(0)
    };
    let least = bytes(0);
    assert_eq!((bytes(least), bytes(least - 1)), (least, least));
    assert!((2..400).all(|more| bytes(least + more) == least + more));
    assert_eq!(bytes(1_000_000), 1_000_000);
}

#[test]
fn a_refusal_names_phase_code_and_words() {
    let mut shard = shard(ServerLimits { message_bytes_max: 1_000, ..ServerLimits::default() });
    let own = target(shard.addresses()[0]);
    post(&mut shard, 1, &own, Duration::from_secs(30));
    let refused = Refused { phase: Phase::Mail, code: 552, text: "5.3.4 message too large".to_owned() };
    assert_eq!(posted(&mut shard).outcome, PostOutcome::Refused(refused));
    // Put off by control.
    let small = ServerLimits::default();
    let mut shard = self::shard(small);
    let own = target(shard.addresses()[0]);
    post(&mut shard, 2, &own, Duration::from_secs(30));
    let arrived = arrival(&mut shard);
    shard.answer(arrived.ticket, Verdict::Defer);
    let Posted { id: 2, outcome: PostOutcome::Refused(refused), legs } = posted(&mut shard) else { panic!() };
    assert_eq!((refused.phase, refused.code), (Phase::Final, 451));
    assert!(legs.submit.is_some());
    assert_eq!(shard.counts().deferred, 1);
}

#[test]
fn a_target_that_is_not_there_or_does_not_answer_is_a_failure_in_its_phase() {
    let mut shard = shard(ServerLimits::default());
    let free = TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap();
    post(&mut shard, 1, &target(free), Duration::from_secs(30));
    let Posted { outcome: PostOutcome::Failed { phase, reason, unsure }, legs, .. } = posted(&mut shard) else {
        panic!()
    };
    assert_eq!((phase, unsure), (Phase::Connect, false));
    assert!(reason.contains("refused") && legs.submit.is_none(), "{reason}");

    let silent = TcpListener::bind("127.0.0.1:0").unwrap();
    post(&mut shard, 2, &target(silent.local_addr().unwrap()), Duration::from_millis(50));
    let Posted { outcome: PostOutcome::Failed { phase, unsure, .. }, .. } = posted(&mut shard) else { panic!() };
    assert_eq!((phase, unsure), (Phase::Banner, false));
}

#[test]
fn a_message_whose_reply_does_not_come_may_have_been_taken() {
    let mut shard = shard(ServerLimits::default());
    let silent = TcpListener::bind("127.0.0.1:0").unwrap();
    post(&mut shard, 1, &target(silent.local_addr().unwrap()), Duration::from_secs(30));
    let (mut stream, _) = silent.accept().unwrap();
    for reply in ["220 x\r\n", "250 x\r\n", "250 x\r\n", "250 x\r\n", "354 x\r\n"] {
        stream.write_all(reply.as_bytes()).unwrap();
        assert!(stream.read(&mut [0; 4_096]).unwrap() > 0);
    }
    drop(stream);
    let Posted { outcome: PostOutcome::Failed { phase, unsure, .. }, .. } = posted(&mut shard) else { panic!() };
    assert_eq!((phase, unsure), (Phase::Final, true));
}

/// What one target holds up is its own route.
#[test]
fn probes_under_way_are_bounded_for_each_route() {
    let mut shard = shard(ServerLimits::default());
    let silent = TcpListener::bind("127.0.0.1:0").unwrap();
    let target = target(silent.local_addr().unwrap());
    let of_route = SENDING_OF_ROUTE_MAX as u64;
    (0..of_route).for_each(|id| post(&mut shard, id, &target, Duration::from_secs(30)));
    let busy = Err(PostError::RouteBusy);
    assert_eq!((shard.has_room("0", |_| false), shard.has_room("1", |_| true)), (busy, Ok(())));
    let one_more = Post { route: "0".to_owned(), ..small(&target, JobType::Smtp, 0) };
    assert_eq!(shard.post(one_more.build("mx.example".to_owned(), Instant::ZERO).unwrap()), busy);
    drop(silent);
    let mut ended: Vec<u64> = (0..of_route).map(|_| posted(&mut shard).id).collect();
    ended.sort_unstable();
    assert!(ended.iter().copied().eq(0..of_route), "each ends once: {ended:?}");
    assert_eq!(shard.has_room("0", |_| true), Ok(()));
}

#[test]
fn of_probes_that_have_not_arrived_fewer_may_be_under_way() {
    let mut shard = shard(ServerLimits::default());
    let silent = TcpListener::bind("127.0.0.1:0").unwrap();
    let target = target(silent.local_addr().unwrap());
    (0..POSTING_OF_ROUTE_MAX as u64).for_each(|id| post(&mut shard, id, &target, Duration::from_secs(30)));
    assert_eq!(shard.has_room("0", |_| true), Err(PostError::RouteBusy));
    assert_eq!(shard.has_room("0", |id| id != 0), Ok(()), "one has arrived, though its server has not said so");
}

#[test]
fn tickets_do_not_mix_up_connections() {
    let mut shard = shard(ServerLimits::default());
    let mut clients: Vec<Client> = (0..5).map(|number| Client::with_message(&shard, &format!("{number}"))).collect();
    let mut tickets = [0; 5];
    for _ in 0..5 {
        let arrived = arrival(&mut shard);
        let number = arrived.header.iter().find(|octet| octet.is_ascii_digit()).unwrap() - b'0';
        tickets[number as usize] = arrived.ticket;
    }
    // A client that has gone, and one that has not waited for its reply: what is decided over them strikes nobody else.
    drop(clients.remove(0));
    clients[0].say("QUIT");
    shard.answer(tickets[0], Verdict::Accept);
    let mut next = Client::with_message(&shard, "9");
    let of_next = arrival(&mut shard);
    shard.answer(tickets[3], Verdict::Defer);
    shard.answer(tickets[0], Verdict::Defer);
    shard.answer(99, Verdict::Defer);
    assert!(clients[2].read().starts_with("451 "));
    shard.answer(tickets[1], Verdict::Accept);
    assert!(
        clients[0].read().starts_with("250 ") && clients[0].read().starts_with("221 ") && clients[0].read().is_empty()
    );
    shard.answer(tickets[4], Verdict::Accept);
    shard.answer(tickets[2], Verdict::Accept);
    assert!(clients[3].read().starts_with("250 ") && clients[1].read().starts_with("250 "));
    shard.answer(of_next.ticket, Verdict::Accept);
    assert!(next.read().starts_with("250 "));
}

#[test]
fn a_client_that_closes_its_side_still_gets_its_reply() {
    let mut shard = shard(ServerLimits::default());
    let mut client = Client::with_message(&shard, "1");
    client.0.get_ref().shutdown(Shutdown::Write).unwrap();
    let arrived = arrival(&mut shard);
    shard.answer(arrived.ticket, Verdict::Accept);
    assert!(client.read().starts_with("250 ") && client.read().is_empty());
}

#[test]
fn more_arrivals_than_control_takes_are_put_off() {
    let limits = ServerLimits { connections_max: 200, connections_per_client_max: 200, ..ServerLimits::default() };
    let mut shard = shard(limits);
    // Control takes none of them: the first ones wait, and the others are told to come again.
    let mut clients: Vec<Client> =
        (0..ARRIVALS_PENDING_MAX + 20).map(|number| Client::with_message(&shard, &number.to_string())).collect();
    let last = clients.last_mut().unwrap();
    assert!(last.read().starts_with("451 4.3.0"));
    let arrived = arrival(&mut shard);
    shard.answer(arrived.ticket, Verdict::Accept);
    assert!(clients[0].read().starts_with("250 "));
}

#[test]
fn a_client_has_so_many_connections_and_they_become_free_again() {
    let mut shard = shard(ServerLimits { connections_per_client_max: 3, ..ServerLimits::default() });
    for _ in 0..3 {
        let clients: Vec<Client> = (0..3).map(|_| Client::with_message(&shard, "1")).collect();
        let stream = TcpStream::connect(shard.addresses()[0]).unwrap();
        let mut refused = String::new();
        BufReader::new(stream).read_to_string(&mut refused).unwrap();
        assert!(refused.starts_with("421 4.7.0"), "{refused}");
        // Each is answered and parts, so that its end is seen before the next round.
        for _ in 0..3 {
            let arrived = arrival(&mut shard);
            shard.answer(arrived.ticket, Verdict::Accept);
        }
        for mut client in clients {
            assert!(client.read().starts_with("250"));
            client.say("QUIT");
            assert!(client.read().starts_with("221") && client.read().is_empty());
        }
    }
    assert_eq!(shard.counts().sessions_refused, 3);
}

/// Gives each connection's request, whole, this answer; none if it is empty.
fn answering(answer: &'static str) -> ResolvedTarget {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let url = TargetUrl::parse(&format!("http://{}/v3/a", listener.local_addr().unwrap())).unwrap();
    std::thread::spawn(move || {
        let (mut stream, _) = listener.accept().unwrap();
        let (mut request, mut piece) = (Vec::new(), [0; 4_096]);
        // The probe of 2,000 octets, whose header is in it.
        while String::from_utf8_lossy(&request).split_once("\r\n\r\n").is_none_or(|(_, body)| body.len() < 2_000) {
            let octets = stream.read(&mut piece).unwrap();
            assert!(octets > 0, "the request ends early");
            request.extend_from_slice(&piece[..octets]);
        }
        stream.write_all(answer.as_bytes()).unwrap();
    });
    resolve(Unresolved::unrestricted(url)).unwrap()
}

#[test]
fn answers_of_http_are_outcomes_and_silence_leaves_it_open() {
    let mut shard = shard(ServerLimits::default());
    let mut ask = |answer| {
        post(&mut shard, 1, &answering(answer), Duration::from_secs(30));
        posted(&mut shard)
    };
    let taken = ask("HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok");
    assert!(matches!(taken.outcome, PostOutcome::Accepted { .. }), "{taken:?}");
    assert!(taken.legs.connect.is_some() && taken.legs.submit.is_some() && taken.legs.auth.is_none(), "{taken:?}");
    for (code, answer) in [
        (302, "HTTP/1.1 302 Found\r\nContent-Length: 2\r\n\r\nno"),
        (401, "HTTP/1.1 401 Unauthorized\r\nContent-Length: 2\r\n\r\nno"),
        (429, "HTTP/1.1 429 Too Many Requests\r\nContent-Length: 2\r\n\r\nno"),
        (500, "HTTP/1.1 500 Internal Server Error\r\nContent-Length: 2\r\n\r\nno"),
    ] {
        let refused = Refused { phase: Phase::LastByte, code, text: "no".to_owned() };
        assert_eq!(ask(answer).outcome, PostOutcome::Refused(refused));
    }
    let closed = ask("");
    let PostOutcome::Failed { phase, unsure, .. } = closed.outcome else { panic!("{closed:?}") };
    assert_eq!((phase, unsure), (Phase::FirstByte, true), "it may have been taken");
    shard.end();
}

#[test]
fn a_form_is_of_its_size_and_has_the_header_as_an_option() {
    let url = TargetUrl::parse("http://127.0.0.1:1/v3/a").unwrap();
    let target = resolve(Unresolved::unrestricted(url)).unwrap();
    let at =
        Circumstances { now: Instant::ZERO, wall: wall_now(), run_id: 1, host: "mx.example".to_owned(), audit: None };
    for size in [1_024, 5_000] {
        let (spec, (job, _)) = built(&small(&target, JobType::Http, size), &at).unwrap();
        assert_eq!(job.message_bytes(0), size);
        let http = spec.http.expect("it goes by HTTP");
        assert_eq!((&*http.path, &http.options[0].1), ("/v3/a/messages", &HEADER.to_owned()));
        assert_eq!(http.options[0].0, "h:X-Timecop-Probe");
    }
}

#[test]
fn a_shard_that_says_nothing_of_a_probe_hangs() {
    let mut shard = shard(ServerLimits::default());
    let silent = TcpListener::bind("127.0.0.1:0").unwrap();
    post(&mut shard, 1, &target(silent.local_addr().unwrap()), Duration::from_secs(60));
    assert_eq!(shard.look(), Ok(()));
    let began = shard.pool.clock().now();
    // Five looks a second, for 15 s.
    for look in 1..=75 {
        shard.posting[0].job.silent(began + Duration::from_millis(200) * look);
    }
    assert_eq!(shard.look(), Err(SILENT.to_owned()));
    shard.end();
}
