//! Who calls, and whether it may call now.

use std::sync::Arc;
use std::time::Duration;

use aws_lc_rs::constant_time::verify_slices_are_equal;
use aws_lc_rs::digest::{SHA256, digest};
use http::{HeaderMap, header};
use tokio::time::Instant;

use super::problem::EdgeError;
use crate::api::Caller;
use crate::config::{self, Limit};
use crate::quota::Pace;

/// The callers that are configured.
#[derive(Clone, Debug)]
pub(super) struct Callers {
    known: Arc<[Known]>,
    epoch: Instant,
}

#[derive(Debug)]
struct Known {
    caller: Caller,
    /// Of each of its keys.
    api_key_sha256: Vec<[u8; 32]>,
    pace: Option<Pace>,
}

impl Callers {
    pub(super) fn new(callers: &[config::Caller]) -> Self {
        let epoch = Instant::now();
        let known = |caller: &config::Caller| {
            let limit = Limit { requests: caller.requests_per_minute.get(), per: Duration::from_mins(1) };
            Known {
                caller: Caller {
                    name: caller.name.clone(),
                    accounts: caller.accounts.clone(),
                    streams: caller.streams.clone(),
                },
                api_key_sha256: caller.api_key_sha256.clone(),
                pace: Pace::with_burst(limit, limit.requests, epoch),
            }
        };
        Self { known: callers.iter().map(known).collect(), epoch }
    }

    /// The caller whose key the request carries; `None` where no callers are configured, and anybody on this machine
    /// may call.
    pub(super) fn admit(&self, headers: &HeaderMap) -> Result<Option<Caller>, EdgeError> {
        if self.known.is_empty() {
            return Ok(None);
        }
        let key = api_key(headers).ok_or(EdgeError::UnknownCaller)?;
        let hash = digest(&SHA256, key);
        // Each one is compared, whole and in constant time, so that time tells nothing of any key: `|` skips none.
        let same = |known: &[u8; 32]| verify_slices_are_equal(known, hash.as_ref()).is_ok();
        let matching = |known: &&Known| known.api_key_sha256.iter().fold(false, |found, key| found | same(key));
        let known = self.known.iter().filter(matching).last().ok_or(EdgeError::UnknownCaller)?;
        let now = self.epoch.elapsed();
        match known.pace.as_ref().map_or(Ok(()), |pace| pace.admit(now)) {
            Ok(()) => Ok(Some(known.caller.clone())),
            Err(at) => Err(EdgeError::TooManyRequests { retry_after: at.saturating_sub(now) }),
        }
    }
}

fn api_key(headers: &HeaderMap) -> Option<&[u8]> {
    if let Some(key) = headers.get("x-api-key") {
        return Some(key.as_bytes());
    }
    let (scheme, key) = headers.get(header::AUTHORIZATION)?.to_str().ok()?.split_once(' ')?;
    scheme.eq_ignore_ascii_case("bearer").then(|| key.trim().as_bytes())
}

#[cfg(test)]
mod tests {
    use std::num::NonZeroU32;

    use super::*;
    use crate::config::Names;

    fn callers() -> Callers {
        let hash = |key: &&str| digest(&SHA256, key.as_bytes()).as_ref().try_into().unwrap();
        let caller = |name: &str, keys: &[&str], rate| config::Caller {
            name: name.into(),
            api_key_sha256: keys.iter().map(hash).collect(),
            accounts: Names::All,
            streams: Names::All,
            requests_per_minute: NonZeroU32::new(rate).unwrap(),
            weight: 1,
        };
        Callers::new(&[caller("bi", &["key-1"], 600), caller("qa", &["key-2", "key-2-new"], 2)])
    }

    fn admit(callers: &Callers, name: &'static str, value: &'static str) -> Result<String, EdgeError> {
        let mut headers = HeaderMap::new();
        headers.insert(name, value.parse().unwrap());
        callers.admit(&headers).map(|caller| caller.unwrap().name.to_string())
    }

    #[tokio::test(start_paused = true)]
    async fn a_caller_is_known_by_its_key() {
        let callers = callers();
        assert_eq!(admit(&callers, "x-api-key", "key-1").unwrap(), "bi");
        assert_eq!(admit(&callers, "authorization", "bearer key-2").unwrap(), "qa");
        assert_eq!(admit(&callers, "x-api-key", "key-2-new").unwrap(), "qa");
        for (name, value) in
            [("x-api-key", "key-3"), ("authorization", "Basic key-1"), ("accept", "key-1"), ("x-api-key", "")]
        {
            assert!(matches!(admit(&callers, name, value), Err(EdgeError::UnknownCaller)), "{name}: {value}");
        }
    }

    #[tokio::test(start_paused = true)]
    async fn each_caller_has_a_limit_of_its_own() {
        let callers = callers();
        // Both of its keys are the same caller's.
        assert!(admit(&callers, "x-api-key", "key-2").is_ok() && admit(&callers, "x-api-key", "key-2-new").is_ok());
        let Err(EdgeError::TooManyRequests { retry_after }) = admit(&callers, "x-api-key", "key-2") else { panic!() };
        assert!(admit(&callers, "x-api-key", "key-1").is_ok());
        tokio::time::advance(retry_after).await;
        assert!(admit(&callers, "x-api-key", "key-2").is_ok());
    }
}
