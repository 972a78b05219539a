//! Which timestamp the upstream selects on. Pure.
//!
//! Every member of the items that holds a timestamp is a candidate. A candidate is refuted by an item that came although
//! its timestamp lies outside of the window, or that did not come, in an answer that holds the whole window, although it
//! was known before and its timestamp lies within. The last candidate is the field if an item has also shown it: it came
//! in a window of a second or two around this timestamp, while its other timestamps lie elsewhere.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use super::evidence::{Evidence, Probe, Purpose, SampleItem, SamplePage, Window};

/// The most probes for the field.
const MAX_PROBES: usize = 4;

/// Knowledge of the field.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Field {
    /// The field, and the number of the call that shows it.
    Known { name: Arc<str>, call: usize },
    /// These are possible; none if all are refuted.
    Unknown(Vec<Arc<str>>),
}

impl Field {
    /// The name, if it is known.
    pub(super) fn name(&self) -> Option<&Arc<str>> {
        match self {
            Self::Known { name, .. } => Some(name),
            Self::Unknown(_) => None,
        }
    }
}

/// The conclusion from all answers.
pub(super) fn infer(evidence: &Evidence) -> Field {
    let possible = possible(evidence);
    let shown = match possible.as_slice() {
        [only] => evidence.pages().find(|(_, probe, page)| shows(only, probe, page)).map(|(call, ..)| (only, call)),
        _ => None,
    };
    match shown {
        Some((name, call)) => Field::Known { name: name.clone(), call },
        None => Field::Unknown(possible),
    }
}

/// The candidates that no answer refutes, the configured field first.
fn possible(evidence: &Evidence) -> Vec<Arc<str>> {
    let items = evidence.items();
    let names: BTreeSet<&Arc<str>> = items.values().flat_map(|item| item.times.keys()).collect();
    let mut names: Vec<Arc<str>> = names
        .into_iter()
        .filter(|name| !evidence.pages().any(|(call, probe, page)| refutes(evidence, name, call, probe, page)))
        .cloned()
        .collect();
    names.sort_by_key(|name| *name != evidence.setup.field);
    names
}

fn refutes(evidence: &Evidence, field: &str, call: usize, probe: &Probe, page: &SamplePage) -> bool {
    let window = probe.window;
    let came_from_outside = |item: &SampleItem| item.times.get(field).is_some_and(|time| window.surely_lacks(*time));
    if page.items.iter().any(came_from_outside) {
        return true;
    }
    if probe.offset > 0 || page.has_more {
        return false;
    }
    let came: BTreeSet<u64> = page.items.iter().map(|item| item.id).collect();
    let stayed_away = |item: &SampleItem| {
        item.times.get(field).is_some_and(|time| window.surely_has(*time)) && !came.contains(&item.id)
    };
    evidence.items_before(call).values().any(|item| stayed_away(item))
}

/// Whether an item of the answer lies in its window by `field` alone.
fn shows(field: &str, probe: &Probe, page: &SamplePage) -> bool {
    let lies_elsewhere = |item: &SampleItem| {
        let mut others = item.times.iter().filter(|(name, _)| ***name != *field).map(|(_, time)| time);
        others.all(|time| probe.window.surely_lacks(*time)) && item.times.contains_key(field)
    };
    matches!(probe.purpose, Purpose::Field(_)) && page.items.iter().any(lies_elsewhere)
}

/// The field and the window that tell most; `None` if the field is known, or no known item can tell.
pub(super) fn next_window(evidence: &Evidence) -> Option<(Arc<str>, Window)> {
    let Field::Unknown(possible) = infer(evidence) else { return None };
    let asked: Vec<Window> = evidence
        .exchanges
        .iter()
        .filter(|(probe, _)| matches!(probe.purpose, Purpose::Field(_)))
        .map(|(probe, _)| probe.window)
        .collect();
    if asked.len() >= MAX_PROBES {
        return None;
    }
    let items = evidence.items();
    // The answer must hold the whole window, so a window with few known items is preferred.
    let crowd = |field: &str, window: Window| {
        items.values().filter(|item| item.times.get(field).is_some_and(|time| !window.surely_lacks(*time))).count()
    };
    possible.iter().find_map(|field| {
        let windows = items.values().filter_map(|item| {
            let window = Window::around(*item.times.get(field)?);
            let others = others_outside(field, &item.times, window);
            (others && window.to <= evidence.setup.now && !asked.contains(&window)).then_some(window)
        });
        windows.min_by_key(|window| (crowd(field, *window), window.from)).map(|window| (field.clone(), window))
    })
}

/// Whether all other timestamps of an item lie outside of a window.
fn others_outside(field: &Arc<str>, times: &BTreeMap<Arc<str>, crate::window::Timestamp>, window: Window) -> bool {
    times.iter().filter(|(name, _)| *name != field).all(|(_, time)| window.surely_lacks(*time))
}
