//! Authentication: finds the caller of a request by its API key, and applies the caller's rate limit.

use std::sync::Arc;

use aws_lc_rs::constant_time::verify_slices_are_equal;
use aws_lc_rs::digest::{SHA256, digest};
use http::{HeaderMap, header};

use super::problem::EdgeError;
use super::rate_limit::CallerRateLimit;
use crate::api::Caller;
use crate::config;
use crate::request::RateLimitStatus;

/// The configured callers. Cheap to clone; all clones share the same state.
#[derive(Clone, Debug)]
pub struct Callers(Arc<[Known]>);

#[derive(Debug)]
struct Known {
    caller: Caller,
    /// SHA-256 of each of the caller's keys.
    api_key_sha256: Vec<[u8; 32]>,
    /// The caller's rate limit, shared by its keys.
    bucket: CallerRateLimit,
}

/// An authenticated caller, and its rate limit after this request.
#[derive(Clone, Debug)]
pub(super) struct AuthenticatedCaller {
    pub(super) caller: Caller,
    pub(super) limit_status: RateLimitStatus,
}

impl Callers {
    /// The callers with these keys and limits.
    pub fn new(callers: &[config::CallerConfig]) -> Self {
        let known = |caller: &config::CallerConfig| Known {
            caller: Caller {
                name: caller.name.clone(),
                accounts: caller.accounts.clone(),
                streams: caller.streams.clone(),
                weight: caller.weight,
                cache_control: caller.cache_control,
            },
            api_key_sha256: caller.api_key_sha256.clone(),
            bucket: CallerRateLimit::per_minute(caller.requests_per_minute),
        };
        Self(callers.iter().map(known).collect())
    }

    /// Whether no callers are configured, so that every client may call.
    pub(super) fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    /// State of the rate limit of the caller called `name`.
    pub fn limit_status(&self, name: &str) -> Option<RateLimitStatus> {
        self.0.iter().find(|known| *known.caller.name == *name).map(|known| known.bucket.limit_status())
    }

    /// Whether the request is admitted, and the caller whose key it carries even if it is not. `None` where no callers
    /// are configured: then every client on this machine may call.
    pub(super) fn admit(&self, headers: &HeaderMap) -> (Option<AuthenticatedCaller>, Result<(), EdgeError>) {
        if self.is_empty() {
            return (None, Ok(()));
        }
        let Some(known) = self.find(headers) else { return (None, Err(EdgeError::UnknownCaller)) };
        let (taken, limit_status) = known.bucket.take();
        let authenticated = AuthenticatedCaller { caller: known.caller.clone(), limit_status };
        (Some(authenticated), taken.map_err(|retry_after| EdgeError::TooManyRequests { retry_after }))
    }

    /// The caller that has this key.
    fn find(&self, headers: &HeaderMap) -> Option<&Known> {
        let hash = digest(&SHA256, api_key(headers)?);
        // Every key is compared, in constant time, so that the time taken reveals nothing about any key. A search that
        // stops at the first match would skip some; hence a fold, and `|` instead of `||`.
        let same = |known: &[u8; 32]| verify_slices_are_equal(known, hash.as_ref()).is_ok();
        let owns = |known: &Known| known.api_key_sha256.iter().fold(false, |found, key| found | same(key));
        self.0.iter().fold(None, |found, known| if owns(known) { Some(known) } else { found })
    }
}

fn api_key(headers: &HeaderMap) -> Option<&[u8]> {
    if let Some(key) = headers.get("x-api-key") {
        return Some(key.as_bytes());
    }
    bearer_token(headers)
}

/// The token of `authorization: Bearer` (RFC 6750, 2.1).
pub fn bearer_token(headers: &HeaderMap) -> Option<&[u8]> {
    let (scheme, token) = headers.get(header::AUTHORIZATION)?.to_str().ok()?.split_once(' ')?;
    scheme.eq_ignore_ascii_case("bearer").then(|| token.trim().as_bytes())
}

#[cfg(test)]
mod tests {
    use std::num::NonZeroU32;
    use std::time::Duration;

    use super::*;
    use crate::config::NamePatterns;

    fn callers() -> Callers {
        let hash = |key: &&str| digest(&SHA256, key.as_bytes()).as_ref().try_into().unwrap();
        let caller = |name: &str, keys: &[&str], rate| config::CallerConfig {
            name: name.into(),
            api_key_sha256: keys.iter().map(hash).collect(),
            accounts: NamePatterns::All,
            streams: NamePatterns::All,
            requests_per_minute: NonZeroU32::new(rate).unwrap(),
            weight: 1,
            cache_control: config::CacheControlGrants::default(),
        };
        Callers::new(&[caller("bi", &["key-1"], 600), caller("qa", &["key-2", "key-2-new"], 2)])
    }

    fn authenticate(
        callers: &Callers,
        name: &'static str,
        value: &'static str,
    ) -> (Option<AuthenticatedCaller>, Result<(), EdgeError>) {
        let mut headers = HeaderMap::new();
        headers.insert(name, value.parse().unwrap());
        callers.admit(&headers)
    }

    fn admit(callers: &Callers, name: &'static str, value: &'static str) -> Result<String, EdgeError> {
        let (authenticated, admitted) = authenticate(callers, name, value);
        admitted.map(|()| authenticated.unwrap().caller.name.to_string())
    }

    #[tokio::test(start_paused = true)]
    async fn caller_is_found_by_each_of_its_keys() {
        let callers = callers();
        assert_eq!(admit(&callers, "x-api-key", "key-1").unwrap(), "bi");
        assert_eq!(admit(&callers, "authorization", "bearer key-2").unwrap(), "qa");
        assert_eq!(admit(&callers, "x-api-key", "key-2-new").unwrap(), "qa");
        for (name, value) in
            [("x-api-key", "key-3"), ("authorization", "Basic key-1"), ("accept", "key-1"), ("x-api-key", "")]
        {
            let (authenticated, admitted) = authenticate(&callers, name, value);
            assert!(authenticated.is_none() && matches!(admitted, Err(EdgeError::UnknownCaller)), "{name}: {value}");
        }
    }

    #[tokio::test(start_paused = true)]
    async fn each_caller_has_its_own_limit() {
        let callers = callers();
        // Both keys belong to the same caller.
        assert!(admit(&callers, "x-api-key", "key-2").is_ok() && admit(&callers, "x-api-key", "key-2-new").is_ok());
        let Err(EdgeError::TooManyRequests { retry_after }) = admit(&callers, "x-api-key", "key-2") else { panic!() };
        assert!(admit(&callers, "x-api-key", "key-1").is_ok());
        tokio::time::advance(retry_after).await;
        assert!(admit(&callers, "x-api-key", "key-2").is_ok());
    }

    #[tokio::test(start_paused = true)]
    async fn refused_caller_is_known_with_its_status() {
        let callers = callers();
        let limit_status = || {
            let (authenticated, admitted) = authenticate(&callers, "x-api-key", "key-2");
            let RateLimitStatus { limit, left, more_in, .. } = authenticated.unwrap().limit_status;
            (admitted.is_ok(), limit, left, more_in.unwrap().as_secs())
        };
        assert_eq!(limit_status(), (true, 2, 1, 30));
        tokio::time::advance(Duration::from_secs(10)).await;
        assert_eq!(limit_status(), (true, 2, 0, 20));
        assert_eq!(limit_status(), (false, 2, 0, 20));
        let anonymous = Callers::new(&[]).admit(&HeaderMap::new());
        assert!(matches!(anonymous, (None, Ok(()))));
    }
}
