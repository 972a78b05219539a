//! `koregate`: reads the command line, runs the command, gives its exit code.

use std::process::ExitCode;
use std::thread::available_parallelism;

use clap::Parser as _;
use koregate::cli::{self, Cli};
use tokio::runtime::Builder;

/// Threads that wait for names to be looked up, besides those that deflate.
const LOOKING_UP: usize = 2;

fn main() -> ExitCode {
    let command = Cli::parse();
    let cores = available_parallelism().map_or(1, usize::from);
    // A worker that has others sends what its queue has no room for the long way round, for them to take.
    let mut builder = if cores == 1 { Builder::new_current_thread() } else { Builder::new_multi_thread() };
    let runtime = builder
        // Deflating keeps a core busy, so more threads gain nothing; and each has a heap of its own, with holes of its own.
        .max_blocking_threads(cores + LOOKING_UP)
        .enable_all()
        .build();
    match runtime {
        Ok(runtime) => runtime.block_on(cli::run(command)),
        Err(error) => {
            eprintln!("koregate cannot start: {error}");
            ExitCode::FAILURE
        }
    }
}
