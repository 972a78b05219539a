//! A Redis master that is killed with SIGKILL while the quota is in full use, and the promotion of its replica.

use std::time::Duration;

use tokio::task::block_in_place;

use super::fleet::{Fleet, LIMIT, REPLICAS};
use crate::support::{RedisCluster, RedisSentinels};

/// A Redis with a replica that can be promoted.
trait Topology {
    const NAME: &str;
    fn start() -> Self;
    fn url(&self) -> String;
    fn kill_master(&mut self);
    fn until_promoted(&mut self);
    fn restart_as_replica(&mut self);
}

impl Topology for RedisSentinels {
    const NAME: &str = "Sentinel";

    fn start() -> Self {
        Self::start()
    }

    fn url(&self) -> String {
        self.url()
    }

    fn kill_master(&mut self) {
        self.master.kill();
    }

    fn until_promoted(&mut self) {
        self.replica.until_master();
    }

    fn restart_as_replica(&mut self) {
        std::mem::swap(&mut self.master, &mut self.replica);
        self.replica.restart();
        self.replica.until_follows();
    }
}

impl Topology for RedisCluster {
    const NAME: &str = "Cluster";

    fn start() -> Self {
        Self::start()
    }

    fn url(&self) -> String {
        self.url()
    }

    /// The first master has the slot of the account.
    fn kill_master(&mut self) {
        self.masters[0].kill();
    }

    fn until_promoted(&mut self) {
        self.replica.until_master();
    }

    fn restart_as_replica(&mut self) {
        std::mem::swap(&mut self.masters[0], &mut self.replica);
        self.replica.restart();
        self.replica.until_follows();
    }
}

/// Fails over a number of times; asserts that the limit holds in every window. If `kills_leader`, the leader dies with
/// the master.
async fn assert_limit_survives_failover<T: Topology>(rounds: usize, kills_leader: bool) {
    let mut redis = block_in_place(T::start);
    let mut fleet = Fleet::start(&redis.url(), REPLICAS).await;
    let with_leader = if kills_leader { ", the leader killed with the master" } else { "" };
    let measurement = fleet.measure(format!("{rounds} {} failovers{with_leader}", T::NAME)).await;
    let mut slowest = Duration::ZERO;
    for round in 1..=rounds {
        let leader = fleet.leader().await;
        redis.kill_master();
        if kills_leader {
            fleet.replicas[leader].kill();
            fleet.restart(leader).await;
        }
        block_in_place(|| redis.until_promoted());
        slowest = slowest.max(fleet.until_recovered().await);
        fleet.load.until_served(LIMIT as u64).await;
        if round < rounds {
            block_in_place(|| redis.restart_as_replica());
        }
    }
    fleet.finish(measurement, 0, slowest);
    fleet.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn sentinel_failover_keeps_limit() {
    assert_limit_survives_failover::<RedisSentinels>(1, false).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
#[ignore = "takes minutes; run it with `just kill-storm`"]
async fn sentinel_failovers_keep_limit() {
    assert_limit_survives_failover::<RedisSentinels>(5, false).await;
    assert_limit_survives_failover::<RedisSentinels>(5, true).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
#[ignore = "takes minutes; run it with `just kill-storm`"]
async fn cluster_failovers_keep_limit() {
    assert_limit_survives_failover::<RedisCluster>(5, false).await;
    assert_limit_survives_failover::<RedisCluster>(5, true).await;
}
