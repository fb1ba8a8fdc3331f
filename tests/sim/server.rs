//! The target: real sessions with a real sink policy, whose replies a hostile server garbles on their way out.

use rand::{RngExt, SeedableRng};
use rand_pcg::Pcg64;
use timecop::sink::fault::TlsFault;
use timecop::sink::{SinkPolicy, SinkSettings, Stub};
use timecop::time::Instant;
use timecop::wire::http::server as http;
use timecop::wire::smtp::server::{Flow, ServerConfig, Session};

/// The line by which a session accepts a message.
pub const ACCEPTED: &[u8] = b"250 2.6.0 accepted\r\n";

/// The end of the answer by which the stub accepts a message.
pub const QUEUED: &[u8] = br#""message":"Queued. Thank you."}"#;
/// What a session hears that did not ask for the TLS records that come.
const RECORD: &[u8] = b"\x16\x03\x01\x00\x05hello\r\n";

/// What becomes of a connection, from the server's side.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Parting {
    Stay,
    /// It stays, and TLS begins behind what is written.
    StartTls,
    Close,
    Drop,
    /// A reset behind what is written.
    Reset,
}

impl From<Flow> for Parting {
    fn from(flow: Flow) -> Parting {
        match flow {
            Flow::Continue => Parting::Stay,
            Flow::StartTls => Parting::StartTls,
            Flow::Close => Parting::Close,
            Flow::Drop => Parting::Drop,
            Flow::Reset => Parting::Reset,
        }
    }
}

enum Dialogue {
    Smtp(Session),
    Http(http::Session<<Stub as http::Policy>::Request>),
}

/// One accepted connection.
pub struct Peer {
    dialogue: Dialogue,
    /// When the last MAIL came.
    mail: Instant,
    /// What the policy knows it by.
    number: usize,
    /// The server has not closed it.
    pub is_open: bool,
    /// It waits for a TLS handshake to begin or to end.
    pub is_handshaking: bool,
}

impl Peer {
    /// When [`Server::timeout`] is due.
    pub fn deadline(&self) -> Instant {
        match &self.dialogue {
            _ if !self.is_open => Instant::NEVER,
            Dialogue::Smtp(session) => session.deadline(),
            Dialogue::Http(session) => session.deadline(),
        }
    }
}

/// All sessions' common part.
pub struct Server {
    /// Counts what arrived.
    pub policy: SinkPolicy,
    /// Messages as they were accepted.
    pub kept: Vec<Vec<u8>>,
    /// Of each message that was accepted, when its MAIL came and when the reply left. Of one that was not pipelined.
    pub served: Vec<(Instant, Instant)>,
    /// Within this time from the accept a hostile server does something unasked.
    pub mischief_ns: u64,
    /// TLS comes before everything else.
    pub tls_at_once: bool,
    /// From when to when the server wants to be left alone, whatever arrives.
    pub storm_ns: (u64, u64),
    /// How often it said so.
    pub storms: u64,
    /// It speaks HTTP.
    pub http: Option<(http::ServerConfig, Stub)>,
    config: ServerConfig,
    peers: usize,
    malice: f64,
    random: Pcg64,
}

impl Server {
    /// A server that garbles each reply with probability `malice`.
    pub fn new(config: ServerConfig, settings: SinkSettings, start: Instant, malice: f64, seed: u64) -> Server {
        Server {
            policy: SinkPolicy::new(settings, start, seed),
            kept: Vec::new(),
            served: Vec::new(),
            mischief_ns: 1_000_000_000,
            tls_at_once: false,
            storm_ns: (0, 0),
            storms: 0,
            http: None,
            config,
            peers: 0,
            malice,
            random: Pcg64::seed_from_u64(seed ^ 0x5eed),
        }
    }

    /// Whether it does what no server should.
    pub fn is_hostile(&self) -> bool {
        self.malice > 0.0
    }

    /// The line or answer by which a message is accepted.
    pub fn accepts_by(&self) -> &'static [u8] {
        if self.http.is_some() { QUEUED } else { ACCEPTED }
    }

    /// A connection that is about to be greeted.
    pub fn accept(&self) -> Peer {
        let dialogue = match self.http {
            None => Dialogue::Smtp(Session::new()),
            Some(_) => Dialogue::Http(http::Session::new()),
        };
        Peer { dialogue, mail: Instant::ZERO, number: 0, is_open: true, is_handshaking: self.tls_at_once }
    }

    /// See [`Session::connected`] and [`Session::secure`].
    pub fn connected(&mut self, peer: &mut Peer, now: Instant, out: &mut Vec<u8>) -> Parting {
        self.peers += 1;
        peer.number = self.peers;
        self.policy.enter(peer.number, Some([127, 0, 0, 1].into()));
        self.policy.attend(peer.number, now);
        let struck = self.policy.strike_connect(now);
        if struck.drop || struck.reset {
            return self.follow(peer, if struck.reset { Flow::Reset } else { Flow::Drop }, out);
        }
        let storms = self.storms(now);
        let flow = match (&mut peer.dialogue, &mut self.http) {
            (Dialogue::Smtp(session), _) if self.tls_at_once => {
                session.secure(now, &self.config);
                Flow::Continue
            }
            (Dialogue::Smtp(_), _) if storms => return self.storm(peer, out),
            (Dialogue::Smtp(session), _) => session.connected(now, &self.config, &mut self.policy, out),
            (Dialogue::Http(session), Some((config, _))) if self.tls_at_once => {
                session.secure(now, config);
                Flow::Continue
            }
            (Dialogue::Http(session), Some((config, stub))) => session.connected(now, config, stub),
            (Dialogue::Http(_), None) => unreachable!("it does not speak HTTP"),
        };
        self.follow(peer, flow, out)
    }

    /// See [`Session::tls_ready`].
    pub fn tls_ready(&mut self, peer: &mut Peer, now: Instant, out: &mut Vec<u8>) -> Parting {
        peer.is_handshaking = false;
        let flow = match (&mut peer.dialogue, &mut self.http) {
            (Dialogue::Smtp(session), _) => session.tls_ready(now, false, &self.config, &mut self.policy, out),
            (Dialogue::Http(session), Some((config, stub))) => session.tls_ready(now, false, config, stub),
            (Dialogue::Http(_), None) => unreachable!("it does not speak HTTP"),
        };
        self.follow(peer, flow, out)
    }

    /// A client has begun a handshake: how it goes wrong, if it does.
    pub fn strike_tls(&mut self, peer: &Peer, now: Instant) -> Option<TlsFault> {
        self.policy.attend(peer.number, now);
        self.policy.strike_tls(now)
    }

    /// See [`Session::tls_failed`].
    pub fn tls_failed(&mut self, peer: &mut Peer, _now: Instant, out: &mut Vec<u8>) -> Parting {
        let flow = match (&mut peer.dialogue, &mut self.http) {
            (Dialogue::Smtp(session), _) => session.tls_failed(&mut self.policy),
            (Dialogue::Http(session), Some((_, stub))) => session.tls_failed(stub),
            (Dialogue::Http(_), None) => unreachable!("it does not speak HTTP"),
        };
        self.follow(peer, flow, out)
    }

    /// TLS records come that nobody asked for.
    pub fn record(&mut self, peer: &mut Peer, now: Instant, out: &mut Vec<u8>) -> Parting {
        self.received(peer, now, RECORD, out)
    }

    /// See [`Session::handle`].
    pub fn received(&mut self, peer: &mut Peer, now: Instant, bytes: &[u8], out: &mut Vec<u8>) -> Parting {
        if peer.is_handshaking {
            // What comes instead of a handshake is none.
            return self.tls_failed(peer, now, out);
        }
        if self.storms(now) {
            let _ = self.end_of_stream(peer, now, &mut Vec::new());
            return self.storm(peer, out);
        }
        if bytes.starts_with(b"MAIL ") {
            peer.mail = now;
        }
        self.policy.attend(peer.number, now);
        let flow = match (&mut peer.dialogue, &mut self.http) {
            (Dialogue::Smtp(session), _) => session.handle(now, bytes, &self.config, &mut self.policy, out),
            (Dialogue::Http(session), Some((config, stub))) => session.handle(now, bytes, config, stub, out),
            (Dialogue::Http(_), None) => unreachable!("it does not speak HTTP"),
        };
        self.note_served(peer, now, out);
        self.follow(peer, flow, out)
    }

    /// See [`Session::handle_timeout`].
    pub fn timeout(&mut self, peer: &mut Peer, now: Instant, out: &mut Vec<u8>) -> Parting {
        self.policy.attend(peer.number, now);
        let flow = match (&mut peer.dialogue, &mut self.http) {
            (Dialogue::Smtp(session), _) => session.handle_timeout(now, &self.config, &mut self.policy, out),
            (Dialogue::Http(session), Some((config, stub))) => session.handle_timeout(now, config, stub, out),
            (Dialogue::Http(_), None) => unreachable!("it does not speak HTTP"),
        };
        self.note_served(peer, now, out);
        self.follow(peer, flow, out)
    }

    /// See [`Session::end_of_stream`].
    pub fn end_of_stream(&mut self, peer: &mut Peer, _now: Instant, out: &mut Vec<u8>) -> Parting {
        let flow = match (&mut peer.dialogue, &mut self.http) {
            (Dialogue::Smtp(session), _) => session.end_of_stream(&mut self.policy),
            (Dialogue::Http(session), Some((_, stub))) => session.end_of_stream(stub),
            (Dialogue::Http(_), None) => unreachable!("it does not speak HTTP"),
        };
        self.follow(peer, flow, out)
    }

    /// The connection broke.
    pub fn broken(&mut self, peer: &mut Peer, now: Instant, _out: &mut Vec<u8>) -> Parting {
        let _ = self.end_of_stream(peer, now, &mut Vec::new());
        self.policy.leave(peer.number);
        Parting::Drop
    }

    fn storms(&self, now: Instant) -> bool {
        (self.storm_ns.0..self.storm_ns.1).contains(&now.as_ns())
    }

    fn storm(&mut self, peer: &Peer, out: &mut Vec<u8>) -> Parting {
        self.storms += 1;
        self.policy.leave(peer.number);
        out.extend_from_slice(match self.http {
            None => b"421 4.3.2 come back later\r\n",
            Some(_) => b"HTTP/1.1 503 Later\r\nConnection: close\r\nContent-Length: 0\r\n\r\n",
        });
        Parting::Close
    }

    /// Something unasked, at any time.
    pub fn mischief(&mut self, _peer: &mut Peer, _now: Instant, out: &mut Vec<u8>) -> Parting {
        match self.random.random_range(0..10) {
            0..4 => {
                push_reply(&mut self.random, out);
                Parting::Stay
            }
            4 => {
                out.extend_from_slice(b"421 4.3.2 closing\r\n");
                Parting::Close
            }
            5 => Parting::Close,
            6 => Parting::Drop,
            _ => Parting::Stay,
        }
    }

    fn note_served(&mut self, peer: &Peer, now: Instant, out: &[u8]) {
        if out == ACCEPTED {
            self.served.push((peer.mail, now));
        }
    }

    fn follow(&mut self, peer: &Peer, flow: Flow, out: &mut Vec<u8>) -> Parting {
        self.kept.extend(self.policy.take_kept());
        let parting = Parting::from(flow);
        if !matches!(parting, Parting::Stay | Parting::StartTls) {
            self.policy.leave(peer.number);
        }
        if self.is_hostile() && !out.is_empty() { self.garble(parting, out) } else { parting }
    }

    /// Does to each line of good replies what comes to a bad server's mind.
    fn garble(&mut self, parting: Parting, out: &mut Vec<u8>) -> Parting {
        let good = std::mem::take(out);
        for line in good.split_inclusive(|octet| *octet == b'\n') {
            if !self.random.random_bool(self.malice) {
                out.extend_from_slice(line);
                continue;
            }
            match self.random.random_range(0..12) {
                // Another reply instead.
                0..4 => push_reply(&mut self.random, out),
                // One too many.
                4 => {
                    out.extend_from_slice(line);
                    push_reply(&mut self.random, out);
                }
                // The same twice.
                5 => out.extend_from_slice(&[line, line].concat()),
                // None.
                6 => {}
                // Another code.
                7 => {
                    let code: u16 = self.random.random_range(190..610);
                    out.extend_from_slice(format!("{code}").as_bytes());
                    out.extend_from_slice(line.get(3..).unwrap_or_default());
                }
                // One octet wrong.
                8 => {
                    let mut line = line.to_vec();
                    let at = self.random.random_range(0..line.len());
                    line[at] = self.random.random();
                    out.extend_from_slice(&line);
                }
                // In the middle of the line, an end.
                9 => {
                    let length = self.random.random_range(0..line.len());
                    out.extend_from_slice(&line[..length]);
                    return if self.random.random() { Parting::Close } else { Parting::Drop };
                }
                10 => {
                    out.extend_from_slice(line);
                    return Parting::Close;
                }
                _ => {
                    out.extend_from_slice(b"421 4.3.2 closing\r\n");
                    return Parting::Close;
                }
            }
        }
        parting
    }
}

/// A reply that may be right by chance.
pub fn push_reply(random: &mut impl rand::Rng, out: &mut Vec<u8>) {
    const CODES: [&str; 24] = [
        "250", "250", "250", "354", "354", "220", "221", "251", "252", "211", "299", "300", "399", "421", "450", "451",
        "452", "499", "500", "503", "550", "554", "199", "600",
    ];
    let code = CODES[random.random_range(0..CODES.len())];
    match random.random_range(0..12) {
        0..5 => out.extend_from_slice(format!("{code} fine\r\n").as_bytes()),
        5 => out.extend_from_slice(format!("{code}\r\n").as_bytes()),
        6 => {
            for _ in 0..random.random_range(1..200) {
                out.extend_from_slice(format!("{code}-PIPELINING\r\n").as_bytes());
            }
            out.extend_from_slice(format!("{code} SIZE\r\n").as_bytes());
        }
        7 => {
            let other = CODES[random.random_range(0..CODES.len())];
            out.extend_from_slice(format!("{code}-one\r\n{other} two\r\n").as_bytes());
        }
        8 => out.extend_from_slice(format!("{code} 5.7.1 bare\n").as_bytes()),
        9 => out
            .extend_from_slice(&[code.as_bytes(), b" ", &vec![b'x'; random.random_range(0..5_000)], b"\r\n"].concat()),
        10 => out.extend_from_slice(format!("{code}-never ended").as_bytes()),
        _ => out.extend_from_slice(b"\r\n"),
    }
}
