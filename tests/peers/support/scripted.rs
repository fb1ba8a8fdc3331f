//! A small server inside the test that notes which commands arrive together, before it has answered.

use std::collections::{BTreeMap, BTreeSet};
use std::io::{Read, Write};
use std::net::{IpAddr, TcpListener, TcpStream};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex};
use std::thread::{self, JoinHandle};

use super::Port;

/// A running scripted server.
pub struct Scripted {
    port: Port,
    groups: Groups,
    sources: Sources,
    ended: Arc<AtomicBool>,
    listener: Option<JoinHandle<()>>,
}

type Groups = Arc<Mutex<BTreeSet<Vec<String>>>>;

type Sources = Arc<Mutex<BTreeMap<IpAddr, u32>>>;

/// How the end of data is written down among the commands of a group.
const END_OF_DATA: &str = ".";

impl Scripted {
    /// Starts it; it accepts everything and offers PIPELINING or not.
    pub fn start(pipelining: bool) -> Scripted {
        let port = Port::claim();
        let (groups, ended) = (Groups::default(), Arc::new(AtomicBool::new(false)));
        let listener = TcpListener::bind(("127.0.0.1", port.number())).expect("the port was claimed");
        let sources = Sources::default();
        let (shared, from, end) = (groups.clone(), sources.clone(), ended.clone());
        let listener = thread::spawn(move || {
            for connection in listener.incoming() {
                if end.load(Ordering::Relaxed) {
                    break;
                }
                let groups = shared.clone();
                if let Ok(peer) = connection.as_ref().map(|stream| stream.peer_addr()) {
                    let source = peer.expect("it was accepted").ip();
                    *from.lock().expect("nobody panicked").entry(source).or_default() += 1;
                }
                // Its thread ends with the client, which the test ends first.
                thread::spawn(move || connection.and_then(|stream| session(stream, pipelining, &groups)));
            }
        });
        Scripted { port, groups, sources, ended, listener: Some(listener) }
    }

    /// Where it listens.
    pub fn port(&self) -> u16 {
        self.port.number()
    }

    /// How many connections came from each address.
    pub fn sources(&self) -> BTreeMap<IpAddr, u32> {
        self.sources.lock().expect("nobody panicked").clone()
    }

    /// The different groups of commands that came in one piece.
    pub fn groups(&self) -> Vec<Vec<String>> {
        self.groups.lock().expect("no session panicked").iter().cloned().collect()
    }
}

impl Drop for Scripted {
    fn drop(&mut self) {
        self.ended.store(true, Ordering::Relaxed);
        let _ = TcpStream::connect(("127.0.0.1", self.port.number())); // wakes the listener
        if let Some(listener) = self.listener.take() {
            let _ = listener.join();
        }
    }
}

fn session(mut stream: TcpStream, pipelining: bool, groups: &Groups) -> std::io::Result<()> {
    stream.set_nodelay(true)?;
    stream.write_all(b"220 scripted.test ESMTP\r\n")?;
    let (mut unread, mut piece, mut in_data) = (Vec::new(), vec![0; 64 * 1024], false);
    loop {
        let length = stream.read(&mut piece)?;
        if length == 0 {
            return Ok(());
        }
        unread.extend_from_slice(&piece[..length]);
        let (mut group, mut answer) = (Vec::new(), Vec::new());
        while let Some((line, rest)) = split_line(&unread) {
            let line = String::from_utf8_lossy(line).into_owned();
            unread = rest.to_vec();
            if in_data {
                if line == "." {
                    in_data = false;
                    group.push(END_OF_DATA.to_owned());
                    answer.extend_from_slice(b"250 2.0.0 accepted\r\n");
                }
                continue;
            }
            let verb = line.split([' ', ':']).next().unwrap_or_default().to_uppercase();
            answer.extend_from_slice(match verb.as_str() {
                "EHLO" if pipelining => b"250-scripted.test\r\n250-PIPELINING\r\n250 8BITMIME\r\n",
                "EHLO" => b"250-scripted.test\r\n250 8BITMIME\r\n",
                "DATA" => b"354 go on\r\n",
                "QUIT" => b"221 2.0.0 bye\r\n",
                _ => b"250 2.0.0 ok\r\n",
            });
            in_data = verb == "DATA";
            group.push(verb);
        }
        if !group.is_empty() {
            groups.lock().expect("no session panicked").insert(group);
        }
        stream.write_all(&answer)?;
    }
}

fn split_line(bytes: &[u8]) -> Option<(&[u8], &[u8])> {
    let end = bytes.windows(2).position(|pair| pair == b"\r\n")?;
    Some((&bytes[..end], &bytes[end + 2..]))
}
