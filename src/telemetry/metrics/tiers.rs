//! Lookups in the tiers of the cache. Memory and the response cache are on the path of each hit, so their counters are
//! registered once.

use std::sync::LazyLock;

use metrics::{Counter, counter};

/// A tier of the cache.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Tier {
    /// Ready answers, by request.
    Response,
    /// Chunks in memory, by window: a hit has all of it.
    Memory,
    /// Chunks on disk, by chunk.
    Disk,
    /// Cells in Redis, by cell: a hit holds a chunk that is of use.
    Redis,
}

/// Counters of hits and misses.
type Counters = [Counter; 2];

static RESPONSE: LazyLock<Counters> = LazyLock::new(|| register("response"));
static MEMORY: LazyLock<Counters> = LazyLock::new(|| register("memory"));
static DISK: LazyLock<Counters> = LazyLock::new(|| register("disk"));
static REDIS: LazyLock<Counters> = LazyLock::new(|| register("redis"));

fn register(tier: &'static str) -> Counters {
    ["hit", "miss"].map(|result| counter!("koregate_tier_lookups_total", "tier" => tier, "result" => result))
}

/// A tier was looked into this often, with these results.
pub fn tier_lookups(tier: Tier, hits: usize, misses: usize) {
    let counters = match tier {
        Tier::Response => &RESPONSE,
        Tier::Memory => &MEMORY,
        Tier::Disk => &DISK,
        Tier::Redis => &REDIS,
    };
    for (counter, count) in counters.iter().zip([hits, misses]) {
        if count > 0 {
            counter.increment(count as u64);
        }
    }
}
