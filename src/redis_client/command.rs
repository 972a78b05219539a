//! Commands, scripts and replies.

use std::fmt;
use std::sync::Arc;

use aws_lc_rs::digest;
use bytes::Bytes;

use super::ConnectionError;
use super::reply_limit::TOO_LARGE;
use crate::hex;

/// A command for Redis.
///
/// The first argument is the key, by which a Cluster finds the node; of `EVAL` and `EVALSHA` it is the third.
#[derive(Clone, PartialEq, Eq)]
pub struct Command {
    pub(super) name: &'static str,
    pub(super) arguments: Vec<Bytes>,
    /// The node of a Cluster that runs it; `None` if the key decides.
    pub(super) node: Option<ClusterNode>,
}

/// A node of a Cluster.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct ClusterNode {
    pub(super) host: Arc<str>,
    pub(super) port: u16,
}

impl Command {
    /// A command without arguments.
    pub fn new(name: &'static str) -> Self {
        Self { name, arguments: Vec::new(), node: None }
    }

    /// The command with one more argument.
    #[must_use]
    pub fn arg(mut self, argument: impl Into<Bytes>) -> Self {
        self.arguments.push(argument.into());
        self
    }

    /// The command for one node of a Cluster; `None` leaves it to the key.
    pub(super) fn at(self, node: Option<ClusterNode>) -> Self {
        Self { node, ..self }
    }

    /// The command with more arguments.
    #[must_use]
    pub fn args<A: Into<Bytes>>(mut self, arguments: impl IntoIterator<Item = A>) -> Self {
        self.arguments.extend(arguments.into_iter().map(Into::into));
        self
    }
}

/// Shows no argument, because arguments contain personal data.
impl fmt::Debug for Command {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} with {} arguments", self.name, self.arguments.len())
    }
}

/// The reply to one command.
#[derive(Clone, PartialEq, Eq)]
pub enum Reply {
    /// No value.
    Nil,
    /// An integer.
    Integer(i64),
    /// A value.
    Bytes(Bytes),
    /// A status, such as `OK`.
    Status(String),
    /// Several replies.
    Array(Vec<Reply>),
    /// The command failed: the code of the error and its text, such as `WRONGTYPE Operation against …`. The code `LINK`
    /// means that the command's node of a Cluster was not reached. Quotes no argument of the command.
    Error(String),
}

impl Reply {
    /// Whether the reply is an error with this code.
    pub fn is_error(&self, code: &str) -> bool {
        matches!(self, Self::Error(text) if text.split(' ').next() == Some(code))
    }

    /// An error, whose text is cut where Redis quotes the arguments of an unknown command.
    pub(super) fn error(code: &str, details: Option<&str>) -> Self {
        let details = details.unwrap_or_default();
        let details = details.find("with args beginning with").map_or(details, |at| &details[..at]);
        Self::Error(format!("{code} {details}").trim_end_matches([' ', ',']).to_owned())
    }

    /// Whether the reply stands for a value that is larger than `cache.redis.max_value`.
    pub fn is_too_large(&self) -> bool {
        self.is_error(TOO_LARGE)
    }

    /// The error of a call for which the reply is of no use.
    pub fn fault(&self) -> ConnectionError {
        match self {
            Self::Error(text) => ConnectionError::NotReady(text.split(' ').next().unwrap_or_default().to_owned()),
            _ => ConnectionError::Nonsense,
        }
    }
}

/// Shows the length of values, and not the values.
impl fmt::Debug for Reply {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Nil => f.write_str("Nil"),
            Self::Integer(number) => write!(f, "Integer({number})"),
            Self::Bytes(bytes) => write!(f, "Bytes({} of them)", bytes.len()),
            Self::Status(word) => write!(f, "Status({word})"),
            Self::Array(replies) => f.debug_list().entries(replies).finish(),
            Self::Error(text) => write!(f, "Error({text})"),
        }
    }
}

/// A Lua script, and the digest by which Redis caches it.
#[derive(Clone, Debug)]
pub struct Script {
    text: &'static str,
    sha1: String,
}

impl Script {
    /// A script with this text.
    pub fn new(text: &'static str) -> Self {
        let digest = digest::digest(&digest::SHA1_FOR_LEGACY_USE_ONLY, text.as_bytes());
        Self { text, sha1: hex::encode(digest.as_ref()) }
    }

    /// The command that runs the script by its digest. The reply is `NOSCRIPT` if Redis does not know it; then it has
    /// not run.
    pub(super) fn by_name(&self, keys: &[Bytes], arguments: &[Bytes]) -> Command {
        call("EVALSHA", self.sha1.clone().into(), keys, arguments)
    }

    /// The command that runs the script by its text, which Redis caches.
    pub(super) fn by_text(&self, keys: &[Bytes], arguments: &[Bytes]) -> Command {
        call("EVAL", Bytes::from_static(self.text.as_bytes()), keys, arguments)
    }
}

fn call(name: &'static str, script: Bytes, keys: &[Bytes], arguments: &[Bytes]) -> Command {
    Command::new(name).arg(script).arg(keys.len().to_string()).args(keys.iter().chain(arguments).cloned())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn script_is_run_by_the_sha1_of_its_text() {
        // As `printf 'return 1' | sha1sum` says.
        let script = Script::new("return 1");
        assert_eq!(script.sha1, "e0e1f9fabfc9d4800c877a703b823ac0578ff8db");
        let command = script.by_name(&[Bytes::from("key")], &[Bytes::from("a"), Bytes::from("b")]);
        assert_eq!(command.name, "EVALSHA");
        assert_eq!(command.arguments, [script.sha1.as_str(), "1", "key", "a", "b"]);
    }

    #[test]
    fn debug_output_shows_no_value() {
        let command = Command::new("SET").arg("key").arg("hunter2");
        let replies = Reply::Array(vec![Reply::Bytes("hunter2".into()), Reply::Nil]);
        assert_eq!(format!("{command:?} {replies:?}"), "SET with 2 arguments [Bytes(7 of them), Nil]");
    }
}
