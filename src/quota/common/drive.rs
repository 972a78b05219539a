//! Carries exchanges to Redis and back, for as long as the queue is there.

use std::sync::{Arc, Weak};
use std::time::Duration;

use bytes::Bytes;
use percent_encoding::{NON_ALPHANUMERIC, utf8_percent_encode};
use tokio::time::Instant;

use super::exchange::SCRIPT;
use super::{Answer, Exchange};
use crate::fleet::{Command, LinkError, Mail, Post, ReplicaId, Reply, To, Topic};
use crate::quota::turns::{Turns, Word};
use crate::telemetry;

/// How often each replica shows that it is there.
const COUNTED: Duration = Duration::from_millis(500);

/// Where the replicas meet for one account.
#[derive(Clone, Debug)]
pub(in crate::quota) struct Meeting {
    post: Post,
    /// In letters and names; without any sign that parts names.
    account: String,
}

impl Meeting {
    pub(in crate::quota) fn new(post: &Post, account: &str) -> Self {
        Self { post: post.clone(), account: utf8_percent_encode(account, NON_ALPHANUMERIC).to_string() }
    }

    /// In one slot of a Cluster.
    fn key(&self, what: &str) -> Bytes {
        format!("{}:{{{}}}:{what}", self.post.prefix(), self.account).into()
    }

    async fn exchange(&self, exchange: &Exchange) -> Result<Answer, LinkError> {
        // Whoever hears nobody can neither make calls for the others nor have them made.
        if !self.post.is_listening() {
            return Err(LinkError::NotReady("no letters come in".to_owned()));
        }
        if self.post.is_mute() {
            self.post.send(&To::One(self.post.me().clone()), Topic::Quota, b"").await?;
        }
        let keys = [self.key("lease"), self.key("ledger")];
        let head = [self.post.head(Topic::Quota), self.account.clone().into_bytes()].concat();
        let arguments = exchange.arguments(&self.post.channel(&To::All), head);
        match self.post.link().script(&SCRIPT, &keys, &arguments).await? {
            Reply::Error(error) => {
                // It may be the letter that tells of granted calls, and an exchange that wants none would not find out.
                self.post.doubt();
                Err(LinkError::NotReady(error.split(' ').next().unwrap_or_default().to_owned()))
            }
            reply => Answer::read(exchange, &reply).ok_or(LinkError::Nonsense),
        }
    }

    /// Writes to another replica.
    pub(in crate::quota) async fn write(&self, to: &To, words: &str) {
        // What is lost is said again.
        let _ = self.post.send(to, Topic::Quota, format!("{}:{words}", self.account).as_bytes()).await;
    }

    /// Counts on, and looks how far the others have counted.
    async fn count(&self) -> Option<Vec<(ReplicaId, i64)>> {
        let members = self.key("members");
        let me = self.post.me().as_str().to_owned();
        let count = Command::new("HINCRBY").arg(members.clone()).arg(me).arg("1");
        let replies = self.post.link().run(vec![count, Command::new("HGETALL").arg(members)]).await.ok()?;
        // Who cannot count is not seen, so it cannot say either who is there.
        let [Reply::Integer(_), Reply::Array(fields)] = &replies[..] else { return None };
        let member = |field: &[Reply]| match field {
            [Reply::Bytes(replica), Reply::Bytes(count)] => {
                Some((ReplicaId::read(replica)?, std::str::from_utf8(count).ok()?.parse().ok()?))
            }
            _ => None,
        };
        Some(fields.chunks(2).filter_map(member).collect())
    }

    async fn cross_out(&self, replicas: Vec<ReplicaId>) {
        if !replicas.is_empty() {
            let names = replicas.iter().map(|replica| replica.as_str().to_owned());
            let _ = self.post.link().run(vec![Command::new("HDEL").arg(self.key("members")).args(names)]).await;
        }
    }
}

/// Keeps `turns` in touch with the other replicas, until it is gone.
pub(in crate::quota) async fn drive(turns: Weak<Turns>, meeting: Meeting) {
    let mut counted: Option<Instant> = None;
    loop {
        let Some((due, waited_for)) = turns.upgrade().map(|turns| turns.next_exchange()) else { return };
        tokio::select! {
            () = tokio::time::sleep(due) => {}
            () = waited_for.notified() => {}
        }
        let Some(turns) = turns.upgrade() else { return };
        step(&turns, &meeting).await;
        if counted.is_none_or(|last| last.elapsed() >= COUNTED) {
            counted = Some(Instant::now());
            turns.tidy_loans();
            // Only now: whoever is seen again after an outage has told of its calls.
            if let Some(counts) = meeting.count().await {
                let gone = turns.in_common(|common, now| common.count(now, counts));
                meeting.cross_out(gone.unwrap_or_default()).await;
            }
        }
    }
}

/// One exchange.
async fn step(turns: &Arc<Turns>, meeting: &Meeting) {
    let Some(exchange) = turns.begin_exchange() else { return };
    let result = meeting.exchange(&exchange).await;
    turns.in_common(|common, now| match result {
        Ok(answer) => ((), common.answered(now, &exchange, answer)),
        Err(error) => {
            telemetry::fleet_exchange_failed(&error.to_string());
            ((), common.failed(now, &exchange))
        }
    });
}

/// Gives the lease back, if it is held, and leaves.
pub(in crate::quota) async fn leave(turns: &Arc<Turns>, meeting: &Meeting) {
    turns.in_common(|common, _| (common.leave(), super::Change::default()));
    step(turns, meeting).await;
    meeting.cross_out(vec![meeting.post.me().clone()]).await;
}

/// Hears of what others were granted.
pub(in crate::quota) async fn listen(post: Post, turns: Vec<(Meeting, Weak<Turns>)>) {
    let mut mail = post.take_in(Topic::Quota);
    while let Some(mail) = mail.recv().await {
        match mail {
            Mail::Reconnected => {
                for turns in turns.iter().filter_map(|(_, turns)| turns.upgrade()) {
                    turns.in_common(|common, now| (common.reconnected(now), super::Change::default()));
                    turns.exchange_soon();
                }
            }
            Mail::Letter { from, body } => {
                let Ok(text) = std::str::from_utf8(&body) else { continue };
                let (account, words) = text.split_once(':').unwrap_or((text, ""));
                let of_this = |(meeting, _): &&(Meeting, _)| account == meeting.account;
                let Some(turns) = turns.iter().find(of_this).and_then(|(_, turns)| turns.upgrade()) else { continue };
                let granted = words
                    .split_once(':')
                    .and_then(|(first, granted)| Some((first.parse().ok()?, granted.parse().ok()?)));
                if let Some((first, granted)) = granted {
                    turns.in_common(|common, now| ((), common.hear(now, &from, first, granted)));
                } else if let Some((number, word)) = Word::read(words) {
                    turns.hear(&from, number, word);
                } else {
                    // It has given the lease back.
                    turns.exchange_soon();
                }
            }
        }
    }
}
