//! `FILE.manifest.json`: what is in a finished file. Nothing in it depends on when or how often the export was started.

use std::collections::BTreeMap;
use std::io;
use std::path::Path;

use serde::{Deserialize, Serialize};

use super::journal::{Header, PartRecord, write_synced};
use super::parameters::Parameters;
use super::partial_file::{Checkpoint, sync_directory};
use crate::cli::span::Source;

/// The description of a finished file.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct Manifest {
    /// The version that wrote the file.
    pub(super) koregate: String,
    pub(super) parameters: Parameters,
    /// The source of the items; `None` if the gateway did not say it.
    #[serde(default)]
    pub(super) source: Option<Source>,
    /// The end of an open span, as it was when the export began.
    pub(super) until: Option<String>,
    pub(super) rows: u64,
    /// Length of the file.
    pub(super) bytes: u64,
    /// SHA-256 of the file, in hexadecimal digits.
    pub(super) sha256: String,
    /// The number of rows of each UTC day of the span.
    pub(super) days: BTreeMap<String, u64>,
    /// Time of the span that is missing: none, because an export with a gap is not finished.
    pub(super) gaps: [String; 0],
}

impl Manifest {
    pub(super) fn new(header: &Header, parts: &[PartRecord], file: Checkpoint) -> Self {
        Self {
            koregate: header.koregate.clone(),
            parameters: header.parameters.clone(),
            source: header.source.clone(),
            until: header.until.clone(),
            rows: parts.iter().map(|part| part.rows).sum(),
            bytes: file.bytes,
            sha256: file.sha256,
            days: parts.iter().map(|part| (part.day.clone(), part.rows)).collect(),
            gaps: [],
        }
    }

    /// Reads a manifest; `None` if there is none, or the file is something else.
    pub(super) fn read(path: &Path) -> Option<Self> {
        serde_json::from_slice(&std::fs::read(path).ok()?).ok()
    }

    /// Writes the manifest, replacing an earlier one at once.
    ///
    /// # Errors
    /// If the file cannot be written.
    pub(super) fn write(&self, path: &Path) -> io::Result<()> {
        let mut text = serde_json::to_string_pretty(self)?;
        text.push('\n');
        let mut temporary = path.to_owned().into_os_string();
        temporary.push(".new");
        write_synced(Path::new(&temporary), text.as_bytes())?;
        std::fs::rename(&temporary, path)?;
        sync_directory(path)
    }
}
