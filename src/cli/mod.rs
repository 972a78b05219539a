//! The command line.

pub mod check;
pub mod demo;
pub mod export;
pub mod key;
pub mod serve;
pub mod simulate;
pub mod span;
pub mod token;
pub mod warm;

use std::process::ExitCode;

use clap::{Parser, Subcommand};
use tracing::level_filters::LevelFilter;

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
    /// Write a span of a stream to a file; stopped and started again, it goes on.
    Export(Box<export::ExportArgs>),
    /// Fill the cache for a span of a stream, at background priority.
    Warm(Box<warm::WarmArgs>),
}

/// Runs the command.
pub async fn run(cli: Cli) -> ExitCode {
    let usual = match cli.command {
        CliCommand::Demo(_) | CliCommand::Export(_) | CliCommand::Warm(_) => LevelFilter::WARN,
        _ => LevelFilter::INFO,
    };
    telemetry::init_logs(cli.log.unwrap_or(usual));
    let code = match cli.command {
        CliCommand::Demo(args) => finish(demo::run(args).await),
        CliCommand::Serve(args) => serve::run(args).await,
        CliCommand::Check(args) => check::run(&args),
        CliCommand::Token(args) => token::run(&args),
        CliCommand::Key(args) => key::run(&args),
        CliCommand::Simulate(args) => finish(simulate::run(*args).await),
        CliCommand::Export(args) => export::run(*args).await,
        CliCommand::Warm(args) => warm::run(*args).await,
    };
    telemetry::write_out_logs();
    code
}

fn finish(result: anyhow::Result<()>) -> ExitCode {
    match result {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("koregate: {error:#}");
            ExitCode::FAILURE
        }
    }
}
