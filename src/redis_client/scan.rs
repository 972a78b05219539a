//! All keys with a prefix, on all masters, piece by piece.

use std::collections::VecDeque;

use bytes::Bytes;

use super::command::ClusterNode;
use super::{Command, ConnectionError, RedisClient, Reply};

/// Keys that Redis visits in one call: few enough not to delay other clients.
const KEYS_PER_CALL: &str = "1000";

/// A scan of keys, one master after the other; see [`RedisClient::scan`].
///
/// Keys that exist during the whole scan are found, some of them more than once. Keys that are created, deleted or
/// moved to another node of a Cluster meanwhile may be missed.
#[derive(Debug)]
pub struct Scan {
    redis: RedisClient,
    pattern: String,
    /// The masters that are not scanned to the end, each with its cursor; `None` before they are known.
    remaining: Option<VecDeque<(Option<ClusterNode>, Bytes)>>,
}

impl RedisClient {
    /// Scans all keys that begin with `prefix`, followed by what a glob-style `pattern` of Redis matches.
    pub fn scan(&self, prefix: &str, pattern: &str) -> Scan {
        Scan::new(self.clone(), prefix, pattern)
    }
}

impl Scan {
    fn new(redis: RedisClient, prefix: &str, pattern: &str) -> Self {
        Self { redis, pattern: escaped(prefix) + pattern, remaining: None }
    }

    /// The next keys, which may be none; `None` at the end. Each call ends within `cache.redis.timeout`, and the first
    /// one within twice that.
    ///
    /// # Errors
    /// If a master does not answer or does not allow it.
    pub async fn next(&mut self) -> Result<Option<Vec<Bytes>>, ConnectionError> {
        if self.remaining.is_none() {
            let masters = self.redis.masters().await?;
            self.remaining = Some(masters.into_iter().map(|node| (node, Bytes::from_static(b"0"))).collect());
        }
        let Some((node, cursor)) = self.remaining.as_mut().and_then(VecDeque::pop_front) else { return Ok(None) };
        let command = Command::new("SCAN").arg(cursor).arg("MATCH").arg(self.pattern.clone());
        let command = command.arg("COUNT").arg(KEYS_PER_CALL).at(node.clone());
        let replies = self.redis.run(vec![command]).await?;
        let Some(Reply::Array(found)) = replies.first() else {
            return Err(replies.first().map_or(ConnectionError::Nonsense, Reply::fault));
        };
        let [Reply::Bytes(cursor), Reply::Array(keys)] = found.as_slice() else {
            return Err(ConnectionError::Nonsense);
        };
        if *cursor != "0"
            && let Some(remaining) = &mut self.remaining
        {
            remaining.push_front((node, cursor.clone()));
        }
        let key = |key: &Reply| match key {
            Reply::Bytes(key) => Some(key.clone()),
            _ => None,
        };
        Ok(Some(keys.iter().filter_map(key).collect()))
    }
}

/// The pattern that matches exactly this text.
fn escaped(text: &str) -> String {
    let mut escaped = String::with_capacity(text.len());
    for char in text.chars() {
        if matches!(char, '*' | '?' | '[' | ']' | '\\' | '^' | '-') {
            escaped.push('\\');
        }
        escaped.push(char);
    }
    escaped
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn escaped_text_has_no_active_pattern_characters() {
        assert_eq!(escaped("kore-gate:[x]*?"), "kore\\-gate:\\[x\\]\\*\\?");
    }
}
