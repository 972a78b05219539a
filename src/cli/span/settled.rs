//! The check that a span is settled, so that its items do not change any more.

use super::cost::Source;
use super::failure::Failure;
use super::gateway::Gateway;
use super::parts::Part;
use super::progress::Progress;
use crate::window::Bound;

/// Refuses parts that reach into open time, unless `is_open_allowed`. The gateway says what is settled, with the cost of
/// the last part; so this is the first request, and finds out whether the gateway can be used. Returns the source of the
/// items, if the gateway says it.
///
/// # Errors
/// [`Failure`] if the parts reach into open time, or there is no answer.
pub(in crate::cli) async fn check_settled(
    gateway: &Gateway,
    parts: &[Part],
    is_open_allowed: bool,
    progress: &Progress,
) -> Result<Option<Source>, Failure> {
    let Some(last) = parts.last() else { return Ok(None) };
    let cost = gateway.cost(last.window, progress).await?;
    if is_open_allowed {
        return Ok(cost.source);
    }
    let Some(settled_until) = cost.settled_until else {
        return Err(Failure::Usage("the gateway is too old to say which time is settled; use --open".to_owned()));
    };
    if last.window.end() <= settled_until {
        return Ok(cost.source);
    }
    let latest = Bound::Second(settled_until.previous_tick().floor_second());
    Err(Failure::Usage(format!(
        "--to reaches into open time, whose items may still change: it can be {latest} at most now; or use --open"
    )))
}
