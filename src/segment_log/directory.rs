//! The directory of a log: the names of its files, and its lock.

use std::fs::{self, DirBuilder, File, Metadata, OpenOptions, TryLockError};
use std::io;
use std::os::unix::fs::{DirBuilderExt as _, FileExt as _, MetadataExt as _, OpenOptionsExt as _};
use std::path::{Path, PathBuf};

use super::types::OpenError;
use crate::writable::{check_writable, directory_of};

const LOCK_NAME: &str = "lock";
const SEGMENT_EXTENSION: &str = "segment";
const INDEX_EXTENSION: &str = "index";
/// Digits of a number in a name.
const DIGITS: usize = 8;

/// Path of a segment file.
pub(super) fn segment_path(directory: &Path, number: u32) -> PathBuf {
    directory.join(format!("{number:08x}.{SEGMENT_EXTENSION}"))
}

/// Path of an index file.
pub(super) fn index_path(directory: &Path, number: u32) -> PathBuf {
    directory.join(format!("{number:08x}.{INDEX_EXTENSION}"))
}

/// The kind of a file of the log.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum FileKind {
    Segment,
    Index,
}

/// Number and kind of a file of the log by its name; `None` for other files.
fn parse_name(name: &str) -> Option<(u32, FileKind)> {
    let (digits, extension) = name.split_once('.')?;
    let kind = match extension {
        SEGMENT_EXTENSION => FileKind::Segment,
        INDEX_EXTENSION => FileKind::Index,
        _ => return None,
    };
    let is_digit = |byte: u8| byte.is_ascii_digit() || (b'a'..=b'f').contains(&byte);
    let is_number = digits.len() == DIGITS && digits.bytes().all(is_digit);
    is_number.then(|| u32::from_str_radix(digits, 16).ok()).flatten().map(|number| (number, kind))
}

/// A file of the log.
#[derive(Clone, Debug)]
pub(super) struct ListedFile {
    pub(super) number: u32,
    pub(super) kind: FileKind,
    pub(super) path: PathBuf,
    pub(super) len: u64,
    pub(super) identity: FileIdentity,
    /// Seconds and nanoseconds of the last change.
    pub(super) modified: (i64, i64),
}

/// The files of the log, in no order.
pub(super) fn list(directory: &Path) -> io::Result<Vec<ListedFile>> {
    let mut listed = Vec::new();
    for entry in fs::read_dir(directory)? {
        let entry = entry?;
        let Some((number, kind)) = entry.file_name().to_str().and_then(parse_name) else { continue };
        match entry.metadata() {
            Ok(metadata) if metadata.is_file() => listed.push(ListedFile {
                number,
                kind,
                path: entry.path(),
                len: metadata.len(),
                identity: identity(&metadata),
                modified: (metadata.mtime(), metadata.mtime_nsec()),
            }),
            Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(error),
            _ => {}
        }
    }
    Ok(listed)
}

/// Identity of a file or directory: device and inode.
pub(super) type FileIdentity = (u64, u64);

/// The identity in `metadata`.
pub(super) fn identity(metadata: &Metadata) -> FileIdentity {
    (metadata.dev(), metadata.ino())
}

/// The lock of a directory, held until it is dropped.
#[derive(Debug)]
pub(super) struct DirectoryLock {
    file: File,
    /// Identities of the lock file and of the directory.
    identities: [FileIdentity; 2],
}

impl DirectoryLock {
    /// Creates the directory if it does not exist, and locks it.
    ///
    /// # Errors
    /// [`OpenError`].
    pub(super) fn acquire(directory: &Path) -> Result<Self, OpenError> {
        let failed = |what| move |error| OpenError::Io(error, what);
        DirBuilder::new().recursive(true).mode(0o700).create(directory).map_err(failed("create the directory"))?;
        let mut options = OpenOptions::new();
        let options = options.read(true).write(true).create(true).truncate(false).mode(0o600);
        let file = options.open(directory.join(LOCK_NAME)).map_err(failed("open the lock file"))?;
        match file.try_lock() {
            Ok(()) => {}
            Err(TryLockError::WouldBlock) => return Err(OpenError::InUse),
            Err(TryLockError::Error(error)) => return Err(OpenError::Io(error, "lock the directory")),
        }
        let metadata = file.metadata().and_then(|lock| Ok([identity(&lock), identity(&fs::metadata(directory)?)]));
        Ok(Self { file, identities: metadata.map_err(failed("read the directory"))? })
    }

    /// Whether the directory and the lock file at this path are still those that were locked.
    pub(super) fn is_in_place(&self, directory: &Path) -> bool {
        identities(directory).is_ok_and(|found| found == self.identities)
    }

    /// The lock file, whose time of change is now by the clock of the file system.
    pub(super) fn stamp(&self) -> io::Result<&File> {
        self.file.write_at(b"\n", 0)?;
        Ok(&self.file)
    }
}

/// See [`SegmentLog::inspect`](super::SegmentLog::inspect).
pub(super) fn inspect(directory: &Path) -> io::Result<()> {
    if fs::symlink_metadata(directory.join(LOCK_NAME)).is_ok() {
        return Ok(());
    }
    inspect_ancestors(directory)
}

/// Whether files can be made in `directory`, or it can be made, with those above it that are missing.
fn inspect_ancestors(directory: &Path) -> io::Result<()> {
    match fs::metadata(directory) {
        Ok(metadata) if !metadata.is_dir() => Err(io::ErrorKind::NotADirectory.into()),
        Ok(_) => check_writable(directory),
        // A link to nothing cannot be made a directory.
        Err(error) if error.kind() == io::ErrorKind::NotFound && fs::symlink_metadata(directory).is_err() => {
            inspect_ancestors(directory_of(directory))
        }
        Err(error) => Err(error),
    }
}

fn identities(directory: &Path) -> io::Result<[FileIdentity; 2]> {
    Ok([identity(&fs::metadata(directory.join(LOCK_NAME))?), identity(&fs::metadata(directory)?)])
}

/// Waits until the disk has the names of all files.
pub(super) fn sync(directory: &Path) -> io::Result<()> {
    File::open(directory)?.sync_all()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn inspection_finds_paths_that_cannot_be_a_log_and_makes_nothing() {
        let root = tempfile::tempdir().unwrap();
        let file = root.path().join("file");
        fs::write(&file, "").unwrap();
        std::os::unix::fs::symlink("nowhere", root.path().join("dangling")).unwrap();
        for (path, is_usable) in [
            (root.path().to_owned(), true),
            (root.path().join("new"), true),
            (root.path().join("new/and/deep"), true),
            (file.clone(), false),
            (file.join("below"), false),
            (root.path().join("dangling"), false),
            (PathBuf::from("/proc/none/log"), false),
        ] {
            assert_eq!(inspect(&path).is_ok(), is_usable, "{}", path.display());
            let entries = fs::read_dir(root.path()).unwrap().count();
            assert_eq!(entries, 2);
            if path.starts_with(root.path()) && path != *root.path() {
                assert_eq!(DirectoryLock::acquire(&path).is_ok(), is_usable, "{}", path.display());
                let _ = fs::remove_dir_all(root.path().join("new"));
            }
        }
    }

    #[test]
    fn directory_that_was_a_log_passes_inspection() {
        let root = tempfile::tempdir().unwrap();
        drop(DirectoryLock::acquire(root.path()).unwrap());
        assert!(inspect(root.path()).is_ok());
    }

    #[test]
    fn only_names_of_the_log_are_parsed() {
        let path = segment_path(Path::new(""), 0x1f);
        assert_eq!(path.to_str(), Some("0000001f.segment"));
        assert_eq!(parse_name("0000001f.segment"), Some((31, FileKind::Segment)));
        assert_eq!(parse_name("ffffffff.index"), Some((u32::MAX, FileKind::Index)));
        for other in ["lock", "purges", "1f.segment", "0000001F.segment", "+000001f.index", "0000001f.index.old"] {
            assert_eq!(parse_name(other), None, "{other}");
        }
    }
}
