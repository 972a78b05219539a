//! The formats: each writes the items of a part so that the file can end with any part.
//!
//! | file | |
//! | --- | --- |
//! | `compressor` | a gzip member or a zstd frame for each part |
//! | `error` | why an item is not written |
//! | `text` | NDJSON, JSON and CSV |
//! | `parquet` | row groups of Parquet, and the footer |

mod compressor;
mod error;
#[cfg(feature = "parquet")]
mod parquet;
mod text;

use std::io;

pub(super) use self::error::EncodeError;
use self::text::TextEncoder;
use super::columns::Columns;
use super::destination::FileFormat;
use super::parameters::Parameters;
use super::partial_file::PartialFile;

/// Writes items in the format of an export.
pub(super) enum Encoder {
    Text(Box<TextEncoder>),
    #[cfg(feature = "parquet")]
    Parquet(Box<parquet::ParquetEncoder>),
}

impl Encoder {
    /// The encoder of an export.
    ///
    /// # Errors
    /// A sentence, if the columns are at fault, or the format is not built in.
    pub(super) fn new(parameters: &Parameters) -> Result<Self, String> {
        let columns = parameters.columns.clone().map(Columns::new).transpose()?;
        match (parameters.format, columns) {
            (FileFormat::Parquet, Some(columns)) => parquet_encoder(columns),
            (FileFormat::Parquet, None) => Err("no column is named".to_owned()),
            (format, columns) => Ok(Self::Text(Box::new(TextEncoder::new(format, parameters.compression, columns)))),
        }
    }

    /// Takes up the row groups of the parts that are in the file.
    ///
    /// # Errors
    /// If one of them is damaged.
    #[cfg_attr(not(feature = "parquet"), expect(unused_variables, reason = "only Parquet has row groups"))]
    pub(super) fn restore(&mut self, row_groups: &[String]) -> io::Result<()> {
        match self {
            Self::Text(_) => Ok(()),
            #[cfg(feature = "parquet")]
            Self::Parquet(encoder) => encoder.restore(row_groups),
        }
    }

    /// Writes an item, before which there are `rows` in the file.
    ///
    /// # Errors
    /// [`EncodeError`], if the file cannot be written, or the item does not fit into the columns.
    pub(super) fn push(&mut self, item: &[u8], rows: u64, file: &mut PartialFile) -> Result<(), EncodeError> {
        match self {
            Self::Text(encoder) => encoder.push(item, rows, file),
            #[cfg(feature = "parquet")]
            Self::Parquet(encoder) => encoder.push(item, file),
        }
    }

    /// Writes what is left of a part. Returns the metadata of its row groups.
    ///
    /// # Errors
    /// If the file cannot be written.
    pub(super) fn end_part(&mut self, file: &mut PartialFile) -> io::Result<Vec<String>> {
        match self {
            Self::Text(encoder) => encoder.end_part(file).map(|()| Vec::new()),
            #[cfg(feature = "parquet")]
            Self::Parquet(encoder) => encoder.end_part(file),
        }
    }

    /// Forgets the part that is under way.
    pub(super) fn discard_part(&mut self) {
        match self {
            Self::Text(encoder) => encoder.discard_part(),
            #[cfg(feature = "parquet")]
            Self::Parquet(encoder) => encoder.discard_part(),
        }
    }

    /// Writes the end of the file, which has `rows`.
    ///
    /// # Errors
    /// If the file cannot be written.
    pub(super) fn finish(&mut self, rows: u64, file: &mut PartialFile) -> io::Result<()> {
        match self {
            Self::Text(encoder) => encoder.finish(rows, file),
            #[cfg(feature = "parquet")]
            Self::Parquet(encoder) => encoder.finish(rows, file),
        }
    }
}

#[cfg(feature = "parquet")]
fn parquet_encoder(columns: Columns) -> Result<Encoder, String> {
    let encoder = parquet::ParquetEncoder::new(columns).map_err(|error| error.to_string())?;
    Ok(Encoder::Parquet(Box::new(encoder)))
}

#[cfg(not(feature = "parquet"))]
fn parquet_encoder(_columns: Columns) -> Result<Encoder, String> {
    Err("this koregate was built without the feature parquet".to_owned())
}
