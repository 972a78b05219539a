//! A Cluster, and a master behind Sentinels.

use super::{
    Command, ConnectionError, Event, Reply, Script, assert_fails_at_once, bytes, client, get, next_message, ok, run,
    run_until_open, set, until_readable, until_writable,
};
use crate::support::{RedisCluster, RedisSentinels, RedisServer, free_port, poll_blocking, until_async};

/// A key for each master, in the order of the masters.
fn keys(cluster: &RedisCluster) -> [String; 3] {
    let mut found: [Option<String>; 3] = Default::default();
    for number in 0.. {
        let key = format!("key-{number}");
        let slot: u16 = cluster.masters[0].query(&["CLUSTER", "KEYSLOT", &key]).parse().unwrap();
        found[usize::from(slot / 5462).min(2)].get_or_insert(key);
        if found.iter().all(Option::is_some) {
            break;
        }
    }
    found.map(Option::unwrap)
}

#[tokio::test]
async fn cluster_commands_follow_slots_and_redirects() {
    let cluster = RedisCluster::start();
    let client = client(&cluster.url());
    let keys = keys(&cluster);
    for key in &keys {
        assert_eq!(run(&client, set(key, key)).await, Ok(ok()));
    }
    let mut commands: Vec<_> = keys.iter().map(|key| get(key)).collect();
    commands.push(Command::new("INCR").arg(keys[1].clone()));
    let replies = client.run(commands).await.unwrap();
    assert_eq!(replies[..3], keys.each_ref().map(|key| bytes(key)));
    assert!(replies[3].is_error("ERR"));

    let script = Script::new("return {KEYS[1], redis.call('GET', KEYS[1])}");
    for key in &keys {
        let reply = client.script(&script, &[key.clone().into()], &[]).await;
        assert_eq!(reply, Ok(Reply::Array(vec![bytes(key), bytes(key)])));
    }
    let across = client.script(&script, &[keys[0].clone().into(), keys[1].clone().into()], &[]).await;
    assert!(across.unwrap().is_error("CROSSSLOT"));

    // A scan covers all masters.
    let mut scan = client.scan("key", "-*");
    let mut found = Vec::new();
    while let Some(some) = scan.next().await.unwrap() {
        found.extend(some.iter().map(|key| String::from_utf8_lossy(key).into_owned()));
    }
    found.sort();
    let mut sorted = keys.to_vec();
    sorted.sort();
    assert_eq!(found, sorted);

    // Messages reach subscribers at any node.
    let mut subscription = client.listen(vec!["channel".to_owned()]);
    assert_eq!(subscription.next().await, Event::Connected);
    run(&client, Command::new("PUBLISH").arg("channel").arg("message")).await.unwrap();
    assert_eq!(next_message(&mut subscription).await, ("channel".to_owned(), "message".into()));

    // The slot of the second key moves to the third master: first with ASK redirects, then with MOVED.
    let slot = cluster.masters[0].query(&["CLUSTER", "KEYSLOT", &keys[1]]);
    let (from, to) = (&cluster.masters[1], &cluster.masters[2]);
    let [from_id, to_id] = [from, to].map(|node| node.query(&["CLUSTER", "MYID"]));
    to.command(&["CLUSTER", "SETSLOT", &slot, "IMPORTING", &from_id]);
    from.command(&["CLUSTER", "SETSLOT", &slot, "MIGRATING", &to_id]);
    from.command(&["MIGRATE", "127.0.0.1", &to.port().to_string(), &keys[1], "0", "1000"]);
    assert_eq!(run(&client, get(&keys[1])).await, Ok(bytes(&keys[1])));
    for node in [to, from, &cluster.masters[0]] {
        node.command(&["CLUSTER", "SETSLOT", &slot, "NODE", &to_id]);
    }
    for key in &keys {
        assert_eq!(run(&client, get(key)).await, Ok(bytes(key)));
    }
}

#[tokio::test]
async fn cluster_failover_restores_calls() {
    let mut cluster = RedisCluster::start();
    let client = client(&cluster.url());
    let keys = keys(&cluster);
    for key in &keys {
        assert_eq!(run(&client, set(key, "some")).await, Ok(ok()));
    }
    poll_blocking("the replica to have the key", || cluster.replica.query(&["DBSIZE"]).contains('1').then_some(()));
    cluster.masters[0].kill();
    // Keys of the other masters are served in the same call.
    let replies = client.run(keys.iter().map(|key| get(key)).collect()).await;
    if let Ok(replies) = replies {
        assert_eq!(replies[1..], [bytes("some"), bytes("some")]);
    }
    until_readable(&client, &keys[0], "some").await;
    until_writable(&client, &keys[0], "other").await;
}

#[tokio::test]
async fn cluster_frozen_node_fails_over_to_replica() {
    let cluster = RedisCluster::start();
    let client = client(&cluster.url());
    let keys = keys(&cluster);
    for key in &keys {
        assert_eq!(run(&client, set(key, "some")).await, Ok(ok()));
    }
    // Too short for a failover. A command that timed out may have run once, but not twice.
    cluster.masters[0].freeze();
    let script = Script::new("return redis.call('INCR', KEYS[1])");
    let count = format!("{{{}}}", keys[0]);
    for _ in 0..2 {
        assert_eq!(client.script(&script, &[count.clone().into()], &[]).await, Err(ConnectionError::TimedOut));
    }
    cluster.masters[0].resume();
    until_readable(&client, &keys[0], "some").await;
    let counted = cluster.masters[0].query(&["GET", &count]).parse().unwrap_or(0);
    assert!(counted <= 2, "two calls were made {counted} times");

    cluster.masters[0].freeze();
    let replies = client.run(keys.iter().map(|key| get(key)).collect()).await.unwrap();
    assert!(replies[0].is_error("LINK"), "{replies:?}");
    // A node does not answer, so the scan must not end as if complete.
    let mut scan = client.scan("key", "-*");
    let ended = loop {
        match scan.next().await {
            Ok(Some(_)) => {}
            other => break other,
        }
    };
    assert!(ended.is_err(), "{ended:?}");
    assert_eq!(replies[1..], [bytes("some"), bytes("some")]);
    until_writable(&client, &keys[0], "other").await;
    for key in &keys[1..] {
        assert_eq!(run(&client, get(key)).await, Ok(bytes("some")));
    }
}

#[tokio::test]
async fn cluster_gone_opens_breaker() {
    let mut cluster = RedisCluster::start();
    let client = client(&cluster.url());
    assert!(run(&client, get("key")).await.is_ok());
    cluster.masters.iter_mut().chain([&mut cluster.replica]).for_each(RedisServer::kill);
    until_async("the breaker to open", async || run(&client, get("key")).await == Err(ConnectionError::Open)).await;
}

#[tokio::test]
async fn sentinel_failover_reaches_new_master() {
    let mut redis = RedisSentinels::start();
    let client = client(&redis.url());
    assert_eq!(run(&client, set("key", "some")).await, Ok(ok()));
    let mut subscription = client.listen(vec!["channel".to_owned()]);
    assert_eq!(subscription.next().await, Event::Connected);
    poll_blocking("the replica to have the key", || (redis.replica.query(&["DBSIZE"]) == "1").then_some(()));
    redis.master.kill();
    assert!(run(&client, get("key")).await.is_err());
    until_writable(&client, "other", "some").await;
    assert_eq!(run(&client, get("key")).await, Ok(bytes("some")));
    assert_eq!(redis.replica.query(&["GET", "other"]), "some");

    assert_eq!(subscription.next().await, Event::Connected);
    let publish = Command::new("PUBLISH").arg("channel").arg("message");
    assert_eq!(run(&client, publish).await, Ok(Reply::Integer(1)));
    assert_eq!(next_message(&mut subscription).await, ("channel".to_owned(), "message".into()));
}

#[tokio::test]
async fn unknown_sentinel_master_opens_breaker() {
    let url = format!("redis+sentinel://127.0.0.1:{},127.0.0.1:{}/main", free_port(), free_port());
    let client = client(&url);
    assert_eq!(run_until_open(&client).await, ConnectionError::NoMaster);
    assert_fails_at_once(&client);
}
