//! The service's file, whatever its octets: no text makes the reader panic, and errors hold nothing that controls a
//! terminal, each in lines of its own.

use std::path::Path;

use timecop::config::Config;

/// Asserts all of it for one input.
pub fn check(input: &[u8]) {
    let Ok(text) = std::str::from_utf8(input) else { return };
    // The file may name others, which are read; none of the system's own, which may not end.
    if ["/dev", "/proc", "/sys", "/tmp"].iter().any(|folder| text.contains(folder)) {
        return;
    }
    if let Err(errors) = Config::parse(text, Path::new("/nonexistent/timecop.toml")) {
        let words = errors.to_string();
        assert!(!words.is_empty());
        assert!(!words.contains(|c: char| c.is_control() && c != '\n'), "{words:?}");
    }
}
