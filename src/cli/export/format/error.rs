//! Why an item is not written.

use std::io;

use crate::cli::export::columns::CellError;

/// Reason why an item is not written.
#[derive(Debug, thiserror::Error)]
pub(in crate::cli::export) enum EncodeError {
    /// The file cannot be written.
    #[error(transparent)]
    Io(#[from] io::Error),
    /// The columns do not fit.
    #[error(transparent)]
    Cell(#[from] CellError),
    /// The item is not UTF-8.
    #[error("an item is not UTF-8")]
    NotUtf8,
}
