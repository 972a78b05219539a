//! The last problems of requests and of the gateway, for the status page: a ring of a few dozen, in which repetitions
//! of the last one are counted instead of kept. No item, no filter and no other text of a request than its stream.

use std::collections::VecDeque;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use crate::window::Timestamp;

/// Maximum problems that are kept.
const MAX_PROBLEMS: usize = 50;
/// Maximum bytes of each text of a problem.
const MAX_TEXT_BYTES: usize = 300;

/// Where a problem showed.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum ProblemSource {
    /// An answer to a request was an error, or broke off.
    Request {
        /// The caller's name; `-` if it is unknown, or none are configured.
        caller: String,
        /// The stream that the request names, cut to a bounded length; `None` if it names none.
        stream: Option<String>,
    },
    /// The gateway itself: what makes it degraded, or a failed call.
    Gateway,
}

impl ProblemSource {
    /// The caller's name; `None` for the gateway itself.
    fn caller(&self) -> Option<&str> {
        match self {
            Self::Request { caller, .. } => Some(caller),
            Self::Gateway => None,
        }
    }
}

/// A problem, and how often it was repeated in a row.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct RecentProblem {
    /// When it showed first.
    pub first: Timestamp,
    /// When it showed last.
    pub last: Timestamp,
    /// How often it showed.
    pub times: u64,
    /// Where it showed last.
    pub source: ProblemSource,
    /// Its kind: the outcome of a request, as in the access log.
    pub kind: String,
    /// The problem in words.
    pub text: String,
}

/// The ring of problems. Cheap to clone; clones share their state.
#[derive(Clone, Debug, Default)]
pub struct RecentProblems(Arc<Mutex<ProblemRing>>);

impl RecentProblems {
    /// Records a problem that showed at `at`.
    pub fn record(&self, at: Timestamp, source: ProblemSource, kind: &str, text: &str) {
        self.lock().record(at, source, kind, text);
    }

    /// The problems, the latest first.
    pub fn all(&self) -> Vec<RecentProblem> {
        self.lock().0.iter().cloned().collect()
    }

    fn lock(&self) -> MutexGuard<'_, ProblemRing> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// The problems, the latest first.
#[derive(Debug, Default)]
struct ProblemRing(VecDeque<RecentProblem>);

impl ProblemRing {
    fn record(&mut self, at: Timestamp, source: ProblemSource, kind: &str, text: &str) {
        let source = match source {
            ProblemSource::Gateway => ProblemSource::Gateway,
            ProblemSource::Request { caller, stream } => {
                ProblemSource::Request { caller: cut(&caller), stream: stream.as_deref().map(cut) }
            }
        };
        let (kind, text) = (cut(kind), cut(text));
        // Searched in all of the ring and whatever the stream, so that one caller, or two problems in turn, do not push
        // out all others.
        let is_same = |known: &RecentProblem| {
            known.kind == kind && known.text == text && known.source.caller() == source.caller()
        };
        let known = self.0.iter().position(is_same).and_then(|place| self.0.remove(place));
        let problem = match known {
            Some(known) => RecentProblem { last: at, times: known.times.saturating_add(1), source, ..known },
            None => RecentProblem { first: at, last: at, times: 1, source, kind, text },
        };
        self.0.push_front(problem);
        self.0.truncate(MAX_PROBLEMS);
    }
}

/// The beginning of `text`.
fn cut(text: &str) -> String {
    text[..text.floor_char_boundary(MAX_TEXT_BYTES)].to_owned()
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn texts_of_a_problem_are_cut() {
        let mut ring = ProblemRing::default();
        let long = "é".repeat(1000);
        let source = ProblemSource::Request { caller: long.clone(), stream: Some(long.clone()) };
        ring.record(Timestamp::from_seconds(1), source, &long, &long);
        let RecentProblem { source, kind, text, .. } = &ring.0[0];
        let ProblemSource::Request { caller, stream } = source else { panic!("{source:?}") };
        for text in [kind, text, caller, stream.as_ref().unwrap()] {
            assert_eq!(text.len(), MAX_TEXT_BYTES);
        }
    }

    proptest! {
        /// Compared with a list of all problems, of which the ring has the last distinct ones.
        #[test]
        fn ring_has_the_latest_distinct_problems_and_their_counts(kinds in prop::collection::vec(0u8..70, 0..200)) {
            let (mut ring, mut all) = (ProblemRing::default(), Vec::<u8>::new());
            for (second, kind) in kinds.iter().enumerate() {
                let at = Timestamp::from_seconds(i64::try_from(second).unwrap());
                ring.record(at, ProblemSource::Gateway, &kind.to_string(), "text");
                all.push(*kind);
                prop_assert!(ring.0.len() <= MAX_PROBLEMS);
            }
            let mut distinct: Vec<u8> = Vec::new();
            for kind in all.iter().rev() {
                if !distinct.contains(kind) {
                    distinct.push(*kind);
                }
            }
            let kept: Vec<u8> = ring.0.iter().map(|problem| problem.kind.parse().unwrap()).collect();
            prop_assert_eq!(&kept[..], &distinct[..distinct.len().min(MAX_PROBLEMS)]);
            if distinct.len() <= MAX_PROBLEMS {
                let times: u64 = ring.0.iter().map(|problem| problem.times).sum();
                prop_assert_eq!(times, all.len() as u64);
            }
        }
    }
}
