//! Processes that are killed with SIGKILL and started again, again and again.

use std::time::Duration;

use super::fleet::{Fleet, LIMIT};
use crate::support::RedisServer;

/// Replicas of the fleet.
const REPLICAS: usize = 4;

/// The replicas that die at once.
#[derive(Clone, Copy, Debug)]
enum Victims {
    Leader,
    Any,
    LeaderAndAny,
    All,
}

impl Victims {
    const ALL: [Self; 4] = [Self::LeaderAndAny, Self::All, Self::Leader, Self::Any];

    async fn choose(self, fleet: &Fleet, random: &mut fastrand::Rng) -> Vec<usize> {
        let any = random.usize(..REPLICAS);
        let mut victims = match self {
            Self::Leader => vec![fleet.leader().await],
            Self::Any => vec![any],
            Self::LeaderAndAny => vec![fleet.leader().await, any],
            Self::All => (0..REPLICAS).collect(),
        };
        victims.dedup();
        victims
    }
}

/// Kills and restarts replicas for a number of rounds; asserts that the limit holds in every window.
async fn assert_limit_survives_kills(rounds: usize) {
    let seed = fastrand::u64(..);
    println!("seed {seed}");
    let mut random = fastrand::Rng::with_seed(seed);
    let redis = RedisServer::start();
    let mut fleet = Fleet::start(&redis.url(), REPLICAS).await;
    let measurement = fleet.measure(format!("{rounds} rounds of kills of {REPLICAS} replicas")).await;
    let mut slowest = Duration::ZERO;
    for round in 0..rounds {
        let victims = Victims::ALL[round % Victims::ALL.len()].choose(&fleet, &mut random).await;
        for number in &victims {
            fleet.replicas[*number].kill();
        }
        if victims.len() < REPLICAS {
            fleet.load.until_served(random.u64(..LIMIT as u64)).await;
        }
        for number in victims {
            fleet.restart(number).await;
        }
        // Some rounds begin before the replicas have found each other.
        if random.bool() {
            slowest = slowest.max(fleet.until_recovered().await);
        }
        fleet.load.until_served(random.u64(..LIMIT as u64)).await;
    }
    slowest = slowest.max(fleet.until_recovered().await);
    let used = fleet.finish(measurement, 0, slowest);
    assert!(used > 0.25, "{used}");
    fleet.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn killed_replicas_keep_limit() {
    assert_limit_survives_kills(2).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
#[ignore = "takes minutes; run it with `just kill-storm`"]
async fn kill_storm_keeps_limit() {
    assert_limit_survives_kills(60).await;
}
