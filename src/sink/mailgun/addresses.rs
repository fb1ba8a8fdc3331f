//! Lists of addresses as people write them: `a@example.com, "B, or C" <b@example.com>`.

/// How many addresses a list holds; `None` when one of them is none. Comments count as part of a name.
pub(super) fn count(list: &[u8]) -> Option<u32> {
    let (mut addresses, mut begin, mut is_quoted, mut is_angled, mut at) = (0, 0, false, false, 0);
    while at < list.len() {
        match list[at] {
            b'\\' if is_quoted => at += 1,
            b'"' => is_quoted = !is_quoted,
            b'<' if !is_quoted => is_angled = true,
            b'>' if !is_quoted => is_angled = false,
            b',' if !is_quoted && !is_angled => {
                addresses += one(&list[begin..at])?;
                begin = at + 1;
            }
            _ => {}
        }
        at += 1;
    }
    Some(addresses + one(&list[begin..])?)
}

/// One for an address, nothing for nothing.
fn one(text: &[u8]) -> Option<u32> {
    let text = text.trim_ascii();
    if text.is_empty() {
        return Some(0);
    }
    let address = match text.strip_suffix(b">") {
        Some(named) => &named[memchr::memrchr(b'<', named)? + 1..],
        None => text,
    };
    let at = memchr::memrchr(b'@', address)?;
    let (local, domain) = (&address[..at], &address[at + 1..]);
    let is_local = !local.is_empty() && (local.starts_with(b"\"") || is_plain(local) && !local.contains(&b'@'));
    (is_local && !domain.is_empty() && is_plain(domain) && !domain.starts_with(b".")).then_some(1)
}

fn is_plain(text: &[u8]) -> bool {
    text.iter().all(|octet| !matches!(octet, 0..=b' ' | b'<' | b'>' | b'"' | b'(' | b')' | b',' | b';' | 0x7f))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn addresses_are_counted_and_anything_else_is_none() {
        for (list, number) in [
            ("a@example.com", Some(1)),
            (" a@example.com , Bob <b@example.com>,", Some(2)),
            ("\"B, or \\\" C\" <b@example.com>, c@x", Some(2)),
            ("\"a b\"@example.com", Some(1)),
            ("grüße@example.com", Some(1)),
            ("", Some(0)),
            ("a", None),
            ("a@", None),
            ("@example.com", None),
            ("a b@example.com", None),
            ("a@b@example.com", None),
            ("Bob <b@example.com", None),
            ("Bob b@example.com>", None),
            ("a@example.com, nobody", None),
            ("a@example.com\r\nBcc: b@example.com", None),
        ] {
            assert_eq!(count(list.as_bytes()), number, "{list:?}");
        }
    }
}
