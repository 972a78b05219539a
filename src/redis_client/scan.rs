//! All keys of a kind, looked for piece by piece.

use std::collections::VecDeque;

use bytes::Bytes;

use super::command::ClusterNode;
use super::{Command, ConnectionError, RedisClient, Reply};

/// So many keys Redis looks at in one call: few enough to hold nobody else up.
const AT_ONCE: &str = "1000";

/// Looks for keys, at each master in turn; see [`RedisClient::scan`].
///
/// Keys that are there all the while are found, some of them more than once. What comes or goes meanwhile, or moves from
/// one node of a Cluster to another, may be missed.
#[derive(Debug)]
pub struct Scan {
    link: RedisClient,
    pattern: String,
    /// The masters that have not been asked to the end, each with how far it is; `None` before they are known.
    left: Option<VecDeque<(Option<ClusterNode>, Bytes)>>,
}

impl Scan {
    pub(super) fn new(link: RedisClient, prefix: &str, pattern: &str) -> Self {
        Self { link, pattern: escaped(prefix) + pattern, left: None }
    }

    /// Some more keys, perhaps none; `None` when there are no more. Each call ends within `cache.redis.timeout`, or twice
    /// that for the first one.
    ///
    /// # Errors
    /// If a master cannot be asked, or does not allow it.
    pub async fn next(&mut self) -> Result<Option<Vec<Bytes>>, ConnectionError> {
        if self.left.is_none() {
            let masters = self.link.masters().await?;
            self.left = Some(masters.into_iter().map(|node| (node, Bytes::from_static(b"0"))).collect());
        }
        let Some((node, cursor)) = self.left.as_mut().and_then(VecDeque::pop_front) else { return Ok(None) };
        let command = Command::new("SCAN").arg(cursor).arg("MATCH").arg(self.pattern.clone());
        let command = command.arg("COUNT").arg(AT_ONCE).at(node.clone());
        let replies = self.link.run(vec![command]).await?;
        let Some(Reply::Array(found)) = replies.first() else {
            return Err(replies.first().map_or(ConnectionError::Nonsense, Reply::fault));
        };
        let [Reply::Bytes(cursor), Reply::Array(keys)] = found.as_slice() else {
            return Err(ConnectionError::Nonsense);
        };
        if *cursor != "0"
            && let Some(left) = &mut self.left
        {
            left.push_front((node, cursor.clone()));
        }
        let key = |key: &Reply| match key {
            Reply::Bytes(key) => Some(key.clone()),
            _ => None,
        };
        Ok(Some(keys.iter().filter_map(key).collect()))
    }
}

/// So that a pattern means just these bytes.
fn escaped(text: &str) -> String {
    let mut escaped = String::with_capacity(text.len());
    for sign in text.chars() {
        if matches!(sign, '*' | '?' | '[' | ']' | '\\' | '^' | '-') {
            escaped.push('\\');
        }
        escaped.push(sign);
    }
    escaped
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_pattern_means_just_the_bytes_that_are_escaped() {
        assert_eq!(escaped("kore-gate:[x]*?"), "kore\\-gate:\\[x\\]\\*\\?");
    }
}
