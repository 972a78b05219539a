//! Order, limits, repeatability and spans of answers. Pure.

use std::collections::BTreeSet;
use std::time::Duration;

use super::evidence::{DOCUMENTED_LIMIT, Evidence, Probe, ProbeOutcome, Purpose, SamplePage};
use super::field::Field;
use crate::window::Timestamp;

/// Different timestamps that a page must hold before its order is believed: a random order would look sorted once in
/// 1.8 million times.
const ENOUGH_TIMES: usize = 10;

/// The order of items.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Order {
    Ascending,
    Descending,
    /// Neither.
    Other,
    Unknown,
}

/// The order of the items by the field that is known, or by all that are possible if they agree.
pub(super) fn order(evidence: &Evidence, field: &Field) -> Order {
    let names = match field {
        Field::Known { name, .. } => std::slice::from_ref(name),
        Field::Unknown(possible) => possible,
    };
    let orders: Vec<Order> = names.iter().map(|name| order_by(evidence, name)).collect();
    match orders.split_first() {
        Some((first, others)) if others.iter().all(|other| other == first) => *first,
        _ => Order::Unknown,
    }
}

fn order_by(evidence: &Evidence, field: &str) -> Order {
    let pages = evidence.pages().map(|(_, _, page)| page.items.iter().filter_map(|item| item.times.get(field)));
    let pages: Vec<Vec<Timestamp>> = pages.map(|times| times.copied().collect()).collect();
    let is_ascending = pages.iter().all(|times| times.is_sorted());
    let is_descending = pages.iter().all(|times| times.is_sorted_by(|a, b| a >= b));
    let different = |times: &Vec<Timestamp>| times.iter().collect::<BTreeSet<_>>().len();
    let is_enough = pages.iter().map(different).max().unwrap_or_default() >= ENOUGH_TIMES;
    match (is_ascending, is_descending) {
        (false, false) => Order::Other,
        (true, false) if is_enough => Order::Ascending,
        (false, true) if is_enough => Order::Descending,
        _ => Order::Unknown,
    }
}

/// A number of items that bounds an answer.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Limit {
    /// The upstream cuts answers to this number.
    Exactly { items: usize, call: usize },
    /// An answer held this many, and there is no sign of a bound.
    AtLeast { items: usize, call: usize },
    /// A larger limit than the documented one is refused.
    Refused { call: usize },
    /// No window had enough items to tell.
    Unknown,
}

/// The effect of a limit above the documented one.
pub(super) fn page_limit(evidence: &Evidence) -> Limit {
    let cut = evidence.pages().find(|(_, probe, page)| {
        let limit = probe.limit.map(|limit| limit as usize);
        page.has_more && limit.is_some_and(|limit| page.items.len() < limit)
    });
    if let Some((call, _, page)) = cut {
        return Limit::Exactly { items: page.items.len(), call };
    }
    if let Some((call, page)) = longest(evidence, &Purpose::LargeLimit)
        && page.items.len() > DOCUMENTED_LIMIT as usize
    {
        return Limit::AtLeast { items: page.items.len(), call };
    }
    let refused = evidence.exchanges.iter().position(|(probe, answer)| {
        probe.purpose == Purpose::LargeLimit && matches!(answer.outcome, ProbeOutcome::Invalid(_))
    });
    refused.map_or(Limit::Unknown, |call| Limit::Refused { call })
}

/// The effect of a missing limit.
pub(super) fn default_limit(evidence: &Evidence) -> Limit {
    let mut pages = evidence.pages().filter(|(_, probe, _)| probe.limit.is_none());
    if let Some((call, _, page)) = pages.find(|(_, _, page)| page.has_more) {
        return Limit::Exactly { items: page.items.len(), call };
    }
    match longest(evidence, &Purpose::NoLimit) {
        Some((call, page)) if !page.items.is_empty() => Limit::AtLeast { items: page.items.len(), call },
        _ => Limit::Unknown,
    }
}

fn longest<'a>(evidence: &'a Evidence, purpose: &Purpose) -> Option<(usize, &'a SamplePage)> {
    let pages = evidence.pages().filter(|(_, probe, _)| probe.purpose == *purpose);
    pages.map(|(call, _, page)| (call, page)).max_by_key(|(_, page)| page.items.len())
}

/// Whether the same request gets the same answer.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Repeatability {
    Same {
        call: usize,
    },
    /// The same items in another order.
    Reordered {
        call: usize,
    },
    /// Other items, or changed ones.
    Different {
        call: usize,
    },
    Unknown,
}

/// Compares an answer with that to the same request.
pub(super) fn repeatability(evidence: &Evidence) -> Repeatability {
    let Some((call, probe, page)) = evidence.pages().find(|(_, probe, _)| probe.purpose == Purpose::Repetition) else {
        return Repeatability::Unknown;
    };
    let is_same = |other: &Probe| other.window == probe.window && other.offset == probe.offset;
    let first = evidence.pages().find(|(number, other, _)| *number < call && is_same(other));
    let Some((_, _, first)) = first else { return Repeatability::Unknown };
    let digests = |page: &SamplePage| page.items.iter().map(|item| item.digest).collect::<Vec<_>>();
    let (mut before, mut after) = (digests(first), digests(page));
    if before == after {
        return Repeatability::Same { call };
    }
    before.sort_unstable();
    after.sort_unstable();
    if before == after { Repeatability::Reordered { call } } else { Repeatability::Different { call } }
}

/// The longest span that was accepted, and the shortest one that was refused although shorter ones were accepted.
pub(super) fn spans(evidence: &Evidence) -> (Option<Duration>, Option<Duration>) {
    let accepted = evidence.pages().map(|(_, probe, _)| probe.window.span()).max();
    let refused = evidence.exchanges.iter().filter(|(probe, answer)| {
        matches!(probe.purpose, Purpose::Search | Purpose::Span) && matches!(answer.outcome, ProbeOutcome::Invalid(_))
    });
    let refused = refused.map(|(probe, _)| probe.window.span()).filter(|span| accepted.is_none_or(|most| *span > most));
    (accepted, refused.min())
}
