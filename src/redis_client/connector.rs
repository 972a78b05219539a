//! What goes over the wire. The one file that names the crate redis.
//!
//! Nothing of the crate that tries again by itself is used, for it does not know which command may run twice: of a
//! Cluster's redirections only those are followed that say that the command has not run.

use std::error::Error as _;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use futures_util::StreamExt as _;
use futures_util::future::{join_all, select_ok};
use redis::aio::{ConnectionLike as _, MultiplexedConnection, PubSub, PubSubSink, PubSubStream};
use redis::cluster::ClusterClient;
use redis::cluster_async::ClusterConnection;
use redis::cluster_routing::{RoutingInfo, SingleNodeRoutingInfo};
use redis::io::tcp::TcpSettings;
use redis::{
    AsyncConnectionConfig, ConnectionAddr, ConnectionInfo, ErrorKind, IntoConnectionInfo as _, RedisConnectionInfo,
    RedisError, ServerErrorKind, Value, cmd,
};
use secrecy::ExposeSecret as _;
use tokio::time::{Instant, sleep, timeout, timeout_at};
use tokio_rustls::TlsConnector;
use tokio_util::task::AbortOnDropHandle;

use super::command::ClusterNode;
use super::dial::{Duplex, dial, tls_connector};
use super::reply_limit::{LimitedReplies, ReplyFault};
use super::{Command, ConnectionError, Reply};
use crate::config;
use crate::config::{RedisKind, RedisUrl};

/// How long each step of connecting may take: as long as a call, but enough for TLS and not for ever.
const STEP: [Duration; 2] = [Duration::from_millis(500), Duration::from_secs(2)];
/// How often a subscription is asked whether it still lives.
const ASKED: Duration = Duration::from_secs(3);
/// How often a Cluster may send a command on.
const REDIRECTIONS: u32 = 5;
/// How long to wait where a Cluster's map is being drawn anew.
const REDRAWN: Duration = Duration::from_millis(20);

/// One node, and what to say to it first.
#[derive(Clone)]
struct Target {
    host: String,
    port: u16,
    login: RedisConnectionInfo,
}

/// Where Redis is, and how to speak to it.
#[derive(Clone)]
pub(super) struct Connector(Arc<Place>);

struct Place {
    url: RedisUrl,
    /// User, password and database.
    login: RedisConnectionInfo,
    step: Duration,
    tls: Option<TlsConnector>,
    /// Bytes of the largest value that is read into memory.
    max_value: u64,
}

/// A connection; its clones share it, and it is closed with the last of them.
#[derive(Clone)]
pub(super) enum RawConnection {
    Single {
        connection: MultiplexedConnection,
        _driver: Arc<AbortOnDropHandle<()>>,
    },
    /// Its replies are not bounded: the crate makes the connections to the nodes by itself.
    Cluster(ClusterConnection),
}

impl Connector {
    pub(super) fn new(config: &config::RedisConfig) -> Result<Self, ConnectionError> {
        let url = RedisUrl::parse(config.url.expose_secret()).map_err(ConnectionError::Url)?;
        let mut login = no_login().set_db(i64::from(url.database));
        if let Some(username) = &url.username {
            login = login.set_username(username);
        }
        if let Some(password) = &url.password {
            login = login.set_password(password.expose_secret());
        }
        let step = config.timeout.clamp(STEP[0], STEP[1]);
        let tls = url.tls.then(tls_connector).transpose();
        let tls =
            tls.map_err(|error| ConnectionError::Unreachable(format!("the system's root certificates: {error}")))?;
        Ok(Self(Arc::new(Place { url, login, step, tls, max_value: config.max_value })))
    }

    /// Whether there are several masters, each with its own keys.
    pub(super) fn is_cluster(&self) -> bool {
        self.0.url.kind == RedisKind::Cluster
    }

    /// A new connection. Takes some steps at the most.
    pub(super) async fn connect(&self) -> Result<RawConnection, ConnectionError> {
        let place = &self.0;
        match &place.url.kind {
            RedisKind::Cluster => place.cluster().await.map(RawConnection::Cluster),
            _ => place.open(&place.single().await?).await,
        }
    }

    /// Listens to channels, over a connection of its own. In a Cluster any node will do.
    pub(super) async fn subscribe(&self, channels: &[String]) -> Result<Feed, ConnectionError> {
        let place = &self.0;
        if place.url.kind != RedisKind::Cluster {
            return place.subscribe(&place.single().await?, channels).await;
        }
        let nodes: Vec<_> = place.nodes(&place.login).collect();
        let feeds = nodes.iter().map(|node| Box::pin(place.subscribe(node, channels)));
        select_ok(feeds).await.map(|(feed, _)| feed)
    }
}

impl Place {
    /// The nodes of the URL.
    fn nodes(&self, login: &RedisConnectionInfo) -> impl Iterator<Item = Target> {
        self.url.nodes.iter().map(|(host, port)| Target { host: host.clone(), port: *port, login: login.clone() })
    }

    /// Where the one server is.
    async fn single(&self) -> Result<Target, ConnectionError> {
        match &self.url.kind {
            RedisKind::Sentinel(master) => self.master(master).await,
            _ => self.nodes(&self.login).next().ok_or(ConnectionError::NoMaster),
        }
    }

    /// Asks all Sentinels at once, for some may be gone, and takes the first answer that is true.
    async fn master(&self, name: &str) -> Result<Target, ConnectionError> {
        let sentinels: Vec<_> = self.nodes(&no_login()).collect();
        let answers = sentinels.iter().map(|sentinel| Box::pin(self.master_by(sentinel, name)));
        // The Sentinels' own errors are of no use to anybody: each may have failed in another way.
        select_ok(answers).await.map(|(master, _)| master).map_err(|error| match error {
            ConnectionError::Credentials => error,
            _ => ConnectionError::NoMaster,
        })
    }

    async fn master_by(&self, sentinel: &Target, name: &str) -> Result<Target, ConnectionError> {
        let ask = async |sentinel: &Target| {
            let question = Command::new("SENTINEL").arg("GET-MASTER-ADDR-BY-NAME").arg(name.to_owned());
            self.open(sentinel).await?.one(question, self.step).await
        };
        let mut answer = ask(sentinel).await?;
        if answer.is_error("NOAUTH") {
            let login = self.login.clone().set_db(0);
            answer = ask(&Target { login, ..sentinel.clone() }).await?;
        }
        let Reply::Array(parts) = answer else { return Err(ConnectionError::NoMaster) };
        let [Reply::Bytes(host), Reply::Bytes(port)] = parts.as_slice() else { return Err(ConnectionError::NoMaster) };
        let text = |bytes: &Bytes| std::str::from_utf8(bytes).map(str::to_owned).map_err(|_| ConnectionError::NoMaster);
        let port = text(port)?.parse().map_err(|_| ConnectionError::NoMaster)?;
        let master = Target { host: text(host)?, port, login: self.login.clone() };
        // In a failover, a Sentinel may name for a while what is a master no more.
        match self.open(&master).await?.one(Command::new("ROLE"), self.step).await? {
            Reply::Array(parts) if parts.first() != Some(&Reply::Bytes("master".into())) => {
                Err(ConnectionError::NoMaster)
            }
            // Who may not ask for it, takes the Sentinel's word.
            _ => Ok(master),
        }
    }

    async fn open(&self, node: &Target) -> Result<RawConnection, ConnectionError> {
        let stream = self.dial(node).await?;
        // Calls have deadlines of their own.
        let config = AsyncConnectionConfig::new().set_connection_timeout(None).set_response_timeout(None);
        let opened = MultiplexedConnection::new_with_config(&node.login, stream, config);
        let (connection, driver) = bounded(self.step, opened).await.map_err(ConnectionError::before_a_call)?;
        let driver = AbortOnDropHandle::new(tokio::spawn(driver));
        Ok(RawConnection::Single { connection, _driver: Arc::new(driver) })
    }

    async fn dial(
        &self,
        Target { host, port, .. }: &Target,
    ) -> Result<LimitedReplies<Box<dyn Duplex>>, ConnectionError> {
        let stream =
            timeout(self.step, dial(host, *port, self.tls.as_ref())).await.map_err(|_| ConnectionError::TimedOut)?;
        let stream = stream.map_err(|error| ConnectionError::Unreachable(error.to_string()))?;
        Ok(LimitedReplies::new(stream, self.max_value))
    }

    async fn cluster(&self) -> Result<ClusterConnection, ConnectionError> {
        let node = |Target { host, port, login }| {
            let addr = if self.url.tls {
                ConnectionAddr::TcpTls { host, port, insecure: false, tls_params: None }
            } else {
                ConnectionAddr::Tcp(host, port)
            };
            addr.into_connection_info().map(|info| info.set_redis_settings(login)).map_err(|error| fault(&error))
        };
        let nodes: Vec<ConnectionInfo> = self.nodes(&self.login).map(node).collect::<Result<_, _>>()?;
        let builder = ClusterClient::builder(nodes)
            .retries(0)
            .connection_timeout(self.step)
            .response_timeout(self.step)
            .overall_response_timeout(None)
            .tcp_settings(TcpSettings::default().set_nodelay(true));
        let client = builder.build().map_err(|error| fault(&error))?;
        // A node that is silent is waited for twice: as one that the URL names, and as one that the Cluster names.
        bounded(3 * self.step, client.get_async_connection()).await.map_err(ConnectionError::before_a_call)
    }

    async fn subscribe(&self, node: &Target, channels: &[String]) -> Result<Feed, ConnectionError> {
        let stream = self.dial(node).await?;
        let mut connection = bounded(self.step, PubSub::new(&node.login, stream)).await?;
        bounded(self.step, connection.subscribe(channels)).await?;
        let (sink, stream) = connection.split();
        Ok(Feed { sink, stream, step: self.step })
    }
}

/// Does not tell Redis the name of the library: it is one more command that an ACL would have to allow.
fn no_login() -> RedisConnectionInfo {
    RedisConnectionInfo::default().set_skip_set_lib_name()
}

async fn bounded<T>(time: Duration, call: impl Future<Output = redis::RedisResult<T>>) -> Result<T, ConnectionError> {
    match timeout(time, call).await {
        Ok(result) => result.map_err(|error| fault(&error)),
        Err(_) => Err(ConnectionError::TimedOut),
    }
}

impl RawConnection {
    /// Runs all commands, and ends by the deadline.
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

    /// What is said to one command within this time.
    async fn one(&self, command: Command, time: Duration) -> Result<Reply, ConnectionError> {
        self.run(&[command], Instant::now() + time).await?.pop().ok_or(ConnectionError::Nonsense)
    }

    /// Whether it finds its way again after a failure, in part at least, so that it is better than none.
    pub(super) fn mends_itself(&self) -> bool {
        matches!(self, Self::Cluster(_))
    }

    /// `maxmemory` and `maxmemory-policy`, if they can be found out. Of a Cluster any node tells for all.
    pub(super) async fn memory(&self, deadline: Instant) -> Option<(u64, String)> {
        let ask = async |command: redis::Cmd| {
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
        };
        let setting = async |name: &str| match ask(cmd("CONFIG").arg("GET").arg(name).to_owned()).await? {
            Reply::Array(parts) => match parts.into_iter().nth(1)? {
                Reply::Bytes(value) => Some(String::from_utf8_lossy(&value).into_owned()),
                _ => None,
            },
            _ => None,
        };
        if let Some(limit) = setting("maxmemory").await {
            return Some((limit.parse().ok()?, setting("maxmemory-policy").await?));
        }
        let Reply::Bytes(info) = ask(cmd("INFO").arg("memory").to_owned()).await? else { return None };
        let info = String::from_utf8_lossy(&info);
        let member = |name| info.lines().find_map(|line| line.strip_prefix(name));
        Some((member("maxmemory:")?.parse().ok()?, member("maxmemory_policy:")?.to_owned()))
    }
}

/// One command in a Cluster. Goes where it is sent on to; each of those answers says that it has not run.
async fn routed(
    mut connection: ClusterConnection,
    command: &Command,
    deadline: Instant,
) -> Result<Reply, ConnectionError> {
    let (node, command) = (command.node.as_ref(), packed(command));
    let going = async {
        let mut ended = match node {
            // What is meant for one node can be done by no other.
            Some(ClusterNode { host, port }) => {
                let to = SingleNodeRoutingInfo::ByAddress { host: host.to_string(), port: *port };
                return connection.route_command(command, RoutingInfo::SingleNode(to)).await;
            }
            None => connection.req_packed_command(&command).await,
        };
        for _ in 0..REDIRECTIONS {
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
                // There was no connection to the node, so nothing was sent. The crate asks for the map again by itself.
                (ErrorKind::ClusterConnectionNotFound, _) => {
                    sleep(REDRAWN).await;
                    connection.req_packed_command(&command).await
                }
                _ => break,
            };
        }
        ended
    };
    match timeout_at(deadline, going).await {
        Err(_) => Err(ConnectionError::TimedOut),
        Ok(Ok(value)) => Ok(reply(value)),
        Ok(Err(error)) => match error.kind() {
            ErrorKind::Server(_) | ErrorKind::Extension => {
                Ok(Reply::Error(told(error.code().unwrap_or("ERR"), error.detail())))
            }
            _ => Err(fault(&error)),
        },
    }
}

/// Messages as they come in.
pub(super) struct Feed {
    sink: PubSubSink,
    stream: PubSubStream,
    step: Duration,
}

impl Feed {
    /// The next message; `None` if the connection is gone. One that went without a word is found out by asking.
    pub(super) async fn next(&mut self) -> Option<(String, Bytes)> {
        loop {
            match timeout(ASKED, self.stream.next()).await {
                Ok(message) => {
                    let message = message?;
                    return Some((message.get_channel_name().to_owned(), message.get_payload_bytes().to_vec().into()));
                }
                Err(_) => match bounded(self.step, self.sink.ping::<Value>()).await {
                    // Whoever says that this is forbidden lives.
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

fn reply(value: Value) -> Reply {
    match value {
        Value::Nil => Reply::Nil,
        Value::Int(number) => Reply::Integer(number),
        Value::BulkString(bytes) => Reply::Bytes(bytes.into()),
        Value::Okay => Reply::Status("OK".to_owned()),
        Value::SimpleString(word) => Reply::Status(word),
        Value::Array(values) => Reply::Array(values.into_iter().map(reply).collect()),
        Value::ServerError(error) => Reply::Error(told(error.code(), error.details())),
        // The rest is of RESP3, which is not asked for.
        _ => Reply::Error("LINK a reply of an unknown kind".to_owned()),
    }
}

/// Redis's words, up to where it quotes the arguments of a command that it does not know.
fn told(code: &str, details: Option<&str>) -> String {
    let details = details.unwrap_or_default();
    let details = details.find("with args beginning with").map_or(details, |at| &details[..at]);
    format!("{code} {details}").trim_end_matches([' ', ',']).to_owned()
}

/// Our words for what the crate says: its own may quote what came over the wire.
fn fault(error: &RedisError) -> ConnectionError {
    match error.kind() {
        ErrorKind::Io if error.is_timeout() => ConnectionError::TimedOut,
        ErrorKind::Io if let Some(fault) = reply_fault(error) => match fault {
            ReplyFault::TooLarge(limit) => ConnectionError::TooLarge(limit),
            ReplyFault::Nonsense => ConnectionError::Nonsense,
        },
        // From the system or from TLS, neither of which has seen a value.
        ErrorKind::Io => ConnectionError::Broken(match error.source() {
            Some(source) => source.to_string(),
            None => "it was closed".to_owned(),
        }),
        ErrorKind::AuthenticationFailed => ConnectionError::Credentials,
        ErrorKind::ClusterConnectionNotFound => {
            ConnectionError::Unreachable("no node of the Cluster is there".to_owned())
        }
        ErrorKind::Server(_) | ErrorKind::Extension => match error.code() {
            Some("WRONGPASS") => ConnectionError::Credentials,
            code => ConnectionError::NotReady(code.unwrap_or("ERR").to_owned()),
        },
        _ => ConnectionError::Nonsense,
    }
}

/// What our own reader found wrong.
fn reply_fault(error: &RedisError) -> Option<ReplyFault> {
    error.source()?.downcast_ref::<std::io::Error>()?.get_ref()?.downcast_ref().copied()
}

impl ConnectionError {
    /// A connection that broke before it was there was none.
    fn before_a_call(self) -> Self {
        match self {
            Self::Broken(why) => Self::Unreachable(why),
            other => other,
        }
    }
}
