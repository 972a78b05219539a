//! Partitions among the nodes of a Redis Cluster, and between a master and its Sentinels.

use std::sync::Arc;
use std::time::Duration;

use tokio::task::block_in_place;

use super::fleet::{Fleet, LIMIT};
use crate::support::{Lan, Namespace, Network, Place, RedisCluster, RedisSentinels, hold};

/// Replicas of the fleet.
const REPLICAS: usize = 3;

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

/// Separates the master and one gateway from all others: the Sentinels promote the replica, so that there are two
/// masters until the partition heals.
async fn assert_bound_with_two_masters(duration: Duration, bound: usize, settings: &[&str]) {
    let Some(network) = Network::create() else { return };
    let (nodes, places) = namespaces(&network);
    let redis = block_in_place(|| RedisSentinels::start_in(&places));
    for pair in settings.chunks(2) {
        for node in [&redis.master, &redis.replica] {
            node.command(&["CONFIG", "SET", pair[0], pair[1]]);
        }
    }
    let fleet = Fleet::start_in(&network, &redis.url(), REPLICAS).await;
    let name = format!("master split off with the leader, {} s, {}", duration.as_secs(), settings.join(" "));
    let measurement = fleet.measure(name).await;
    let leader = fleet.replicas[fleet.leader().await].namespace.clone().unwrap();
    let split = [&nodes[0], &leader];
    for namespace in split {
        namespace.split_off(Lan::Redis);
    }
    hold(duration).await;
    for namespace in split {
        namespace.rejoin(Lan::Redis);
    }
    let recovery = fleet.until_recovered().await;
    hold(duration).await;
    fleet.finish(measurement, bound, recovery);
    fleet.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
#[ignore = "takes minutes; run it with `just kill-storm`"]
async fn lost_cluster_node_keeps_limit() {
    assert_limit_survives_lost_node(Duration::from_secs(20)).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
#[ignore = "takes minutes; run it with `just kill-storm`"]
async fn two_masters_stay_within_documented_bound() {
    assert_bound_with_two_masters(Duration::from_secs(20), LIMIT, &[]).await;
    let settings = ["min-replicas-to-write", "1", "min-replicas-max-lag", "2"];
    assert_bound_with_two_masters(Duration::from_secs(20), LIMIT, &settings).await;
}
