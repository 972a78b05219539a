//! Several Redis servers that belong together.

use std::process::{Command, Stdio};

use super::{RedisServer, free_port, poll_blocking};

/// Three masters with a third of the slots each, and a replica of the first.
pub(crate) struct RedisCluster {
    /// The masters, in the order of their slots.
    pub(crate) masters: Vec<RedisServer>,
    /// The replica of the first master.
    pub(crate) replica: RedisServer,
}

/// First slot of each master, and the end of the last one's.
const SLOTS: [u16; 4] = [0, 5461, 10923, 16384];

impl RedisCluster {
    /// Waits until all nodes know each other and the replica follows.
    pub(crate) fn start() -> Self {
        let mut nodes: Vec<_> = (0..4).map(|_| cluster_node()).collect();
        for (number, ((node, _), slots)) in nodes.iter().zip(SLOTS.windows(2)).enumerate() {
            node.command(&["CLUSTER", "SET-CONFIG-EPOCH", &(number + 1).to_string()]);
            node.command(&["CLUSTER", "ADDSLOTSRANGE", &slots[0].to_string(), &(slots[1] - 1).to_string()]);
        }
        for (node, bus) in &nodes[1..] {
            nodes[0].0.command(&["CLUSTER", "MEET", "127.0.0.1", &node.port.to_string(), bus]);
        }
        let all_ok = |nodes: &[(RedisServer, String)]| {
            nodes.iter().all(|(node, _)| {
                let info = node.query(&["CLUSTER", "INFO"]);
                info.contains("cluster_state:ok") && info.contains("cluster_known_nodes:4")
            })
        };
        poll_blocking("the Cluster to be complete", || all_ok(&nodes).then_some(()));
        let first = nodes[0].0.query(&["CLUSTER", "MYID"]);
        let (replica, _) = nodes.pop().unwrap();
        replica.command(&["CLUSTER", "REPLICATE", &first]);
        poll_blocking("the replica to follow", || {
            let follows = replica.query(&["INFO", "replication"]).contains("master_link_status:up");
            // No failover happens while a node does not know the replica.
            let known =
                nodes.iter().all(|(node, _)| node.query(&["CLUSTER", "SLOTS"]).contains(&replica.port.to_string()));
            (follows && known).then_some(())
        });
        Self { masters: nodes.into_iter().map(|(node, _)| node).collect(), replica }
    }

    /// `redis+cluster://…` with all masters.
    pub(crate) fn url(&self) -> String {
        let hosts: Vec<_> = self.masters.iter().map(|node| format!("127.0.0.1:{}", node.port)).collect();
        format!("redis+cluster://{}", hosts.join(","))
    }
}

fn cluster_node() -> (RedisServer, String) {
    let bus = free_port().to_string();
    let timing = ["--cluster-node-timeout", "1500", "--cluster-replica-validity-factor", "0"];
    let cluster = ["--cluster-enabled", "yes", "--cluster-port", &bus, "--cluster-require-full-coverage", "no"];
    (RedisServer::start_with(&[&cluster[..], &timing[..]].concat()), bus)
}

/// A master, a replica, and three Sentinels with a quorum of two.
pub(crate) struct RedisSentinels {
    pub(crate) master: RedisServer,
    pub(crate) replica: RedisServer,
    sentinels: Vec<RedisServer>,
}

impl RedisSentinels {
    /// Waits until the Sentinels know each other and the replica.
    pub(crate) fn start() -> Self {
        let master = RedisServer::start();
        let replica = RedisServer::start_with(&["--replicaof", "127.0.0.1", &master.port.to_string()]);
        poll_blocking("the replica to follow", || {
            replica.query(&["INFO", "replication"]).contains("master_link_status:up").then_some(())
        });
        let sentinels: Vec<_> = (0..3).map(|_| sentinel(master.port)).collect();
        poll_blocking("the Sentinels to know each other", || {
            let knows = |sentinel: &RedisServer| {
                let state = sentinel.query(&["SENTINEL", "MASTER", "mymaster"]);
                state.contains("num-other-sentinels 2") && state.contains("num-slaves 1")
            };
            sentinels.iter().all(knows).then_some(())
        });
        Self { master, replica, sentinels }
    }

    /// `redis+sentinel://…/mymaster`; nothing listens at the first address.
    pub(crate) fn url(&self) -> String {
        let hosts: Vec<_> = self.sentinels.iter().map(|node| format!("127.0.0.1:{}", node.port)).collect();
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
