//! The configuration of a test, as an operator would write it: TOML text, read by the code that reads an operator's.

use std::collections::BTreeMap;
use std::fmt::Write as _;

use koregate::config::Config;
use koregate_simulator::Profile;

/// What a test sets; all else has the default of the product, but for limits so high that no call waits.
///
/// ```ignore
/// Settings::default().section("window", "settle_after = '15m'\nfreshness = []")
/// ```
#[derive(Clone, Debug)]
pub(crate) struct Settings {
    account: String,
    limits: String,
    sections: BTreeMap<&'static str, String>,
    tail: String,
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
            tail: String::new(),
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

    /// Shares by this Redis, which may take a second to answer.
    pub(crate) fn redis(self, url: &str) -> Self {
        self.section("cache", &format!("redis = {{ url = '{url}', timeout = '1s' }}"))
    }

    /// The limits of each account, as a TOML array; replaces those from before.
    pub(crate) fn limits(self, limits: &str) -> Self {
        Self { limits: limits.to_owned(), ..self }
    }

    /// Adds lines to each account.
    pub(crate) fn account(mut self, lines: &str) -> Self {
        self.account.push_str(lines);
        self.account.push('\n');
        self
    }

    /// Adds whole tables, such as `[[callers]]`.
    pub(crate) fn tables(mut self, text: &str) -> Self {
        self.tail.push_str(text);
        self.tail.push('\n');
        self
    }

    /// Reads the configuration for the upstream at `base_url`, with all accounts of `profile`.
    pub(crate) fn load(&self, base_url: &str, profile: &Profile) -> Config {
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
        text += &self.tail;
        let dir = tempfile::tempdir().unwrap();
        let file = dir.path().join("koregate.toml");
        std::fs::write(&file, &text).unwrap();
        Config::load(Some(&file), environment).unwrap_or_else(|error| panic!("{error}\n{text}"))
    }
}
