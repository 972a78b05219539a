//! `POST /api/v1/purge`: removes data from the cache of all replicas, by time or by the ids that it holds.

mod form;
mod ids;
mod refused;
mod repeat;
mod report;
mod request;

use std::error::Error as StdError;
use std::fmt;
use std::sync::Arc;

use bytes::Bytes;
use futures_util::future::join_all;
use http::request::Parts;
use http::{Request, Response, StatusCode};
use http_body::Body;
use http_body_util::{BodyExt as _, Full, LengthLimitError, Limited};
use serde::Serialize;

pub(super) use self::form::FORM_PATH;

use self::refused::{BODY_LIMIT, BODY_TIMEOUT, Refused, bad};
use self::report::{ErasureReport, PurgeEffect, PurgeReport, Scope};
use self::request::PurgeRequest;
use super::access::AdminRequester;
use super::response::json;
use super::state::Admin;
use crate::cache::Purge;
use crate::problem::{Problem, ProblemType};
use crate::request::IdHashes;
use crate::telemetry;
use crate::window::{Interval, UpperBound};

/// Path of the call.
pub(super) const PATH: &str = "/api/v1/purge";
impl Admin {
    /// Performs the purge that `requester` requests, and returns its result.
    pub(super) async fn purge<B>(&self, request: Request<B>, requester: AdminRequester) -> Response<Full<Bytes>>
    where
        B: Body,
        B::Error: Into<Box<dyn StdError + Send + Sync>>,
    {
        let (head, body) = request.into_parts();
        match self.try_purge(&head, body, requester).await {
            Ok(response) => response,
            Err(refused) => Problem::new(refused.kind(), &refused.to_string()).response(),
        }
    }

    async fn try_purge<B>(
        &self,
        head: &Parts,
        body: B,
        requester: AdminRequester,
    ) -> Result<Response<Full<Bytes>>, Refused>
    where
        B: Body,
        B::Error: Into<Box<dyn StdError + Send + Sync>>,
    {
        let request = PurgeRequest::read(head.uri.query().unwrap_or_default(), &read_body(body).await?)?;
        Ok(self.perform(self.order(request, requester)?).await?.response)
    }

    /// Performs a purge, and plans its repetition if it asks for one.
    async fn perform(&self, order: PurgeOrder) -> Result<PerformedPurge, Refused> {
        let pause = order.request.repeat_after()?;
        let repeat =
            pause.map(|pause| Ok((pause, self.0.repeats.reserve().ok_or(Refused::TooManyRepeats)?))).transpose()?;
        // A task of its own, so that the purge completes if the client disconnects.
        let admin = self.clone();
        tokio::spawn(async move {
            let effects = admin.carry_out(&order).await;
            order.log(&order.requester, &effects);
            let repeat_at = pause.map(|pause| (admin.0.clock.now() + pause).to_string());
            let response = order.respond(&effects, repeat_at);
            if let Some((pause, permit)) = repeat {
                admin.repeat(order, pause, permit);
            }
            PerformedPurge { response, effects }
        })
        .await
        .map_err(|_| Refused::Internal)
    }

    fn order(&self, request: PurgeRequest, requester: AdminRequester) -> Result<PurgeOrder, Refused> {
        let ids = request.ids.hashes();
        let accounts: Vec<Arc<str>> = match &request.account {
            // An id is looked for wherever it may be.
            None if ids.is_some() => self.0.handles.quotas.iter().map(|(account, _)| account).collect(),
            name => vec![self.account(name.as_deref())?],
        };
        // A window that encloses those of all accounts and streams.
        let settings = &self.0.handles.series_settings;
        let bounds = accounts.iter().map(|account| settings.widest_upper_bound(account, request.stream.as_deref()));
        let is_inclusive = bounds.into_iter().any(|bound| bound == UpperBound::Inclusive);
        let interval = request.interval(if is_inclusive { UpperBound::Inclusive } else { UpperBound::Exclusive })?;
        Ok(PurgeOrder { accounts, interval, ids, request, requester })
    }

    /// Purges each account of an order.
    async fn carry_out(&self, order: &PurgeOrder) -> Vec<PurgeEffect> {
        let purges = &self.0.handles.cache.purges;
        let is_erasure = order.ids.is_some();
        join_all(order.accounts.iter().map(|account| async move {
            let purge = Purge {
                account: account.clone(),
                stream: order.request.stream.as_deref().map(Arc::from),
                interval: order.interval,
                ids: order.ids.clone(),
            };
            PurgeEffect::of(account, &purges.purge(purge).await, is_erasure)
        }))
        .await
    }

    /// The configured account of this name, or the only one.
    pub(super) fn account(&self, name: Option<&str>) -> Result<Arc<str>, Refused> {
        let mut accounts = self.0.handles.quotas.iter().map(|(account, _)| account);
        let found = match name {
            Some(name) => accounts.find(|account| **account == *name).ok_or(Refused::UnknownAccount)?,
            None => match (accounts.next(), accounts.next()) {
                (Some(only), None) => only,
                _ => return Err(bad("account", "it is required, since more than one is configured")),
            },
        };
        Ok(found)
    }
}

/// The body of a request, within the limits of its size and its time.
pub(super) async fn read_body<B>(body: B) -> Result<Bytes, Refused>
where
    B: Body,
    B::Error: Into<Box<dyn StdError + Send + Sync>>,
{
    if body.size_hint().lower() > BODY_LIMIT as u64 {
        return Err(Refused::BodyTooLarge);
    }
    match tokio::time::timeout(BODY_TIMEOUT, Limited::new(body, BODY_LIMIT).collect()).await {
        Ok(Ok(body)) => Ok(body.to_bytes()),
        Ok(Err(error)) if error.is::<LengthLimitError>() => Err(Refused::BodyTooLarge),
        Ok(Err(_)) | Err(_) => Err(Refused::BodyBrokeOff),
    }
}

/// A purge that was done.
struct PerformedPurge {
    /// The answer of the JSON API.
    response: Response<Full<Bytes>>,
    effects: Vec<PurgeEffect>,
}

/// A purge that is to be done.
struct PurgeOrder {
    accounts: Vec<Arc<str>>,
    interval: Interval,
    /// The ids of an erasure.
    ids: Option<IdHashes>,
    request: PurgeRequest,
    requester: AdminRequester,
}

impl PurgeOrder {
    fn scope(&self) -> Scope<'_> {
        let PurgeRequest { stream, from, to, .. } = &self.request;
        Scope { stream: stream.as_deref(), from: from.as_deref(), to: to.as_deref() }
    }

    /// Logs and counts a purge: who has purged what kind of thing, without an id.
    fn log(&self, requester: &dyn fmt::Display, effects: &[PurgeEffect]) {
        let Scope { stream, from, to } = self.scope();
        let erased = self.ids.is_some().then(|| self.request.ids.counts().to_string());
        for effect in effects {
            let PurgeEffect { account, epoch, memory_chunks, disk_chunks, remote, complete } = effect;
            telemetry::purge(&telemetry::PurgeRecord {
                account,
                stream,
                from,
                to,
                erased: erased.as_deref(),
                requester,
                epoch: *epoch,
                result: effect.label(),
                memory_chunks: *memory_chunks,
                disk_chunks: *disk_chunks,
                redis_chunks: remote.redis_chunks,
                confirmed: remote.replicas.map_or(0, |replicas| replicas.confirmed),
                left: (!complete).then(|| remote.left.join("; ")).as_deref(),
            });
        }
    }

    fn respond(&self, effects: &[PurgeEffect], repeat_at: Option<String>) -> Response<Full<Bytes>> {
        let here_only = effects.iter().find(|effect| effect.remote.is_here_only);
        if let (None, [effect]) = (&self.ids, effects) {
            return respond(here_only, PurgeReport { effect, scope: self.scope(), repeat_at });
        }
        let ids = self.request.ids.counts();
        respond(here_only, ErasureReport::new(effects, self.scope(), ids, repeat_at))
    }
}

/// The response with a report; a problem if an account was purged on this replica only.
fn respond(here_only: Option<&PurgeEffect>, report: impl Serialize) -> Response<Full<Bytes>> {
    let Some(effect) = here_only else { return json(StatusCode::OK, &report) };
    let detail = format!("it has left the memory of this replica, and no more: {}", effect.remote.left.join("; "));
    Problem::new(ProblemType::PurgedHereOnly, &detail).with_extension(report).response()
}
