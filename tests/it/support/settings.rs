//! The configuration of a gateway as TOML text, parsed by the product's own reader.

use std::collections::BTreeMap;
use std::fmt::Write as _;

use aws_lc_rs::digest::{SHA256, digest};
use koregate::config::{Config, ConfigError};

use super::Profile;

/// The keys that a test sets. All others have the product's defaults, except for limits that no call has to wait for.
///
/// ```ignore
/// Settings::default().section("window", "settle_after = '15m'\nfreshness = []")
/// ```
#[derive(Clone, Debug)]
pub(crate) struct Settings {
    account: String,
    limits: String,
    sections: BTreeMap<&'static str, String>,
    tables: String,
}

impl Default for Settings {
    fn default() -> Self {
        Self {
            account: String::new(),
            limits: "[{ requests = 1_000_000, per = '1m' }]".to_owned(),
            sections: BTreeMap::from([
                ("server", "listen = '127.0.0.1:0'\nadmin_listen = '127.0.0.1:0'\n".to_owned()),
                ("upstream", String::new()),
            ]),
            tables: String::new(),
        }
    }
}

impl Settings {
    /// Adds lines to a section.
    pub(crate) fn section(mut self, name: &'static str, lines: &str) -> Self {
        let section = self.sections.entry(name).or_default();
        section.push_str(lines);
        section.push('\n');
        self
    }

    /// Shares chunks and the quota through the Redis at `url`, with a timeout of a second.
    pub(crate) fn redis(self, url: &str) -> Self {
        self.redis_with(url, "")
    }

    /// The same with more keys of `cache.redis`, such as `encryption_key = { … }`.
    pub(crate) fn redis_with(self, url: &str, keys: &str) -> Self {
        let separator = if keys.is_empty() { "" } else { ", " };
        self.section("cache", &format!("redis = {{ url = '{url}', timeout = '1s'{separator}{keys} }}"))
    }

    /// Replaces the limits of each account, a TOML array.
    pub(crate) fn limits(self, limits: &str) -> Self {
        Self { limits: limits.to_owned(), ..self }
    }

    /// A limit that no test reaches, with a period of a second: a refused account reopens after one period.
    pub(crate) fn one_second_limit() -> Self {
        Self::default().limits("[{ requests = 1_000_000, per = '1s' }]")
    }

    /// Adds lines to each account.
    pub(crate) fn account(mut self, lines: &str) -> Self {
        self.account.push_str(lines);
        self.account.push('\n');
        self
    }

    /// Adds whole tables, such as `[[callers]]`.
    pub(crate) fn tables(mut self, text: &str) -> Self {
        self.tables.push_str(text);
        self.tables.push('\n');
        self
    }

    /// The TOML text for the upstream at `base_url` with all accounts of `profile`, and the environment of its secrets.
    pub(crate) fn render(&self, base_url: &str, profile: &Profile) -> (String, Vec<(String, String)>) {
        let mut text = String::new();
        let mut environment = Vec::new();
        for (number, known) in std::iter::once(&profile.account).chain(&profile.more_accounts).enumerate() {
            let (account_id, client_id) = (&known.account_id, &known.client_id);
            let (lines, limits) = (&self.account, &self.limits);
            write!(
                text,
                "[[accounts]]\naccount_id = '{account_id}'\nclient_id = '{client_id}'\n\
                 client_secret = {{ env = 'SECRET_{number}' }}\nquota = {{ limits = {limits} }}\n{lines}"
            )
            .unwrap();
            environment.push((format!("SECRET_{number}"), known.client_secret.clone()));
        }
        for (name, lines) in &self.sections {
            let base_url = if *name == "upstream" { format!("base_url = '{base_url}'\n") } else { String::new() };
            write!(text, "[{name}]\n{base_url}{lines}").unwrap();
        }
        (text + &self.tables, environment)
    }

    /// Reads the same as the product does.
    pub(crate) fn load(&self, base_url: &str, profile: &Profile) -> Config {
        self.try_load(base_url, profile).unwrap_or_else(|error| panic!("{error}\n{self:?}"))
    }

    /// The same, perhaps with faults.
    pub(crate) fn try_load(&self, base_url: &str, profile: &Profile) -> Result<Config, ConfigError> {
        let (text, environment) = self.render(base_url, profile);
        let dir = tempfile::tempdir().unwrap();
        let file = dir.path().join("koregate.toml");
        std::fs::write(&file, &text).unwrap();
        Config::load(Some(&file), environment)
    }
}

/// The SHA-256 of an API key, in hexadecimal.
pub(crate) fn key_hash(key: &str) -> String {
    let hash: Vec<String> = digest(&SHA256, key.as_bytes()).as_ref().iter().map(|byte| format!("{byte:02x}")).collect();
    hash.concat()
}

/// The table of a caller with more `lines`, for [`Settings::tables`].
pub(crate) fn caller_table(name: &str, key: &str, lines: &str) -> String {
    format!("[[callers]]\nname = '{name}'\napi_key_sha256 = '{}'\n{lines}\n", key_hash(key))
}
