//! Request bodies, read completely, and the memory budget that requests share.

use std::error::Error as StdError;
use std::pin::pin;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use http_body::Body;
use http_body_util::BodyExt as _;
use tokio::sync::{OwnedSemaphorePermit, Semaphore};

use super::error::ApiError;

/// Largest body, in bytes.
const BODY_LIMIT: usize = 256 << 10;
/// Time limit for reading a body.
const BODY_TIMEOUT: Duration = Duration::from_secs(30);
/// Bytes of each body that are not counted in [`RequestMemory`], so that usual filters are accepted even if it is full.
const UNCOUNTED_BODY: usize = 4 << 10;

/// Memory budget in bytes for large heads and for bodies, shared by all connections. Cheap to clone; all clones share
/// it.
#[derive(Clone, Debug)]
pub struct RequestMemory(Arc<Semaphore>);

/// Reserved bytes of a [`RequestMemory`], released when dropped.
#[derive(Debug)]
pub struct RequestMemoryPermit(OwnedSemaphorePermit);

impl RequestMemory {
    /// A budget of `bytes`.
    pub fn new(bytes: u64) -> Self {
        let permits = usize::try_from(bytes).unwrap_or(usize::MAX).min(Semaphore::MAX_PERMITS);
        Self(Arc::new(Semaphore::new(permits)))
    }

    /// Reserves `bytes`; `None` if they are not available.
    pub fn try_reserve(&self, bytes: usize) -> Option<RequestMemoryPermit> {
        let bytes = u32::try_from(bytes).ok()?;
        self.0.clone().try_acquire_many_owned(bytes).ok().map(RequestMemoryPermit)
    }
}

impl RequestMemoryPermit {
    /// Merges two reservations.
    fn merge(&mut self, other: Self) {
        self.0.merge(other.0);
    }
}

/// A body and its reserved memory, held until the request is answered.
#[derive(Debug, Default)]
pub(super) struct RequestBody {
    pub(super) bytes: Bytes,
    pub(super) permit: Option<RequestMemoryPermit>,
}

/// Reads a body completely.
///
/// # Errors
/// If the body is too large, does not fit the budget, or does not arrive in time.
pub(super) async fn read<B>(body: B, memory: &RequestMemory) -> Result<RequestBody, ApiError>
where
    B: Body<Data = Bytes>,
    B::Error: Into<Box<dyn StdError + Send + Sync>>,
{
    // Most requests have no body, and need no timer.
    if body.is_end_stream() {
        return Ok(RequestBody::default());
    }
    tokio::time::timeout(BODY_TIMEOUT, collect(body, memory)).await.unwrap_or(Err(ApiError::BodyBrokeOff))
}

async fn collect<B: Body<Data = Bytes>>(body: B, memory: &RequestMemory) -> Result<RequestBody, ApiError> {
    let announced = usize::try_from(body.size_hint().lower()).unwrap_or(usize::MAX);
    if announced > BODY_LIMIT {
        return Err(ApiError::BodyTooLarge { limit: BODY_LIMIT });
    }
    // Unwritten memory takes no physical pages.
    let mut whole = Vec::with_capacity(announced);
    let mut permit: Option<RequestMemoryPermit> = None;
    let mut counted = UNCOUNTED_BODY;
    let mut body = pin!(body);
    while let Some(frame) = body.frame().await {
        let Ok(data) = frame.map_err(|_| ApiError::BodyBrokeOff)?.into_data() else { continue };
        let len = whole.len() + data.len();
        if len > BODY_LIMIT {
            return Err(ApiError::BodyTooLarge { limit: BODY_LIMIT });
        }
        if len > counted {
            let more = memory.try_reserve(len - counted).ok_or(ApiError::NoRoomForBody)?;
            match &mut permit {
                Some(permit) => permit.merge(more),
                None => permit = Some(more),
            }
            counted = len;
        }
        whole.extend_from_slice(&data);
    }
    Ok(RequestBody { bytes: whole.into(), permit })
}

#[cfg(test)]
mod tests {
    use http_body_util::Full;

    use super::*;

    async fn read_bytes(len: usize, memory: &RequestMemory) -> Result<RequestBody, ApiError> {
        read(Full::new(Bytes::from(vec![7; len])), memory).await
    }

    #[tokio::test]
    async fn bodies_share_a_budget_except_small_ones() {
        let memory = RequestMemory::new(100_000);
        let large = read_bytes(80_000, &memory).await.unwrap();
        assert_eq!(large.bytes.len(), 80_000);
        assert!(matches!(read_bytes(80_000, &memory).await, Err(ApiError::NoRoomForBody)));
        assert_eq!(read_bytes(UNCOUNTED_BODY, &memory).await.unwrap().bytes.len(), UNCOUNTED_BODY);
        drop(large);
        assert!(read_bytes(80_000, &memory).await.is_ok());
        assert!(matches!(read_bytes(BODY_LIMIT + 1, &memory).await, Err(ApiError::BodyTooLarge { .. })));
    }
}
