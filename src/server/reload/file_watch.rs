//! Whether a file has changed: by content, so that symlinks that are swapped, coarse times of modification and network
//! file systems make no difference.

use std::collections::BTreeMap;
use std::fs;
use std::path::{Path, PathBuf};

use aws_lc_rs::digest::{SHA256, digest};

use crate::config::NamedFiles;

/// The state of files at one time.
pub(super) type Reading = BTreeMap<PathBuf, FileState>;

/// The state of a file.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum FileState {
    /// A file with this SHA-256 digest.
    Content(Vec<u8>),
    /// A file that cannot be read.
    Unreadable,
    /// A pipe or a device, which must not be read again.
    Special,
}

impl FileState {
    /// The state of the file that `path` leads to.
    pub(super) fn of(path: &Path) -> Self {
        match fs::metadata(path) {
            Ok(metadata) if !metadata.is_file() => Self::Special,
            Ok(_) => fs::read(path)
                .map_or(Self::Unreadable, |content| Self::Content(digest(&SHA256, &content).as_ref().to_vec())),
            Err(_) => Self::Unreadable,
        }
    }
}

/// Reads `files`.
pub(super) fn read(files: &NamedFiles) -> Reading {
    files.0.iter().map(|file| (file.clone(), FileState::of(file))).collect()
}

/// Compares readings with the one that was applied last. Pure.
#[derive(Debug)]
pub(super) struct FileWatch {
    /// `None` if the next stable reading is to be applied in any case.
    applied: Option<Reading>,
    last: Reading,
}

impl FileWatch {
    /// A watch of files that were last applied, or tried, as `applied`.
    pub(super) fn new(applied: Reading) -> Self {
        Self { last: applied.clone(), applied: Some(applied) }
    }

    /// Has the files count as changed, although they may be as they were tried.
    pub(super) fn try_again(&mut self) {
        self.applied = None;
    }

    /// Takes in a reading. Returns whether the files have changed and have been the same twice: a file that is being
    /// written, or a certificate whose key is still to come, is most likely waited for.
    pub(super) fn has_changed(&mut self, reading: Reading) -> bool {
        let is_stable = reading == self.last;
        self.last = reading;
        is_stable && self.applied.as_ref() != Some(&self.last)
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn reading(content: u8) -> Reading {
        BTreeMap::from([("a".into(), FileState::Content(vec![content]))])
    }

    proptest! {
        /// Against a list of all readings.
        #[test]
        fn change_is_reported_when_two_readings_agree(contents in prop::collection::vec(0u8..3, 1..20)) {
            let mut watch = FileWatch::new(reading(0));
            let mut before = 0;
            for content in contents {
                prop_assert_eq!(watch.has_changed(reading(content)), content == before && content != 0);
                before = content;
            }
        }
    }

    #[test]
    fn symlink_swapped_by_kubernetes_is_a_change() {
        let folder = tempfile::tempdir().unwrap();
        let path = |name: &str| folder.path().join(name);
        let write = |version: &str, content: &str| {
            fs::create_dir(path(version)).unwrap();
            fs::write(path(version).join("key"), content).unwrap();
            std::os::unix::fs::symlink(version, path("..data_tmp")).unwrap();
            fs::rename(path("..data_tmp"), path("..data")).unwrap();
        };
        write("..1", "one");
        std::os::unix::fs::symlink("..data/key", path("key")).unwrap();
        let files = NamedFiles::default().with([path("key")]);
        let mut watch = FileWatch::new(read(&files));
        assert!(!watch.has_changed(read(&files)));
        write("..2", "two");
        assert_eq!([(); 2].map(|()| watch.has_changed(read(&files))), [false, true]);
        write("..3", "one");
        assert_eq!([(); 2].map(|()| watch.has_changed(read(&files))), [false; 2], "the content is that of before");
    }

    #[test]
    fn unreadable_and_special_files_have_states_of_their_own() {
        let folder = tempfile::tempdir().unwrap();
        assert_eq!(FileState::of(&folder.path().join("none")), FileState::Unreadable);
        assert_eq!(FileState::of(folder.path()), FileState::Special);
        assert_eq!(FileState::of(Path::new("/dev/zero")), FileState::Special);
    }
}
