//! Real Redis servers on loopback: alone, in a Cluster, or watched by Sentinels. Killed when dropped; they keep
//! nothing.

use std::net::TcpListener;
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use redis::Value;
use tempfile::TempDir;

/// A port that nobody listened on a moment ago.
pub(crate) fn free_port() -> u16 {
    TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap().port()
}

/// Looks again and again until `found` has something.
pub(crate) fn wait_for<T>(what: &str, mut found: impl FnMut() -> Option<T>) -> T {
    let begun = Instant::now();
    loop {
        if let Some(found) = found() {
            return found;
        }
        assert!(begun.elapsed() < Duration::from_mins(1), "waited in vain: {what}");
        std::thread::sleep(Duration::from_millis(20));
    }
}

/// One server.
pub(crate) struct RedisServer {
    port: u16,
    arguments: Vec<String>,
    dir: TempDir,
    child: Child,
}

impl RedisServer {
    /// With Redis's own settings, but for a free port and no files.
    pub(crate) fn start() -> Self {
        Self::with(&[])
    }

    /// With more settings, as on the command line: `["--maxmemory", "1mb"]`.
    pub(crate) fn with(arguments: &[&str]) -> Self {
        let arguments: Vec<_> = arguments.iter().map(ToString::to_string).collect();
        loop {
            // Another test may have taken the port in between; then the server ends at once.
            if let Some(server) = Self::try_start(free_port(), &arguments) {
                return server;
            }
        }
    }

    fn try_start(port: u16, arguments: &[String]) -> Option<Self> {
        let dir = tempfile::tempdir().unwrap();
        let child = spawn(port, arguments, &dir);
        let mut server = Self { port, arguments: arguments.to_vec(), dir, child };
        server.is_up().then_some(server)
    }

    /// Waits until it answers; `false` if it has ended instead.
    fn is_up(&mut self) -> bool {
        let own = format!("process_id:{}\r", self.child.id());
        wait_for("a Redis server that answers", || {
            if self.child.try_wait().unwrap().is_some() {
                return Some(false);
            }
            // Somebody else's server may stand at the port.
            let info = self.try_admin(&["INFO", "server"]).ok()?;
            text(&info).contains(&own).then_some(true)
        })
    }

    pub(crate) fn port(&self) -> u16 {
        self.port
    }

    /// `redis://127.0.0.1:PORT`
    pub(crate) fn url(&self) -> String {
        format!("redis://127.0.0.1:{}", self.port)
    }

    /// The same with `login` before the host, as in `user:password`.
    pub(crate) fn url_for(&self, login: &str) -> String {
        format!("redis://{login}@127.0.0.1:{}", self.port)
    }

    /// What it says to a command, over a connection of its own.
    pub(crate) fn admin(&self, command: &[&str]) -> Value {
        self.try_admin(command).unwrap_or_else(|error| panic!("{command:?}: {error}"))
    }

    fn try_admin(&self, command: &[&str]) -> redis::RedisResult<Value> {
        let mut connection = redis::Client::open(self.url())?.get_connection_with_timeout(Duration::from_secs(2))?;
        connection.set_read_timeout(Some(Duration::from_secs(2)))?;
        redis::cmd(command[0]).arg(&command[1..]).query(&mut connection)
    }

    /// Freezes it: connections stay open, and nothing is answered.
    pub(crate) fn stop(&self) {
        self.signal("STOP");
    }

    /// Lets it go on.
    pub(crate) fn cont(&self) {
        self.signal("CONT");
    }

    fn signal(&self, signal: &str) {
        let pid = self.child.id().to_string();
        assert!(Command::new("sh").arg("-c").arg(format!("kill -{signal} {pid}")).status().unwrap().success());
    }

    /// Ends it at once.
    pub(crate) fn kill(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }

    /// Starts it again, empty, at the same port.
    pub(crate) fn restart(&mut self) {
        self.kill();
        wait_for("the old port to be free again", || {
            self.child = spawn(self.port, &self.arguments, &self.dir);
            self.is_up().then_some(())
        });
    }
}

impl Drop for RedisServer {
    fn drop(&mut self) {
        self.kill();
    }
}

fn spawn(port: u16, arguments: &[String], dir: &TempDir) -> Child {
    let mut command = Command::new("redis-server");
    let settings = ["--bind", "127.0.0.1", "--save", "", "--appendonly", "no", "--repl-diskless-sync-delay", "0"];
    command.arg("--port").arg(port.to_string()).arg("--dir").arg(dir.path()).args(settings).args(arguments);
    let command = command.stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::null());
    command.spawn().expect("redis-server; ./test installs it")
}

/// All the text in a reply.
pub(crate) fn text(value: &Value) -> String {
    match value {
        Value::BulkString(bytes) => String::from_utf8_lossy(bytes).into_owned(),
        Value::SimpleString(word) => word.clone(),
        Value::VerbatimString { text, .. } => text.clone(),
        Value::Int(number) => number.to_string(),
        Value::Array(values) => values.iter().map(text).collect::<Vec<_>>().join(" "),
        _ => String::new(),
    }
}

/// Three masters, each with a third of the slots, and a replica of the first.
pub(crate) struct RedisCluster {
    /// The masters, in the order of their slots.
    pub(crate) masters: Vec<RedisServer>,
    /// Of the first master.
    pub(crate) replica: RedisServer,
}

/// Where the slots of each master begin, and where the last ones end.
const SLOTS: [u16; 4] = [0, 5461, 10923, 16384];

impl RedisCluster {
    pub(crate) fn start() -> Self {
        let mut nodes: Vec<_> = (0..4).map(|_| cluster_node()).collect();
        for (number, ((node, _), slots)) in nodes.iter().zip(SLOTS.windows(2)).enumerate() {
            node.admin(&["CLUSTER", "SET-CONFIG-EPOCH", &(number + 1).to_string()]);
            node.admin(&["CLUSTER", "ADDSLOTSRANGE", &slots[0].to_string(), &(slots[1] - 1).to_string()]);
        }
        for (node, bus) in &nodes[1..] {
            nodes[0].0.admin(&["CLUSTER", "MEET", "127.0.0.1", &node.port.to_string(), bus]);
        }
        let all_ok = |nodes: &[(RedisServer, String)]| {
            nodes.iter().all(|(node, _)| {
                let info = text(&node.admin(&["CLUSTER", "INFO"]));
                info.contains("cluster_state:ok") && info.contains("cluster_known_nodes:4")
            })
        };
        wait_for("a Cluster that is whole", || all_ok(&nodes).then_some(()));
        let first = text(&nodes[0].0.admin(&["CLUSTER", "MYID"]));
        let (replica, _) = nodes.pop().unwrap();
        replica.admin(&["CLUSTER", "REPLICATE", &first]);
        wait_for("a replica that follows", || {
            let follows = text(&replica.admin(&["INFO", "replication"])).contains("master_link_status:up");
            // A master that does not know its replica would not be failed over.
            let known = nodes
                .iter()
                .all(|(node, _)| text(&node.admin(&["CLUSTER", "SLOTS"])).contains(&replica.port.to_string()));
            (follows && known).then_some(())
        });
        Self { masters: nodes.into_iter().map(|(node, _)| node).collect(), replica }
    }

    /// `redis+cluster://…` with the masters.
    pub(crate) fn url(&self) -> String {
        let hosts: Vec<_> = self.masters.iter().map(|node| format!("127.0.0.1:{}", node.port)).collect();
        format!("redis+cluster://{}", hosts.join(","))
    }
}

fn cluster_node() -> (RedisServer, String) {
    let bus = free_port().to_string();
    let timing = ["--cluster-node-timeout", "1500", "--cluster-replica-validity-factor", "0"];
    let cluster = ["--cluster-enabled", "yes", "--cluster-port", &bus, "--cluster-require-full-coverage", "no"];
    (RedisServer::with(&[&cluster[..], &timing[..]].concat()), bus)
}

/// A master, a replica, and three Sentinels that agree by two.
pub(crate) struct Sentinels {
    pub(crate) master: RedisServer,
    pub(crate) replica: RedisServer,
    watchers: Vec<RedisServer>,
}

impl Sentinels {
    pub(crate) fn start() -> Self {
        let master = RedisServer::start();
        let replica = RedisServer::with(&["--replicaof", "127.0.0.1", &master.port.to_string()]);
        wait_for("a replica that follows", || {
            text(&replica.admin(&["INFO", "replication"])).contains("master_link_status:up").then_some(())
        });
        let watchers: Vec<_> = (0..3).map(|_| sentinel(master.port)).collect();
        wait_for("Sentinels that know each other", || {
            let knows = |sentinel: &RedisServer| {
                let told = text(&sentinel.admin(&["SENTINEL", "MASTER", "mymaster"]));
                told.contains("num-other-sentinels 2") && told.contains("num-slaves 1")
            };
            watchers.iter().all(knows).then_some(())
        });
        Self { master, replica, watchers }
    }

    /// `redis+sentinel://…/mymaster`; the first of them is nobody.
    pub(crate) fn url(&self) -> String {
        let hosts: Vec<_> = self.watchers.iter().map(|node| format!("127.0.0.1:{}", node.port)).collect();
        format!("redis+sentinel://127.0.0.1:1,{}/mymaster", hosts.join(","))
    }
}

fn sentinel(master: u16) -> RedisServer {
    loop {
        let (port, dir) = (free_port(), tempfile::tempdir().unwrap());
        let file = dir.path().join("sentinel.conf");
        let lines = format!(
            "port {port}\nbind 127.0.0.1\nsentinel monitor mymaster 127.0.0.1 {master} 2\n\
             sentinel down-after-milliseconds mymaster 1000\nsentinel failover-timeout mymaster 5000\n"
        );
        std::fs::write(&file, lines).unwrap();
        let mut command = Command::new("redis-server");
        let command = command.arg(&file).arg("--sentinel").stdin(Stdio::null());
        let child = command.stdout(Stdio::null()).stderr(Stdio::null()).spawn().expect("redis-server");
        let mut server = RedisServer { port, arguments: Vec::new(), dir, child };
        if server.is_up() {
            return server;
        }
    }
}
