//! A fetch under way. It belongs to nobody: whoever waits may leave, and the others still get what they wait for.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use tokio::sync::watch;
use tokio::time::Instant;

use super::CacheError;
use super::chunk::Chunk;
use crate::quota::Exhausted;
use crate::repage::Placed;
use crate::upstream::Spent;
use crate::window::{Moment, Span};

/// How far a flight has come.
#[derive(Clone, Debug)]
pub(super) enum Progress {
    /// It goes on.
    Flying,
    /// The quota holds it up until then; those who wait are told to come again.
    Held(Instant),
    /// It ended, with all its chunks or none.
    Landed(Result<Arc<[Arc<Chunk>]>, CacheError>),
}

/// A run on its way.
#[derive(Debug)]
pub(super) struct Flight {
    pub(super) span: Span,
    pub(super) rich: bool,
    pub(super) placed: Placed,
    pub(super) began_at: Moment,
    pub(super) spent: Spent,
    progress: watch::Receiver<Progress>,
    /// Whether somebody's answer has told of its calls: they are told of once.
    charged: AtomicBool,
}

impl Flight {
    /// A flight that begins now, and the end that tells of its progress.
    pub(super) fn begin(span: Span, rich: bool, placed: Placed, now: Moment) -> (Arc<Self>, watch::Sender<Progress>) {
        let (tell, progress) = watch::channel(Progress::Flying);
        let (spent, charged) = Default::default();
        (Arc::new(Self { span, rich, placed, began_at: now, spent, progress, charged }), tell)
    }

    /// Whether one who wants `span` with or without richness can wait for it.
    pub(super) fn serves(&self, span: Span, rich: bool) -> bool {
        self.placed == Placed::Checked && (self.rich || !rich) && self.span.overlaps(span)
    }

    /// Its chunks, when it has landed.
    pub(super) async fn landed(&self) -> Result<Arc<[Arc<Chunk>]>, CacheError> {
        let mut progress = self.progress.clone();
        let over = progress.wait_for(|progress| !matches!(progress, Progress::Flying)).await;
        match over.as_deref() {
            Ok(Progress::Landed(result)) => result.clone(),
            Ok(Progress::Held(until)) => {
                Err(CacheError::Held(Exhausted { retry_after: until.saturating_duration_since(Instant::now()) }))
            }
            // The task that told of it is gone without a word.
            Ok(Progress::Flying) | Err(_) => Err(CacheError::Lost),
        }
    }

    /// Whether its calls have been told of.
    pub(super) fn is_charged(&self) -> bool {
        self.charged.load(Ordering::Relaxed)
    }

    /// The calls it spent, for the first who asks; nothing for all others.
    pub(super) fn charge(&self) -> Option<u32> {
        (!self.charged.swap(true, Ordering::Relaxed)).then(|| self.spent.calls())
    }
}
