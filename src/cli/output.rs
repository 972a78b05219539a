//! Output of commands on stdout.

use std::io::{ErrorKind, Write};
use std::process::ExitCode;

/// Writes `text` to stdout. A reader that has closed its pipe has read what it needs, so that is no failure; any other
/// error, such as a full disk, is named on stderr and makes the exit code 1.
pub(super) fn print(text: &str) -> ExitCode {
    print_to(&mut std::io::stdout().lock(), text)
}

fn print_to(stdout: &mut impl Write, text: &str) -> ExitCode {
    match stdout.write_all(text.as_bytes()).and_then(|()| stdout.flush()) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) if error.kind() == ErrorKind::BrokenPipe => ExitCode::SUCCESS,
        Err(error) => {
            // stderr may be closed too, which `eprintln` would answer with a panic.
            let _ = writeln!(std::io::stderr(), "koregate: the output cannot be written: {error}");
            ExitCode::FAILURE
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A writer that fails.
    struct Failing(ErrorKind);

    impl Write for Failing {
        fn write(&mut self, _: &[u8]) -> std::io::Result<usize> {
            Err(self.0.into())
        }

        fn flush(&mut self) -> std::io::Result<()> {
            Ok(())
        }
    }

    #[test]
    fn only_a_closed_pipe_is_no_failure() {
        let mut written = Vec::new();
        assert_eq!(print_to(&mut written, "text\n"), ExitCode::SUCCESS);
        assert_eq!(written, b"text\n");
        assert_eq!(print_to(&mut Failing(ErrorKind::BrokenPipe), "text"), ExitCode::SUCCESS);
        assert_eq!(print_to(&mut Failing(ErrorKind::StorageFull), "text"), ExitCode::FAILURE);
    }
}
