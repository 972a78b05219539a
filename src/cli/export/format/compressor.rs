//! Compression of one part: a gzip member or a zstd frame of its own. Members and frames that follow each other are one
//! file, so the file can end with any part.

use std::io::{self, Write};

use flate2::write::GzEncoder;
use zstd::stream::write::Encoder as ZstdEncoder;

use crate::cli::export::destination::Compression;

const GZIP_LEVEL: flate2::Compression = flate2::Compression::new(6);
const ZSTD_LEVEL: i32 = 3;

/// The compression of the part under way. Compressed bytes are collected, and handed on as they come.
pub(super) enum Compressor {
    None,
    Gzip(GzEncoder<Vec<u8>>),
    Zstd(ZstdEncoder<'static, Vec<u8>>),
}

impl Compressor {
    /// Begins a member or a frame.
    ///
    /// # Errors
    /// If there is no memory for it.
    pub(super) fn new(compression: Compression) -> io::Result<Self> {
        Ok(match compression {
            Compression::None => Self::None,
            Compression::Gzip => Self::Gzip(GzEncoder::new(Vec::new(), GZIP_LEVEL)),
            Compression::Zstd => {
                let mut encoder = ZstdEncoder::new(Vec::new(), ZSTD_LEVEL)?;
                encoder.include_checksum(true)?;
                Self::Zstd(encoder)
            }
        })
    }

    /// Compresses `bytes` into `out`.
    ///
    /// # Errors
    /// If `out` cannot be written.
    pub(super) fn write(&mut self, bytes: &[u8], out: &mut impl Write) -> io::Result<()> {
        let compressed = match self {
            Self::None => return out.write_all(bytes),
            Self::Gzip(encoder) => {
                encoder.write_all(bytes)?;
                encoder.get_mut()
            }
            Self::Zstd(encoder) => {
                encoder.write_all(bytes)?;
                encoder.get_mut()
            }
        };
        out.write_all(compressed)?;
        compressed.clear();
        Ok(())
    }

    /// Ends the member or the frame.
    ///
    /// # Errors
    /// If `out` cannot be written.
    pub(super) fn finish(self, out: &mut impl Write) -> io::Result<()> {
        match self {
            Self::None => Ok(()),
            Self::Gzip(encoder) => out.write_all(&encoder.finish()?),
            Self::Zstd(encoder) => out.write_all(&encoder.finish()?),
        }
    }
}
