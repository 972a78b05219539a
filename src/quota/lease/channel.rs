//! The commands of the lease of one account: its keys in Redis, exchanges, heartbeats and messages.

use std::sync::Arc;

use bytes::Bytes;

use super::agreed_limits;
use super::sync::{ExchangeReply, ExchangeRequest, SCRIPT};
use crate::config::QuotaLimit;
use crate::redis_client::{Command, ConnectionError, Reply, key_segment};
use crate::replicas::{Mailbox, Message, QuotaMessage, Recipient, ReplicaId};

/// The way to the other replicas that share the quota of one account.
#[derive(Clone, Debug)]
pub(in crate::quota) struct LeaseChannel {
    mailbox: Mailbox,
    account: Arc<str>,
}

impl LeaseChannel {
    pub(in crate::quota) fn new(mailbox: &Mailbox, account: &Arc<str>) -> Self {
        Self { mailbox: mailbox.clone(), account: account.clone() }
    }

    pub(in crate::quota) fn mailbox(&self) -> &Mailbox {
        &self.mailbox
    }

    pub(in crate::quota) fn account(&self) -> &Arc<str> {
        &self.account
    }

    /// The key of the lease: it names the holder.
    pub(in crate::quota) fn lease_key(&self) -> Bytes {
        self.key("leader")
    }

    /// The key of the session of a replica, which exists as long as its leases are valid. One session serves all
    /// accounts; but in a Cluster there is one for each account, because a script reaches the keys of one slot only.
    pub(in crate::quota) fn session_key(&self, replica: &ReplicaId) -> Bytes {
        if self.mailbox.redis().is_cluster() {
            return self.key(&format!("session:{replica}"));
        }
        format!("{}:session:{replica}", self.mailbox.prefix()).into()
    }

    /// A key of the account; in a Cluster, all of them lie in one slot.
    fn key(&self, name: &str) -> Bytes {
        format!("{}:{{{}}}:{name}", self.mailbox.prefix(), key_segment(&self.account)).into()
    }

    /// Runs an exchange.
    ///
    /// # Errors
    /// If Redis does not answer or refuses the script, or if messages cannot be received or sent.
    pub(in crate::quota) async fn exchange(&self, request: &ExchangeRequest) -> Result<ExchangeReply, ConnectionError> {
        // A replica that receives no messages can neither make calls for others nor have them made.
        if !self.mailbox.is_listening() {
            return Err(ConnectionError::NotReady("not subscribed to messages".to_owned()));
        }
        if self.mailbox.is_refused() {
            self.mailbox.probe().await?;
        }
        let [theirs, mine] = [&request.lease.last_holder, &request.me].map(|replica| self.session_key(replica));
        let keys = [self.lease_key(), self.key("ledger"), theirs, mine];
        let head = self.mailbox.encode(&Recipient::All, &self.message(QuotaMessage::LeaseChanged))?;
        let arguments = request.arguments(&self.mailbox.channel(&Recipient::All), head);
        match self.mailbox.redis().script(&SCRIPT, &keys, &arguments).await? {
            Reply::Error(error) => {
                // Perhaps Redis refused to publish the granted calls; a later exchange without grants would not show
                // it.
                self.mailbox.suspect_refusal();
                Err(ConnectionError::NotReady(error.split(' ').next().unwrap_or_default().to_owned()))
            }
            reply => ExchangeReply::read(request, &reply).ok_or(ConnectionError::Nonsense),
        }
    }

    /// Sends a message. The sender repeats what was lost, so failures are ignored.
    pub(in crate::quota) async fn write(&self, to: &Recipient, message: QuotaMessage) {
        let _ = self.mailbox.send(to, &self.message(message)).await;
    }

    fn message(&self, message: QuotaMessage) -> Message {
        Message::Quota { account: self.account.clone(), message }
    }

    /// Increments the counter of this replica. If there are `limits`, writes them as this replica's, and reads counters
    /// and limits of all replicas; `None` if Redis does not return them.
    ///
    /// # Errors
    /// If the counter could not be incremented.
    pub(in crate::quota) async fn heartbeat(
        &self,
        limits: Option<&[QuotaLimit]>,
    ) -> Result<Option<Heartbeats>, ConnectionError> {
        let (members, limits_key) = (self.key("members"), self.key("limits"));
        let me = self.mailbox.me().as_str().to_owned();
        let mut commands = vec![Command::new("HINCRBY").arg(members.clone()).arg(me.clone()).arg("1")];
        if let Some(limits) = limits {
            commands.push(Command::new("HSET").arg(limits_key.clone()).arg(me).arg(agreed_limits::encode(limits)));
            commands.extend([members, limits_key].map(|key| Command::new("HGETALL").arg(key)));
        }
        let replies = self.mailbox.redis().run(commands).await?;
        // A replica that cannot increment its counter is not seen by the others, so what it reads does not count
        // either.
        match replies.first() {
            Some(Reply::Integer(_)) => {}
            other => return Err(other.map_or(ConnectionError::Nonsense, Reply::fault)),
        }
        let [_, _, Reply::Array(counts), Reply::Array(limits)] = replies.as_slice() else { return Ok(None) };
        let counts = fields(counts, |count| count.parse().ok());
        Ok(Some(Heartbeats { counts, limits: fields(limits, agreed_limits::decode) }))
    }

    /// Removes the counters of replicas that are gone. Failures are ignored: the next reading shows the replicas
    /// again.
    pub(in crate::quota) async fn remove_members(&self, replicas: Vec<ReplicaId>) {
        if !replicas.is_empty() {
            let names = replicas.iter().map(|replica| replica.as_str().to_owned());
            let remove = |key| Command::new("HDEL").arg(self.key(key)).args(names.clone());
            let _ = self.mailbox.redis().run(vec![remove("members"), remove("limits")]).await;
        }
    }
}

/// What the heartbeats of all replicas say.
#[derive(Debug)]
pub(in crate::quota) struct Heartbeats {
    pub(in crate::quota) counts: Vec<(ReplicaId, i64)>,
    pub(in crate::quota) limits: Vec<(ReplicaId, Vec<QuotaLimit>)>,
}

/// The fields of a hash whose names are replicas, without those that cannot be read.
fn fields<T>(reply: &[Reply], read: impl Fn(&str) -> Option<T>) -> Vec<(ReplicaId, T)> {
    let field = |field: &[Reply]| match field {
        [Reply::Bytes(replica), Reply::Bytes(value)] => {
            Some((ReplicaId::parse(replica)?, read(std::str::from_utf8(value).ok()?)?))
        }
        _ => None,
    };
    reply.chunks(2).filter_map(field).collect()
}
