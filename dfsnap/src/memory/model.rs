//! The structures of Redis 7.0 in memory, in the sizes that jemalloc gives out.
//!
//! ```text
//! key      dict entry 24, sds
//! string   object 16; up to 44 bytes in one block with it, otherwise an sds
//! list     object 16, quicklist 40, for each node 40 and its listpack
//! set      object 16, intset | dict 56, slots of 8, for each member 24 and an sds
//! hash     object 16, listpack | dict 56, slots of 8, for each field 24 and two sds
//! zset     object 16, listpack | zset 16, skiplist 32 and its head, dict, for each member 24, a node, an sds
//! stream   object 16, stream 80, tree of nodes, listpacks, groups
//! ```
//! What was one by one in the dump and is small becomes packed on loading, by the limits of the default configuration.

use super::tree::Nodes;
use dfsnap_formats::error::Damage;
use dfsnap_formats::input::Cursor;
use dfsnap_formats::rdb::type_code;

const OBJECT: u64 = 16;
const ENTRY: u64 = 24;
/// The entry of a key in the table of expiries, which shares its string.
pub const EXPIRY_BYTES: u64 = ENTRY;
const DICT: u64 = 56;
const SLOT: u64 = 8;
const QUICKLIST: u64 = 40;
const QUICKLIST_NODE: u64 = 40;
const ZSET: u64 = 16 + 32;
const SKIPLIST_HEAD: u64 = 640;
/// A node with one level takes 48 bytes; each further one 16, and a third of one is what chance gives.
const SKIPLIST_NODE_TIMES_3: u64 = 3 * 48 + 16;
const STREAM: u64 = 80;
const STREAM_ID: u64 = 16;
/// A node of a radix tree, with what MEMORY USAGE adds for its children and data.
const TREE_NODE: u64 = 4 + 30 * 8;
const GROUP: u64 = 40;
const CONSUMER: u64 = 24;
const PENDING: u64 = 24;
/// Longest string in one block with its object.
const EMBEDDED_MAX: u64 = 44;

/// Limits of the default configuration below which collections are packed.
const PACKED_ELEMENT_MAX: u64 = 64;
const HASH_PACKED_MAX: u64 = 512;
const ZSET_PACKED_MAX: u64 = 128;
const INTSET_MAX: u64 = 512;
const LIST_NODE_BYTES: u64 = 8192;
/// What the server adds to a node when it looks whether another element fits.
const LIST_NODE_SLACK: u64 = 8;
const LISTPACK: u64 = 7;
const INTSET: u64 = 8;

/// Bytes that the allocator gives out for so many.
fn block(bytes: u64) -> u64 {
    match bytes {
        0..=8 => 8,
        9..=128 => bytes.next_multiple_of(16),
        _ => {
            let step = 1 << ((bytes - 1).ilog2() - 2);
            bytes.div_ceil(step).saturating_mul(step)
        }
    }
}

/// A string of its own: header by length, bytes, zero.
fn sds(len: u64) -> u64 {
    let header = match len {
        1..32 => 1,
        0..256 => 3,
        256..65_536 => 5,
        65_536..0x1_0000_0000 => 9,
        _ => 17,
    };
    block(len.saturating_add(header + 1))
}

/// A key and its place in the table of a database.
pub fn key_bytes(len: usize) -> u64 {
    ENTRY + sds(len as u64)
}

/// The slots of a table of so many entries, which no key's MEMORY USAGE counts.
pub fn bucket_bytes(entries: u64) -> u64 {
    match entries {
        0 => 0,
        _ => slots(entries) * SLOT,
    }
}

fn slots(entries: u64) -> u64 {
    entries
        .max(4)
        .checked_next_power_of_two()
        .unwrap_or(entries)
}

/// A value whose structure in memory is not known: what it takes in the dump.
pub fn opaque(stored: u64) -> u64 {
    OBJECT + block(stored)
}

/// Characters of a number.
pub fn digits(number: i64) -> u64 {
    let sign = u64::from(number < 0);
    sign + number
        .unsigned_abs()
        .checked_ilog10()
        .map_or(1, |log| u64::from(log) + 1)
}

/// A string of a value: its length unpacked, and the number that it is.
#[derive(Debug, Clone, Copy)]
pub struct Text {
    pub len: u64,
    pub number: Option<i64>,
}

/// More than any server takes, so that sums of lies do not overflow.
const LEN_MAX: u64 = 1 << 32;

impl Text {
    pub fn of_len(len: u64) -> Self {
        let (len, number) = (len.min(LEN_MAX), None);
        Text { len, number }
    }

    /// As an element of a listpack.
    fn packed(self) -> u64 {
        let body = match self.number {
            Some(0..=127) => 1,
            Some(-4096..=4095) => 2,
            Some(-32_768..=32_767) => 3,
            Some(-8_388_608..=8_388_607) => 4,
            Some(-2_147_483_648..=2_147_483_647) => 5,
            Some(_) => 9,
            None => match self.len {
                0..64 => 1 + self.len,
                64..4096 => 2 + self.len,
                len => len.saturating_add(5),
            },
        };
        let back = match body {
            0..128 => 1,
            128..16_384 => 2,
            16_384..2_097_152 => 3,
            2_097_152..268_435_456 => 4,
            _ => 5,
        };
        body.saturating_add(back)
    }
}

/// What the strings of a value come to.
#[derive(Debug, Default)]
pub struct Sum {
    code: u8,
    /// Items that have gone by, of so many.
    items: u64,
    expected: u64,
    longest: u64,
    /// As strings of their own, as elements of a listpack, as blocks.
    strings: u64,
    packed: u64,
    blocks: u64,
    /// None once a member was no number; bytes of the widest one.
    number_bytes: Option<u64>,
    /// The node of a list that is being filled, and those that are full.
    node: u64,
    nodes: u64,
    first: Option<Text>,
    tree: Nodes,
}

impl Sum {
    /// The value says how many items it has.
    pub fn expect(&mut self, items: u64) {
        self.expected = items;
    }

    pub fn clear(&mut self, code: u8) {
        let mut tree = std::mem::take(&mut self.tree);
        tree.clear();
        *self = Sum {
            code,
            number_bytes: Some(2),
            tree,
            ..Sum::default()
        };
    }

    pub fn is_stream(&self) -> bool {
        use type_code::*;
        matches!(self.code, STREAM | STREAM_2 | STREAM_3 | STREAM_4)
    }

    /// Elements, or bytes of a string. None: they are in packs.
    pub fn elements(&self) -> Option<u64> {
        use type_code::*;
        match self.code {
            STRING => self.first.map(|text| text.len),
            LIST
            | SET
            | HASH
            | type_code::ZSET
            | ZSET_2
            | HASH_22
            | HASH_METADATA
            | HASH_EXPIRING
            | SET_EXPIRING => Some(self.items),
            _ => None,
        }
    }

    /// A string that is part `part` of its item. `bytes` is given where it is short and plain.
    #[inline]
    pub fn text(&mut self, part: usize, text: Text, bytes: Option<&[u8]>) {
        use type_code::*;
        match self.code {
            STRING => self.first = Some(text),
            LIST => self.list_element(text),
            LIST_QUICKLIST | LIST_QUICKLIST_2 | LIST_ZIPLIST => {
                self.nodes += QUICKLIST_NODE + block(text.len);
            }
            STREAM | STREAM_2 | STREAM_3 | STREAM_4 => {
                match (part, bytes.map(<[u8; 16]>::try_from)) {
                    (0, Some(Ok(id))) => self.tree.add(id),
                    (0, _) => {}
                    _ => self.blocks += block(text.len),
                }
            }
            SET_INTSET
            | HASH_ZIPMAP
            | HASH_ZIPLIST
            | HASH_LISTPACK
            | ZSET_ZIPLIST
            | ZSET_LISTPACK
            | SET_LISTPACK
            | HASH_LISTPACK_EX
            | HASH_LISTPACK_EX_PRE_GA => {
                self.blocks += block(text.len);
            }
            SET => {
                self.longest = self.longest.max(text.len);
                self.strings += sds(text.len);
                self.number_bytes = match (self.number_bytes, text.number) {
                    (Some(width), Some(number)) => Some(width.max(intset_width(number))),
                    _ => None,
                };
            }
            _ => {
                self.longest = self.longest.max(text.len);
                self.strings += sds(text.len);
                self.packed = self.packed.saturating_add(text.packed());
            }
        }
    }

    /// All parts of an item have gone by.
    #[inline]
    pub fn item(&mut self) {
        self.items += 1;
    }

    fn list_element(&mut self, text: Text) {
        let packed = text.packed();
        if self.node > 0 && self.node + packed + LIST_NODE_SLACK > LIST_NODE_BYTES {
            self.nodes += QUICKLIST_NODE + block(self.node);
            self.node = 0;
        }
        if self.node == 0 {
            self.node = LISTPACK;
        }
        self.node = self.node.saturating_add(packed);
    }

    /// Bytes between the strings: a score, or an expiry.
    #[inline]
    pub fn raw(&mut self, raw: &[u8]) {
        if self.code == type_code::ZSET_2
            && let Ok(score) = <[u8; 8]>::try_from(raw)
        {
            self.score(f64::from_le_bytes(score));
        }
    }

    /// The score of a member, which counts where there are few.
    #[inline]
    pub fn score(&mut self, score: f64) {
        if self.expected <= ZSET_PACKED_MAX {
            self.packed += packed_score(score);
        }
    }

    /// All of the value but the groups of a stream.
    pub fn bytes(&self) -> u64 {
        use type_code::*;
        let is_short = self.longest <= PACKED_ELEMENT_MAX;
        let items = self.items;
        let table = DICT + slots(items) * SLOT + items * ENTRY + self.strings;
        OBJECT
            + match self.code {
                STRING => return string(self.first),
                LIST | LIST_QUICKLIST | LIST_QUICKLIST_2 | LIST_ZIPLIST => {
                    let open = match self.node {
                        0 => 0,
                        node => QUICKLIST_NODE + block(node),
                    };
                    QUICKLIST + self.nodes + open
                }
                SET => match self.number_bytes {
                    Some(width) if items <= INTSET_MAX => block(INTSET + items * width),
                    _ => table,
                },
                ZSET_2 | type_code::ZSET => match is_short && items <= ZSET_PACKED_MAX {
                    true => block(LISTPACK + self.packed),
                    false => self::ZSET + SKIPLIST_HEAD + items * SKIPLIST_NODE_TIMES_3 / 3 + table,
                },
                HASH => match is_short && items <= HASH_PACKED_MAX {
                    true => block(LISTPACK + self.packed),
                    false => table,
                },
                STREAM | STREAM_2 | STREAM_3 | STREAM_4 => {
                    self::STREAM + tree_bytes(&self.tree) + self.blocks
                }
                HASH_22 | HASH_METADATA | HASH_EXPIRING | SET_EXPIRING => table,
                // Packs.
                _ => self.blocks,
            }
    }
}

fn string(text: Option<Text>) -> u64 {
    match text {
        None => OBJECT,
        Some(Text {
            number: Some(_), ..
        }) => OBJECT,
        Some(Text { len, .. }) if len <= EMBEDDED_MAX => block(OBJECT + 3 + len + 1),
        Some(Text { len, .. }) => OBJECT + sds(len),
    }
}

fn intset_width(number: i64) -> u64 {
    match number {
        -32_768..=32_767 => 2,
        -2_147_483_648..=2_147_483_647 => 4,
        _ => 8,
    }
}

/// As an element of a listpack: whole numbers as such, others as text of up to 17 digits.
fn packed_score(score: f64) -> u64 {
    let number = score as i64;
    let text = match number as f64 == score {
        true => Text {
            len: digits(number),
            number: Some(number),
        },
        false => Text::of_len(score_chars(score)),
    };
    text.packed()
}

/// Characters of a score as `%.17g` prints it.
fn score_chars(score: f64) -> u64 {
    let sign = u64::from(score < 0.0);
    let scientific = format!("{:.16e}", score.abs());
    let Some((mantissa, exponent)) = scientific.split_once('e') else {
        return sign + scientific.len() as u64; // inf
    };
    let shown = mantissa.trim_end_matches('0').trim_end_matches('.');
    let digits = shown.bytes().filter(u8::is_ascii_digit).count() as i64;
    let exponent: i64 = exponent.parse().unwrap_or(0);
    let chars = match exponent {
        0..17 => digits.max(exponent + 1) + i64::from(digits > exponent + 1),
        -4..0 => 1 - exponent + digits,
        _ => digits + i64::from(digits > 1) + "e+00".len() as i64 + i64::from(exponent.abs() > 99),
    };
    sign + chars as u64
}

fn tree_bytes(tree: &Nodes) -> u64 {
    tree.ids() * STREAM_ID + tree.count() * TREE_NODE
}

/// The groups of a stream, from what is stored behind its nodes.
pub fn stream_groups(code: u8, raw: &[u8]) -> Result<u64, Damage> {
    const READING: &str = "stream groups";
    let mut cursor = Cursor::new(raw);
    let (counters, group_numbers, times) = match code {
        type_code::STREAM => (3, 2, 8),
        type_code::STREAM_2 => (8, 3, 8),
        _ => (8, 3, 16),
    };
    for _ in 0..counters {
        cursor.len(READING)?;
    }
    let mut bytes = 0;
    for _ in 0..cursor.len(READING)? {
        cursor.text(READING)?;
        for _ in 0..group_numbers {
            cursor.len(READING)?;
        }
        let mut tree = Nodes::default();
        for _ in 0..cursor.len(READING)? {
            tree.add(id(&mut cursor)?);
            cursor.take(8, READING)?;
            cursor.len(READING)?;
        }
        bytes += GROUP + tree_bytes(&tree) + tree.ids() * PENDING;
        for _ in 0..cursor.len(READING)? {
            let name = cursor.string(READING)?;
            cursor.take(times, READING)?;
            let mut tree = Nodes::default();
            for _ in 0..cursor.len(READING)? {
                tree.add(id(&mut cursor)?);
            }
            bytes += CONSUMER + name.len() as u64 + tree_bytes(&tree);
        }
    }
    Ok(bytes)
}

fn id(cursor: &mut Cursor<'_>) -> Result<[u8; 16], Damage> {
    let raw = cursor.take(16, "stream id")?;
    Ok(raw.try_into().expect("16 bytes"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn blocks_are_those_of_the_allocator() {
        let rows = [
            (1, 8),
            (8, 8),
            (9, 16),
            (17, 32),
            (128, 128),
            (129, 160),
            (536, 640),
            (8200, 10_240),
        ];
        for (bytes, want) in rows {
            assert_eq!(block(bytes), want, "{bytes}");
        }
        assert!(block(u64::MAX) > 0 && sds(u64::MAX) > 0);
    }

    #[test]
    fn scores_have_as_many_characters_as_servers_print() {
        let rows = [
            (0.5, "0.5"),
            (0.7, "0.69999999999999996"),
            (-0.1, "-0.10000000000000001"),
            (0.0001, "0.0001"),
            (0.00001, "1.0000000000000001e-05"),
            (1e300, "1.0000000000000001e+300"),
            (1e17 + 16.0, "1.0000000000000002e+17"),
            (1234.5, "1234.5"),
            (f64::NEG_INFINITY, "-inf"),
        ];
        for (score, text) in rows {
            assert_eq!(score_chars(score), text.len() as u64, "{text}");
        }
    }

    #[test]
    fn numbers_have_as_many_characters_as_they_print() {
        for number in [0, 9, 10, -1, -10, 99_999, i64::MAX, i64::MIN] {
            assert_eq!(digits(number), number.to_string().len() as u64);
        }
    }
}
