//! Carries exchanges to Redis and back, for as long as the queue is there.

use std::sync::{Arc, Weak};
use std::time::Duration;

use bytes::Bytes;
use percent_encoding::{NON_ALPHANUMERIC, utf8_percent_encode};
use tokio::time::{Instant, sleep_until};

use super::sync::SCRIPT;
use super::{ExchangeReply, ExchangeRequest};
use crate::quota::scheduler::{CallScheduler, PermitMessage};
use crate::redis_client::{Command, ConnectionError, Incoming, Mailbox, Recipient, ReplicaId, Reply, Topic};
use crate::telemetry;

/// Says to all that a replica has begun.
const JOINED: &str = "joined";

/// Where the replicas meet for one account.
#[derive(Clone, Debug)]
pub(in crate::quota) struct LeaseChannel {
    post: Mailbox,
    /// In letters and names; without any sign that parts names.
    account: String,
}

impl LeaseChannel {
    pub(in crate::quota) fn new(post: &Mailbox, account: &str) -> Self {
        Self { post: post.clone(), account: utf8_percent_encode(account, NON_ALPHANUMERIC).to_string() }
    }

    pub(super) fn post(&self) -> &Mailbox {
        &self.post
    }

    /// The key that names the holder of the lease.
    pub(super) fn lease(&self) -> Bytes {
        self.key("leader")
    }

    /// The key that is there as long as the leases of a replica hold: one for all accounts, but in a Cluster one for each,
    /// since a script finds keys of one slot only.
    pub(super) fn session(&self, replica: &ReplicaId) -> Bytes {
        if self.post.link().is_cluster() {
            return self.key(&format!("session:{replica}"));
        }
        format!("{}:session:{replica}", self.post.prefix()).into()
    }

    /// In one slot of a Cluster.
    fn key(&self, what: &str) -> Bytes {
        format!("{}:{{{}}}:{what}", self.post.prefix(), self.account).into()
    }

    async fn exchange(&self, exchange: &ExchangeRequest) -> Result<ExchangeReply, ConnectionError> {
        // Whoever hears nobody can neither make calls for the others nor have them made.
        if !self.post.is_listening() {
            return Err(ConnectionError::NotReady("no letters come in".to_owned()));
        }
        if self.post.is_mute() {
            self.post.send(&Recipient::One(self.post.me().clone()), Topic::Quota, b"").await?;
        }
        let [theirs, mine] = [&exchange.lease.last_holder, &exchange.me].map(|replica| self.session(replica));
        let keys = [self.lease(), self.key("ledger"), theirs, mine];
        let head = [self.post.head(Topic::Quota), self.account.clone().into_bytes()].concat();
        let arguments = exchange.arguments(&self.post.channel(&Recipient::All), head);
        match self.post.link().script(&SCRIPT, &keys, &arguments).await? {
            Reply::Error(error) => {
                // It may be the letter that tells of granted calls, and an exchange that wants none would not find out.
                self.post.doubt();
                Err(ConnectionError::NotReady(error.split(' ').next().unwrap_or_default().to_owned()))
            }
            reply => ExchangeReply::read(exchange, &reply).ok_or(ConnectionError::Nonsense),
        }
    }

    /// Writes to another replica.
    pub(in crate::quota) async fn write(&self, to: &Recipient, words: &str) {
        // What is lost is said again.
        let _ = self.post.send(to, Topic::Quota, format!("{}:{words}", self.account).as_bytes()).await;
    }

    /// Counts on, and perhaps looks how far the others have counted; nobody, if Redis does not say.
    ///
    /// # Errors
    /// If it could not count on.
    async fn count(&self, and_look: bool) -> Result<Option<Vec<(ReplicaId, i64)>>, ConnectionError> {
        let members = self.key("members");
        let me = self.post.me().as_str().to_owned();
        let mut commands = vec![Command::new("HINCRBY").arg(members.clone()).arg(me).arg("1")];
        if and_look {
            commands.push(Command::new("HGETALL").arg(members));
        }
        let replies = self.post.link().run(commands).await?;
        match replies.first() {
            Some(Reply::Integer(_)) => {}
            other => return Err(other.map_or(ConnectionError::Nonsense, Reply::fault)),
        }
        // Who cannot count is not seen, so it cannot say either who is there.
        let Some(Reply::Array(fields)) = replies.get(1) else { return Ok(None) };
        let member = |field: &[Reply]| match field {
            [Reply::Bytes(replica), Reply::Bytes(count)] => {
                Some((ReplicaId::read(replica)?, std::str::from_utf8(count).ok()?.parse().ok()?))
            }
            _ => None,
        };
        Ok(Some(fields.chunks(2).filter_map(member).collect()))
    }

    async fn cross_out(&self, replicas: Vec<ReplicaId>) {
        if !replicas.is_empty() {
            let names = replicas.iter().map(|replica| replica.as_str().to_owned());
            let _ = self.post.link().run(vec![Command::new("HDEL").arg(self.key("members")).args(names)]).await;
        }
    }
}

/// Keeps `turns` in touch with the other replicas, until it is gone.
pub(in crate::quota) async fn drive(turns: Weak<CallScheduler>, meeting: LeaseChannel) {
    let [mut exchanged, mut counted, mut looked] = [None; 3];
    let mut has_joined = false;
    loop {
        let Some((schedule, waited_for)) = turns.upgrade().map(|turns| turns.schedule()) else { return };
        let exchange_at = due(exchanged, schedule.exchange_interval);
        let is_waited_for = tokio::select! {
            () = sleep_until(exchange_at.min(due(counted, schedule.heartbeat_interval))) => false,
            () = waited_for.notified() => true,
        };
        let Some(turns) = turns.upgrade() else { return };
        if is_waited_for || !schedule.is_idle || exchange_at <= Instant::now() {
            exchanged = Some(Instant::now());
            step(&turns, &meeting).await;
        }
        if due(counted, schedule.heartbeat_interval) <= Instant::now() {
            turns.expire_lent_permits();
            counted = Some(Instant::now());
            let looks = due(looked, schedule.members_interval) <= Instant::now();
            looked = if looks { counted } else { looked };
            // Only now: whoever is seen again after an outage has told of its calls.
            let is_counted = count(&turns, &meeting, looks).await;
            if is_counted && !has_joined {
                has_joined = true;
                meeting.write(&Recipient::All, JOINED).await;
            }
            if !is_counted && schedule.is_idle {
                // At rest nothing else is written, so nothing else would find it out.
                turns.exchange_soon();
            }
        }
    }
}

fn due(last: Option<Instant>, interval: Duration) -> Instant {
    last.map_or_else(Instant::now, |last| last + interval)
}

/// Shows that this replica is there, and looks who else is. Gives whether Redis has taken it.
async fn count(turns: &Arc<CallScheduler>, meeting: &LeaseChannel, and_look: bool) -> bool {
    let Ok(counts) = meeting.count(and_look).await else { return false };
    if let Some(counts) = counts {
        let gone = turns.update_lease(|common, now| common.note_heartbeats(now, counts));
        meeting.cross_out(gone.unwrap_or_default()).await;
    }
    true
}

/// One exchange.
async fn step(turns: &Arc<CallScheduler>, meeting: &LeaseChannel) {
    let Some(exchange) = turns.begin_exchange() else { return };
    let result = meeting.exchange(&exchange).await;
    turns.update_lease(|common, now| match result {
        Ok(answer) => ((), common.finish_exchange(now, &exchange, answer)),
        Err(error) => {
            telemetry::lease_sync_failed(&error.to_string());
            ((), common.fail_exchange(now, &exchange))
        }
    });
}

/// Gives the lease back, if it is held, and leaves.
pub(in crate::quota) async fn leave(turns: &Arc<CallScheduler>, meeting: &LeaseChannel) {
    turns.update_lease(|common, _| (common.leave(), super::QuotaChange::default()));
    step(turns, meeting).await;
    meeting.cross_out(vec![meeting.post.me().clone()]).await;
}

/// Hears of what others were granted.
pub(in crate::quota) async fn listen(post: Mailbox, turns: Vec<(LeaseChannel, Weak<CallScheduler>)>) {
    let mut mail = post.take_in(Topic::Quota);
    while let Some(mail) = mail.recv().await {
        match mail {
            Incoming::Reconnected => {
                for turns in turns.iter().filter_map(|(_, turns)| turns.upgrade()) {
                    turns.update_lease(|common, now| (common.note_reconnected(now), super::QuotaChange::default()));
                    turns.exchange_soon();
                }
            }
            Incoming::ClusterMessage { from, body } => {
                let Ok(text) = std::str::from_utf8(&body) else { continue };
                let (account, words) = text.split_once(':').unwrap_or((text, ""));
                let of_this = |(meeting, _): &&(LeaseChannel, _)| account == meeting.account;
                let Some(turns) = turns.iter().find(of_this).and_then(|(_, turns)| turns.upgrade()) else { continue };
                let granted = words
                    .split_once(':')
                    .and_then(|(first, granted)| Some((first.parse().ok()?, granted.parse().ok()?)));
                if words == JOINED {
                    turns.update_lease(|common, now| ((), common.note_joined(now, &from)));
                } else if let Some((first, granted)) = granted {
                    turns.update_lease(|common, now| ((), common.note_granted(now, &from, first, granted)));
                } else if let Some((number, word)) = PermitMessage::read(words) {
                    turns.on_permit_message(&from, number, word);
                } else {
                    // It has given the lease back, or taken it.
                    turns.exchange_soon();
                }
            }
        }
    }
}
