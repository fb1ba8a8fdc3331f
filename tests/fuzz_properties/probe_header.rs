//! Header blocks of what arrives at the probe's address, whatever their octets: nothing panics, what is kept of them is
//! bounded, and no octets make another probe of one, or one of none.

use timecop::probe::header::{self, Key, Token};
use timecop::probe::hops::{HOPS_MAX, hops};
use timecop::time::WallTime;

/// Asserts all of it for one input.
pub fn check(input: &[u8]) {
    let key = Key::new([7; 32]);
    if let Ok(token) = header::find(input, &key) {
        assert_eq!(Token::parse(&token.write(&key), &key), Ok(token));
    }
    let token = Token { id: 1, route: "r".to_owned(), sent: WallTime::from_unix_ns(1), nonce: 2 };
    let line = format!("{}: {}\r\n", header::NAME, token.write(&key));
    // Whatever comes behind the header of a probe, it stays that probe or becomes none.
    if let Ok(found) = header::find(&[line.as_bytes(), input].concat(), &key) {
        assert_eq!(found, token);
    }
    // Whatever comes before it may hide it, and end the headers, but is not changed by it.
    if let Ok(found) = header::find(&[input, b"\r\n", line.as_bytes()].concat(), &key) {
        assert!(found == token || Ok(found) == header::find(input, &key));
    }
    let found = hops(input);
    assert!(found.len() <= HOPS_MAX);
    assert!(found.iter().all(|hop| hop.by.len() <= 4 * 80 && !hop.by.contains(char::is_control)));
}
