//! The file of an export, its format by its ending, and the files beside it: pure.

use std::path::{Path, PathBuf};

use serde::{Deserialize, Serialize};

/// The format of the items.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub(super) enum FileFormat {
    /// One item a line, byte for byte.
    Ndjson,
    /// One JSON object, as the gateway streams it.
    Json,
    /// RFC 4180, with a header line.
    Csv,
    /// Apache Parquet.
    Parquet,
}

/// The compression around the format.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub(super) enum Compression {
    /// None; Parquet compresses inside.
    None,
    /// RFC 1952, a member for each part.
    Gzip,
    /// RFC 8878, a frame for each part.
    Zstd,
}

/// The file of an export.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Destination {
    pub(super) path: PathBuf,
    pub(super) format: FileFormat,
    pub(super) compression: Compression,
}

impl Destination {
    /// Reads format and compression from the ending of `path`.
    ///
    /// # Errors
    /// A sentence, if the ending is not known.
    pub(super) fn parse(path: &Path) -> Result<Self, String> {
        let name = path.file_name().and_then(|name| name.to_str()).unwrap_or_default();
        let (stem, compression) = if let Some(stem) = name.strip_suffix(".gz") {
            (stem, Compression::Gzip)
        } else if let Some(stem) = name.strip_suffix(".zst") {
            (stem, Compression::Zstd)
        } else {
            (name, Compression::None)
        };
        let format = match stem.rsplit_once('.') {
            Some((_, "ndjson" | "jsonl")) => FileFormat::Ndjson,
            Some((_, "json")) => FileFormat::Json,
            Some((_, "csv")) => FileFormat::Csv,
            Some((_, "parquet")) if compression == Compression::None => FileFormat::Parquet,
            Some((_, "parquet")) => return Err("-o: Parquet is compressed inside; leave out .gz and .zst".to_owned()),
            _ => {
                return Err("-o: the file must end with .ndjson, .json, .csv or .parquet, or .gz or .zst behind \
                             one of the first three"
                    .to_owned());
            }
        };
        Ok(Self { path: path.to_owned(), format, compression })
    }

    /// The unfinished file.
    pub(super) fn partial(&self) -> PathBuf {
        self.beside(".partial")
    }

    /// The journal of the parts that are in the unfinished file.
    pub(super) fn journal(&self) -> PathBuf {
        self.beside(".progress")
    }

    /// The description of the finished file.
    pub(super) fn manifest(&self) -> PathBuf {
        self.beside(".manifest.json")
    }

    fn beside(&self, ending: &str) -> PathBuf {
        let mut name = self.path.clone().into_os_string();
        name.push(ending);
        name.into()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ending_names_format_and_compression() {
        for (name, format, compression) in [
            ("a.ndjson", FileFormat::Ndjson, Compression::None),
            ("a.b.jsonl.gz", FileFormat::Ndjson, Compression::Gzip),
            ("a.json.zst", FileFormat::Json, Compression::Zstd),
            ("dir/a.csv", FileFormat::Csv, Compression::None),
            ("a.parquet", FileFormat::Parquet, Compression::None),
        ] {
            let destination = Destination::parse(Path::new(name)).unwrap();
            assert_eq!((destination.format, destination.compression), (format, compression), "{name}");
            assert_eq!(destination.manifest(), PathBuf::from(format!("{name}.manifest.json")));
        }
        for name in ["a", "a.txt", "a.gz", "a.parquet.gz", "a.ndjson.bz2", "-", ""] {
            assert!(Destination::parse(Path::new(name)).is_err(), "{name}");
        }
    }
}
