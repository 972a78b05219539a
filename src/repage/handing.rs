//! What a walk hands on before it has ended, so that a long one is neither held in memory nor waited for.
//!
//! Its items go as soon as it has passed them, and are proven when it ends, or is cut: a long one now and then. Only what is settled goes, and only where
//! the rows come in order: else nobody can tell what is still to come of a part.

use std::sync::Arc;
use std::time::Duration;

use tokio::sync::Semaphore;

use super::walk::{Order, Placed, Walk, Watch};
use super::{Delivery, Run, Stretch};
use crate::upstream::PAGE_LIMIT;
use crate::window::{Moment, Span};

/// A run of so many pages is long,
const LONG: f64 = 60.0;
/// and one of so many if it is of more than a day: a usual day is soon there, and is answered with a status and a length.
const LONG_FOR_DAYS: f64 = 12.0;
const DAY: Duration = Duration::from_hours(24);
/// So many parts are on their way to who takes them.
const ON_THE_WAY: usize = 2;
/// More bytes than this go at the next second, and not only at the next line of the grid.
const MOST: usize = 2 << 20;

/// Hands on what the walks of one run have passed.
#[derive(Debug)]
pub(super) struct Handing {
    room: Arc<Semaphore>,
    /// The lines at which chunks are cut anyway.
    grid: Duration,
    is_long: bool,
}

impl Handing {
    pub(super) fn new(grid: Duration) -> Self {
        Self { room: Arc::new(Semaphore::new(ON_THE_WAY)), grid, is_long: false }
    }

    /// Hands on what `walk` has passed of `span`; `line` is the one nearest to its end on this side of which it has seen
    /// everything, if its order holds. Waits while those who take it are behind.
    pub(super) async fn hand_on(&mut self, run: &Run, walk: &mut Walk, span: Span, line: Moment, fetched_at: Moment) {
        self.tell_if_long(run, walk, span);
        let Some(passed) = self.passed(walk, span, line) else { return };
        let Ok(room) = self.room.clone().acquire_owned().await else { return };
        let items = walk.hand_on(passed);
        let _ = run.deliver.send(Delivery::Seen(Stretch { span: passed, items, fetched_at }, room));
    }

    fn tell_if_long(&mut self, run: &Run, walk: &Walk, span: Span) {
        let Some(last) = walk.last().filter(|_| !self.is_long && walk.order() == Order::Ascending) else { return };
        let walked = Span::new(span.start, last).length().as_secs_f64();
        #[expect(clippy::cast_precision_loss, reason = "an estimate")]
        let pages = walk.len() as f64 / f64::from(PAGE_LIMIT);
        // As dense as it was so far, it will be.
        let long = if span.length() > DAY { LONG_FOR_DAYS } else { LONG };
        if pages * span.length().as_secs_f64() / walked.max(1.0) >= long {
            self.is_long = true;
            let _ = run.deliver.send(Delivery::Long);
        }
    }

    /// The part that is to go now: all that has been passed, as far as a line of the grid or, if it is much, `line`.
    fn passed(&self, walk: &Walk, span: Span, line: Moment) -> Option<Span> {
        let (before, much) = (walk.handed_on(), walk.held() > MOST);
        let goes_to = |cell, is_passed, from| match (is_passed, much) {
            (true, _) => cell,
            (false, true) => line,
            (false, false) => from,
        };
        let part = match walk.order() {
            Order::Ascending => {
                let from = if before.is_empty() { span.start } else { before.end };
                let cell = line.floor_to(self.grid);
                Span::new(from, goes_to(cell, cell > from, from))
            }
            Order::Descending => {
                let from = if before.is_empty() { span.end } else { before.start };
                let cell = self.grid_line_from(line);
                Span::new(goes_to(cell, cell < from, from), from)
            }
            Order::Unknown | Order::Other => return None,
        };
        (part.start < part.end).then_some(part)
    }

    /// The first line of the grid that is not before `line`.
    fn grid_line_from(&self, line: Moment) -> Moment {
        let cell = line.floor_to(self.grid);
        if cell < line { cell + self.grid } else { cell }
    }
}

/// Whether the walks of a run over `span` may hand on what they have passed: nothing of it is to change any more.
pub(super) fn may_hand_on(span: Span, placed: Placed, watch: Watch, settled_before: Moment) -> bool {
    placed == Placed::Checked && watch == Watch::Order && span.end <= settled_before
}
