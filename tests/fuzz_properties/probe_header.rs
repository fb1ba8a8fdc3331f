//! Header blocks of what arrives at the probe's address, whatever their octets: nothing panics, what is kept of them is
//! bounded, and no octets make another probe of one, or one of none.

use timecop::probe::header::{self, HeaderFault, Key, Token};
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
    for block in [[line.as_bytes(), input].concat(), [input, b"\r\n", line.as_bytes()].concat()] {
        match header::find(&block, &key) {
            Ok(found) => assert_eq!(found, token),
            Err(HeaderFault::Absent | HeaderFault::Malformed(_) | HeaderFault::Version | HeaderFault::Forged) => {}
        }
    }
    let found = hops(input);
    assert!(found.len() <= HOPS_MAX);
    assert!(found.iter().all(|hop| hop.by.len() <= 4 * 80 && !hop.by.contains(char::is_control)));
}
