//! Authentication: finds the caller of a request by its API key or its client certificate, and applies the caller's
//! limits on requests.

use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use aws_lc_rs::constant_time::verify_slices_are_equal;
use aws_lc_rs::digest::{SHA256, digest};
use http::{HeaderMap, header};
use tokio::sync::{OwnedSemaphorePermit, Semaphore};

use super::credential::CallerCredential;
use super::problem::EdgeError;
use super::rate_limit::CallerRateLimit;
use crate::api::Caller;
use crate::config;
use crate::config::{LimitMode, PriorityClass};
use crate::request::{Priority, RateLimitStatus};
use crate::telemetry;
use crate::window::{Bound, Timestamp};

/// The time before `not_after` from which the log warns.
const EXPIRY_WARNING: Duration = Duration::from_hours(14 * 24);
/// The longest interval at which the warning is repeated.
const WARNING_INTERVAL: Duration = Duration::from_hours(24);

/// The configured callers. Cheap to clone; all clones share the same state.
#[derive(Clone, Debug)]
pub struct Callers(Arc<[Known]>);

#[derive(Debug)]
struct Known {
    caller: Caller,
    /// SHA-256 of each of the caller's keys.
    api_key_sha256: Vec<[u8; 32]>,
    /// The name of the certificates that stand for the caller.
    certificate_san: Option<Arc<str>>,
    /// The caller's rate limit, shared by its keys.
    bucket: CallerRateLimit,
    /// The slots of its requests at the same time; `None` without such a limit.
    slots: Option<Arc<Semaphore>>,
    mode: LimitMode,
    /// The time from which the caller is refused.
    not_after: Option<Timestamp>,
    /// When the log last warned that the caller is about to be refused.
    warned_at: Mutex<Option<Timestamp>>,
}

/// An authenticated caller, and its limits after this request.
#[derive(Debug)]
pub(super) struct AuthenticatedCaller {
    pub(super) caller: Caller,
    pub(super) credential: CallerCredential,
    pub(super) limit_status: RateLimitStatus,
    /// Held until the answer has ended; `None` without a limit, or if the request is refused.
    pub(super) _slot: Option<OwnedSemaphorePermit>,
}

impl Callers {
    /// The callers with these keys and limits.
    pub fn new(callers: &[config::CallerConfig]) -> Self {
        Self(callers.iter().map(Known::new).collect())
    }

    /// Whether no callers are configured, so that every client may call.
    pub(super) fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    /// State of the rate limit of the caller called `name`.
    pub fn limit_status(&self, name: &str) -> Option<RateLimitStatus> {
        self.0.iter().find(|known| *known.caller.name == *name).map(|known| known.bucket.limit_status())
    }

    /// Warns in the log of each caller that is refused soon, or already. For the start of the process.
    pub(super) fn warn_of_expiry(&self, now: Timestamp) {
        self.0.iter().for_each(|known| known.warn_of_expiry(now));
    }

    /// Whether the request is admitted at `now`, and the caller whose key or certificate it carries even if it is not.
    /// `None` where no callers are configured: then every client on this machine may call.
    pub(super) fn admit(
        &self,
        headers: &HeaderMap,
        certificate: Option<&PeerCertificate>,
        now: Timestamp,
    ) -> (Option<AuthenticatedCaller>, Result<(), EdgeError>) {
        if self.is_empty() {
            return (None, Ok(()));
        }
        // A key that is sent decides, even if it is not known.
        let known = match (api_key(headers), certificate) {
            (Some(key), _) => self.find(key),
            (None, Some(certificate)) => self.find_by_certificate(certificate),
            (None, None) => None,
        };
        let Some((known, credential)) = known else { return (None, Err(EdgeError::UnknownCaller)) };
        let (limit_status, admitted) = known.admit(now);
        let (slot, admitted) = match admitted {
            Ok(slot) => (slot, Ok(())),
            Err(error) => (None, Err(error)),
        };
        (Some(AuthenticatedCaller { caller: known.caller.clone(), credential, limit_status, _slot: slot }), admitted)
    }

    /// The caller that has this key.
    fn find(&self, key: &[u8]) -> Option<(&Known, CallerCredential)> {
        let hash = digest(&SHA256, key);
        // Every key is compared, in constant time, so that the time taken reveals nothing about any key. A search that
        // stops at the first match would skip some; hence a fold, and `|` instead of `||`.
        let same = |known: &[u8; 32]| verify_slices_are_equal(known, hash.as_ref()).is_ok();
        let owns = |known: &Known| known.api_key_sha256.iter().fold(false, |found, key| found | same(key));
        let found = self.0.iter().fold(None, |found, known| if owns(known) { Some(known) } else { found });
        let start = hash.as_ref().first_chunk().copied().unwrap_or_default();
        found.map(|known| (known, CallerCredential::Key(start)))
    }

    /// The caller that one of the certificate's names stands for; `None` if its names are those of several callers.
    fn find_by_certificate(&self, PeerCertificate { names }: &PeerCertificate) -> Option<(&Known, CallerCredential)> {
        let is_named = |known: &&Known| known.certificate_san.as_ref().is_some_and(|san| names.contains(san));
        let mut found = self.0.iter().filter(is_named);
        let known = found.next().filter(|_| found.next().is_none())?;
        Some((known, CallerCredential::Certificate(known.certificate_san.clone()?)))
    }
}

impl Known {
    fn new(config: &config::CallerConfig) -> Self {
        let config::CallerLimits { requests_per_minute, max_concurrent_requests, mode, .. } = config.limits;
        let max_priority = match config.max_priority {
            PriorityClass::Interactive => Priority::Interactive,
            PriorityClass::Refresh => Priority::Refresh,
            PriorityClass::Background => Priority::Background,
        };
        Self {
            caller: Caller {
                name: config.name.clone(),
                accounts: config.accounts.clone(),
                streams: config.streams.clone(),
                weight: config.weight,
                cache_control: config.cache_control,
                max_priority,
            },
            api_key_sha256: config.api_key_sha256.clone(),
            certificate_san: config.certificate_san.clone(),
            bucket: CallerRateLimit::per_minute(requests_per_minute),
            slots: max_concurrent_requests
                .map(|most| Arc::new(Semaphore::new((most.get() as usize).min(Semaphore::MAX_PERMITS)))),
            mode,
            not_after: config.not_after.map(Bound::start),
            warned_at: Mutex::default(),
        }
    }

    /// The state of the rate limit after this request, and the slot that it takes; an error if it is refused.
    fn admit(&self, now: Timestamp) -> (RateLimitStatus, Result<Option<OwnedSemaphorePermit>, EdgeError>) {
        self.warn_of_expiry(now);
        if self.not_after.is_some_and(|not_after| not_after <= now) {
            return (self.bucket.limit_status(), Err(EdgeError::ExpiredCaller));
        }
        let (taken, limit_status) = self.bucket.take();
        if let Err(retry_after) = taken {
            self.count_refusal("requests_per_minute");
            if self.mode == LimitMode::Enforce {
                return (limit_status, Err(EdgeError::TooManyRequests { retry_after }));
            }
        }
        let slot = match self.slots.clone().map(Semaphore::try_acquire_owned) {
            None => None,
            Some(Ok(slot)) => Some(slot),
            Some(Err(_)) => {
                self.count_refusal("max_concurrent_requests");
                if self.mode == LimitMode::Enforce {
                    return (limit_status, Err(EdgeError::TooManyConcurrentRequests));
                }
                None
            }
        };
        (limit_status, Ok(slot))
    }

    fn count_refusal(&self, limit: &'static str) {
        telemetry::caller_limit_refusal(&self.caller.name, limit, self.mode.label());
    }

    fn warn_of_expiry(&self, now: Timestamp) {
        let Some(not_after) = self.not_after.filter(|not_after| now + EXPIRY_WARNING >= *not_after) else { return };
        let mut warned_at = self.warned_at.lock().unwrap_or_else(PoisonError::into_inner);
        if warned_at.is_none_or(|warned_at| warned_at + WARNING_INTERVAL <= now) {
            *warned_at = Some(now);
            telemetry::caller_expires(&self.caller.name, &Bound::Second(not_after), not_after <= now);
        }
    }
}

/// The names in the certificate with which a client has connected: an extension of each request of the connection. The
/// handshake has verified the certificate.
#[derive(Clone, Debug, Default)]
pub struct PeerCertificate {
    /// The subject alternative names: URIs and DNS names, as they are spelled.
    pub names: Arc<[Arc<str>]>,
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

    use super::*;
    use crate::config::NamePatterns;

    /// A caller without a key and with the defaults.
    fn anyone() -> config::CallerConfig {
        config::CallerConfig {
            name: "c".into(),
            api_key_sha256: Vec::new(),
            certificate_san: None,
            accounts: NamePatterns::All,
            streams: NamePatterns::All,
            weight: 1,
            cache_control: config::CacheControlGrants::default(),
            max_priority: PriorityClass::Interactive,
            not_after: None,
            limits: config::CallerLimits::default(),
        }
    }

    fn at(time: &str) -> Timestamp {
        Bound::parse(time).unwrap().start()
    }

    fn callers() -> Callers {
        let hash = |key: &&str| digest(&SHA256, key.as_bytes()).as_ref().try_into().unwrap();
        let caller = |name: &str, keys: &[&str], rate| config::CallerConfig {
            name: name.into(),
            api_key_sha256: keys.iter().map(hash).collect(),
            limits: config::CallerLimits {
                requests_per_minute: NonZeroU32::new(rate).unwrap(),
                ..config::CallerLimits::default()
            },
            ..anyone()
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
        callers.admit(&headers, None, at("2026-06-01"))
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
        let anonymous = Callers::new(&[]).admit(&HeaderMap::new(), None, at("2026-06-01"));
        assert!(matches!(anonymous, (None, Ok(()))));
    }

    fn certificate(names: &[&str]) -> PeerCertificate {
        PeerCertificate { names: names.iter().map(|name| Arc::from(*name)).collect() }
    }

    #[tokio::test(start_paused = true)]
    async fn certificate_stands_for_its_caller_without_a_key() {
        let with_san = |name: &str, san: &str| config::CallerConfig {
            name: name.into(),
            certificate_san: Some(san.into()),
            ..anyone()
        };
        let callers = Callers::new(&[with_san("bi", "spiffe://a/bi"), with_san("qa", "qa.internal")]);
        let key = HeaderMap::from_iter([(http::HeaderName::from_static("x-api-key"), "k".parse().unwrap())]);
        for (headers, names, expected) in [
            (HeaderMap::new(), &["other", "spiffe://a/bi"][..], Some("bi")),
            (HeaderMap::new(), &["qa.internal"], Some("qa")),
            (HeaderMap::new(), &["QA.internal", "spiffe://a/bi/x"], None),
            (HeaderMap::new(), &["spiffe://a/bi", "qa.internal"], None),
            (HeaderMap::new(), &[], None),
            (key, &["qa.internal"], None),
        ] {
            let (found, admitted) = callers.admit(&headers, Some(&certificate(names)), at("2026-06-01"));
            assert_eq!(found.map(|found| found.caller.name.to_string()).as_deref(), expected, "{names:?}");
            assert_eq!(admitted.is_ok(), expected.is_some(), "{names:?}");
        }
        assert!(callers.admit(&HeaderMap::new(), None, at("2026-06-01")).1.is_err());
    }

    /// The only caller, by its certificate.
    fn only(
        limits: config::CallerLimits,
        not_after: Option<&str>,
    ) -> impl Fn(&str) -> Result<AuthenticatedCaller, EdgeError> {
        let not_after = not_after.and_then(Bound::parse);
        let config = config::CallerConfig { certificate_san: Some("n".into()), limits, not_after, ..anyone() };
        let callers = Callers::new(&[config]);
        move |time| {
            let (found, admitted) = callers.admit(&HeaderMap::new(), Some(&certificate(&["n"])), at(time));
            admitted.map(|()| found.unwrap())
        }
    }

    #[tokio::test(start_paused = true)]
    async fn caller_is_refused_from_its_end_on() {
        let admit = only(config::CallerLimits::default(), Some("2027-01-01"));
        assert!(admit("2026-12-31T23:59:59").is_ok());
        for time in ["2027-01-01", "2027-01-01T00:00:01"] {
            assert!(matches!(admit(time), Err(EdgeError::ExpiredCaller)), "{time}");
        }
    }

    #[tokio::test(start_paused = true)]
    async fn slot_is_released_when_the_answer_has_ended() {
        let limits = config::CallerLimits { max_concurrent_requests: NonZeroU32::new(2), ..Default::default() };
        let admit = only(limits, None);
        let (first, _second) = (admit("2026-06-01").unwrap(), admit("2026-06-01").unwrap());
        assert!(matches!(admit("2026-06-01"), Err(EdgeError::TooManyConcurrentRequests)));
        drop(first);
        assert!(admit("2026-06-01").is_ok());
    }

    #[tokio::test(start_paused = true)]
    async fn shadow_limits_refuse_nothing() {
        let one = NonZeroU32::new(1).unwrap();
        let limits = |mode| config::CallerLimits {
            requests_per_minute: one,
            max_concurrent_requests: Some(one),
            mode,
            ..Default::default()
        };
        let (shadow, enforced) = (only(limits(LimitMode::Shadow), None), only(limits(LimitMode::Enforce), None));
        let held: Vec<_> = (0..5).map(|_| shadow("2026-06-01").unwrap()).collect();
        assert_eq!(held.len(), 5);
        let _held = enforced("2026-06-01").unwrap();
        assert!(matches!(enforced("2026-06-01"), Err(EdgeError::TooManyRequests { .. })));
    }
}
