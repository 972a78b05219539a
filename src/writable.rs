//! Whether something could be made in a directory, found out without making it.

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

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn file_system_of_the_kernel_is_not_writable_even_for_root() {
        let directory = tempfile::tempdir().unwrap();
        assert!(check_writable(directory.path()).is_ok());
        assert!(check_writable(Path::new("/proc")).is_err());
        assert!(check_writable(&directory.path().join("none")).is_err());
    }
}
