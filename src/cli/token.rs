//! `koregate token`: mints a token, or explains one.

use std::fmt::{self, Write as _};
use std::io::Read as _;
use std::path::PathBuf;
use std::process::ExitCode;

use jsonwebtoken::{Algorithm, DecodingKey};
use secrecy::{ExposeSecret as _, SecretString};
use serde_json::Value;

use super::output;
use crate::clock::Clock;
use crate::config;
use crate::config::{AccountConfig, Config};
use crate::token::mint::mint;
use crate::units::print_duration_roughly;
use crate::window::Timestamp;

/// Mints a token for an account, or explains one.
#[derive(Clone, Debug, clap::Args)]
pub struct TokenArgs {
    /// The configuration; without it, the environment alone.
    #[arg(long, value_name = "FILE")]
    pub config: Option<PathBuf>,
    /// The account; needed to mint where there are several.
    #[arg(long, value_name = "ID")]
    pub account: Option<String>,
    /// A token to explain, or `-` to read it from stdin, where other users of the machine cannot see it.
    pub token: Option<SecretString>,
}

/// Without a token, mints one: the bare token on stdout, what it says on stderr. With one, explains it on stdout; its
/// signature is checked if there is a configuration. The secret is never printed.
///
/// Exit code 2 if the configuration is at fault or the account is not in it, 1 if the token is no JWT.
pub fn run(args: &TokenArgs) -> ExitCode {
    let environment = config::process_environment().collect();
    let token = match args.token.as_ref().map(SecretString::expose_secret) {
        Some("-") => {
            let mut text = String::new();
            if let Err(error) = std::io::stdin().read_to_string(&mut text) {
                output::complain(&format_args!("the token cannot be read from stdin: {error}"));
                return ExitCode::FAILURE;
            }
            Some(text)
        }
        token => token.map(ToOwned::to_owned),
    };
    match mint_or_explain(args, token.as_deref(), environment, Clock::system().now()) {
        Ok(Output { stdout, stderr }) => {
            if !stderr.is_empty() {
                output::complain(&stderr.trim_end());
            }
            output::print(&stdout)
        }
        Err(Failure { code, message }) => {
            output::complain(&message);
            ExitCode::from(code)
        }
    }
}

/// Text for stdout and stderr.
struct Output {
    stdout: String,
    stderr: String,
}

/// Reason why there is no output.
#[derive(Debug)]
struct Failure {
    code: u8,
    message: String,
}

impl Failure {
    fn config(message: &dyn fmt::Display) -> Self {
        Self { code: 2, message: message.to_string() }
    }

    fn token(message: &dyn fmt::Display) -> Self {
        Self { code: 1, message: message.to_string() }
    }
}

/// Mints a token, or explains `token`.
fn mint_or_explain(
    args: &TokenArgs,
    token: Option<&str>,
    environment: Vec<(String, String)>,
    now: Timestamp,
) -> Result<Output, Failure> {
    let config = Config::load(args.config.as_deref(), environment);
    let Some(token) = token else {
        let config = config.map_err(|error| Failure::config(&error))?;
        let account = only_account(&select_accounts(&config, args)?)?;
        let minted = mint(account, now).map_err(|error| Failure::token(&error))?;
        let token = minted.token.expose_secret();
        let stderr = explain(token, Some(&[account]), now).map_err(|error| Failure::token(&error))?;
        return Ok(Output { stdout: format!("{token}\n"), stderr });
    };
    let stdout = match config {
        Ok(config) => explain(token, Some(&select_accounts(&config, args)?), now),
        // A configuration that is named explicitly must be usable.
        Err(error) if args.config.is_some() || args.account.is_some() => return Err(Failure::config(&error)),
        Err(_) => explain(token, None, now),
    };
    Ok(Output { stdout: stdout.map_err(|error| Failure::token(&error))?, stderr: String::new() })
}

/// The requested account, or all.
fn select_accounts<'a>(config: &'a Config, args: &TokenArgs) -> Result<Vec<&'a AccountConfig>, Failure> {
    let is_selected = |account: &&AccountConfig| args.account.as_deref().is_none_or(|id| *account.account_id == *id);
    let accounts: Vec<_> = config.accounts.iter().filter(is_selected).collect();
    if accounts.is_empty() { Err(Failure::config(&"no account of this id is configured")) } else { Ok(accounts) }
}

fn only_account<'a>(accounts: &[&'a AccountConfig]) -> Result<&'a AccountConfig, Failure> {
    let [account] = accounts else {
        let ids: Vec<&str> = accounts.iter().map(|account| &*account.account_id).collect();
        let message = format!("there are several accounts; choose one with --account: {}", ids.join(", "));
        return Err(Failure::config(&message));
    };
    Ok(account)
}

/// Explains `token` in lines; `accounts` are those whose secret may have signed it, `None` if unknown. The error does
/// not quote the token.
fn explain(token: &str, accounts: Option<&[&AccountConfig]>, now: Timestamp) -> Result<String, &'static str> {
    const NO_JWT: &str = "this is not a JWT: three parts in base64url, parted by dots, the first two JSON objects";
    let token = token.trim();
    let token = match token.split_at_checked("Bearer ".len()) {
        Some((scheme, rest)) if scheme.eq_ignore_ascii_case("Bearer ") => rest.trim(),
        _ => token,
    };
    let [header, payload, signature] = token.split('.').collect::<Vec<_>>()[..] else { return Err(NO_JWT) };
    let (header, claims) = json(header).zip(json(payload)).ok_or(NO_JWT)?;

    let mut out = String::new();
    let mut line = |name: &str, text: &str| {
        writeln!(out, "{name:<10} {text}").expect("a String takes all that is written to it");
    };
    match header["alg"].as_str() {
        Some("HS256") => line("algorithm", "HS256"),
        Some(other) => line("algorithm", &format!("{other:?}; Kore expects HS256")),
        None => line("algorithm", "none is named; Kore expects HS256"),
    }
    line("claims", &format!("{claims:#}"));
    if !claims["appId"].is_string() {
        line("", "the claim appId is missing, without which Kore refuses it");
    }
    line("issued", &describe_issued(&claims["iat"], now));
    line("expires", &describe_expiry(&claims["exp"], now));
    line(
        "jti",
        if claims["jti"].is_null() {
            "none; an app that enforces JTI refuses it"
        } else {
            "yes; if the app enforces JTI, it serves one call"
        },
    );
    let message = &token[..token.len() - signature.len() - 1];
    line("signature", &check_signature(message, signature, accounts));
    Ok(out)
}

/// A part of a JWT as a JSON object.
fn json(part: &str) -> Option<Value> {
    // The library's types do not cover all headers and claims, so both parts are parsed as generic claims.
    jsonwebtoken::dangerous::insecure_decode_claims::<Value>(format!(".{part}.")).ok().filter(Value::is_object)
}

fn describe_issued(iat: &Value, now: Timestamp) -> String {
    match (iat, parse_timestamp(iat)) {
        (Value::Null, _) => "not stated (no iat)".to_owned(),
        (_, None) => "iat is no number of seconds".to_owned(),
        (_, Some(at)) if at > now => format!("{at}, in {}: a clock is wrong", print_duration_roughly(at.since(now))),
        (_, Some(at)) => format!("{at}, {} ago", print_duration_roughly(now.since(at))),
    }
}

fn describe_expiry(exp: &Value, now: Timestamp) -> String {
    match (exp, parse_timestamp(exp)) {
        (Value::Null, _) => "never (no exp)".to_owned(),
        (_, None) => "exp is no number of seconds".to_owned(),
        (_, Some(at)) if at > now => format!("{at}, in {}", print_duration_roughly(at.since(now))),
        (_, Some(at)) => format!("{at}, EXPIRED {} ago", print_duration_roughly(now.since(at))),
    }
}

/// A NumericDate of a JWT: seconds; a fraction is dropped.
fn parse_timestamp(seconds: &Value) -> Option<Timestamp> {
    #[expect(clippy::cast_possible_truncation, reason = "a float beyond an i64 saturates, as a timestamp does")]
    let seconds = seconds.as_i64().or_else(|| seconds.as_f64().map(|seconds| seconds as i64))?;
    Some(Timestamp::from_seconds(seconds))
}

/// The account whose secret signed the token.
fn check_signature(message: &str, signature: &str, accounts: Option<&[&AccountConfig]>) -> String {
    let Some(accounts) = accounts else {
        return "not checked, for want of a configuration".to_owned();
    };
    let signed = |account: &&&AccountConfig| {
        let key = DecodingKey::from_secret(account.client_secret.expose_secret().as_bytes());
        jsonwebtoken::crypto::verify(signature, message.as_bytes(), &key, Algorithm::HS256).unwrap_or(false)
    };
    match (accounts.iter().find(signed), accounts) {
        (Some(account), _) => format!("good: made with the secret of account {}", account.account_id),
        (None, [account]) => format!("BAD: not made with the secret of account {}", account.account_id),
        (None, _) => "BAD: not made with the secret of any configured account".to_owned(),
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;

    const NOW: Timestamp = Timestamp::from_seconds(1_700_000_000);

    fn environment(secret: &str) -> Vec<(String, String)> {
        let variables = [
            ("KORE_HOST", "platform.kore.ai"),
            ("KORE_ACCOUNT_ID", "acc-1"),
            ("KORE_CLIENT_ID", "cs-1"),
            ("KORE_CLIENT_SECRET", secret),
        ];
        variables.iter().map(|(name, value)| ((*name).to_owned(), (*value).to_owned())).collect()
    }

    fn with(mut environment: Vec<(String, String)>, name: &str, value: &str) -> Vec<(String, String)> {
        environment.push((name.to_owned(), value.to_owned()));
        environment
    }

    const NO_ARGS: TokenArgs = TokenArgs { config: None, account: None, token: None };

    fn minted() -> String {
        mint_or_explain(&NO_ARGS, None, environment("hunter2"), NOW).unwrap().stdout.trim_end().to_owned()
    }

    fn explained(token: &str, environment: Vec<(String, String)>, after: Duration) -> String {
        let output = mint_or_explain(&NO_ARGS, Some(token), environment, NOW + after).unwrap();
        assert_eq!(output.stderr, "");
        assert!(!output.stdout.contains("hunter2"), "{}", output.stdout);
        output.stdout
    }

    /// A token with these parts and an arbitrary signature.
    fn forged(header: &Value, claims: &Value) -> String {
        let key = jsonwebtoken::EncodingKey::from_secret(b"other");
        let part = |value| {
            let token = jsonwebtoken::encode(&jsonwebtoken::Header::default(), value, &key).unwrap();
            token.split('.').nth(1).unwrap().to_owned()
        };
        format!("{}.{}.c2lnbmF0dXJl", part(header), part(claims))
    }

    fn line<'a>(explained: &'a str, name: &str) -> &'a str {
        explained.lines().find(|line| line.starts_with(name)).unwrap_or_else(|| panic!("no {name} in {explained}"))
    }

    #[test]
    fn minted_token_is_bare_and_explained_on_stderr() {
        let output = mint_or_explain(&NO_ARGS, None, environment("hunter2"), NOW).unwrap();
        assert_eq!(output.stdout.matches('.').count(), 2);
        assert_eq!(output.stdout.lines().count(), 1);
        assert!(output.stderr.contains("\"appId\": \"cs-1\""), "{}", output.stderr);
        assert_eq!(line(&output.stderr, "issued"), "issued     2023-11-14T22:13:20Z, 0s ago");
        assert_eq!(line(&output.stderr, "expires"), "expires    2023-11-14T23:13:20Z, in 1h");
        assert!(!output.stderr.contains("hunter2") && !output.stdout.contains("hunter2"));
    }

    #[test]
    fn explanation_states_age_expiry_and_signature() {
        let token = minted();
        let later = Duration::from_secs(303);
        let good = explained(&format!("bearer {token}\n"), environment("hunter2"), later);
        assert_eq!(line(&good, "algorithm"), "algorithm  HS256");
        assert_eq!(line(&good, "issued"), "issued     2023-11-14T22:13:20Z, 5m 3s ago");
        assert_eq!(line(&good, "expires"), "expires    2023-11-14T23:13:20Z, in 54m 57s");
        assert!(line(&good, "jti").contains("none"));
        assert_eq!(line(&good, "signature"), "signature  good: made with the secret of account acc-1");

        let other = explained(&token, environment("another"), Duration::from_secs(90_061));
        assert_eq!(line(&other, "expires"), "expires    2023-11-14T23:13:20Z, EXPIRED 1d ago");
        assert_eq!(line(&other, "signature"), "signature  BAD: not made with the secret of account acc-1");

        let unchecked = explained(&token, Vec::new(), later);
        assert_eq!(line(&unchecked, "signature"), "signature  not checked, for want of a configuration");
    }

    #[test]
    fn tampered_token_has_a_bad_signature() {
        let token = minted();
        let (_, signature) = token.rsplit_once('.').unwrap();
        let raised = forged(&serde_json::json!({"alg": "HS256"}), &serde_json::json!({"appId": "cs-1"}));
        let tampered = raised.replace("c2lnbmF0dXJl", signature);
        assert!(line(&explained(&tampered, environment("hunter2"), Duration::ZERO), "signature").contains("BAD"));
    }

    #[test]
    fn explanation_names_what_kore_would_refuse() {
        let strange =
            forged(&serde_json::json!({"alg": "none"}), &serde_json::json!({"appid": 1, "jti": "a", "iat": "x"}));
        let output = explained(&strange, environment("hunter2"), Duration::ZERO);
        assert!(line(&output, "algorithm").contains("\"none\"; Kore expects HS256"));
        assert!(output.contains("appId is missing"), "{output}");
        assert!(line(&output, "issued").contains("no number"));
        assert!(line(&output, "expires").contains("never"));
        assert!(line(&output, "jti").contains("yes"));
        assert!(line(&output, "signature").contains("BAD"));
        let float = forged(&serde_json::json!({}), &serde_json::json!({"exp": 1_700_000_061.9}));
        assert!(line(&explained(&float, Vec::new(), Duration::ZERO), "expires").ends_with("in 1m 1s"));
    }

    #[test]
    fn malformed_token_is_refused_unquoted() {
        for text in ["hunter2", "", "hunter2.a.b", "a.b", "Bearer ", "bearer", "e30.W10.a", "e30.e30.a.b", "é.é.é"] {
            let failed = mint_or_explain(&NO_ARGS, Some(text), Vec::new(), NOW).err().unwrap();
            assert_eq!(failed.code, 1, "{text}");
            assert!(failed.message.contains("not a JWT") && !failed.message.contains("hunter2"), "{failed:?}");
        }
    }

    #[test]
    fn account_must_be_chosen_among_several() {
        let accounts = "[{ account_id = \"acc-1\", client_id = \"cs-1\", client_secret = { env = \"A\" } }, \
                        { account_id = \"acc-2\", client_id = \"cs-2\", client_secret = { env = \"B\" } }]";
        let two = with(with(Vec::new(), "A", "hunter2"), "B", "hunter22");
        let two = with(two, "KOREGATE__ACCOUNTS", accounts);
        let failed = mint_or_explain(&NO_ARGS, None, two.clone(), NOW).err().unwrap();
        assert_eq!((failed.code, failed.message.contains("acc-1, acc-2")), (2, true));

        let args = TokenArgs { account: Some("acc-2".to_owned()), ..NO_ARGS };
        let minted = mint_or_explain(&args, None, two.clone(), NOW).unwrap();
        assert!(minted.stderr.contains("\"appId\": \"cs-2\""));
        let output = explained(&minted.stdout, two.clone(), Duration::ZERO);
        assert_eq!(line(&output, "signature"), "signature  good: made with the secret of account acc-2");

        let args = TokenArgs { account: Some("acc-3".to_owned()), ..NO_ARGS };
        for text in [None, Some("e30.e30.")] {
            let failed = mint_or_explain(&args, text, two.clone(), NOW).err().unwrap();
            assert_eq!((failed.code, failed.message.contains("no account")), (2, true));
        }
    }

    #[test]
    fn named_configuration_must_be_valid() {
        let args = TokenArgs { config: Some("no-such-file.toml".into()), ..NO_ARGS };
        let failed = mint_or_explain(&args, Some("e30.e30."), Vec::new(), NOW).err().unwrap();
        assert_eq!((failed.code, failed.message.contains("no-such-file.toml")), (2, true));
        assert_eq!(mint_or_explain(&NO_ARGS, None, Vec::new(), NOW).err().unwrap().code, 2);
    }
}
