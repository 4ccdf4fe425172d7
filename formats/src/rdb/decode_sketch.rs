//! Dragonfly's filters and sketches, checked and kept as they are stored.
//!
//! `decode` and `stored` read them with it. Chunks in another form than plain bytes become plain: some versions of Dragonfly wrote those and
//! cannot read them.
//!
//! ```text
//! bloom        = options, growth f64, error rate f64, previous size, size, capacity, n, n × (hashes, bits)
//! count-min    = width, depth, total, width × depth × i64
//! top-k        = options, k, width, depth, decay f64, n, n × (item, count), width × depth × u32 as one string
//! cuckoo       = slots, iterations, expansion, buckets, items, deletions, n, n × slots of all buckets
//! bits, slots  = type 33: one string | total, chunks of any size until there are so many bytes
//! ```

use super::{length, type_code};
use crate::error::{Damage, Problem};
use crate::input::{Cursor, Text};
use crate::value::SketchValue;

impl SketchValue {
    /// The value of this type that starts at `cursor`, which is moved behind it.
    pub(super) fn read(code: u8, cursor: &mut Cursor<'_>) -> Result<Self, Damage> {
        let (whole, start) = (cursor.rest(), cursor.offset());
        let mut chunks = Chunks::default();
        let mut walk = SketchWalk { cursor };
        match code {
            type_code::BLOOM | type_code::BLOOM_2 => walk.bloom(code, &mut chunks)?,
            type_code::COUNT_MIN_SKETCH => walk.count_min()?,
            type_code::TOP_K => walk.top_k()?,
            _ => walk.cuckoo(&mut chunks)?,
        }
        let stored = &whole[..(walk.cursor.offset() - start) as usize];
        Ok(SketchValue {
            type_code: code,
            raw: chunks.plain(stored, start),
        })
    }
}

/// What Dragonfly takes for a width, a depth or a number of items.
fn is_size(number: u64) -> bool {
    (1..1 << 32).contains(&number)
}

struct SketchWalk<'c, 'a> {
    cursor: &'c mut Cursor<'a>,
}

impl SketchWalk<'_, '_> {
    fn bloom(&mut self, code: u8, chunks: &mut Chunks) -> Result<(), Damage> {
        self.number("bloom, options (0)", |options| options == 0)?;
        self.double("bloom, growth (1 or more)", |growth| {
            growth >= 1.0 && growth.is_finite()
        })?;
        let error_rate =
            self.double("bloom, error rate (0 to 0.5)", |p| (0.0..=0.5).contains(&p))?;
        let start = self.cursor.clone();
        let sizes = [
            self.cursor.len("bloom, previous size")?,
            self.cursor.len("bloom, size")?,
            self.cursor.len("bloom, capacity")?,
        ];
        let filters = self.cursor.count(2, "bloom, filters")?;
        let blank = error_rate == 0.0 && sizes == [0; 3];
        if filters == 0 && !blank || filters > 0 && error_rate == 0.0 {
            let wanted = "filters and an error rate above 0, or neither and no sizes";
            let found = filters as u64;
            return Err(start.damage("bloom, filters", Problem::Number { wanted, found }));
        }
        for _ in 0..filters {
            self.cursor.len("bloom, hashes")?;
            let start = self.cursor.clone();
            let bytes = match code {
                type_code::BLOOM => self.cursor.string("bloom, bits")?.len() as u64,
                _ => self.chunked("bloom, bits", chunks)?,
            };
            if !bytes.is_power_of_two() {
                let wanted = "a power of two of bytes";
                let problem = Problem::Number {
                    wanted,
                    found: bytes,
                };
                return Err(start.damage("bloom, bits", problem));
            }
        }
        Ok(())
    }

    fn count_min(&mut self) -> Result<(), Damage> {
        let width = self.number("count-min, width (32 bits, not 0)", is_size)?;
        let depth = self.number("count-min, depth (32 bits, not 0)", is_size)?;
        self.cursor.len("count-min, total")?;
        let bytes = width.saturating_mul(depth).saturating_mul(8);
        self.cursor.take(bytes, "count-min, counters")?;
        Ok(())
    }

    fn top_k(&mut self) -> Result<(), Damage> {
        self.number("top-k, options (0)", |options| options == 0)?;
        let k = self.number("top-k, k (32 bits, not 0)", is_size)?;
        let width = self.number("top-k, width (32 bits, not 0)", is_size)?;
        let depth = self.number("top-k, depth (32 bits, not 0)", is_size)?;
        self.double("top-k, decay (0 to 1)", |decay| {
            (0.0..=1.0).contains(&decay)
        })?;
        for _ in 0..self.number("top-k, items (k or fewer)", |items| items <= k)? {
            self.cursor.string("top-k, item")?;
            self.number("top-k, count (32 bits)", |count| count < 1 << 32)?;
        }
        let start = self.cursor.clone();
        let wanted = width.saturating_mul(depth).saturating_mul(4);
        let found = self.cursor.string("top-k, counters")?.len() as u64;
        match wanted == found {
            true => Ok(()),
            false => Err(start.damage("top-k, counters", Problem::Differs { wanted, found })),
        }
    }

    fn cuckoo(&mut self, chunks: &mut Chunks) -> Result<(), Damage> {
        let slots = self.number("cuckoo, slots (1 to 255)", |n| (1..=255).contains(&n))?;
        self.number("cuckoo, iterations (1 to 65535)", |n| {
            (1..=65535).contains(&n)
        })?;
        self.number("cuckoo, expansion (0 or a power of two to 65535)", |n| {
            n == 0 || n.is_power_of_two() && n <= 65535
        })?;
        self.number("cuckoo, buckets (a power of two)", u64::is_power_of_two)?;
        self.cursor.len("cuckoo, items")?;
        self.cursor.len("cuckoo, deletions")?;
        for _ in 0..self.number("cuckoo, filters (1 or more)", |n| n >= 1)? {
            let start = self.cursor.clone();
            let bytes = self.chunked("cuckoo, slots", chunks)?;
            if bytes == 0 || !bytes.is_multiple_of(slots) {
                let wanted = "a multiple of the slots of a bucket, not 0";
                let problem = Problem::Number {
                    wanted,
                    found: bytes,
                };
                return Err(start.damage("cuckoo, slots", problem));
            }
        }
        Ok(())
    }

    /// Passes chunks; the answer is how many bytes they hold together.
    fn chunked(&mut self, reading: &'static str, chunks: &mut Chunks) -> Result<u64, Damage> {
        let total = self.cursor.len(reading)?;
        let mut left = total;
        while left > 0 {
            let start = self.cursor.clone();
            let at = self.cursor.offset();
            let text = self.cursor.text(reading)?;
            let len = match text {
                Text::Plain(bytes) => bytes.len() as u64,
                text => {
                    let mut plain = Vec::new();
                    text.append_to(&mut plain)
                        .map_err(|lzf| Damage::new(at, reading, Problem::Lzf(lzf)))?;
                    let len = plain.len() as u64;
                    chunks.packed.push((at, self.cursor.offset(), plain));
                    len
                }
            };
            if len == 0 || len > left {
                let (wanted, found) = (left, len);
                return Err(start.damage(reading, Problem::Differs { wanted, found }));
            }
            left -= len;
        }
        Ok(total)
    }

    /// A number that must be as `reading` says.
    fn number(
        &mut self,
        reading: &'static str,
        fits: impl FnOnce(u64) -> bool,
    ) -> Result<u64, Damage> {
        let start = self.cursor.clone();
        let found = self.cursor.len(reading)?;
        match fits(found) {
            true => Ok(found),
            false => {
                let wanted = "what is named in brackets";
                Err(start.damage(reading, Problem::Number { wanted, found }))
            }
        }
    }

    fn double(
        &mut self,
        reading: &'static str,
        fits: impl FnOnce(f64) -> bool,
    ) -> Result<f64, Damage> {
        let start = self.cursor.clone();
        let found = self.cursor.f64_le(reading)?;
        match found.is_finite() && fits(found) {
            true => Ok(found),
            false => {
                let wanted = "what is named in brackets";
                let found = found.to_string().into_bytes();
                Err(start.damage(reading, Problem::Text { wanted, found }))
            }
        }
    }
}

/// The chunks that are not stored as plain bytes.
#[derive(Default)]
struct Chunks {
    /// Start and end in the value, and what stands there.
    packed: Vec<(u64, u64, Vec<u8>)>,
}

impl Chunks {
    /// `stored`, which starts at `base`, with every chunk as plain bytes.
    fn plain(&self, stored: &[u8], base: u64) -> Vec<u8> {
        let mut out = Vec::with_capacity(stored.len());
        let mut at = 0;
        for (start, end, plain) in &self.packed {
            out.extend_from_slice(&stored[at..(start - base) as usize]);
            length::put(&mut out, plain.len() as u64);
            out.extend_from_slice(plain);
            at = (end - base) as usize;
        }
        out.extend_from_slice(&stored[at..]);
        out
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::rdb::Flavor;
    use crate::rdb::decode::decode;
    use crate::rdb::reader::{Options, RdbReader, Record};
    use crate::value::Value;

    fn double(number: f64) -> Vec<u8> {
        number.to_le_bytes().to_vec()
    }

    fn bloom(error_rate: f64, rest: &[u8]) -> Vec<u8> {
        [&[0][..], &double(2.0), &double(error_rate), rest].concat()
    }

    fn top_k(decay: f64, rest: &[u8]) -> Vec<u8> {
        [&[0, 2, 1, 2][..], &double(decay), rest].concat()
    }

    /// Name, type, stored value, whether it is sound.
    fn rows() -> Vec<(&'static str, u8, Vec<u8>, bool)> {
        use type_code::{BLOOM, BLOOM_2, COUNT_MIN_SKETCH, CUCKOO, TOP_K};
        let eight = [1u8; 8];
        vec![
            ("bloom", BLOOM, bloom(0.1, &[0, 1, 9, 1, 3, 2, 7, 7]), true),
            (
                "bloom without filters",
                BLOOM_2,
                bloom(0.0, &[0, 0, 0, 0]),
                true,
            ),
            (
                "bloom in chunks",
                BLOOM_2,
                bloom(0.1, &[0, 1, 9, 1, 3, 4, 3, 7, 7, 7, 1, 7]),
                true,
            ),
            (
                "bloom, chunk as an integer",
                BLOOM_2,
                bloom(0.1, &[0, 1, 9, 1, 3, 2, 0xC0, 42]),
                true,
            ),
            (
                "bloom, chunk as lzf",
                BLOOM_2,
                bloom(0.1, &[0, 1, 9, 1, 3, 8, 0xC3, 4, 8, 0, b'x', 0xA0, 0]),
                true,
            ),
            (
                "bloom, three bytes",
                BLOOM,
                bloom(0.1, &[0, 1, 9, 1, 3, 3, 7, 7, 7]),
                false,
            ),
            (
                "bloom, chunks too long",
                BLOOM_2,
                bloom(0.1, &[0, 1, 9, 1, 3, 2, 3, 7, 7, 7]),
                false,
            ),
            (
                "bloom, empty chunk",
                BLOOM_2,
                bloom(0.1, &[0, 1, 9, 1, 3, 2, 0, 2, 7, 7]),
                false,
            ),
            (
                "bloom, error rate",
                BLOOM,
                bloom(0.6, &[0, 1, 9, 1, 3, 2, 7, 7]),
                false,
            ),
            (
                "bloom, sizes without filters",
                BLOOM,
                bloom(0.0, &[0, 1, 9, 0]),
                false,
            ),
            (
                "count-min",
                COUNT_MIN_SKETCH,
                [&[1, 2, 5][..], &eight, &eight].concat(),
                true,
            ),
            (
                "count-min, too wide",
                COUNT_MIN_SKETCH,
                [&[3, 2, 5][..], &eight, &eight].concat(),
                false,
            ),
            (
                "top-k",
                TOP_K,
                top_k(0.9, &[1, 1, b'a', 4, 8, 1, 1, 1, 1, 1, 1, 1, 1]),
                true,
            ),
            (
                "top-k, decay",
                TOP_K,
                top_k(1.5, &[1, 1, b'a', 4, 8, 1, 1, 1, 1, 1, 1, 1, 1]),
                false,
            ),
            (
                "top-k, more than k",
                TOP_K,
                top_k(
                    0.9,
                    &[
                        3, 1, b'a', 4, 1, b'b', 4, 1, b'c', 4, 8, 1, 1, 1, 1, 1, 1, 1, 1,
                    ],
                ),
                false,
            ),
            (
                "top-k, counters short",
                TOP_K,
                top_k(0.9, &[0, 4, 1, 1, 1, 1]),
                false,
            ),
            (
                "cuckoo",
                CUCKOO,
                vec![2, 20, 1, 2, 1, 0, 1, 4, 4, 1, 2, 3, 4],
                true,
            ),
            (
                "cuckoo, no slots",
                CUCKOO,
                vec![0, 20, 1, 2, 1, 0, 1, 4, 4, 1, 2, 3, 4],
                false,
            ),
            (
                "cuckoo, three buckets",
                CUCKOO,
                vec![2, 20, 1, 3, 1, 0, 1, 4, 4, 1, 2, 3, 4],
                false,
            ),
            (
                "cuckoo, odd",
                CUCKOO,
                vec![2, 20, 1, 2, 1, 0, 1, 3, 3, 1, 2, 3],
                false,
            ),
        ]
    }

    #[test]
    fn sketches_are_passed_kept_and_checked() {
        for (name, code, raw, sound) in rows() {
            let limits = Default::default();
            match decode(Flavor::Dragonfly, code, &raw, &limits) {
                Ok(Some(Value::Sketch(sketch))) => {
                    assert!(sound, "{name}");
                    let again = decode(Flavor::Dragonfly, code, &sketch.raw, &limits);
                    assert_eq!(again, Ok(Some(Value::Sketch(sketch))), "{name}");
                }
                Ok(other) => panic!("{name}: {other:?}"),
                Err(damage) => assert!(!sound, "{name}: {damage}"),
            }
            if sound {
                for cut in 0..raw.len() {
                    assert!(
                        decode(Flavor::Dragonfly, code, &raw[..cut], &limits).is_err(),
                        "{name}"
                    );
                }
                assert_eq!(walked(code, &raw), Some(raw), "{name}");
            }
        }
    }

    #[test]
    fn chunks_become_plain_bytes() {
        let raw = bloom(0.1, &[0, 1, 9, 1, 3, 2, 0xC0, 42]);
        let value = decode(
            Flavor::Dragonfly,
            type_code::BLOOM_2,
            &raw,
            &Default::default(),
        );
        let Ok(Some(Value::Sketch(sketch))) = value else {
            panic!("{value:?}")
        };
        assert_eq!(sketch.raw, bloom(0.1, &[0, 1, 9, 1, 3, 2, 2, b'4', b'2']));
    }

    /// The value as the reader finds it between its key and the next.
    fn walked(code: u8, raw: &[u8]) -> Option<Vec<u8>> {
        let head = b"REDIS0009\xfa\x06df-ver\x0adf-v1.40.1";
        let file = [
            &head[..],
            &[code, 1, b'k'],
            raw,
            &[0, 1, b'n', 1, b'v', 0xFF],
            &[0; 8],
        ]
        .concat();
        let mut reader = RdbReader::new(&file[..], Options::default());
        let mut found = None;
        while let Some(record) = reader.next().unwrap() {
            if let Record::Key(key) = record
                && key.key == b"k"
            {
                found = Some(key.value.to_vec());
            }
        }
        found
    }
}
