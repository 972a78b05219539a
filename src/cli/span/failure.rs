//! How `export` and `warm` end: their exit codes, and the signals that stop them.

use std::process::ExitCode;

use tokio::signal::unix::{SignalKind, signal};

use crate::cli::output::complain;

/// Reason why a command did not do what was asked.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(in crate::cli) enum Failure {
    /// Flags, configuration, or a request that the gateway refuses: the same command fails again. Exit code 2.
    Usage(String),
    /// Anything that may pass: the same command can be started again, and goes on. Exit code 1.
    Failed(String),
    /// A signal, by its number. Exit code 128 and the number, as of a shell's.
    Stopped(u8),
}

impl Failure {
    /// A failure that may pass.
    pub(in crate::cli) fn failed(message: impl Into<String>) -> Self {
        Self::Failed(message.into())
    }

    fn code(&self) -> u8 {
        match self {
            Self::Usage(_) => 2,
            Self::Failed(_) => 1,
            Self::Stopped(signal) => 128 + signal,
        }
    }
}

/// The exit code of a command. Says what has failed on standard error, and `how_to_go_on` after a failure that may
/// pass.
pub(in crate::cli) fn finish(result: Result<(), Failure>, how_to_go_on: &str) -> ExitCode {
    let Err(failure) = result else { return ExitCode::SUCCESS };
    match &failure {
        Failure::Usage(message) => complain(&format_args!("koregate: {message}")),
        Failure::Failed(message) => complain(&format_args!("koregate: {message}\n{how_to_go_on}")),
        Failure::Stopped(_) => complain(&format_args!("koregate: stopped\n{how_to_go_on}")),
    }
    ExitCode::from(failure.code())
}

/// Waits for SIGINT or SIGTERM.
pub(in crate::cli) async fn until_signal() -> Failure {
    const INTERRUPT: u8 = 2;
    const TERMINATE: u8 = 15;
    let (Ok(mut interrupt), Ok(mut terminate)) = (signal(SignalKind::interrupt()), signal(SignalKind::terminate()))
    else {
        // Without handlers, the signals end the process by themselves.
        return std::future::pending().await;
    };
    tokio::select! {
        _ = interrupt.recv() => Failure::Stopped(INTERRUPT),
        _ = terminate.recv() => Failure::Stopped(TERMINATE),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn exit_codes_tell_wrong_use_from_what_may_pass() {
        let codes = [Failure::Usage(String::new()), Failure::failed(""), Failure::Stopped(2), Failure::Stopped(15)];
        assert_eq!(codes.map(|failure| failure.code()), [2, 1, 130, 143]);
    }
}
