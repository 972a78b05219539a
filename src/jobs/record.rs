//! The record of a job: its state, its progress, and the rule of its adoption. Pure: the time is an argument.

use std::time::Duration;

use serde::{Deserialize, Serialize};

use crate::cache::{PageRange, QueryOptions, WindowQuery};
use crate::replicas::{FetchTerms, ReplicaId, RequesterJson, SeriesJson};
use crate::request::{Priority, Requester, WaitMeter};
use crate::traces::Span;
use crate::window::{Interval, Timestamp};

/// The longest time from the creation of a job to its end.
pub(super) const LIFETIME: Duration = Duration::from_hours(24);
/// The most often that a job is adopted: then it is likely that the job itself ends its replicas.
pub(super) const MAX_ADOPTIONS: u32 = 5;
/// How long one attempt of a job waits for the quota without a page, before it is made again.
const ATTEMPT_TIMEOUT: Duration = Duration::from_mins(5);

/// A job, as it lies in Redis.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct JobRecord {
    /// A UUID of version 4, which nobody can guess.
    pub id: String,
    /// The path and query of the request that is answered from the cache when the job is done.
    pub result: String,
    requester: RequesterJson,
    series: SeriesJson,
    /// Start and end of the window, in nanoseconds since 1970.
    interval: (i64, i64),
    /// What the request demands of the age of cached data.
    terms: FetchTerms,
    /// The time of the request, in nanoseconds since 1970.
    asked_at: i64,
    /// The replica that runs the job.
    owner: String,
    adoptions: u32,
    /// How far the fetch is.
    pub progress: JobProgress,
    /// The state.
    pub state: JobState,
}

/// How far the fetch of a window is.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct JobProgress {
    /// Pages that have arrived since the job began.
    pub fetched: u64,
    /// Pages in all; `None` if nothing is known of the density.
    pub expected: Option<u64>,
    /// When the last page is expected, in nanoseconds since 1970.
    pub ends_at: Option<i64>,
}

/// The state of a job.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum JobState {
    /// Waits for other jobs.
    Queued,
    /// Its window is being fetched.
    Running,
    /// All of the window was cached.
    Done {
        /// When, in nanoseconds since 1970.
        at: i64,
        /// The result of the fetch.
        outcome: JobOutcome,
    },
    /// The window could not be fetched.
    Failed {
        /// When, in nanoseconds since 1970.
        at: i64,
        /// The problem document.
        problem: serde_json::Value,
    },
}

/// Counts of what a finished job has fetched.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct JobOutcome {
    /// Items of the window.
    pub items: u64,
    /// Upstream calls that were made for the job.
    pub calls: u32,
}

/// Whether a replica takes a job over.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Adoption {
    /// The job is finished, or has an owner that is alive.
    No,
    /// The job runs here from now on.
    Adopt,
    /// The job is ended, because it has had too many owners or takes too long.
    GiveUp,
}

impl JobState {
    /// When the job has ended; `None` if it has not.
    pub fn ended_at(&self) -> Option<Timestamp> {
        match self {
            Self::Queued | Self::Running => None,
            Self::Done { at, .. } | Self::Failed { at, .. } => Some(Timestamp::from_nanos(*at)),
        }
    }
}

impl JobRecord {
    /// A new job of `owner` for the whole window of `query`.
    pub(super) fn new(id: String, query: &WindowQuery, result: String, owner: &ReplicaId) -> Self {
        // Nobody waits for it, so that requests which are waited for come first.
        let priority = query.requester.priority.max(Priority::Refresh);
        Self {
            id,
            result,
            requester: (&Requester { priority, ..query.requester.clone() }).into(),
            series: (&*query.series).into(),
            interval: (query.interval.start.as_nanos(), query.interval.end.as_nanos()),
            terms: FetchTerms::new(query.options.freshness, None),
            asked_at: query.asked_at.as_nanos(),
            owner: owner.to_string(),
            adoptions: 0,
            progress: JobProgress::default(),
            state: JobState::Queued,
        }
    }

    /// The query that brings the window.
    pub(super) fn query(&self) -> WindowQuery {
        WindowQuery {
            series: std::sync::Arc::new((&self.series).into()),
            interval: Interval::new(Timestamp::from_nanos(self.interval.0), Timestamp::from_nanos(self.interval.1)),
            page_range: PageRange::ALL,
            asked_at: self.asked_at(),
            requester: (&self.requester).into(),
            may_stream: true,
            options: QueryOptions {
                freshness: self.terms.freshness(),
                only_cached: false,
                queue_timeout: Some(ATTEMPT_TIMEOUT),
            },
            waited: WaitMeter::default(),
            span: Span::NONE,
        }
    }

    /// The name of the caller.
    pub(super) fn caller(&self) -> std::sync::Arc<str> {
        Requester::from(&self.requester).caller
    }

    /// The time of the request.
    pub fn asked_at(&self) -> Timestamp {
        Timestamp::from_nanos(self.asked_at)
    }

    /// The replica that runs the job.
    pub(super) fn owner(&self) -> &str {
        &self.owner
    }

    /// Whether the job has ended.
    pub fn is_finished(&self) -> bool {
        self.state.ended_at().is_some()
    }

    /// When the job is forgotten: `keep_for` after its end, or after the time when it ends at the latest.
    pub fn expires_at(&self, keep_for: Duration) -> Timestamp {
        self.state.ended_at().unwrap_or(self.asked_at() + LIFETIME) + keep_for
    }

    /// Whether the job takes too long at `now`.
    pub(super) fn is_overdue(&self, now: Timestamp) -> bool {
        !self.is_finished() && self.asked_at() + LIFETIME <= now
    }

    /// Begins to run.
    pub(super) fn start(&mut self) {
        if !self.is_finished() {
            self.state = JobState::Running;
        }
    }

    /// Notes that `remaining` pages are still to be fetched, which will take `time`.
    pub(super) fn note_remaining(&mut self, remaining: Option<u64>, time: Duration, now: Timestamp) {
        let Some(remaining) = remaining else { return };
        let JobProgress { fetched, expected, ends_at } = &mut self.progress;
        // A stream may turn out to be denser than expected.
        let all = expected.map_or(remaining, |expected| expected.max(*fetched + remaining));
        (*fetched, *expected) = ((*fetched).max(all.saturating_sub(remaining)), Some(all));
        *ends_at = Some((now + time).as_nanos());
    }

    /// Ends the job.
    pub(super) fn finish(&mut self, result: Result<JobOutcome, serde_json::Value>, now: Timestamp) {
        if self.is_finished() {
            return;
        }
        let at = now.as_nanos();
        self.progress.ends_at = None;
        self.state = match result {
            Ok(outcome) => {
                let pages = self.progress.expected.unwrap_or(outcome.calls.into()).max(self.progress.fetched);
                (self.progress.fetched, self.progress.expected) = (pages, Some(pages));
                JobState::Done { at, outcome }
            }
            Err(problem) => JobState::Failed { at, problem },
        };
    }

    /// Whether a replica that sees the job at `now` takes it over.
    pub(super) fn adoption(&self, is_owner_alive: bool, now: Timestamp) -> Adoption {
        if self.is_finished() || is_owner_alive {
            Adoption::No
        } else if self.adoptions >= MAX_ADOPTIONS || self.is_overdue(now) {
            Adoption::GiveUp
        } else {
            Adoption::Adopt
        }
    }

    /// Makes the job that of `owner`, to be run again.
    pub(super) fn adopt(&mut self, owner: &ReplicaId) {
        self.owner = owner.to_string();
        self.adoptions += 1;
        self.state = JobState::Queued;
    }
}

#[cfg(test)]
pub(super) mod tests {
    use std::sync::Arc;

    use proptest::prelude::*;

    use super::*;
    use crate::request::{Filter, Series};
    use crate::window::FreshnessDemand;

    pub(in crate::jobs) fn at(seconds: i64) -> Timestamp {
        Timestamp::from_seconds(seconds)
    }

    pub(in crate::jobs) fn replica(digit: char) -> ReplicaId {
        ReplicaId::parse(digit.to_string().repeat(16).as_bytes()).unwrap()
    }

    /// A job of `caller` that was asked for at 1,000.
    pub(in crate::jobs) fn record(id: &str, caller: &str) -> JobRecord {
        let series = Series {
            account: "a".into(),
            stream: "s".into(),
            filter: Filter::None,
            parameters: Vec::new(),
            agentic: true,
        };
        let query = WindowQuery {
            series: Arc::new(series),
            interval: Interval::new(at(0), at(500)),
            page_range: PageRange { offset: 7, limit: Some(1) },
            asked_at: at(1000),
            requester: Requester { caller: caller.into(), weight: 2, priority: Priority::Interactive },
            may_stream: false,
            options: QueryOptions { freshness: FreshnessDemand::Refetch, ..QueryOptions::default() },
            waited: WaitMeter::default(),
            span: Span::NONE,
        };
        JobRecord::new(id.to_owned(), &query, "/r?x".to_owned(), &replica('a'))
    }

    #[test]
    fn job_fetches_the_whole_window_behind_requests_that_are_waited_for() {
        let query = record("1", "bi").query();
        assert_eq!(query.page_range, PageRange::ALL);
        assert_eq!((query.requester.priority, &*query.requester.caller), (Priority::Refresh, "bi"));
        assert_eq!((query.asked_at, query.options.freshness), (at(1000), FreshnessDemand::Refetch));
        assert!(query.series.agentic && query.may_stream);
    }

    #[test]
    fn record_reads_back_from_json() {
        let mut job = record("1", "bi");
        job.note_remaining(Some(9), Duration::from_secs(3), at(1001));
        for result in [Ok(JobOutcome { items: 3, calls: 2 }), Err(serde_json::json!({"status": 502}))] {
            let mut ended = job.clone();
            ended.finish(result, at(1002));
            let text = serde_json::to_vec(&ended).unwrap();
            assert_eq!(serde_json::from_slice::<JobRecord>(&text).unwrap(), ended);
        }
    }

    #[test]
    fn only_an_unfinished_job_without_an_owner_is_adopted() {
        let mut job = record("1", "bi");
        for _ in 0..MAX_ADOPTIONS {
            assert_eq!(job.adoption(true, at(1001)), Adoption::No);
            assert_eq!(job.adoption(false, at(1001)), Adoption::Adopt);
            job.start();
            job.adopt(&replica('b'));
            assert_eq!((job.owner(), &job.state), (replica('b').as_str(), &JobState::Queued));
        }
        assert_eq!(job.adoption(false, at(1001)), Adoption::GiveUp, "it may be what ends its owners");
        let mut late = record("2", "bi");
        assert_eq!(late.adoption(false, at(1000) + LIFETIME), Adoption::GiveUp);
        late.finish(Ok(JobOutcome::default()), at(1001));
        assert_eq!(late.adoption(false, at(1000) + LIFETIME), Adoption::No);
    }

    #[test]
    fn end_is_final_and_begins_the_time_that_it_is_kept() {
        let (mut job, keep_for) = (record("1", "bi"), Duration::from_mins(1));
        assert_eq!(job.expires_at(keep_for), at(1060) + LIFETIME);
        job.finish(Ok(JobOutcome { items: 1, calls: 1 }), at(1010));
        let done = job.clone();
        job.start();
        job.finish(Err(serde_json::Value::Null), at(1020));
        assert_eq!(job, done);
        assert_eq!(job.expires_at(keep_for), at(1070));
    }

    proptest! {
        /// Progress never goes back, and never beyond what is expected.
        #[test]
        fn progress_only_grows(remaining in prop::collection::vec(prop::option::of(0u64..100), 1..20)) {
            let mut job = record("1", "bi");
            for (second, remaining) in (1000..).zip(remaining) {
                let before = job.progress;
                job.note_remaining(remaining, Duration::ZERO, at(second));
                prop_assert!(job.progress.fetched >= before.fetched);
                if let (Some(remaining), Some(expected)) = (remaining, job.progress.expected) {
                    prop_assert!(job.progress.fetched <= expected && remaining <= expected);
                }
            }
        }
    }
}
