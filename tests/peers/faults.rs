//! Our generator against a sink that misbehaves on purpose: every fault is an outcome with its phase and code.

mod kill;
mod proxy;
mod scarce;

use std::io::{BufRead as _, BufReader, Write as _};
use std::net::{TcpListener, TcpStream};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use crate::support::{Hammer, Port, Process, Sink, python, timecop};

#[test]
fn a_deferred_recipient_is_a_deferred_message() {
    for pipelining in ["auto", "off"] {
        let sink = Sink::start(&["--reply", "rcpt=451,100%"]);
        let run = Hammer::run(sink.port(), &["-m", "200", "-c", "4", "--pipelining", pipelining]);
        assert_eq!(run.exit, 1, "{}", run.shown());
        assert_eq!(run.count("messages.deferred"), 200, "{}", run.shown());
        assert_eq!(run.count("recipients.deferred"), 200, "{}", run.shown());
        assert_eq!(run.replies("rcpt", 451), 200, "{}", run.shown());
        assert_eq!(run.errors_in_all(), 0, "a reply is an outcome, not an error: {}", run.shown());
        assert_eq!(run.count("latency_s.other.response.count"), 200, "{}", run.shown());
        assert_eq!(sink.stop()["messages"], 0);
    }
}

#[test]
fn a_refusal_in_any_phase_is_counted_there() {
    for (phase, code, outcome) in
        [("mail", 550, "rejected"), ("data", 451, "deferred"), ("final", 554, "rejected"), ("final", 452, "deferred")]
    {
        let sink = Sink::start(&["--reply", &format!("{phase}={code},100%")]);
        let run = Hammer::run(sink.port(), &["-m", "50", "-c", "2"]);
        assert_eq!(run.exit, 1, "{}", run.shown());
        assert_eq!(run.count(&format!("messages.{outcome}")), 50, "{phase} {code}: {}", run.shown());
        assert_eq!(run.replies(phase, code), 50, "{phase} {code}: {}", run.shown());
        assert_eq!(sink.stop()["messages"], 0, "{phase} {code}");
    }
}

#[test]
fn some_refusals_leave_the_other_messages_accepted() {
    let sink = Sink::start(&["--reply", "final=451,30%"]);
    let run = Hammer::run(sink.port(), &["-m", "1000", "-c", "4"]);
    let (accepted, deferred) = (run.count("messages.accepted"), run.count("messages.deferred"));
    assert_eq!(accepted + deferred, 1000, "{}", run.shown());
    assert!((200..=400).contains(&deferred), "seven standard deviations around 300: {}", run.shown());
    assert_eq!(run.replies("final", 451), deferred, "{}", run.shown());
    assert_eq!(sink.stop()["messages"], accepted);
}

#[test]
fn a_dropped_connection_is_a_failure_of_the_phase_in_which_it_was_dropped() {
    for pipelining in ["auto", "off"] {
        let sink = Sink::start(&["--drop", "data=100%"]);
        let run = Hammer::run(sink.port(), &["-m", "12", "-c", "4", "--pipelining", pipelining]);
        assert_eq!(run.exit, 1, "{}", run.shown());
        assert_eq!(run.count("messages.failed"), 12, "{}", run.shown());
        assert_eq!(run.errors("data"), 12, "{}", run.shown());
        assert_eq!(run.errors_in_all(), 12, "{}", run.shown());
        assert_eq!(sink.stop()["messages"], 0);
    }
}

#[test]
fn some_drops_leave_the_other_messages_accepted_and_all_accounted_for() {
    let sink = Sink::start(&["--drop", "final=10%"]);
    let run = Hammer::run(sink.port(), &["-m", "200", "-c", "8"]);
    let (accepted, failed) = (run.count("messages.accepted"), run.count("messages.failed"));
    assert_eq!(accepted + failed, 200, "{}", run.shown());
    assert!(accepted > 0 && failed > 0, "{}", run.shown());
    assert_eq!(run.errors("final"), failed, "{}", run.shown());
    // What is dropped instead of the final reply has arrived all the same: the sink counts what it acknowledged.
    assert_eq!(sink.stop()["messages"], accepted);
}

#[test]
fn a_delay_shows_in_its_phase_and_in_no_other() {
    let delay_s = 0.02;
    let sink = Sink::start(&["--delay", "final=20ms"]);
    let run = Hammer::run(sink.port(), &["-m", "100", "-c", "4", "--pipelining", "off"]);
    run.assert_all_accepted(100);
    let phase = |name: &str, field: &str| run.number(&format!("latency_s.accepted.phases.{name}.{field}"));
    // The delay is a lower bound; phases keep two digits, which may round down by as much as a hundredth.
    assert!(phase("final", "min") >= delay_s * 0.98, "{}", run.shown());
    assert!(run.number("latency_s.accepted.service.min") >= delay_s * 0.98, "{}", run.shown());
    for other in ["mail", "rcpt", "data"] {
        assert!(phase(other, "p50") < phase("final", "min"), "{other}: {}", run.shown());
    }
    assert_eq!(sink.stop()["messages"], 100);
}

#[test]
fn a_stall_counts_from_when_messages_were_due() {
    let stall_s = 1.0;
    let sink = Sink::start(&["--stall", "1s@2s"]);
    let run = Hammer::run(sink.port(), &["--rate", "200", "--arrival", "constant", "-d", "4s", "-c", "4"]);
    // On a busy machine a last message may be due without finding a connection before the time is over.
    let (asked, accepted) = (run.count("messages.asked"), run.count("messages.accepted"));
    assert_eq!(accepted + run.count("messages.missed"), asked, "{}", run.shown());
    assert_eq!(run.errors_in_all(), 0, "{}", run.shown());
    // Four connections can wait at a time. With service times alone four messages would be slow; with response times a
    // fifth of the run waits, evenly from the whole stall down to nothing.
    assert!(run.number("latency_s.accepted.response.max") >= stall_s * 0.9, "{}", run.shown());
    assert!(run.number("latency_s.accepted.response.p95") >= stall_s * 0.5, "{}", run.shown());
    assert!(run.number("latency_s.accepted.service.p95") < stall_s * 0.5, "{}", run.shown());
    assert_eq!(sink.stop()["messages"], accepted);
}

#[test]
fn a_sink_without_pipelining_is_spoken_to_without_it() {
    let sink = Sink::start(&["--no-pipelining"]);
    Hammer::run(sink.port(), &["-m", "500", "-c", "4"]).assert_all_accepted(500);
    let report = sink.stop();
    assert_eq!((&report["messages"], &report["errors"]), (&500.into(), &0.into()));
}

/// A server that stops reading when it has said 354, and counts the connections that come to it.
fn server_that_stops_reading() -> (u16, Arc<AtomicU64>) {
    let listener = TcpListener::bind("127.0.0.1:0").expect("a free port");
    let port = listener.local_addr().expect("it has an address").port();
    let connections = Arc::new(AtomicU64::new(0));
    let counter = Arc::clone(&connections);
    std::thread::spawn(move || {
        let mut stalled = Vec::new();
        for peer in listener.incoming().flatten() {
            counter.fetch_add(1, Ordering::SeqCst);
            stalled.extend(talk_up_to_354(peer));
        }
    });
    (port, connections)
}

/// The connection, still open, once 354 was said.
fn talk_up_to_354(mut peer: TcpStream) -> Option<TcpStream> {
    peer.write_all(b"220 here\r\n").ok()?;
    for line in BufReader::new(peer.try_clone().ok()?).lines() {
        let says = if line.ok()?.eq_ignore_ascii_case("DATA") { "354 go\r\n" } else { "250 ok\r\n" };
        peer.write_all(says.as_bytes()).ok()?;
        if says.starts_with("354") {
            return Some(peer);
        }
    }
    None
}

#[test]
fn a_connection_that_is_given_up_in_the_middle_of_a_large_message_is_replaced() {
    // The rest of a cancelled write was sent again, so that the slot never came free: each later message failed for a
    // connection that was never dialled.
    let (port, connections) = server_that_stops_reading();
    let run = Hammer::run(port, &["-m", "3", "-c", "1", "-s", "20000000", "--timeout", "1s"]);
    assert_eq!(run.count("messages.failed"), 3, "{}", run.shown());
    assert_eq!(connections.load(Ordering::SeqCst), 3, "{}", run.shown());
    assert_eq!(run.errors("final"), 3, "{}", run.shown());
}

#[test]
fn a_sink_can_be_started_again_at_once() {
    // The kernel kept the listener for some time after the process, in the ring that accepted on it; here after a kill.
    let port = Sink::start(&[]).port();
    for _ in 0..20 {
        let sink = Sink::start(&["--listen", &format!("127.0.0.1:{port}")]);
        assert_eq!(Hammer::run(port, &["-m", "1"]).count("messages.accepted"), 1);
        drop(sink);
    }
}

/// Runs a program whose calls of io_uring_setup the kernel answers with EPERM, as under Docker's default profile.
const WITHOUT_IO_URING: &str = "
import ctypes, os, struct, sys
class Program(ctypes.Structure):
    _fields_ = [('length', ctypes.c_ushort), ('filter', ctypes.c_char_p)]
LOAD, JUMP_IF_EQUAL, RETURN, ALLOW, EPERM = 0x20, 0x15, 0x06, 0x7fff0000, 0x00050001
IO_URING_SETUP = 425
steps = [(LOAD, 0, 0, 0), (JUMP_IF_EQUAL, 0, 1, IO_URING_SETUP), (RETURN, 0, 0, EPERM), (RETURN, 0, 0, ALLOW)]
code = b''.join(struct.pack('HBBI', *step) for step in steps)
prctl = ctypes.CDLL(None, use_errno=True).prctl
PR_SET_NO_NEW_PRIVS, PR_SET_SECCOMP, SECCOMP_MODE_FILTER = 38, 22, 2
assert prctl(PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0) == 0
assert prctl(PR_SET_SECCOMP, SECCOMP_MODE_FILTER, ctypes.byref(Program(len(steps), code)), 0, 0) == 0
os.execv(sys.argv[1], sys.argv[1:])
";

#[test]
fn a_kernel_that_refuses_io_uring_is_one_message_and_no_start() {
    let port = Port::claim();
    let address = format!("127.0.0.1:{}", port.number());
    for arguments in [&["hammer", "-m", "1"][..], &["sink", "--listen", &address]] {
        let mut command = python();
        command.args(["-c", WITHOUT_IO_URING]).arg(timecop().get_program()).args(arguments);
        let finished = Process::run(&mut command);
        assert_eq!(finished.status.code(), Some(2), "{}{}", finished.stdout, finished.stderr);
        assert_eq!(finished.stdout, "");
        let said = finished.stderr.matches("refused by a seccomp filter (EPERM)").count();
        assert_eq!(said, 1, "{}", finished.stderr);
        assert!(finished.stderr.contains("--security-opt seccomp=unconfined"), "{}", finished.stderr);
        assert!(!finished.stderr.contains("panicked") && !finished.stderr.contains("listening"), "{}", finished.stderr);
    }
}
