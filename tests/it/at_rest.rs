//! What replicas ask of Redis while nobody asks anything of them, counted by Redis: what it does within scripts included.

use std::time::Duration;

use koregate_simulator::{Credential, Profile};

use crate::support::{Ask, Door, RedisServer, Rig, Settings, exact_profile, text};

/// How long is measured, in seconds of Redis's own clock at the least: some of what is done at rest is seldom.
const SECONDS: u64 = 5;

/// What Redis has counted since it began.
#[derive(Clone, Copy, Debug)]
struct Counted {
    commands: u64,
    bytes: u64,
    microseconds: u64,
}

impl Counted {
    fn now(redis: &RedisServer) -> Self {
        let told = text(&redis.admin(&["INFO", "everything"]));
        let number = |name: &str| -> u64 {
            let line = told.lines().find_map(|line| line.strip_prefix(name));
            line.unwrap_or_else(|| panic!("no {name}")).trim().parse().unwrap()
        };
        Self {
            commands: number("total_commands_processed:"),
            bytes: number("total_net_input_bytes:") + number("total_net_output_bytes:"),
            microseconds: number("server_time_usec:"),
        }
    }
}

/// Commands and bytes a second, for each of so many replicas.
async fn rates(redis: &RedisServer, replicas: u32) -> (f64, f64) {
    let before = Counted::now(redis);
    tokio::time::sleep(Duration::from_secs(SECONDS)).await;
    let after = Counted::now(redis);
    let seconds = Duration::from_micros(after.microseconds - before.microseconds).as_secs_f64();
    // The look itself is a command or two, and some kilobytes.
    let each = |before: u64, after: u64| {
        #[expect(clippy::cast_precision_loss, reason = "some thousands")]
        let counted = (after - before) as f64;
        counted / seconds / f64::from(replicas)
    };
    (each(before.commands, after.commands), each(before.bytes, after.bytes))
}

/// Waits until no replica asks for more than so many commands a second.
async fn until_at_rest(redis: &RedisServer, replicas: u32, most: f64) -> (f64, f64) {
    let mut seen = Vec::new();
    for _ in 0..6 {
        let (commands, bytes) = rates(redis, replicas).await;
        seen.push(commands);
        if commands <= most {
            return (commands, bytes);
        }
    }
    panic!("more than {most} commands a second of each of {replicas} replicas: {seen:?}");
}

fn profile(accounts: usize) -> Profile {
    let more = (1..accounts).map(|number| Credential {
        account_id: format!("more-{number}"),
        client_id: format!("cs-more-{number}"),
        ..Credential::default()
    });
    Profile { more_accounts: more.collect(), ..exact_profile(250, 4) }
}

async fn doors(rig: &Rig, settings: &Settings, more: usize) -> Vec<Door> {
    let mut doors = Vec::new();
    for _ in 0..more {
        doors.push(rig.another_door(settings).await);
    }
    doors
}

#[tokio::test]
async fn idle_replicas_ask_four_times_a_second_and_their_traffic_is_linear() {
    let redis = RedisServer::start();
    let settings = Settings::default().redis(&redis.url());
    let rig = Rig::start(profile(1), &settings).await;
    rig.ask(&Ask::get("from=2026-02-23&to=2026-02-23")).await.page();
    until_at_rest(&redis, 1, 4.0).await;
    let few = doors(&rig, &settings, 2).await;
    let (_, bytes_of_few) = until_at_rest(&redis, 3, 4.0).await;
    let many = doors(&rig, &settings, 7).await;
    let (_, bytes_of_many) = until_at_rest(&redis, 10, 4.0).await;
    assert!(bytes_of_many < bytes_of_few * 1.5, "{bytes_of_few} bytes a second each, and {bytes_of_many}");
    drop((few, many));
}

#[tokio::test]
async fn each_further_account_costs_idle_replicas_one_command_a_second() {
    let redis = RedisServer::start();
    let settings = Settings::default().redis(&redis.url());
    let rig = Rig::start(profile(6), &settings).await;
    until_at_rest(&redis, 1, 9.0).await;
    let others = doors(&rig, &settings, 2).await;
    until_at_rest(&redis, 3, 9.0).await;
    drop(others);
}
