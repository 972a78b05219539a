//! Assembles the answer to one request from memory, disk, Redis, and fetches.
//!
//! | file | responsibility |
//! | --- | --- |
//! | `fast_path` | answers from memory and a few chunks on disk, without a session |
//! | `query` | what is asked for, immutable; which requests may get a streamed answer |
//! | `session` | the two steps that all other answers are loops over: plan, and wait |
//! | `next_step` | the decision in the first step; pure |
//! | `snapshot` | what the decision sees of a locked series |
//! | `lookup` | what memory has of a window, and which runs would bring the rest |
//! | `gathered` | the chunks that the session has received from fetches and Redis |
//! | `progress` | how far the answer is, what makes it a streamed one, and the limits of rounds without progress |
//! | `wait`, `tier_read` | the second step: waiting for runs and fetches, and reading from disk and Redis |
//! | `segments` | slices segments from chunks, and finds items that moved |
//! | `whole` | answers as a whole, with fetches or out of memory |
//! | `stream` | streamed answers |
//! | `exact` | windows that are fetched exactly, and not divided into chunks |
//! | `assembly` | windows for remote fetches and checks of `window.field` |

mod assembly;
mod exact;
mod fast_path;
mod gathered;
mod lookup;
mod next_step;
mod progress;
mod query;
mod segments;
mod session;
mod snapshot;
mod stream;
mod tier_read;
mod wait;
mod whole;

pub(in crate::cache) use self::assembly::assemble;
pub(in crate::cache) use self::fast_path::FastPath;
pub(in crate::cache) use self::lookup::{Lookup, LookupPolicy};
pub(in crate::cache) use self::whole::{answer, answer_from_memory};
