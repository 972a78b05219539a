//! The progress of a command: a bar where standard error is a terminal, otherwise a line every ten seconds.

use std::io::{IsTerminal as _, stderr};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use indicatif::{ProgressBar, ProgressDrawTarget, ProgressStyle};

use super::cost::Cost;
use super::eta::{Forecast, Pace, time_left};
use crate::cli::output::complain;
use crate::clock::Clock;
use crate::window::Timestamp;

const BAR_INTERVAL: Duration = Duration::from_millis(500);
const LINE_INTERVAL: Duration = Duration::from_secs(10);

/// The progress of a command. All clones are the same.
#[derive(Clone, Debug)]
pub(in crate::cli) struct Progress(Arc<Inner>);

#[derive(Debug)]
struct Inner {
    bar: ProgressBar,
    is_live: bool,
    started: Instant,
    counts: Mutex<Counts>,
}

/// The work done, and the rest.
#[derive(Clone, Debug, Default)]
struct Counts {
    /// The number of parts that are done, in this run and before.
    done: u64,
    /// The number of all parts.
    all: u64,
    /// The number of rows that are done, in this run and before; `None` if rows are not read.
    rows: Option<u64>,
    /// The number of these rows that were done before this run.
    rows_before: u64,
    pace: Pace,
    forecast: Option<Forecast>,
    /// The last note that was printed.
    note: String,
}

impl Progress {
    /// The progress over `all` parts, of which `done` with `rows` are done already.
    pub(in crate::cli) fn new(all: usize, done: usize, rows: Option<u64>) -> Self {
        let is_live = stderr().is_terminal();
        let target = if is_live { ProgressDrawTarget::stderr() } else { ProgressDrawTarget::hidden() };
        let bar = ProgressBar::with_draw_target(Some(all as u64), target);
        if let Ok(style) = ProgressStyle::with_template("{bar:6} {wide_msg}") {
            bar.set_style(style.progress_chars("=> "));
        }
        let rows_before = rows.unwrap_or_default();
        let counts = Counts { done: done as u64, all: all as u64, rows, rows_before, ..Counts::default() };
        Self(Arc::new(Inner { bar, is_live, started: Instant::now(), counts: Mutex::new(counts) }))
    }

    fn counts(&self) -> MutexGuard<'_, Counts> {
        self.0.counts.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Counts calls that one request made.
    pub(super) fn add_calls(&self, calls: u64, time: Duration) {
        let pace = &mut self.counts().pace;
        pace.calls += calls;
        if calls > 0 {
            pace.fetching += time;
        }
    }

    /// Counts a part that was read.
    pub(super) fn add_reading(&self, calls: u64, time: Duration) {
        let pace = &mut self.counts().pace;
        pace.calls += calls;
        pace.parts += 1;
        pace.reading += time;
    }

    /// Counts parts that are done, with their rows.
    pub(in crate::cli) fn finish_parts(&self, parts: usize, rows: u64) {
        let mut counts = self.counts();
        counts.done += parts as u64;
        counts.rows = counts.rows.map(|before| before + rows);
    }

    pub(super) fn set_forecast(&self, cost: &Cost) {
        let mut counts = self.counts();
        let (made_at, calls_before) = (self.0.started.elapsed(), counts.pace.calls);
        let forecast = cost.expected.map(|calls| Forecast { made_at, calls_before, calls, wait: cost.wait });
        counts.forecast = forecast;
    }

    /// Prints a line, unless it is the last one again.
    pub(super) fn note(&self, text: &str) {
        let is_new = std::mem::replace(&mut self.counts().note, text.to_owned()) != text;
        if is_new {
            self.print(text);
        }
    }

    /// Prints a line above the bar.
    pub(in crate::cli) fn print(&self, text: &str) {
        self.0.bar.suspend(|| complain(&format_args!("{text}")));
    }

    /// Shows the progress until the future is dropped.
    pub(in crate::cli) async fn show(&self) -> std::convert::Infallible {
        loop {
            if self.0.is_live {
                self.draw();
                tokio::time::sleep(BAR_INTERVAL).await;
            } else {
                tokio::time::sleep(LINE_INTERVAL).await;
                complain(&format_args!("{}", self.line()));
            }
        }
    }

    /// Shows the progress for the last time.
    pub(in crate::cli) fn end(&self) {
        if self.0.is_live {
            self.draw();
            self.0.bar.abandon();
        } else {
            complain(&format_args!("{}", self.line()));
        }
    }

    fn draw(&self) {
        self.0.bar.set_position(self.counts().done);
        self.0.bar.set_message(self.line());
    }

    fn line(&self) -> String {
        describe(&self.counts(), self.0.started.elapsed(), Clock::system().now())
    }
}

/// The progress in one line; `elapsed` since the start of this run.
fn describe(counts: &Counts, elapsed: Duration, now: Timestamp) -> String {
    let Counts { done, all, rows, rows_before, pace, forecast, .. } = counts;
    let rows = rows.map_or_else(String::new, |rows| {
        format!(", {rows} rows, {}/min", (rows - rows_before) * 60 / elapsed.as_secs().max(1))
    });
    let left = all.saturating_sub(*done);
    let end = match time_left(*forecast, *pace, left, elapsed) {
        _ if left == 0 => String::new(),
        Some(time) => format!(", ends ~{}", clock_time(now + time, now)),
        None => ", end not known yet".to_owned(),
    };
    format!("{done}/{all} days{rows}, {} calls{end}", pace.calls)
}

/// `14:35 UTC`, with the date if it is another day.
fn clock_time(time: Timestamp, now: Timestamp) -> String {
    let day = Duration::from_hours(24);
    let format = if time.floor_to(day) == now.floor_to(day) { "%H:%M UTC" } else { "%d %b %H:%M UTC" };
    time.to_timestamp().strftime(format).to_string()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::window::Bound;

    #[test]
    fn line_has_rows_calls_rate_and_end() {
        let now = Bound::parse("2026-02-25T23:00:00").unwrap().start();
        let forecast = Forecast { made_at: Duration::ZERO, calls_before: 0, calls: 60, wait: Duration::from_mins(30) };
        let pace = Pace { calls: 10, ..Pace::default() };
        let mut counts = Counts { done: 3, all: 365, rows: Some(5_100), rows_before: 1_700, pace, ..Counts::default() };
        let minute = Duration::from_mins(2);
        let line = |counts: &Counts| describe(counts, minute, now);
        assert_eq!(line(&counts), "3/365 days, 5100 rows, 1700/min, 10 calls, end not known yet");
        counts.forecast = Some(forecast);
        assert_eq!(line(&counts), "3/365 days, 5100 rows, 1700/min, 10 calls, ends ~23:28 UTC");
        counts.forecast = Some(Forecast { wait: Duration::from_hours(2), ..forecast });
        assert_eq!(line(&counts), "3/365 days, 5100 rows, 1700/min, 10 calls, ends ~26 Feb 00:58 UTC");
        assert_eq!(line(&Counts { done: 365, rows: None, ..counts }), "365/365 days, 10 calls");
    }
}
