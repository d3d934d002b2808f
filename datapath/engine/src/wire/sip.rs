//! The Call-ID of a SIP message (RFC 3261): what `--pe sip` knows a call by.
//!
//! Read as IPVS reads it. The start line is no header. The first `Call-ID:`, or `i:` (its compact form), with a value
//! counts, in any case of its letters; a header may be folded before its value. The value is one word, or two with an
//! `@` between them, ends with its line, and is [`CALL_ID_MAX`] bytes long at most. Whatever else stands there, a space
//! before the end of the line included, makes it none.
//!
//! Invariant: pure; never panics, whatever the bytes are. Not here: is it SIP at all, and what the message asks for. The
//! empty line before the body is not looked for, nor does IPVS.

/// The longest Call-ID that is one; IPVS stores no more.
pub const CALL_ID_MAX: usize = 255;

/// The header's two names.
const NAMES: [&[u8]; 2] = [b"call-id", b"i"];

/// The Call-ID of a message, if it has one that can be read.
pub fn call_id(message: &[u8]) -> Option<&[u8]> {
    let (mut rest, mut found) = (message, None);
    while found.is_none() {
        rest = next_line(rest)?;
        found = value(rest).filter(|value| word(value) > 0);
    }
    let value = found?;
    let (id, behind) = value.split_at(word(value));
    let ends = matches!(behind.first(), Some(b'\r' | b'\n'));
    (ends && id.len() <= CALL_ID_MAX).then_some(id)
}

/// What stands behind the next end of a line: CR, LF or both.
fn next_line(text: &[u8]) -> Option<&[u8]> {
    let end = text.iter().position(|byte| matches!(byte, b'\r' | b'\n'))?;
    let length = if text[end..].starts_with(b"\r\n") { 2 } else { 1 };
    text.get(end + length..)
}

/// The value of the header that begins here, if it is ours.
fn value(line: &[u8]) -> Option<&[u8]> {
    let name =
        NAMES.iter().find(|name| line.get(..name.len()).is_some_and(|start| start.eq_ignore_ascii_case(name)))?;
    let colon = skip_space(&line[name.len()..]);
    colon.strip_prefix(b":").map(skip_space)
}

/// Without the space at its start; the header goes on in the next line if that begins with space.
fn skip_space(text: &[u8]) -> &[u8] {
    let inside = without_blanks(text);
    match next_line(inside) {
        Some(next) if matches!(inside, [b'\r' | b'\n', ..]) && matches!(next, [b' ' | b'\t', ..]) => {
            without_blanks(next)
        }
        _ => inside,
    }
}

/// The length of the Call-ID that begins here; 0 if it is none, or lacks what follows its `@`.
fn word(text: &[u8]) -> usize {
    let length = |text: &[u8]| text.iter().take_while(|&&byte| is_word(byte)).count();
    let local = length(text);
    match text.get(local) {
        Some(b'@') if local > 0 => {
            let domain = length(&text[local + 1..]);
            if domain == 0 { 0 } else { local + 1 + domain }
        }
        _ => local,
    }
}

/// A byte of RFC 3261's `word`.
fn is_word(byte: u8) -> bool {
    byte.is_ascii_alphanumeric() || b"-.!%*_+`'~()<>:\\\"/[]?{}".contains(&byte)
}

/// Without the blanks at its start.
fn without_blanks(text: &[u8]) -> &[u8] {
    let blanks = text.iter().take_while(|byte| matches!(byte, b' ' | b'\t')).count();
    &text[blanks..]
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn of(headers: &str) -> Option<String> {
        let message = format!("INVITE sip:bob@example.org SIP/2.0\r\n{headers}");
        call_id(message.as_bytes()).map(|id| String::from_utf8(id.to_vec()).unwrap())
    }

    /// A Call-ID is found by either of its names, in any case, folded, between other headers, after any end of line.
    #[test]
    fn a_call_id_is_found() {
        for headers in [
            "Call-ID: a84b4c76e66710@pc33.example.org\r\n",
            "Via: SIP/2.0/UDP 10.0.0.1\r\nCALL-id:a84b4c76e66710@pc33.example.org\r\nMax-Forwards: 70\r\n\r\n",
            "i: a84b4c76e66710@pc33.example.org\n",
            "I \t:\ta84b4c76e66710@pc33.example.org\r",
            "Call-ID:\r\n  a84b4c76e66710@pc33.example.org\r\n",
            "Call-ID\r\n : a84b4c76e66710@pc33.example.org\r\n",
            "Invite: yes\r\nCall-IDs: no@where\r\nCall-ID: a84b4c76e66710@pc33.example.org\r\n",
            "Call-ID: \r\ni: @nobody\r\nCall-ID: a84b4c76e66710@pc33.example.org\r\n",
        ] {
            assert_eq!(of(headers).as_deref(), Some("a84b4c76e66710@pc33.example.org"), "{headers:?}");
        }
        assert_eq!(of("Call-ID: no-domain_%21!\r\n").as_deref(), Some("no-domain_%21!"));
    }

    /// What is no header, has no value, or does not end with its line is no Call-ID; nor is one that is cut off.
    #[test]
    fn what_is_none() {
        for headers in [
            "",
            "\r\n",
            "Call-ID",
            "Call-ID:",
            "Call-ID: ",
            "Call-ID: \r\n",
            "Call-ID: cut@o",
            "Call-ID: a@\r\n",
            "Call-ID: @b\r\n",
            "Call-ID: a@b@c\r\n",
            "Call-ID: a@b \r\n",
            "Call-ID: two words\r\n",
            "Call-ID; a@b\r\n",
            " Call-ID: a@b\r\n",
            "Subject: Call-ID: a@b\r\n",
            "in: a@b\r\n",
        ] {
            assert_eq!(of(headers), None, "{headers:?}");
        }
        assert_eq!(call_id(b"Call-ID: a@b\r\n"), None, "the start line is no header");
    }

    /// 255 bytes are a Call-ID, 256 are none: they would not fit.
    #[test]
    fn a_call_id_is_not_too_long() {
        let header = |length: usize| of(&format!("Call-ID: {}\r\n", "x".repeat(length)));
        assert_eq!(header(CALL_ID_MAX).map(|id| id.len()), Some(255));
        assert_eq!(header(CALL_ID_MAX + 1), None);
    }

    /// What headers are made of, in any order.
    fn piece() -> impl Strategy<Value = String> {
        let known = ["Call-ID", "i", ":", " ", "\r\n", "\n", "\r", "@", "a", "\u{e9}"].map(str::to_owned);
        prop_oneof![8 => proptest::sample::select(known.to_vec()), 1 => "\\PC{0,300}"]
    }

    proptest! {
        /// Any bytes give a Call-ID that stands in them between a space (or colon) and the end of a line, or none.
        #[test]
        fn any_bytes_do_no_harm(pieces in proptest::collection::vec(piece(), 0..24)) {
            let text = pieces.concat();
            if let Some(id) = call_id(text.as_bytes()) {
                prop_assert!((1..=CALL_ID_MAX).contains(&id.len()));
                prop_assert!(id.iter().all(|&byte| is_word(byte) || byte == b'@'));
                let at = id.as_ptr().addr() - text.as_ptr().addr();
                prop_assert!(matches!(text.as_bytes()[at + id.len()], b'\r' | b'\n'));
                prop_assert!(matches!(text.as_bytes()[at - 1], b' ' | b'\t' | b':'));
            }
        }

        /// A Call-ID that is written is read, wherever it stands among other headers.
        #[test]
        fn what_is_written_is_read(
            id in "[a-zA-Z0-9.!%*_+~()<>:/\\[\\]?{}-]{1,120}(@[a-z0-9.-]{1,120})?",
            before in proptest::collection::vec("[A-HJ-Z][a-z]{1,9}: [ -~]{0,40}\r\n", 0..5),
        ) {
            let text = format!("{}Call-ID: {id}\r\nContent-Length: 0\r\n\r\n", before.concat());
            prop_assert_eq!(of(&text), Some(id));
        }
    }
}
