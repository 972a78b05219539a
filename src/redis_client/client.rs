//! The client: runs commands and scripts within a timeout, and subscribes to channels.

use std::fmt;
use std::sync::Arc;

use bytes::Bytes;

use super::command::ClusterNode;
use super::connection::Connection;
use super::connector::Connector;
use super::memory_policy::advice_from_info;
use super::{Command, ConnectionError, Health, Reply, Script, Subscription};
use crate::config;
use crate::network::Network;

/// A client of one Redis. Clones share the same connections.
///
/// Each call ends within `cache.redis.timeout`, whatever Redis does, and fails at once while the breaker is open. No
/// call is repeated: after [`ConnectionError::TimedOut`] or [`ConnectionError::Broken`] it is not known whether Redis
/// has run it.
///
/// The methods need a tokio runtime around them; [`RedisClient::new`] does not.
#[derive(Clone)]
pub struct RedisClient {
    /// For commands that requests wait for.
    small: Arc<Connection>,
    /// For large values, which would delay other commands on the same connection.
    bulk: Arc<Connection>,
    connector: Connector,
}

impl RedisClient {
    /// A client that connects with the first call.
    ///
    /// # Errors
    /// If `cache.redis.url` is not a URL, which a configuration that was loaded cannot have; with TLS, if the system
    /// has no usable root certificates.
    pub fn new(config: &config::RedisConfig, network: &Network) -> Result<Self, ConnectionError> {
        let connector = Connector::new(config, network)?;
        let connection = |name| Connection::new(name, connector.clone(), config.timeout, &config.prefix);
        Ok(Self { small: connection("small"), bulk: connection("bulk"), connector })
    }

    /// Runs commands in one round trip. They are not atomic: commands of other clients may run in between, and one that
    /// fails does not stop the others. In a Cluster each goes to its own node, and their order holds for each node
    /// only.
    ///
    /// # Errors
    /// If no command was answered. Where some were, the others have a [`Reply::Error`].
    pub async fn run(&self, commands: Vec<Command>) -> Result<Vec<Reply>, ConnectionError> {
        self.small.run(&commands, self.small.deadline()).await
    }

    /// Runs commands with large values, over a connection of its own.
    ///
    /// # Errors
    /// As [`RedisClient::run`].
    pub async fn bulk(&self, commands: Vec<Command>) -> Result<Vec<Reply>, ConnectionError> {
        self.bulk.run(&commands, self.bulk.deadline()).await
    }

    /// Runs a script, which is atomic. In a Cluster, all keys must be in one slot.
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

    /// The number of subscribers of a channel on all masters; those on replicas of a Cluster's masters are not counted.
    ///
    /// # Errors
    /// If a node does not answer or does not allow it.
    pub async fn subscribers(&self, channel: &str) -> Result<usize, ConnectionError> {
        let command = |node| Command::new("PUBSUB").arg("NUMSUB").arg(channel.to_owned()).at(node);
        let replies = self.run(self.masters().await?.into_iter().map(command).collect()).await?;
        let count = |reply: &Reply| match reply {
            Reply::Array(parts) => match parts.get(1) {
                Some(Reply::Integer(count)) => usize::try_from(*count).map_err(|_| ConnectionError::Nonsense),
                _ => Err(ConnectionError::Nonsense),
            },
            other => Err(other.fault()),
        };
        replies.iter().map(count).sum()
    }

    /// Whether all masters answer, and the advice for the memory settings of the first one that needs any.
    ///
    /// # Errors
    /// If a node does not answer.
    pub async fn memory_advice(&self) -> Result<Option<&'static str>, ConnectionError> {
        let command = |node| Command::new("INFO").arg("memory").at(node);
        let replies = self.run(self.masters().await?.into_iter().map(command).collect()).await?;
        Ok(replies.iter().find_map(advice_from_info))
    }

    /// Whether there are several masters, each with its own keys.
    pub fn is_cluster(&self) -> bool {
        self.connector.is_cluster()
    }

    /// All masters: of a Cluster those that any node names; otherwise one, without a name.
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
            // First slot, last slot, the master, its replicas.
            let Reply::Array(range) = range else { return Err(ConnectionError::Nonsense) };
            let Some(Reply::Array(master)) = range.get(2) else { return Err(ConnectionError::Nonsense) };
            // A node that does not know its own address cannot be reached by it.
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

    /// Subscribes to channels until the subscription is dropped.
    pub fn listen(&self, channels: Vec<String>) -> Subscription {
        Subscription::start(self.connector.clone(), channels)
    }

    /// Whether Redis answers, by the last calls.
    pub fn health(&self) -> Health {
        match self.small.health() {
            Health::Up => self.bulk.health(),
            down @ Health::Down { .. } => down,
        }
    }
}

impl fmt::Debug for RedisClient {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("RedisClient").field("health", &self.health()).finish_non_exhaustive()
    }
}
