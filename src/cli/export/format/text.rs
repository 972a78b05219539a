//! NDJSON, JSON and CSV.

use std::io;
use std::str;

use super::compressor::Compressor;
use super::error::EncodeError;
use crate::cli::export::columns::{Cell, Columns};
use crate::cli::export::destination::{Compression, FileFormat};
use crate::cli::export::partial_file::PartialFile;

/// Writes items as text.
pub(in crate::cli::export) struct TextEncoder {
    kind: TextKind,
    compression: Compression,
    /// The member or frame under way; `None` until a part has bytes.
    compressor: Option<Compressor>,
}

enum TextKind {
    Ndjson,
    Json,
    Csv(Columns),
}

impl TextEncoder {
    pub(super) fn new(format: FileFormat, compression: Compression, columns: Option<Columns>) -> Self {
        let kind = match (format, columns) {
            (FileFormat::Json, _) => TextKind::Json,
            (FileFormat::Csv, Some(columns)) => TextKind::Csv(columns.into_text()),
            _ => TextKind::Ndjson,
        };
        Self { kind, compression, compressor: None }
    }

    pub(super) fn push(&mut self, item: &[u8], rows: u64, file: &mut PartialFile) -> Result<(), EncodeError> {
        self.begin_file(file)?;
        match &self.kind {
            TextKind::Ndjson => {
                self.write(item, file)?;
                self.write(b"\n", file)?;
            }
            TextKind::Json => {
                self.write(if rows == 0 { b"\n" } else { b",\n" }, file)?;
                self.write(item, file)?;
            }
            TextKind::Csv(columns) => {
                let item = str::from_utf8(item).map_err(|_| EncodeError::NotUtf8)?;
                let line = csv_line(columns.cells(item)?.iter());
                self.write(line.as_bytes(), file)?;
            }
        }
        Ok(())
    }

    pub(super) fn end_part(&mut self, file: &mut PartialFile) -> io::Result<()> {
        self.begin_file(file)?;
        self.compressor.take().map_or(Ok(()), |compressor| compressor.finish(file))
    }

    pub(super) fn discard_part(&mut self) {
        self.compressor = None;
    }

    pub(super) fn finish(&mut self, rows: u64, file: &mut PartialFile) -> io::Result<()> {
        self.begin_file(file)?;
        if matches!(self.kind, TextKind::Json) {
            self.write(format!("\n],\"numResults\":{rows},\"hasMore\":false}}\n").as_bytes(), file)?;
        }
        if file.bytes() == 0 {
            // A compressed file of nothing is not empty.
            self.write(b"", file)?;
        }
        self.compressor.take().map_or(Ok(()), |compressor| compressor.finish(file))
    }

    /// Writes what stands before the first item, unless it is there.
    fn begin_file(&mut self, file: &mut PartialFile) -> io::Result<()> {
        if file.bytes() > 0 || self.compressor.is_some() {
            return Ok(());
        }
        match &self.kind {
            TextKind::Ndjson => Ok(()),
            TextKind::Json => self.write(b"{\"data\":[", file),
            TextKind::Csv(columns) => {
                let names = columns.list().iter().map(|column| Cell::Text(column.name.as_str().into()));
                let line = csv_line(names.collect::<Vec<_>>().iter());
                self.write(line.as_bytes(), file)
            }
        }
    }

    fn write(&mut self, bytes: &[u8], file: &mut PartialFile) -> io::Result<()> {
        let compressor = match self.compressor.take() {
            Some(compressor) => compressor,
            None => Compressor::new(self.compression)?,
        };
        self.compressor.insert(compressor).write(bytes, file)
    }
}

/// A line of CSV (RFC 4180). A cell without a value is empty, an empty text is `""`.
fn csv_line<'a>(cells: impl Iterator<Item = &'a Cell<'a>>) -> String {
    let mut line = String::new();
    for (index, cell) in cells.enumerate() {
        if index > 0 {
            line.push(',');
        }
        // Columns of CSV are text.
        let Cell::Text(text) = cell else { continue };
        if text.is_empty() || text.contains([',', '"', '\r', '\n']) {
            line.extend(["\"", &text.replace('"', "\"\""), "\""]);
        } else {
            line.push_str(text);
        }
    }
    line + "\r\n"
}
