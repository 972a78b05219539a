//! The unfinished file: locked by one export, hashed as it is written, and cut back to what is recorded of it.

use std::fs::{File, OpenOptions, TryLockError};
use std::io::{self, BufWriter, Read as _, Seek as _, SeekFrom, Write};
use std::os::unix::fs::MetadataExt as _;
use std::path::{Path, PathBuf};

use aws_lc_rs::digest::{Context, SHA256};

use crate::hex;

const BUFFER_BYTES: usize = 256 << 10;

/// A file that is written part by part.
pub(super) struct PartialFile {
    file: BufWriter<File>,
    path: PathBuf,
    /// The content.
    written: Content,
    /// The recorded part, which stays.
    recorded: Content,
}

/// The length and the hash of a file.
#[derive(Clone)]
struct Content {
    bytes: u64,
    hash: Context,
}

/// The length and the hash of a file, as they are recorded.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Checkpoint {
    pub(super) bytes: u64,
    /// SHA-256 in hexadecimal digits.
    pub(super) sha256: String,
}

impl Content {
    fn empty() -> Self {
        Self { bytes: 0, hash: Context::new(&SHA256) }
    }

    fn update(&mut self, bytes: &[u8]) {
        self.bytes += bytes.len() as u64;
        self.hash.update(bytes);
    }

    fn checkpoint(&self) -> Checkpoint {
        Checkpoint { bytes: self.bytes, sha256: hex::encode(self.hash.clone().finish().as_ref()) }
    }
}

impl PartialFile {
    /// Opens or creates the file, and locks it until the process ends. `None` if another process has locked it.
    ///
    /// # Errors
    /// If the file cannot be opened or locked.
    pub(super) fn open(path: &Path) -> io::Result<Option<Self>> {
        loop {
            let file = OpenOptions::new().read(true).write(true).create(true).truncate(false).open(path)?;
            match file.try_lock() {
                Ok(()) => {}
                Err(TryLockError::WouldBlock) => return Ok(None),
                Err(TryLockError::Error(error)) => return Err(error),
            }
            // A process that had the lock before may have renamed the file meanwhile.
            let is_same =
                std::fs::metadata(path).is_ok_and(|now| file.metadata().is_ok_and(|own| own.ino() == now.ino()));
            if is_same {
                let (written, recorded) = (Content::empty(), Content::empty());
                let file = BufWriter::with_capacity(BUFFER_BYTES, file);
                return Ok(Some(Self { file, path: path.to_owned(), written, recorded }));
            }
        }
    }

    /// Reads the file, and cuts it back to the last of `checkpoints` before the first one that it does not have. Returns
    /// the number of checkpoints that it has.
    ///
    /// # Errors
    /// If the file cannot be read or cut.
    pub(super) fn restore(&mut self, checkpoints: &[Checkpoint]) -> io::Result<usize> {
        self.file.seek(SeekFrom::Start(0))?;
        (self.written, self.recorded) = (Content::empty(), Content::empty());
        let mut count = 0;
        for checkpoint in checkpoints {
            let length = checkpoint.bytes.saturating_sub(self.written.bytes);
            hash_next(self.file.get_mut(), &mut self.written, length)?;
            if self.written.checkpoint() != *checkpoint {
                break;
            }
            self.recorded = self.written.clone();
            count += 1;
        }
        self.discard_part()?;
        Ok(count)
    }

    /// Cuts the file back to what is recorded.
    ///
    /// # Errors
    /// If the file cannot be cut.
    pub(super) fn discard_part(&mut self) -> io::Result<()> {
        self.file.flush()?;
        self.file.get_ref().set_len(self.recorded.bytes)?;
        self.file.seek(SeekFrom::Start(self.recorded.bytes))?;
        self.written = self.recorded.clone();
        Ok(())
    }

    /// Writes everything to disk. What is written until now stays, once the returned checkpoint is recorded.
    ///
    /// # Errors
    /// If the file cannot be written.
    pub(super) fn sync(&mut self) -> io::Result<Checkpoint> {
        self.file.flush()?;
        self.file.get_ref().sync_data()?;
        self.recorded = self.written.clone();
        Ok(self.written.checkpoint())
    }

    /// Whether nothing was in the file when it was opened.
    ///
    /// # Errors
    /// If the file cannot be asked.
    pub(super) fn was_empty(&self) -> io::Result<bool> {
        Ok(self.file.get_ref().metadata()?.len() == 0)
    }

    /// The number of bytes that are written.
    pub(super) fn bytes(&self) -> u64 {
        self.written.bytes
    }

    /// Gives the file its final name.
    ///
    /// # Errors
    /// If the file cannot be renamed.
    pub(super) fn rename(&self, to: &Path) -> io::Result<()> {
        std::fs::rename(&self.path, to)?;
        sync_directory(to)
    }
}

impl Write for PartialFile {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        let count = self.file.write(bytes)?;
        self.written.update(&bytes[..count]);
        Ok(count)
    }

    fn flush(&mut self) -> io::Result<()> {
        self.file.flush()
    }
}

/// Adds up to `length` bytes of the file to `content`.
fn hash_next(file: &mut File, content: &mut Content, length: u64) -> io::Result<()> {
    let (mut rest, mut buffer) = (file.take(length), vec![0; BUFFER_BYTES]);
    loop {
        match rest.read(&mut buffer)? {
            0 => return Ok(()),
            count => content.update(&buffer[..count]),
        }
    }
}

/// Makes the names in the directory of `path` survive a power failure.
///
/// # Errors
/// If the directory cannot be opened or synced.
pub(super) fn sync_directory(path: &Path) -> io::Result<()> {
    let directory = path.parent().filter(|parent| !parent.as_os_str().is_empty()).unwrap_or(Path::new("."));
    File::open(directory)?.sync_all()
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn locked_file_is_not_opened_twice() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("a.partial");
        let first = PartialFile::open(&path).unwrap();
        assert!(PartialFile::open(&path).unwrap().is_none());
        drop(first);
        assert!(PartialFile::open(&path).unwrap().is_some());
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(64))]

        /// Cut or damaged anywhere, the file is cut back to the last part that it has whole.
        #[test]
        fn restored_file_has_the_parts_before_the_damage(
            lengths in prop::collection::vec(0usize..40, 1..8), damage in 0usize..400, is_cut: bool
        ) {
            let directory = tempfile::tempdir().unwrap();
            let path = directory.path().join("a.partial");
            let mut file = PartialFile::open(&path).unwrap().unwrap();
            let mut checkpoints = Vec::new();
            for (index, length) in lengths.iter().enumerate() {
                file.write_all(&vec![u8::try_from(index).unwrap(); *length]).unwrap();
                checkpoints.push(file.sync().unwrap());
            }
            file.write_all(b"of a part that is not recorded").unwrap();
            drop(file);
            let mut bytes = std::fs::read(&path).unwrap();
            let damage = damage % bytes.len();
            if is_cut { bytes.truncate(damage) } else { bytes[damage] ^= 1 }
            std::fs::write(&path, &bytes).unwrap();

            let mut file = PartialFile::open(&path).unwrap().unwrap();
            let count = file.restore(&checkpoints).unwrap();
            let expected = checkpoints.iter().take_while(|checkpoint| checkpoint.bytes <= damage as u64).count();
            prop_assert_eq!(count, expected);
            let kept = count.checked_sub(1).map_or(0, |last| checkpoints[last].bytes);
            prop_assert_eq!(file.bytes(), kept);
            prop_assert_eq!(std::fs::metadata(&path).unwrap().len(), kept);
            if let Some(last) = count.checked_sub(1) {
                prop_assert_eq!(&file.sync().unwrap(), &checkpoints[last], "goes on with the same hash");
            }
        }
    }
}
