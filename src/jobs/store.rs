//! Jobs in Redis: a record for each, sealed like all values; an index of those that are not finished, a hash from id to
//! owner; the ids of each caller's; a mark for each that was cancelled; and a lease of each owner. Plain commands of one
//! key each, since scripts may be forbidden and keys may lie on different nodes.

use std::time::Duration;

use bytes::Bytes;

use super::record::{JobRecord, LIFETIME};
use crate::redis_client::{Command, ConnectionError, Reply, key_segment};
use crate::replicas::Mailbox;
use crate::window::Timestamp;

/// How long a replica owns its jobs after its last sign of life.
pub(super) const OWNER_LEASE: Duration = Duration::from_secs(15);
/// How long a replica may take to adopt a job before another one tries it.
const CLAIM_LEASE: Duration = Duration::from_secs(15);

/// Access to the jobs in Redis.
#[derive(Clone, Debug)]
pub(super) struct JobStore {
    mailbox: Mailbox,
    keep_for: Duration,
}

impl JobStore {
    pub(super) fn new(mailbox: Mailbox, keep_for: Duration) -> Self {
        Self { mailbox, keep_for }
    }

    fn key(&self, kind: &str, name: &str) -> String {
        format!("{}:{kind}:{name}", self.mailbox.prefix())
    }

    fn index_key(&self) -> String {
        format!("{}:jobs", self.mailbox.prefix())
    }

    fn caller_key(&self, caller: &str) -> String {
        self.key("job-ids", &key_segment(caller))
    }

    async fn run(&self, commands: Vec<Command>) -> Result<Vec<Reply>, ConnectionError> {
        let replies = self.mailbox.redis().run(commands).await?;
        let failed = replies.iter().find(|reply| matches!(reply, Reply::Error(_)));
        failed.map_or(Ok(()), |reply| Err(reply.fault()))?;
        Ok(replies)
    }

    /// The command that writes a record, sealed.
    fn set_record(&self, record: &JobRecord, now: Timestamp, only_if_there: bool) -> Result<Command, ConnectionError> {
        let key = self.key("job", &record.id);
        let json = serde_json::to_vec(record).map_err(|_| ConnectionError::Nonsense)?;
        let sealed = self.mailbox.cipher().seal(json, key.as_bytes()).ok_or(ConnectionError::Nonsense)?;
        let left = record.expires_at(self.keep_for).since(now).max(Duration::from_secs(1));
        let set = Command::new("SET").arg(key).arg(sealed).arg("PX").arg(left.as_millis().to_string());
        Ok(if only_if_there { set.arg("XX") } else { set })
    }

    /// Writes a job of this replica that is not in Redis, or was adopted: an unfinished one also into the index, with the
    /// lease of this replica.
    ///
    /// # Errors
    /// If Redis does not answer, or refuses a part of it.
    pub(super) async fn insert(&self, record: &JobRecord, now: Timestamp) -> Result<(), ConnectionError> {
        let mut commands = vec![self.set_record(record, now, false)?];
        if record.is_finished() {
            commands.extend(self.unlist(&record.id, &record.caller()));
        } else {
            let ids = self.caller_key(&record.caller());
            let longest = (LIFETIME + self.keep_for).as_secs().to_string();
            commands.extend([
                self.renew_command(),
                Command::new("HSET").arg(self.index_key()).arg(record.id.clone()).arg(record.owner().to_owned()),
                Command::new("SADD").arg(ids.clone()).arg(record.id.clone()),
                Command::new("EXPIRE").arg(ids).arg(longest),
            ]);
        }
        self.run(commands).await.map(drop)
    }

    /// Writes records that were written before, and removes finished jobs from the index. Jobs that were deleted
    /// meanwhile stay deleted. Returns the ids of those whose records were not there.
    ///
    /// # Errors
    /// As [`JobStore::insert`].
    pub(super) async fn update(&self, records: &[JobRecord], now: Timestamp) -> Result<Vec<String>, ConnectionError> {
        if records.is_empty() {
            return Ok(Vec::new());
        }
        let mut commands = Vec::with_capacity(records.len());
        for record in records {
            commands.push(self.set_record(record, now, true)?);
        }
        for record in records.iter().filter(|record| record.is_finished()) {
            commands.extend(self.unlist(&record.id, &record.caller()));
        }
        let replies = self.run(commands).await?;
        let absent = records.iter().zip(replies).filter(|(_, reply)| *reply == Reply::Nil);
        Ok(absent.map(|(record, _)| record.id.clone()).collect())
    }

    /// The commands that remove a job from the index and from those of its caller.
    fn unlist(&self, id: &str, caller: &str) -> [Command; 2] {
        [
            Command::new("HDEL").arg(self.index_key()).arg(id.to_owned()),
            Command::new("SREM").arg(self.caller_key(caller)).arg(id.to_owned()),
        ]
    }

    fn cancelled_key(&self, id: &str) -> String {
        self.key("job-cancelled", id)
    }

    /// [`JobStore::insert`], unless the job was cancelled meanwhile: then it is deleted again, and the result is `false`.
    ///
    /// # Errors
    /// As [`JobStore::insert`].
    pub(super) async fn insert_uncancelled(&self, record: &JobRecord, now: Timestamp) -> Result<bool, ConnectionError> {
        self.insert(record, now).await?;
        if !self.is_cancelled(&record.id).await? {
            return Ok(true);
        }
        self.delete(record).await.map(|()| false)
    }

    /// Cancels an unfinished job of another replica: it is marked before it is deleted, so that its owner ends it, and does
    /// not take it for one that Redis has lost.
    ///
    /// # Errors
    /// As [`JobStore::insert`].
    pub(super) async fn cancel(&self, record: &JobRecord) -> Result<(), ConnectionError> {
        let (key, lifetime) = (self.cancelled_key(&record.id), LIFETIME.as_millis().to_string());
        self.run(vec![Command::new("SET").arg(key).arg("1").arg("PX").arg(lifetime)]).await?;
        self.delete(record).await
    }

    /// Deletes a job that nobody runs.
    ///
    /// # Errors
    /// As [`JobStore::insert`].
    pub(super) async fn delete(&self, record: &JobRecord) -> Result<(), ConnectionError> {
        let mut commands = vec![Command::new("DEL").arg(self.key("job", &record.id))];
        commands.extend(self.unlist(&record.id, &record.caller()));
        self.run(commands).await.map(drop)
    }

    /// Whether a job is marked as cancelled.
    ///
    /// # Errors
    /// As [`JobStore::insert`].
    pub(super) async fn is_cancelled(&self, id: &str) -> Result<bool, ConnectionError> {
        let replies = self.run(vec![Command::new("EXISTS").arg(self.cancelled_key(id))]).await?;
        Ok(replies.first() == Some(&Reply::Integer(1)))
    }

    /// Removes a job from the index whose record is not there any more.
    ///
    /// # Errors
    /// As [`JobStore::insert`].
    pub(super) async fn forget(&self, id: &str) -> Result<(), ConnectionError> {
        self.run(vec![Command::new("HDEL").arg(self.index_key()).arg(id.to_owned())]).await.map(drop)
    }

    /// The record of a job; `None` if there is none that this replica can read.
    ///
    /// # Errors
    /// As [`JobStore::insert`].
    pub(super) async fn find(&self, id: &str) -> Result<Option<JobRecord>, ConnectionError> {
        let key = self.key("job", id);
        let replies = self.run(vec![Command::new("GET").arg(key.clone())]).await?;
        let Some(Reply::Bytes(sealed)) = replies.into_iter().next() else { return Ok(None) };
        let opened = self.mailbox.cipher().open(sealed, key.as_bytes()).ok();
        let record = opened.and_then(|json| serde_json::from_slice::<JobRecord>(&json).ok());
        // Nothing in Redis is trusted.
        Ok(record.filter(|record| record.id == id))
    }

    /// How many jobs of a caller are not finished, on all replicas.
    ///
    /// # Errors
    /// As [`JobStore::insert`].
    pub(super) async fn count(&self, caller: &str) -> Result<usize, ConnectionError> {
        match self.run(vec![Command::new("SCARD").arg(self.caller_key(caller))]).await?.first() {
            Some(Reply::Integer(count)) => usize::try_from(*count).map_err(|_| ConnectionError::Nonsense),
            other => Err(other.map_or(ConnectionError::Nonsense, Reply::fault)),
        }
    }

    /// The same, without those whose records are not there any more, which are removed.
    ///
    /// # Errors
    /// As [`JobStore::insert`].
    pub(super) async fn recount(&self, caller: &str) -> Result<usize, ConnectionError> {
        let ids = self.caller_key(caller);
        let replies = self.run(vec![Command::new("SMEMBERS").arg(ids.clone())]).await?;
        let Some(Reply::Array(members)) = replies.into_iter().next() else { return Err(ConnectionError::Nonsense) };
        let members = members.into_iter().filter_map(|member| match member {
            Reply::Bytes(id) => Some(String::from_utf8_lossy(&id).into_owned()),
            _ => None,
        });
        let members: Vec<String> = members.collect();
        if members.is_empty() {
            return Ok(0);
        }
        let exists = |id: &String| Command::new("EXISTS").arg(self.key("job", id));
        let there = self.run(members.iter().map(exists).collect()).await?;
        let gone = members.iter().zip(&there).filter(|(_, reply)| **reply == Reply::Integer(0));
        let gone: Vec<String> = gone.map(|(id, _)| id.clone()).collect();
        let count = members.len() - gone.len();
        if !gone.is_empty() {
            self.run(vec![Command::new("SREM").arg(ids).args(gone)]).await?;
        }
        Ok(count)
    }

    /// The ids of all jobs that are not finished, each with its owner.
    ///
    /// # Errors
    /// As [`JobStore::insert`].
    pub(super) async fn index(&self) -> Result<Vec<(String, String)>, ConnectionError> {
        let replies = self.run(vec![Command::new("HGETALL").arg(self.index_key())]).await?;
        let Some(Reply::Array(fields)) = replies.first() else { return Err(ConnectionError::Nonsense) };
        let text = |bytes: &Bytes| String::from_utf8_lossy(bytes).into_owned();
        let pairs = fields.chunks(2).map(|pair| match pair {
            [Reply::Bytes(id), Reply::Bytes(owner)] => Ok((text(id), text(owner))),
            _ => Err(ConnectionError::Nonsense),
        });
        pairs.collect()
    }

    /// Which of these replicas have a lease.
    ///
    /// # Errors
    /// As [`JobStore::insert`].
    pub(super) async fn alive<'a>(&self, owners: &[&'a str]) -> Result<Vec<&'a str>, ConnectionError> {
        if owners.is_empty() {
            return Ok(Vec::new());
        }
        let exists = |owner: &&str| Command::new("EXISTS").arg(self.key("job-owner", owner));
        let replies = self.run(owners.iter().map(exists).collect()).await?;
        let found = owners.iter().zip(replies).filter(|(_, reply)| *reply == Reply::Integer(1));
        Ok(found.map(|(owner, _)| *owner).collect())
    }

    fn own_lease(&self) -> String {
        self.key("job-owner", self.mailbox.me().as_str())
    }

    fn renew_command(&self) -> Command {
        let lease = OWNER_LEASE.as_millis().to_string();
        Command::new("SET").arg(self.own_lease()).arg("1").arg("PX").arg(lease)
    }

    /// Renews the lease of this replica.
    ///
    /// # Errors
    /// As [`JobStore::insert`].
    pub(super) async fn renew(&self) -> Result<(), ConnectionError> {
        self.run(vec![self.renew_command()]).await.map(drop)
    }

    /// Ends the lease of this replica, so that others adopt its jobs at once.
    ///
    /// # Errors
    /// As [`JobStore::insert`].
    pub(super) async fn release(&self) -> Result<(), ConnectionError> {
        self.run(vec![Command::new("DEL").arg(self.own_lease())]).await.map(drop)
    }

    /// Claims the adoption of a job of `owner`; `false` if another replica was first.
    ///
    /// # Errors
    /// As [`JobStore::insert`].
    pub(super) async fn claim(&self, id: &str, owner: &str) -> Result<bool, ConnectionError> {
        let key = self.key("job-claim", &format!("{id}:{}", key_segment(owner)));
        let lease = CLAIM_LEASE.as_millis().to_string();
        let claim = Command::new("SET").arg(key).arg(self.mailbox.me().to_string()).arg("NX").arg("PX").arg(lease);
        Ok(matches!(self.run(vec![claim]).await?.first(), Some(Reply::Status(_) | Reply::Bytes(_))))
    }
}
