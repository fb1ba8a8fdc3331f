//! Messages that may have a stamp of the delivery audit, whatever their octets: nothing panics, no split changes what is
//! found, what is found is what the key has made, and no octets before or behind a stamp make another one of it.

use timecop::audit::scan::{Found, Scan};
use timecop::audit::sequences::Sequences;
use timecop::audit::stamp::{FIELD_BYTES, Key, Signer, Stamp};
use timecop::time::WallTime;

fn found(pieces: &[&[u8]], signer: &Signer) -> Found {
    let mut scan = Scan::new();
    pieces.iter().for_each(|piece| scan.update(piece));
    scan.finish(signer)
}

fn field(stamp: &Stamp, signer: &Signer) -> [u8; FIELD_BYTES] {
    let mut field = [0; FIELD_BYTES];
    stamp.write(signer, &mut field);
    field
}

/// Asserts all of it for one input: a message, and as text a set of sequences.
pub fn check(input: &[u8]) {
    let signer = Signer::new(&Key::new([7; 32]));
    let whole = found(&[input], &signer);
    if let Found::Stamped { stamp, .. } = whole {
        let again = found(&[&field(&stamp, &signer), b"\r\n"], &signer);
        assert!(matches!(again, Found::Stamped { stamp: read, .. } if read == stamp));
    }
    // A body in which a line end stands alone is refused before it is looked at; of others the split is of no consequence.
    let is_clean = input.windows(2).all(|pair| (pair[0] == b'\r') == (pair[1] == b'\n'))
        && !input.starts_with(b"\n")
        && !input.ends_with(b"\r");
    if is_clean {
        let octets: Vec<&[u8]> = input.chunks(1).collect();
        assert_eq!(found(&octets, &signer), whole);
    }
    let stamp = Stamp { run: 1, sequence: 2, sent: WallTime::from_unix_ns(3), body: 4 };
    let ours = field(&stamp, &signer);
    for message in [[&ours[..], input].concat(), [input, b"\r\n", &ours[..], b"\r\n"].concat()] {
        if let Found::Stamped { stamp: read, .. } = found(&[&message], &signer) {
            assert!(read == stamp || matches!(whole, Found::Stamped { stamp, .. } if stamp == read));
        }
    }
    if let Ok(text) = std::str::from_utf8(input)
        && let Ok(set) = Sequences::decode(text)
    {
        let read = Sequences::decode(&set.encode()).expect("what was written is read");
        assert_eq!(set.without(&read, 0).count + read.without(&set, 0).count, 0);
    }
}
