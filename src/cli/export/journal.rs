//! The journal of an unfinished export: its parameters, and a line for each part that is in the file. A line is written
//! after the bytes that it describes are on disk, and counts if it is whole.

use std::fs::{File, OpenOptions};
use std::io::{self, Write as _};
use std::path::{Path, PathBuf};

use serde::de::DeserializeOwned;
use serde::{Deserialize, Serialize};

use super::parameters::Parameters;
use super::partial_file::sync_directory;
use crate::cli::span::Source;

/// The first line.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct Header {
    /// The version of koregate, since another one may write other bytes.
    pub(super) koregate: String,
    pub(super) parameters: Parameters,
    /// The source of the items; `None` if the gateway did not say it.
    #[serde(default)]
    pub(super) source: Option<Source>,
    /// The end of an open span, as it was when the export began; `None` if the span is not cut.
    pub(super) until: Option<String>,
    /// Whether the file may replace one that was there before.
    pub(super) replaces: bool,
}

/// The line of a part.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct PartRecord {
    pub(super) day: String,
    pub(super) rows: u64,
    /// Length of the file with this part, in bytes.
    pub(super) bytes: u64,
    /// SHA-256 of the file with this part.
    pub(super) sha256: String,
    /// The metadata of Parquet's row groups of this part, in hexadecimal digits.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub(super) row_groups: Vec<String>,
}

/// The content of a journal.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct JournalEntries {
    pub(super) header: Header,
    pub(super) parts: Vec<PartRecord>,
}

/// The journal, to which lines are appended.
pub(super) struct Journal {
    file: File,
    path: PathBuf,
}

impl JournalEntries {
    /// Reads a journal; `None` if there is none, or it ends within its first line. Whatever follows the first line that
    /// is not whole is left out.
    ///
    /// # Errors
    /// If the file cannot be read.
    pub(super) fn read(path: &Path) -> io::Result<Option<Self>> {
        match std::fs::read_to_string(path) {
            Ok(text) => Ok(Self::parse(&text)),
            Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(None),
            Err(error) => Err(error),
        }
    }

    fn parse(text: &str) -> Option<Self> {
        let mut lines = text.split_inclusive('\n');
        let header = whole(lines.next()?)?;
        Some(Self { header, parts: lines.map_while(whole).collect() })
    }
}

fn whole<T: DeserializeOwned>(line: &str) -> Option<T> {
    serde_json::from_str(line.strip_suffix('\n')?).ok()
}

impl Journal {
    /// Writes a new journal with these entries in place of the one at `path`.
    ///
    /// # Errors
    /// If the file cannot be written.
    pub(super) fn create(path: &Path, entries: &JournalEntries) -> io::Result<Self> {
        let mut text = line(&entries.header);
        for part in &entries.parts {
            text += &line(part);
        }
        let mut temporary = path.to_owned().into_os_string();
        temporary.push(".new");
        write_synced(Path::new(&temporary), text.as_bytes())?;
        std::fs::rename(&temporary, path)?;
        sync_directory(path)?;
        Ok(Self { file: OpenOptions::new().append(true).open(path)?, path: path.to_owned() })
    }

    /// Records a part.
    ///
    /// # Errors
    /// If the line cannot be written.
    pub(super) fn append(&mut self, part: &PartRecord) -> io::Result<()> {
        self.file.write_all(line(part).as_bytes())?;
        self.file.sync_data()
    }

    /// Removes the journal, when its export is finished.
    ///
    /// # Errors
    /// If the file cannot be removed.
    pub(super) fn remove(&self) -> io::Result<()> {
        std::fs::remove_file(&self.path)
    }
}

/// Writes a file, down to the disk.
///
/// # Errors
/// If the file cannot be written.
pub(super) fn write_synced(path: &Path, bytes: &[u8]) -> io::Result<()> {
    let mut file = File::create(path)?;
    file.write_all(bytes)?;
    file.sync_all()
}

fn line(entry: &impl Serialize) -> String {
    serde_json::to_string(entry).unwrap_or_default() + "\n"
}

#[cfg(test)]
pub(super) mod tests {
    use super::super::destination::{Compression, FileFormat};
    use super::*;

    pub(in super::super) fn parameters(format: FileFormat, compression: Compression) -> Parameters {
        Parameters {
            stream: "st-1".to_owned(),
            account: None,
            from: "2026-02-01".to_owned(),
            to: "2026-02-03".to_owned(),
            open: false,
            agentic: false,
            format,
            compression,
            columns: None,
        }
    }

    fn entries() -> JournalEntries {
        let header = Header {
            koregate: "0".to_owned(),
            parameters: parameters(FileFormat::Ndjson, Compression::None),
            source: None,
            until: None,
            replaces: false,
        };
        let part = |day: &str, rows, row_groups| {
            let (day, sha256) = (day.to_owned(), "ab".to_owned());
            PartRecord { day, rows, bytes: rows * 10, sha256, row_groups }
        };
        JournalEntries {
            header,
            parts: vec![part("2026-02-01", 3, vec!["00".to_owned()]), part("2026-02-02", 0, Vec::new())],
        }
    }

    #[test]
    fn written_journal_is_read_again() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("a.progress");
        assert_eq!(JournalEntries::read(&path).unwrap(), None);
        let mut entries = entries();
        let mut journal = Journal::create(&path, &entries).unwrap();
        let next = PartRecord { day: "2026-02-03".to_owned(), ..entries.parts[1].clone() };
        journal.append(&next).unwrap();
        entries.parts.push(next);
        assert_eq!(JournalEntries::read(&path).unwrap(), Some(entries));
        journal.remove().unwrap();
        assert!(!path.exists());
    }

    #[test]
    fn journal_that_is_cut_anywhere_has_its_whole_lines() {
        let entries = entries();
        let lines = [line(&entries.header), line(&entries.parts[0]), line(&entries.parts[1])];
        let text = lines.concat();
        for end in 0..=text.len() {
            let whole = text[..end].matches('\n').count();
            let expected = whole
                .checked_sub(1)
                .map(|parts| JournalEntries { header: entries.header.clone(), parts: entries.parts[..parts].to_vec() });
            assert_eq!(JournalEntries::parse(&text[..end]), expected, "{end}");
        }
    }
}
