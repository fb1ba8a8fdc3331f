//! A network between generator and sink that delays, resets, and closes one side.

use crate::support::{Hammer, Proxy, Sink, rounds};

const MESSAGES: u64 = 200;

#[test]
fn whatever_a_network_does_every_message_is_accounted_for() {
    for pipelining in ["auto", "off"] {
        rounds(|draws| {
            let sink = Sink::start(&[]);
            let proxy = Proxy::start(sink.port(), draws);
            // What is swallowed is never answered: the time limit ends it.
            let messages = MESSAGES.to_string();
            let options =
                ["-m", &messages, "-c", "4", "-s", "2000", "--messages-per-connection", "3", "--timeout", "2s"];
            let run = Hammer::run(proxy.port(), &[&options[..], &["--pipelining", pipelining]].concat());
            let (accepted, failed) = (run.count("messages.accepted"), run.count("messages.failed"));
            assert_eq!(accepted + failed, MESSAGES, "{}", run.shown());
            assert!(proxy.broken() > 0 && failed <= proxy.broken(), "{} broken: {}", proxy.broken(), run.shown());
            assert!(run.errors_in_all() >= failed, "each failure has its phase: {}", run.shown());
            // A message whose reply was lost has arrived all the same, and no other one twice.
            let arrived = sink.stop()["messages"].as_u64().expect("a count");
            assert!((accepted..=accepted + failed).contains(&arrived), "{arrived} arrived: {}", run.shown());
        });
    }
}
