//! The calls of the doctor: each with a permit of the account's scheduler, so that they count like those of a gateway,
//! over all replicas if there is Redis.

use std::collections::{BTreeMap, HashMap};
use std::sync::Arc;
use std::time::Duration;

use anyhow::Context as _;
use bytes::Bytes;
use http::HeaderValue;
use secrecy::ExposeSecret as _;
use serde_json::value::RawValue;
use tokio::time::{sleep, timeout};
use xxhash_rust::xxh3::xxh3_64;

use super::evidence::{Evidence, Probe, ProbeAnswer, ProbeOutcome, SampleItem, SamplePage, Setup, TokenForm};
use super::findings::Findings;
use super::plan;
use super::report::{Investigated, Subject};
use crate::config::{AccountConfig, Config, JtiMode, SeriesSettings, TokenScheme};
use crate::environment::Environment;
use crate::paging::Item;
use crate::quota::{AcquireError, CallPermit, QuotaManager, Role, StateFileError};
use crate::request::{Filter, Priority, Requester, RunWaiters, Series};
use crate::stack;
use crate::token::mint::mint;
use crate::traces::Span;
use crate::units::print_duration_roughly;
use crate::upstream::{Client, Page, RawAnswer, RawRequest, UpstreamError};
use crate::window::{Bound, QueryBounds, Timestamp};

/// The least time that a call may wait for the quota.
const MIN_QUEUE_TIMEOUT: Duration = Duration::from_secs(90);
/// The longest life of a token that carries a `jti`.
const MAX_LIFETIME_WITH_JTI: Duration = Duration::from_hours(1);
/// The pause after a call that failed.
const FAILURE_PAUSE: Duration = Duration::from_secs(1);
/// The pause before the leader is asked for again, and how often that is done.
const LEADER_PAUSE: Duration = Duration::from_millis(100);
const LEADER_ATTEMPTS: usize = 50;

/// The prerequisites of calls for one stream.
pub(super) struct Investigation {
    client: Client,
    account: AccountConfig,
    series: Arc<Series>,
    quotas: QuotaManager,
    environment: Environment,
    call_timeout: Duration,
    evidence: Evidence,
}

impl Investigation {
    /// Opens the ledger that the configuration names.
    ///
    /// # Errors
    /// If the account is not configured, the ledger is in use by a gateway, or the trust anchors cannot be loaded.
    pub(super) fn new(config: &Config, subject: &Subject, environment: &Environment) -> anyhow::Result<Self> {
        let account = config.accounts.iter().find(|account| *account.account_id == *subject.account);
        let account = account.context("no account of this id is configured")?.clone();
        let own = SeriesSettings::new(&config.window, &config.accounts);
        let own = own.for_series(&subject.account, &subject.stream);
        let now = environment.clock.now().floor_second();
        let setup = Setup {
            token: TokenForm { scheme: account.token.scheme, jti: account.token.jti },
            field: own.field.clone(),
            now,
            settled: (now - own.settle_after).floor_second(),
        };
        Ok(Self {
            client: Client::new(&config.upstream, &environment.clock, &environment.network)?,
            series: Arc::new(Series {
                account: account.account_id.clone(),
                stream: subject.stream.as_str().into(),
                filter: Filter::None,
                parameters: Vec::new(),
                agentic: false,
            }),
            account,
            quotas: open_ledger(config, environment)?,
            environment: environment.clone(),
            call_timeout: config.upstream.timeout,
            evidence: Evidence::new(setup),
        })
    }

    /// Makes the calls, and concludes.
    pub(super) async fn run(mut self, subject: Subject) -> Investigated {
        let mut stopped = None;
        while let Some(probe) = plan::next_probe(&self.evidence) {
            match self.ask(&probe).await {
                Ok(answer) => {
                    let has_failed = matches!(answer.outcome, ProbeOutcome::Failed(_));
                    self.evidence.exchanges.push((probe, answer));
                    if has_failed {
                        sleep(FAILURE_PAUSE).await;
                    }
                }
                Err(reason) => {
                    stopped = Some(reason);
                    break;
                }
            }
        }
        self.quotas.leave().await;
        if plan::has_given_up(&self.evidence) {
            stopped = Some("several calls failed or were refused for the quota; try again later".to_owned());
        }
        let calls = self.evidence.exchanges.len();
        Investigated { subject, findings: Findings::new(&self.evidence), calls, stopped }
    }

    /// Makes one call. The error says why it was not made.
    async fn ask(&self, probe: &Probe) -> Result<ProbeAnswer, String> {
        let auth = self.auth(probe.token)?;
        let permit = self.permit().await?;
        let bounds = QueryBounds { from: probe.window.from, to: Bound::Second(probe.window.to) };
        let series = self.series.clone();
        let request = RawRequest { series, bounds, offset: probe.offset, limit: probe.limit, auth, span: Span::NONE };
        let answer = timeout(self.call_timeout, self.client.exchange(request)).await;
        let answer = answer.unwrap_or(Err(UpstreamError::Timeout));
        let now = self.environment.clock.now();
        let page = answer.as_ref().map_err(Clone::clone).and_then(|answer| answer.page(now));
        settle(permit, &page, answer.as_ref().ok());
        let answer = answer.as_ref().ok();
        let ahead = answer.and_then(|answer| Some(answer.asked_at.as_seconds() - answer.date()?.as_seconds()));
        Ok(ProbeAnswer {
            outcome: outcome(page, answer),
            clock_ahead: ahead,
            rate_limit: answer.and_then(|answer| answer.rate_limit(now)),
        })
    }

    /// A permit for one call.
    async fn permit(&self) -> Result<CallPermit, String> {
        let scheduler = self.quotas.scheduler(&self.account.account_id).ok_or("the account has no scheduler")?;
        let requester = Requester { caller: "koregate doctor".into(), weight: 1, priority: Priority::Background };
        for _ in 0..LEADER_ATTEMPTS {
            match scheduler.acquire(&RunWaiters::new(requester.clone())).await {
                Ok(permit) => return Ok(permit),
                Err(AcquireError::Exhausted(exhausted)) => {
                    let wait = print_duration_roughly(exhausted.retry_after);
                    return Err(format!("the quota is spent for another {wait}; try again then"));
                }
                // The doctor is no configured caller.
                Err(AcquireError::CallerLimit(_)) => return Err("the calls of the doctor are limited".to_owned()),
                Err(AcquireError::NotLeader | AcquireError::Abandoned) => {
                    // The lock of the role must not be held while it changes.
                    let role = scheduler.role().borrow().clone();
                    // A gateway is the leader. The doctor asks it for a permit, and makes the call itself.
                    if let Role::Follower(leader) = role {
                        scheduler.detach(&leader);
                    }
                }
            }
            sleep(LEADER_PAUSE).await;
        }
        Err("the replica that makes the calls of this account gives no permit".to_owned())
    }

    /// The `auth` header of this form, with a token of its own.
    fn auth(&self, form: TokenForm) -> Result<HeaderValue, String> {
        let mut account = self.account.clone();
        (account.token.scheme, account.token.jti) = (form.scheme, form.jti);
        if form.jti == JtiMode::PerRequest {
            account.token.lifetime = account.token.lifetime.min(MAX_LIFETIME_WITH_JTI);
        }
        let minted = mint(&account, self.environment.clock.now()).map_err(|error| error.to_string())?;
        let token = minted.token.expose_secret();
        let text = match form.scheme {
            TokenScheme::Bare => token.to_owned(),
            TokenScheme::Bearer => format!("Bearer {token}"),
        };
        let mut header = HeaderValue::try_from(text).map_err(|error| error.to_string())?;
        header.set_sensitive(true);
        Ok(header)
    }
}

/// Opens the ledger, of which a gateway may be using the file.
fn open_ledger(config: &Config, environment: &Environment) -> anyhow::Result<QuotaManager> {
    stack::open_quotas(&with_modest_quota(config.clone()), environment).map_err(|error| {
        match error.downcast_ref::<StateFileError>() {
            Some(StateFileError::InUse(_)) => error.context(
                "a gateway is running whose ledger the doctor cannot share; stop it first, or let them share the quota \
                 in Redis",
            ),
            _ => error,
        }
    })
}

/// The configuration with one call of each limit left to others, and more patience. Where replicas share the quota in
/// Redis, the state file of a gateway beside the doctor is left alone.
fn with_modest_quota(mut config: Config) -> Config {
    for limit in config.accounts.iter_mut().flat_map(|account| &mut account.limits) {
        limit.requests = limit.requests.saturating_sub(1).max(1);
    }
    config.quota.queue_timeout = config.quota.queue_timeout.max(MIN_QUEUE_TIMEOUT);
    if config.cache.redis.is_some() {
        config.quota.state_file = None;
    }
    config
}

/// Ends the permit of a call.
fn settle(permit: CallPermit, page: &Result<Page, UpstreamError>, answer: Option<&RawAnswer>) {
    match page {
        Ok(page) => permit.answered(page.allowance.as_ref()),
        Err(UpstreamError::Connect) => permit.refund(),
        Err(UpstreamError::RateLimited { limit, retry_after, allowance, .. }) => {
            let retry_after = retry_after.or_else(|| answer?.retry_after_in_body());
            permit.refused(*limit, retry_after, allowance.as_ref());
        }
        // The upstream may have counted the call, so it counts.
        Err(_) => drop(permit),
    }
}

fn outcome(page: Result<Page, UpstreamError>, answer: Option<&RawAnswer>) -> ProbeOutcome {
    match page {
        Ok(page) => {
            ProbeOutcome::Page(SamplePage { items: page.items.iter().map(sample).collect(), has_more: page.has_more })
        }
        Err(error @ UpstreamError::Unauthorized { .. }) => ProbeOutcome::Unauthorized(error.to_string()),
        Err(error @ UpstreamError::Status { status, .. }) if matches!(status.as_u16(), 400 | 412 | 413 | 422) => {
            ProbeOutcome::Invalid(error.to_string())
        }
        Err(error @ UpstreamError::RateLimited { retry_after, .. }) => {
            let in_body = answer.and_then(RawAnswer::retry_after_in_body);
            let seconds = |wait: Duration| format!("{} s", wait.as_secs_f64());
            ProbeOutcome::RateLimited(match (retry_after, in_body) {
                (_, Some(wait)) => format!("{error}; retryAfterMs says {}", seconds(wait)),
                (Some(wait), None) => format!("{error}; its headers say {}", seconds(wait)),
                (None, None) => format!("{error}, and not for how long"),
            })
        }
        Err(error) => ProbeOutcome::Failed(error.to_string()),
    }
}

/// Reduces an item to its identity and its times.
fn sample(item: &Bytes) -> SampleItem {
    let (_, id) = Item::read(item, "");
    let members: HashMap<String, &RawValue> = serde_json::from_slice(item).unwrap_or_default();
    // A timestamp is a string that begins with a year.
    let may_be_time = |value: &RawValue| value.get().strip_prefix('"').is_some_and(|text| text.starts_with(['1', '2']));
    let names = members.iter().filter(|(_, value)| may_be_time(value)).map(|(name, _)| name);
    let times: BTreeMap<Arc<str>, Timestamp> =
        names.filter_map(|name| Some((Arc::from(name.as_str()), Item::read(item, name).0?))).collect();
    SampleItem { id: xxh3_64(&id), digest: xxh3_64(item), times }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sample_has_the_times_of_its_own_members() {
        let item = br#"{"segmentID":"ac-1","segmentStartTime":"2026-02-25T09:33:10.120Z","segmentEndTime":null,"n":12,
            "agent":{"since":"2026-02-25T09:33:10Z"},"note":"2 items","text":"x"}"#;
        let sampled = sample(&Bytes::from_static(item));
        let names: Vec<&str> = sampled.times.keys().map(|name| &**name).collect();
        assert_eq!(names, ["segmentStartTime"]);
        assert_eq!(sampled.times["segmentStartTime"], Timestamp::from_millis(1_772_011_990_120));
        let touched = sample(&Bytes::from(String::from_utf8_lossy(item).replace("\"x\"", "\"y\"")));
        assert_eq!((touched.id == sampled.id, touched.digest == sampled.digest), (true, false));
    }
}
