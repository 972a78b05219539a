//! Authentication: finds the caller of a request by its API key or its client certificate, and applies the caller's
//! limits on requests.

mod credential;

use std::num::NonZeroU32;
use std::sync::atomic::{AtomicU32, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use aws_lc_rs::constant_time::verify_slices_are_equal;
use aws_lc_rs::digest::{SHA256, digest};
use http::{HeaderMap, HeaderName, header};
use tokio_util::sync::CancellationToken;

use self::credential::CallerCredential;
use super::hosts::AllowedHosts;
use super::problem::EdgeError;
use super::rate_limit::CallerRateLimit;
use crate::api::Caller;
use crate::config;
use crate::config::{LimitMode, PriorityClass};
use crate::live::Live;
use crate::request::{Priority, RateLimitStatus};
use crate::telemetry;
use crate::window::{Bound, Timestamp};

const X_API_KEY: HeaderName = HeaderName::from_static("x-api-key");
/// The time before `not_after` from which the log warns.
const EXPIRY_WARNING: Duration = Duration::from_hours(14 * 24);
/// How long answers under way may go on whose key is gone: a little less than the 30 s that are promised.
const REVOCATION_DELAY: Duration = Duration::from_secs(25);
/// The longest interval at which the warning is repeated.
const WARNING_INTERVAL: Duration = Duration::from_hours(24);

/// The configured callers, and the host names by which they reach the gateway. Cheap to clone; all clones share the same
/// state.
#[derive(Clone, Debug)]
pub struct Callers(Live<CallerTable>);

/// The callers and host names of one configuration.
#[derive(Debug)]
pub(super) struct CallerTable {
    known: Vec<Known>,
    hosts: AllowedHosts,
    generation: u64,
}

#[derive(Debug)]
struct Known {
    caller: Arc<Caller>,
    /// SHA-256 of each of the caller's keys.
    api_keys: Vec<Credential<[u8; 32]>>,
    /// The name of the certificates that stand for the caller.
    certificate_san: Option<Credential<Arc<str>>>,
    /// The caller's rate limit, shared by its keys.
    bucket: Arc<CallerRateLimit>,
    /// Its requests whose answers have not ended.
    in_progress: InProgress,
    max_in_progress: Option<u32>,
    mode: LimitMode,
    /// The time from which the caller is refused.
    not_after: Option<Timestamp>,
    /// When the log last warned that the caller is about to be refused.
    warned_at: Mutex<Option<Timestamp>>,
}

/// A key, or a name in certificates, that stands for a caller.
#[derive(Clone, Debug)]
struct Credential<T> {
    value: T,
    /// Cancelled some time after the credential has been removed from the configuration.
    revoked: CancellationToken,
}

/// An authenticated caller, and its limits after this request.
#[derive(Debug)]
pub(super) struct AuthenticatedCaller {
    pub(super) caller: Arc<Caller>,
    pub(super) credential: CallerCredential,
    pub(super) limit_status: RateLimitStatus,
    /// Cancelled when the answer must end, because its credential has been removed.
    pub(super) revoked: CancellationToken,
    /// Held until the answer has ended; `None` if the request is refused.
    pub(super) _slot: Option<Slot>,
}

impl Callers {
    /// The callers with these keys and limits. `Host` must be one of `hosts`; with callers, it is checked only if `hosts`
    /// is not empty, since the keys authenticate.
    pub fn new(callers: &[config::CallerConfig], hosts: &[String]) -> Self {
        Self(Live::new(CallerTable::new(callers, hosts, None)))
    }

    /// Replaces callers and host names for all requests that come from now on. The limits of callers that stay go on.
    /// Answers under way to a key that is gone are broken off after a while. Must be called on a runtime.
    pub fn configure(&self, callers: &[config::CallerConfig], hosts: &[String]) {
        let before = self.0.load();
        self.0.replace(CallerTable::new(callers, hosts, Some(&before)));
        let revoked = before.credentials_missing_in(&self.0.load());
        if !revoked.is_empty() {
            tokio::spawn(async move {
                tokio::time::sleep(REVOCATION_DELAY).await;
                revoked.iter().for_each(CancellationToken::cancel);
            });
        }
    }

    /// The present callers and host names.
    pub(super) fn load(&self) -> Arc<CallerTable> {
        self.0.load()
    }

    /// State of the rate limit of the caller called `name`.
    pub fn limit_status(&self, name: &str) -> Option<RateLimitStatus> {
        self.0.load().find_by_name(name).map(|known| known.bucket.limit_status())
    }
}

impl CallerTable {
    /// The table of a configuration that follows `before`.
    fn new(callers: &[config::CallerConfig], hosts: &[String], before: Option<&Self>) -> Self {
        let generation = before.map_or(0, |before| before.generation + 1);
        let known = |config: &config::CallerConfig| {
            Known::new(config, generation, before.and_then(|before| before.find_by_name(&config.name)))
        };
        let any_host = !callers.is_empty() && hosts.is_empty();
        let hosts = if any_host { AllowedHosts::any() } else { AllowedHosts::only(hosts) };
        Self { known: callers.iter().map(known).collect(), hosts, generation }
    }

    /// The host names that requests may use.
    pub(super) fn hosts(&self) -> &AllowedHosts {
        &self.hosts
    }

    /// Warns in the log of each caller that is refused soon, or already.
    pub(super) fn warn_of_expiry(&self, now: Timestamp) {
        self.known.iter().for_each(|known| known.warn_of_expiry(now));
    }

    fn find_by_name(&self, name: &str) -> Option<&Known> {
        self.known.iter().find(|known| *known.caller.name == *name)
    }

    /// The tokens of the keys and certificate names that `after` does not have for the same caller.
    fn credentials_missing_in(&self, after: &Self) -> Vec<CancellationToken> {
        let of_caller = |known: &Known| {
            let kept = after.find_by_name(&known.caller.name);
            let is_gone =
                |token: &&CancellationToken| !kept.is_some_and(|kept| kept.tokens().any(|kept| kept == *token));
            known.tokens().filter(is_gone).cloned().collect::<Vec<_>>()
        };
        self.known.iter().flat_map(of_caller).collect()
    }

    /// Whether the request is admitted at `now`, and the caller whose key or certificate it carries even if it is not.
    /// `None` where no callers are configured: then every client on this machine may call.
    pub(super) fn admit(
        &self,
        headers: &HeaderMap,
        certificate: Option<&PeerCertificate>,
        now: Timestamp,
    ) -> (Option<AuthenticatedCaller>, Result<(), EdgeError>) {
        // Checked also beside a key, and without callers: then the certificate is what admits.
        if certificate.is_some_and(|certificate| certificate.has_expired(now)) {
            return (None, Err(EdgeError::ExpiredCertificate));
        }
        if self.known.is_empty() {
            return (None, Ok(()));
        }
        // A key that is sent decides, even if it is not known.
        let known = match (api_key(headers), certificate) {
            (Some(key), _) => self.find(key),
            (None, Some(certificate)) => self.find_by_certificate(certificate),
            (None, None) => None,
        };
        let Some((known, credential, revoked)) = known else { return (None, Err(EdgeError::UnknownCaller)) };
        let (limit_status, admitted) = known.admit(now);
        let (slot, admitted) = match admitted {
            Ok(slot) => (Some(slot), Ok(())),
            Err(error) => (None, Err(error)),
        };
        let (caller, revoked) = (known.caller.clone(), revoked.clone());
        (Some(AuthenticatedCaller { caller, credential, limit_status, revoked, _slot: slot }), admitted)
    }

    /// The caller that has this key.
    fn find(&self, key: &[u8]) -> Option<(&Known, CallerCredential, &CancellationToken)> {
        let hash = digest(&SHA256, key);
        // Every key is compared, in constant time, so that the time taken reveals nothing about any key. A search that
        // stops at the first match would skip some.
        let same = |known: &[u8; 32]| verify_slices_are_equal(known, hash.as_ref()).is_ok();
        let all = self.known.iter().flat_map(|known| known.api_keys.iter().map(move |key| (known, key)));
        let found =
            all.fold(None, |found, (known, key)| if same(&key.value) { Some((known, &key.revoked)) } else { found });
        let start = hash.as_ref().first_chunk().copied().unwrap_or_default();
        found.map(|(known, revoked)| (known, CallerCredential::Key(start), revoked))
    }

    /// The caller that one of the certificate's names stands for; `None` if its names are those of several callers.
    fn find_by_certificate(
        &self,
        PeerCertificate { names, .. }: &PeerCertificate,
    ) -> Option<(&Known, CallerCredential, &CancellationToken)> {
        let is_named = |known: &&Known| known.certificate_san.as_ref().is_some_and(|san| names.contains(&san.value));
        let mut found = self.known.iter().filter(is_named);
        let known = found.next().filter(|_| found.next().is_none())?;
        let san = known.certificate_san.as_ref()?;
        Some((known, CallerCredential::Certificate(san.value.clone()), &san.revoked))
    }
}

impl Known {
    /// The caller of a configuration, with the limits and the credentials that it has in common with the caller `before`.
    fn new(config: &config::CallerConfig, generation: u64, before: Option<&Self>) -> Self {
        let config::CallerLimits { requests_per_minute, max_concurrent_requests, mode, .. } = config.limits;
        let max_priority = match config.max_priority {
            PriorityClass::Interactive => Priority::Interactive,
            PriorityClass::Refresh => Priority::Refresh,
            PriorityClass::Background => Priority::Background,
        };
        let bucket = before.map(|before| &before.bucket).filter(|bucket| bucket.limit() == requests_per_minute);
        let known_key = |key: &[u8; 32]| before?.api_keys.iter().find(|known| known.value == *key).cloned();
        let known_san = before.and_then(|before| before.certificate_san.clone());
        let certificate_san = config
            .certificate_san
            .as_ref()
            .map(|san| known_san.filter(|known| known.value == *san).unwrap_or_else(|| Credential::new(san.clone())));
        Self {
            caller: Arc::new(Caller {
                name: config.name.clone(),
                accounts: config.accounts.clone(),
                streams: config.streams.clone(),
                weight: config.weight,
                cache_control: config.cache_control,
                max_priority,
                generation,
            }),
            api_keys: config
                .api_key_sha256
                .iter()
                .map(|key| known_key(key).unwrap_or_else(|| Credential::new(*key)))
                .collect(),
            certificate_san,
            bucket: bucket.cloned().unwrap_or_else(|| Arc::new(CallerRateLimit::per_minute(requests_per_minute))),
            in_progress: before.map(|before| before.in_progress.clone()).unwrap_or_default(),
            max_in_progress: max_concurrent_requests.map(NonZeroU32::get),
            mode,
            not_after: config.not_after.map(Bound::start),
            warned_at: Mutex::new(before.and_then(Self::warned_at)),
        }
    }

    fn warned_at(&self) -> Option<Timestamp> {
        *self.warned_at.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn tokens(&self) -> impl Iterator<Item = &CancellationToken> {
        let of_keys = self.api_keys.iter().map(|key| &key.revoked);
        of_keys.chain(self.certificate_san.as_ref().map(|san| &san.revoked))
    }

    /// The state of the rate limit after this request, and the slot that it takes; an error if it is refused.
    fn admit(&self, now: Timestamp) -> (RateLimitStatus, Result<Slot, EdgeError>) {
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
        let slot = self.in_progress.enter();
        if self.max_in_progress.is_some_and(|most| slot.number > most) {
            self.count_refusal("max_concurrent_requests");
            if self.mode == LimitMode::Enforce {
                return (limit_status, Err(EdgeError::TooManyConcurrentRequests));
            }
        }
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

impl<T> Credential<T> {
    fn new(value: T) -> Self {
        Self { value, revoked: CancellationToken::new() }
    }
}

/// The number of a caller's requests whose answers have not ended. Clones share it.
#[derive(Clone, Debug, Default)]
struct InProgress(Arc<AtomicU32>);

impl InProgress {
    fn enter(&self) -> Slot {
        Slot { number: self.0.fetch_add(1, Ordering::Relaxed) + 1, count: self.0.clone() }
    }
}

/// One of a caller's requests whose answers have not ended, until it is dropped.
#[derive(Debug)]
pub(super) struct Slot {
    /// How many there were with it when it began.
    number: u32,
    count: Arc<AtomicU32>,
}

impl Drop for Slot {
    fn drop(&mut self) {
        self.count.fetch_sub(1, Ordering::Relaxed);
    }
}

/// The certificate with which a client has connected: an extension of each request of the connection. A handshake has
/// verified the certificate, perhaps long ago: connections and resumed TLS sessions outlast it.
#[derive(Clone, Debug)]
pub struct PeerCertificate {
    /// The subject alternative names: URIs and DNS names, as they are spelled.
    pub names: Arc<[Arc<str>]>,
    /// `notAfter`
    pub until: Timestamp,
}

impl PeerCertificate {
    /// Whether the certificate no longer proves anything.
    pub fn has_expired(&self, now: Timestamp) -> bool {
        self.until <= now
    }
}

fn api_key(headers: &HeaderMap) -> Option<&[u8]> {
    if let Some(key) = headers.get(X_API_KEY) {
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
mod tests;
