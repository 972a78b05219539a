//! What the commands `export` and `warm` share: a span of time of one stream, fetched part by part through a gateway, at
//! background priority.
//!
//! | file | |
//! | --- | --- |
//! | `args` | the flags of both commands |
//! | `parts` | the division of a span into parts, one for each UTC day (pure) |
//! | `blocks` | how much of the span is fetched with one request (pure) |
//! | `cost` | the cost of a window, as the gateway states it |
//! | `gateway` | requests for windows and costs, repeated before the stall timeout |
//! | `transport` | a connection to a running gateway, or the stages in this process |
//! | `local` | the stages in this process, and when they may make calls |
//! | `retry_policy` | which failures are waited for, and how long (pure) |
//! | `filler` | has the gateway fetch the parts, block by block |
//! | `progress` | the progress bar, and lines where no terminal is |
//! | `eta` | the expected time to the end (pure) |
//! | `settled` | the check that a span is settled |
//! | `failure` | how a command ends, and its exit code |

mod args;
mod blocks;
mod cost;
mod eta;
mod failure;
mod filler;
mod gateway;
mod local;
mod parts;
mod progress;
mod retry_policy;
mod settled;
mod transport;

pub use self::args::SpanArgs;
pub(super) use self::cost::{Cost, Source};
pub(super) use self::failure::{Failure, finish, until_signal};
pub(super) use self::filler::Filler;
pub(super) use self::gateway::{Gateway, ItemSink};
pub(super) use self::local::USE_URL;
pub(super) use self::parts::Span;
pub(super) use self::progress::Progress;
pub(super) use self::settled::check_settled;
