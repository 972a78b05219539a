//! `Cache-Status` (RFC 9211) of errors.
//!
//! An error has the field if the cache has handled the request. Errors that come before it (a malformed request, an
//! unknown key, a forbidden stream, the caller's own limit) have none: RFC 9211, section 2, asks caches not to add it to
//! responses that they generate without the use of what they store.
//!
//! Errors of windows have it all the same, since they cost calls and callers ask why: a departure from that advice.
//!
//! | parameter | meaning here |
//! | --- | --- |
//! | `fwd=miss` | a call to Kore was made for the window and answered; without `fwd-status`, it would say that the status of the error is Kore's (RFC 9211, 2.3) |
//! | `fwd-status` | the status of Kore's answer to the call that failed |
//! | `detail` | the label of the problem's type |

use http::{HeaderValue, StatusCode};

use crate::cache::CacheError;
use crate::paging::PagingError;
use crate::quota::QuotaError;
use crate::token::TokenError;

/// The field of a window that failed with `error`; `label` is that of the problem's type.
pub(super) fn of_error(error: &CacheError, label: &str) -> HeaderValue {
    let forwarded = match failed_status(error) {
        None => String::new(),
        Some(status) => format!("; fwd=miss; fwd-status={}", status.as_u16()),
    };
    let status = format!("koregate{forwarded}; detail=\"{label}\"");
    HeaderValue::try_from(status).unwrap_or(HeaderValue::from_static("koregate"))
}

/// The status of Kore's answer to the call that failed; `None` if no call has failed, or none was answered.
fn failed_status(error: &CacheError) -> Option<StatusCode> {
    let CacheError::Paging(PagingError::Quota(error)) = error else { return None };
    match error {
        QuotaError::Refused { status, .. } => *status,
        QuotaError::Token(TokenError::StreamRefused { status, .. }) => Some(*status),
        QuotaError::Token(TokenError::Upstream(error)) => error.status(),
        QuotaError::Exhausted(_)
        | QuotaError::Abandoned
        | QuotaError::NotLeader
        | QuotaError::CallerLimit(_)
        | QuotaError::Cordoned
        | QuotaError::Token(TokenError::UnknownAccount | TokenError::Mint(_)) => None,
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;
    use crate::quota::Exhausted;
    use crate::upstream::{BadPage, UpstreamError};

    #[test]
    fn field_names_the_status_of_the_failed_call() {
        let exhausted = Exhausted { retry_after: Duration::from_secs(1) };
        let quota = |error| CacheError::Paging(PagingError::Quota(error));
        let upstream = |error| quota(QuotaError::Token(TokenError::Upstream(error)));
        let status = |status: u16| StatusCode::from_u16(status).unwrap();
        for (error, expected) in [
            (CacheError::QuotaExhausted(exhausted), "koregate; detail=\"x\""),
            (CacheError::FetchLost, "koregate; detail=\"x\""),
            (quota(QuotaError::Exhausted(exhausted)), "koregate; detail=\"x\""),
            (upstream(UpstreamError::Timeout), "koregate; detail=\"x\""),
            (upstream(UpstreamError::of_status(status(500), None)), "koregate; fwd=miss; fwd-status=500; detail=\"x\""),
            (upstream(UpstreamError::of_status(status(412), None)), "koregate; fwd=miss; fwd-status=412; detail=\"x\""),
            (
                upstream(UpstreamError::Unauthorized { message: None }),
                "koregate; fwd=miss; fwd-status=401; detail=\"x\"",
            ),
            (upstream(BadPage::Empty.into()), "koregate; fwd=miss; fwd-status=200; detail=\"x\""),
            (
                quota(QuotaError::Refused { exhausted, status: Some(status(403)) }),
                "koregate; fwd=miss; fwd-status=403; detail=\"x\"",
            ),
        ] {
            assert_eq!(of_error(&error, "x"), expected, "{error}");
        }
    }
}
