//! The way to Redis, for all who share something through it.

use std::fmt;
use std::sync::Arc;

use bytes::Bytes;
use tokio::time::Instant;

use super::command::ClusterNode;
use super::connection::Connection;
use super::connector::Connector;
use super::{Command, ConnectionError, Reply, Scan, Script, Subscription};
use crate::config;

/// Whether Redis can be asked.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Health {
    /// Yes, as far as is known.
    Up,
    /// No: it has failed several times in a row.
    Down {
        /// When that began.
        since: Instant,
        /// How it failed last.
        why: ConnectionError,
    },
}

/// The way to Redis. Cheap to clone; all clones share the same connections.
///
/// Each call ends within `cache.redis.timeout`, whatever Redis does, and fails at once while the breaker is open. No
/// call is ever made twice: after [`ConnectionError::TimedOut`] or [`ConnectionError::Broken`] it is not known whether Redis has
/// done it.
///
/// The methods need a tokio runtime around them; [`RedisClient::new`] does not.
#[derive(Clone)]
pub struct RedisClient {
    /// What everybody waits for.
    small: Arc<Connection>,
    /// Big values, which would delay what stands behind them on the same connection.
    bulk: Arc<Connection>,
    wire: Connector,
}

impl RedisClient {
    /// A way that has not been gone yet: it connects with the first call.
    ///
    /// # Errors
    /// If the URL is none, which a configuration that was loaded cannot have; with TLS, if the system has no usable root
    /// certificates.
    pub fn new(config: &config::RedisConfig) -> Result<Self, ConnectionError> {
        let wire = Connector::new(config)?;
        let lane = |name| Connection::new(name, wire.clone(), config.timeout, &config.prefix);
        Ok(Self { small: lane("small"), bulk: lane("bulk"), wire })
    }

    /// Runs commands in one go, but not as one: others may come in between, and one that fails leaves the others be. In
    /// a Cluster each goes to its own node, so their order holds only for each node.
    ///
    /// # Errors
    /// If no command was answered. Where some were, the others have a [`Reply::Error`].
    pub async fn run(&self, commands: Vec<Command>) -> Result<Vec<Reply>, ConnectionError> {
        self.small.run(&commands, self.small.deadline()).await
    }

    /// The same for big values, over a connection of its own.
    ///
    /// # Errors
    /// As [`RedisClient::run`].
    pub async fn bulk(&self, commands: Vec<Command>) -> Result<Vec<Reply>, ConnectionError> {
        self.bulk.run(&commands, self.bulk.deadline()).await
    }

    /// Runs a script, all in one; in a Cluster, all keys must lie in one slot.
    ///
    /// # Errors
    /// As [`RedisClient::run`]. An error of the script itself, or that scripts are forbidden, is a [`Reply::Error`].
    pub async fn script(&self, script: &Script, keys: &[Bytes], arguments: &[Bytes]) -> Result<Reply, ConnectionError> {
        let deadline = self.small.deadline();
        let run = async |command| {
            let replies = self.small.run(&[command], deadline).await?;
            replies.into_iter().next().ok_or(ConnectionError::Nonsense)
        };
        let reply = run(script.by_name(keys, arguments)).await?;
        if reply.is_error("NOSCRIPT") { run(script.by_text(keys, arguments)).await } else { Ok(reply) }
    }

    /// Looks for all keys with these bytes in front, and more behind that a glob-style `pattern` of Redis tells.
    pub fn scan(&self, prefix: &str, pattern: &str) -> Scan {
        Scan::new(self.clone(), prefix, pattern)
    }

    /// How many listen to a channel, at whatever node; those at replicas of a Cluster's masters are not counted.
    ///
    /// # Errors
    /// If a node cannot be asked, or does not allow it.
    pub(super) async fn listeners(&self, channel: &str) -> Result<usize, ConnectionError> {
        let ask = |node| Command::new("PUBSUB").arg("NUMSUB").arg(channel.to_owned()).at(node);
        let replies = self.run(self.masters().await?.into_iter().map(ask).collect()).await?;
        let count = |reply: &Reply| match reply {
            Reply::Array(told) => match told.get(1) {
                Some(Reply::Integer(count)) => usize::try_from(*count).map_err(|_| ConnectionError::Nonsense),
                _ => Err(ConnectionError::Nonsense),
            },
            other => Err(other.fault()),
        };
        replies.iter().map(count).sum()
    }

    /// Whether there are several masters, each with its own keys.
    pub fn is_cluster(&self) -> bool {
        self.wire.is_cluster()
    }

    /// All masters that have keys: of a Cluster those that one of them names; otherwise there is one, without a name.
    pub(super) async fn masters(&self) -> Result<Vec<Option<ClusterNode>>, ConnectionError> {
        if !self.is_cluster() {
            return Ok(vec![None]);
        }
        let replies = self.run(vec![Command::new("CLUSTER").arg("SLOTS")]).await?;
        let Some(Reply::Array(ranges)) = replies.first() else {
            return Err(replies.first().map_or(ConnectionError::Nonsense, Reply::fault));
        };
        let mut masters = Vec::new();
        for range in ranges {
            // From, to, the master, its replicas.
            let Reply::Array(range) = range else { return Err(ConnectionError::Nonsense) };
            let Some(Reply::Array(master)) = range.get(2) else { return Err(ConnectionError::Nonsense) };
            // A node that does not know its own address gives none, and cannot be asked by it.
            let (Some(Reply::Bytes(host)), Some(Reply::Integer(port))) = (master.first(), master.get(1)) else {
                return Err(ConnectionError::Nonsense);
            };
            let host = String::from_utf8_lossy(host).into();
            let node = Some(ClusterNode { host, port: u16::try_from(*port).map_err(|_| ConnectionError::Nonsense)? });
            if !masters.contains(&node) {
                masters.push(node);
            }
        }
        Ok(masters)
    }

    /// Listens to channels from now on, until the subscription is dropped.
    pub fn listen(&self, channels: Vec<String>) -> Subscription {
        Subscription::start(self.wire.clone(), channels)
    }

    /// Whether Redis can be asked, as far as the last calls tell.
    pub fn health(&self) -> Health {
        match self.small.health() {
            Health::Up => self.bulk.health(),
            down @ Health::Down { .. } => down,
        }
    }
}

impl fmt::Debug for RedisClient {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Link").field("health", &self.health()).finish_non_exhaustive()
    }
}
