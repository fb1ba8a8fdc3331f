//! Replays what the fuzz targets begin from and what they have found, on any compiler and without a fuzzer.

use std::path::Path;

#[path = "fuzz_properties/mod.rs"]
mod fuzz_properties;

fn replay(name: &str, check: fn(&[u8])) {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("fuzz/corpus").join(name);
    let mut files: Vec<_> = std::fs::read_dir(&folder)
        .unwrap_or_else(|error| panic!("{}: {error}", folder.display()))
        .map(|entry| entry.expect("the folder can be read").path())
        .collect();
    files.sort();
    assert!(files.len() >= 12, "{} has {} files", folder.display(), files.len());
    for file in files {
        println!("{}", file.display());
        check(&std::fs::read(&file).expect("the file can be read"));
    }
}

#[test]
fn server_session() {
    replay("server_session", fuzz_properties::server_session::check);
}

#[test]
fn client_session() {
    replay("client_session", fuzz_properties::client_session::check);
}

#[test]
fn job_request() {
    replay("job_request", fuzz_properties::job_request::check);
}

#[test]
fn http_response() {
    replay("http_response", fuzz_properties::http_response::check);
}

#[test]
fn auth_exchange() {
    replay("auth_exchange", fuzz_properties::auth_exchange::check);
}

#[test]
fn http_server() {
    replay("http_server", fuzz_properties::http_server::check);
}

#[test]
fn probe_header() {
    replay("probe_header", fuzz_properties::probe_header::check);
}

#[test]
fn audit_stamp() {
    replay("audit_stamp", fuzz_properties::audit_stamp::check);
}

#[test]
fn expansion() {
    replay("expansion", fuzz_properties::expansion::check);
}

#[test]
fn line_scanner() {
    replay("line_scanner", fuzz_properties::line_scanner::check);
}

#[test]
fn command() {
    replay("command", fuzz_properties::command::check);
}

#[test]
fn reply() {
    replay("reply", fuzz_properties::reply::check);
}

#[test]
fn data_decoder() {
    replay("data_decoder", fuzz_properties::data_decoder::check);
}

#[test]
fn form() {
    replay("form", fuzz_properties::form::check);
}

#[test]
fn words() {
    replay("words", fuzz_properties::words::check);
}

#[cfg(feature = "engine")]
#[test]
fn config() {
    replay("config", fuzz_properties::config::check);
}

#[test]
fn fault_rule() {
    replay("fault_rule", fuzz_properties::fault_rule::check);
}
