//! Tests of the cache stage over runs that are played by hand.
//!
//! | file | tests |
//! | --- | --- |
//! | `harness` | the cache, and the runs whose results a test decides |
//! | `shared_runs` | fetches that requests share |
//! | `run_results` | runs that are shortened, cut, torn, oversized or failed |
//! | `queue_timeout` | how long requests wait for the quota |
//! | `freshness_demand` | what requests demand of the age of cached data |
//! | `streamed` | long windows that are streamed |
//! | `interleavings` | requests, purges and ends of fetches in many schedules (see [`crate::sync`]) |
//! | `purged` | purges while fetches are in flight |
//! | `moved_items` | items that are in two chunks |
//! | `window_field` | items that do not lie where they were requested |
//! | `wrong_clock` | wrong clocks of this machine |

mod erased;
mod freshness_demand;
mod harness;
#[cfg(feature = "interleavings")]
mod interleavings;
mod moved_items;
mod purged;
mod queue_timeout;
mod run_results;
mod shared_runs;
mod streamed;
mod window_field;
mod wrong_clock;

use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use tokio::time::{Instant, timeout};
use tower::{Layer as _, ServiceExt as _, service_fn};

use super::*;
use crate::paging::{FetchedRun, ItemPacker as _, PagingError, RowOrder, RunLimiters, RunPart, RunPhase};
use crate::quota::{Exhausted, QuotaError};
use crate::request::{Filter, Priority, Requester, Series};
use crate::window::{Interval, Timestamp, UpperBound};

use self::harness::*;
