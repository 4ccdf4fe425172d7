//! Patterns over keys and names: KEYS, SCAN MATCH, PSUBSCRIBE, CONFIG GET.
//!
//! `*` any bytes, `?` one byte, `[abc]` `[a-c]` `[^a]` one byte of a class, `\x` the byte x. A class that is
//! never closed reaches to the end of the pattern.
//!
//! Invariants
//! - At most pattern × text steps: only the last `*` is ever gone back to.

/// Does `pattern` match all of `text`?
pub fn matches(pattern: &[u8], text: &[u8]) -> bool {
    run(pattern, text, |byte| byte)
}

/// As [`matches`], letters of either case being the same.
pub fn matches_ignoring_case(pattern: &[u8], text: &[u8]) -> bool {
    run(pattern, text, |byte| byte.to_ascii_lowercase())
}

/// The bytes every match begins with; the whole pattern when it has nothing special.
pub fn literal_prefix(pattern: &[u8]) -> &[u8] {
    let end = pattern
        .iter()
        .position(|b| matches!(b, b'*' | b'?' | b'[' | b'\\'));
    &pattern[..end.unwrap_or(pattern.len())]
}

fn run(pattern: &[u8], text: &[u8], fold: impl Fn(u8) -> u8) -> bool {
    let (mut p, mut t) = (0, 0);
    // After the last `*`: where the pattern goes on, and what of the text it has swallowed.
    let mut star: Option<(usize, usize)> = None;
    loop {
        if pattern.get(p) == Some(&b'*') {
            p += 1;
            star = Some((p, t));
            continue;
        }
        if t == text.len() {
            return p == pattern.len();
        }
        let next = match pattern.get(p) {
            None => None,
            Some(_) => one(&pattern[p..], text[t], &fold),
        };
        match (next, star) {
            (Some(used), _) => {
                p += used;
                t += 1;
            }
            (None, Some((after, swallowed))) => {
                star = Some((after, swallowed + 1));
                p = after;
                t = swallowed + 1;
            }
            (None, None) => return false,
        }
    }
}

/// Bytes of the pattern that match `byte`; `None` when they do not. The pattern is not empty.
fn one(pattern: &[u8], byte: u8, fold: &impl Fn(u8) -> u8) -> Option<usize> {
    let byte = fold(byte);
    match *pattern {
        [b'?', ..] => Some(1),
        [b'[', ref class @ ..] => {
            let (is_in, used) = in_class(class, byte, fold);
            is_in.then_some(used + 1)
        }
        [b'\\', escaped, ..] => (fold(escaped) == byte).then_some(2),
        [literal, ..] => (fold(literal) == byte).then_some(1),
        [] => None,
    }
}

/// Is the (folded) byte in the class whose `[` stands before `class`, and how long is the class with its `]`?
fn in_class(class: &[u8], byte: u8, fold: &impl Fn(u8) -> u8) -> (bool, usize) {
    let is_negated = class.first() == Some(&b'^');
    let mut at = usize::from(is_negated);
    let mut is_in = false;
    loop {
        match class[at..] {
            [] => break,
            [b'\\', escaped, ..] => {
                is_in |= fold(escaped) == byte;
                at += 2;
            }
            [b']', ..] => {
                at += 1;
                break;
            }
            [a, b'-', z, ..] => {
                let (a, z) = (fold(a.min(z)), fold(a.max(z)));
                is_in |= (a.min(z)..=a.max(z)).contains(&byte);
                at += 3;
            }
            [literal, ..] => {
                is_in |= fold(literal) == byte;
                at += 1;
            }
        }
    }
    (is_in != is_negated, at)
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn patterns_match_as_clients_expect() {
        let rows: &[(&str, &str, bool)] = &[
            ("", "", true),
            ("", "a", false),
            ("*", "", true),
            ("*", "anything", true),
            ("**a", "ba", true),
            ("h?llo", "hello", true),
            ("h?llo", "hllo", false),
            ("h*llo", "heeeello", true),
            ("h*llo", "heeeell", false),
            ("*a*b*c", "xaxbxbxc", true),
            ("*a*b*c", "xaxbxbx", false),
            ("a*", "a", true),
            ("a?", "a", false),
            ("h[ae]llo", "hallo", true),
            ("h[ae]llo", "hillo", false),
            ("h[^e]llo", "hallo", true),
            ("h[^e]llo", "hello", false),
            ("h[a-c]llo", "hbllo", true),
            ("h[c-a]llo", "hbllo", true),
            ("h[a-c]llo", "hdllo", false),
            ("[0-9]*", "7up", true),
            (r"h\*llo", "h*llo", true),
            (r"h\*llo", "hello", false),
            (r"[\]]", "]", true),
            (r"[\^a]", "^", true),
            (r"a\", r"a\", true),
            ("[abc", "b", true),
            ("[abc", "d", false),
            ("[^abc", "d", true),
            ("x[", "x", false),
            ("x[", "xy", false),
            ("x[^", "xy", true),
            ("[]", "a", false),
            ("[]a]", "a]", false),
            ("[a-]", "b", false),
            ("[a-]", "^", true),
            ("__keyevent@[0,1]__:*", "__keyevent@0__:set", true),
            ("key:*:tail", "key:1:2:tail", true),
        ];
        for (pattern, text, want) in rows {
            assert_eq!(
                matches(pattern.as_bytes(), text.as_bytes()),
                *want,
                "{pattern} on {text}"
            );
        }
    }

    #[test]
    fn case_is_ignored_on_request() {
        assert!(matches_ignoring_case(
            b"MAX[A-Z]emory*",
            b"maxmemory-policy"
        ));
        assert!(!matches(b"MAX*", b"maxmemory"));
    }

    #[test]
    fn many_stars_are_quick() {
        let pattern = "a*".repeat(200);
        assert!(!matches(format!("{pattern}b").as_bytes(), &[b'a'; 5000]));
    }

    #[test]
    fn prefixes_end_at_the_first_special_byte() {
        for (pattern, want) in [
            ("user:*", "user:"),
            ("plain", "plain"),
            ("?x", ""),
            (r"a\b", "a"),
        ] {
            assert_eq!(
                literal_prefix(pattern.as_bytes()),
                want.as_bytes(),
                "{pattern}"
            );
        }
    }

    /// The meaning written down as recursion; slow.
    fn plainly(pattern: &[u8], text: &[u8]) -> bool {
        match (pattern, text) {
            ([], _) => text.is_empty(),
            ([b'*', rest @ ..], _) => (0..=text.len()).any(|n| plainly(rest, &text[n..])),
            (_, []) => false,
            (_, [byte, after @ ..]) => {
                one(pattern, *byte, &|b| b).is_some_and(|used| plainly(&pattern[used..], after))
            }
        }
    }

    proptest! {
        #[test]
        fn going_back_to_the_last_star_is_enough(
            pattern in prop::collection::vec(prop::sample::select(b"ab*?[]^-\\".to_vec()), 0..10),
            text in prop::collection::vec(prop::sample::select(b"ab]-".to_vec()), 0..10),
        ) {
            prop_assert_eq!(matches(&pattern, &text), plainly(&pattern, &text));
        }

        #[test]
        fn texts_match_themselves(text in "[a-z0-9:_-]{0,20}") {
            prop_assert!(matches(text.as_bytes(), text.as_bytes()));
        }
    }
}
