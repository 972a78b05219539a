//! The command line.

pub mod check;
pub mod demo;
pub mod key;
mod output;
pub mod serve;
pub mod simulate;
pub mod token;

use std::process::ExitCode;

use clap::{Parser, Subcommand};
use tracing::level_filters::LevelFilter;

use self::output::OutputError;
pub use self::output::{complain, print_clap_message};
use crate::telemetry;

/// One Kore.ai credential and one quota for all services of a company.
#[derive(Debug, Parser)]
#[command(name = "koregate", version, about, arg_required_else_help = true)]
pub struct Cli {
    /// How much to log: off, error, warn, info, debug or trace.
    ///
    /// The default is info, and warn for the demo, whose screen is its own.
    #[arg(long, global = true, env = "KOREGATE_LOG", value_name = "LEVEL")]
    pub log: Option<LevelFilter>,
    /// Command to run.
    #[command(subcommand)]
    pub command: CliCommand,
}

/// Command to run.
#[derive(Debug, Subcommand)]
pub enum CliCommand {
    /// Show what koregate does, with a simulated Kore; needs nothing.
    Demo(demo::DemoArgs),
    /// Run the gateway.
    Serve(serve::ServeArgs),
    /// Check a configuration, and print what is in effect with all secrets left out.
    Check(check::CheckArgs),
    /// Mint a token for an account, or explain one.
    Token(token::TokenArgs),
    /// Make an API key for a caller, and its hash for the configuration.
    Key(key::KeyArgs),
    /// Run a simulator of the upstream.
    Simulate(Box<simulate::SimulateArgs>),
}

/// Runs the command.
pub async fn run(cli: Cli) -> ExitCode {
    let usual = if matches!(cli.command, CliCommand::Demo(_)) { LevelFilter::WARN } else { LevelFilter::INFO };
    telemetry::init_logs(cli.log.unwrap_or(usual));
    let code = match cli.command {
        CliCommand::Demo(args) => finish(demo::run(args).await),
        CliCommand::Serve(args) => serve::run(args).await,
        CliCommand::Check(args) => check::run(&args),
        CliCommand::Token(args) => token::run(&args),
        CliCommand::Key(args) => key::run(&args),
        CliCommand::Simulate(args) => finish(simulate::run(*args).await),
    };
    telemetry::write_out_logs();
    code
}

/// The exit code of a command that runs until a signal ends it. If the reader of its output has gone, it ends quietly.
fn finish(result: anyhow::Result<()>) -> ExitCode {
    match result {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) if matches!(error.downcast_ref(), Some(OutputError::Closed)) => ExitCode::SUCCESS,
        Err(error) => {
            complain(&format_args!("koregate: {error:#}"));
            ExitCode::FAILURE
        }
    }
}
