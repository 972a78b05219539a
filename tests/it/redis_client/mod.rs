//! The Redis client against real servers that fail in all known ways: alone, as a Cluster, behind Sentinels.

mod commands;
mod failures;
mod malformed_replies;
mod tls;
mod topologies;

use std::io::Write;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use bytes::Bytes;
use futures_util::FutureExt as _;
use koregate::config;
use koregate::network::Network;
use koregate::redis_client::{Command, ConnectionError, Event, Health, RedisClient, Reply, Script, Subscription};
use tracing_subscriber::fmt::MakeWriter;

use crate::support::{until_async, within_deadline};

/// The timeout of a call.
const TIMEOUT: Duration = Duration::from_millis(300);

fn client(url: &str) -> RedisClient {
    client_with(url, 16 << 20, TIMEOUT)
}

/// The same with a limit of the size of values and another timeout.
fn client_with(url: &str, max_value: u64, timeout: Duration) -> RedisClient {
    let config = config::RedisConfig {
        url: url.to_owned().into(),
        prefix: "koregate".to_owned(),
        ttl: Duration::from_mins(1),
        timeout,
        max_value,
        replicas: 8,
    };
    RedisClient::new(&config, &Network::Tcp).unwrap()
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

/// The result of one command.
async fn run(client: &RedisClient, command: Command) -> Result<Reply, ConnectionError> {
    let mut replies = within_deadline("a reply or an error", client.run(vec![command])).await?;
    assert_eq!(replies.len(), 1);
    Ok(replies.remove(0))
}

/// Makes calls until the circuit breaker opens; returns the last error before.
async fn run_until_open(client: &RedisClient) -> ConnectionError {
    let mut last = None;
    for _ in 0..50 {
        match run(client, get("key")).await {
            Err(ConnectionError::Open) => {
                let Health::Down { why, .. } = client.health() else { panic!("open, but up") };
                let last = last.expect("an error before the breaker opened");
                assert_eq!(why, last);
                return last;
            }
            Err(error) => last = Some(error),
            Ok(reply) => panic!("a reply: {reply:?}"),
        }
    }
    panic!("the breaker does not open: {last:?}")
}

/// Asserts that calls fail at the first poll while the breaker is open: they wait for nothing.
fn assert_fails_at_once(client: &RedisClient) {
    for _ in 0..1000 {
        assert_eq!(client.run(vec![get("key")]).now_or_never(), Some(Err(ConnectionError::Open)));
    }
}

/// Waits until the circuit breaker has closed without any call.
async fn until_up(client: &RedisClient) {
    until_async("the breaker to close", async || client.health() == Health::Up).await;
}

/// Waits until a write succeeds.
async fn until_writable(client: &RedisClient, key: &str, value: &str) {
    until_async("a write", async || run(client, set(key, value)).await == Ok(ok())).await;
}

/// Waits until a read returns `value`.
async fn until_readable(client: &RedisClient, key: &str, value: &str) {
    until_async("a read", async || run(client, get(key)).await == Ok(bytes(value))).await;
}

/// The next message; other events are skipped.
async fn next_message(subscription: &mut Subscription) -> (String, Bytes) {
    loop {
        if let Event::Message { channel, payload } = subscription.next().await {
            return (channel, payload);
        }
    }
}

/// The log of this thread.
#[derive(Clone, Default)]
struct CapturedLog(Arc<Mutex<Vec<u8>>>);

impl CapturedLog {
    /// Captures until the guard is dropped.
    fn capture(&self) -> tracing::subscriber::DefaultGuard {
        let subscriber = tracing_subscriber::fmt().with_ansi(false).with_writer(self.clone()).finish();
        tracing::subscriber::set_default(subscriber)
    }

    fn text(&self) -> String {
        String::from_utf8(self.0.lock().unwrap().clone()).unwrap()
    }
}

impl Write for CapturedLog {
    fn write(&mut self, text: &[u8]) -> std::io::Result<usize> {
        self.0.lock().unwrap().extend_from_slice(text);
        Ok(text.len())
    }

    fn flush(&mut self) -> std::io::Result<()> {
        Ok(())
    }
}

impl<'a> MakeWriter<'a> for CapturedLog {
    type Writer = Self;

    fn make_writer(&'a self) -> Self {
        self.clone()
    }
}
