//! The response cache: answers to repeated requests, such as those of a dashboard that shows the same page all day.
//!
//! Only answers that do not change with time are stored (see [`ValidityToken`]). Two requests share one if they agree
//! in everything that an answer depends on. A cached answer equals that of the stages below except for its age, and is
//! counted in the same way.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use bytes::Bytes;
use http::{HeaderMap, HeaderName, HeaderValue, Method, Request, Response, StatusCode, header};
use http_body_util::{Either, Full};
use xxhash_rust::xxh3::xxh3_64_with_seed;

use super::answer::{Answer, ApiBody};
use super::head::age;
use super::negotiation::may_be_chunked;
use super::prefer::PREFER;
use super::report::Report;
use super::request::{ACCOUNT_ID, Caller};
use crate::cache::{AccessCounter, AnswerStore, ValidityToken};
use crate::mapped_bytes;
use crate::window::Timestamp;

/// Request fields that an answer depends on besides target and caller: those in `Vary` but the key, which is the
/// caller's, and those already evaluated.
/// `Priority` matters only for answers that must be fetched.
static KEY_FIELDS: [HeaderName; 5] =
    [header::ACCEPT, header::ACCEPT_ENCODING, ACCOUNT_ID, PREFER, header::IF_NONE_MATCH];
/// The answer's varying field. The stored head has a place for it, so that it need not grow.
const VARYING_FIELDS: [HeaderName; 2] = [header::AGE, HeaderName::from_static("x-request-id")];
/// Number of recent requests that are tracked before it is known whether they repeat.
const TRACKED_REQUESTS: usize = 2048;
/// Size above which answers are not stored, in bytes.
const MAX_STORED_BYTES: u64 = 1 << 20;
/// Initial capacity of a key, in bytes.
const KEY_CAPACITY: usize = 512;
/// Memory of a stored head, in bytes.
const HEAD_BYTES: usize = 2048;

/// The response cache. Cheap to clone; all clones share the answers.
#[derive(Clone, Debug)]
pub struct ResponseCache {
    ready: AnswerStore<Arc<Ready>>,
    recent: Arc<[Slot]>,
    /// Randomly keyed hasher: a client cannot choose requests that collide.
    seed: u64,
}

/// A recent request. Of two requests with the same slot, the later one is tracked.
#[derive(Debug, Default)]
struct Slot {
    number: AtomicU64,
    reads: AccessCounter,
}

/// A stored answer, ready to be sent.
#[derive(Debug)]
struct Ready {
    key: Vec<u8>,
    valid: StoredFor,
    status: StatusCode,
    headers: HeaderMap,
    body: Bytes,
    /// When the oldest part was fetched.
    oldest_entry: Timestamp,
    report: Arc<Report>,
}

/// How long an answer may be repeated.
#[derive(Debug)]
pub(super) struct StoredFor {
    /// Valid until something that the answer is made of changes.
    pub(super) validity: ValidityToken,
    /// When the beginning of the window becomes too old to be served.
    pub(super) until: Timestamp,
}

/// The key of an answer: everything in a request that it depends on.
pub(super) struct ResponseKey {
    /// Hash of the bytes.
    number: u64,
    bytes: Vec<u8>,
}

impl ResponseCache {
    /// An empty cache beside a chunk cache of `memory` bytes.
    pub fn new(memory: u64) -> Self {
        let recent = std::iter::repeat_with(Slot::default).take(TRACKED_REQUESTS).collect();
        Self { ready: AnswerStore::new(memory), recent, seed: fastrand::u64(..) }
    }

    /// Bytes in use.
    pub fn bytes(&self) -> u64 {
        self.ready.bytes()
    }

    /// The key of a request without a body; `None` if its answer is never stored, as that of a request with
    /// `Cache-Control`, which may refuse a stored one. GET and HEAD share their answers.
    /// The answer is of the settings of this `generation`.
    pub(super) fn key<B>(&self, request: &Request<B>, caller: Option<&Caller>, generation: u64) -> Option<ResponseKey> {
        if !matches!(*request.method(), Method::GET | Method::HEAD) {
            return None;
        }
        let mut key = Vec::with_capacity(KEY_CAPACITY);
        // Lengths separate adjacent parts.
        let mut add = |part: &[u8]| {
            key.extend_from_slice(&part.len().to_ne_bytes());
            key.extend_from_slice(part);
        };
        add(caller.map_or(b"", |caller| caller.name.as_bytes()));
        // What the caller may see, and what is served at all.
        add(&caller.map_or(0, |caller| caller.generation).to_ne_bytes());
        add(&generation.to_ne_bytes());
        add(request.uri().path_and_query()?.as_str().as_bytes());
        // HTTP/1.0 always gets the answer without a content coding.
        let may_be_coded = may_be_chunked(request.version());
        // One pass over the request's fields is cheaper than a lookup of each possible field. A different order of
        // fields gives a different key.
        for (field, value) in request.headers() {
            if *field == header::CACHE_CONTROL {
                return None;
            }
            if let Some(position) = KEY_FIELDS.iter().position(|known| known == field)
                && (may_be_coded || KEY_FIELDS[position] != header::ACCEPT_ENCODING)
            {
                add(&position.to_ne_bytes());
                add(value.as_bytes());
            }
        }
        Some(ResponseKey { number: xxh3_64_with_seed(&key, self.seed), bytes: key })
    }

    /// The answer at `now`, if it is stored and still valid.
    pub(super) fn find(&self, key: &ResponseKey, now: impl FnOnce() -> Timestamp) -> Option<Answer> {
        let ready = self.ready.get(key.number).filter(|ready| ready.key == key.bytes)?;
        let now = now();
        if !ready.valid.validity.is_valid() || now >= ready.valid.until {
            self.ready.remove(key.number);
            return None;
        }
        let mut response = Response::new(Either::Right(Full::new(ready.body.clone())));
        *response.status_mut() = ready.status;
        *response.headers_mut() = ready.headers.clone();
        // Replacing the value costs half as much as an insertion.
        if let Some(place) = response.headers_mut().get_mut(header::AGE) {
            *place = age(ready.oldest_entry, now);
        }
        Some(Answer { response, report: ready.report.clone() })
    }

    /// Whether an answer of `length` bytes without a content coding is repeated often enough to be stored. Must be
    /// called once for each time the answer is given.
    pub(super) fn is_worth_keeping(&self, key: &ResponseKey, bytes: u64) -> bool {
        let slot = &self.recent[usize::try_from(key.number).unwrap_or_default() % self.recent.len()];
        if slot.number.swap(key.number, Ordering::Relaxed) != key.number {
            slot.reads.reset();
        }
        slot.reads.record() && bytes <= MAX_STORED_BYTES && !self.ready.is_too_large(bytes)
    }

    /// Stores an answer and returns it.
    pub(super) fn store(
        &self,
        key: ResponseKey,
        valid: StoredFor,
        oldest_entry: Timestamp,
        report: &Arc<Report>,
        response: Response<ApiBody>,
    ) -> Response<ApiBody> {
        let (head, body) = response.into_parts();
        let body = match body {
            Either::Left(body) => match body.whole() {
                Ok(body) => mapped_bytes::map(body),
                Err(broken) => return Response::from_parts(head, Either::Left(broken)),
            },
            Either::Right(_) => Bytes::new(),
        };
        let mut headers = head.headers.clone();
        headers.extend(VARYING_FIELDS.map(|field| (field, HeaderValue::from_static(""))));
        let ResponseKey { number, bytes: key } = key;
        let bytes = key.len() + body.len() + HEAD_BYTES;
        let ready = Ready {
            key,
            valid,
            status: head.status,
            headers,
            body: body.clone(),
            oldest_entry,
            // Only the first answer reports the calls.
            report: Arc::new(Report { calls: 0, ..Report::clone(report) }),
        };
        self.ready.insert(number, bytes, Arc::new(ready));
        Response::from_parts(head, Either::Right(Full::new(body)))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::api::head::VARY;

    #[test]
    fn varying_fields_are_part_of_the_key() {
        // Any key of a caller gets the same answer.
        let by_caller = ["authorization", "x-api-key"];
        let named: Vec<&str> = KEY_FIELDS.iter().map(HeaderName::as_str).chain(by_caller).collect();
        assert!(VARY.split(", ").all(|field| named.contains(&field)), "{named:?}");
    }
}
