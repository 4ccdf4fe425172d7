//! One compressed blob: a zstd or LZ4 frame that says how long its contents are.
//!
//! The reader expands blobs, the writer packs them.
//!
//! Invariants
//! - Nothing is expanded beyond the limit, nor beyond what the frame says it holds.
//! - A blob is one whole frame: its end mark is there, and nothing follows.

use crate::error::Problem;
use crate::input::Cursor;
use crate::rdb::opcode;
use std::io::{Read, Write};
use zstd::zstd_safe::{self, DCtx, DParameter};

/// Bytes that a blob may expand to unless told otherwise. Dragonfly compresses a flush of its buffer only up to
/// 1 MiB, so this is sixteen times what it can write.
pub const PLAIN_BYTES_MAX: usize = 16 << 20;

/// How a blob is compressed. Dragonfly's loader takes one codec a file: the first that it meets.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Codec {
    Zstd,
    Lz4,
}

impl Codec {
    /// None: the opcode is no blob's.
    pub fn of_opcode(code: u8) -> Option<Self> {
        match code {
            opcode::ZSTD_BLOB => Some(Codec::Zstd),
            opcode::LZ4_BLOB => Some(Codec::Lz4),
            _ => None,
        }
    }

    pub fn opcode(self) -> u8 {
        match self {
            Codec::Zstd => opcode::ZSTD_BLOB,
            Codec::Lz4 => opcode::LZ4_BLOB,
        }
    }

    /// What a frame starts with.
    pub(crate) fn magic(self) -> [u8; 4] {
        match self {
            Codec::Zstd => [0x28, 0xB5, 0x2F, 0xFD],
            Codec::Lz4 => [0x04, 0x22, 0x4D, 0x18],
        }
    }
}

impl std::fmt::Display for Codec {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(match self {
            Codec::Zstd => "zstd",
            Codec::Lz4 => "lz4",
        })
    }
}

/// Why a blob cannot be expanded.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum BlobError {
    #[error("no frame: wanted its magic {}, found {}", hex(wanted), hex(found))]
    Magic { wanted: [u8; 4], found: Vec<u8> },
    #[error("the frame does not say how long its contents are")]
    NoSize,
    #[error("the frame says it holds {found} bytes: wanted at most {max}")]
    TooLarge { found: u64, max: usize },
    #[error("the frame says it holds {said} bytes, but {found} came out of it")]
    Size { said: u64, found: u64 },
    #[error("the frame needs a dictionary")]
    Dictionary,
    #[error("the frame ends {missing} bytes too early")]
    Cut { missing: u64 },
    #[error("{bytes} bytes follow the frame")]
    Trailing { bytes: usize },
    #[error("the frame is damaged: {0}")]
    Codec(String),
}

fn hex(bytes: &[u8]) -> String {
    bytes.iter().map(|byte| format!("{byte:02x}")).collect()
}

/// Expands blobs one after another.
#[derive(Default)]
pub struct Expander {
    /// Kept between blobs: making one takes longer than expanding a small blob.
    zstd: Option<DCtx<'static>>,
}

impl Expander {
    /// The contents of `packed`, which may be at most `bytes_max`.
    ///
    /// ```
    /// use dfsnap_formats::dfs::blob::{Codec, Expander, Packer};
    /// let plain = b"the same again, ".repeat(100);
    /// let mut packer = Packer::new(Codec::Lz4, 1);
    /// let packed = packer.pack(&plain).unwrap();
    /// let mut expander = Expander::default();
    /// assert_eq!(expander.expand(Codec::Lz4, &packed, 1 << 20).unwrap(), plain);
    /// assert!(expander.expand(Codec::Lz4, &packed, 1599).is_err());
    /// ```
    pub fn expand(
        &mut self,
        codec: Codec,
        packed: &[u8],
        bytes_max: usize,
    ) -> Result<Vec<u8>, BlobError> {
        if !packed.starts_with(&codec.magic()) {
            return Err(BlobError::Magic {
                wanted: codec.magic(),
                found: packed[..packed.len().min(4)].to_vec(),
            });
        }
        let within = |said: u64| match said > bytes_max as u64 {
            true => Err(BlobError::TooLarge {
                found: said,
                max: bytes_max,
            }),
            false => Ok(said),
        };
        let (said, plain) = match codec {
            Codec::Zstd => {
                let said = within(zstd_size(packed)?)?;
                (said, self.expand_zstd(packed, said, bytes_max)?)
            }
            Codec::Lz4 => {
                let frame = Lz4Frame::walk(packed)?;
                (within(frame.size)?, expand_lz4(packed, &frame)?)
            }
        };
        match plain.len() as u64 {
            found if found == said => Ok(plain),
            found => Err(BlobError::Size { said, found }),
        }
    }

    fn expand_zstd(
        &mut self,
        packed: &[u8],
        said: u64,
        bytes_max: usize,
    ) -> Result<Vec<u8>, BlobError> {
        let mut context = match self.zstd.take() {
            Some(context) => context,
            None => DCtx::create(),
        };
        // A window is never larger than the contents, but a frame may ask for more, and would get it.
        let window = bytes_max.next_power_of_two().ilog2().clamp(10, 27);
        context
            .set_parameter(DParameter::WindowLogMax(window))
            .map_err(|code| BlobError::Codec(zstd_safe::get_error_name(code).to_owned()))?;
        let mut out = Vec::new();
        let mut decoder = zstd::stream::read::Decoder::with_context(packed, &mut context);
        decoder = decoder.single_frame();
        let rest = match decoder.by_ref().take(said + 1).read_to_end(&mut out) {
            Ok(_) => decoder.finish().len(),
            Err(error) => return Err(BlobError::Codec(error.to_string())),
        };
        // Only a context that saw the end of a frame is fit for the next.
        if out.len() as u64 == said {
            if rest > 0 {
                return Err(BlobError::Trailing { bytes: rest });
            }
            self.zstd = Some(context);
        }
        Ok(out)
    }
}

impl std::fmt::Debug for Expander {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("Expander")
    }
}

fn zstd_size(packed: &[u8]) -> Result<u64, BlobError> {
    match zstd_safe::get_frame_content_size(packed) {
        Ok(Some(size)) => Ok(size),
        Ok(None) => Err(BlobError::NoSize),
        Err(error) => Err(BlobError::Codec(error.to_string())),
    }
}

fn expand_lz4(packed: &[u8], frame: &Lz4Frame) -> Result<Vec<u8>, BlobError> {
    let codec = |error: &dyn std::fmt::Display| BlobError::Codec(error.to_string());
    if frame.is_plain {
        return expand_blocks(packed, frame).map_err(|error| codec(&error));
    }
    let mut out = Vec::new();
    lz4_flex::frame::FrameDecoder::new(packed)
        .take(frame.size + 1)
        .read_to_end(&mut out)
        .map_err(|error| codec(&error))?;
    Ok(out)
}

/// Expands blocks that need nothing but themselves, straight into their place.
fn expand_blocks(packed: &[u8], frame: &Lz4Frame) -> Result<Vec<u8>, String> {
    let checked = &packed[4..LZ4_HEADER_BYTES - 1];
    let (found, wanted) = (
        packed[LZ4_HEADER_BYTES - 1],
        (twox_hash::XxHash32::oneshot(0, checked) >> 8) as u8,
    );
    if found != wanted {
        return Err(format!(
            "header check {found:02x}: the header gives {wanted:02x}"
        ));
    }
    // Inflates no more than LZ4 can: a size that lies takes no memory.
    let possible = packed.len().saturating_mul(LZ4_FACTOR_MAX);
    let mut out = vec![0; possible.min(usize::try_from(frame.size).unwrap_or(possible))];
    let (mut rest, mut at) = (&packed[LZ4_HEADER_BYTES..], 0);
    while let Some((head, tail)) = rest.split_first_chunk::<4>() {
        let head = u32::from_le_bytes(*head);
        let (block, tail) = tail
            .split_at_checked((head & !PLAIN_BLOCK) as usize)
            .ok_or("a block is cut")?;
        if block.is_empty() {
            break;
        }
        let end = out.len().min(at + frame.block_bytes_max);
        let room = &mut out[at..end];
        at += match head & PLAIN_BLOCK != 0 {
            false => lz4_flex::block::decompress_into(block, room).map_err(|e| e.to_string())?,
            true => {
                let room = room.get_mut(..block.len());
                room.ok_or("a block is longer than the contents")?
                    .copy_from_slice(block);
                block.len()
            }
        };
        rest = tail;
    }
    out.truncate(at);
    Ok(out)
}

/// Magic, flags, block size, content size, header check.
const LZ4_HEADER_BYTES: usize = 4 + 1 + 1 + 8 + 1;
/// A byte of an LZ4 block stands for at most so many.
const LZ4_FACTOR_MAX: usize = 255;
/// In the length of a block: it is not compressed.
const PLAIN_BLOCK: u32 = 1 << 31;

/// What a walk over the blocks of an LZ4 frame tells.
struct Lz4Frame {
    /// Of the contents.
    size: u64,
    /// No block needs another, and there are no checksums but the header's.
    is_plain: bool,
    block_bytes_max: usize,
}

impl Lz4Frame {
    /// Walks to the end of the frame.
    ///
    /// ```text
    /// frame = magic | flags u8 | block size u8 | content size u64 LE | header check u8 | block* | 0 u32 | [check u32]
    /// block = length u32 LE, top bit: not compressed | bytes | [check u32]
    /// ```
    fn walk(packed: &[u8]) -> Result<Lz4Frame, BlobError> {
        const VERSION: u8 = 0b01 << 6;
        const INDEPENDENT: u8 = 1 << 5;
        const BLOCK_CHECK: u8 = 1 << 4;
        const CONTENT_SIZE: u8 = 1 << 3;
        const CONTENT_CHECK: u8 = 1 << 2;
        const DICTIONARY: u8 = 1;
        let mut cursor = Cursor::new(packed);
        let mut walk = || -> Result<Result<Lz4Frame, BlobError>, crate::error::Damage> {
            cursor.take(4, "magic")?;
            let flags = cursor.u8("flags")?;
            let block_size = cursor.u8("block size")?;
            if flags & CONTENT_SIZE == 0 {
                return Ok(Err(BlobError::NoSize));
            }
            let size = cursor.i64_le("content size")? as u64;
            if flags & DICTIONARY != 0 {
                return Ok(Err(BlobError::Dictionary));
            }
            cursor.u8("header check")?;
            let mut blocks = 0u64;
            loop {
                let len = cursor.u32_le("block")? & !PLAIN_BLOCK;
                if len == 0 {
                    break;
                }
                let check = if flags & BLOCK_CHECK != 0 { 4 } else { 0 };
                cursor.take(u64::from(len) + check, "block")?;
                blocks += 1;
            }
            if flags & CONTENT_CHECK != 0 {
                cursor.u32_le("content check")?;
            }
            let (is_alone, is_unchecked) = (
                flags & INDEPENDENT != 0 || blocks == 1,
                flags & !INDEPENDENT == VERSION | CONTENT_SIZE,
            );
            let frame = Lz4Frame {
                size,
                // Block sizes 4 to 7 there are; anything else is for the library to refuse.
                is_plain: is_alone && is_unchecked && (0x40..=0x70).contains(&block_size),
                block_bytes_max: 1 << (8 + 2 * (usize::from(block_size >> 4) & 7)),
            };
            Ok(match (size, cursor.left()) {
                (0, _) => Err(BlobError::NoSize),
                (_, 0) => Ok(frame),
                (_, bytes) => Err(BlobError::Trailing { bytes }),
            })
        };
        match walk() {
            Ok(frame) => frame,
            Err(damage) => match damage.problem {
                Problem::Truncated { wanted, left } => Err(BlobError::Cut {
                    missing: wanted - left,
                }),
                problem => Err(BlobError::Codec(problem.to_string())),
            },
        }
    }
}

/// Packs blobs one after another.
pub struct Packer {
    codec: Codec,
    zstd: Option<zstd::bulk::Compressor<'static>>,
}

impl Packer {
    /// `level` is that of zstd; LZ4 has one only.
    pub fn new(codec: Codec, level: i32) -> Self {
        let zstd = match codec {
            Codec::Zstd => zstd::bulk::Compressor::new(level).ok(),
            Codec::Lz4 => None,
        };
        Packer { codec, zstd }
    }

    pub fn codec(&self) -> Codec {
        self.codec
    }

    /// One frame with its content size. None: the codec refuses, as it does without memory; the bytes can be stored
    /// as they are.
    pub fn pack(&mut self, plain: &[u8]) -> Option<Vec<u8>> {
        use lz4_flex::frame::{BlockMode, BlockSize, FrameEncoder, FrameInfo};
        match self.codec {
            Codec::Zstd => self.zstd.as_mut()?.compress(plain).ok(),
            Codec::Lz4 => {
                let info = FrameInfo::new()
                    .content_size(Some(plain.len() as u64))
                    .block_mode(BlockMode::Independent)
                    .block_size(BlockSize::Auto);
                let mut encoder = FrameEncoder::with_frame_info(info, Vec::new());
                encoder.write_all(plain).ok()?;
                encoder.finish().ok()
            }
        }
    }
}

impl std::fmt::Debug for Packer {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "Packer({})", self.codec)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn plain() -> Vec<u8> {
        let numbers = (0..60_000u32).map(|i| i.wrapping_mul(i) >> 9);
        numbers.flat_map(|n| format!("{n},").into_bytes()).collect()
    }

    #[test]
    fn what_was_packed_comes_back_and_a_cut_or_longer_frame_does_not() {
        let plain = plain();
        let mut expander = Expander::default();
        for codec in [Codec::Zstd, Codec::Lz4] {
            let packed = Packer::new(codec, 2).pack(&plain).unwrap();
            assert!(packed.len() < plain.len(), "{codec}");
            let max = PLAIN_BYTES_MAX;
            assert_eq!(
                expander.expand(codec, &packed, max).as_ref(),
                Ok(&plain),
                "{codec}"
            );
            for cut in (0..packed.len())
                .step_by(977)
                .chain([packed.len() - 1, packed.len() - 4])
            {
                assert!(
                    expander.expand(codec, &packed[..cut], max).is_err(),
                    "{codec} cut at {cut}"
                );
            }
            let longer = [&packed[..], b"x"].concat();
            assert_eq!(
                expander.expand(codec, &longer, max),
                Err(BlobError::Trailing { bytes: 1 }),
                "{codec}"
            );
            let twice = [&packed[..], &packed[..]].concat();
            assert!(expander.expand(codec, &twice, max).is_err(), "{codec}");
            let small = plain.len() - 1;
            assert!(
                matches!(
                    expander.expand(codec, &packed, small),
                    Err(BlobError::TooLarge { .. })
                ),
                "{codec}"
            );
            assert_eq!(
                expander.expand(codec, &packed, max).as_ref(),
                Ok(&plain),
                "{codec}"
            );
        }
    }

    #[test]
    fn every_kind_of_lz4_frame_comes_back_and_a_wrong_header_does_not() {
        use lz4_flex::frame::{BlockMode, BlockSize, FrameEncoder, FrameInfo};
        let plain = plain();
        let noise: Vec<u8> = (0..70_000u64)
            .map(|i| (i.wrapping_mul(0x9e37_79b9_7f4a_7c15) >> 53) as u8)
            .collect();
        for contents in [&plain[..100], &plain, &noise] {
            for mode in [BlockMode::Independent, BlockMode::Linked] {
                for size in [BlockSize::Max64KB, BlockSize::Max256KB, BlockSize::Max4MB] {
                    for checks in [false, true] {
                        let info = FrameInfo::new()
                            .content_size(Some(contents.len() as u64))
                            .block_mode(mode)
                            .block_size(size)
                            .block_checksums(checks)
                            .content_checksum(checks);
                        let mut encoder = FrameEncoder::with_frame_info(info, Vec::new());
                        encoder.write_all(contents).unwrap();
                        let mut packed = encoder.finish().unwrap();
                        let mut expander = Expander::default();
                        let result = expander.expand(Codec::Lz4, &packed, PLAIN_BYTES_MAX);
                        assert_eq!(result.as_deref(), Ok(contents));
                        packed[LZ4_HEADER_BYTES - 1] ^= 1;
                        let result = expander.expand(Codec::Lz4, &packed, PLAIN_BYTES_MAX);
                        assert!(matches!(result, Err(BlobError::Codec(_))), "{result:?}");
                    }
                }
            }
        }
    }

    #[test]
    fn a_frame_without_its_size_is_refused() {
        let plain = plain();
        let mut expander = Expander::default();
        let mut encoder = lz4_flex::frame::FrameEncoder::new(Vec::new());
        encoder.write_all(&plain).unwrap();
        let lz4 = encoder.finish().unwrap();
        let mut encoder = zstd::stream::write::Encoder::new(Vec::new(), 1).unwrap();
        encoder.write_all(&plain).unwrap();
        let zstd = encoder.finish().unwrap();
        for (codec, packed) in [(Codec::Lz4, lz4), (Codec::Zstd, zstd)] {
            let result = expander.expand(codec, &packed, PLAIN_BYTES_MAX);
            assert_eq!(result, Err(BlobError::NoSize), "{codec}");
        }
        let error = expander.expand(Codec::Zstd, b"junk", 100).unwrap_err();
        assert_eq!(
            error.to_string(),
            "no frame: wanted its magic 28b52ffd, found 6a756e6b"
        );
    }

    #[test]
    fn damage_never_panics_and_never_gives_more_than_was_said() {
        let plain = &plain()[..500];
        let mut expander = Expander::default();
        for codec in [Codec::Zstd, Codec::Lz4] {
            let packed = Packer::new(codec, 2).pack(plain).unwrap();
            for at in 0..packed.len() {
                for bit in [1, 0x80, 0xFF] {
                    let mut damaged = packed.clone();
                    damaged[at] ^= bit;
                    if let Ok(out) = expander.expand(codec, &damaged, PLAIN_BYTES_MAX) {
                        assert_eq!(out.len(), plain.len(), "{codec} at {at}");
                    }
                }
            }
        }
    }
}
