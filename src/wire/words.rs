//! Words of a line as Redis parts and quotes them: in `sentinel.conf`, in inline commands, in rules of users.
//!
//! Words are parted by blanks. Inside `"…"` stand `\n \r \t \b \a`, `\xHH` for any byte, and `\` before any other
//! character for that character; inside `'…'` only `\'` means something. After a closing quote a word must end.

/// Why a line has no words: a quote is not closed, or something follows a closed one without a blank.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("unbalanced quotes in request")]
pub struct Unbalanced;

/// The words of `line`.
pub fn split(line: &[u8]) -> Result<Vec<Vec<u8>>, Unbalanced> {
    let mut words = Vec::new();
    let mut rest = line;
    loop {
        let Some(start) = rest.iter().position(|byte| !is_blank(*byte)) else { return Ok(words) };
        let (word, after) = first(&rest[start..])?;
        words.push(word);
        rest = after;
    }
}

/// The word that `rest` begins with, and what follows it.
fn first(rest: &[u8]) -> Result<(Vec<u8>, &[u8]), Unbalanced> {
    let mut word = Vec::new();
    let mut at = 0;
    while let Some(byte) = rest.get(at).filter(|byte| !is_blank(**byte)) {
        match byte {
            b'"' | b'\'' => {
                let inner =
                    if *byte == b'"' { double(&rest[at + 1..], &mut word) } else { single(&rest[at + 1..], &mut word) };
                let after = &rest[at + 1 + inner?..];
                return if after.first().is_none_or(|byte| is_blank(*byte)) {
                    Ok((word, after))
                } else {
                    Err(Unbalanced)
                };
            }
            byte => word.push(*byte),
        }
        at += 1;
    }
    Ok((word, &rest[at..]))
}

/// Takes what stands before the next `"` in. Returns how long it was, with that quote.
fn double(text: &[u8], word: &mut Vec<u8>) -> Result<usize, Unbalanced> {
    let mut at = 0;
    loop {
        at += match text[at..] {
            [] | [b'\\'] => return Err(Unbalanced),
            [b'"', ..] => return Ok(at + 1),
            [b'\\', b'x', high, low, ..] if high.is_ascii_hexdigit() && low.is_ascii_hexdigit() => {
                word.push(digit(high) << 4 | digit(low));
                4
            }
            [b'\\', escaped, ..] => {
                word.push(match escaped {
                    b'n' => b'\n',
                    b'r' => b'\r',
                    b't' => b'\t',
                    b'b' => 8,
                    b'a' => 7,
                    other => other,
                });
                2
            }
            [byte, ..] => {
                word.push(byte);
                1
            }
        };
    }
}

/// Takes what stands before the next `'` in. Returns how long it was, with that quote.
fn single(text: &[u8], word: &mut Vec<u8>) -> Result<usize, Unbalanced> {
    let mut at = 0;
    loop {
        at += match text[at..] {
            [] => return Err(Unbalanced),
            [b'\'', ..] => return Ok(at + 1),
            [b'\\', b'\'', ..] => {
                word.push(b'\'');
                2
            }
            [byte, ..] => {
                word.push(byte);
                1
            }
        };
    }
}

fn is_blank(byte: u8) -> bool {
    // Redis works on C strings: a zero would end the line.
    byte.is_ascii_whitespace() || byte == 0x0b || byte == 0
}

fn digit(byte: u8) -> u8 {
    match byte {
        b'0'..=b'9' => byte - b'0',
        byte => (byte | 0x20) - b'a' + 10,
    }
}

/// `word` between double quotes: printable ASCII as it is, everything else escaped.
pub fn quoted(word: &[u8]) -> String {
    let mut text = String::from("\"");
    for byte in word {
        match byte {
            b'"' | b'\\' => text.extend(['\\', char::from(*byte)]),
            b'\n' => text.push_str("\\n"),
            b'\r' => text.push_str("\\r"),
            b'\t' => text.push_str("\\t"),
            8 => text.push_str("\\b"),
            7 => text.push_str("\\a"),
            b' '..=b'~' => text.push(char::from(*byte)),
            other => text.push_str(&format!("\\x{other:02x}")),
        }
    }
    text.push('"');
    text
}

/// `word` as it is if it reads back the same, else [`quoted`].
pub fn plain(word: &str) -> String {
    let simple = |byte: u8| byte.is_ascii_graphic() && !matches!(byte, b'"' | b'\'');
    if !word.is_empty() && word.bytes().all(simple) { word.to_owned() } else { quoted(word.as_bytes()) }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[track_caller]
    fn parts(line: &str, words: &[&[u8]]) {
        assert_eq!(split(line.as_bytes()), Ok(words.iter().map(|word| word.to_vec()).collect()), "{line}");
    }

    #[test]
    fn words_are_parted_by_blanks_and_quotes_keep_them_together() {
        parts(" a\tb  c \r\n", &[b"a", b"b", b"c"]);
        parts(r#""a b" 'c d' """#, &[b"a b", b"c d", b""]);
        parts(r#"pre"post x" >'y z'"#, &[b"prepost x", b">y z"]);
        parts(r#""\x00\xfF\xzz\n\q\"" 'a\'b\n'"#, &[b"\x00\xffxzz\nq\"", b"a'b\\n"]);
        parts("\x0b a\0\x0bb\0", &[b"a", b"b"]);
        parts("", &[]);
    }

    #[test]
    fn unbalanced_quotes_are_refused() {
        for line in ["\"a", "'a", "\"a\\", "\"a\"b", "'a'\"b\"", "x \"a\\\"", "a 'b\\'"] {
            assert_eq!(split(line.as_bytes()), Err(Unbalanced), "{line}");
        }
    }

    proptest! {
        #[test]
        fn quoted_words_read_back(words in prop::collection::vec(prop::collection::vec(any::<u8>(), 0..20), 0..5)) {
            let line = words.iter().map(|word| quoted(word)).collect::<Vec<_>>().join(" ");
            prop_assert_eq!(split(line.as_bytes()), Ok(words));
        }

        #[test]
        fn plain_words_read_back(words in prop::collection::vec(".{0,10}", 0..5)) {
            let line = words.iter().map(|word| plain(word)).collect::<Vec<_>>().join(" ");
            let back = split(line.as_bytes()).unwrap();
            prop_assert_eq!(back, words.iter().map(|word| word.as_bytes().to_vec()).collect::<Vec<_>>());
        }

        #[test]
        fn any_line_is_parted_or_refused(line in prop::collection::vec(any::<u8>(), 0..60)) {
            let _ = split(&line);
        }
    }
}
