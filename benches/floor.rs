//! The floor: the least that a program can do to put the octets of an SMTP load on the engine's own ring, sessions kept. It
//! counts ends of lines and answers with the next octets, which were made beforehand; it reads no reply, measures nothing,
//! keeps no time. What the engine costs beyond it is what the engine adds.
//!
//! `tools/compare floor` runs it: `floor ADDRESS:PORT MESSAGES CONNECTIONS BYTES off|on`, the last for PIPELINING. Ends with an
//! error when a connection breaks, and otherwise once the target has answered all messages.

use std::process::ExitCode;
use std::time::Duration;

use timecop::shard::ring::{BUFFERS_MAX, Op, Ring, RingConfig};
use timecop::time::Instant;

const SENDER: &str = "compare@example.com";
const RECIPIENT: &str = "load@example.com";
const SILENCE_MAX: Duration = Duration::from_secs(30);

/// What is said in a session's course, and how many lines the answer to each has.
struct Script {
    /// EHLO; its answer is over with the receive that ends a line.
    hello: Vec<u8>,
    /// The octets of a message in as many writes as the dialogue has.
    steps: Vec<(Vec<u8>, usize)>,
}

impl Script {
    fn new(bytes: usize, pipelining: bool) -> Script {
        let mail = format!("MAIL FROM:<{SENDER}> SIZE={bytes}\r\n").into_bytes();
        let rcpt = format!("RCPT TO:<{RECIPIENT}>\r\n").into_bytes();
        let data = b"DATA\r\n".to_vec();
        let mut message = format!("From: <{SENDER}>\r\nTo: <{RECIPIENT}>\r\nSubject: floor\r\n\r\n").into_bytes();
        let line = [&[b'x'; 76][..], b"\r\n"].concat();
        let rest = bytes.saturating_sub(message.len()).max(2);
        message.extend(line.iter().copied().cycle().take(rest));
        // Wherever the last line was cut, this ends it; a dot can begin none.
        let end = message.len() - 2;
        message[end..].copy_from_slice(b"\r\n");
        message.extend_from_slice(b".\r\n");
        let steps = match pipelining {
            false => vec![(mail, 1), (rcpt, 1), (data, 1), (message, 1)],
            true => vec![([mail, rcpt, data].concat(), 3), (message, 1)],
        };
        Script { hello: b"EHLO compare.example.com\r\n".to_vec(), steps }
    }
}

/// Where a session is.
#[derive(Clone, Copy)]
enum At {
    Greeting,
    Hello,
    /// The step whose answer is awaited, and the lines that it lacks.
    Step(usize, usize),
    Quit,
    /// Closed; what the kernel still says of it is nothing new.
    Ended,
}

fn load(address: &str, messages: u64, connections: u32, script: &Script) -> Result<u64, String> {
    let buffers = (connections * 2).next_power_of_two().clamp(64, u32::from(BUFFERS_MAX)) as u16;
    let config = RingConfig { dialed_files: connections, accepted_files: 0, buffers };
    let failed = |error: std::io::Error| format!("the ring failed: {error}");
    let mut ring = Ring::new(config).map_err(failed)?;
    let target = ring.target(address.parse().map_err(|_| format!("not an address: {address}"))?, &[]);
    for file in 0..connections {
        ring.connect(file, target).map_err(failed)?;
    }
    let buffers = ring.buffers();
    let mut sessions = vec![At::Greeting; connections as usize];
    let (mut begun, mut answered, mut open) = (0, 0, connections);
    let send = |ring: &mut Ring, file: u32, octets: &[u8]| {
        let mut out = ring.outgoing();
        out.push(octets);
        ring.send(file, out);
    };
    while open > 0 {
        if ring.submit().map_err(failed)? == 0 {
            ring.wait(SILENCE_MAX).map_err(failed)?;
        }
        let there = ring.gather(Instant::ZERO);
        if there == 0 {
            return Err(format!("the target has been silent for {SILENCE_MAX:?}"));
        }
        for at in 0..there {
            let mut completion = ring.completion(at);
            let (file, result) = (completion.index, completion.result);
            match completion.op {
                Op::Connect if result < 0 => return Err(format!("no connection: error {}", -result)),
                Op::Connect => ring.receive(file),
                Op::Send => {
                    let _ = ring.sent(file, result, true);
                }
                Op::Receive => {
                    if matches!(sessions[file as usize], At::Ended) {
                        completion.take_buffer().into_iter().for_each(|buffer| buffers.give_back(buffer));
                        continue;
                    }
                    let Some(buffer) = completion.take_buffer() else {
                        if result != -libc::ENOBUFS {
                            return Err(format!("a connection ended: {result}"));
                        }
                        ring.receive(file);
                        continue;
                    };
                    let (octets, _) = buffers.received(&buffer, &completion);
                    let lines = octets.iter().filter(|&&octet| octet == b'\n').count();
                    let ends = octets.ends_with(b"\n");
                    buffers.give_back(buffer);
                    let session = &mut sessions[file as usize];
                    // The step that follows, when this one is over.
                    let next = match session {
                        At::Step(step, lacking) if lines < *lacking => {
                            *session = At::Step(*step, *lacking - lines);
                            None
                        }
                        At::Step(step, _) => Some(*step + 1),
                        At::Greeting if ends => {
                            *session = At::Hello;
                            send(&mut ring, file, &script.hello);
                            None
                        }
                        At::Hello if ends => Some(script.steps.len()),
                        At::Greeting | At::Hello | At::Ended => None,
                        At::Quit => {
                            open -= 1;
                            *session = At::Ended;
                            ring.close(file);
                            continue;
                        }
                    };
                    if let Some(mut step) = next {
                        if step == script.steps.len() {
                            answered += u64::from(matches!(session, At::Step(..)));
                            step = 0;
                        }
                        if step == 0 && begun == messages {
                            *session = At::Quit;
                            send(&mut ring, file, b"QUIT\r\n");
                        } else {
                            begun += u64::from(step == 0);
                            let (octets, lines) = &script.steps[step];
                            *session = At::Step(step, *lines);
                            send(&mut ring, file, octets);
                        }
                    }
                    if !completion.more {
                        ring.receive(file);
                    }
                }
                Op::Accept | Op::Close | Op::Wake | Op::Ignored => {}
            }
        }
        ring.recycle();
    }
    Ok(answered)
}

fn main() -> ExitCode {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    let [address, messages, connections, bytes, pipelining] = arguments.as_slice() else {
        println!("floor: nothing to time here; tools/compare floor runs it");
        return ExitCode::SUCCESS;
    };
    let number = |text: &str| text.parse::<u32>().expect("a whole number");
    let script = Script::new(number(bytes) as usize, pipelining == "on");
    match load(address, u64::from(number(messages)), number(connections).max(1), &script) {
        Ok(answered) => {
            println!("{answered}");
            ExitCode::SUCCESS
        }
        Err(why) => {
            eprintln!("floor: {why}");
            ExitCode::FAILURE
        }
    }
}
