//! What is wrong with a configuration, and where: the line of the file or the variable, and the key.
//!
//! A message may quote what was written, but never where a secret may stand: see `secret` and `url`.

use std::fmt;
use std::sync::Arc;

/// Where a value was written.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Origin {
    /// The file, and the line counted from 1; `None` where the fault is what the file does not say.
    File { path: Arc<str>, line: Option<usize> },
    /// The variable of that name.
    Variable(Arc<str>),
    /// Nowhere: there is no file, and no variable says it.
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

/// One fault.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Problem {
    pub(super) origin: Origin,
    /// The key as `accounts[0].token.lifetime`; empty where no key is at fault.
    pub(super) key: String,
    pub(super) message: String,
}

impl fmt::Display for Problem {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { origin, key, message } = self;
        if key.is_empty() { write!(f, "{origin}: {message}") } else { write!(f, "{origin}: {key}: {message}") }
    }
}

/// Why a configuration cannot be used: every fault that was found, one a line.
///
/// A line reads `koregate.toml:23: window.chunk: "1 hour" is not a duration; …`, or begins with
/// `environment KOREGATE__WINDOW__CHUNK`. It never holds what stands where a secret belongs.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{}", lines(.problems))]
pub struct ConfigError {
    problems: Vec<Problem>,
}

impl ConfigError {
    /// `problems` in the order of the file, then those of the environment. At least one.
    pub(super) fn new(mut problems: Vec<Problem>) -> Self {
        problems.sort_by_key(|problem| match &problem.origin {
            Origin::File { line, .. } => (0, line.unwrap_or(usize::MAX)),
            Origin::Variable(_) | Origin::Nowhere => (1, 0),
        });
        Self { problems }
    }
}

impl From<Problem> for ConfigError {
    fn from(problem: Problem) -> Self {
        Self { problems: vec![problem] }
    }
}

fn lines(problems: &[Problem]) -> String {
    problems.iter().map(Problem::to_string).collect::<Vec<_>>().join("\n")
}
