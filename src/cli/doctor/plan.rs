//! Which call the doctor makes next, by the evidence so far. Pure.
//!
//! 1. A token that the upstream accepts, in the configured form first; then, with the calls that search for items, the
//!    other form.
//! 2. A window with more items than one answer holds, of settled data if there is any.
//! 3. The field, then what a large limit and no limit get, which bring further items as well.
//! 4. The upper bound, as soon as an item is known that can tell; until then more items.
//! 5. The same request again, and a long window.

use std::time::Duration;

use super::bound::BoundFinding;
use super::evidence::{
    DOCUMENTED_LIMIT, Evidence, LARGE_LIMIT, Probe, ProbeOutcome, Purpose, SECOND, TokenForm, Window,
};
use super::paging::{Limit, Repeatability};
use super::{bound, field, paging};
use crate::config::JtiMode;
use crate::window::Timestamp;

const HOUR: Duration = Duration::from_hours(1);
const DAY: Duration = Duration::from_hours(24);

/// Spans that are searched for items, in this order.
const SPANS: [Duration; 3] = [DAY, Duration::from_hours(31 * 24), Duration::from_hours(366 * 24)];
/// A span that Kore's other APIs accept, for an upstream that refuses longer ones.
const SHORT_SPAN: Duration = Duration::from_hours(7 * 24);
/// Calls that failed, or were refused for the quota, after which the doctor gives up.
const MAX_FAILURES: usize = 3;
/// Calls that more items leave to the upper bound and to the repetition.
const RESERVED_CALLS: usize = 2;

/// The next probe; `None` if no further call is made.
pub(super) fn next_probe(evidence: &Evidence) -> Option<Probe> {
    if evidence.calls_left() == 0 || has_given_up(evidence) {
        return None;
    }
    if let Some((probe, answer)) = evidence.exchanges.last()
        && is_failure(&answer.outcome)
        && !is_unusual(&probe.purpose)
    {
        return Some(probe.clone());
    }
    let Some(token) = evidence.accepted_token() else { return credential(evidence) };
    let probe = [search, field, large_limit, no_limit, upper_bound, more_items, repetition, span]
        .iter()
        .find_map(|step| step(evidence, token))?;
    let other = token.other_scheme();
    let is_plain = matches!(probe.purpose, Purpose::Search | Purpose::Items | Purpose::Field(_) | Purpose::UpperBound);
    // Questions whose answer would be ambiguous wait until the other form is known.
    match evidence.accepts(other) {
        None if is_plain => Some(Probe { token: other, ..probe }),
        None => Some(scheme(evidence, other)),
        Some(_) => Some(probe),
    }
}

/// Whether so many calls have failed that no further one is made.
pub(super) fn has_given_up(evidence: &Evidence) -> bool {
    evidence.exchanges.iter().filter(|(_, answer)| is_failure(&answer.outcome)).count() >= MAX_FAILURES
}

fn is_failure(outcome: &ProbeOutcome) -> bool {
    matches!(outcome, ProbeOutcome::Failed(_) | ProbeOutcome::RateLimited(_))
}

/// Whether a question may have been the reason of a failure, so that it is not asked again.
fn is_unusual(purpose: &Purpose) -> bool {
    matches!(purpose, Purpose::LargeLimit | Purpose::NoLimit | Purpose::Span)
}

/// The forms of tokens, until one is accepted. With a new `jti` in each token if no other form is.
fn credential(evidence: &Evidence) -> Option<Probe> {
    let first = evidence.setup.token;
    let with_jti = TokenForm { jti: JtiMode::PerRequest, ..first };
    let forms = [first, first.other_scheme(), with_jti, with_jti.other_scheme()];
    let token = forms.into_iter().find(|form| evidence.accepts(*form).is_none())?;
    // An upstream that refuses a window for another reason than its token is not asked for ever.
    let is_asked = evidence.exchanges.iter().any(|(probe, _)| probe.token == token);
    (!is_asked).then(|| scheme(evidence, token))
}

/// A plain question whose answer tells whether `token` is accepted.
fn scheme(evidence: &Evidence, token: TokenForm) -> Probe {
    probe(Purpose::Search, token, Window::before(evidence.setup.settled, SPANS[0]))
}

fn probe(purpose: Purpose, token: TokenForm, window: Window) -> Probe {
    Probe { purpose, token, window, offset: 0, limit: Some(DOCUMENTED_LIMIT) }
}

fn search(evidence: &Evidence, token: TokenForm) -> Option<Probe> {
    if evidence.large_window().is_some() {
        return None;
    }
    let settled = SPANS.map(|span| Window::before(evidence.setup.settled, span));
    let answered = |window: Window| {
        let mut of_window = evidence.exchanges.iter().filter(|(probe, _)| probe.window == window && probe.offset == 0);
        of_window.find_map(|(_, answer)| match answer.outcome {
            ProbeOutcome::Page(_) => Some(true),
            ProbeOutcome::Invalid(_) => Some(false),
            _ => None,
        })
    };
    let mut windows = Vec::new();
    for window in settled {
        windows.push(window);
        if answered(window) == Some(false) {
            windows.push(Window::before(evidence.setup.settled, SHORT_SPAN));
            break;
        }
    }
    if evidence.items().is_empty() {
        windows.push(Window::before(evidence.setup.now, DAY));
    }
    let window = windows.into_iter().find(|window| answered(*window).is_none())?;
    Some(probe(Purpose::Search, token, window))
}

fn field(evidence: &Evidence, token: TokenForm) -> Option<Probe> {
    let (field, window) = field::next_window(evidence)?;
    Some(probe(Purpose::Field(field), token, window))
}

fn large_limit(evidence: &Evidence, token: TokenForm) -> Option<Probe> {
    if paging::page_limit(evidence) != Limit::Unknown {
        return None;
    }
    of_large_window(evidence, Purpose::LargeLimit, token, Some(LARGE_LIMIT))
}

fn no_limit(evidence: &Evidence, token: TokenForm) -> Option<Probe> {
    if matches!(paging::default_limit(evidence), Limit::Exactly { .. }) {
        return None;
    }
    of_large_window(evidence, Purpose::NoLimit, token, None)
}

/// A question that needs many items: at first of what was not read yet, which brings new items, then from the beginning
/// of the window, where there are more than the documented limit.
fn of_large_window(evidence: &Evidence, purpose: Purpose, token: TokenForm, limit: Option<u32>) -> Option<Probe> {
    let window = evidence.large_window()?;
    let is_asked =
        |offset: u64| evidence.exchanges.iter().any(|(probe, _)| probe.purpose == purpose && probe.offset <= offset);
    let offset = evidence.unread_offset(window).filter(|offset| !is_asked(*offset)).unwrap_or(0);
    let is_new = !evidence.exchanges.iter().any(|(probe, _)| probe.purpose == purpose && probe.offset == offset);
    is_new.then_some(Probe { purpose, token, window, offset, limit })
}

fn upper_bound(evidence: &Evidence, token: TokenForm) -> Option<Probe> {
    let field = field::infer(evidence);
    let name = field.name()?;
    if bound::infer(evidence, name) != BoundFinding::Unknown {
        return None;
    }
    Some(probe(Purpose::UpperBound, token, bound::next_window(evidence, name)?))
}

/// More items, of which one may be able to tell the upper bound.
fn more_items(evidence: &Evidence, token: TokenForm) -> Option<Probe> {
    let field = field::infer(evidence);
    let name = field.name().filter(|name| bound::infer(evidence, name) == BoundFinding::Unknown)?;
    if evidence.calls_left() <= RESERVED_CALLS {
        return None;
    }
    let window = evidence.large_window()?;
    if let Some(window) = window_from_full_hour(evidence, name) {
        return Some(probe(Purpose::Items, token, window));
    }
    let offset = evidence.unread_offset(window)?;
    Some(Probe { offset, ..probe(Purpose::Items, token, window) })
}

/// A window that begins at a full hour, where timestamps of whole seconds are most likely, and that has about as many
/// items as an answer holds. `None` if the items come in no order, so that it is not known how dense they are.
fn window_from_full_hour(evidence: &Evidence, field: &str) -> Option<Window> {
    let times = evidence.pages().map(|(_, _, page)| page.items.iter().filter_map(|item| item.times.get(field)));
    let times: Vec<Timestamp> =
        times.map(Iterator::collect::<Vec<_>>).max_by_key(Vec::len)?.into_iter().copied().collect();
    if !times.is_sorted() && !times.is_sorted_by(|a, b| a >= b) {
        return None;
    }
    let (first, last) = (times.iter().min()?, times.iter().max()?);
    let span = last.since(*first).max(SECOND);
    let asked = evidence.exchanges.iter().filter(|(probe, _)| probe.purpose == Purpose::Items).count();
    let step = HOUR * u32::try_from(span.as_secs().div_ceil(HOUR.as_secs())).ok()?;
    let from = evidence.setup.settled.floor_to(HOUR) - step * (u32::try_from(asked).ok()? + 1);
    Some(Window { from, to: from + Duration::from_secs(span.as_secs()) })
}

fn repetition(evidence: &Evidence, token: TokenForm) -> Option<Probe> {
    if paging::repeatability(evidence) != Repeatability::Unknown {
        return None;
    }
    let is_fit = |probe: &Probe| probe.limit == Some(DOCUMENTED_LIMIT) && probe.window.to <= evidence.setup.settled;
    let pages = evidence.pages().filter(|(_, probe, page)| is_fit(probe) && page.items.len() > 1);
    let (_, first, _) = pages.max_by_key(|(call, _, page)| (page.items.len(), std::cmp::Reverse(*call)))?;
    Some(Probe { purpose: Purpose::Repetition, token, ..first.clone() })
}

/// Long windows, until one is accepted.
fn span(evidence: &Evidence, token: TokenForm) -> Option<Probe> {
    let [day, month, year] = SPANS;
    let is_asked = |span: Duration| evidence.exchanges.iter().any(|(probe, _)| probe.window.span() == span);
    let (accepted, refused) = paging::spans(evidence);
    let may_be_accepted = |span: &Duration| {
        !is_asked(*span) && accepted.is_none_or(|most| *span > most) && refused.is_none_or(|least| *span < least)
    };
    let span = [year, month, SHORT_SPAN, day].into_iter().find(may_be_accepted)?;
    let window = Window::before(evidence.setup.settled, span);
    Some(Probe { limit: Some(1), ..probe(Purpose::Span, token, window) })
}
