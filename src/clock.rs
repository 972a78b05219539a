//! The wall clock, so that a test can set it.

use std::sync::Arc;
use std::sync::atomic::{AtomicI64, Ordering};

use jiff::Timestamp;

use crate::window::Moment;

/// Tells the time of day: the machine's, or one that is moved by hand.
///
/// Only the time of day goes through here (what is settled, how old a copy is, when a token ends).
/// Waiting and the rolling limits use tokio's monotonic clock, which no clock step can bend.
#[derive(Clone, Debug, Default)]
pub struct Clock(Option<Arc<AtomicI64>>);

impl Clock {
    /// The machine's clock.
    pub const fn system() -> Self {
        Self(None)
    }

    /// A clock that stands at `now` until [`Clock::set`] moves it. Its clones move with it.
    pub fn manual(now: Moment) -> Self {
        Self(Some(Arc::new(AtomicI64::new(now.as_nanos()))))
    }

    /// The time of day.
    pub fn now(&self) -> Moment {
        match &self.0 {
            None => Timestamp::now().into(),
            Some(nanos) => Moment::from_nanos(nanos.load(Ordering::SeqCst)),
        }
    }

    /// Moves a manual clock; the machine's clock cannot be moved, and nothing happens.
    pub fn set(&self, now: Moment) {
        if let Some(nanos) = &self.0 {
            nanos.store(now.as_nanos(), Ordering::SeqCst);
        }
    }
}
