//! Glob patterns of PSUBSCRIBE: `*`, `?`, `[abc]`, `[^a-z]`, `\x`.

/// Whether `text` matches `pattern` as a whole. Linear in space, at most pattern × text in time: a pattern from a client
/// must not cost more.
pub(super) fn matches(pattern: &[u8], text: &[u8]) -> bool {
    let (mut p, mut t) = (0, 0);
    // Where to go on after the last star if what follows it does not fit.
    let mut retry: Option<(usize, usize)> = None;
    loop {
        if pattern.get(p) == Some(&b'*') {
            retry = Some((p + 1, t + 1));
            p += 1;
            continue;
        }
        match (one(&pattern[p..], text.get(t)), text.get(t)) {
            (Some(used), Some(_)) => (p, t) = (p + used, t + 1),
            (_, None) if p == pattern.len() => return true,
            _ => match retry {
                Some((star, from)) if from <= text.len() => {
                    retry = Some((star, from + 1));
                    (p, t) = (star, from);
                }
                _ => return false,
            },
        }
    }
}

/// How many bytes of the pattern match this one byte of text; none if they do not.
fn one(pattern: &[u8], byte: Option<&u8>) -> Option<usize> {
    let (first, byte) = (pattern.first()?, *byte?);
    match first {
        b'?' => Some(1),
        b'[' => class(pattern, byte),
        b'\\' if pattern.len() > 1 => (pattern[1] == byte).then_some(2),
        literal => (*literal == byte).then_some(1),
    }
}

fn class(pattern: &[u8], byte: u8) -> Option<usize> {
    let negated = pattern.get(1) == Some(&b'^');
    let mut at = if negated { 2 } else { 1 };
    let mut found = false;
    while at < pattern.len() && pattern[at] != b']' {
        if pattern[at] == b'\\' && at + 1 < pattern.len() {
            at += 1;
            found |= pattern[at] == byte;
        } else if pattern.get(at + 1) == Some(&b'-') && at + 2 < pattern.len() {
            let (low, high) = (pattern[at].min(pattern[at + 2]), pattern[at].max(pattern[at + 2]));
            found |= (low..=high).contains(&byte);
            at += 2;
        } else {
            found |= pattern[at] == byte;
        }
        at += 1;
    }
    (found != negated).then_some((at + 1).min(pattern.len()))
}

#[cfg(test)]
mod tests {
    use super::matches;

    #[test]
    fn patterns_match_as_redis_documents_them() {
        for (pattern, text, expected) in [
            ("*", "+sdown", true),
            ("+*", "+sdown", true),
            ("*down", "+sdown", true),
            ("+?down", "+odown", true),
            ("+[so]down", "+odown", true),
            ("+[^s]down", "+sdown", false),
            ("[a-c]*x", "bx", true),
            ("\\*", "*", true),
            ("\\*", "x", false),
            ("", "x", false),
            ("*a*b", "xaxab", true),
            ("[", "a", false),
        ] {
            assert_eq!(matches(pattern.as_bytes(), text.as_bytes()), expected, "{pattern} {text}");
        }
    }

    proptest::proptest! {
        #[test]
        fn garbage_never_panics(pattern in "[*?\\[\\]^a\\-\\\\]{0,20}", text in "[a-c]{0,20}") {
            let _ = matches(pattern.as_bytes(), text.as_bytes());
        }
    }
}
