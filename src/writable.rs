//! Whether something could be made in a directory, found out without making it; and the directory of a path.

use std::io;
use std::path::Path;

use rustix::fs::{Access, access, statfs};

/// Types of file systems in which no file can be made whatever their permissions say, which root passes: proc, sysfs and
/// the two of cgroups.
const PSEUDO_FILE_SYSTEMS: [u64; 4] = [0x9fa0, 0x6265_6572, 0x0027_e0eb, 0x6367_7270];

/// Whether a file or directory could be made in `directory`.
///
/// # Errors
/// The reason why not.
pub(crate) fn check_writable(directory: &Path) -> io::Result<()> {
    access(directory, Access::WRITE_OK | Access::EXEC_OK)?;
    #[expect(clippy::cast_sign_loss, reason = "a type of a file system is a pattern of 32 bits")]
    let kind = statfs(directory)?.f_type as u64 & u64::from(u32::MAX);
    if PSEUDO_FILE_SYSTEMS.contains(&kind) { Err(io::ErrorKind::ReadOnlyFilesystem.into()) } else { Ok(()) }
}

/// Whether `path` is a file that could be appended to, or could be made one.
///
/// # Errors
/// The reason why not.
pub(crate) fn check_appendable(path: &Path) -> io::Result<()> {
    if !path.exists() {
        return check_writable(directory_of(path));
    }
    if path.is_dir() {
        return Err(io::ErrorKind::IsADirectory.into());
    }
    Ok(access(path, Access::WRITE_OK)?)
}

/// The directory that `path` lies in: the working directory, if it names none.
pub(crate) fn directory_of(path: &Path) -> &Path {
    path.parent().filter(|parent| !parent.as_os_str().is_empty()).unwrap_or(Path::new("."))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn path_of_one_name_lies_in_the_working_directory() {
        for (path, directory) in [("quota", "."), ("./quota", "."), ("a/b/quota", "a/b"), ("/quota", "/")] {
            assert_eq!(directory_of(Path::new(path)), Path::new(directory), "{path}");
        }
    }

    #[test]
    fn file_can_be_appended_to_if_it_or_its_directory_is_writable() {
        let directory = tempfile::tempdir().unwrap();
        let file = directory.path().join("audit.jsonl");
        assert!(check_appendable(&file).is_ok() && !file.exists());
        std::fs::write(&file, "").unwrap();
        assert!(check_appendable(&file).is_ok());
        assert!(check_appendable(directory.path()).is_err());
        assert!(check_appendable(&directory.path().join("none/audit.jsonl")).is_err());
    }

    #[test]
    fn file_system_of_the_kernel_is_not_writable_even_for_root() {
        let directory = tempfile::tempdir().unwrap();
        assert!(check_writable(directory.path()).is_ok());
        assert!(check_writable(Path::new("/proc")).is_err());
        assert!(check_writable(&directory.path().join("none")).is_err());
    }
}
