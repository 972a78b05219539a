//! Answers that are given again and again, ready to be sent: a dashboard asks for the same page all day.
//!
//! Only an answer that lasts is kept, see [`ValidityToken`], and one request is another again if they differ in nothing that an
//! answer depends on. It says what the stages below would say, but for its age, and is counted as theirs are.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use bytes::Bytes;
use http::{HeaderMap, HeaderName, HeaderValue, Method, Response, StatusCode, Uri, Version, header};
use http_body_util::{Either, Full};
use xxhash_rust::xxh3::xxh3_64_with_seed;

use super::request::{Caller, may_be_chunked};
use super::{Answer, ApiBody, Report, tell_age};
use crate::cache::{AccessCounter, AnswerStore, ValidityToken};
use crate::mapped_bytes;
use crate::window::Timestamp;

/// What of a request's head an answer depends on, besides the target and the caller: what `Vary` names, and what is known
/// already. How urgent a request is matters only to one that must be fetched for.
static FIELDS: [HeaderName; 5] = [
    header::ACCEPT,
    header::ACCEPT_ENCODING,
    HeaderName::from_static("accountid"),
    HeaderName::from_static("prefer"),
    header::IF_NONE_MATCH,
];
/// What is told anew each time. It has its place in the head that is kept, which need not grow then.
const TOLD_ANEW: [HeaderName; 2] = [header::AGE, HeaderName::from_static("x-request-id")];
/// So many requests are told apart of which it is not known yet whether they come often.
const TOLD_APART: usize = 2048;
/// Answers of more bytes than this are put together each time, piece by piece.
const LONGEST: u64 = 1 << 20;
/// Room for a name of usual length.
const USUAL_NAME: usize = 512;
/// What the head of an answer takes in memory.
const USUAL_HEAD: usize = 2048;

/// The answers that are ready. Cheap to clone; all clones are the same.
#[derive(Clone, Debug)]
pub struct ResponseCache {
    ready: AnswerStore<Arc<Ready>>,
    lately: Arc<[Slot]>,
    /// Nobody outside can tell which requests share a number.
    seed: u64,
}

/// A request that came lately. Of two that share a slot the later one is counted.
#[derive(Debug, Default)]
struct Slot {
    number: AtomicU64,
    reads: AccessCounter,
}

/// An answer as it is sent.
#[derive(Debug)]
struct Ready {
    name: Vec<u8>,
    validity: ValidityToken,
    status: StatusCode,
    headers: HeaderMap,
    body: Bytes,
    /// When the oldest part of it was fetched.
    oldest_entry: Timestamp,
    report: Arc<Report>,
}

/// A request, as far as its answer depends on it.
pub(super) struct ResponseKey {
    number: u64,
    name: Vec<u8>,
}

impl ResponseCache {
    /// None yet, in a cache of so many bytes.
    pub(super) fn new(bytes: u64) -> Self {
        let lately = std::iter::repeat_with(Slot::default).take(TOLD_APART).collect();
        Self { ready: AnswerStore::new(bytes), lately, seed: fastrand::u64(..) }
    }

    /// Bytes that they take.
    pub fn bytes(&self) -> u64 {
        self.ready.bytes()
    }

    /// The name of a request that has no body; `None` if its answer is none that is kept.
    pub(super) fn name(
        &self,
        method: &Method,
        uri: &Uri,
        version: Version,
        headers: &HeaderMap,
        caller: Option<&Caller>,
    ) -> Option<ResponseKey> {
        if *method != Method::GET {
            return None;
        }
        let mut name = Vec::with_capacity(USUAL_NAME);
        // The lengths keep apart what stands side by side.
        let mut add = |part: &[u8]| {
            name.extend_from_slice(&part.len().to_ne_bytes());
            name.extend_from_slice(part);
        };
        add(caller.map_or(b"", |caller| caller.name.as_bytes()));
        add(uri.path_and_query()?.as_str().as_bytes());
        // The answer to HTTP/1.0 is the one without a content coding, whatever is accepted.
        let may_be_coded = may_be_chunked(version);
        // One pass over those that came is cheaper than to look for each that may have. Who sends them in another order
        // asks another request.
        for (field, value) in headers {
            if let Some(position) = FIELDS.iter().position(|known| known == field)
                && (may_be_coded || FIELDS[position] != header::ACCEPT_ENCODING)
            {
                add(&position.to_ne_bytes());
                add(value.as_bytes());
            }
        }
        Some(ResponseKey { number: xxh3_64_with_seed(&name, self.seed), name })
    }

    /// The answer at `now`, if it is ready and still true.
    pub(super) fn recall(&self, asked: &ResponseKey, now: impl FnOnce() -> Timestamp) -> Option<Answer> {
        let ready = self.ready.get(asked.number).filter(|ready| ready.name == asked.name)?;
        if !ready.validity.is_valid() {
            self.ready.remove(asked.number);
            return None;
        }
        let mut response = Response::new(Either::Right(Full::new(ready.body.clone())));
        *response.status_mut() = ready.status;
        *response.headers_mut() = ready.headers.clone();
        tell_age(response.headers_mut(), ready.oldest_entry, now());
        Some(Answer { response, report: ready.report.clone() })
    }

    /// Whether an answer of so many bytes, before any content coding, is worth keeping. To be asked once each time that it
    /// is given.
    pub(super) fn is_worth_keeping(&self, asked: &ResponseKey, bytes: u64) -> bool {
        let slot = &self.lately[usize::try_from(asked.number).unwrap_or_default() % self.lately.len()];
        if slot.number.swap(asked.number, Ordering::Relaxed) != asked.number {
            slot.reads.reset();
        }
        slot.reads.record() && bytes <= LONGEST && !self.ready.is_too_large(bytes)
    }

    /// Keeps an answer, and gives it.
    pub(super) fn keep(
        &self,
        asked: ResponseKey,
        validity: ValidityToken,
        oldest_entry: Timestamp,
        report: &Arc<Report>,
        response: Response<ApiBody>,
    ) -> Response<ApiBody> {
        let (head, body) = response.into_parts();
        let body = match body {
            Either::Left(body) => match body.whole() {
                Ok(body) => mapped_bytes::fix(body),
                Err(broken) => return Response::from_parts(head, Either::Left(broken)),
            },
            Either::Right(_) => Bytes::new(),
        };
        let mut headers = head.headers.clone();
        headers.extend(TOLD_ANEW.map(|field| (field, HeaderValue::from_static(""))));
        let ResponseKey { number, name } = asked;
        let bytes = name.len() + body.len() + USUAL_HEAD;
        let ready = Ready {
            name,
            validity,
            status: head.status,
            headers,
            body: body.clone(),
            oldest_entry,
            // The calls are told of in the first answer only.
            report: Arc::new(Report { calls: 0, ..Report::clone(report) }),
        };
        self.ready.insert(number, bytes, Arc::new(ready));
        Response::from_parts(head, Either::Right(Full::new(body)))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::api::VARY;

    #[test]
    fn what_an_answer_varies_by_is_part_of_its_name() {
        let named: Vec<&str> = FIELDS.iter().map(HeaderName::as_str).collect();
        assert!(VARY.split(", ").all(|field| named.contains(&field)), "{named:?}");
    }
}
