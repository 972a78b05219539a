//! Answers about jobs: 202 for a window that is fetched later, and the state of a job.

use std::time::Duration;

use http::{HeaderMap, HeaderValue, Response, StatusCode, header};
use serde::Serialize;
use serde_json::Value;

use super::ApiBody;
use crate::api::head::link;
use crate::api::request::JOBS_PATH;
use crate::jobs::{JobRecord, JobState};
use crate::units::ceil_seconds;
use crate::window::Timestamp;

/// The shortest and the longest time that a client is told to wait before it asks for a job again.
const RETRY_AFTER: [Duration; 2] = [Duration::from_secs(1), Duration::from_secs(30)];

/// The state of a job, as callers see it.
#[derive(Debug, Serialize)]
pub(in crate::api) struct JobBody<'a> {
    id: &'a str,
    state: &'static str,
    created: String,
    pages: Pages,
    calls: u64,
    items: Option<u64>,
    expected_end: Option<String>,
    ended: Option<String>,
    expires: String,
    result: &'a str,
    #[serde(skip_serializing_if = "Option::is_none")]
    problem: Option<&'a Value>,
}

#[derive(Debug, Serialize)]
struct Pages {
    fetched: u64,
    expected: Option<u64>,
}

impl<'a> JobBody<'a> {
    /// The state of a job that is kept for `keep_for` after its end.
    pub(in crate::api) fn new(job: &'a JobRecord, keep_for: Duration) -> Self {
        let (state, outcome, problem) = match &job.state {
            JobState::Queued => ("queued", None, None),
            JobState::Running => ("running", None, None),
            JobState::Done { outcome, .. } => ("done", Some(*outcome), None),
            JobState::Failed { problem, .. } => ("failed", None, Some(problem)),
        };
        let progress = job.progress;
        Self {
            id: &job.id,
            state,
            created: job.asked_at().to_string(),
            pages: Pages { fetched: progress.fetched, expected: progress.expected },
            calls: outcome.map_or(progress.fetched, |outcome| outcome.calls.into()),
            items: outcome.map(|outcome| outcome.items),
            expected_end: progress.ends_at.map(|at| Timestamp::from_nanos(at).to_string()),
            ended: job.state.ended_at().map(|at| at.to_string()),
            expires: job.expires_at(keep_for).to_string(),
            result: &job.result,
            problem,
        }
    }

    /// The same of a job that was cancelled.
    pub(in crate::api) fn cancelled(self) -> Self {
        Self { state: "cancelled", ..self }
    }
}

/// Sets the fields of the state of a job at `now`: when to ask again while it is not finished, and where its window is.
pub(in crate::api) fn set_job_fields(headers: &mut HeaderMap, job: &JobRecord, now: Timestamp) {
    match &job.state {
        JobState::Queued | JobState::Running => {
            let [least, most] = RETRY_AFTER;
            let left = job.progress.ends_at.map_or(least * 5, |at| Timestamp::from_nanos(at).since(now));
            headers.insert(header::RETRY_AFTER, HeaderValue::from(ceil_seconds(left.clamp(least, most))));
        }
        JobState::Done { .. } => {
            if let Some(link) = link(&job.result, "related") {
                headers.insert(header::LINK, link);
            }
        }
        JobState::Failed { .. } => {}
    }
}

/// Makes the state of a new job the answer to the request for its window.
pub(in crate::api) fn accept(response: &mut Response<ApiBody>, job: &JobRecord) {
    *response.status_mut() = StatusCode::ACCEPTED;
    if let Ok(location) = HeaderValue::try_from(format!("{JOBS_PATH}{}", job.id)) {
        response.headers_mut().insert(header::LOCATION, location);
    }
}
