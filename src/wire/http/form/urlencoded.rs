//! application/x-www-form-urlencoded: `name=value&name=value`, with `+` for a space and `%41` for an A.

use super::{Fields, FormError, NAME_BYTES_MAX, Wanted};

#[derive(Debug, Default)]
pub(super) struct Urlencoded {
    /// What stands behind the last `&`, as far as it has to be kept: a name, or a part of one.
    name: Vec<u8>,
    /// A value is being read, and this is what is wanted of it.
    value: Option<Wanted>,
    /// The last one or two octets of a piece, where they begin what may be a `%41`.
    escape: Vec<u8>,
    /// Octets of the value, and `%` among them, where its length alone is wanted.
    octets: u64,
    escapes: u64,
}

impl Urlencoded {
    pub(super) fn read(&mut self, mut octets: &[u8], fields: &mut impl Fields) -> Result<(), FormError> {
        while !octets.is_empty() {
            let Some(wanted) = self.value else {
                let at = memchr::memchr2(b'=', b'&', octets);
                let end = at.unwrap_or(octets.len());
                if self.name.len() + end > NAME_BYTES_MAX {
                    return Err(FormError::TooLong);
                }
                self.name.extend_from_slice(&octets[..end]);
                let Some(at) = at else { return Ok(()) };
                if octets[at] == b'=' {
                    self.begin(fields);
                } else {
                    self.name_alone(fields);
                }
                octets = &octets[at + 1..];
                continue;
            };
            let at = memchr::memchr(b'&', octets);
            let piece = &octets[..at.unwrap_or(octets.len())];
            match wanted {
                Wanted::Content => self.decode(piece, fields),
                Wanted::Length => {
                    self.octets += piece.len() as u64;
                    self.escapes += memchr::memchr_iter(b'%', piece).count() as u64;
                }
            }
            let Some(at) = at else { return Ok(()) };
            self.end_value(fields);
            octets = &octets[at + 1..];
        }
        Ok(())
    }

    pub(super) fn end(&mut self, fields: &mut impl Fields) -> Result<(), FormError> {
        match self.value {
            Some(_) => self.end_value(fields),
            None => self.name_alone(fields),
        }
        Ok(())
    }

    fn begin(&mut self, fields: &mut impl Fields) {
        let name = decode_in_place(&mut self.name);
        self.value = Some(fields.begin(name, false));
        self.name.clear();
    }

    /// A name without `=` has an empty value; between two `&` there may be nothing at all.
    fn name_alone(&mut self, fields: &mut impl Fields) {
        if !self.name.is_empty() {
            self.begin(fields);
            self.end_value(fields);
        }
    }

    fn end_value(&mut self, fields: &mut impl Fields) {
        if !self.escape.is_empty() {
            fields.content(&self.escape);
            self.escape.clear();
        }
        if self.value == Some(Wanted::Length) {
            fields.length(self.octets.saturating_sub(2 * self.escapes));
            (self.octets, self.escapes) = (0, 0);
        }
        self.value = None;
        fields.end();
    }

    fn decode(&mut self, mut piece: &[u8], fields: &mut impl Fields) {
        while !self.escape.is_empty() && !piece.is_empty() {
            self.escape.push(piece[0]);
            piece = &piece[1..];
            if let [b'%', first, second] = self.escape[..] {
                match unhex(first, second) {
                    Some(octet) => {
                        fields.content(&[octet]);
                        self.escape.clear();
                    }
                    None => {
                        // The % is itself; what stands behind it may be another escape's beginning.
                        fields.content(b"%");
                        let rest = [first, second];
                        self.escape.clear();
                        self.decode(&rest, fields);
                    }
                }
            }
        }
        while let Some(at) = memchr::memchr2(b'%', b'+', piece) {
            if at > 0 {
                fields.content(&piece[..at]);
            }
            match &piece[at..] {
                [b'+', rest @ ..] => {
                    fields.content(b" ");
                    piece = rest;
                }
                [_, first, second, rest @ ..] => match unhex(*first, *second) {
                    Some(octet) => {
                        fields.content(&[octet]);
                        piece = rest;
                    }
                    None => {
                        fields.content(b"%");
                        piece = &piece[at + 1..];
                    }
                },
                rest => {
                    self.escape.extend_from_slice(rest);
                    return;
                }
            }
        }
        if !piece.is_empty() {
            fields.content(piece);
        }
    }
}

fn decode_in_place(text: &mut [u8]) -> &[u8] {
    let (mut from, mut to) = (0, 0);
    while from < text.len() {
        let escaped = match text[from..] {
            [b'%', first, second, ..] => unhex(first, second),
            _ => None,
        };
        text[to] = match (escaped, text[from]) {
            (Some(octet), _) => octet,
            (None, b'+') => b' ',
            (None, octet) => octet,
        };
        from += if escaped.is_some() { 3 } else { 1 };
        to += 1;
    }
    &text[..to]
}

fn unhex(first: u8, second: u8) -> Option<u8> {
    let digit = |octet: u8| char::from(octet).to_digit(16).and_then(|digit| u8::try_from(digit).ok());
    Some(digit(first)? << 4 | digit(second)?)
}
