//! The pure parts of the quota: how many calls may begin, and when. Time is an argument; nothing here waits or locks.
//!
//! | file | |
//! | --- | --- |
//! | [`ledger`](Ledger) | sliding-window log of calls: when each rolling limit has room for one more |
//! | `ledger/forecast` | how long many calls will take, by simulation |
//! | [`caller_budgets`](CallerBudgets) | the callers' own limits of upstream calls, and who pays for a call |
//! | [`adaptive`](adaptive::AdaptiveLimit) | budget of a limit: what other clients of the same quota leave of it |
//! | [`pacer`](pacer::Pacer) | spreads calls over the window of the shortest limit |
//! | [`backoff`](Backoff) | pauses that the upstream asked for, and probes that end them early |

mod adaptive;
mod backoff;
mod caller_budgets;
mod ledger;
mod pacer;

pub(in crate::quota) use self::backoff::{Backoff, longest};
pub use self::caller_budgets::CallerLimitExceeded;
pub(in crate::quota) use self::caller_budgets::{CallerBudgets, Payer};
pub(in crate::quota) use self::ledger::ReducedLimit;
pub(in crate::quota) use self::ledger::{GUARD, usable};
pub use self::ledger::{Ledger, LimitUsage, MonotonicTime, PacingWindow};
pub(in crate::quota) use self::pacer::Pacers;
