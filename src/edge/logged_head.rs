//! Facts of a request for the access log, whatever becomes of it: taken from its head, which is kept until then.

use std::borrow::Cow;
use std::net::SocketAddr;

use http::{HeaderValue, Method, Request, Uri};
use percent_encoding::percent_decode_str;

use crate::request::WaitMeter;
use crate::telemetry;

/// The path before the stream.
const BEFORE_STREAM: &str = "/agentassist/api/v1/public/";
/// Maximum bytes of each text of the client in a line of the log.
const MAX_TEXT_LENGTH: usize = 128;

/// The parts of a request's head that are logged. Cloning one copies no text.
#[derive(Debug)]
pub(super) struct LoggedHead {
    method: Method,
    uri: Uri,
    account: Option<HeaderValue>,
    peer: Option<SocketAddr>,
    /// Counts how long the request waits for the quota.
    pub(super) waited: WaitMeter,
}

impl LoggedHead {
    pub(super) fn of<B>(request: &Request<B>, peer: Option<SocketAddr>) -> Self {
        Self {
            method: request.method().clone(),
            uri: request.uri().clone(),
            account: request.headers().get("accountid").cloned(),
            peer,
            waited: WaitMeter::default(),
        }
    }

    /// Calls `log` with the facts. Texts are cut at [`MAX_TEXT_LENGTH`].
    pub(super) fn with<R>(&self, log: impl FnOnce(telemetry::RequestFacts<'_>) -> R) -> R {
        let stream = self.stream();
        log(telemetry::RequestFacts {
            method: shortened(self.method.as_str()),
            peer: self.peer,
            account: self.account.as_ref().and_then(|account| account.to_str().ok()).map(shortened),
            stream: stream.as_deref().map(shortened),
            query: self.uri.query().unwrap_or_default(),
        })
    }

    fn stream(&self) -> Option<Cow<'_, str>> {
        let (stream, _) = self.uri.path().strip_prefix(BEFORE_STREAM)?.split_once('/')?;
        Some(percent_decode_str(stream).decode_utf8_lossy())
    }
}

/// The beginning of `text`.
fn shortened(text: &str) -> &str {
    &text[..text.floor_char_boundary(MAX_TEXT_LENGTH)]
}

#[cfg(test)]
mod tests {
    use super::*;

    fn facts(uri: &str) -> LoggedHead {
        let request = Request::builder().method("POST").uri(uri).header("accountId", "acc-1").body(()).unwrap();
        LoggedHead::of(&request, Some("192.0.2.7:4711".parse().unwrap()))
    }

    #[test]
    fn facts_are_read_from_the_head_and_cut() {
        let path = "/agentassist/api/v1/public/st%2D1/v2/agentassistinteractions";
        facts(&format!("{path}?limit=-1")).with(|facts| {
            assert_eq!((facts.method, facts.account, facts.stream), ("POST", Some("acc-1"), Some("st-1")));
            assert_eq!((facts.peer.unwrap().port(), facts.query), (4711, "limit=-1"));
        });
        let long = path.replace("st%2D1", &"s".repeat(200));
        facts(&long).with(|facts| assert_eq!(facts.stream, Some(&*"s".repeat(MAX_TEXT_LENGTH))));
    }

    #[test]
    fn request_without_a_window_has_no_stream_and_no_parameters() {
        facts("/koregate/v1/usage").with(|facts| assert_eq!((facts.stream, facts.query), (None, "")));
    }
}
