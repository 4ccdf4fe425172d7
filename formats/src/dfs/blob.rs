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
        let said = match codec {
            Codec::Zstd => zstd_size(packed)?,
            Codec::Lz4 => lz4_size(packed)?,
        };
        if said > bytes_max as u64 {
            let max = bytes_max;
            return Err(BlobError::TooLarge { found: said, max });
        }
        let plain = match codec {
            Codec::Zstd => self.expand_zstd(packed, said, bytes_max)?,
            Codec::Lz4 => expand_lz4(packed, said)?,
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

fn expand_lz4(packed: &[u8], said: u64) -> Result<Vec<u8>, BlobError> {
    let mut out = Vec::new();
    lz4_flex::frame::FrameDecoder::new(packed)
        .take(said + 1)
        .read_to_end(&mut out)
        .map_err(|error| BlobError::Codec(error.to_string()))?;
    Ok(out)
}

/// The content size of an LZ4 frame, after a walk over its blocks to its end.
///
/// ```text
/// frame = magic | flags u8 | block size u8 | content size u64 LE | header check u8 | block* | 0 u32 | [check u32]
/// block = length u32 LE, top bit: not compressed | bytes | [check u32]
/// ```
fn lz4_size(packed: &[u8]) -> Result<u64, BlobError> {
    const DICTIONARY: u8 = 1;
    const CONTENT_CHECK: u8 = 1 << 2;
    const CONTENT_SIZE: u8 = 1 << 3;
    const BLOCK_CHECK: u8 = 1 << 4;
    const PLAIN_BLOCK: u32 = 1 << 31;
    let mut cursor = Cursor::new(packed);
    let mut walk = || -> Result<Result<u64, BlobError>, crate::error::Damage> {
        cursor.take(4, "magic")?;
        let flags = cursor.u8("flags")?;
        cursor.u8("block size")?;
        if flags & CONTENT_SIZE == 0 {
            return Ok(Err(BlobError::NoSize));
        }
        let size = cursor.i64_le("content size")? as u64;
        if flags & DICTIONARY != 0 {
            return Ok(Err(BlobError::Dictionary));
        }
        cursor.u8("header check")?;
        loop {
            let len = cursor.u32_le("block")? & !PLAIN_BLOCK;
            if len == 0 {
                break;
            }
            let check = if flags & BLOCK_CHECK != 0 { 4 } else { 0 };
            cursor.take(u64::from(len) + check, "block")?;
        }
        if flags & CONTENT_CHECK != 0 {
            cursor.u32_le("content check")?;
        }
        Ok(match (size, cursor.left()) {
            (0, _) => Err(BlobError::NoSize),
            (size, 0) => Ok(size),
            (_, bytes) => Err(BlobError::Trailing { bytes }),
        })
    };
    match walk() {
        Ok(size) => size,
        Err(damage) => match damage.problem {
            Problem::Truncated { wanted, left } => Err(BlobError::Cut {
                missing: wanted - left,
            }),
            problem => Err(BlobError::Codec(problem.to_string())),
        },
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
