//! Replies of Redis, from the bytes that are received to the values in them.

use crate::cache::fuzz::{purges, values};
use crate::quota::fuzz::exchange_reply;
use crate::redis_client::fuzz::replies;

/// A stream of replies, in pieces. Each reply is read as each of those that the gateway expects.
///
/// # Panics
/// If a property does not hold.
pub fn redis_reply(data: &[u8]) {
    let replies = replies(data);
    for reply in &replies {
        values(reply);
        exchange_reply(reply);
    }
    for pair in replies.windows(2).take(20) {
        purges(pair);
    }
}
