//! Redis traffic of idle replicas, measured by Redis itself, commands within scripts included.

use std::io::{BufRead as _, BufReader, Write as _};
use std::net::TcpStream;
use std::time::Duration;

use crate::support::{
    Credential, GatewayClient, Profile, RedisServer, SETTLED_DAY, Settings, TestHarness, exact_profile,
};

/// The measured interval, on Redis's clock: long enough for rare commands.
const INTERVAL: Duration = Duration::from_secs(5);

/// Commands and bytes a second of each replica.
#[derive(Clone, Copy, Debug)]
struct Traffic {
    commands: f64,
    bytes: f64,
}

/// All bytes that Redis has received and sent.
fn total_bytes(redis: &RedisServer) -> u64 {
    let info = redis.query(&["INFO", "stats"]);
    let value = |name: &str| -> u64 {
        let line = info.lines().find_map(|line| line.strip_prefix(name));
        line.unwrap_or_else(|| panic!("no {name}")).trim().parse().unwrap()
    };
    value("total_net_input_bytes:") + value("total_net_output_bytes:")
}

/// Reads `MONITOR` until a command comes [`INTERVAL`] after the first one: the number of commands, the seconds between
/// them, and the bytes of the feed itself.
fn monitor(port: u16) -> (u32, f64, u64) {
    let mut connection = TcpStream::connect(("127.0.0.1", port)).unwrap();
    connection.set_read_timeout(Some(Duration::from_mins(1))).unwrap();
    connection.write_all(b"MONITOR\r\n").unwrap();
    let (mut first, mut commands, mut bytes) = (None, 0, 0);
    for line in BufReader::new(connection).lines() {
        let line = line.expect("a command of an idle replica");
        bytes += line.len() as u64 + 2;
        // As in `+1339518083.107412 [0 127.0.0.1:60866] "keys" "*"`, behind one `+OK`.
        let Some(time) = line.trim_start_matches('+').split(' ').next().and_then(|time| time.parse::<f64>().ok())
        else {
            continue;
        };
        let elapsed = time - *first.get_or_insert(time);
        if elapsed >= INTERVAL.as_secs_f64() {
            return (commands, elapsed, bytes);
        }
        commands += 1;
    }
    panic!("the feed ended")
}

async fn measure(redis: &RedisServer, replicas: u32) -> Traffic {
    let (before, port) = (total_bytes(redis), redis.port());
    let (commands, seconds, feed) = tokio::task::spawn_blocking(move || monitor(port)).await.unwrap();
    let replica_seconds = seconds * f64::from(replicas);
    #[expect(clippy::cast_precision_loss, reason = "some thousands")]
    let bytes = (total_bytes(redis) - before - feed) as f64;
    Traffic { commands: f64::from(commands) / replica_seconds, bytes: bytes / replica_seconds }
}

/// Measures until no replica sends more than `max_commands` a second; the replicas become idle within a few intervals.
async fn measure_idle(redis: &RedisServer, replicas: u32, max_commands: f64) -> Traffic {
    let mut measured = Vec::new();
    for _ in 0..6 {
        let traffic = measure(redis, replicas).await;
        if traffic.commands <= max_commands {
            return traffic;
        }
        measured.push(traffic.commands);
    }
    panic!("more than {max_commands} commands a second of each of {replicas} replicas: {measured:?}");
}

fn profile(accounts: usize) -> Profile {
    let more = (1..accounts).map(|number| Credential {
        account_id: format!("more-{number}"),
        client_id: format!("cs-more-{number}"),
        ..Credential::default()
    });
    Profile { more_accounts: more.collect(), ..exact_profile(250, 4) }
}

async fn add_replicas(harness: &TestHarness, settings: &Settings, count: usize) -> Vec<GatewayClient> {
    let mut replicas = Vec::new();
    for _ in 0..count {
        replicas.push(harness.add_replica(settings).await);
    }
    replicas
}

#[tokio::test]
async fn idle_replicas_send_few_commands_and_linear_traffic() {
    let redis = RedisServer::start();
    let settings = Settings::default().redis(&redis.url());
    let harness = TestHarness::start(profile(1), &settings).await;
    harness.get(SETTLED_DAY).await.page();
    measure_idle(&redis, 1, 4.0).await;
    let two_more = add_replicas(&harness, &settings, 2).await;
    let three = measure_idle(&redis, 3, 4.0).await;
    let seven_more = add_replicas(&harness, &settings, 7).await;
    let ten = measure_idle(&redis, 10, 4.0).await;
    assert!(ten.bytes < three.bytes * 1.5, "{three:?} with three replicas, {ten:?} with ten");
    drop((two_more, seven_more));
}

#[tokio::test]
async fn idle_replicas_further_account_adds_one_command_per_second() {
    let redis = RedisServer::start();
    let settings = Settings::default().redis(&redis.url());
    let harness = TestHarness::start(profile(6), &settings).await;
    measure_idle(&redis, 1, 9.0).await;
    let others = add_replicas(&harness, &settings, 2).await;
    measure_idle(&redis, 3, 9.0).await;
    drop(others);
}
