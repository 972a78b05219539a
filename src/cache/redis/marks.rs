//! Marks in Redis that say what was cut wrongly: they outlive the process that has found it out, and tell all replicas.

use std::sync::Arc;
use std::time::Duration;

use super::{FORMAT, Inner, RedisTier, encoded};
use crate::redis_client::{Command, Reply};
use crate::request::Series;

impl RedisTier {
    /// The items of an account do not lie where they were asked for: what was cut is worth nothing, to nobody.
    pub(in crate::cache) fn give_up(&self, account: &str) {
        self.inner.clone().persist(Command::new("SET").arg(self.inner.mark_name(account)).arg("1"));
    }

    /// What was cut of a series is worth nothing.
    pub(in crate::cache) fn give_up_series(&self, series: &Series) {
        let (mark, ttl) = (self.inner.series_mark(series), self.inner.ttl.as_secs().max(1));
        // Nothing is kept for longer.
        self.inner.clone().persist(Command::new("SET").arg(mark).arg("1").arg("EX").arg(ttl.to_string()));
    }

    /// Whether what is kept of a series may be read.
    pub(in crate::cache) async fn is_good(&self, series: &Series) -> bool {
        self.inner.is_good(&series.account, Some(series)).await
    }
}

impl Inner {
    fn mark_name(&self, account: &str) -> String {
        format!("{}:{FORMAT}:{}:{}:wrong", self.prefix, encoded(account), self.cut)
    }

    /// The same of one series of it. With and without `agenticActivities` it is the same.
    fn series_mark(&self, series: &Series) -> String {
        format!("{}:wrong", self.series_name(&Series { agentic: false, ..series.clone() }))
    }

    /// Runs a command that changes a mark, for as long as it takes: the next process goes by it.
    fn persist(self: Arc<Self>, command: Command) {
        tokio::spawn(async move {
            let is_done = |replies: Vec<Reply>| matches!(replies[..], [Reply::Status(_) | Reply::Integer(_)]);
            while !self.link.run(vec![command.clone()]).await.is_ok_and(is_done) {
                tokio::time::sleep(Duration::from_secs(1)).await;
            }
        });
    }

    /// Whether what is kept of an account, and of a series of it, may be used: nobody has found that it was cut wrongly.
    /// Then it is known, too, what was purged of it.
    pub(super) async fn is_good(self: &Arc<Self>, account: &Arc<str>, series: Option<&Series>) -> bool {
        let series = series.filter(|series| series.may_shift());
        let marks = std::iter::once(self.mark_name(account)).chain(series.map(|series| self.series_mark(series)));
        let ask = marks.map(|mark| Command::new("GET").arg(mark)).chain(self.purges.ask(account)).collect();
        let Ok(replies) = self.link.run(ask).await else { return false };
        let Some((marks, rest)) = replies.split_at_checked(1 + usize::from(series.is_some())) else { return false };
        let is_marked = |reply: Option<&Reply>| matches!(reply, Some(Reply::Bytes(_)));
        if is_marked(marks.first()) {
            if self.fields.take_cleared(account) {
                self.clone().persist(Command::new("DEL").arg(self.mark_name(account)));
            } else {
                self.fields.mark_wrong_elsewhere(account);
            }
        }
        if let Some(series) = series.filter(|_| is_marked(marks.get(1))) {
            self.fields.mark_shifted(series);
        }
        marks.iter().all(|reply| *reply == Reply::Nil) && self.purges.heard(account, rest.first()).await
    }
}
