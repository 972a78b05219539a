//! `koregate doctor`: finds out with at most 12 calls how the upstream behaves where Kore's documentation is silent, and
//! checks Redis, the disk and certificates.
//!
//! | file | |
//! | --- | --- |
//! | `evidence` | probes, answers, and all of them so far (pure) |
//! | `plan` | the next probe (pure) |
//! | `field`, `bound`, `paging` | conclusions on the timestamp, on `to`, and on order and limits (pure) |
//! | `findings` | all conclusions, with their evidence in words (pure) |
//! | `report` | text, JSON, and the settings that follow (pure) |
//! | `investigation` | the calls, each within the quota |
//! | `checks` | Redis, disk, certificates |

mod bound;
mod checks;
mod evidence;
mod field;
mod findings;
mod investigation;
mod paging;
mod plan;
mod report;
#[cfg(test)]
mod tests;

use std::io::Write as _;
use std::path::PathBuf;
use std::process::ExitCode;

use self::investigation::Investigation;
use self::report::{DoctorReport, Subject};
use super::output::print;
use crate::config::{AccountConfig, Config, process_environment};
use crate::environment::Environment;

/// Finds out how the upstream behaves, with at most 12 calls within the quota, and prints the settings that follow.
///
/// Exit code 0 if nothing is wrong, 1 if something is, 2 if the command was used wrongly.
#[derive(Clone, Debug, clap::Args)]
pub struct DoctorArgs {
    /// The configuration; without it, the environment alone.
    #[arg(long, value_name = "FILE")]
    pub config: Option<PathBuf>,
    /// The stream to look at; needed where the account lists none.
    #[arg(long, value_name = "ID")]
    pub stream: Option<String>,
    /// The account; needed where there are several.
    #[arg(long, value_name = "ID")]
    pub account: Option<String>,
    /// Print one JSON object.
    #[arg(long)]
    pub json: bool,
    /// Make no upstream call: check Redis, the disk and certificates only.
    #[arg(long)]
    pub offline: bool,
}

/// Prints the report on stdout.
pub async fn run(args: DoctorArgs) -> ExitCode {
    let report = match examine(&args).await {
        Ok(report) => report,
        Err(error) => {
            // A closed stderr is no failure.
            let _ = writeln!(std::io::stderr(), "koregate: {error:#}");
            return ExitCode::from(2);
        }
    };
    let text = if args.json { format!("{:#}\n", report.to_json()) } else { report.to_text() };
    let printed = print(&text);
    if report.wrong().is_empty() { printed } else { ExitCode::FAILURE }
}

/// # Errors
/// If the command was used wrongly, the configuration is at fault, or a gateway holds the ledger.
async fn examine(args: &DoctorArgs) -> anyhow::Result<DoctorReport> {
    let config = Config::load(args.config.as_deref(), process_environment())?;
    let environment = Environment::default();
    if args.offline {
        return Ok(DoctorReport { upstream: None, checks: checks::run(&config, &environment).await });
    }
    let subject = subject(&config, args)?;
    let investigation = Investigation::new(&config, &subject, &environment)?;
    let checks = checks::run(&config, &environment).await;
    Ok(DoctorReport { upstream: Some(investigation.run(subject).await), checks })
}

/// The account and the stream that the arguments or the configuration name.
fn subject(config: &Config, args: &DoctorArgs) -> anyhow::Result<Subject> {
    let account = match (args.account.as_deref(), config.accounts.as_slice()) {
        (Some(id), accounts) => accounts.iter().find(|account| *account.account_id == *id),
        (None, [only]) => Some(only),
        (None, _) => anyhow::bail!("there are several accounts; choose one with --account"),
    };
    let Some(account) = account else { anyhow::bail!("no account of this id is configured") };
    let stream = args.stream.clone().or_else(|| first_stream(account));
    let Some(stream) = stream else { anyhow::bail!("the account lists no stream; name one with --stream") };
    anyhow::ensure!(account.streams.allow(&stream), "{stream:?} is none of the `streams` of the account");
    Subject::of(config, &account.account_id, &stream)
        .ok_or_else(|| anyhow::anyhow!("no account of this id is configured"))
}

/// The first stream that the configuration of an account names.
fn first_stream(account: &AccountConfig) -> Option<String> {
    let listed = account.streams.listed().next().map(ToOwned::to_owned);
    listed.or_else(|| account.stream_settings.first().map(|settings| settings.stream.to_string()))
}
