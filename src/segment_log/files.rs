//! The calls to the file system that a test can let fail.

use std::fs::{self, File, OpenOptions};
use std::io::{self, IoSliceMut};
use std::os::unix::fs::{FileExt as _, OpenOptionsExt as _};
use std::path::Path;

use rustix::io::{ReadWriteFlags, preadv2};

/// Mode of new files: they hold what customers wrote.
const FILE_MODE: u32 = 0o600;

/// Calls on the files of a log. The provided methods are those of the operating system.
pub(super) trait FileOperations: std::fmt::Debug + Send + Sync {
    /// Creates an empty file, in place of another one of this name.
    fn create(&self, path: &Path) -> io::Result<File> {
        let mut options = OpenOptions::new();
        options.read(true).write(true).create(true).truncate(true).mode(FILE_MODE).open(path)
    }

    /// Opens a file that exists, for reading.
    fn open(&self, path: &Path) -> io::Result<File> {
        File::open(path)
    }

    /// Opens a file that exists, for reading and writing.
    fn open_for_writing(&self, path: &Path) -> io::Result<File> {
        OpenOptions::new().read(true).write(true).open(path)
    }

    /// Reads some bytes; may wait for the disk.
    fn read_at(&self, file: &File, buffer: &mut [u8], offset: u64) -> io::Result<usize> {
        file.read_at(buffer, offset)
    }

    /// Reads what is in the page cache; an error if that is nothing.
    fn read_cached_at(&self, file: &File, buffer: &mut [u8], offset: u64) -> io::Result<usize> {
        Ok(preadv2(file, &mut [IoSliceMut::new(buffer)], offset, ReadWriteFlags::NOWAIT)?)
    }

    /// Writes some bytes.
    fn write_at(&self, file: &File, bytes: &[u8], offset: u64) -> io::Result<usize> {
        file.write_at(bytes, offset)
    }

    /// Truncates a file.
    fn set_len(&self, file: &File, len: u64) -> io::Result<()> {
        file.set_len(len)
    }

    /// Waits until the disk has all bytes of a file.
    fn sync(&self, file: &File) -> io::Result<()> {
        file.sync_data()
    }

    /// Deletes a file.
    fn remove(&self, path: &Path) -> io::Result<()> {
        fs::remove_file(path)
    }
}

/// The calls of the operating system.
#[derive(Debug)]
pub(super) struct SystemFiles;

impl FileOperations for SystemFiles {}

/// Writes all bytes, with one call unless the operating system takes fewer.
pub(super) fn write_all(files: &dyn FileOperations, file: &File, mut bytes: &[u8], mut offset: u64) -> io::Result<()> {
    while !bytes.is_empty() {
        match files.write_at(file, bytes, offset) {
            Ok(0) => return Err(io::ErrorKind::WriteZero.into()),
            Ok(count) => {
                bytes = bytes.get(count..).unwrap_or_default();
                offset += count as u64;
            }
            Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
            Err(error) => return Err(error),
        }
    }
    Ok(())
}

/// Deletes a file; success if there is none.
pub(super) fn remove_if_there(files: &dyn FileOperations, path: &Path) -> io::Result<()> {
    match files.remove(path) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => Err(error),
        _ => Ok(()),
    }
}

/// Whether an error says that the disk is full.
pub(super) fn is_out_of_space(error: &io::Error) -> bool {
    matches!(error.kind(), io::ErrorKind::StorageFull | io::ErrorKind::QuotaExceeded)
}
