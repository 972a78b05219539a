//! `koregate check`: validates the configuration and prints the effective one.

use std::path::PathBuf;
use std::process::ExitCode;

use super::output;
use crate::config;
use crate::config::Config;

/// Validates the configuration and prints what is in force, with secrets redacted.
#[derive(Clone, Debug, clap::Args)]
pub struct CheckArgs {
    /// The configuration; without it, the environment alone.
    #[arg(long, value_name = "FILE")]
    pub config: Option<PathBuf>,
}

/// Prints the effective configuration on stdout: exit code 0. Or every fault on stderr, with its line or variable and
/// its key: exit code 2.
pub fn run(args: &CheckArgs) -> ExitCode {
    match Config::load(args.config.as_deref(), config::process_environment()) {
        Ok(config) => output::print(&config.render()),
        Err(error) => {
            output::complain(&error);
            ExitCode::from(2)
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn exit_code_tells_valid_from_invalid_configuration() {
        let dir = tempfile::tempdir().unwrap();
        let (file, secret) = (dir.path().join("koregate.toml"), dir.path().join("secret"));
        std::fs::write(&secret, "hunter2").unwrap();
        let account =
            format!("account_id = \"a\"\nclient_id = \"c\"\nclient_secret = {{ file = '{}' }}", secret.display());
        let args = CheckArgs { config: Some(file.clone()) };
        for (toml, code) in [
            (format!("[[accounts]]\n{account}"), ExitCode::SUCCESS),
            (format!("[[account]]\n{account}"), ExitCode::from(2)),
        ] {
            std::fs::write(&file, &toml).unwrap();
            assert_eq!(run(&args), code, "{toml}");
        }
    }
}
