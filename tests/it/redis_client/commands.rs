//! Commands, scripts, scans and subscriptions on one working server.

use super::{Command, Event, Health, RedisClient, Reply, Script, bytes, client, get, next_message, ok, run, set};
use crate::support::{RedisServer, until_async};

#[tokio::test]
async fn replies_keep_order_despite_failed_command() {
    let server = RedisServer::start();
    let client = client(&server.url());
    assert_eq!(client.health(), Health::Up);
    assert_eq!(client.run(Vec::new()).await, Ok(Vec::new()));

    let replies = client
        .run(vec![
            set("word", "some"),
            Command::new("INCRBY").arg("number").arg("41"),
            Command::new("INCR").arg("word"),
            Command::new("RPUSH").arg("list").args(["a", "b"]),
            Command::new("LRANGE").arg("list").arg("0").arg("-1"),
            Command::new("INCR").arg("list"),
            get("nothing"),
            Command::new("NONSENSE").arg("hunter2"),
            get("word"),
        ])
        .await
        .unwrap();
    assert_eq!(replies[..2], [ok(), Reply::Integer(41)]);
    assert!(replies[2].is_error("ERR"));
    assert_eq!(replies[3..5], [Reply::Integer(2), Reply::Array(vec![bytes("a"), bytes("b")])]);
    assert!(replies[5].is_error("WRONGTYPE"));
    assert_eq!(replies[6], Reply::Nil);
    assert_eq!(replies[7], Reply::Error("ERR unknown command 'NONSENSE'".to_owned()));
    assert_eq!(replies[8], bytes("some"));
    assert_eq!(client.health(), Health::Up);
}

#[tokio::test]
async fn command_errors_never_open_breaker() {
    let server = RedisServer::start();
    let client = client(&server.url());
    run(&client, set("word", "some")).await.unwrap();
    for _ in 0..50 {
        assert!(run(&client, Command::new("INCR").arg("word")).await.unwrap().is_error("ERR"));
    }
    assert_eq!(client.health(), Health::Up);
}

#[tokio::test]
async fn script_is_loaded_once_and_after_flush() {
    let mut server = RedisServer::start();
    let client = client(&server.url());
    let script = Script::new("redis.call('INCRBY', KEYS[1], ARGV[1]) return redis.call('GET', KEYS[1])");
    let call = async || client.script(&script, &["{a}n".into()], &["2".into()]).await;
    assert_eq!(call().await, Ok(bytes("2")));
    assert_eq!(call().await, Ok(bytes("4")));
    let calls = server.query(&["INFO", "commandstats"]);
    assert!(calls.contains("cmdstat_eval:calls=1,"), "{calls}");

    server.command(&["SCRIPT", "FLUSH"]);
    assert_eq!(call().await, Ok(bytes("6")));

    server.restart();
    until_async("the script to run on the new server", async || call().await.is_ok()).await;

    let failing = Script::new("return redis.error_reply('MINE is this')");
    assert!(client.script(&failing, &[], &[]).await.unwrap().is_error("MINE"));
    let broken = Script::new("return (");
    assert!(client.script(&broken, &[], &[]).await.unwrap().is_error("ERR"));
}

#[tokio::test]
async fn large_values_use_separate_connection() {
    let server = RedisServer::start();
    let client = client(&server.url());
    let big = "x".repeat(4 << 20);
    run(&client, set("small", "some")).await.unwrap();
    assert_eq!(client.bulk(vec![set("big", &big), get("big")]).await, Ok(vec![ok(), bytes(&big)]));
    let clients = server.query(&["CLIENT", "LIST"]);
    // Both connections of the client, and the one of this command.
    assert_eq!(clients.lines().count(), 3, "{clients}");
}

/// The distinct keys of a scan.
async fn scanned(client: &RedisClient, prefix: &str, pattern: &str) -> std::collections::BTreeSet<String> {
    let mut scan = client.scan(prefix, pattern);
    let mut found = std::collections::BTreeSet::new();
    while let Some(keys) = scan.next().await.unwrap() {
        found.extend(keys.iter().map(|key| String::from_utf8_lossy(key).into_owned()));
    }
    found
}

#[tokio::test]
async fn scan_is_complete_and_prefix_is_literal() {
    let server = RedisServer::start();
    let client = client(&server.url());
    assert!(scanned(&client, "", "*").await.is_empty());
    let keys: Vec<String> = (0..2_500).map(|number| format!("a-[b]*?\\^:{number}")).collect();
    client
        .run(keys.iter().chain(&["a-bxy:1".to_owned(), "a-[b]".to_owned()]).map(|key| set(key, "")).collect())
        .await
        .unwrap();
    assert!(scanned(&client, "a-[b]*?\\^:", "*").await.into_iter().eq({
        let mut keys = keys.clone();
        keys.sort();
        keys
    }));
    assert_eq!(scanned(&client, "a-[b]*?\\^:", "24[0-9]8").await.len(), 10);
}

#[tokio::test]
async fn database_and_acl_user_of_url_are_used() {
    let server = RedisServer::start();
    server.command(&["ACL", "SETUSER", "kg", "on", ">p@ss", "~koregate:*", "+@all", "-@dangerous", "-@admin"]);
    let client = client(&format!("{}/3", server.url_for("kg:p%40ss")));
    assert_eq!(run(&client, set("koregate:a", "some")).await, Ok(ok()));
    assert!(run(&client, set("other", "some")).await.unwrap().is_error("NOPERM"));
    assert!(server.query(&["INFO", "keyspace"]).contains("db3:keys=1"));
    assert_eq!(client.health(), Health::Up);
}

#[tokio::test]
async fn subscription_reconnects_after_restart_and_reports_it() {
    let mut server = RedisServer::start();
    let client = client(&server.url());
    let mut subscription = client.listen(vec!["one".to_owned(), "two".to_owned()]);
    assert_eq!(subscription.next().await, Event::Connected);
    let publish = |channel: &'static str, payload: &'static str| Command::new("PUBLISH").arg(channel).arg(payload);
    assert_eq!(run(&client, publish("two", "first")).await, Ok(Reply::Integer(1)));
    run(&client, publish("three", "ignored")).await.unwrap();
    run(&client, publish("one", "second")).await.unwrap();
    assert_eq!(next_message(&mut subscription).await, ("two".to_owned(), "first".into()));
    assert_eq!(next_message(&mut subscription).await, ("one".to_owned(), "second".into()));

    server.restart();
    assert_eq!(subscription.next().await, Event::Connected);
    until_async("a publication", async || run(&client, publish("one", "third")).await == Ok(Reply::Integer(1))).await;
    assert_eq!(next_message(&mut subscription).await, ("one".to_owned(), "third".into()));

    drop(subscription);
    until_async("the subscription to end", async || run(&client, publish("one", "")).await == Ok(Reply::Integer(0)))
        .await;
}
