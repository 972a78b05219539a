//! Failures of one server.

use super::{
    CapturedLog, Command, ConnectionError, Health, Reply, Script, assert_fails_at_once, bytes, client, client_with,
    get, ok, run, run_until_open, set, until_readable, until_up, until_writable,
};
use crate::support::{RedisServer, until_async};

#[tokio::test]
async fn refused_connection_opens_breaker_until_server_starts() {
    let mut server = RedisServer::start();
    let client = client(&server.url());
    server.kill();
    let error = run_until_open(&client).await;
    assert!(matches!(&error, ConnectionError::Unreachable(why) if why.contains("refused")), "{error:?}");
    assert_fails_at_once(&client);
    server.restart();
    until_up(&client).await;
    assert_eq!(run(&client, set("key", "some")).await, Ok(ok()));
}

#[tokio::test]
async fn killed_server_is_reconnected_after_restart() {
    let mut server = RedisServer::start();
    let client = client(&server.url());
    for _ in 0..3 {
        until_writable(&client, "key", "some").await;
        server.kill();
        assert!(run(&client, get("key")).await.is_err());
        server.restart();
    }
    until_writable(&client, "key", "some").await;
}

#[tokio::test]
async fn frozen_server_times_out_until_resumed() {
    let server = RedisServer::start();
    let client = client(&server.url());
    assert_eq!(run(&client, set("key", "some")).await, Ok(ok()));
    server.freeze();
    assert_eq!(run_until_open(&client).await, ConnectionError::TimedOut);
    assert_fails_at_once(&client);
    server.resume();
    until_up(&client).await;
    assert_eq!(run(&client, get("key")).await, Ok(bytes("some")));
}

#[tokio::test]
async fn frozen_server_at_connect_times_out() {
    let server = RedisServer::start();
    server.command(&["ACL", "SETUSER", "kg", "on", ">secret", "~*", "+@all"]);
    server.freeze();
    // Neither is the login answered.
    for url in [server.url(), server.url_for("kg:secret")] {
        assert_eq!(run_until_open(&client(&url)).await, ConnectionError::TimedOut);
    }
}

#[tokio::test]
async fn timed_out_call_is_not_repeated() {
    let server = RedisServer::start();
    let client = client(&server.url());
    let script = Script::new("return redis.call('INCR', KEYS[1])");
    assert!(client.script(&script, &["known".into()], &[]).await.is_ok());
    server.freeze();
    assert_eq!(client.script(&script, &["count".into()], &[]).await, Err(ConnectionError::TimedOut));
    assert_eq!(run(&client, Command::new("INCR").arg("count")).await, Err(ConnectionError::TimedOut));
    server.resume();
    // Redis runs all earlier commands before this one.
    until_writable(&client, "last", "some").await;
    let count = server.query(&["GET", "count"]).parse().unwrap_or(0);
    assert!(count <= 2, "two calls were made {count} times");
}

#[tokio::test]
async fn slow_server_fails_delayed_calls_only() {
    let server = RedisServer::start();
    let client = client(&server.url());
    assert_eq!(run(&client, set("key", "some")).await, Ok(ok()));
    server.command(&["CLIENT", "PAUSE", "1000", "ALL"]);
    assert_eq!(run(&client, get("key")).await, Err(ConnectionError::TimedOut));
    until_readable(&client, "key", "some").await;
}

#[tokio::test]
async fn write_refusing_server_keeps_serving_reads() {
    for (refuse, code, allow) in [
        (["REPLICAOF", "127.0.0.1", "1"].as_slice(), "READONLY", ["REPLICAOF", "NO", "ONE"].as_slice()),
        (&["CONFIG", "SET", "maxmemory", "1"], "OOM", &["CONFIG", "SET", "maxmemory", "0"]),
    ] {
        let server = RedisServer::start();
        let client = client(&server.url());
        assert_eq!(run(&client, set("key", "some")).await, Ok(ok()));
        server.command(refuse);
        for _ in 0..20 {
            assert!(run(&client, set("key", "other")).await.unwrap().is_error(code));
            assert_eq!(run(&client, get("key")).await, Ok(bytes("some")));
        }
        assert_eq!(client.health(), Health::Up);
        server.command(allow);
        assert_eq!(run(&client, set("key", "other")).await, Ok(ok()));
    }
}

#[tokio::test]
async fn replica_without_master_opens_breaker() {
    let server = RedisServer::start_with(&["--replica-serve-stale-data", "no"]);
    let client = client(&server.url());
    server.command(&["REPLICAOF", "127.0.0.1", "1"]);
    assert_eq!(run_until_open(&client).await, ConnectionError::NotReady("MASTERDOWN".to_owned()));
    server.command(&["REPLICAOF", "NO", "ONE"]);
    until_up(&client).await;
}

#[tokio::test]
async fn forbidden_script_is_error_of_call_only() {
    let server = RedisServer::start();
    server.command(&["ACL", "SETUSER", "kg", "on", ">secret", "~*", "+@all", "-@scripting"]);
    let client = client(&server.url_for("kg:secret"));
    let script = Script::new("return redis.call('INCR', KEYS[1])");
    for _ in 0..20 {
        assert!(client.script(&script, &["count".into()], &[]).await.unwrap().is_error("NOPERM"));
        assert_eq!(run(&client, set("key", "some")).await, Ok(ok()));
    }
    assert_eq!(client.health(), Health::Up);
    server.command(&["ACL", "SETUSER", "kg", "+@scripting"]);
    assert_eq!(client.script(&script, &["count".into()], &[]).await, Ok(Reply::Integer(1)));
}

#[tokio::test]
async fn wrong_password_is_reported_without_secret() {
    let server = RedisServer::start();
    server.command(&["ACL", "SETUSER", "kg", "on", ">another", "~*", "+@all"]);
    let log = CapturedLog::default();
    let _guard = log.capture();
    let client = client(&server.url_for("kg:hunter2"));
    let error = run_until_open(&client).await;
    assert_eq!(error, ConnectionError::Credentials);
    assert!(!format!("{error} {error:?} {client:?}").contains("hunter2"));
    server.command(&["ACL", "SETUSER", "kg", ">hunter2"]);
    until_up(&client).await;
    assert_eq!(run(&client, set("key", "some")).await, Ok(ok()));
    let text = log.text();
    assert!(text.contains("Redis fails") && text.contains("Redis answers again"), "{text}");
    assert!(!text.contains("hunter2"), "{text}");
}

#[tokio::test]
async fn missing_password_is_reported() {
    let server = RedisServer::start();
    server.command(&["ACL", "SETUSER", "other", "on", "nopass", "~*", "+@all"]);
    let client = client(&server.url());
    server.command(&["CONFIG", "SET", "requirepass", "secret"]);
    assert_eq!(run_until_open(&client).await, ConnectionError::NotReady("NOAUTH".to_owned()));
}

#[tokio::test]
async fn oversized_foreign_value_is_error_of_its_command() {
    let server = RedisServer::start();
    let client = client_with(&server.url(), 16 << 20, std::time::Duration::from_secs(30));
    server.command(&["EVAL", "redis.call('SET', 'foreign', string.rep('x', 20971520))", "0"]);
    let replies = client.run(vec![set("key", "some"), get("foreign"), get("key")]).await.unwrap();
    assert!(replies[1].is_too_large(), "{replies:?}");
    assert_eq!((&replies[0], &replies[2]), (&ok(), &bytes("some")));
    assert_eq!(run(&client, get("key")).await, Ok(bytes("some")));
    // The client still has one connection; the other is the one of this command.
    let clients = server.query(&["CLIENT", "LIST"]);
    assert_eq!((client.health(), clients.lines().count()), (Health::Up, 2), "{clients}");
}

#[tokio::test]
async fn risky_maxmemory_settings_are_logged_once() {
    for (settings, warning) in [
        (&["--maxmemory", "0"][..], Some("set maxmemory")),
        (&["--maxmemory", "64mb", "--maxmemory-policy", "noeviction"], Some("noeviction")),
        (&["--maxmemory", "64mb", "--maxmemory-policy", "allkeys-lru"], None),
    ] {
        let server = RedisServer::start_with(settings);
        server.command(&["ACL", "SETUSER", "kg", "on", ">secret", "~*", "+@all", "-config"]);
        // Without permission for CONFIG, the client reads INFO.
        for url in [server.url(), server.url_for("kg:secret")] {
            let log = CapturedLog::default();
            let _guard = log.capture();
            let client = client(&url);
            run(&client, get("key")).await.unwrap();
            let some_calls = async || {
                for _ in 0..50 {
                    until_async("a reply", async || run(&client, get("key")).await.is_ok()).await;
                }
            };
            let Some(warning) = warning else {
                // A warning would have been logged by then.
                some_calls().await;
                assert_eq!(log.text(), "");
                continue;
            };
            until_async(warning, async || log.text().contains(warning)).await;
            // The warning is logged once, however often the client connects.
            server.command(&["CLIENT", "KILL", "TYPE", "normal", "SKIPME", "yes"]);
            some_calls().await;
            assert_eq!(log.text().matches(warning).count(), 1, "{}", log.text());
        }
    }
}
