//! Forms, in every split of their octets.

use super::*;

/// A field: its name, whether it is a file, its value or its length.
type Field = (String, bool, String);

#[derive(Debug, Default, PartialEq)]
struct Seen(Vec<Field>, u64);

impl Fields for Seen {
    fn begin(&mut self, name: &[u8], is_file: bool) -> Wanted {
        self.0.push((String::from_utf8_lossy(name).into_owned(), is_file, String::new()));
        if name.starts_with(b"#") { Wanted::Length } else { Wanted::Content }
    }

    fn content(&mut self, octets: &[u8]) {
        assert!(!octets.is_empty());
        self.0.last_mut().unwrap().2 += &octets.iter().copied().map(char::from).collect::<String>();
    }

    fn length(&mut self, octets: u64) {
        self.1 += octets;
    }

    fn end(&mut self) {
        let length = std::mem::take(&mut self.1);
        let field = self.0.last_mut().unwrap();
        field.2 += &if field.0.starts_with('#') { length.to_string() } else { "$".to_owned() };
    }
}

fn read(kind: &str, pieces: &[&[u8]]) -> Result<Vec<Field>, FormError> {
    let (mut reader, mut seen) = (FormReader::new(kind.as_bytes())?, Seen::default());
    for piece in pieces {
        reader.read(piece, &mut seen)?;
    }
    reader.end(&mut seen)?;
    Ok(seen.0)
}

/// Reads it whole, by every split in two, and octet by octet.
fn read_all_ways(kind: &str, form: &[u8]) -> Result<Vec<Field>, FormError> {
    let whole = read(kind, &[form]);
    for at in 0..=form.len() {
        assert_eq!(read(kind, &[&form[..at], &form[at..]]), whole, "split at {at}");
    }
    assert_eq!(read(kind, &form.chunks(1).collect::<Vec<_>>()), whole);
    whole
}

fn fields(fields: &[(&str, bool, &str)]) -> Result<Vec<Field>, FormError> {
    Ok(fields.iter().map(|(name, is_file, value)| ((*name).into(), *is_file, (*value).into())).collect())
}

const URLENCODED: &str = "Application/X-WWW-Form-Urlencoded; charset=utf-8";

#[test]
fn urlencoded_fields_are_decoded() {
    let form = b"to=a%40x+b&&a%2bb=%41%&empty=&alone&=nameless&#n=1%203+%41&p=%4&q=%%41%zz%4z&a=b=c";
    let expected = fields(&[
        ("to", false, "a@x b$"),
        ("a+b", false, "A%$"),
        ("empty", false, "$"),
        ("alone", false, "$"),
        ("", false, "nameless$"),
        ("#n", false, "5"),
        ("p", false, "%4$"),
        ("q", false, "%A%zz%4z$"),
        ("a", false, "b=c$"),
    ]);
    assert_eq!(read_all_ways(URLENCODED, form), expected);
    assert_eq!(read_all_ways(URLENCODED, b""), fields(&[]));
}

#[test]
fn urlencoded_agrees_with_another_implementation() {
    for form in ["a=b&c=d%20e", "a=%e2%82%ac&%41+b=c+d", "a=1&b=%&c=%4&d=%4g%41", "=&&a&b=&"] {
        let other = form_urlencoded::parse(form.as_bytes());
        let other = other.map(|(name, value)| (name.into_owned(), false, latin(&value) + "$")).collect::<Vec<Field>>();
        let ours = read(URLENCODED, &[form.as_bytes()]).unwrap();
        assert_eq!(
            ours.into_iter().filter(|field| !(field.0.is_empty() && field.2 == "$")).collect::<Vec<_>>(),
            other.into_iter().filter(|field| !(field.0.is_empty() && field.2 == "$")).collect::<Vec<_>>(),
            "{form}"
        );
    }
}

fn latin(text: &str) -> String {
    text.bytes().map(char::from).collect()
}

const MULTIPART: &str = "multipart/form-data; charset=utf-8; boundary=\"a b\"";

#[test]
fn multipart_fields_are_found() {
    let form = "preamble\r\n--a b  \r\nContent-Disposition: form-data; name=\"to\"\r\n\r\na@x\r\n--a\r\n-\r\n\r\n--a b\r\n\
                content-disposition:form-data; filename=\"x;name=y\"; name=file\r\nContent-Type: text/plain\r\n\r\n\r\n--a \r\r\n--a b\r\n\
                Content-Disposition: form-data; name=\"#a\\\"b\\\\\"; filename*=utf-8''x\r\n\r\n12345\r\n--a b--\r\nepilogue";
    let expected =
        fields(&[("to", false, "a@x\r\n--a\r\n-\r\n$"), ("file", true, "\r\n--a \r$"), ("#a\"b\\", true, "5")]);
    assert_eq!(read_all_ways(MULTIPART, form.as_bytes()), expected);
    let empty = b"--a b\r\nContent-Disposition: form-data; name=x\r\n\r\n\r\n--a b--";
    assert_eq!(read_all_ways(MULTIPART, empty), fields(&[("x", false, "$")]));
    assert_eq!(read_all_ways(MULTIPART, b"--a b--"), fields(&[]));
}

#[test]
fn what_is_no_form_is_refused() {
    for (kind, error) in [
        ("", FormError::ContentType),
        ("application/json", FormError::ContentType),
        ("multipart/mixed; boundary=x", FormError::ContentType),
        ("multipart/form-data", FormError::Boundary),
        ("multipart/form-data; boundary=", FormError::Boundary),
        ("multipart/form-data; boundary=\"x", FormError::Boundary),
        ("multipart/form-data; boundary=\"x \"", FormError::Boundary),
        (&format!("multipart/form-data; boundary={}", "x".repeat(71)), FormError::Boundary),
    ] {
        assert_eq!(read(kind, &[]), Err(error), "{kind}");
    }
    let part = "--a b\r\nContent-Disposition: form-data; name=x\r\n\r\n";
    for (form, error) in [
        ("", FormError::Parts),
        ("nothing", FormError::Parts),
        (part, FormError::Parts),
        (&format!("{part}x\r\n--a b\r\n"), FormError::Parts),
        ("--a bc\r\n", FormError::Parts),
        ("--a b\n", FormError::Parts),
        ("--a b\r\n\r\nx", FormError::PartHead),
        ("--a b\r\nContent-Disposition: attachment; name=x\r\n\r\n", FormError::PartHead),
        ("--a b\r\nContent-Disposition: form-data; filename=x\r\n\r\n", FormError::PartHead),
        (&format!("--a b\r\nX: {}\r\n\r\n", "x".repeat(PART_HEAD_BYTES_MAX)), FormError::TooLong),
    ] {
        assert_eq!(read_all_ways(MULTIPART, form.as_bytes()), Err(error), "{form:?}");
    }
    assert_eq!(read(URLENCODED, &["x".repeat(NAME_BYTES_MAX + 1).as_bytes()]), Err(FormError::TooLong));
}
