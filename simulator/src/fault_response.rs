//! The responses of the fault plan.

use std::time::Duration;

use bytes::Bytes;
use http::header::CONTENT_LENGTH;
use http::{Response, StatusCode};

use crate::call_history::CallOutcome;
use crate::data::hash;
use crate::faults::{Fault, FaultPlan};
use crate::handler::{ConnectionReset, ItemPage};
use crate::limits;
use crate::profile::Profile;
use crate::response::{self, ErrorReply, HTML, JSON};
use crate::scripted_body::ScriptedBody;
use crate::state::{InFlightGuard, SimulatorState};

/// The body of [`Fault::Html502`].
const BAD_GATEWAY_PAGE: &str = "<html>\r\n<head><title>502 Bad Gateway</title></head>\r\n<body>\r\n\
    <center><h1>502 Bad Gateway</h1></center>\r\n</body>\r\n</html>\r\n";

/// The body of [`Fault::Html200`].
const SIGN_IN_PAGE: &str = "<!DOCTYPE html>\n<html><head><title>Sign in</title></head>\n\
    <body><p>Your session has ended. Please sign in again.</p></body></html>\n";

/// The body size of [`Fault::Garbage`].
const GARBAGE_BYTES: usize = 512;

/// Applies the fault of `plan` to a call whose correct response is `page`, and records the outcome.
pub(crate) async fn respond(
    state: &SimulatorState,
    profile: &Profile,
    number: u64,
    page: &ItemPage,
    plan: FaultPlan,
    in_flight: InFlightGuard,
) -> Result<Response<ScriptedBody>, ConnectionReset> {
    let record = |status: Option<StatusCode>| {
        let status = status.map(|status| status.as_u16());
        state.calls().history.record_outcome(number, status, CallOutcome::Faulted(plan.fault));
    };
    match plan.fault {
        Fault::Reset => {
            record(None);
            return Err(ConnectionReset);
        }
        Fault::Slow => tokio::time::sleep(plan.delay).await,
        _ => {}
    }
    let response = faulty_response(profile, number, page, plan);
    record(Some(response.status()));
    Ok(response.map(|body| body.with_guard(Box::new(in_flight))))
}

fn faulty_response(profile: &Profile, number: u64, page: &ItemPage, plan: FaultPlan) -> Response<ScriptedBody> {
    let ok = |body: Bytes| response::with_body(StatusCode::OK, JSON, body);
    let limit_text = limits::error_text(Duration::from_mins(1));
    let limit_error = ErrorReply::new(StatusCode::TOO_MANY_REQUESTS, limit_text, 429);
    match plan.fault {
        Fault::Status500 => ErrorReply::SERVER_ERROR.to_response(profile, None),
        Fault::Html502 => response::with_body(StatusCode::BAD_GATEWAY, HTML, BAD_GATEWAY_PAGE),
        Fault::TooMany => limit_error.to_response(profile, Some(plan.retry_after.as_secs())),
        Fault::TooManySilent => limit_error.to_response(profile, None),
        Fault::Unauthorized => ErrorReply::INVALID_CREDENTIALS.to_response(profile, None),
        Fault::Html200 => response::with_body(StatusCode::OK, HTML, SIGN_IN_PAGE),
        Fault::EmptyBody => ok(Bytes::new()),
        Fault::Garbage => ok(garbage(hash(profile.seed, number))),
        Fault::TruncatedJson => {
            let whole = page.to_json(profile);
            ok(whole.slice(..whole.len() * 2 / 3))
        }
        Fault::Truncated => {
            let whole = page.to_json(profile);
            let mut response = ok(Bytes::new()).map(|_| ScriptedBody::truncated(&whole));
            response.headers_mut().insert(CONTENT_LENGTH, whole.len().into());
            response
        }
        Fault::SlowBody => ok(Bytes::new()).map(|_| ScriptedBody::stalled(&page.to_json(profile), plan.delay)),
        Fault::WrongCount => ok(response::envelope(profile.api.envelope, page.count + 1, page.has_more, &page.data)),
        Fault::EmptyPage => ok(response::envelope(profile.api.envelope, 0, true, &[])),
        // `respond` returns before this for a reset, and a slow response is otherwise correct.
        Fault::Reset | Fault::Slow => ok(page.to_json(profile)),
    }
}

fn garbage(seed: u64) -> Bytes {
    let mut rng = fastrand::Rng::with_seed(seed);
    std::iter::repeat_with(|| rng.u8(..)).take(GARBAGE_BYTES).collect()
}
