//! Where a configuration comes from: defaults, then the file, then the environment; the later wins.

use std::collections::BTreeMap;
use std::path::Path;
use std::sync::Arc;

use super::error::{Origin, Problem};
use super::keys::PREFIX;
use super::table_reader::Reader;
use super::value_tree::{ConfigNode, Table, Value};
use super::{Config, ConfigError, url, validate};

impl Config {
    /// The configuration of `file`, if there is one, as changed by `environment` (names and values; the caller passes
    /// [`process_environment`], a test what it likes).
    ///
    /// `KOREGATE__WINDOW__CHUNK` stands for the key `window.chunk`, `KOREGATE__ACCOUNTS__0__CLIENT_ID` for that of the
    /// first account; a list or a table is written as in TOML. Without a file, and with no account among those
    /// variables, `KORE_HOST`, `KORE_ACCOUNT_ID`, `KORE_CLIENT_ID` and `KORE_CLIENT_SECRET` (or
    /// `KORE_CLIENT_SECRET_FILE`) make one account. Files of secrets are read here; relative paths start from the
    /// working directory.
    ///
    /// # Errors
    /// All faults that can be found in one go, each with its line or variable and its key.
    pub fn load(
        file: Option<&Path>,
        environment: impl IntoIterator<Item = (String, String)>,
    ) -> Result<Self, ConfigError> {
        let reader = Reader::new(environment.into_iter().collect());
        let mut root = match file {
            Some(file) => read_file(file)?,
            None => ConfigNode::empty(Origin::Nowhere),
        };
        let settings = settings(&reader);
        if file.is_none() && !settings.keys().any(|path| names_account(path)) {
            single_account(&reader, &settings, &mut root);
        }
        for (path, (variable, text)) in &settings {
            let origin = Origin::Variable(Arc::clone(variable));
            if let Err(message) = set(&mut root, path, &origin, text) {
                reader.note(origin, dotted(path), message);
            }
        }
        // What is missing from a tree that could not be put together would be misleading.
        let config = if reader.faults() == 0 { validate::config(&reader, root) } else { None };
        let problems = reader.into_problems();
        match config {
            Some(config) if problems.is_empty() => Ok(config),
            _ => Err(ConfigError::new(problems)),
        }
    }
}

/// The environment of this process, for [`Config::load`]. What is not UTF-8 is replaced, and refused where it matters.
pub fn process_environment() -> impl Iterator<Item = (String, String)> {
    std::env::vars_os().map(|(name, value)| (name.to_string_lossy().into_owned(), value.to_string_lossy().into_owned()))
}

fn read_file(file: &Path) -> Result<ConfigNode, ConfigError> {
    let path: Arc<str> = file.display().to_string().into();
    let text = std::fs::read_to_string(file).map_err(|error| Problem {
        origin: Origin::File { path: Arc::clone(&path), line: None },
        key: String::new(),
        message: format!("the configuration cannot be read: {error}"),
    })?;
    Ok(ConfigNode::from_file(&path, &text)?)
}

/// One step of the way from the root to a key.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
enum Step {
    Index(usize),
    Key(String),
}

/// The variables that stand for keys, by the way to the key: a table comes before its keys, the first of a list before
/// the second.
type Settings = BTreeMap<Vec<Step>, (Arc<str>, String)>;

fn settings(reader: &Reader) -> Settings {
    let mut settings = Settings::new();
    for (variable, text) in &reader.environment {
        let Some(name) = variable.strip_prefix(PREFIX) else { continue };
        let step = |word: &str| word.parse().map_or_else(|_| Step::Key(word.to_lowercase()), Step::Index);
        let path: Vec<Step> = name.split("__").map(step).collect();
        let key = dotted(&path);
        if let Some((other, _)) = settings.insert(path, (variable.as_str().into(), text.clone())) {
            reader.note(Origin::Variable(variable.as_str().into()), key, format!("is set by {other} too"));
        }
    }
    settings
}

fn dotted(path: &[Step]) -> String {
    path.iter().fold(String::new(), |key, step| match step {
        Step::Index(index) => format!("{key}[{index}]"),
        Step::Key(word) if key.is_empty() => word.clone(),
        Step::Key(word) => format!("{key}.{word}"),
    })
}

/// Whether the variable says which account it is, or of a second one; one that only tunes the first (its `token`, say)
/// can go with the `KORE_` variables.
fn names_account(path: &[Step]) -> bool {
    const IDENTITY: [&str; 3] = ["account_id", "client_id", "client_secret"];
    match path {
        [Step::Key(accounts), Step::Index(0), Step::Key(key), ..] if accounts == "accounts" => {
            IDENTITY.contains(&key.as_str())
        }
        [Step::Key(accounts), ..] => accounts == "accounts",
        _ => false,
    }
}

/// Puts the account of the `KORE_` variables into `root`, and notes which of them are missing.
fn single_account(reader: &Reader, settings: &Settings, root: &mut ConfigNode) {
    const NEEDED: &str = "is not set; with no file, KORE_HOST, KORE_ACCOUNT_ID, KORE_CLIENT_ID and KORE_CLIENT_SECRET \
                          (or KORE_CLIENT_SECRET_FILE) must be";
    let get = |name: &str| reader.environment.get(name).filter(|value| !value.is_empty());
    let origin = |name: &str| Origin::Variable(name.into());
    let missing = |name: &str, key: &str| reader.note(origin(name), key.to_owned(), NEEDED);
    let mut put = |name: &str, way: &[&str], value: &str| {
        let step = |word: &&str| if *word == "0" { Step::Index(0) } else { Step::Key((*word).to_owned()) };
        let path: Vec<Step> = way.iter().map(step).collect();
        set(root, &path, &origin(name), value)
            .expect("the tree is empty, so every key of the first account can be set");
    };

    let base_url = [Step::Key("upstream".to_owned()), Step::Key("base_url".to_owned())];
    match get("KORE_HOST") {
        Some(host) => put("KORE_HOST", &["upstream", "base_url"], &url::from_host(host)),
        None if settings.contains_key(base_url.as_slice()) => {}
        None => missing("KORE_HOST", "upstream.base_url"),
    }
    for (name, key) in [("KORE_ACCOUNT_ID", "account_id"), ("KORE_CLIENT_ID", "client_id")] {
        match get(name) {
            Some(value) => put(name, &["accounts", "0", key], value),
            None => missing(name, &format!("accounts[0].{key}")),
        }
    }
    match (get("KORE_CLIENT_SECRET"), get("KORE_CLIENT_SECRET_FILE")) {
        (Some(_), None) => {
            put("KORE_CLIENT_SECRET", &["accounts", "0", "client_secret", "env"], "KORE_CLIENT_SECRET");
        }
        (None, Some(file)) => put("KORE_CLIENT_SECRET_FILE", &["accounts", "0", "client_secret", "file"], file),
        (None, None) => missing("KORE_CLIENT_SECRET", "accounts[0].client_secret"),
        (Some(_), Some(_)) => reader.note(
            origin("KORE_CLIENT_SECRET_FILE"),
            "accounts[0].client_secret".to_owned(),
            "is set beside KORE_CLIENT_SECRET; set one of them",
        ),
    }
}

/// Sets what lies at the end of `path` to `text`, making tables and lists on the way; what is no table and stands in
/// the way gives way, as the environment wins over the file.
fn set(node: &mut ConfigNode, path: &[Step], origin: &Origin, text: &str) -> Result<(), String> {
    let Some((step, rest)) = path.split_first() else {
        *node = ConfigNode { origin: origin.clone(), value: Value::Raw(text.to_owned()) };
        return Ok(());
    };
    if matches!(node.value, Value::Raw(_)) {
        // A variable for the whole, and one for a part of it: the part changes the whole.
        *node = node.clone().structured()?;
    }
    match step {
        Step::Key(key) => {
            if !matches!(node.value, Value::Table(_)) {
                *node = ConfigNode::empty(origin.clone());
            }
            let Value::Table(table) = &mut node.value else { return Ok(()) };
            set(table.entry(key.clone()).or_insert_with(|| ConfigNode::empty(origin.clone())), rest, origin, text)
        }
        Step::Index(index) => {
            if !matches!(node.value, Value::Array(_)) {
                *node = ConfigNode { origin: origin.clone(), value: Value::Array(Vec::new()) };
            }
            let Value::Array(items) = &mut node.value else { return Ok(()) };
            if *index == items.len() {
                items.push(ConfigNode { origin: origin.clone(), value: Value::Table(Table::new()) });
            }
            match items.get_mut(*index) {
                Some(item) => set(item, rest, origin, text),
                None => Err(format!("there is no number {} before it; the first is number 0", items.len())),
            }
        }
    }
}
