//! Events of the limits of callers.

use std::fmt::Display;

use metrics::counter;

/// A request or a call exceeded a limit of its caller, which `limit`, a key of `[[callers]]`, sets. With the mode
/// `shadow` it was not refused.
pub fn caller_limit_refusal(caller: &str, limit: &'static str, mode: &'static str) {
    counter!("koregate_caller_limit_refusals_total", "caller" => caller.to_owned(), "limit" => limit, "mode" => mode)
        .increment(1);
}

/// The keys and the certificate of a caller are refused from `not_after` on, which is near or has passed.
pub fn caller_expires(caller: &str, not_after: &dyn Display, has_expired: bool) {
    if has_expired {
        tracing::warn!(caller, %not_after, "a caller is refused since its not_after");
    } else {
        tracing::warn!(caller, %not_after, "a caller will be refused from its not_after on");
    }
}

/// Calls to the upstream were stopped for an account or a stream, or are made again.
pub fn cordon(account: &str, stream: Option<&str>, is_cordoned: bool, requester: &dyn Display) {
    let stream = stream.unwrap_or("*");
    if is_cordoned {
        tracing::warn!(account, stream, %requester, "cordoned: no call is made any more");
    } else {
        tracing::warn!(account, stream, %requester, "uncordoned: calls are made again");
    }
}
