//! The command line.

pub mod check;
pub mod demo;
pub mod doctor;
pub mod export;
pub mod generate;
pub mod health;
pub mod key;
mod output;
mod pinned_certificate;
pub mod serve;
mod service_manager;
pub mod simulate;
pub mod span;
pub mod token;
pub mod warm;

use std::process::ExitCode;

use clap::{Parser, Subcommand};
use tracing::level_filters::LevelFilter;

use self::output::OutputError;
pub use self::output::{complain, print_clap_message};
use crate::telemetry;
use crate::telemetry::LogFormat;

/// One Kore.ai credential and one quota for all services of a company.
#[derive(Debug, Parser)]
#[command(name = "koregate", version, about, arg_required_else_help = true)]
pub struct Cli {
    /// How much to log: off, error, warn, info, debug or trace.
    ///
    /// The default is info, warn for the demo, whose screen is its own, and error for doctor.
    #[arg(long, global = true, env = "KOREGATE_LOG", value_name = "LEVEL")]
    pub log: Option<LevelFilter>,
    /// Form of log lines.
    ///
    /// The default is text at a terminal, and json otherwise.
    #[arg(long, global = true, env = "KOREGATE_LOG_FORMAT", value_name = "FORMAT")]
    pub log_format: Option<LogFormat>,
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
    /// Find out how the upstream behaves, and check Redis, the disk and certificates.
    Doctor(doctor::DoctorArgs),
    /// Ask a gateway whether it is ready.
    Health(health::HealthArgs),
    /// Wait until a gateway is ready.
    Wait(health::WaitArgs),
    /// Print the JSON Schema of the configuration.
    Schema,
    /// Print the completions for a shell.
    Completions(generate::CompletionsArgs),
    /// Write the manual pages to a directory.
    Man(generate::ManArgs),
    /// Write a span of a stream to a file; stopped and started again, it goes on.
    Export(Box<export::ExportArgs>),
    /// Fill the cache for a span of a stream, at background priority.
    Warm(Box<warm::WarmArgs>),
}

/// Runs the command.
pub async fn run(cli: Cli) -> ExitCode {
    let usual = match cli.command {
        CliCommand::Demo(_) | CliCommand::Export(_) | CliCommand::Warm(_) => LevelFilter::WARN,
        CliCommand::Doctor(_) => LevelFilter::ERROR,
        _ => LevelFilter::INFO,
    };
    telemetry::init_logs(cli.log.unwrap_or(usual), cli.log_format);
    let code = match cli.command {
        CliCommand::Demo(args) => finish(demo::run(args).await),
        CliCommand::Serve(args) => serve::run(args, cli.log).await,
        CliCommand::Check(args) => check::run(&args),
        CliCommand::Token(args) => token::run(&args),
        CliCommand::Key(args) => key::run(&args),
        CliCommand::Simulate(args) => finish(simulate::run(*args).await),
        CliCommand::Doctor(args) => doctor::run(args).await,
        CliCommand::Health(args) => health::run(args).await,
        CliCommand::Wait(args) => health::wait(args).await,
        CliCommand::Schema => generate::schema(),
        CliCommand::Completions(args) => generate::completions(&args),
        CliCommand::Man(args) => generate::man(&args),
        CliCommand::Export(args) => export::run(*args).await,
        CliCommand::Warm(args) => warm::run(*args).await,
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
