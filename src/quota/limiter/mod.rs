//! TODO face.

mod adaptive;
mod backoff;
mod ledger;
mod pacer;

pub(in crate::quota) use self::backoff::{Backoff, longest};
pub(in crate::quota) use self::ledger::ReducedLimit;
pub(in crate::quota) use self::ledger::{GUARD, usable};
pub use self::ledger::{Ledger, LimitUsage, MonotonicTime, PacingWindow};
pub(in crate::quota) use self::pacer::Pacer;
