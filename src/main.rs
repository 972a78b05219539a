//! `koregate`: parses the command line, runs the command and returns its exit code.

use std::process::ExitCode;
use std::thread::available_parallelism;
use std::time::Duration;

use clap::Parser as _;
use koregate::cli::{self, Cli};
use tokio::runtime::Builder;

/// The longest that the end of the process waits for threads that block, such as in a read of a network file system.
const BLOCKING_THREADS_TIMEOUT: Duration = Duration::from_secs(5);
/// Blocking threads for the disk and for files, besides those that deflate.
const READING_FILES: usize = 2;

fn main() -> ExitCode {
    let command = match Cli::try_parse() {
        Ok(command) => command,
        // Help, the version, or a malformed command line.
        Err(error) => return cli::print_clap_message(&error),
    };
    let cores = available_parallelism().map_or(1, usize::from);
    // A worker that has other tasks queues new ones globally, where idle workers find them.
    let mut builder = if cores == 1 { Builder::new_current_thread() } else { Builder::new_multi_thread() };
    let runtime = builder
        // Deflating keeps a core busy, so more threads gain nothing, and each thread has a heap of its own that
        // fragments.
        .max_blocking_threads(cores + READING_FILES)
        .enable_all()
        .build();
    match runtime {
        Ok(runtime) => {
            let code = runtime.block_on(cli::run(command));
            runtime.shutdown_timeout(BLOCKING_THREADS_TIMEOUT);
            code
        }
        Err(error) => {
            cli::complain(&format_args!("koregate cannot start: {error}"));
            ExitCode::FAILURE
        }
    }
}
