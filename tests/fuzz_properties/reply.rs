//! One line of a server, whatever its octets: what is taken is what the line says, and what an EHLO reply offers is
//! bounded.

use timecop::wire::smtp::reply::{Capabilities, Class, ReplyLine};

/// Asserts all of it for one input, whose lines end in LF.
pub fn check(input: &[u8]) {
    let mut offered = Capabilities::default();
    for line in input.split(|octet| *octet == b'\n') {
        offered.note(line);
        let Ok(reply) = ReplyLine::parse(line) else { continue };
        assert!((200..600).contains(&reply.code));
        let separator = if reply.last { " " } else { "-" };
        let written = [format!("{}{separator}", reply.code).as_bytes(), reply.text].concat();
        assert!(written == line || (reply.text.is_empty() && written == [line, b" "].concat()));
        let class = [Class::Positive, Class::Positive, Class::Transient, Class::Permanent];
        assert_eq!(reply.class(), class[usize::from(reply.code / 100 - 2)]);
        let (enhanced, rest) = reply.enhanced();
        match enhanced {
            None => assert_eq!(rest, reply.text),
            Some(code) => {
                assert_eq!(u16::from(code.class), reply.code / 100, "its class is that of the reply");
                assert!(code.subject < 1_000 && code.detail < 1_000);
                // Leading zeros are let pass, so that the code as written may be shorter.
                assert!(reply.text.len() >= code.to_string().len() + rest.len() && reply.text.ends_with(rest));
            }
        }
    }
    assert!(offered.message_bytes_max.is_none_or(|limit| limit > 0 && offered.size));
}
