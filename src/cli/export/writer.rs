//! Writes the parts of an export: items to the file, a line for each part to the journal, and at the end the manifest.
//!
//! The order of the steps makes each of them safe to end with. The journal names a part only after its bytes are on disk;
//! the manifest is there before the file has its final name; and the journal is removed last.

use std::io;
use std::path::Path;

use super::destination::Destination;
use super::format::{EncodeError, Encoder};
use super::journal::{Header, Journal, JournalEntries, PartRecord};
use super::manifest::Manifest;
use super::parameters::Parameters;
use super::partial_file::{Checkpoint, PartialFile};
use crate::cli::span::{Failure, Source};

/// An export that is not finished.
pub(super) struct ExportWriter {
    destination: Destination,
    file: PartialFile,
    encoder: Encoder,
    journal: Journal,
    entries: JournalEntries,
    /// The number of parts of which the journal knows more than is in the file.
    damaged_parts: usize,
    /// The begin of an item whose end has not come.
    line: Vec<u8>,
    /// The number of rows of the recorded parts, and of the part under way.
    recorded_rows: u64,
    rows: u64,
}

/// A file that this process alone may write, and what is in it already.
pub(super) struct LockedFile {
    file: PartialFile,
    /// The entries of the journal, if the export was begun before.
    pub(super) entries: Option<JournalEntries>,
}

/// The next step of an export.
pub(super) enum Start {
    /// Nothing: the file is there, from the same parameters.
    Done(Box<Manifest>),
    /// The export begins or goes on.
    Open(Box<LockedFile>),
}

/// Locks the file of an export, and finds out what there is of it.
///
/// # Errors
/// [`Failure::Usage`] if another export writes the file, or without `force` if a file of other parameters is there,
/// finished or not. [`Failure::Failed`] if a file cannot be opened or read.
pub(super) fn start(destination: &Destination, parameters: &Parameters, force: bool) -> Result<Start, Failure> {
    let path = destination.path.display();
    let failed = |error: io::Error| Failure::Failed(format!("{path}: {error}"));
    if let Some(directory) = destination.path.parent().filter(|parent| !parent.as_os_str().is_empty())
        && !directory.is_dir()
    {
        return Err(Failure::Usage(format!("-o: there is no directory {}", directory.display())));
    }
    let file = PartialFile::open(&destination.partial()).map_err(failed)?;
    let file = file.ok_or_else(|| Failure::Usage(format!("{path}: another export writes this file")))?;
    let is_empty = file.was_empty().map_err(failed)?;
    let begun = JournalEntries::read(&destination.journal()).map_err(failed)?;
    // A journal beside an empty file is what a finished export has left that was killed before its last step.
    let begun = begun.filter(|entries| entries.parts.is_empty() || !is_empty);
    match begun {
        Some(entries) if is_same(&entries.header, parameters) => {
            if destination.path.exists() && !entries.header.replaces && !force {
                return Err(exists(&destination.path));
            }
            return Ok(Start::Open(Box::new(LockedFile { file, entries: Some(entries) })));
        }
        Some(entries) if !force => return Err(other_parameters(&entries.header, parameters, &destination.partial())),
        _ => {}
    }
    if destination.path.exists() && !force {
        discard(destination).map_err(failed)?;
        return match finished(destination, parameters) {
            Some(manifest) => Ok(Start::Done(Box::new(manifest))),
            None => Err(exists(&destination.path)),
        };
    }
    Ok(Start::Open(Box::new(LockedFile { file, entries: None })))
}

/// Removes what a failed export has left, where that is of no use: no part is recorded, and there is no journal or
/// `is_refused_at_once`. Returns whether parts are recorded that an export of the same parameters goes on with.
pub(super) fn clean_up(destination: &Destination, parameters: &Parameters, is_refused_at_once: bool) -> bool {
    match JournalEntries::read(&destination.journal()) {
        Ok(Some(entries)) if !entries.parts.is_empty() => return is_same(&entries.header, parameters),
        Ok(Some(_)) if !is_refused_at_once => {}
        Ok(_) => {
            // What is left can be removed by hand.
            let _ = discard(destination);
        }
        Err(_) => {}
    }
    false
}

/// Removes what there is of an unfinished export.
///
/// # Errors
/// If a file cannot be removed.
fn discard(destination: &Destination) -> io::Result<()> {
    for path in [destination.journal(), destination.partial()] {
        match std::fs::remove_file(path) {
            Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(error),
            _ => {}
        }
    }
    Ok(())
}

fn is_same(header: &Header, parameters: &Parameters) -> bool {
    header.parameters == *parameters && header.koregate == env!("CARGO_PKG_VERSION")
}

/// The manifest of a file that was finished with the same parameters.
fn finished(destination: &Destination, parameters: &Parameters) -> Option<Manifest> {
    let bytes = std::fs::metadata(&destination.path).ok()?.len();
    let manifest = Manifest::read(&destination.manifest())?;
    (manifest.parameters == *parameters && manifest.bytes == bytes).then_some(manifest)
}

fn exists(path: &Path) -> Failure {
    Failure::Usage(format!("{}: the file exists, and is not of this export; --force replaces it", path.display()))
}

fn other_parameters(header: &Header, parameters: &Parameters, partial: &Path) -> Failure {
    let why = if header.parameters == *parameters {
        format!("by koregate {}", header.koregate)
    } else {
        "with other parameters".to_owned()
    };
    Failure::Usage(format!("{}: an export was begun {why}; --force begins again", partial.display()))
}

fn other_source(begun: &Source, now: &Source, partial: &Path) -> Failure {
    let text = |Source { account_id, field, upper_bound }: &Source| {
        format!("account {account_id}, window.field {field} and window.upper_bound {upper_bound}")
    };
    let (begun, now, partial) = (text(begun), text(now), partial.display());
    Failure::Usage(format!("{partial}: the export was begun with {begun}; the gateway has {now}; --force begins again"))
}

impl LockedFile {
    /// The same for items of `source`: without what is there of another source, if it may be replaced.
    ///
    /// # Errors
    /// [`Failure::Usage`] if it may not.
    pub(super) fn of_source(
        mut self,
        source: Option<&Source>,
        destination: &Destination,
        replaces: bool,
    ) -> Result<Self, Failure> {
        let begun = self.entries.as_ref().and_then(|entries| entries.header.source.as_ref());
        if let Some((before, now)) = begun.zip(source).filter(|(before, now)| before != now) {
            if !replaces {
                return Err(other_source(before, now, &destination.partial()));
            }
            self.entries = None;
        }
        Ok(self)
    }

    /// Takes up an export, or begins it: with items of `source` and an open span that is cut at `until`, and in place of
    /// an earlier file if it `replaces` one.
    ///
    /// # Errors
    /// [`Failure`] if a file cannot be written, or the columns are at fault.
    pub(super) fn open(
        self,
        destination: &Destination,
        parameters: &Parameters,
        (source, until): (Option<Source>, Option<String>),
        replaces: bool,
    ) -> Result<ExportWriter, Failure> {
        let failed = |error: io::Error| Failure::Failed(format!("{}: {error}", destination.path.display()));
        let mut encoder = Encoder::new(parameters).map_err(Failure::Usage)?;
        let (koregate, parameters) = (env!("CARGO_PKG_VERSION").to_owned(), parameters.clone());
        let new = Header { koregate, parameters, source, until, replaces };
        let mut entries = self.entries.unwrap_or(JournalEntries { header: new, parts: Vec::new() });
        let mut file = self.file;
        let checkpoints: Vec<Checkpoint> = entries.parts.iter().map(PartRecord::checkpoint).collect();
        let count = file.restore(&checkpoints).map_err(failed)?;
        let damaged_parts = entries.parts.len() - count;
        entries.parts.truncate(count);
        let row_groups: Vec<String> = entries.parts.iter().flat_map(|part| part.row_groups.clone()).collect();
        encoder.restore(&row_groups).map_err(failed)?;
        let journal = Journal::create(&destination.journal(), &entries).map_err(failed)?;
        let recorded_rows = entries.parts.iter().map(|part| part.rows).sum();
        let destination = destination.clone();
        Ok(ExportWriter {
            destination,
            file,
            encoder,
            journal,
            entries,
            damaged_parts,
            line: Vec::new(),
            recorded_rows,
            rows: 0,
        })
    }
}

impl PartRecord {
    fn checkpoint(&self) -> Checkpoint {
        Checkpoint { bytes: self.bytes, sha256: self.sha256.clone() }
    }
}

impl ExportWriter {
    /// The number of parts that are in the file.
    pub(super) fn parts(&self) -> usize {
        self.entries.parts.len()
    }

    /// The number of parts that the journal names and the file does not have as they were written.
    pub(super) fn damaged_parts(&self) -> usize {
        self.damaged_parts
    }

    /// The number of rows of these parts.
    pub(super) fn recorded_rows(&self) -> u64 {
        self.recorded_rows
    }

    /// Discards what was written of the part under way.
    ///
    /// # Errors
    /// [`Failure`] if the file cannot be cut.
    pub(super) fn discard_part(&mut self) -> Result<(), Failure> {
        self.encoder.discard_part();
        self.line.clear();
        self.rows = 0;
        self.file.discard_part().map_err(|error| self.failed(&error))
    }

    /// Writes the next bytes of the items of the part, each of which is a line.
    ///
    /// # Errors
    /// [`Failure`] if the file cannot be written, or an item does not fit into the columns.
    pub(super) fn push(&mut self, mut bytes: &[u8]) -> Result<(), Failure> {
        while let Some(end) = bytes.iter().position(|byte| *byte == b'\n') {
            if self.line.is_empty() {
                self.push_item(&bytes[..end])?;
            } else {
                let mut line = std::mem::take(&mut self.line);
                line.extend_from_slice(&bytes[..end]);
                self.push_item(&line)?;
            }
            bytes = &bytes[end + 1..];
        }
        self.line.extend_from_slice(bytes);
        Ok(())
    }

    fn push_item(&mut self, item: &[u8]) -> Result<(), Failure> {
        let rows = self.recorded_rows + self.rows;
        match self.encoder.push(item, rows, &mut self.file) {
            Ok(()) => {
                self.rows += 1;
                Ok(())
            }
            Err(EncodeError::Io(error)) => Err(self.failed(&error)),
            Err(error) => Err(Failure::Usage(format!("row {}: {error}", rows + 1))),
        }
    }

    /// Ends the part of `day`, and records it. Returns its number of rows.
    ///
    /// # Errors
    /// [`Failure`] if a file cannot be written, or the last item is not whole.
    pub(super) fn end_part(&mut self, day: &str) -> Result<u64, Failure> {
        if !self.line.is_empty() {
            return Err(Failure::failed("the answer ends within an item"));
        }
        let record = self.record_part(day).map_err(|error| self.failed(&error))?;
        self.entries.parts.push(record);
        let rows = std::mem::take(&mut self.rows);
        self.recorded_rows += rows;
        Ok(rows)
    }

    fn record_part(&mut self, day: &str) -> io::Result<PartRecord> {
        let row_groups = self.encoder.end_part(&mut self.file)?;
        let Checkpoint { bytes, sha256 } = self.file.sync()?;
        let record = PartRecord { day: day.to_owned(), rows: self.rows, bytes, sha256, row_groups };
        self.journal.append(&record)?;
        Ok(record)
    }

    /// Writes the end of the file and the manifest, and gives the file its name.
    ///
    /// # Errors
    /// [`Failure`] if a file cannot be written.
    pub(super) fn finish(mut self) -> Result<Manifest, Failure> {
        self.try_finish().map_err(|error| self.failed(&error))
    }

    fn try_finish(&mut self) -> io::Result<Manifest> {
        self.encoder.finish(self.recorded_rows, &mut self.file)?;
        let checkpoint = self.file.sync()?;
        let manifest = Manifest::new(&self.entries.header, &self.entries.parts, checkpoint);
        manifest.write(&self.destination.manifest())?;
        self.file.rename(&self.destination.path)?;
        self.journal.remove()?;
        Ok(manifest)
    }

    fn failed(&self, error: &io::Error) -> Failure {
        Failure::Failed(format!("{}: {error}", self.destination.path.display()))
    }
}
