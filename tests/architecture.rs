//! Holds the sources to the picture of the house: who may import whom, what the pure half must not touch, where `unsafe`
//! may stand, how long a file may be. The tables come first; the reader that checks them is below, with its own tests.

use std::collections::BTreeSet;
use std::fs;
use std::path::{Path, PathBuf};

/// One room of the house: a module directly below the crate's root.
struct Room {
    name: &'static str,
    /// Whether it belongs to the pure half: no sockets, threads, clocks, or global randomness.
    pure: bool,
    /// The rooms that it may import, beside itself and [`EVERYBODYS`].
    may_use: &'static [&'static str],
}

const PURE_ROOMS: &[&str] = &["wire", "audit", "message", "load", "measure", "job", "sink", "probe", "alert"];

/// The import table. A room that is not listed fails the test: give it a line.
const ROOMS: &[Room] = &[
    Room { name: "time", pure: true, may_use: &[] },
    Room { name: "phase", pure: true, may_use: &[] },
    Room { name: "outgoing", pure: true, may_use: &[] },
    Room { name: "wire", pure: true, may_use: &[] },
    Room { name: "audit", pure: true, may_use: &["measure"] },
    Room { name: "message", pure: true, may_use: &["audit"] },
    Room { name: "load", pure: true, may_use: &[] },
    Room { name: "measure", pure: true, may_use: &[] },
    Room { name: "sink", pure: true, may_use: &["wire", "audit"] },
    Room { name: "job", pure: true, may_use: &["wire", "load", "message", "measure", "audit"] },
    Room { name: "probe", pure: true, may_use: &["wire", "message", "measure", "audit"] },
    Room { name: "alert", pure: true, may_use: &[] },
    Room { name: "config", pure: false, may_use: PURE_ROOMS },
    Room { name: "shard", pure: false, may_use: PURE_ROOMS },
    Room {
        name: "control",
        pure: false,
        may_use: &["wire", "audit", "message", "load", "measure", "job", "sink", "probe", "alert", "config", "shard"],
    },
    Room {
        name: "cli",
        pure: false,
        may_use: &[
            "wire", "audit", "message", "load", "measure", "job", "sink", "probe", "alert", "config", "shard",
            "control",
        ],
    },
];

/// What every room may import: they know nothing of anybody.
const EVERYBODYS: &[&str] = &["time", "phase", "outgoing"];

/// The roots of the crate; they are not rooms and may name everything.
const ROOTS: &[&str] = &["lib.rs", "main.rs"];

/// Paths that the pure half must not contain. A module is forbidden with everything in it.
const IMPURE: &[&str] = &[
    "glommio",
    "io_uring",
    "libc",
    "socket2",
    "signal_hook",
    "core_affinity",
    "async_channel",
    "hickory_resolver",
    "tokio",
    "std::thread",
    "std::os",
    "std::time::Instant",
    "std::time::SystemTime",
    "std::time::UNIX_EPOCH",
    "rand::rng",
    "rand::random",
    "rand::rngs::SysRng",
    "rand::rngs::ThreadRng",
];

/// Modules of which the pure half may name only some items. Importing such a module as a whole, or all that is in it,
/// is forbidden too, because the reader could not see what is used of it.
const PARTLY_PURE: &[(&str, &[&str])] = &[
    ("std::net", &["SocketAddr", "SocketAddrV4", "SocketAddrV6", "IpAddr", "Ipv4Addr", "Ipv6Addr", "AddrParseError"]),
    ("std::time", &["Duration"]),
];

/// What `#[cfg(test)]` modules may use all the same: what shards share can only be tried with threads.
const PURE_IN_TESTS: &[&str] = &["std::thread"];

/// The files that may contain `unsafe`, by the beginning of their path below `src/`.
const UNSAFE_FILES: &[&str] = &["shard/ring/"];

/// How far above an `unsafe` the argument for it may begin, in lines.
const SAFETY_LINES_MAX: usize = 8;

/// A file with its tests stays below this many lines.
const FILE_LINES_MAX: usize = 700;

/// Where sources are read.
const SOURCE_FOLDERS: &[&str] = &["src", "tests", "benches", "examples", "fuzz/fuzz_targets"];

// ---------------------------------------------------------------------------------------------------- the house itself

#[test]
fn every_room_imports_only_what_the_table_allows() {
    report(sources("src").iter().flat_map(|(path, text)| import_faults(path, text)));
}

#[test]
fn the_pure_half_touches_no_socket_thread_or_clock() {
    report(sources("src").iter().flat_map(|(path, text)| impure_faults(path, text)));
}

#[test]
fn unsafe_stands_only_in_the_ring() {
    report(sources("src").iter().flat_map(|(path, text)| unsafe_faults(path, text)));
}

#[test]
fn no_file_is_longer_than_a_reader_can_hold_and_each_begins_by_saying_what_it_is() {
    let files = SOURCE_FOLDERS.iter().flat_map(|folder| sources(folder));
    report(files.flat_map(|(path, text)| file_faults(&path, &text)));
}

#[test]
fn every_unsafe_has_its_argument() {
    let sources = sources("src");
    assert!(sources.iter().any(|(_, text)| text.contains("unsafe {")), "the test checks nothing");
    report(sources.iter().flat_map(|(path, text)| argument_faults(path, text)));
}

fn report(faults: impl Iterator<Item = String>) {
    let faults: Vec<String> = faults.collect();
    assert!(faults.is_empty(), "{} faults:\n  {}", faults.len(), faults.join("\n  "));
}

/// The Rust files of a folder of the repository: path below the folder, text.
fn sources(folder: &str) -> Vec<(String, String)> {
    let root = Path::new(env!("CARGO_MANIFEST_DIR")).join(folder);
    let mut pending: Vec<PathBuf> = if root.is_dir() { vec![root.clone()] } else { Vec::new() };
    let mut found = Vec::new();
    while let Some(dir) = pending.pop() {
        for entry in fs::read_dir(&dir).expect("a folder of sources can be listed") {
            let path = entry.expect("an entry of a folder can be read").path();
            if path.is_dir() {
                pending.push(path);
            } else if path.extension().is_some_and(|e| e == "rs") {
                let name = path.strip_prefix(&root).expect("it lies below the root").display().to_string();
                found.push((name, fs::read_to_string(&path).expect("a source is UTF-8")));
            }
        }
    }
    assert!(folder != "src" || !found.is_empty(), "no sources found: the test checks nothing");
    found.sort();
    found
}

// --------------------------------------------------------------------------------------------------------- the checks

/// The room that a file below `src/` belongs to, `None` for the roots of the crate.
fn room_of(path: &str) -> Option<&str> {
    (!ROOTS.contains(&path)).then(|| path.split('/').next().unwrap_or(path).trim_end_matches(".rs"))
}

fn import_faults(path: &str, text: &str) -> Vec<String> {
    let Some(name) = room_of(path) else { return Vec::new() };
    let Some(room) = ROOMS.iter().find(|room| room.name == name) else {
        return vec![format!("src/{path}: room `{name}` is not in the table of tests/architecture.rs")];
    };
    let mut faults = BTreeSet::new();
    for used in paths(path, text) {
        if used.first().is_none_or(|first| first != "crate") {
            continue;
        }
        let allowed = match used.get(1).map(String::as_str) {
            None | Some("*") => false, // cannot be checked, so it must name what it wants
            Some(other) => other == name || EVERYBODYS.contains(&other) || room.may_use.contains(&other),
        };
        if !allowed {
            faults.insert(format!("src/{path}: `{name}` must not use `{}`", used.join("::")));
        }
    }
    faults.into_iter().collect()
}

fn impure_faults(path: &str, text: &str) -> Vec<String> {
    let pure = room_of(path).is_some_and(|name| ROOMS.iter().any(|room| room.pure && room.name == name));
    if !pure {
        return Vec::new();
    }
    let mut faults = BTreeSet::new();
    let outside_tests: BTreeSet<Vec<String>> = paths_of(path, &without_tests(path, tokens(text))).into_iter().collect();
    for used in paths(path, text) {
        let in_tests_only = !outside_tests.contains(&used);
        let used = used.join("::");
        let inside = |module: &str| used == module || used.starts_with(&format!("{module}::"));
        let forbidden = IMPURE.iter().any(|module| inside(module))
            || PARTLY_PURE.iter().any(|(module, allowed)| {
                inside(module) && !allowed.iter().any(|item| inside(&format!("{module}::{item}")))
            });
        if forbidden && !(in_tests_only && PURE_IN_TESTS.iter().any(|module| inside(module))) {
            faults.insert(format!("src/{path}: the pure half must not use `{used}`"));
        }
    }
    faults.into_iter().collect()
}

fn unsafe_faults(path: &str, text: &str) -> Vec<String> {
    let allowed = UNSAFE_FILES.iter().any(|beginning| path.starts_with(beginning));
    let found = tokens(text).iter().any(|token| token == "unsafe");
    if found && !allowed { vec![format!("src/{path}: `unsafe` belongs to {UNSAFE_FILES:?}")] } else { Vec::new() }
}

/// Each `unsafe` of the code has a `SAFETY:` in the comment above it (clippy says the same of blocks).
fn argument_faults(path: &str, text: &str) -> Vec<String> {
    let lines: Vec<&str> = text.lines().collect();
    let has_argument = |at: usize| {
        lines[at.saturating_sub(SAFETY_LINES_MAX)..at].iter().any(|line| line.trim().starts_with("// SAFETY: "))
    };
    let unargued = (0..lines.len()).filter(|&at| tokens(lines[at]).iter().any(|token| token == "unsafe"));
    unargued.filter(|&at| !has_argument(at)).map(|at| format!("src/{path}:{}: no `SAFETY:` above", at + 1)).collect()
}

fn file_faults(path: &str, text: &str) -> Vec<String> {
    let mut faults = Vec::new();
    let lines = text.lines().count();
    if lines >= FILE_LINES_MAX {
        faults.push(format!("{path}: {lines} lines; split it before {FILE_LINES_MAX}"));
    }
    // A fuzz target opens with `#![no_main]`; its docs come next.
    let first = text.lines().find(|line| !line.trim().is_empty() && !line.starts_with("#![no_main]"));
    if !first.is_some_and(|line| line.starts_with("//! ")) {
        faults.push(format!("{path}: begins without `//!` docs that say what it is"));
    }
    faults
}

// --------------------------------------------------------------------------------------------------------- the reader

/// Every path of two or more segments in the code of a file, use-trees expanded, `self` and `super` resolved.
fn paths(file: &str, text: &str) -> Vec<Vec<String>> {
    paths_of(file, &tokens(text))
}

fn paths_of(file: &str, tokens: &[String]) -> Vec<Vec<String>> {
    let mut module = module_of(file);
    let mut inline: Vec<(usize, Vec<String>)> = Vec::new(); // depth at which an inline module closes, module around it
    let (mut depth, mut at, mut found) = (0, 0, Vec::new());
    while at < tokens.len() {
        match tokens[at].as_str() {
            "{" => depth += 1,
            "}" => {
                depth -= 1;
                if inline.last().is_some_and(|(end, _)| *end == depth) {
                    module = inline.pop().expect("there is a last one").1;
                }
            }
            "mod" if tokens.get(at + 2).is_some_and(|t| t == "{") => {
                inline.push((depth, module.clone()));
                module.push(tokens[at + 1].clone());
            }
            "use" => {
                at = tree(tokens, at + 1, &[], &mut |path| found.push(resolve(&module, path)));
                continue;
            }
            word if is_word(word) && tokens.get(at + 1).is_some_and(|t| t == "::") => {
                at = tree(tokens, at, &[], &mut |path| found.push(resolve(&module, path)));
                continue;
            }
            _ => {}
        }
        at += 1;
    }
    found
}

/// The code without its `#[cfg(test)]` modules; nothing is left of a file that is such a module.
fn without_tests(file: &str, tokens: Vec<String>) -> Vec<String> {
    if file.ends_with("tests.rs") {
        return Vec::new();
    }
    let opening = ["#", "[", "cfg", "(", "test", ")", "]", "mod"];
    let (mut at, mut kept) = (0, Vec::new());
    while at < tokens.len() {
        if !tokens[at..].iter().zip(opening).all(|(token, wanted)| token == wanted) || tokens.len() < at + opening.len()
        {
            kept.push(tokens[at].clone());
            at += 1;
            continue;
        }
        let mut depth = 0;
        while at < tokens.len() {
            depth += match tokens[at].as_str() {
                "{" => 1,
                "}" => -1,
                _ => 0,
            };
            at += 1;
            if depth == 0 && ["}", ";"].contains(&tokens[at - 1].as_str()) {
                break;
            }
        }
    }
    kept
}

/// Reads one use-tree (or plain path) that begins at `at`; gives where it ends.
fn tree(tokens: &[String], mut at: usize, before: &[String], found: &mut dyn FnMut(Vec<String>)) -> usize {
    let mut path = before.to_vec();
    loop {
        match tokens.get(at).map(String::as_str) {
            Some("::") => at += 1,
            Some("{") => {
                at += 1;
                while tokens.get(at).is_some_and(|t| t != "}") {
                    at = if tokens[at] == "," { at + 1 } else { tree(tokens, at, &path, found).max(at + 1) };
                }
                return at + 1;
            }
            Some(word) if is_word(word) || word == "*" => {
                path.push(word.to_owned());
                at += 1;
                if tokens.get(at).is_none_or(|t| t != "::")
                    || tokens.get(at + 1).is_none_or(|t| !(is_word(t) || t == "*" || t == "{"))
                {
                    break;
                }
            }
            _ => break,
        }
    }
    if path.len() > before.len() {
        found(path);
    }
    // `as name` of an import gives another name to the same thing.
    if tokens.get(at).is_some_and(|t| t == "as") && !before.is_empty() { at + 2 } else { at }
}

/// `self` and `super` of a path made absolute; a `self` at the end of a use-tree names the module itself.
fn resolve(module: &[String], mut path: Vec<String>) -> Vec<String> {
    if path.len() > 1 && path.last().is_some_and(|last| last == "self") {
        path.pop();
    }
    let ups = path.iter().take_while(|segment| *segment == "super" || *segment == "self").count();
    if ups == 0 {
        return path;
    }
    let supers = path[..ups].iter().filter(|segment| *segment == "super").count();
    let mut absolute = module[..module.len().saturating_sub(supers).max(1)].to_vec();
    absolute.extend_from_slice(&path[ups..]);
    absolute
}

/// The module that a file below `src/` holds: `wire/smtp/client.rs` is `crate::wire::smtp::client`.
fn module_of(file: &str) -> Vec<String> {
    let names = file.trim_end_matches(".rs").split('/').filter(|name| !["mod", "lib", "main"].contains(name));
    std::iter::once("crate").chain(names).map(str::to_owned).collect()
}

fn is_word(token: &str) -> bool {
    token.starts_with(|c: char| c.is_alphabetic() || c == '_') && !["as", "use", "mod"].contains(&token)
}

/// Words and punctuation of the code, without comments and without the contents of literals.
fn tokens(text: &str) -> Vec<String> {
    let code: Vec<char> = text.chars().collect();
    let (mut at, mut found) = (0, Vec::new());
    while at < code.len() {
        let rest = &code[at..];
        if rest.starts_with(&['/', '/']) {
            at += rest.iter().position(|c| *c == '\n').unwrap_or(rest.len());
        } else if rest.starts_with(&['/', '*']) {
            at += block_comment(rest);
        } else if let Some(length) = literal(rest) {
            at += length;
        } else if rest[0].is_alphanumeric() || rest[0] == '_' {
            let length = rest.iter().take_while(|c| c.is_alphanumeric() || **c == '_').count();
            found.push(rest[..length].iter().collect());
            at += length;
        } else if rest.starts_with(&[':', ':']) {
            found.push("::".to_owned());
            at += 2;
        } else {
            if !rest[0].is_whitespace() {
                found.push(rest[0].to_string());
            }
            at += 1;
        }
    }
    found
}

/// Length of the (nested) block comment that `code` begins with.
fn block_comment(code: &[char]) -> usize {
    let (mut depth, mut at) = (0, 0);
    while at < code.len() {
        if code[at..].starts_with(&['/', '*']) {
            depth += 1;
            at += 2;
        } else if code[at..].starts_with(&['*', '/']) {
            depth -= 1;
            at += 2;
            if depth == 0 {
                break;
            }
        } else {
            at += 1;
        }
    }
    at
}

/// Length of the string or character literal that `code` begins with, if it does. Lifetimes are not literals, raw
/// identifiers neither.
fn literal(code: &[char]) -> Option<usize> {
    let prefix = code.iter().take_while(|c| matches!(c, 'b' | 'r' | 'c')).count().min(2);
    let raw = code[..prefix].contains(&'r');
    let hashes = if raw { code[prefix..].iter().take_while(|c| **c == '#').count() } else { 0 };
    let open = prefix + hashes;
    match code.get(open)? {
        '"' if raw => {
            let mut end = open + 1;
            let closes = |at: usize| code[at] == '"' && code[at + 1..].iter().take(hashes).all(|c| *c == '#');
            while end < code.len() && !closes(end) {
                end += 1;
            }
            Some((end + 1 + hashes).min(code.len()))
        }
        '"' => Some(quoted(code, open, '"')),
        '\'' if !raw && (code.get(open + 1) == Some(&'\\') || code.get(open + 2) == Some(&'\'')) => {
            Some(quoted(code, open, '\''))
        }
        _ => None,
    }
}

/// Where the literal that opens at `open` has ended, escapes respected.
fn quoted(code: &[char], open: usize, quote: char) -> usize {
    let mut at = open + 1;
    while at < code.len() && code[at] != quote {
        at += if code[at] == '\\' { 2 } else { 1 };
    }
    (at + 1).min(code.len())
}

// ----------------------------------------------------------------------------------------- the checks can themselves fail

mod checker {
    use super::*;

    #[test]
    fn an_upward_or_sideways_import_is_found_however_it_is_written() {
        for text in [
            "use crate::shard::Pool;",
            "use crate::{time::Instant, shard};",
            "use crate::{time::{self, Instant}, shard::{self, pool::Pool}};",
            "pub(crate) use crate::shard::*;",
            "fn f() { crate::shard::start(); }",
            "fn f(x: &crate::shard::Pool) {}",
            "use super::shard::Pool;",
            "use super::super::shard::Pool as P;",
            "mod tests { use super::super::shard::Pool; }",
            "mod a { mod b {} } use super::shard;",
            "use crate::*;",
            "use crate as house;",
        ] {
            let file = if text.contains("use super::super") && !text.contains("mod tests") {
                "wire/line.rs"
            } else {
                "wire.rs"
            };
            assert!(!import_faults(file, text).is_empty(), "not found: {text}");
        }
    }

    #[test]
    fn an_allowed_import_is_let_through() {
        for (file, text) in [
            ("wire/line.rs", "use crate::time::Instant; use crate::wire::smtp::Reply; use super::smtp;"),
            ("wire/smtp/client.rs", "mod tests { use super::*; use crate::outgoing::Outgoing; }"),
            ("sink/mod.rs", "use crate::wire::smtp::{Command, Reply};"),
            ("job/plan.rs", "use crate::{load::Pacer, message::Template, measure::Totals, wire};"),
            ("shard/pump.rs", "use crate::{job, sink, wire}; use super::ring::Ring;"),
            ("cli/hammer.rs", "use crate::{control, shard, job};"),
            ("wire.rs", "// use crate::shard;\n/* crate::shard /* nested */ */ const S: &str = \"crate::shard::x\";"),
            ("wire.rs", "const S: &str = r#\"a \" crate::shard::x\"#; const C: char = '\"'; fn f<'a>(x: &'a u8) {}"),
            ("main.rs", "use timecop::cli; fn main() { crate::shard::x() }"),
        ] {
            assert_eq!(import_faults(file, text), Vec::<String>::new(), "{text}");
        }
    }

    #[test]
    fn the_engine_and_the_desk_above_it_keep_their_order() {
        assert_eq!(import_faults("shard/pool.rs", "use crate::control::Totals;").len(), 1);
        assert_eq!(import_faults("shard/pool.rs", "use crate::cli;").len(), 1);
        assert_eq!(import_faults("control/mod.rs", "use crate::cli;").len(), 1);
        assert_eq!(import_faults("job/mod.rs", "use crate::sink;").len(), 1);
        assert_eq!(import_faults("sink/mod.rs", "use crate::load;").len(), 1);
        assert_eq!(import_faults("attic/mod.rs", "").len(), 1, "a room without a line in the table");
    }

    #[test]
    fn a_socket_thread_or_clock_in_the_pure_half_is_found() {
        for text in [
            "use std::net::TcpStream;",
            "use std::net::{IpAddr, ToSocketAddrs};",
            "use std::net;",
            "use std::{fmt, net::{self, IpAddr}};",
            "use std::net::*;",
            "fn f() { std::thread::sleep(d) }",
            "use std::{io, thread};",
            "use std::time::{Duration, Instant};",
            "use std::time::*;",
            "use std::time;",
            "fn now() -> u64 { std::time::SystemTime::now() }",
            "use io_uring::IoUring;",
            "fn f() { libc::getpid(); }",
            "use glommio::LocalExecutor; use socket2::Socket;",
            "fn f() { rand::random::<u8>() }",
        ] {
            assert!(!impure_faults("load/pacer.rs", text).is_empty(), "not found: {text}");
        }
        for text in [
            "#[cfg(test)] mod tests { use std::time::Instant; }",
            "#[cfg(test)] mod tests { use std::thread; } fn f() { std::thread::yield_now() }",
            "mod tests { fn f() { std::thread::yield_now() } }",
        ] {
            assert!(!impure_faults("load/pacer.rs", text).is_empty(), "not found: {text}");
        }
    }

    #[test]
    fn what_is_pure_or_belongs_to_the_engine_is_let_through() {
        for (file, text) in [
            (
                "job/spec.rs",
                "use std::net::{IpAddr, SocketAddr}; use std::time::Duration; fn f(a: std::net::Ipv4Addr) {}",
            ),
            (
                "load/pacer.rs",
                "//! Not std::time::Instant.\nuse crate::time::Instant; const S: &str = \"std::thread::x\";",
            ),
            ("load/counter.rs", "#[cfg(test)] mod tests { fn f() { std::thread::scope(|s| {}) } } fn g() {}"),
            ("load/counter_tests.rs", "fn f() { std::thread::scope(|s| {}) }"),
            ("shard/clock.rs", "use std::time::Instant; use std::{net, thread};"),
        ] {
            assert_eq!(impure_faults(file, text), Vec::<String>::new(), "{text}");
        }
    }

    #[test]
    fn unsafe_is_found_outside_the_ring_and_only_as_a_word_of_code() {
        assert_eq!(unsafe_faults("shard/pump.rs", "fn f() { unsafe { g() } }").len(), 1);
        assert_eq!(unsafe_faults("wire.rs", "unsafe fn f() {}").len(), 1);
        for (file, text) in [
            ("shard/ring/buffers.rs", "unsafe { g() }"),
            ("wire.rs", "// unsafe\n#![deny(unsafe_op_in_unsafe_fn)] const S: &str = \"unsafe\";"),
        ] {
            assert_eq!(unsafe_faults(file, text), Vec::<String>::new(), "{text}");
        }
    }

    #[test]
    fn an_unsafe_without_an_argument_is_found() {
        assert_eq!(argument_faults("shard/ring/mod.rs", "// Fine.\nunsafe { g() }").len(), 1);
        assert_eq!(argument_faults("shard/ring/mod.rs", "// SAFETY: g is.\nunsafe { g() }\n"), Vec::<String>::new());
    }

    #[test]
    fn a_long_file_and_one_without_docs_are_found() {
        assert_eq!(file_faults("a.rs", &format!("//! Docs.\n{}", "x\n".repeat(FILE_LINES_MAX))).len(), 1);
        assert_eq!(file_faults("a.rs", "use std::fmt;\n//! Docs.\n").len(), 1);
        assert_eq!(file_faults("a.rs", "").len(), 1);
        assert_eq!(file_faults("a.rs", "//! Docs.\n"), Vec::<String>::new());
        assert_eq!(file_faults("a.rs", "#![no_main]\n//! Docs.\n"), Vec::<String>::new());
    }
}
