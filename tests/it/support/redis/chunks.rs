//! The chunks that gateways have written to Redis, read and changed by scripts.

use super::RedisServer;
use crate::support::until;

impl RedisServer {
    /// Runs `lua` for each chunk, with `key`, `field` and `value` of it, its number `n` and a variable `last` to keep
    /// something in; the number of chunks, unless `lua` returns something else.
    pub(crate) fn for_each_chunk(&self, lua: &str) -> String {
        let script = format!(
            "local n, last = 0, nil for _, key in ipairs(redis.call('keys', 'koregate:c*')) do \
             local all = redis.call('type', key).ok == 'hash' and redis.call('hgetall', key) or {{}} \
             for i = 1, #all, 2 do local field, value = all[i], all[i + 1] \
             if not field:find('_ids$') then n = n + 1 {lua} end end end return n"
        );
        self.query(&["EVAL", &script, "0"])
    }

    /// The number of chunks.
    pub(crate) fn chunk_count(&self) -> usize {
        self.for_each_chunk("").parse().unwrap()
    }

    /// Waits until exactly `count` chunks have been written.
    pub(crate) async fn until_chunks(&self, count: usize) {
        until("chunks in Redis", || self.chunk_count() == count).await;
    }

    /// Waits until any chunk has been written.
    pub(crate) async fn until_any_chunk(&self) {
        until("a chunk in Redis", || self.chunk_count() > 0).await;
    }
}
