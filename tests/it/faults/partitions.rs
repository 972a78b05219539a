//! Network partitions: each gateway, Redis and the upstream in a network namespace of its own, whose links are cut.

use std::sync::Arc;
use std::time::Duration;

use super::fleet::{Fleet, LIMIT, REPLICAS, SHARE};
use crate::support::{Lan, Namespace, Network, Place, RedisServer, hold};

/// The process that is cut off, and from which networks.
#[derive(Clone, Copy, Debug)]
enum Partition {
    FollowerFromRedis,
    LeaderFromRedis,
    FollowerFromAll,
    LeaderFromAll,
    Redis,
    Upstream,
}

impl Partition {
    const ALL: [Self; 6] = [
        Self::FollowerFromRedis,
        Self::LeaderFromRedis,
        Self::FollowerFromAll,
        Self::LeaderFromAll,
        Self::Redis,
        Self::Upstream,
    ];

    const fn name(self) -> &'static str {
        match self {
            Self::FollowerFromRedis => "follower cut off from Redis",
            Self::LeaderFromRedis => "leader cut off from Redis",
            Self::FollowerFromAll => "follower cut off from Redis and the upstream",
            Self::LeaderFromAll => "leader cut off from Redis and the upstream",
            Self::Redis => "Redis cut off from all",
            Self::Upstream => "upstream cut off from all",
        }
    }

    /// Calls over the limit that the documentation allows: a replica that reaches the upstream, but not yet Redis, uses
    /// its share.
    const fn bound(self) -> usize {
        match self {
            Self::FollowerFromRedis | Self::LeaderFromRedis | Self::FollowerFromAll | Self::LeaderFromAll => SHARE,
            Self::Redis | Self::Upstream => 0,
        }
    }

    /// The replica that is cut off, if it is one.
    async fn choose(self, fleet: &Fleet) -> Option<usize> {
        match self {
            Self::FollowerFromRedis | Self::FollowerFromAll => Some(fleet.follower().await),
            Self::LeaderFromRedis | Self::LeaderFromAll => Some(fleet.leader().await),
            Self::Redis | Self::Upstream => None,
        }
    }

    /// The links that are cut.
    fn links(self, fleet: &Fleet, replica: Option<usize>, redis: &Arc<Namespace>) -> Vec<(Arc<Namespace>, Lan)> {
        let of_replica = |lan| (fleet.replicas[replica.unwrap()].namespace.clone().unwrap(), lan);
        match self {
            Self::FollowerFromRedis | Self::LeaderFromRedis => vec![of_replica(Lan::Redis)],
            Self::FollowerFromAll | Self::LeaderFromAll => vec![of_replica(Lan::Redis), of_replica(Lan::Upstream)],
            Self::Redis => vec![(redis.clone(), Lan::Redis)],
            Self::Upstream => vec![(fleet.upstream_namespace.clone().unwrap(), Lan::Upstream)],
        }
    }

    /// Whether a replica fetches windows during the partition.
    fn is_serving(self, replica: usize, cut_off: Option<usize>) -> bool {
        match self {
            Self::FollowerFromRedis | Self::LeaderFromRedis | Self::Redis => true,
            Self::FollowerFromAll | Self::LeaderFromAll => cut_off != Some(replica),
            Self::Upstream => false,
        }
    }
}

/// Cuts, holds and heals each of `partitions` in turn; asserts the bounds on calls, that replicas serve during the
/// partition what they can reach, and that all serve afterwards.
async fn assert_bounds_in_partitions(partitions: &[Partition], duration: Duration) {
    let Some(network) = Network::create() else { return };
    let namespace = network.attach(&[Lan::Redis]);
    let redis = RedisServer::start_in(&Place::from(&namespace), &[]);
    let fleet = Fleet::start_in(&network, &redis.url(), REPLICAS).await;
    for partition in partitions {
        let measurement = fleet.measure(format!("{}, {} s", partition.name(), duration.as_secs())).await;
        let cut_off = partition.choose(&fleet).await;
        let links = partition.links(&fleet, cut_off, &namespace);
        for (namespace, lan) in &links {
            namespace.cut(*lan);
        }
        hold(duration).await;
        fleet.until_serving((0..REPLICAS).filter(|replica| partition.is_serving(*replica, cut_off))).await;
        for (namespace, lan) in &links {
            namespace.heal(*lan);
        }
        let recovery = fleet.until_recovered().await;
        if links.iter().any(|(_, lan)| *lan == Lan::Upstream) {
            // TCP repeats what it could not deliver, after pauses that double: calls of the partition could arrive as
            // long after it as it lasted.
            hold(duration).await;
        } else {
            fleet.load.until_served(2 * LIMIT as u64).await;
        }
        fleet.finish(measurement, partition.bound(), recovery);
    }
    fleet.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn leader_without_redis_exceeds_limit_by_its_share_at_most() {
    assert_bounds_in_partitions(&[Partition::LeaderFromRedis], Duration::from_secs(10)).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn calls_undelivered_in_time_never_arrive() {
    assert_bounds_in_partitions(&[Partition::Upstream], Duration::from_secs(10)).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
#[ignore = "takes minutes; run it with `just kill-storm`"]
async fn partitions_of_ten_seconds_stay_within_documented_bounds() {
    assert_bounds_in_partitions(&Partition::ALL, Duration::from_secs(10)).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
#[ignore = "takes minutes; run it with `just kill-storm`"]
async fn partitions_of_forty_seconds_stay_within_documented_bounds() {
    assert_bounds_in_partitions(&Partition::ALL, Duration::from_secs(40)).await;
}
