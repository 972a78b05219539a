//! Which cells of a stream are in Redis. Redis has no index, so the key of each cell is asked for.

use std::sync::Arc;

use crate::cache::handles::CacheHandles;
use crate::cache::redis::keys::ChunkKeys;
use crate::config::SeriesSettings;
use crate::redis_client::{Command, ConnectionError, Reply};
use crate::request::{Filter, Series};
use crate::window::{Grid, Interval, IntervalSet};

/// Commands of one exchange: few enough to be answered within the timeout.
const KEYS_PER_EXCHANGE: usize = 512;

/// The part of some time that is in Redis.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct RedisCoverage {
    /// The part of the time whose cells are there.
    pub time: IntervalSet,
    /// Number of cells that were asked for.
    pub asked: usize,
    /// Number of cells that were not asked for.
    pub left_out: usize,
}

impl CacheHandles {
    /// The part of `time` whose cells are in Redis, of requests without a filter; `None` without Redis. Asks for
    /// the latest `max_cells` cells at most.
    ///
    /// # Errors
    /// If Redis does not answer.
    pub async fn redis_coverage(
        &self,
        settings: &SeriesSettings,
        account: &Arc<str>,
        stream: &Arc<str>,
        time: &IntervalSet,
        max_cells: usize,
    ) -> Option<Result<RedisCoverage, ConnectionError>> {
        let (config, mailbox) = self.redis.as_ref()?;
        let keys = ChunkKeys::new(&config.prefix, settings);
        let (cells, left_out) = latest_cells(&Grid::new(settings.chunk()), time, max_cells);
        let mut found = IntervalSet::default();
        for cells in cells.chunks(KEYS_PER_EXCHANGE / 2) {
            // The cells of items with agentic data serve requests without it too.
            let key_of = |cell: &Interval, agentic| {
                let (account, stream) = (account.clone(), stream.clone());
                let series = Series { account, stream, filter: Filter::None, parameters: Vec::new(), agentic };
                keys.cells(&series, &IntervalSet::from(*cell))
            };
            let names = cells.iter().flat_map(|cell| [key_of(cell, false), key_of(cell, true)].concat());
            let commands: Vec<_> = names.map(|name| Command::new("EXISTS").arg(name)).collect();
            let replies = match mailbox.redis().run(commands).await {
                Ok(replies) => replies,
                Err(error) => return Some(Err(error)),
            };
            for (cell, replies) in cells.iter().zip(replies.chunks(2)) {
                if replies.iter().any(|reply| matches!(reply, Reply::Integer(1..))) {
                    time.within(*cell).for_each(|part| found.insert(part));
                }
            }
        }
        Some(Ok(RedisCoverage { time: found, asked: cells.len(), left_out }))
    }
}

/// The cells that `time` overlaps, the latest first, at most `max_cells`, and how many were left out.
fn latest_cells(grid: &Grid, time: &IntervalSet, max_cells: usize) -> (Vec<Interval>, usize) {
    let mut cells = Vec::new();
    let mut left_out = 0;
    for interval in time.intervals().iter().rev() {
        let mut at = interval.end.previous_tick();
        while at >= interval.start {
            let cell = grid.cell(at);
            if cells.last() != Some(&cell) {
                if cells.len() < max_cells {
                    cells.push(cell);
                } else {
                    left_out += 1;
                }
            }
            at = cell.start.previous_tick();
        }
    }
    (cells, left_out)
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;
    use crate::window::Timestamp;

    #[test]
    fn latest_cells_come_first_and_the_rest_is_counted() {
        let hour = |hour: i64| Timestamp::from_seconds(hour * 3600);
        let grid = Grid::new(Duration::from_hours(1));
        let mut time = IntervalSet::from(Interval::new(hour(1), hour(3)));
        time.insert(Interval::new(hour(5) + Duration::from_mins(1), hour(5) + Duration::from_secs(90)));
        time.insert(Interval::new(hour(5) + Duration::from_mins(2), hour(6)));
        let cell = |start| Interval::new(hour(start), hour(start + 1));
        assert_eq!(latest_cells(&grid, &time, 10), (vec![cell(5), cell(2), cell(1)], 0));
        assert_eq!(latest_cells(&grid, &time, 2), (vec![cell(5), cell(2)], 1));
        assert_eq!(latest_cells(&grid, &IntervalSet::default(), 2), (vec![], 0));
    }
}
