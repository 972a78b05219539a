//! Problems of a configuration, each with its line or variable and its key.
//!
//! A message may quote a value, except of keys that may contain a secret: see `secret` and `url`.

use std::collections::BTreeMap;
use std::fmt;
use std::path::Path;
use std::sync::Arc;

use super::keys::variable_name;

/// The place where a value was written.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Origin {
    /// A line of the file, counted from 1; `None` if the problem is that something is absent.
    File { path: Arc<str>, line: Option<usize> },
    /// The environment variable of that name.
    Variable(Arc<str>),
    /// A configuration from the environment alone, in which no variable sets the value.
    Nowhere,
}

impl fmt::Display for Origin {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::File { path, line: Some(line) } => write!(f, "{path}:{line}"),
            Self::File { path, line: None } => f.write_str(path),
            Self::Variable(name) => write!(f, "environment {name}"),
            Self::Nowhere => f.write_str("environment"),
        }
    }
}

/// A problem in the configuration.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct ConfigProblem {
    pub(super) origin: Origin,
    /// The dotted key, as in `accounts[0].token.lifetime`; empty if the problem concerns no key.
    pub(super) key: String,
    pub(super) message: String,
}

impl ConfigProblem {
    fn to_json(&self) -> serde_json::Value {
        let Self { origin, key, message } = self;
        let (file, line, variable) = match origin {
            Origin::File { path, line } => (Some(path), *line, None),
            Origin::Variable(name) => (None, None, Some(name)),
            Origin::Nowhere => (None, None, None),
        };
        let key = Some(key).filter(|key| !key.is_empty());
        serde_json::json!({
            "file": file.map(|file| &**file),
            "line": line,
            "variable": variable.map(|name| &**name),
            "key": key,
            "message": message,
        })
    }
}

impl fmt::Display for ConfigProblem {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { origin, key, message } = self;
        if key.is_empty() { write!(f, "{origin}: {message}") } else { write!(f, "{origin}: {key}: {message}") }
    }
}

/// Where the keys of a configuration were written, for faults that are found after it was loaded.
#[derive(Clone, Debug, Default)]
pub struct KeyOrigins {
    /// The keys that are written somewhere, by their dotted names.
    pub(super) written: BTreeMap<String, Origin>,
    /// The file, if there is one.
    pub(super) file: Option<Arc<str>>,
}

impl KeyOrigins {
    /// The place where `key` is written, or where it would be written if it is absent.
    fn of(&self, key: &str) -> Origin {
        let absent = || match &self.file {
            Some(path) => Origin::File { path: path.clone(), line: None },
            None => Origin::Variable(variable_name(key).into()),
        };
        self.written.get(key).cloned().unwrap_or_else(absent)
    }

    /// The error of a configuration with these faults; `Ok` without any.
    ///
    /// # Errors
    /// If there is a fault.
    pub fn refuse(&self, faults: Vec<KeyFault>) -> Result<(), ConfigError> {
        let problem =
            |KeyFault { key, message }: KeyFault| ConfigProblem { origin: self.of(key), key: key.to_owned(), message };
        let problems: Vec<_> = faults.into_iter().map(problem).collect();
        if problems.is_empty() { Ok(()) } else { Err(ConfigError::new(problems)) }
    }
}

/// A key whose value cannot be used on this machine, and why.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct KeyFault {
    /// The dotted key.
    pub key: &'static str,
    /// The reason, without secrets.
    pub message: String,
}

/// Context of an error that says which key is at fault, for [`anyhow::Error::context`].
#[derive(Clone, Debug)]
pub struct FaultyKey {
    /// The dotted key.
    pub key: &'static str,
    /// Subject of the fault, such as the path.
    pub subject: String,
}

impl fmt::Display for FaultyKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}: {}", self.key, self.subject)
    }
}

/// All problems of a configuration that cannot be used, one per line.
///
/// A line reads `koregate.toml:23: window.chunk: "1 hour" is not a duration; …`, or begins with
/// `environment KOREGATE__WINDOW__CHUNK`. No line contains the value of a key that takes a secret.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{}", lines(.problems))]
pub struct ConfigError {
    problems: Vec<ConfigProblem>,
}

impl ConfigError {
    /// Sorts `problems`, at least one: those of the file by line, then those of the environment.
    pub(super) fn new(mut problems: Vec<ConfigProblem>) -> Self {
        problems.sort_by_key(|problem| match &problem.origin {
            Origin::File { line, .. } => (0, line.unwrap_or(usize::MAX)),
            Origin::Variable(_) | Origin::Nowhere => (1, 0),
        });
        Self { problems }
    }

    /// The error of a file that cannot be used as a whole.
    pub fn of_file(path: &Path, message: &str) -> Self {
        let origin = Origin::File { path: path.display().to_string().into(), line: None };
        ConfigProblem { origin, key: String::new(), message: message.to_owned() }.into()
    }

    /// The problems as a JSON list of objects: `file` and `line`, or `variable`; `key`, and `message`. What is not known
    /// is null.
    pub fn to_json(&self) -> serde_json::Value {
        self.problems.iter().map(ConfigProblem::to_json).collect()
    }
}

impl From<ConfigProblem> for ConfigError {
    fn from(problem: ConfigProblem) -> Self {
        Self { problems: vec![problem] }
    }
}

fn lines(problems: &[ConfigProblem]) -> String {
    problems.iter().map(ConfigProblem::to_string).collect::<Vec<_>>().join("\n")
}
