//! `koregate check`: validates the configuration, as `serve` does before it starts, and prints the effective one.

use std::path::PathBuf;
use std::process::ExitCode;

use serde_json::{Value, json};

use super::output;
use crate::clock::Clock;
use crate::config;
use crate::config::{Config, ConfigError};
use crate::server::preflight;

/// Validates the configuration and prints what is in force, with secrets redacted.
#[derive(Clone, Debug, clap::Args)]
pub struct CheckArgs {
    /// The configuration; without it, the environment alone.
    #[arg(long, value_name = "FILE")]
    pub config: Option<PathBuf>,
    /// Check the configuration alone, without the files, directories and addresses that it names, apart from secrets: for
    /// a configuration that is meant for another machine.
    #[arg(long)]
    pub config_only: bool,
    /// Print one JSON object: `ok`, `errors`, each with `file`, `line`, `variable`, `key` and `message`, and `config`.
    #[arg(long)]
    pub json: bool,
    /// Touch no network. `check` never does, with this flag or without; `doctor` is the command that does.
    #[arg(long)]
    pub offline: bool,
}

/// Prints the effective configuration on stdout: exit code 0. Or every fault on stderr, with its line or variable and
/// its key: exit code 2. With `--json`, either is one object on stdout.
pub fn run(args: &CheckArgs) -> ExitCode {
    let loaded = load(args);
    if args.json {
        let code = output::print(&format!("{:#}\n", to_json(&loaded)));
        return if loaded.is_ok() { code } else { ExitCode::from(2) };
    }
    match loaded {
        Ok(config) => output::print(&config.render()),
        Err(error) => {
            output::complain(&error);
            ExitCode::from(2)
        }
    }
}

/// The configuration, if a gateway can start with it.
fn load(args: &CheckArgs) -> Result<Config, ConfigError> {
    let config = Config::load(args.config.as_deref(), config::process_environment())?;
    if !args.config_only {
        preflight(&config, &Clock::system())?;
    }
    Ok(config)
}

fn to_json(loaded: &Result<Config, ConfigError>) -> Value {
    match loaded {
        Ok(config) => json!({ "ok": true, "errors": [], "config": config.to_json() }),
        Err(error) => json!({ "ok": false, "errors": error.to_json(), "config": null }),
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
        let args = CheckArgs { config: Some(file.clone()), config_only: false, json: false, offline: true };
        for (toml, code) in [
            (format!("[[accounts]]\n{account}"), ExitCode::SUCCESS),
            (format!("[[account]]\n{account}"), ExitCode::from(2)),
        ] {
            std::fs::write(&file, &toml).unwrap();
            assert_eq!(run(&args), code, "{toml}");
        }
    }

    #[tokio::test]
    async fn check_and_serve_refuse_a_missing_file_with_the_same_code() {
        let dir = tempfile::tempdir().unwrap();
        let (file, secret) = (dir.path().join("koregate.toml"), dir.path().join("secret"));
        std::fs::write(&secret, "hunter2").unwrap();
        let toml = format!(
            "[[accounts]]\naccount_id = \"a\"\nclient_id = \"c\"\nclient_secret = {{ file = '{}' }}\n\
             [upstream]\nca_file = \"/none/ca.pem\"\n",
            secret.display()
        );
        std::fs::write(&file, toml).unwrap();
        let mut args = CheckArgs { config: Some(file.clone()), config_only: false, json: false, offline: true };
        assert_eq!(run(&args), ExitCode::from(2));
        let args_of_serve = crate::cli::serve::ServeArgs { config: Some(file) };
        assert_eq!(crate::cli::serve::run(args_of_serve, None).await, ExitCode::from(2));
        args.config_only = true;
        assert_eq!(run(&args), ExitCode::SUCCESS);
    }

    #[test]
    fn json_holds_the_configuration_or_its_faults() {
        let account =
            ["ACCOUNT_ID", "CLIENT_ID", "CLIENT_SECRET__ENV"].map(|key| format!("KOREGATE__ACCOUNTS__0__{key}"));
        let mut environment: Vec<_> = account.into_iter().map(|name| (name, "SECRET".to_owned())).collect();
        environment.push(("SECRET".to_owned(), "hunter2".to_owned()));
        let object = to_json(&Config::load(None, environment.clone()));
        assert_eq!((&object["ok"], &object["errors"]), (&json!(true), &json!([])));
        assert_eq!(object["config"]["accounts"][0]["client_secret"], "[redacted]");
        assert_eq!(object["config"]["window"]["chunk"], "1h");
        assert!(!object.to_string().contains("hunter2"));

        let dir = tempfile::tempdir().unwrap();
        let file = dir.path().join("koregate.toml");
        std::fs::write(&file, "[window]\nchunk = \"7h\"\n").unwrap();
        environment.push(("KOREGATE__SERVER__LISTEN".to_owned(), "nowhere".to_owned()));
        let object = to_json(&Config::load(Some(&file), environment));
        assert_eq!((&object["ok"], &object["config"]), (&json!(false), &json!(null)));
        let [chunk, listen] = &object["errors"].as_array().unwrap()[..] else { panic!("{object}") };
        assert_eq!(
            (&chunk["line"], &chunk["key"], &chunk["variable"]),
            (&json!(2), &json!("window.chunk"), &json!(null))
        );
        assert!(chunk["file"].as_str().unwrap().ends_with("koregate.toml"));
        assert_eq!((&listen["line"], &listen["variable"]), (&json!(null), &json!("KOREGATE__SERVER__LISTEN")));
        assert!(listen["message"].as_str().unwrap().contains("nowhere"));
    }
}
