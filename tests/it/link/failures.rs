//! One server, and all that can go wrong with it.

use std::io::{Read as _, Write as _};
use std::net::TcpListener;
use std::sync::{Arc, Mutex};
use std::time::Instant;

use koregate::redis_client::{Command, ConnectionError, Event, Health, RedisClient, Reply, Script};
use tracing_subscriber::fmt::MakeWriter;

use super::{ask, ask_until_open, bytes, eventually, eventually_up, get, link, link_with, ok, set};
use crate::support::{RedisServer, free_port};

/// With the breaker open, calls must not wait; this is far less than their timeout.
async fn assert_fails_at_once(link: &RedisClient) {
    let begun = Instant::now();
    for _ in 0..1000 {
        // It may close meanwhile only if something answers, and nothing does here.
        assert_eq!(link.run(vec![get("key")]).await, Err(ConnectionError::Open));
    }
    assert!(begun.elapsed() < super::SLACK, "{:?}", begun.elapsed());
}

#[tokio::test]
async fn nobody_listens_and_then_somebody_does() {
    let mut server = RedisServer::start();
    let link = link(&server.url());
    server.kill();
    let error = ask_until_open(&link).await;
    assert!(matches!(&error, ConnectionError::Unreachable(why) if why.contains("refused")), "{error:?}");
    assert_fails_at_once(&link).await;
    server.restart();
    eventually_up(&link).await;
    assert_eq!(ask(&link, set("key", "some")).await, Ok(ok()));
}

#[tokio::test]
async fn a_server_that_dies_under_calls_is_found_again() {
    let mut server = RedisServer::start();
    let link = link(&server.url());
    for _ in 0..3 {
        eventually("an answer", async || ask(&link, set("key", "some")).await == Ok(ok())).await;
        server.kill();
        assert!(ask(&link, get("key")).await.is_err());
        server.restart();
    }
    eventually("an answer", async || ask(&link, set("key", "some")).await == Ok(ok())).await;
}

#[tokio::test]
async fn a_silent_server_costs_no_call_more_than_its_timeout() {
    let server = RedisServer::start();
    let link = link(&server.url());
    assert_eq!(ask(&link, set("key", "some")).await, Ok(ok()));
    server.stop();
    assert_eq!(ask_until_open(&link).await, ConnectionError::TimedOut);
    assert_fails_at_once(&link).await;
    server.cont();
    eventually_up(&link).await;
    assert_eq!(ask(&link, get("key")).await, Ok(bytes("some")));
}

#[tokio::test]
async fn a_server_that_is_silent_from_the_start_is_no_different() {
    let server = RedisServer::start();
    server.admin(&["ACL", "SETUSER", "kg", "on", ">secret", "~*", "+@all"]);
    server.stop();
    // The login is not answered either.
    for url in [server.url(), server.url_for("kg:secret")] {
        assert_eq!(ask_until_open(&link(&url)).await, ConnectionError::TimedOut);
    }
}

#[tokio::test]
async fn a_call_that_timed_out_is_not_made_again() {
    let server = RedisServer::start();
    let link = link(&server.url());
    let script = Script::new("return redis.call('INCR', KEYS[1])");
    assert!(link.script(&script, &["known".into()], &[]).await.is_ok());
    server.stop();
    assert_eq!(link.script(&script, &["count".into()], &[]).await, Err(ConnectionError::TimedOut));
    assert_eq!(ask(&link, Command::new("INCR").arg("count")).await, Err(ConnectionError::TimedOut));
    server.cont();
    // All that was sent stands in front of this.
    eventually("an answer", async || ask(&link, set("last", "some")).await == Ok(ok())).await;
    let count = super::text(&server.admin(&["GET", "count"])).parse().unwrap_or(0);
    assert!(count <= 2, "two calls were made {count} times");
}

#[tokio::test]
async fn a_slow_server_fails_the_calls_that_it_delays_and_serves_those_behind() {
    let server = RedisServer::start();
    let link = link(&server.url());
    assert_eq!(ask(&link, set("key", "some")).await, Ok(ok()));
    server.admin(&["CLIENT", "PAUSE", "1000", "ALL"]);
    assert_eq!(ask(&link, get("key")).await, Err(ConnectionError::TimedOut));
    eventually("an answer", async || ask(&link, get("key")).await == Ok(bytes("some"))).await;
}

#[tokio::test]
async fn a_replica_refuses_writes_and_serves_reads() {
    let server = RedisServer::start();
    let link = link(&server.url());
    assert_eq!(ask(&link, set("key", "some")).await, Ok(ok()));
    server.admin(&["REPLICAOF", "127.0.0.1", "1"]);
    for _ in 0..20 {
        assert!(ask(&link, set("key", "other")).await.unwrap().is_error("READONLY"));
        assert_eq!(ask(&link, get("key")).await, Ok(bytes("some")));
    }
    assert_eq!(link.health(), Health::Up);
    server.admin(&["REPLICAOF", "NO", "ONE"]);
    assert_eq!(ask(&link, set("key", "other")).await, Ok(ok()));
}

#[tokio::test]
async fn a_replica_without_its_master_is_as_good_as_none() {
    let server = RedisServer::with(&["--replica-serve-stale-data", "no"]);
    let link = link(&server.url());
    server.admin(&["REPLICAOF", "127.0.0.1", "1"]);
    assert_eq!(ask_until_open(&link).await, ConnectionError::NotReady("MASTERDOWN".to_owned()));
    server.admin(&["REPLICAOF", "NO", "ONE"]);
    eventually_up(&link).await;
}

#[tokio::test]
async fn a_full_server_refuses_writes_and_serves_reads() {
    let server = RedisServer::start();
    let link = link(&server.url());
    assert_eq!(ask(&link, set("key", "some")).await, Ok(ok()));
    server.admin(&["CONFIG", "SET", "maxmemory", "1"]);
    for _ in 0..20 {
        assert!(ask(&link, set("key", "other")).await.unwrap().is_error("OOM"));
        assert_eq!(ask(&link, get("key")).await, Ok(bytes("some")));
    }
    assert_eq!(link.health(), Health::Up);
    server.admin(&["CONFIG", "SET", "maxmemory", "0"]);
    assert_eq!(ask(&link, set("key", "other")).await, Ok(ok()));
}

#[tokio::test]
async fn forbidden_scripts_are_an_error_of_the_call_alone() {
    let server = RedisServer::start();
    server.admin(&["ACL", "SETUSER", "kg", "on", ">secret", "~*", "+@all", "-@scripting"]);
    let link = link(&server.url_for("kg:secret"));
    let script = Script::new("return redis.call('INCR', KEYS[1])");
    for _ in 0..20 {
        assert!(link.script(&script, &["count".into()], &[]).await.unwrap().is_error("NOPERM"));
        assert_eq!(ask(&link, set("key", "some")).await, Ok(ok()));
    }
    assert_eq!(link.health(), Health::Up);
    server.admin(&["ACL", "SETUSER", "kg", "+@scripting"]);
    assert_eq!(link.script(&script, &["count".into()], &[]).await, Ok(Reply::Integer(1)));
}

#[tokio::test]
async fn a_wrong_password_is_told_without_showing_it_and_can_be_mended() {
    let server = RedisServer::start();
    server.admin(&["ACL", "SETUSER", "kg", "on", ">another", "~*", "+@all"]);
    let log = Log::default();
    let _guard = log.listen();
    let link = link(&server.url_for("kg:hunter2"));
    let error = ask_until_open(&link).await;
    assert_eq!(error, ConnectionError::Credentials);
    assert!(!format!("{error} {error:?} {link:?}").contains("hunter2"));
    server.admin(&["ACL", "SETUSER", "kg", ">hunter2"]);
    eventually_up(&link).await;
    assert_eq!(ask(&link, set("key", "some")).await, Ok(ok()));
    let told = log.told();
    assert!(told.contains("Redis fails") && told.contains("Redis answers again"), "{told}");
    assert!(!told.contains("hunter2"), "{told}");
}

#[tokio::test]
async fn a_missing_password_is_told_too() {
    let server = RedisServer::start();
    server.admin(&["ACL", "SETUSER", "other", "on", "nopass", "~*", "+@all"]);
    let link = link(&server.url());
    server.admin(&["CONFIG", "SET", "requirepass", "secret"]);
    assert_eq!(ask_until_open(&link).await, ConnectionError::NotReady("NOAUTH".to_owned()));
}

/// Answers each read with the same bytes, so often on each connection, and then with silence. With no bytes, it hangs
/// up.
fn liar(answer: &'static [u8], times: usize) -> String {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let addr = listener.local_addr().unwrap();
    std::thread::spawn(move || {
        for mut stream in listener.incoming().map_while(Result::ok) {
            std::thread::spawn(move || {
                let (mut read, mut left) = ([0; 4096], times);
                while stream.read(&mut read).is_ok_and(|length| length > 0) {
                    if answer.is_empty() || left > 0 && stream.write_all(answer).is_err() {
                        return;
                    }
                    left = left.saturating_sub(1);
                }
            });
        }
    });
    format!("redis://{addr}")
}

#[tokio::test]
async fn nonsense_on_the_wire_is_an_error_in_time() {
    let not_ready = |code: &str| ConnectionError::NotReady(code.to_owned());
    // What does not read as a reply ends the connection, under whichever call is first to meet it.
    let broken = ConnectionError::Broken("broken pipe".to_owned());
    for (answer, expected) in [
        (&b"HTTP/1.1 400 Bad Request\r\ncontent-length: 0\r\n\r\n"[..], [ConnectionError::Nonsense, broken.clone()]),
        (b"\0\xff\xfe\r\n", [ConnectionError::Nonsense, broken.clone()]),
        (b"*999999999\r\n", [ConnectionError::TimedOut, ConnectionError::TimedOut]),
        // With the answer to the next call behind it, it does not read as a reply either.
        (b"$5\r\nab", [ConnectionError::TimedOut, broken.clone()]),
        (b"-LOADING Redis is loading the dataset in memory\r\n", [not_ready("LOADING"), not_ready("LOADING")]),
        (b"-CLUSTERDOWN The cluster is down\r\n", [not_ready("CLUSTERDOWN"), not_ready("CLUSTERDOWN")]),
        (b"", [broken.clone(), broken.clone()]),
    ] {
        let url = liar(answer, usize::MAX);
        let error = ask_until_open(&link(&url)).await;
        assert!(expected.contains(&error), "{}: {error:?}", answer.escape_ascii());
        // With a login, and where there is more to be asked first, it may fail in other ways, but it does.
        ask_until_open(&link(&url.replace("redis://", "redis://user:hunter2@"))).await;
        for url in [url.replace("redis://", "redis+cluster://"), url.replace("redis://", "redis+sentinel://") + "/main"]
        {
            assert!(ask(&link(&url), get("key")).await.is_err(), "{url}: {}", answer.escape_ascii());
        }
    }
}

#[tokio::test]
async fn value_of_two_gigabytes_is_refused_before_it_is_read() {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let url = format!("redis://{}", listener.local_addr().unwrap());
    std::thread::spawn(move || {
        let (mut stream, mut read) = (listener.accept().unwrap().0, [0; 4096]);
        while let Ok(length @ 1..) = stream.read(&mut read) {
            for command in String::from_utf8_lossy(&read[..length]).split('*').skip(1) {
                // Of the value nothing ever comes: whoever waited for it would wait until the timeout.
                let answer = if command.contains("GET\r\n$3\r\nkey") { "$2147483648\r\n" } else { "-ERR no\r\n" };
                stream.write_all(answer.as_bytes()).unwrap();
            }
        }
    });
    assert!(ask(&link(&url), get("key")).await.unwrap().is_too_large());
}

#[tokio::test]
async fn reply_without_end_ends_the_connection() {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let url = format!("redis://{}", listener.local_addr().unwrap());
    let server = std::thread::spawn(move || {
        let (mut stream, _) = listener.accept().unwrap();
        assert!(stream.read(&mut [0; 4096]).unwrap() > 0);
        let value = [b"$65536\r\n", vec![b'x'; 65536].as_slice(), b"\r\n"].concat();
        stream.write_all(b"*1000000000\r\n").unwrap();
        (0u64..1_000_000_000).take_while(|_| stream.write_all(&value).is_ok()).count()
    });
    // A debug build needs its time for so many bytes.
    let patient = link_with(&url, 2 << 20, std::time::Duration::from_mins(1));
    // Broken, if another call on the same connection has met it first.
    let error = patient.run(vec![get("key")]).await.unwrap_err();
    assert!(matches!(error, ConnectionError::TooLarge(8_388_608) | ConnectionError::Broken(_)), "{error:?}");
    let written = server.join().unwrap();
    // And what the buffers of the two sockets hold.
    assert!(written < 1000, "{written} values of 64 KiB");
}

#[tokio::test]
async fn somebody_elses_large_value_is_an_error_of_its_command_alone() {
    let server = RedisServer::start();
    let link = link_with(&server.url(), 16 << 20, std::time::Duration::from_secs(30));
    server.admin(&["EVAL", "redis.call('SET', 'foreign', string.rep('x', 20971520))", "0"]);
    let replies = link.run(vec![set("key", "some"), get("foreign"), get("key")]).await.unwrap();
    assert!(replies[1].is_too_large(), "{replies:?}");
    assert_eq!((&replies[0], &replies[2]), (&ok(), &bytes("some")));
    assert_eq!(ask(&link, get("key")).await, Ok(bytes("some")));
    // It is the same connection, beside the one that asks.
    let clients = super::text(&server.admin(&["CLIENT", "LIST"]));
    assert_eq!((link.health(), clients.lines().count()), (Health::Up, 2), "{clients}");
}

#[tokio::test]
async fn a_subscription_notices_when_the_other_side_has_gone_without_a_word() {
    let url = liar(b"*3\r\n$9\r\nsubscribe\r\n$3\r\none\r\n:1\r\n", 1);
    let mut subscription = link(&url).listen(vec!["one".to_owned()]);
    for _ in 0..2 {
        assert_eq!(subscription.next().await, Event::Connected);
    }
}

#[tokio::test]
async fn a_master_that_no_sentinel_knows_is_waited_for() {
    let url = format!("redis+sentinel://127.0.0.1:{},127.0.0.1:{}/main", free_port(), free_port());
    let link = link(&url);
    assert_eq!(ask_until_open(&link).await, ConnectionError::NoMaster);
    assert_fails_at_once(&link).await;
}

/// What is logged in this thread.
#[derive(Clone, Default)]
struct Log(Arc<Mutex<Vec<u8>>>);

impl Log {
    fn listen(&self) -> tracing::subscriber::DefaultGuard {
        let subscriber = tracing_subscriber::fmt().with_ansi(false).with_writer(self.clone()).finish();
        tracing::subscriber::set_default(subscriber)
    }

    fn told(&self) -> String {
        String::from_utf8(self.0.lock().unwrap().clone()).unwrap()
    }
}

impl std::io::Write for Log {
    fn write(&mut self, text: &[u8]) -> std::io::Result<usize> {
        self.0.lock().unwrap().extend_from_slice(text);
        Ok(text.len())
    }

    fn flush(&mut self) -> std::io::Result<()> {
        Ok(())
    }
}

impl<'a> MakeWriter<'a> for Log {
    type Writer = Self;

    fn make_writer(&'a self) -> Self {
        self.clone()
    }
}

#[tokio::test]
async fn a_server_without_bounds_or_that_will_refuse_writes_is_named_in_the_log() {
    for (settings, says) in [
        (&["--maxmemory", "0"][..], Some("set maxmemory")),
        (&["--maxmemory", "64mb", "--maxmemory-policy", "noeviction"], Some("noeviction")),
        (&["--maxmemory", "64mb", "--maxmemory-policy", "allkeys-lru"], None),
    ] {
        let server = RedisServer::with(settings);
        server.admin(&["ACL", "SETUSER", "kg", "on", ">secret", "~*", "+@all", "-config"]);
        // Where CONFIG is forbidden, INFO tells the same.
        for url in [server.url(), server.url_for("kg:secret")] {
            let log = Log::default();
            let _guard = log.listen();
            let link = link(&url);
            ask(&link, get("key")).await.unwrap();
            let some_calls = async || {
                for _ in 0..50 {
                    eventually("an answer", async || ask(&link, get("key")).await.is_ok()).await;
                }
            };
            let Some(says) = says else {
                // Were it told, it would be by then.
                some_calls().await;
                assert_eq!(log.told(), "");
                continue;
            };
            eventually(says, async || log.told().contains(says)).await;
            // Once is enough, however often it connects.
            server.admin(&["CLIENT", "KILL", "TYPE", "normal", "SKIPME", "yes"]);
            some_calls().await;
            assert_eq!(log.told().matches(says).count(), 1, "{}", log.told());
        }
    }
}
