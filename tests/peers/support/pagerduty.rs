//! A stub of PagerDuty's Events API v2.

use std::fs;
use std::io::{BufRead as _, BufReader, Read as _, Write as _};
use std::net::TcpListener;
use std::os::unix::fs::PermissionsExt as _;
use std::path::Path;
use std::sync::mpsc;
use std::thread;

use serde_json::Value;

use super::pagerduty_schema;

/// No answer at all, as long as the client waits.
pub const HANG: &str = "";

/// The events that came. Each is held against the vendor's schema where the test takes it, so that the test fails by one
/// that is wrong, and not the stub's thread alone.
pub struct Events(mpsc::Receiver<Value>);

impl Events {
    /// The next one.
    pub fn recv(&self) -> Result<Value, mpsc::RecvError> {
        self.0.recv().inspect(pagerduty_schema::check)
    }

    /// Those that came until now.
    pub fn try_iter(&self) -> impl Iterator<Item = Value> {
        self.0.try_iter().inspect(pagerduty_schema::check)
    }
}

/// Answers the first requests by these, each a status with header fields, and all others by 202. Gives the part of a configuration that names it, and the events that come.
pub fn pagerduty(answers: &'static [&'static str], folder: &Path) -> (String, Events) {
    let key = folder.join("routing.key");
    fs::write(&key, "0123456789abcdef0123456789abcdef\n").expect("it can be written");
    fs::set_permissions(&key, fs::Permissions::from_mode(0o600)).expect("its mode can be set");
    let listener = TcpListener::bind("127.0.0.1:0").expect("a port");
    let url = format!("http://{}/v2/enqueue", listener.local_addr().expect("an address"));
    let (tell, events) = mpsc::channel();
    thread::spawn(move || {
        let (mut answers, mut hanging) = (answers.iter(), Vec::new());
        for stream in listener.incoming().flatten() {
            let mut reader = BufReader::new(stream);
            let (mut length, mut line) = (0, String::new());
            while reader.read_line(&mut line).is_ok_and(|octets| octets > 2) {
                if let Some(value) = line.to_lowercase().strip_prefix("content-length:") {
                    length = value.trim().parse().expect("a number");
                }
                line.clear();
            }
            let mut body = vec![0; length];
            reader.read_exact(&mut body).expect("the body");
            let event = serde_json::from_slice(&body).expect("JSON");
            let mut stream = reader.into_inner();
            match answers.next() {
                Some(&HANG) => hanging.push(stream),
                answer => {
                    let answer = answer.unwrap_or(&"202 Accepted");
                    let rest = "Connection: close\r\nContent-Length: 20\r\n\r\n{\"status\":\"success\"}";
                    let answer = format!("HTTP/1.1 {answer}\r\n{rest}");
                    stream.write_all(answer.as_bytes()).expect("it can be answered");
                }
            }
            if tell.send(event).is_err() {
                return;
            }
        }
    });
    (format!("[alert.pagerduty]\nrouting_key_file = \"{}\"\nurl = \"{url}\"\n", key.display()), Events(events))
}
