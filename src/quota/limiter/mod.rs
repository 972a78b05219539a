//! TODO face.

mod adaptive;
mod backoff;
mod ledger;
mod pacer;

pub(in crate::quota) use self::backoff::{Backoff, longest};
pub(in crate::quota) use self::ledger::Shrunk;
pub(in crate::quota) use self::ledger::{GUARD, usable};
pub use self::ledger::{Ledger, LimitStanding, MonotonicTime, Outlook};
pub(in crate::quota) use self::pacer::Pacer;
