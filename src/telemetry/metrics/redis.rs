//! Events of Redis: calls, connections, and the values of the cache's second tier.

use std::fmt::Display;
use std::sync::Once;
use std::time::Duration;

use metrics::{counter, gauge, histogram};

/// A value of the cache was read from Redis, or could not be.
pub fn redis_read(result: &'static str) {
    counter!("koregate_redis_reads_total", "result" => result).increment(1);
}

/// Chunks of the cache were written to Redis, or could not be.
pub fn redis_write(result: &'static str) {
    counter!("koregate_redis_writes_total", "result" => result).increment(1);
}

/// A value in Redis was encrypted with an unknown key.
pub fn redis_wrong_key() {
    static IS_LOGGED: Once = Once::new();
    redis_read("wrong_key");
    IS_LOGGED.call_once(|| {
        tracing::error!(
            "values in Redis were encrypted with another key than cache.redis.encryption_key: they are misses"
        );
    });
}

/// A call to Redis ended after `took`; `None` if it was not made because Redis is considered down.
pub fn redis_call(result: &'static str, took: Option<Duration>) {
    counter!("koregate_redis_calls_total", "result" => result).increment(1);
    if let Some(took) = took {
        histogram!("koregate_redis_duration_seconds").record(took.as_secs_f64());
    }
}

/// Redis failed several times in a row on this connection, and is not called for a while.
pub fn redis_down(connection: &'static str, error: &dyn Display) {
    gauge!("koregate_redis_up", "connection" => connection).set(0.0);
    tracing::warn!(connection, %error, "Redis fails: koregate goes on without it until it answers again");
}

/// Redis has answered on this connection; `again` if it was considered down before.
pub fn redis_up(connection: &'static str, again: bool) {
    gauge!("koregate_redis_up", "connection" => connection).set(1.0);
    if again {
        tracing::info!(connection, "Redis answers again");
    }
}

/// The memory settings of Redis are harmful in the way that `harm` describes.
pub fn redis_memory(harm: &'static str) {
    tracing::warn!(harm, "the memory settings of Redis are harmful");
}
