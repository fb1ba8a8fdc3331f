//! Forms, whatever their octets: every split of them gives the same fields or the same error, names are bounded, and each
//! field that begins ends.
//!
//! The first line is the content type.

use timecop::wire::http::form::{Fields, FormError, FormReader, NAME_BYTES_MAX, Wanted};

use super::{SPLITS, Settings};

/// What a reader has told of one field.
#[derive(Debug, PartialEq)]
struct Field {
    name: Vec<u8>,
    is_file: bool,
    content: Vec<u8>,
    length: u64,
    has_ended: bool,
}

#[derive(Default)]
struct Told(Vec<Field>);

impl Fields for Told {
    fn begin(&mut self, name: &[u8], is_file: bool) -> Wanted {
        assert!(name.len() <= NAME_BYTES_MAX);
        assert!(self.0.last().is_none_or(|field| field.has_ended), "one field at a time");
        self.0.push(Field { name: name.to_vec(), is_file, content: Vec::new(), length: 0, has_ended: false });
        if wants_content(name, is_file) { Wanted::Content } else { Wanted::Length }
    }

    fn content(&mut self, octets: &[u8]) {
        let field = self.last();
        assert!(wants_content(&field.name, field.is_file), "nobody wanted it");
        field.content.extend_from_slice(octets);
    }

    fn length(&mut self, octets: u64) {
        let field = self.last();
        assert!(!wants_content(&field.name, field.is_file), "nobody wanted it");
        field.length += octets;
    }

    fn end(&mut self) {
        self.last().has_ended = true;
    }
}

impl Told {
    fn last(&mut self) -> &mut Field {
        self.0.last_mut().filter(|field| !field.has_ended).expect("a field is under way")
    }
}

fn wants_content(name: &[u8], is_file: bool) -> bool {
    !is_file && name.len().is_multiple_of(2)
}

/// Asserts all of it for one input.
pub fn check(input: &[u8]) {
    let (settings, octets) = Settings::split(input);
    let kind = &input[..input.iter().position(|octet| *octet == b'\n').unwrap_or(input.len())];
    let read = |split| -> Result<Vec<Field>, FormError> {
        let (mut reader, mut told) = (FormReader::new(kind)?, Told::default());
        for piece in settings.pieces(octets, split) {
            reader.read(piece, &mut told)?;
        }
        reader.end(&mut told)?;
        assert!(told.0.iter().all(|field| field.has_ended), "{:?}", told.0);
        let kept: usize = told.0.iter().map(|field| field.name.len() + field.content.len()).sum();
        assert!(kept <= octets.len(), "nothing is longer than what arrived");
        Ok(told.0)
    };
    let whole = read(0);
    for split in 1..SPLITS {
        assert_eq!(read(split), whole, "split {split} differs from the whole");
    }
}
