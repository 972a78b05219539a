//! More than one server: a Cluster, and Sentinels.

use koregate::redis_client::{Command, ConnectionError, Event, Reply, Script};

use super::{ask, bytes, eventually, get, link, message, ok, set, text};
use crate::support::{RedisCluster, Sentinels, wait_for};

/// The keys, found by asking a node: one for each master, in the order of the masters.
fn keys(cluster: &RedisCluster) -> [String; 3] {
    let mut found: [Option<String>; 3] = Default::default();
    for number in 0.. {
        let key = format!("key-{number}");
        let slot: u16 = text(&cluster.masters[0].admin(&["CLUSTER", "KEYSLOT", &key])).parse().unwrap();
        found[usize::from(slot / 5462).min(2)].get_or_insert(key);
        if found.iter().all(Option::is_some) {
            break;
        }
    }
    found.map(Option::unwrap)
}

#[tokio::test]
async fn a_cluster_is_asked_at_the_right_nodes_and_followed_where_slots_go() {
    let cluster = RedisCluster::start();
    let link = link(&cluster.url());
    let keys = keys(&cluster);
    for key in &keys {
        assert_eq!(ask(&link, set(key, key)).await, Ok(ok()));
    }
    let mut commands: Vec<_> = keys.iter().map(|key| get(key)).collect();
    commands.push(Command::new("INCR").arg(keys[1].clone()));
    let replies = link.run(commands).await.unwrap();
    assert_eq!(replies[..3], keys.each_ref().map(|key| bytes(key)));
    assert!(replies[3].is_error("ERR"));

    let script = Script::new("return {KEYS[1], redis.call('GET', KEYS[1])}");
    for key in &keys {
        let reply = link.script(&script, &[key.clone().into()], &[]).await;
        assert_eq!(reply, Ok(Reply::Array(vec![bytes(key), bytes(key)])));
    }
    let apart = link.script(&script, &[keys[0].clone().into(), keys[1].clone().into()], &[]).await;
    assert!(apart.unwrap().is_error("CROSSSLOT"));

    // Keys are looked for at all masters.
    let mut scan = link.scan("key", "-*");
    let mut found = Vec::new();
    while let Some(some) = scan.next().await.unwrap() {
        found.extend(some.iter().map(|key| String::from_utf8_lossy(key).into_owned()));
    }
    found.sort();
    let mut sorted = keys.to_vec();
    sorted.sort();
    assert_eq!(found, sorted);

    // Any node passes messages on.
    let mut subscription = link.listen(vec!["channel".to_owned()]);
    assert_eq!(subscription.next().await, Event::Connected);
    ask(&link, Command::new("PUBLISH").arg("channel").arg("heard")).await.unwrap();
    assert_eq!(message(&mut subscription).await, ("channel".to_owned(), "heard".into()));

    // The slot of the second key goes to the third master: first half-way (ASK), then wholly (MOVED).
    let slot = text(&cluster.masters[0].admin(&["CLUSTER", "KEYSLOT", &keys[1]]));
    let (from, to) = (&cluster.masters[1], &cluster.masters[2]);
    let [from_id, to_id] = [from, to].map(|node| text(&node.admin(&["CLUSTER", "MYID"])));
    to.admin(&["CLUSTER", "SETSLOT", &slot, "IMPORTING", &from_id]);
    from.admin(&["CLUSTER", "SETSLOT", &slot, "MIGRATING", &to_id]);
    from.admin(&["MIGRATE", "127.0.0.1", &to.port().to_string(), &keys[1], "0", "1000"]);
    assert_eq!(ask(&link, get(&keys[1])).await, Ok(bytes(&keys[1])));
    for node in [to, from, &cluster.masters[0]] {
        node.admin(&["CLUSTER", "SETSLOT", &slot, "NODE", &to_id]);
    }
    for key in &keys {
        assert_eq!(ask(&link, get(key)).await, Ok(bytes(key)));
    }
}

#[tokio::test]
async fn a_cluster_fails_over_and_calls_work_again_by_themselves() {
    let mut cluster = RedisCluster::start();
    let link = link(&cluster.url());
    let keys = keys(&cluster);
    for key in &keys {
        assert_eq!(ask(&link, set(key, "some")).await, Ok(ok()));
    }
    wait_for("the replica to have the key", || text(&cluster.replica.admin(&["DBSIZE"])).contains('1').then_some(()));
    cluster.masters[0].kill();
    // What lies elsewhere is served all the while, in the same call.
    let replies = link.run(keys.iter().map(|key| get(key)).collect()).await;
    if let Ok(replies) = replies {
        assert_eq!(replies[1..], [bytes("some"), bytes("some")]);
    }
    eventually("the replica to serve", async || ask(&link, get(&keys[0])).await == Ok(bytes("some"))).await;
    eventually("writes", async || ask(&link, set(&keys[0], "other")).await == Ok(ok())).await;
}

#[tokio::test]
async fn a_node_of_a_cluster_that_falls_silent_is_left_for_its_replica() {
    let cluster = RedisCluster::start();
    let link = link(&cluster.url());
    let keys = keys(&cluster);
    for key in &keys {
        assert_eq!(ask(&link, set(key, "some")).await, Ok(ok()));
    }
    // Too short for the others to notice. What was sent may be done or not, but never twice.
    cluster.masters[0].stop();
    let script = Script::new("return redis.call('INCR', KEYS[1])");
    let count = format!("{{{}}}", keys[0]);
    for _ in 0..2 {
        assert_eq!(link.script(&script, &[count.clone().into()], &[]).await, Err(ConnectionError::TimedOut));
    }
    cluster.masters[0].cont();
    eventually("an answer", async || ask(&link, get(&keys[0])).await == Ok(bytes("some"))).await;
    let counted = text(&cluster.masters[0].admin(&["GET", &count])).parse().unwrap_or(0);
    assert!(counted <= 2, "two calls were made {counted} times");

    cluster.masters[0].stop();
    let replies = link.run(keys.iter().map(|key| get(key)).collect()).await.unwrap();
    assert!(replies[0].is_error("LINK"), "{replies:?}");
    // One of the nodes that are asked does not answer, and so not all keys are known.
    let mut scan = link.scan("key", "-*");
    let ended = loop {
        match scan.next().await {
            Ok(Some(_)) => {}
            other => break other,
        }
    };
    assert!(ended.is_err(), "{ended:?}");
    assert_eq!(replies[1..], [bytes("some"), bytes("some")]);
    eventually("writes", async || ask(&link, set(&keys[0], "other")).await == Ok(ok())).await;
    for key in &keys[1..] {
        assert_eq!(ask(&link, get(key)).await, Ok(bytes("some")));
    }
}

#[tokio::test]
async fn a_cluster_that_is_gone_is_an_error_in_time() {
    let mut cluster = RedisCluster::start();
    let link = link(&cluster.url());
    assert!(ask(&link, get("key")).await.is_ok());
    cluster.masters.iter_mut().chain([&mut cluster.replica]).for_each(crate::support::RedisServer::kill);
    eventually("the breaker to open", async || ask(&link, get("key")).await == Err(ConnectionError::Open)).await;
}

#[tokio::test]
async fn sentinels_lead_to_the_new_master_when_the_old_one_dies() {
    let mut redis = Sentinels::start();
    let link = link(&redis.url());
    assert_eq!(ask(&link, set("key", "some")).await, Ok(ok()));
    let mut subscription = link.listen(vec!["channel".to_owned()]);
    assert_eq!(subscription.next().await, Event::Connected);
    wait_for("the replica to have the key", || (text(&redis.replica.admin(&["DBSIZE"])) == "1").then_some(()));
    redis.master.kill();
    assert!(ask(&link, get("key")).await.is_err());
    eventually("writes to the new master", async || ask(&link, set("other", "some")).await == Ok(ok())).await;
    assert_eq!(ask(&link, get("key")).await, Ok(bytes("some")));
    assert_eq!(text(&redis.replica.admin(&["GET", "other"])), "some");

    assert_eq!(subscription.next().await, Event::Connected);
    let publish = Command::new("PUBLISH").arg("channel").arg("heard");
    assert_eq!(ask(&link, publish).await, Ok(Reply::Integer(1)));
    assert_eq!(message(&mut subscription).await, ("channel".to_owned(), "heard".into()));
}
