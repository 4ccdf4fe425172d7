//! The payload of a full resync: an RDB of known length, or one that ends at a mark.
//!
//! Invariants
//! - The mark is not part of the RDB and is found wherever reads happen to cut it.
//! - Bytes are handed over once; at most 39 wait for a mark to become complete.

/// How the end of the RDB is known.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Form {
    /// `$<length>`: exactly that many bytes, nothing after them.
    Length(u64),
    /// `$EOF:<mark>`: the RDB, then the same 40 characters.
    Mark([u8; MARK_BYTES]),
}

pub(crate) const MARK_BYTES: usize = 40;

impl Form {
    /// Reads the header line without its line end.
    pub(crate) fn parse(line: &[u8]) -> Option<Form> {
        let rest = line.strip_prefix(b"$")?;
        if let Some(mark) = rest.strip_prefix(b"EOF:") {
            return mark.try_into().ok().map(Form::Mark);
        }
        if rest.is_empty() || !rest.iter().all(u8::is_ascii_digit) {
            return None;
        }
        std::str::from_utf8(rest)
            .ok()?
            .parse()
            .ok()
            .map(Form::Length)
    }
}

/// What the next bytes of the payload are.
#[derive(Debug, PartialEq, Eq)]
pub(crate) enum Part {
    /// So many bytes of the RDB.
    Bytes(usize),
    /// The RDB ended; so many bytes of the mark follow it.
    End(usize),
    /// More bytes are needed to tell.
    Short,
}

#[derive(Debug)]
pub(crate) enum Payload {
    Length { left: u64 },
    Mark(Box<Mark>),
}

impl Payload {
    pub fn new(form: Form) -> Payload {
        match form {
            Form::Length(left) => Payload::Length { left },
            Form::Mark(mark) => Payload::Mark(Box::new(Mark::new(mark))),
        }
    }

    pub fn next(&mut self, input: &[u8]) -> Part {
        match self {
            Payload::Length { left: 0 } => Part::End(0),
            Payload::Length { .. } if input.is_empty() => Part::Short,
            Payload::Length { left } => {
                let bytes =
                    usize::try_from(*left).map_or(input.len(), |left| left.min(input.len()));
                *left -= bytes as u64;
                Part::Bytes(bytes)
            }
            Payload::Mark(mark) => match mark.find(input) {
                Some(0) => Part::End(MARK_BYTES),
                Some(at) => Part::Bytes(at),
                None if input.len() >= MARK_BYTES => Part::Bytes(input.len() - (MARK_BYTES - 1)),
                None => Part::Short,
            },
        }
    }
}

/// Search for the mark, Horspool's way: look at the last byte of a window and skip by what it is.
#[derive(Debug)]
pub(crate) struct Mark {
    mark: [u8; MARK_BYTES],
    /// How far the window moves when its last byte is this one: 1..=40.
    skip: [u8; 256],
}

impl Mark {
    fn new(mark: [u8; MARK_BYTES]) -> Mark {
        let mut skip = [MARK_BYTES as u8; 256];
        for (i, &byte) in mark[..MARK_BYTES - 1].iter().enumerate() {
            skip[usize::from(byte)] = (MARK_BYTES - 1 - i) as u8;
        }
        Mark { mark, skip }
    }

    fn find(&self, input: &[u8]) -> Option<usize> {
        let mut at = 0;
        while let Some(window) = input.get(at..at + MARK_BYTES) {
            if window == self.mark {
                return Some(at);
            }
            at += usize::from(self.skip[usize::from(window[MARK_BYTES - 1])]);
        }
        None
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn headers_say_the_form() {
        let mark = *b"0123456789012345678901234567890123456789";
        let rows: &[(&str, &[u8], Option<Form>)] = &[
            ("length", b"$1234", Some(Form::Length(1234))),
            ("empty RDB", b"$0", Some(Form::Length(0))),
            (
                "mark",
                b"$EOF:0123456789012345678901234567890123456789",
                Some(Form::Mark(mark)),
            ),
            ("short mark", b"$EOF:01234", None),
            ("negative", b"$-1", None),
            ("plus", b"$+1", None),
            ("too long a number", b"$99999999999999999999", None),
            ("no number", b"$", None),
            ("something else", b"+OK", None),
        ];
        for (name, line, want) in rows {
            assert_eq!(&Form::parse(line), want, "{name}");
        }
    }

    /// The bytes handed over and what is left after the end, with the input growing by `step`.
    fn run(form: Form, stream: &[u8], step: usize) -> (Vec<u8>, usize) {
        let (mut payload, mut rdb, mut start, mut end) = (Payload::new(form), Vec::new(), 0, 0);
        loop {
            match payload.next(&stream[start..end]) {
                Part::Bytes(n) => {
                    rdb.extend_from_slice(&stream[start..start + n]);
                    start += n;
                }
                Part::End(n) => return (rdb, stream.len() - start - n),
                Part::Short => {
                    assert!(end < stream.len(), "the payload did not end");
                    end = (end + step).min(stream.len());
                }
            }
        }
    }

    #[test]
    fn marks_are_found_across_reads() {
        let mark = *b"aaaaaaaaaaaaaaaaaaaabaaaaaaaaaaaaaaaaaaa";
        for rdb_len in [0, 1, 39, 40, 41, 200] {
            // Bytes that look like the beginning of the mark.
            let rdb = vec![b'a'; rdb_len];
            let stream = [&rdb, &mark[..], b"xyz"].concat();
            let want = find_naively(&stream, &mark);
            for step in [1, 2, 7, 39, 40, 41, 1000] {
                assert_eq!(
                    run(Form::Mark(mark), &stream, step),
                    (stream[..want].to_vec(), stream.len() - want - 40)
                );
            }
        }
    }

    fn find_naively(stream: &[u8], mark: &[u8]) -> usize {
        stream.windows(mark.len()).position(|w| w == mark).unwrap()
    }

    #[test]
    fn lengths_are_exact() {
        for step in [1, 3, 100] {
            assert_eq!(
                run(Form::Length(5), b"helloworld", step).0,
                b"hello",
                "step {step}"
            );
        }
        assert_eq!(run(Form::Length(0), b"", 1), (vec![], 0));
    }
}
