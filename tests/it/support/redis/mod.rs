//! Real Redis servers: alone, in a Cluster, or behind Sentinels; on loopback, or each in a network namespace. They are
//! killed when dropped, and keep nothing.

mod chunks;
mod topologies;

use std::net::TcpListener;
use std::process::{Child, Command, Stdio};
use std::sync::Arc;
use std::time::Duration;

use redis::Value;
use tempfile::TempDir;

use super::{Lan, Namespace, poll_blocking};
pub(crate) use topologies::{RedisCluster, RedisSentinels};

/// A port that was free a moment ago.
pub(crate) fn free_port() -> u16 {
    TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap().port()
}

/// Timeout of a command that a test sends to Redis.
const COMMAND_TIMEOUT: Duration = Duration::from_secs(20);

/// One server process.
pub(crate) struct RedisServer {
    port: u16,
    arguments: Vec<String>,
    dir: TempDir,
    place: Place,
    child: Child,
}

/// Where a server runs: in the namespace of the test, on loopback, or in one of its own.
#[derive(Clone, Default)]
pub(crate) struct Place(Option<Arc<Namespace>>);

impl From<&Arc<Namespace>> for Place {
    fn from(namespace: &Arc<Namespace>) -> Self {
        Self(Some(namespace.clone()))
    }
}

impl Place {
    /// The address of servers there.
    fn host(&self) -> String {
        self.0.as_ref().map_or_else(|| "127.0.0.1".to_owned(), |namespace| namespace.address(Lan::Redis))
    }

    fn run<T: Send>(&self, work: impl FnOnce() -> T + Send) -> T {
        match &self.0 {
            None => work(),
            Some(namespace) => namespace.run(work),
        }
    }
}

impl RedisServer {
    /// Starts with Redis's defaults, on a free port and without persistence.
    pub(crate) fn start() -> Self {
        Self::start_with(&[])
    }

    /// The same with more settings, as on the command line: `["--maxmemory", "1mb"]`.
    pub(crate) fn start_with(arguments: &[&str]) -> Self {
        Self::start_in(&Place::default(), arguments)
    }

    /// The same in a place.
    pub(crate) fn start_in(place: &Place, arguments: &[&str]) -> Self {
        let arguments: Vec<_> = arguments.iter().map(ToString::to_string).collect();
        loop {
            // Another test may have taken the port in between; then the server exits at once.
            if let Some(server) = Self::try_start(free_port(), &arguments, place) {
                return server;
            }
        }
    }

    fn try_start(port: u16, arguments: &[String], place: &Place) -> Option<Self> {
        let dir = tempfile::tempdir().unwrap();
        let child = spawn(port, arguments, &dir, place);
        let mut server = Self { port, arguments: arguments.to_vec(), dir, place: place.clone(), child };
        server.is_up().then_some(server)
    }

    /// Waits until the server answers; `false` if it has exited instead.
    fn is_up(&mut self) -> bool {
        let own = format!("process_id:{}\r", self.child.id());
        poll_blocking("Redis to answer", || {
            if self.child.try_wait().unwrap().is_some() {
                return Some(false);
            }
            // The port may belong to the server of another test.
            let info = self.try_command(&["INFO", "server"]).ok()?;
            reply_text(&info).contains(&own).then_some(true)
        })
    }

    /// The port that the server listens on.
    pub(crate) fn port(&self) -> u16 {
        self.port
    }

    /// `HOST:PORT`
    pub(crate) fn addr(&self) -> String {
        format!("{}:{}", self.place.host(), self.port)
    }

    /// `redis://HOST:PORT`
    pub(crate) fn url(&self) -> String {
        format!("redis://{}", self.addr())
    }

    /// The same with a login in front of the host, as in `user:password`.
    pub(crate) fn url_for(&self, login: &str) -> String {
        format!("redis://{login}@{}", self.addr())
    }

    /// The reply to a command, over a connection of its own.
    pub(crate) fn command(&self, command: &[&str]) -> Value {
        self.try_command(command).unwrap_or_else(|error| panic!("{command:?}: {error}"))
    }

    /// The text of the reply to a command.
    pub(crate) fn query(&self, command: &[&str]) -> String {
        reply_text(&self.command(command))
    }

    fn try_command(&self, command: &[&str]) -> redis::RedisResult<Value> {
        self.place.run(|| {
            let mut connection = redis::Client::open(self.url())?.get_connection_with_timeout(COMMAND_TIMEOUT)?;
            connection.set_read_timeout(Some(COMMAND_TIMEOUT))?;
            redis::cmd(command[0]).arg(&command[1..]).query(&mut connection)
        })
    }

    /// Freezes the process: connections stay open without replies.
    pub(crate) fn freeze(&self) {
        self.signal("STOP");
    }

    /// Resumes a frozen process.
    pub(crate) fn resume(&self) {
        self.signal("CONT");
    }

    fn signal(&self, signal: &str) {
        let pid = self.child.id().to_string();
        assert!(Command::new("sh").arg("-c").arg(format!("kill -{signal} {pid}")).status().unwrap().success());
    }

    /// Kills the process.
    pub(crate) fn kill(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }

    /// Waits until the server is a master.
    pub(crate) fn until_master(&self) {
        self.until_replies(&["ROLE"], "master");
    }

    /// Waits until the server follows a master.
    pub(crate) fn until_follows(&self) {
        self.until_replies(&["INFO", "replication"], "master_link_status:up");
    }

    /// Waits until the reply to a command contains `text`. A server whose role changes breaks connections.
    fn until_replies(&self, command: &[&str], text: &str) {
        let replies = || reply_text(&self.try_command(command).ok()?).contains(text).then_some(());
        poll_blocking(text, replies);
    }

    /// Starts the server again, empty, on the same port.
    pub(crate) fn restart(&mut self) {
        self.kill();
        poll_blocking("the port to be free again", || {
            self.child = spawn(self.port, &self.arguments, &self.dir, &self.place);
            self.is_up().then_some(())
        });
    }
}

impl Drop for RedisServer {
    fn drop(&mut self) {
        self.kill();
    }
}

fn spawn(port: u16, arguments: &[String], dir: &TempDir, place: &Place) -> Child {
    let mut command = Command::new("redis-server");
    let settings = ["--save", "", "--appendonly", "no", "--repl-diskless-sync-delay", "0", "--protected-mode", "no"];
    command.arg("--port").arg(port.to_string()).arg("--dir").arg(dir.path());
    command.args(["--bind", &place.host()]).args(settings).args(arguments);
    let command = command.stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::null());
    place.run(|| command.spawn()).expect("redis-server; ./test installs it")
}

/// All text of a reply; elements of an array are joined by blanks.
fn reply_text(value: &Value) -> String {
    match value {
        Value::BulkString(bytes) => String::from_utf8_lossy(bytes).into_owned(),
        Value::SimpleString(word) => word.clone(),
        Value::VerbatimString { text, .. } => text.clone(),
        Value::Int(number) => number.to_string(),
        Value::Array(values) => values.iter().map(reply_text).collect::<Vec<_>>().join(" "),
        _ => String::new(),
    }
}
