//! The API stage: parses a request, asks the cache for its window, and writes the answer.
//!
//! | file | contents |
//! | --- | --- |
//! | `stage.rs` | [`ApiLayer`]: the stage |
//! | `request.rs` | path and parameters of a request |
//! | `request/admitted.rs` | [`AdmittedRequest`]: a request with what the edge knows of it |
//! | `request/cache_control.rs` | the request header field `Cache-Control` |
//! | `request_body.rs` | the body of a request, and the memory for all such bodies |
//! | `prefer.rs` | the header field `Prefer` |
//! | `negotiation.rs` | format and content coding of an answer |
//! | `response_cache.rs` | the response cache: answers to repeated requests |
//! | `answer.rs` | [`Answer`]: a response and its report |
//! | `answer/job.rs` | the state of a job |
//! | `head.rs`, `head/` | header fields of an answer |
//! | `body.rs` | the body of a window |
//! | `streaming_body.rs` | the body of a window that is still fetched |
//! | `gzip.rs` | gzip members from deflated text |
//! | `dry_run.rs` | the cost of a window |
//! | `report.rs` | the report of an answer, made when its body has ended |
//! | `usage.rs` | usage of each caller |
//! | `fuzz/` | fuzz targets |
//! | `error.rs` | errors of the stage, and of a body that is aborted |

mod answer;
mod body;
mod dry_run;
mod error;
#[cfg(any(test, feature = "fuzzing"))]
pub(crate) mod fuzz;
mod gzip;
mod head;
mod negotiation;
mod prefer;
mod report;
mod request;
mod request_body;
mod response_cache;
mod stage;
mod streaming_body;
mod usage;

pub use self::answer::{Answer, ApiBody};
pub use self::error::{ApiError, FailedWindow};
pub use self::report::{FinalCounts, Progress, Report};
pub use self::request::{ACCOUNT_ID, AdmittedRequest, Caller, RequestContext};
pub use self::request_body::{RequestMemory, RequestMemoryPermit};
pub use self::response_cache::ResponseCache;
pub use self::stage::{ApiLayer, ApiStage};
pub use self::usage::{AccountUsage, CallerLimit, CallerUsage, Calls, QuotaUsage, Usage};
