//! Connects to Redis, and translates to and from the crate `redis`, which only this file names.
//!
//! None of the library's retries are used, because it does not know which command may run twice: of a Cluster's
//! redirections only those are followed that say that the command has not run.

use std::error::Error as _;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use futures_util::StreamExt as _;
use futures_util::future::{join_all, select_ok};
use redis::aio::{ConnectionLike as _, MultiplexedConnection, PubSub, PubSubSink, PubSubStream};
use redis::cluster::ClusterClient;
use redis::cluster_async::ClusterConnection;
use redis::cluster_routing::{RoutingInfo, SingleNodeRoutingInfo};
use redis::io::AsyncDNSResolver;
use redis::io::tcp::TcpSettings;
use redis::{
    AsyncConnectionConfig, ConnectionAddr, ConnectionInfo, ErrorKind, IntoConnectionInfo as _, RedisConnectionInfo,
    RedisError, RedisFuture, ServerErrorKind, Value, cmd,
};
use secrecy::ExposeSecret as _;
use tokio::time::{Instant, sleep, timeout, timeout_at};
use tokio_rustls::TlsConnector;
use tokio_util::task::AbortOnDropHandle;

use super::command::ClusterNode;
use super::dial::{dial, tls_connector};
use super::reply_limit::{LimitedReplies, ReplyFault};
use super::{Command, ConnectionError, Reply};
use crate::config::{self, RedisKind, RedisUrl};
use crate::network::{Duplex, Network, resolver};

/// Bounds of the timeout of each step of connecting, which else is that of a call.
const STEP_TIMEOUT_BOUNDS: [Duration; 2] = [Duration::from_millis(500), Duration::from_secs(2)];
/// Silence after which a subscription is checked by a ping.
const SUBSCRIPTION_PING_INTERVAL: Duration = Duration::from_secs(3);
/// Redirections of one command within a Cluster.
const MAX_REDIRECTIONS: u32 = 5;
/// Pause before a command is repeated that found no connection to its node, while the map of the Cluster is updated.
const CLUSTER_MAP_UPDATE_TIME: Duration = Duration::from_millis(20);

/// Looks up the names of a Cluster's nodes.
struct ClusterResolver;

impl AsyncDNSResolver for ClusterResolver {
    fn resolve<'a, 'b: 'a>(
        &'a self,
        host: &'b str,
        port: u16,
    ) -> RedisFuture<'a, Box<dyn Iterator<Item = SocketAddr> + Send + 'a>> {
        Box::pin(async move {
            let addresses = resolver().look_up(host, port).await?;
            Ok(Box::new(addresses.into_iter()) as Box<dyn Iterator<Item = SocketAddr> + Send>)
        })
    }
}

/// A server with the login for it.
#[derive(Clone)]
pub(super) struct NodeAddress {
    pub(super) host: String,
    pub(super) port: u16,
    pub(super) login: RedisConnectionInfo,
}

/// Where Redis is, and how to connect to it.
#[derive(Clone)]
pub(super) struct Connector(pub(super) Arc<ConnectionSettings>);

pub(super) struct ConnectionSettings {
    url: RedisUrl,
    /// User, password and database.
    pub(super) login: RedisConnectionInfo,
    step_timeout: Duration,
    tls: Option<TlsConnector>,
    /// Bytes of the largest value that is read into memory.
    max_value: u64,
    network: Network,
}

/// A connection. Clones share it, and it is closed with the last of them.
#[derive(Clone)]
pub(super) enum RawConnection {
    Single {
        connection: MultiplexedConnection,
        _driver: Arc<AbortOnDropHandle<()>>,
    },
    /// Replies are not bounded, because the library makes the connections to the nodes.
    Cluster(ClusterConnection),
}

impl Connector {
    pub(super) fn new(config: &config::RedisConfig, network: &Network) -> Result<Self, ConnectionError> {
        let url = RedisUrl::parse(config.url.expose_secret()).map_err(ConnectionError::Url)?;
        let mut login = no_login().set_db(i64::from(url.database));
        if let Some(username) = &url.username {
            login = login.set_username(username);
        }
        if let Some(password) = &url.password {
            login = login.set_password(password.expose_secret());
        }
        let step_timeout = config.timeout.clamp(STEP_TIMEOUT_BOUNDS[0], STEP_TIMEOUT_BOUNDS[1]);
        let no_roots = |error| ConnectionError::Unreachable(format!("the system's root certificates: {error}"));
        let tls = url.tls.then(tls_connector).transpose().map_err(no_roots)?;
        let (max_value, network) = (config.max_value, network.clone());
        Ok(Self(Arc::new(ConnectionSettings { url, login, step_timeout, tls, max_value, network })))
    }

    /// Whether there are several masters, each with its own keys.
    pub(super) fn is_cluster(&self) -> bool {
        self.0.url.kind == RedisKind::Cluster
    }

    /// Makes a new connection, in a few steps of bounded time.
    pub(super) async fn connect(&self) -> Result<RawConnection, ConnectionError> {
        match &self.0.url.kind {
            RedisKind::Cluster => self.connect_cluster().await.map(RawConnection::Cluster),
            _ => self.open(&self.single().await?).await,
        }
    }

    /// Subscribes to channels, over a connection of its own; in a Cluster, at any node.
    pub(super) async fn subscribe(&self, channels: &[String]) -> Result<MessageStream, ConnectionError> {
        if self.0.url.kind != RedisKind::Cluster {
            return self.subscribe_at(&self.single().await?, channels).await;
        }
        let nodes: Vec<_> = self.nodes(self.0.login.clone()).collect();
        let streams = nodes.iter().map(|node| Box::pin(self.subscribe_at(node, channels)));
        select_ok(streams).await.map(|(stream, _)| stream)
    }

    /// The nodes of the URL.
    pub(super) fn nodes(&self, login: RedisConnectionInfo) -> impl Iterator<Item = NodeAddress> {
        let nodes = self.0.url.nodes.iter().cloned();
        nodes.map(move |(host, port)| NodeAddress { host, port, login: login.clone() })
    }

    /// The only server, or the master that the Sentinels name.
    async fn single(&self) -> Result<NodeAddress, ConnectionError> {
        match &self.0.url.kind {
            RedisKind::Sentinel(master) => self.find_master(master).await,
            _ => self.nodes(self.0.login.clone()).next().ok_or(ConnectionError::NoMaster),
        }
    }

    /// Runs one command on a new connection.
    pub(super) async fn query(&self, target: &NodeAddress, command: Command) -> Result<Reply, ConnectionError> {
        let connection = self.open(target).await?;
        let deadline = Instant::now() + self.0.step_timeout;
        connection.run(&[command], deadline).await?.pop().ok_or(ConnectionError::Nonsense)
    }

    async fn open(&self, target: &NodeAddress) -> Result<RawConnection, ConnectionError> {
        let stream = self.dial(target).await?;
        // Each call has a deadline of its own.
        let config = AsyncConnectionConfig::new().set_connection_timeout(None).set_response_timeout(None);
        let opened = MultiplexedConnection::new_with_config(&target.login, stream, config);
        let (connection, driver) =
            bounded(self.0.step_timeout, opened).await.map_err(ConnectionError::before_a_call)?;
        let driver = AbortOnDropHandle::new(tokio::spawn(driver));
        Ok(RawConnection::Single { connection, _driver: Arc::new(driver) })
    }

    async fn dial(&self, node: &NodeAddress) -> Result<LimitedReplies<Box<dyn Duplex>>, ConnectionError> {
        let dialled = dial(&self.0.network, &node.host, node.port, self.0.tls.as_ref());
        let dialled = timeout(self.0.step_timeout, dialled).await.map_err(|_| ConnectionError::TimedOut)?;
        let stream = dialled.map_err(|error| ConnectionError::Unreachable(error.to_string()))?;
        Ok(LimitedReplies::new(stream, self.0.max_value))
    }

    async fn connect_cluster(&self) -> Result<ClusterConnection, ConnectionError> {
        let node = |NodeAddress { host, port, login }| {
            let addr = if self.0.url.tls {
                ConnectionAddr::TcpTls { host, port, insecure: false, tls_params: None }
            } else {
                ConnectionAddr::Tcp(host, port)
            };
            addr.into_connection_info().map(|info| info.set_redis_settings(login)).map_err(|error| fault(&error))
        };
        let nodes: Vec<ConnectionInfo> = self.nodes(self.0.login.clone()).map(node).collect::<Result<_, _>>()?;
        let builder = ClusterClient::builder(nodes)
            .retries(0)
            .connection_timeout(self.0.step_timeout)
            .response_timeout(self.0.step_timeout)
            .overall_response_timeout(None)
            .async_dns_resolver(ClusterResolver)
            .tcp_settings(TcpSettings::default().set_nodelay(true));
        let client = builder.build().map_err(|error| fault(&error))?;
        // A silent node is waited for twice: as one that the URL names, and as one that the Cluster names.
        bounded(3 * self.0.step_timeout, client.get_async_connection()).await.map_err(ConnectionError::before_a_call)
    }

    async fn subscribe_at(&self, target: &NodeAddress, channels: &[String]) -> Result<MessageStream, ConnectionError> {
        let (stream, step_timeout) = (self.dial(target).await?, self.0.step_timeout);
        let mut connection = bounded(step_timeout, PubSub::new(&target.login, stream)).await?;
        bounded(step_timeout, connection.subscribe(channels)).await?;
        let (sink, stream) = connection.split();
        Ok(MessageStream { sink, stream, step_timeout })
    }
}

/// A login that does not tell Redis the name of the library, since an ACL would have to allow that command too.
pub(super) fn no_login() -> RedisConnectionInfo {
    RedisConnectionInfo::default().set_skip_set_lib_name()
}

async fn bounded<T>(time: Duration, call: impl Future<Output = redis::RedisResult<T>>) -> Result<T, ConnectionError> {
    match timeout(time, call).await {
        Ok(result) => result.map_err(|error| fault(&error)),
        Err(_) => Err(ConnectionError::TimedOut),
    }
}

impl RawConnection {
    /// Runs commands, and ends by the deadline. Returns a reply for each.
    ///
    /// # Errors
    /// If none was answered.
    pub(super) async fn run(&self, commands: &[Command], deadline: Instant) -> Result<Vec<Reply>, ConnectionError> {
        match self {
            Self::Single { connection, .. } => {
                let mut pipeline = redis::Pipeline::with_capacity(commands.len());
                for command in commands {
                    pipeline.add_command(packed(command));
                }
                let mut connection = connection.clone();
                let call = connection.req_packed_commands(&pipeline, 0, commands.len());
                let values = timeout_at(deadline, call).await.map_err(|_| ConnectionError::TimedOut)?;
                let replies: Vec<_> = values.map_err(|error| fault(&error))?.into_iter().map(reply).collect();
                if replies.len() == commands.len() { Ok(replies) } else { Err(ConnectionError::Nonsense) }
            }
            Self::Cluster(connection) => {
                let calls = commands.iter().map(|command| routed(connection.clone(), command, deadline));
                let ended = join_all(calls).await;
                if let Some(Err(error)) = ended.first()
                    && ended.iter().all(Result::is_err)
                {
                    return Err(error.clone());
                }
                let reply = |ended: Result<_, _>| ended.unwrap_or_else(|error| Reply::Error(format!("LINK {error}")));
                Ok(ended.into_iter().map(reply).collect())
            }
        }
    }

    /// Whether the connection recovers after a failure, at least in part, so that it is better than none.
    pub(super) fn recovers_itself(&self) -> bool {
        matches!(self, Self::Cluster(_))
    }

    /// Runs one command on any master, whatever its key. `None` if it is not answered by the deadline.
    pub(super) async fn run_anywhere(&self, command: &Command, deadline: Instant) -> Option<Reply> {
        let command = packed(command);
        let call = async {
            match self.clone() {
                Self::Single { mut connection, .. } => connection.req_packed_command(&command).await,
                Self::Cluster(mut connection) => {
                    let any = RoutingInfo::SingleNode(SingleNodeRoutingInfo::RandomPrimary);
                    connection.route_command(command, any).await
                }
            }
        };
        timeout_at(deadline, call).await.ok()?.ok().map(reply)
    }
}

/// Runs one command in a Cluster, and follows redirections, each of which says that the command has not run.
async fn routed(
    mut connection: ClusterConnection,
    command: &Command,
    deadline: Instant,
) -> Result<Reply, ConnectionError> {
    let (node, command) = (command.node.as_ref(), packed(command));
    let call = async {
        let mut ended = match node {
            // A command for one node is not redirected.
            Some(ClusterNode { host, port }) => {
                let to = SingleNodeRoutingInfo::ByAddress { host: host.to_string(), port: *port };
                return connection.route_command(command, RoutingInfo::SingleNode(to)).await;
            }
            None => connection.req_packed_command(&command).await,
        };
        for _ in 0..MAX_REDIRECTIONS {
            let Err(error) = &ended else { break };
            let to = error.redirect_node().and_then(|(address, _)| {
                let (host, port) = address.rsplit_once(':')?;
                let host = host.trim_start_matches('[').trim_end_matches(']').to_owned();
                Some(SingleNodeRoutingInfo::ByAddress { host, port: port.parse().ok()? })
            });
            ended = match (error.kind(), to) {
                (ErrorKind::Server(ServerErrorKind::Moved), Some(to)) => {
                    connection.route_command(command.clone(), RoutingInfo::SingleNode(to)).await
                }
                (ErrorKind::Server(ServerErrorKind::Ask), Some(to)) => {
                    let mut pipeline = redis::Pipeline::new();
                    pipeline.add_command(cmd("ASKING")).add_command(command.clone());
                    let values = connection.route_pipeline(pipeline, 0, 2, to).await;
                    values.map(|mut values| values.pop().unwrap_or(Value::Nil))
                }
                // There was no connection to the node, so nothing was sent. The library reads the map again by itself.
                (ErrorKind::ClusterConnectionNotFound, _) => {
                    sleep(CLUSTER_MAP_UPDATE_TIME).await;
                    connection.req_packed_command(&command).await
                }
                _ => break,
            };
        }
        ended
    };
    match timeout_at(deadline, call).await {
        Err(_) => Err(ConnectionError::TimedOut),
        Ok(Ok(value)) => Ok(reply(value)),
        Ok(Err(error)) => match error.kind() {
            ErrorKind::Server(_) | ErrorKind::Extension => {
                Ok(Reply::error(error.code().unwrap_or("ERR"), error.detail()))
            }
            _ => Err(fault(&error)),
        },
    }
}

/// The messages of a subscription.
pub(super) struct MessageStream {
    sink: PubSubSink,
    stream: PubSubStream,
    step_timeout: Duration,
}

impl MessageStream {
    /// The next message, as channel and payload; `None` if the connection is closed, or does not answer a ping.
    pub(super) async fn next(&mut self) -> Option<(String, Bytes)> {
        loop {
            match timeout(SUBSCRIPTION_PING_INTERVAL, self.stream.next()).await {
                Ok(message) => {
                    let message = message?;
                    return Some((message.get_channel_name().to_owned(), message.get_payload_bytes().to_vec().into()));
                }
                Err(_) => match bounded(self.step_timeout, self.sink.ping::<Value>()).await {
                    // A server that forbids pings is alive.
                    Ok(_) | Err(ConnectionError::NotReady(_)) => {}
                    Err(_) => return None,
                },
            }
        }
    }
}

fn packed(command: &Command) -> redis::Cmd {
    let mut packed = cmd(command.name);
    for argument in &command.arguments {
        packed.arg(argument.as_ref());
    }
    packed
}

pub(super) fn reply(value: Value) -> Reply {
    match value {
        Value::Nil => Reply::Nil,
        Value::Int(number) => Reply::Integer(number),
        Value::BulkString(bytes) => Reply::Bytes(bytes.into()),
        Value::Okay => Reply::Status("OK".to_owned()),
        Value::SimpleString(word) => Reply::Status(word),
        Value::Array(values) => Reply::Array(values.into_iter().map(reply).collect()),
        Value::ServerError(error) => Reply::error(error.code(), error.details()),
        // The others are of RESP3, which is not requested.
        _ => Reply::Error("LINK a reply of an unknown kind".to_owned()),
    }
}

/// The error without the library's own text, which may quote values.
fn fault(error: &RedisError) -> ConnectionError {
    match error.kind() {
        ErrorKind::Io if error.is_timeout() => ConnectionError::TimedOut,
        ErrorKind::Io if let Some(fault) = reply_fault(error) => match fault {
            ReplyFault::TooLarge(limit) => ConnectionError::TooLarge(limit),
            ReplyFault::Nonsense => ConnectionError::Nonsense,
        },
        // Of the system or of TLS, neither of which has seen a value.
        ErrorKind::Io => {
            ConnectionError::Broken(error.source().map_or_else(|| "it was closed".to_owned(), ToString::to_string))
        }
        ErrorKind::AuthenticationFailed => ConnectionError::Credentials,
        ErrorKind::ClusterConnectionNotFound => ConnectionError::Unreachable("no node of the Cluster is there".into()),
        ErrorKind::Server(_) | ErrorKind::Extension => match error.code() {
            Some("WRONGPASS") => ConnectionError::Credentials,
            code => ConnectionError::NotReady(code.unwrap_or("ERR").to_owned()),
        },
        _ => ConnectionError::Nonsense,
    }
}

/// The fault that [`LimitedReplies`] found.
fn reply_fault(error: &RedisError) -> Option<ReplyFault> {
    error.source()?.downcast_ref::<std::io::Error>()?.get_ref()?.downcast_ref().copied()
}
