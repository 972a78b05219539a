//! `POST /api/v1/cordon` and `/api/v1/uncordon`: stops the upstream calls for an account or a stream, and lets them go on
//! again. What is cached is served meanwhile. Each replica has its own cordons, which end with the process.

use std::error::Error as StdError;
use std::sync::Arc;

use bytes::Bytes;
use http::{Request, Response, StatusCode};
use http_body::Body;
use http_body_util::Full;
use serde::{Deserialize, Serialize};

use super::access::AdminRequester;
use super::purge::read_body;
use super::response::json;
use super::state::Admin;
use super::views::status::CordonStatus;
use crate::problem::{Problem, ProblemType};
use crate::quota::Cordon;
use crate::telemetry;

/// Path of the call that stops calls.
pub(super) const CORDON_PATH: &str = "/api/v1/cordon";
/// Path of the call that lets them go on.
pub(super) const UNCORDON_PATH: &str = "/api/v1/uncordon";

/// The account and the stream of a request, in its query or its body.
#[derive(Debug, Default, PartialEq, Eq, Deserialize)]
#[serde(deny_unknown_fields)]
struct CordonRequest {
    #[serde(alias = "accountId")]
    account: Option<String>,
    #[serde(alias = "streamId")]
    stream: Option<String>,
}

#[derive(Serialize)]
struct CordonsStatus {
    cordons: Vec<CordonStatus>,
}

impl CordonRequest {
    /// Parses query and body. A name must not stand in both, and an unknown one is an error, because a misspelled
    /// `stream` must not stop the whole account.
    fn read(query: &str, body: &[u8]) -> Result<Self, String> {
        let mut request = Self::default();
        if !body.iter().all(u8::is_ascii_whitespace) {
            request = serde_json::from_slice(body).map_err(|error| format!("the body: {error}"))?;
        }
        for (name, value) in form_urlencoded::parse(query.as_bytes()) {
            let slot = match &*name {
                "account" | "accountId" => &mut request.account,
                "stream" | "streamId" => &mut request.stream,
                _ => return Err("a parameter is not known here; account and stream are".to_owned()),
            };
            if slot.replace(value.into_owned()).is_some() {
                return Err(format!("{name}: it stands twice"));
            }
        }
        if [&request.account, &request.stream].into_iter().flatten().any(String::is_empty) {
            return Err("a parameter is empty; leave stream out if all streams are meant".to_owned());
        }
        Ok(request)
    }
}

impl Admin {
    /// Adds a cordon, or removes it. Returns the cordons that there are then.
    pub(super) async fn cordon<B>(&self, request: Request<B>, requester: AdminRequester) -> Response<Full<Bytes>>
    where
        B: Body,
        B::Error: Into<Box<dyn StdError + Send + Sync>>,
    {
        let (head, body) = request.into_parts();
        let body = match read_body(body).await {
            Ok(body) => body,
            Err(refused) => return Problem::new(refused.kind(), &refused.to_string()).response(),
        };
        let request = match CordonRequest::read(head.uri.query().unwrap_or_default(), &body) {
            Ok(request) => request,
            Err(detail) => return Problem::new(ProblemType::BadRequest, &detail).response(),
        };
        let account = match self.account(request.account.as_deref()) {
            Ok(account) => account,
            Err(refused) => return Problem::new(refused.kind(), &refused.to_string()).response(),
        };
        let cordon = Cordon { account, stream: request.stream.map(Arc::from) };
        let is_cordoned = head.uri.path() == CORDON_PATH;
        let cordons = self.0.handles.quotas.cordons();
        if !is_cordoned {
            cordons.remove(&cordon);
        } else if !cordons.add(cordon.clone()) {
            let detail = "too many streams are cordoned; cordon the account";
            return Problem::new(ProblemType::BadRequest, detail).response();
        }
        telemetry::cordon(&cordon.account, cordon.stream.as_deref(), is_cordoned, &requester);
        json(StatusCode::OK, &CordonsStatus { cordons: self.cordons() })
    }

    /// The cordons of this replica.
    pub(super) fn cordons(&self) -> Vec<CordonStatus> {
        let status = |Cordon { account, stream }: Cordon| CordonStatus {
            account: account.to_string(),
            stream: stream.map(|stream| stream.to_string()),
        };
        self.0.handles.quotas.cordons().all().into_iter().map(status).collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn query_and_body_name_account_and_stream() {
        let read = |query: &str, body: &str| CordonRequest::read(query, body.as_bytes());
        let request = |account: Option<&str>, stream: Option<&str>| CordonRequest {
            account: account.map(str::to_owned),
            stream: stream.map(str::to_owned),
        };
        for (query, body, expected) in [
            ("", "", request(None, None)),
            ("account=a", " ", request(Some("a"), None)),
            ("", r#"{"accountId":"a","streamId":"s"}"#, request(Some("a"), Some("s"))),
            ("stream=s", r#"{"account":"a"}"#, request(Some("a"), Some("s"))),
        ] {
            assert_eq!(read(query, body), Ok(expected), "{query} {body}");
        }
        for (query, body) in [
            ("steam=s", ""),
            ("stream=", ""),
            ("stream=s&stream=s", ""),
            ("stream=s", r#"{"stream":"s"}"#),
            ("", r#"{"steam":"s"}"#),
            ("", r#"{"stream":7}"#),
            ("", "[]"),
        ] {
            assert!(read(query, body).is_err(), "{query} {body}");
        }
    }
}
