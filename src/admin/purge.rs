//! `POST /api/v1/purge`: removes data from the cache of all replicas.

mod report;
mod request;

use std::error::Error as StdError;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use http::request::Parts;
use http::{Request, Response, StatusCode, header};
use http_body::Body;
use http_body_util::{BodyExt as _, Full, LengthLimitError, Limited};

use self::report::{PurgeReport, RemoteEffect};
use self::request::{PurgeRequest, bad};
use super::access::AdminRequester;
use super::response::json;
use super::state::Admin;
use crate::cache::{Purge, PurgeResult};
use crate::problem::Problem;
use crate::telemetry;

/// Path of the call.
pub(super) const PATH: &str = "/api/v1/purge";
/// Largest body, in bytes.
const BODY_LIMIT: usize = 16 << 10;
/// Time limit for reading the body.
const BODY_TIMEOUT: Duration = Duration::from_secs(10);

/// Reason why nothing was purged.
#[derive(Debug, PartialEq, Eq, thiserror::Error)]
enum Refused {
    #[error("{parameter}: {reason}")]
    BadParameter { parameter: String, reason: &'static str },
    #[error("the body is no JSON object with texts as members: {0}")]
    BadBody(String),
    #[error("the body broke off, or did not come within {} s", BODY_TIMEOUT.as_secs())]
    BodyBrokeOff,
    #[error("the body is larger than {BODY_LIMIT} bytes")]
    BodyTooLarge,
    #[error("this account is not configured")]
    UnknownAccount,
    #[error("a purge is not asked for by a web page: the request carries an Origin")]
    FromABrowser,
    #[error("an internal error; it may have been purged in part")]
    Internal,
}

impl Refused {
    /// The status, and the last part of the problem's type.
    const fn kind(&self) -> (StatusCode, &'static str) {
        match self {
            Self::BadParameter { .. } | Self::BadBody(_) | Self::BodyBrokeOff => {
                (StatusCode::BAD_REQUEST, "bad-request")
            }
            Self::BodyTooLarge => (StatusCode::PAYLOAD_TOO_LARGE, "body-too-large"),
            Self::UnknownAccount => (StatusCode::NOT_FOUND, "not-found"),
            Self::FromABrowser => (StatusCode::FORBIDDEN, "forbidden"),
            Self::Internal => (StatusCode::INTERNAL_SERVER_ERROR, "internal"),
        }
    }
}

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
            Err(refused) => {
                let (status, name) = refused.kind();
                Problem::new(status, name, &refused.to_string()).response()
            }
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
        // Browsers send no purge: the status page has no form, and a web page of another site must not spend quota.
        if head.headers.contains_key(header::ORIGIN) {
            return Err(Refused::FromABrowser);
        }
        let request = PurgeRequest::read(head.uri.query().unwrap_or_default(), &read_body(body).await?)?;
        let interval = request.interval(self.0.upper_bound)?;
        let account = self.account(request.account.as_deref())?;
        let stream = request.stream.as_deref().map(Arc::from);
        let (purges, purge) =
            (self.0.handles.cache.purges.clone(), Purge { account: account.clone(), stream, interval, ids: None });
        // A task of its own, so that the purge completes if the client disconnects.
        let purged = tokio::spawn(async move { purges.purge(purge).await }).await.map_err(|_| Refused::Internal)?;
        Ok(report(&account, request, requester, &purged))
    }

    fn account(&self, name: Option<&str>) -> Result<Arc<str>, Refused> {
        let mut accounts = self.0.handles.quotas.iter().map(|(account, _)| account);
        let found = match name {
            Some(name) => accounts.find(|account| ***account == *name).ok_or(Refused::UnknownAccount)?,
            None => match (accounts.next(), accounts.next()) {
                (Some(only), None) => only,
                _ => return Err(bad("account", "it is required, since more than one is configured")),
            },
        };
        Ok(found.clone())
    }
}

async fn read_body<B>(body: B) -> Result<Bytes, Refused>
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

/// Answers, logs and counts a purge.
fn report(
    account: &str,
    request: PurgeRequest,
    requester: AdminRequester,
    purged: &PurgeResult,
) -> Response<Full<Bytes>> {
    let RemoteEffect { is_here_only, redis_chunks, replicas, left } = RemoteEffect::of(purged);
    let PurgeRequest { stream, from, to, .. } = request;
    let (epoch, memory_chunks, complete) = (purged.epoch, purged.memory_chunks, left.is_empty());
    telemetry::purge(&telemetry::PurgeRecord {
        account,
        stream: stream.as_deref(),
        from: from.as_deref(),
        to: to.as_deref(),
        requester: &requester,
        epoch,
        result: match (is_here_only, complete) {
            (true, _) => "here_only",
            (false, false) => "incomplete",
            (false, true) => "complete",
        },
        memory_chunks,
        redis_chunks,
        confirmed: replicas.map_or(0, |replicas| replicas.confirmed),
        left: (!complete).then(|| left.join("; ")).as_deref(),
    });
    let account = account.to_owned();
    let report =
        PurgeReport { account, stream, from, to, epoch, memory_chunks, redis_chunks, replicas, complete, left };
    if !is_here_only {
        return json(StatusCode::OK, &report);
    }
    let detail = format!("it has left the memory of this replica, and no more: {}", report.left.join("; "));
    Problem::new(StatusCode::SERVICE_UNAVAILABLE, "purged-here-only", &detail).with_extension(report).response()
}
