//! Several Redis servers that belong together.

use std::process::{Command, Stdio};

use super::{Place, RedisServer, free_port, poll_blocking};

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
    /// Starts on loopback.
    pub(crate) fn start() -> Self {
        Self::start_in(&Default::default())
    }

    /// Starts the masters and behind them the replica in these places. Waits until all nodes know each other and the
    /// replica follows.
    pub(crate) fn start_in(places: &[Place; 4]) -> Self {
        let mut nodes: Vec<_> = places.iter().map(cluster_node).collect();
        for (number, ((node, _), slots)) in nodes.iter().zip(SLOTS.windows(2)).enumerate() {
            node.command(&["CLUSTER", "SET-CONFIG-EPOCH", &(number + 1).to_string()]);
            node.command(&["CLUSTER", "ADDSLOTSRANGE", &slots[0].to_string(), &(slots[1] - 1).to_string()]);
        }
        for (node, bus) in &nodes[1..] {
            nodes[0].0.command(&["CLUSTER", "MEET", &node.place.host(), &node.port.to_string(), bus]);
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
        replica.until_follows();
        // No failover happens while a node does not know the replica.
        let knows =
            |(node, _): &(RedisServer, String)| node.query(&["CLUSTER", "SLOTS"]).contains(&replica.port.to_string());
        poll_blocking("all nodes to know the replica", || nodes.iter().all(knows).then_some(()));
        Self { masters: nodes.into_iter().map(|(node, _)| node).collect(), replica }
    }

    /// `redis+cluster://…` with all masters.
    pub(crate) fn url(&self) -> String {
        let hosts: Vec<_> = self.masters.iter().map(RedisServer::addr).collect();
        format!("redis+cluster://{}", hosts.join(","))
    }
}

fn cluster_node(place: &Place) -> (RedisServer, String) {
    let bus = free_port().to_string();
    let timing = ["--cluster-node-timeout", "1500", "--cluster-replica-validity-factor", "0"];
    let cluster = ["--cluster-enabled", "yes", "--cluster-port", &bus, "--cluster-require-full-coverage", "no"];
    (RedisServer::start_in(place, &[&cluster[..], &timing[..]].concat()), bus)
}

/// A master, a replica, and three Sentinels with a quorum of two.
pub(crate) struct RedisSentinels {
    pub(crate) master: RedisServer,
    pub(crate) replica: RedisServer,
    sentinels: Vec<RedisServer>,
}

impl RedisSentinels {
    /// Starts on loopback.
    pub(crate) fn start() -> Self {
        Self::start_in(&Default::default())
    }

    /// Starts the master, the replica and the Sentinels in these places. Waits until the Sentinels know each other and
    /// the replica.
    pub(crate) fn start_in(places: &[Place; 5]) -> Self {
        let master = RedisServer::start_in(&places[0], &[]);
        let follow = ["--replicaof", &master.place.host(), &master.port.to_string()];
        let replica = RedisServer::start_in(&places[1], &follow);
        replica.until_follows();
        let sentinels: Vec<_> = places[2..].iter().map(|place| sentinel(place, &master)).collect();
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
        let hosts: Vec<_> = self.sentinels.iter().map(RedisServer::addr).collect();
        format!("redis+sentinel://127.0.0.1:1,{}/mymaster", hosts.join(","))
    }
}

fn sentinel(place: &Place, master: &RedisServer) -> RedisServer {
    loop {
        let (port, dir) = (free_port(), tempfile::tempdir().unwrap());
        let file = dir.path().join("sentinel.conf");
        let lines = format!(
            "port {port}\nbind {}\nsentinel monitor mymaster {} {} 2\n\
             sentinel down-after-milliseconds mymaster 1000\nsentinel failover-timeout mymaster 5000\n",
            place.host(),
            master.place.host(),
            master.port
        );
        std::fs::write(&file, lines).unwrap();
        let mut command = Command::new("redis-server");
        let command = command.arg(&file).arg("--sentinel").stdin(Stdio::null());
        let command = command.stdout(Stdio::null()).stderr(Stdio::null());
        let child = place.run(|| command.spawn()).expect("redis-server");
        let mut server = RedisServer { port, arguments: Vec::new(), dir, place: place.clone(), child };
        if server.is_up() {
            return server;
        }
    }
}
