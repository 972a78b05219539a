//! `koregate`: reads the command line, runs the command, gives its exit code.

use std::process::ExitCode;

use clap::Parser as _;
use koregate::cli::{self, Cli};

#[tokio::main]
async fn main() -> ExitCode {
    cli::run(Cli::parse()).await
}
