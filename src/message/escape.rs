//! How text is written inside of other text.

/// How a value is written so that what surrounds it reads it as it was.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Escape {
    /// As it is.
    None,
    /// Inside the quotes of a JSON string (RFC 8259, section 7).
    Json,
    /// In a form, `application/x-www-form-urlencoded` (WHATWG URL, section 5.2).
    Form,
}

const HEX_UPPER: &[u8; 16] = b"0123456789ABCDEF";

impl Escape {
    /// How values are written in a body of this content type.
    pub(super) fn of(content_type: &str) -> Escape {
        let essence = content_type.split(';').next().unwrap_or_default().trim().to_ascii_lowercase();
        match essence.as_str() {
            "application/x-www-form-urlencoded" => Escape::Form,
            json if json.ends_with("/json") || json.ends_with("+json") => Escape::Json,
            _ => Escape::None,
        }
    }

    /// Appends `text`. Allocates nothing but room in `out`.
    #[inline]
    pub(super) fn push(self, text: &[u8], out: &mut Vec<u8>) {
        match self {
            Escape::None => out.extend_from_slice(text),
            Escape::Json => text.iter().for_each(|&octet| push_json(octet, out)),
            Escape::Form => text.iter().for_each(|&octet| push_form(octet, out)),
        }
    }

    /// Octets of what [`Escape::push`] appends.
    #[inline]
    pub(super) fn len(self, text: &[u8]) -> usize {
        let width: fn(u8) -> usize = match self {
            Escape::None => return text.len(),
            Escape::Json => |octet| match octet {
                b'"' | b'\\' => 2,
                0..0x20 => 6,
                _ => 1,
            },
            Escape::Form => |octet| if is_plain_in_form(octet) || octet == b' ' { 1 } else { 3 },
        };
        text.iter().map(|&octet| width(octet)).sum()
    }

    /// `text` alone.
    pub(super) fn text(self, text: &[u8]) -> Vec<u8> {
        let mut out = Vec::with_capacity(self.len(text));
        self.push(text, &mut out);
        out
    }
}

#[inline]
fn push_json(octet: u8, out: &mut Vec<u8>) {
    match octet {
        b'"' | b'\\' => out.extend_from_slice(&[b'\\', octet]),
        0..0x20 => {
            let [high, low] = hex(octet);
            out.extend_from_slice(&[b'\\', b'u', b'0', b'0', high, low]);
        }
        _ => out.push(octet),
    }
}

#[inline]
fn push_form(octet: u8, out: &mut Vec<u8>) {
    match octet {
        b' ' => out.push(b'+'),
        _ if is_plain_in_form(octet) => out.push(octet),
        _ => {
            let [high, low] = hex(octet);
            out.extend_from_slice(&[b'%', high, low]);
        }
    }
}

fn is_plain_in_form(octet: u8) -> bool {
    octet.is_ascii_alphanumeric() || matches!(octet, b'*' | b'-' | b'.' | b'_')
}

fn hex(octet: u8) -> [u8; 2] {
    [HEX_UPPER[usize::from(octet >> 4)], HEX_UPPER[usize::from(octet & 0xf)]]
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn the_content_type_decides() {
        for (content_type, escape) in [
            ("application/json", Escape::Json),
            ("Application/JSON; charset=utf-8", Escape::Json),
            ("application/vnd.api+json", Escape::Json),
            ("application/x-www-form-urlencoded", Escape::Form),
            ("text/plain", Escape::None),
            ("", Escape::None),
        ] {
            assert_eq!(Escape::of(content_type), escape, "{content_type}");
        }
    }

    proptest! {
        #[test]
        fn json_and_forms_read_what_was_written(text in "[\\PC\"\\\\\t\r\n\0&=+%]{0,40}") {
            let json = [&b"\""[..], &Escape::Json.text(text.as_bytes()), b"\""].concat();
            prop_assert_eq!(serde_json::from_slice::<String>(&json).unwrap(), text.clone());
            let form = Escape::Form.text(text.as_bytes());
            let expected: String = form_urlencoded::byte_serialize(text.as_bytes()).collect();
            prop_assert_eq!(String::from_utf8(form).unwrap(), expected);
            for escape in [Escape::None, Escape::Json, Escape::Form] {
                prop_assert_eq!(escape.text(text.as_bytes()).len(), escape.len(text.as_bytes()));
            }
        }
    }
}
