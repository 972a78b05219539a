//! `POST /api/v1/purge`: removes data from the cache of all replicas.

mod request;

use std::error::Error as StdError;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use http::request::Parts;
use http::{Request, Response, StatusCode, header};
use http_body::Body;
use http_body_util::{BodyExt as _, Full, LengthLimitError, Limited};
use serde::Serialize;

use self::request::{PurgeRequest, bad};
use super::access::AdminRequester;
use super::{Admin, json};
use crate::cache::{DeletionStatus, Purge, PurgeResult};
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

/// The answer to a purge that was done, at least on this replica.
#[derive(Serialize)]
pub(super) struct PurgeReport {
    account: String,
    stream: Option<String>,
    from: Option<String>,
    to: Option<String>,
    epoch: u64,
    /// Chunks removed from the memory of this replica.
    memory_chunks: usize,
    /// Chunks deleted from Redis; null without Redis.
    redis_chunks: Option<u64>,
    /// Replicas that have confirmed; null without Redis.
    replicas: Option<Replicas>,
    complete: bool,
    /// Explanation of what is not done.
    left: Vec<String>,
}

#[derive(Serialize)]
struct Replicas {
    confirmed: usize,
    /// Number of other replicas; null if unknown.
    expected: Option<usize>,
}

impl Admin {
    /// Performs the purge that `requester` asks for, and returns its result.
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
        let asked = PurgeRequest::read(head.uri.query().unwrap_or_default(), &read_body(body).await?)?;
        let interval = asked.interval(self.0.upper_bound)?;
        let account = self.account(asked.account.as_deref())?;
        let stream = asked.stream.as_deref().map(Arc::from);
        let (purges, purge) = (self.0.purges.clone(), Purge { account: account.clone(), stream, interval });
        // A task of its own, so that the purge completes if the client disconnects.
        let purged = tokio::spawn(async move { purges.purge(purge).await }).await.map_err(|_| Refused::Internal)?;
        Ok(tell(&account, asked, requester, &purged))
    }

    fn account(&self, name: Option<&str>) -> Result<Arc<str>, Refused> {
        let mut accounts = self.0.quotas.iter().map(|(account, _)| account);
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
fn tell(account: &str, asked: PurgeRequest, requester: AdminRequester, purged: &PurgeResult) -> Response<Full<Bytes>> {
    let (mut left, mut redis_chunks, mut replicas, mut unreachable) = (Vec::new(), None, None, false);
    match &purged.delivery {
        None => {}
        Some(Err(why)) => {
            unreachable = true;
            left.push(format!(
                "Redis does not take it ({why}): other replicas do not know of it and go on serving what they have, and \
                 what is in Redis stays there. This replica tries again for as long as it runs; ask again to know how far \
                 it is"
            ));
        }
        Some(Ok(told)) => {
            replicas = Some(Replicas { confirmed: told.confirmed, expected: told.expected });
            match told.expected {
                Some(expected) if told.confirmed >= expected => {}
                Some(expected) => left.push(format!(
                    "{} of {expected} other replicas have not confirmed that it has left their memory. Each looks for \
                     purges once a second, and before it reads anything from Redis; one that does not reach Redis serves \
                     what it has until then",
                    expected - told.confirmed
                )),
                None => left.push(
                    "other replicas could not be told. Each looks for purges once a second, and before it reads anything \
                     from Redis"
                        .to_owned(),
                ),
            }
            redis_chunks = Some(match &told.deletion {
                DeletionStatus::Complete(count) => *count,
                DeletionStatus::InProgress(count) => {
                    left.push("there is much to delete from Redis; it goes on. Nobody reads it there".to_owned());
                    *count
                }
                DeletionStatus::Failed(count, why) => {
                    left.push(format!(
                        "not everything could be deleted from Redis ({why}); this replica tries again for as long as it \
                         runs. Nobody reads it there"
                    ));
                    *count
                }
            });
        }
    }
    telemetry::purge(&telemetry::PurgeRecord {
        account,
        stream: asked.stream.as_deref(),
        from: asked.from.as_deref(),
        to: asked.to.as_deref(),
        requester: &requester,
        epoch: purged.epoch,
        result: match (unreachable, left.is_empty()) {
            (true, _) => "here_only",
            (false, false) => "incomplete",
            (false, true) => "complete",
        },
        memory_chunks: purged.memory_chunks,
        redis_chunks,
        confirmed: replicas.as_ref().map_or(0, |replicas| replicas.confirmed),
        left: (!left.is_empty()).then(|| left.join("; ")).as_deref(),
    });
    let PurgeRequest { stream, from, to, .. } = asked;
    let (epoch, memory_chunks, complete) = (purged.epoch, purged.memory_chunks, left.is_empty());
    let account = account.to_string();
    let done = PurgeReport { account, stream, from, to, epoch, memory_chunks, redis_chunks, replicas, complete, left };
    if !unreachable {
        return json(StatusCode::OK, &done);
    }
    let detail = format!("it has left the memory of this replica, and no more: {}", done.left.join("; "));
    Problem::new(StatusCode::SERVICE_UNAVAILABLE, "purged-here-only", &detail).with_extension(done).response()
}
