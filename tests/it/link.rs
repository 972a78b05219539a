//! The way to Redis, against real servers that fail in every way they know: alone, in a Cluster, behind Sentinels.

mod failures;
mod many;
mod tls;

use std::time::{Duration, Instant};

use bytes::Bytes;
use koregate::config;
use koregate::redis_client::{Command, ConnectionError, Event, Health, RedisClient, Reply, Script, Subscription};

use crate::support::{RedisServer, text};

/// What a call may take.
const TIMEOUT: Duration = Duration::from_millis(300);
/// What a busy machine may add to it.
const SLACK: Duration = Duration::from_secs(2);

fn link(url: &str) -> RedisClient {
    link_with(url, 16 << 20, TIMEOUT)
}

/// With values of so many bytes at the most.
fn link_with(url: &str, max_value: u64, timeout: Duration) -> RedisClient {
    let config = config::RedisConfig {
        url: url.to_owned().into(),
        prefix: "koregate".to_owned(),
        ttl: Duration::from_mins(1),
        timeout,
        max_value,
        replicas: 8,
        encryption_key: None,
        previous_encryption_key: None,
    };
    RedisClient::new(&config).unwrap()
}

fn set(key: &str, value: &str) -> Command {
    Command::new("SET").arg(key.to_owned()).arg(value.to_owned())
}

fn get(key: &str) -> Command {
    Command::new("GET").arg(key.to_owned())
}

fn bytes(value: &str) -> Reply {
    Reply::Bytes(Bytes::from(value.to_owned()))
}

fn ok() -> Reply {
    Reply::Status("OK".to_owned())
}

/// One command; it must end in time, whatever becomes of it.
async fn ask(link: &RedisClient, command: Command) -> Result<Reply, ConnectionError> {
    let begun = Instant::now();
    let replies = link.run(vec![command]).await;
    assert!(begun.elapsed() < TIMEOUT + SLACK, "it took {:?}: {replies:?}", begun.elapsed());
    let mut replies = replies?;
    assert_eq!(replies.len(), 1);
    Ok(replies.remove(0))
}

/// Asks until calls are refused at once; gives the last error before.
async fn ask_until_open(link: &RedisClient) -> ConnectionError {
    let mut last = None;
    for _ in 0..50 {
        match ask(link, get("key")).await {
            Err(ConnectionError::Open) => {
                let Health::Down { why, .. } = link.health() else { panic!("open, and yet up") };
                let last = last.expect("an error before it opened");
                assert_eq!(why, last);
                return last;
            }
            Err(error) => last = Some(error),
            Ok(reply) => panic!("it answers: {reply:?}"),
        }
    }
    panic!("the breaker does not open: {last:?}")
}

/// Waits until something is so, without making a call.
async fn eventually(what: &str, mut so: impl AsyncFnMut() -> bool) {
    let begun = Instant::now();
    while !so().await {
        assert!(begun.elapsed() < Duration::from_mins(1), "waited in vain: {what}");
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
}

async fn eventually_up(link: &RedisClient) {
    eventually("the breaker to close by itself", async || link.health() == Health::Up).await;
}

/// The next message; connections made in between are passed over.
async fn message(subscription: &mut Subscription) -> (String, Bytes) {
    loop {
        if let Event::Message { channel, payload } = subscription.next().await {
            return (channel, payload);
        }
    }
}

#[tokio::test]
async fn replies_come_in_order_and_a_command_that_fails_leaves_the_others_be() {
    let server = RedisServer::start();
    let link = link(&server.url());
    assert_eq!(link.health(), Health::Up);
    assert_eq!(link.run(Vec::new()).await, Ok(Vec::new()));

    let replies = link
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
    assert_eq!(link.health(), Health::Up);
}

#[tokio::test]
async fn errors_of_commands_never_open_the_breaker() {
    let server = RedisServer::start();
    let link = link(&server.url());
    ask(&link, set("word", "some")).await.unwrap();
    for _ in 0..50 {
        assert!(ask(&link, Command::new("INCR").arg("word")).await.unwrap().is_error("ERR"));
    }
    assert_eq!(link.health(), Health::Up);
}

#[tokio::test]
async fn a_script_is_sent_once_and_again_when_redis_has_forgotten_it() {
    let mut server = RedisServer::start();
    let link = link(&server.url());
    let script = Script::new("redis.call('INCRBY', KEYS[1], ARGV[1]) return redis.call('GET', KEYS[1])");
    let run = async || link.script(&script, &["{a}n".into()], &["2".into()]).await;
    assert_eq!(run().await, Ok(bytes("2")));
    assert_eq!(run().await, Ok(bytes("4")));
    let calls = text(&server.admin(&["INFO", "commandstats"]));
    assert!(calls.contains("cmdstat_eval:calls=1,"), "{calls}");

    server.admin(&["SCRIPT", "FLUSH"]);
    assert_eq!(run().await, Ok(bytes("6")));

    server.restart();
    eventually("the script to run on the new server", async || run().await.is_ok()).await;

    let failing = Script::new("return redis.error_reply('MINE is this')");
    assert!(link.script(&failing, &[], &[]).await.unwrap().is_error("MINE"));
    let broken = Script::new("return (");
    assert!(link.script(&broken, &[], &[]).await.unwrap().is_error("ERR"));
}

#[tokio::test]
async fn big_values_go_over_a_connection_of_their_own() {
    let server = RedisServer::start();
    let link = link(&server.url());
    let big = "x".repeat(4 << 20);
    ask(&link, set("small", "some")).await.unwrap();
    assert_eq!(link.bulk(vec![set("big", &big), get("big")]).await, Ok(vec![ok(), bytes(&big)]));
    let clients = text(&server.admin(&["CLIENT", "LIST"]));
    // These two, and the one that asks.
    assert_eq!(clients.lines().count(), 3, "{clients}");
}

/// All keys of a scan, each once.
async fn scanned(link: &RedisClient, prefix: &str, pattern: &str) -> std::collections::BTreeSet<String> {
    let mut scan = link.scan(prefix, pattern);
    let mut found = std::collections::BTreeSet::new();
    while let Some(keys) = scan.next().await.unwrap() {
        found.extend(keys.iter().map(|key| String::from_utf8_lossy(key).into_owned()));
    }
    found
}

#[tokio::test]
async fn all_keys_are_found_and_a_prefix_means_just_its_letters() {
    let server = RedisServer::start();
    let link = link(&server.url());
    assert!(scanned(&link, "", "*").await.is_empty());
    let keys: Vec<String> = (0..2_500).map(|number| format!("a-[b]*?\\^:{number}")).collect();
    link.run(keys.iter().chain(&["a-bxy:1".to_owned(), "a-[b]".to_owned()]).map(|key| set(key, "")).collect())
        .await
        .unwrap();
    assert!(scanned(&link, "a-[b]*?\\^:", "*").await.into_iter().eq({
        let mut keys = keys.clone();
        keys.sort();
        keys
    }));
    assert_eq!(scanned(&link, "a-[b]*?\\^:", "24[0-9]8").await.len(), 10);
}

#[tokio::test]
async fn a_number_of_a_database_and_an_acl_user_are_taken_from_the_url() {
    let server = RedisServer::start();
    server.admin(&["ACL", "SETUSER", "kg", "on", ">p@ss", "~koregate:*", "+@all", "-@dangerous", "-@admin"]);
    let link = link(&format!("{}/3", server.url_for("kg:p%40ss")));
    assert_eq!(ask(&link, set("koregate:a", "some")).await, Ok(ok()));
    assert!(ask(&link, set("other", "some")).await.unwrap().is_error("NOPERM"));
    assert!(text(&server.admin(&["INFO", "keyspace"])).contains("db3:keys=1"));
    assert_eq!(link.health(), Health::Up);
}

#[tokio::test]
async fn a_subscription_goes_on_after_a_restart_and_says_so() {
    let mut server = RedisServer::start();
    let link = link(&server.url());
    let mut subscription = link.listen(vec!["one".to_owned(), "two".to_owned()]);
    assert_eq!(subscription.next().await, Event::Connected);
    let publish = |channel: &'static str, payload: &'static str| Command::new("PUBLISH").arg(channel).arg(payload);
    assert_eq!(ask(&link, publish("two", "first")).await, Ok(Reply::Integer(1)));
    ask(&link, publish("three", "unheard")).await.unwrap();
    ask(&link, publish("one", "second")).await.unwrap();
    assert_eq!(message(&mut subscription).await, ("two".to_owned(), "first".into()));
    assert_eq!(message(&mut subscription).await, ("one".to_owned(), "second".into()));

    server.restart();
    assert_eq!(subscription.next().await, Event::Connected);
    eventually("a publication", async || ask(&link, publish("one", "third")).await == Ok(Reply::Integer(1))).await;
    assert_eq!(message(&mut subscription).await, ("one".to_owned(), "third".into()));

    drop(subscription);
    eventually("the subscription to end", async || ask(&link, publish("one", "")).await == Ok(Reply::Integer(0))).await;
}
