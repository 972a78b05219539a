//! Partitions among the nodes of a Redis Cluster, and between a master and its Sentinels.

use std::sync::Arc;
use std::time::Duration;

use tokio::task::block_in_place;

use super::fleet::{Fleet, LIMIT, REPLICAS, SHARE};
use crate::support::{Lan, Namespace, Network, Place, RedisCluster, RedisSentinels, hold};

/// `N` namespaces that reach Redis's network alone.
fn namespaces<const N: usize>(network: &Arc<Network>) -> ([Arc<Namespace>; N], [Place; N]) {
    let namespaces = std::array::from_fn(|_| network.attach(&[Lan::Redis]));
    let places = std::array::from_fn(|number: usize| Place::from(&namespaces[number]));
    (namespaces, places)
}

/// Cuts single nodes of a Cluster off: the one with the account's slot, which has a replica, and one without.
async fn assert_limit_survives_lost_node(duration: Duration) {
    let Some(network) = Network::create() else { return };
    let (nodes, places) = namespaces(&network);
    let cluster = block_in_place(|| RedisCluster::start_in(&places));
    let fleet = Fleet::start_in(&network, &cluster.url(), REPLICAS).await;
    let seconds = duration.as_secs();
    for (number, name) in [(0, "Cluster master of the quota cut off"), (1, "another Cluster master cut off")] {
        let measurement = fleet.measure(format!("{name}, {seconds} s")).await;
        nodes[number].cut(Lan::Redis);
        hold(duration).await;
        nodes[number].heal(Lan::Redis);
        let recovery = fleet.until_recovered().await;
        if number == 0 {
            block_in_place(|| cluster.masters[0].until_follows());
        }
        hold(duration).await;
        fleet.finish(measurement, 0, recovery);
    }
    cluster.replica.until_master();
    fleet.stop().await;
}

/// Separates a master and the gateway that is the leader from all others, whose side gets a master of its own.
async fn assert_bound_with_two_masters(
    topology: &str,
    network: &Arc<Network>,
    url: &str,
    master: &Namespace,
    bound: usize,
) {
    const DURATION: Duration = Duration::from_secs(20);
    let fleet = Fleet::start_in(network, url, REPLICAS).await;
    let name = format!("{topology}: master and leader split off together, {} s", DURATION.as_secs());
    let measurement = fleet.measure(name).await;
    let leader = fleet.replicas[fleet.leader().await].namespace.clone().unwrap();
    let split = [master, &leader];
    for namespace in split {
        namespace.split_off(Lan::Redis);
    }
    hold(DURATION).await;
    for namespace in split {
        namespace.rejoin(Lan::Redis);
    }
    let recovery = fleet.until_recovered().await;
    hold(DURATION).await;
    fleet.finish(measurement, bound, recovery);
    fleet.stop().await;
}

/// The Sentinels promote the replica, while the old master accepts writes unless `settings` of it forbid that.
async fn assert_bound_with_sentinels(name: &str, settings: &[[&str; 2]], bound: usize) {
    let Some(network) = Network::create() else { return };
    let (nodes, places) = namespaces(&network);
    let redis = block_in_place(|| RedisSentinels::start_in(&places));
    for [setting, value] in settings {
        for node in [&redis.master, &redis.replica] {
            node.command(&["CONFIG", "SET", setting, value]);
        }
    }
    assert_bound_with_two_masters(name, &network, &redis.url(), &nodes[0], bound).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
#[ignore = "takes minutes; run it with `just kill-storm`"]
async fn lost_cluster_node_keeps_limit() {
    assert_limit_survives_lost_node(Duration::from_secs(20)).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
#[ignore = "takes minutes; run it with `just kill-storm`"]
async fn two_sentinel_masters_double_limit_at_most() {
    assert_bound_with_sentinels("Sentinel", &[], LIMIT).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
#[ignore = "takes minutes; run it with `just kill-storm`"]
async fn sentinel_master_that_needs_replica_exceeds_limit_by_share() {
    let settings = [["min-replicas-to-write", "1"], ["min-replicas-max-lag", "1"]];
    assert_bound_with_sentinels("Sentinel with `min-replicas-to-write 1`", &settings, SHARE).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
#[ignore = "takes minutes; run it with `just kill-storm`"]
async fn cluster_master_in_minority_exceeds_limit_by_share() {
    let Some(network) = Network::create() else { return };
    let (nodes, places) = namespaces(&network);
    let cluster = block_in_place(|| RedisCluster::start_in(&places));
    assert_bound_with_two_masters("Cluster", &network, &cluster.url(), &nodes[0], SHARE).await;
}
