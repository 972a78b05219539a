//! Whether a path can be a state file, without making or locking it.

use std::fs::OpenOptions;
use std::io;
use std::path::Path;

use super::record::{HEADER, RECORD_BYTES};
use super::{StateFile, StateFileError, is_regular, is_zeroed, read_all};
use crate::writable::{check_writable, directory_of};

impl StateFile {
    /// Whether [`StateFile::open`] could use the file at `path`, apart from another process that uses it now.
    ///
    /// # Errors
    /// [`StateFileError`], if the file can be neither used nor made.
    pub fn inspect(path: &Path) -> Result<(), StateFileError> {
        let failed = |error| StateFileError::Io { path: path.to_owned(), error };
        match OpenOptions::new().read(true).write(true).open(path) {
            Ok(file) if is_regular(&file).map_err(failed)? => {
                let text = read_all(&file).map_err(failed)?;
                if is_state_file(&text) { Ok(()) } else { Err(StateFileError::NotOurs(path.to_owned())) }
            }
            Ok(_) => Err(StateFileError::NotOurs(path.to_owned())),
            Err(error) if error.kind() == io::ErrorKind::NotFound => check_writable(directory_of(path)).map_err(failed),
            Err(error) => Err(failed(error)),
        }
    }
}

/// Whether `text` is that of a state file, however it was left.
fn is_state_file(text: &[u8]) -> bool {
    let has_header = match text.split_at_checked(RECORD_BYTES) {
        Some((header, _)) => header == HEADER,
        None => HEADER.starts_with(text),
    };
    has_header || is_zeroed(text)
}

#[cfg(test)]
mod tests {
    use std::fs;
    use std::time::Duration;

    use super::*;
    use crate::clock::Clock;

    #[test]
    fn inspection_and_opening_agree_and_inspection_makes_nothing() {
        let root = tempfile::tempdir().unwrap();
        let path = |name: &str| root.path().join(name);
        let texts: [(&str, &[u8]); 7] = [
            ("empty", b""),
            ("header", HEADER),
            ("partial", &HEADER[..9]),
            ("zeros", &[0; 200]),
            ("other", b"[server]\nlisten = \"127.0.0.1:8080\"\n"),
            ("short", b"x"),
            ("long", &[b'x'; 500]),
        ];
        for (name, text) in texts {
            fs::write(path(name), text).unwrap();
        }
        fs::create_dir(path("directory")).unwrap();
        let names =
            texts.iter().map(|(name, _)| *name).chain(["directory", "new", "none/new", "empty/new", "/proc/none"]);
        let mut refused = Vec::new();
        for name in names {
            let inspected = StateFile::inspect(&path(name));
            assert!(name != "new" || !path(name).exists());
            let opened =
                StateFile::open(&path(name), Duration::from_mins(1), Duration::from_secs(1), &Clock::system().into());
            assert_eq!(inspected.is_ok(), opened.is_ok(), "{name}");
            if let (Err(inspected), Err(opened)) = (inspected, opened) {
                assert!(inspected.to_string().starts_with(&path(name).display().to_string()), "{inspected}");
                assert!(name == "/proc/none" || inspected.to_string() == opened.to_string());
                refused.push(name);
            }
        }
        assert_eq!(refused, ["other", "short", "long", "directory", "none/new", "empty/new", "/proc/none"]);
    }
}
