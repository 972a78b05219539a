//! Standard output and standard error, and what happens when a command cannot write its output: an exit code and a word,
//! or quiet where the reader has gone. Nothing panics, as `println!` would.

use std::fmt;
use std::io::{self, ErrorKind, Write as _};
use std::process::ExitCode;

/// Failure to write to standard output.
#[derive(Debug, thiserror::Error)]
pub(super) enum OutputError {
    /// The reader of the pipe has gone.
    #[error("standard output is closed")]
    Closed,
    /// Nothing more can be written, as on a full disk.
    #[error("standard output cannot be written: {0}")]
    Failed(#[source] io::Error),
}

impl From<io::Error> for OutputError {
    fn from(error: io::Error) -> Self {
        if error.kind() == ErrorKind::BrokenPipe { Self::Closed } else { Self::Failed(error) }
    }
}

/// Writes all of `text` to standard output.
///
/// # Errors
/// If not all of it can be written.
pub(super) fn write(text: &str) -> Result<(), OutputError> {
    let mut stdout = io::stdout().lock();
    stdout.write_all(text.as_bytes())?;
    Ok(stdout.flush()?)
}

/// Writes the result of a command to standard output, and returns the exit code of the command.
pub(super) fn print(text: &str) -> ExitCode {
    exit_code(write(text))
}

/// The exit code of a command that has nothing to do but to write `text`: success also where the reader has read enough.
pub(super) fn exit_code(written: Result<(), OutputError>) -> ExitCode {
    match written {
        Ok(()) | Err(OutputError::Closed) => ExitCode::SUCCESS,
        Err(error) => {
            complain(&format_args!("koregate: {error}"));
            ExitCode::FAILURE
        }
    }
}

/// Writes a line to standard error. There is nowhere to report that this failed.
pub fn complain(message: &dyn fmt::Display) {
    let _ = writeln!(io::stderr().lock(), "{message}");
}

/// Prints the help, the version, or what is wrong with a command line.
pub fn print_clap_message(error: &clap::Error) -> ExitCode {
    let printed = error.print().and_then(|()| io::stdout().flush());
    if error.use_stderr() {
        return ExitCode::from(u8::try_from(error.exit_code()).unwrap_or(2));
    }
    exit_code(printed.map_err(OutputError::from))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn closed_pipe_is_success_and_full_disk_is_not() {
        for (kind, code) in [(ErrorKind::BrokenPipe, ExitCode::SUCCESS), (ErrorKind::StorageFull, ExitCode::FAILURE)] {
            assert_eq!(exit_code(Err(io::Error::from(kind).into())), code, "{kind}");
        }
        assert_eq!(exit_code(Ok(())), ExitCode::SUCCESS);
    }
}
