//! Loader of a configuration. The environment overrides the file, which overrides the defaults.

use std::collections::BTreeMap;
use std::path::Path;
use std::sync::Arc;

use super::error::{ConfigProblem, Origin};
use super::keys::VARIABLE_PREFIX;
use super::table_reader::LoadContext;
use super::value_tree::{ConfigNode, Table, Value};
use super::{Config, ConfigError, NamedFiles, url, validate};

impl Config {
    /// Loads `file`, if given, with the names and values of `environment` (usually [`process_environment`]) on top.
    ///
    /// `KOREGATE__WINDOW__CHUNK` sets the key `window.chunk`, `KOREGATE__ACCOUNTS__0__CLIENT_ID` the `client_id` of the
    /// first account; a list or a table is written as in TOML. Without a file, and with no account among those
    /// variables, `KORE_HOST`, `KORE_ACCOUNT_ID`, `KORE_CLIENT_ID` and `KORE_CLIENT_SECRET` (or
    /// `KORE_CLIENT_SECRET_FILE`) make one account. Files of secrets are read here; relative paths start from the
    /// working directory.
    ///
    /// # Errors
    /// All problems that one run can find, each with its line or variable and its key.
    pub fn load(
        file: Option<&Path>,
        environment: impl IntoIterator<Item = (String, String)>,
    ) -> Result<Self, ConfigError> {
        Self::load_with_files(file, environment).config
    }

    /// As [`Config::load`], with all files that were read or could not be read.
    pub fn load_with_files(file: Option<&Path>, environment: impl IntoIterator<Item = (String, String)>) -> Loaded {
        let context = LoadContext::new(environment.into_iter().collect());
        let config = file.map(read_file).transpose().and_then(|root| Self::from_tree(root, &context));
        let named = config.as_ref().map(Self::named_files).unwrap_or_default();
        Loaded { files: NamedFiles::default().with(file).with(context.secret_files()).with(named), config }
    }

    /// Loads the tree of a file, if there is one, with the variables in `context` on top.
    ///
    /// # Errors
    /// See [`Config::load`].
    pub(super) fn from_tree(file: Option<ConfigNode>, context: &LoadContext) -> Result<Self, ConfigError> {
        let is_without_file = file.is_none();
        let mut root = file.unwrap_or_else(|| ConfigNode::empty(Origin::Nowhere));
        let settings = settings(context);
        if is_without_file && !settings.keys().any(|path| names_account(path)) {
            single_account(context, &settings, &mut root);
        }
        for (path, (variable, text)) in &settings {
            let origin = Origin::Variable(Arc::clone(variable));
            if let Err(message) = set(&mut root, path, &origin, text) {
                context.report(origin, dotted(path), message);
            }
        }
        // After a failed merge, reports of missing keys would be misleading.
        let config = if context.problem_count() == 0 { validate::config(context, root) } else { None };
        let problems = context.take_problems();
        match config {
            Some(config) if problems.is_empty() => Ok(config),
            _ => Err(ConfigError::new(problems)),
        }
    }
}

/// A configuration that was read, and its files.
#[derive(Clone, Debug)]
pub struct Loaded {
    /// The configuration, or all problems that one run can find.
    pub config: Result<Config, ConfigError>,
    /// The files that it names, as far as they are known where it is faulty.
    pub files: NamedFiles,
}

/// The environment of this process, for [`Config::load`]. Bytes that are not UTF-8 become U+FFFD, which secrets refuse.
pub fn process_environment() -> impl Iterator<Item = (String, String)> {
    std::env::vars_os().map(|(name, value)| (name.to_string_lossy().into_owned(), value.to_string_lossy().into_owned()))
}

fn read_file(file: &Path) -> Result<ConfigNode, ConfigError> {
    let path: Arc<str> = file.display().to_string().into();
    let text = std::fs::read_to_string(file).map_err(|error| ConfigProblem {
        origin: Origin::File { path: Arc::clone(&path), line: None },
        key: String::new(),
        message: format!("the configuration cannot be read: {error}"),
    })?;
    Ok(ConfigNode::from_file(&path, &text)?)
}

/// A step of the path from the root to a key.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
enum Step {
    Index(usize),
    Key(String),
}

/// The variables that set keys, with their values, sorted by the path of the key: a table before its keys, and the
/// items of a list in order.
type Settings = BTreeMap<Vec<Step>, (Arc<str>, String)>;

/// The variables that set keys. Reports keys that two variables set.
fn settings(context: &LoadContext) -> Settings {
    let mut settings = Settings::new();
    for (variable, text) in &context.environment {
        let Some(name) = variable.strip_prefix(VARIABLE_PREFIX) else { continue };
        let step = |word: &str| word.parse().map_or_else(|_| Step::Key(word.to_lowercase()), Step::Index);
        let path: Vec<Step> = name.split("__").map(step).collect();
        let key = dotted(&path);
        if let Some((other, _)) = settings.insert(path, (variable.as_str().into(), text.clone())) {
            context.report(Origin::Variable(variable.as_str().into()), key, format!("is set by {other} too"));
        }
    }
    settings
}

/// The path as in error messages: `accounts[0].client_id`.
fn dotted(path: &[Step]) -> String {
    path.iter().fold(String::new(), |key, step| match step {
        Step::Index(index) => format!("{key}[{index}]"),
        Step::Key(word) if key.is_empty() => word.clone(),
        Step::Key(word) => format!("{key}.{word}"),
    })
}

/// Whether the key at `path` defines an account, so that the `KORE_` variables are not used: an identity key of the
/// first account, or any key of another one. Other keys of the first account, such as its `token`, supplement them.
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

/// Adds the account of the `KORE_` variables to `root`, and reports the variables that are missing.
fn single_account(context: &LoadContext, settings: &Settings, root: &mut ConfigNode) {
    const NEEDED: &str = "is not set; with no file, KORE_HOST, KORE_ACCOUNT_ID, KORE_CLIENT_ID and KORE_CLIENT_SECRET \
                          (or KORE_CLIENT_SECRET_FILE) must be";
    let get = |name: &str| context.environment.get(name).filter(|value| !value.is_empty());
    let origin = |name: &str| Origin::Variable(name.into());
    let missing = |name: &str, key: &str| context.report(origin(name), key.to_owned(), NEEDED);
    let mut put = |name: &str, keys: &[&str], value: &str| {
        let step = |word: &&str| if *word == "0" { Step::Index(0) } else { Step::Key((*word).to_owned()) };
        let path: Vec<Step> = keys.iter().map(step).collect();
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
        (Some(_), Some(_)) => context.report(
            origin("KORE_CLIENT_SECRET_FILE"),
            "accounts[0].client_secret".to_owned(),
            "is set beside KORE_CLIENT_SECRET; set one of them",
        ),
    }
}

/// Sets the node at `path` to `text`, and makes tables and lists along it. A value along the path that is no table or
/// list is replaced, because the environment overrides the file.
fn set(node: &mut ConfigNode, path: &[Step], origin: &Origin, text: &str) -> Result<(), String> {
    let Some((step, rest)) = path.split_first() else {
        *node = ConfigNode { origin: origin.clone(), value: Value::Raw(text.to_owned()) };
        return Ok(());
    };
    if matches!(node.value, Value::Raw(_)) {
        // One variable sets a table and another one a key of it: the second changes the table of the first.
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
