//! Markers in Redis that chunks were divided by a wrong timestamp. They outlive the process that found it out, and tell
//! all replicas.

use std::sync::Arc;
use std::time::Duration;

use super::{Inner, RedisTier};
use crate::cache::window_field::FieldScope;
use crate::redis_client::{Command, Reply};
use crate::request::Series;

/// Pause between two attempts to write a marker.
const WRITE_RETRY_INTERVAL: Duration = Duration::from_secs(1);

impl RedisTier {
    /// Marks the `window.field` of a scope as wrong: no replica uses its chunks any more.
    pub(in crate::cache) fn mark_field_wrong(&self, scope: &FieldScope) {
        self.inner.clone().write_marker(Command::new("SET").arg(self.inner.keys.wrong_field(scope)).arg("1"));
    }

    /// Marks a series whose items lie outside of the requested time: no replica uses its chunks any more.
    pub(in crate::cache) fn mark_series_shifted(&self, series: &Series) {
        let (key, ttl) = (self.inner.keys.shifted_series(series), self.inner.ttl.as_secs().max(1));
        // No chunk is kept for longer.
        self.inner.clone().write_marker(Command::new("SET").arg(key).arg("1").arg("EX").arg(ttl.to_string()));
    }

    /// Whether the chunks of a series may be read: no marker forbids it, and the purges of the account are known.
    pub(in crate::cache) async fn is_usable(&self, series: &Series) -> bool {
        let scope = self.inner.keys.field_scope(&series.account, &series.stream);
        self.inner.is_usable(&scope, Some(series)).await == Some(true)
    }
}

impl Inner {
    /// Runs a command that changes a marker until Redis has taken it, since the next process relies on it.
    fn write_marker(self: Arc<Self>, command: Command) {
        tokio::spawn(async move {
            let is_done = |replies: Vec<Reply>| matches!(replies[..], [Reply::Status(_) | Reply::Integer(_)]);
            while !self.redis.run(vec![command.clone()]).await.is_ok_and(is_done) {
                tokio::time::sleep(WRITE_RETRY_INTERVAL).await;
            }
        });
    }

    /// Whether chunks of a scope, and of a series of it, may be used: no marker forbids it, and the purges of the account
    /// are known. A marker that was found is applied to this replica too. `None` if Redis does not answer.
    pub(super) async fn is_usable(self: &Arc<Self>, scope: &FieldScope, series: Option<&Series>) -> Option<bool> {
        let account = &scope.account;
        let series = series.filter(|series| series.may_shift());
        let shifted = series.map(|series| self.keys.shifted_series(series));
        let markers = std::iter::once(self.keys.wrong_field(scope)).chain(shifted);
        let reads = markers.map(|marker| Command::new("GET").arg(marker));
        let commands = reads.chain(self.purges.marker_command(account)).collect();
        let replies = self.redis.run(commands).await.ok()?;
        let (markers, rest) = replies.split_at_checked(1 + usize::from(series.is_some()))?;
        let is_set = |reply: Option<&Reply>| matches!(reply, Some(Reply::Bytes(_)));
        if is_set(markers.first()) {
            if self.fields.take_cleared(scope) {
                self.clone().write_marker(Command::new("DEL").arg(self.keys.wrong_field(scope)));
            } else {
                self.fields.mark_wrong_elsewhere(scope);
            }
        }
        if let Some(series) = series.filter(|_| is_set(markers.get(1))) {
            self.fields.mark_shifted(series, &self.keys.settings_of(series));
        }
        if markers.iter().any(|reply| is_set(Some(reply))) {
            return Some(false);
        }
        let is_usable =
            markers.iter().all(|reply| *reply == Reply::Nil) && self.purges.apply_marker(account, rest.first()).await;
        is_usable.then_some(true)
    }
}
