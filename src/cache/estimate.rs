//! How many calls a fetch will take, by how dense what is there already is. Pure.

use std::time::Duration;

use crate::upstream::PAGE_LIMIT;
use crate::window::Span;

const HOUR: Duration = Duration::from_hours(1);

/// How many items lie in how much time.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) struct Amount {
    pub(super) items: u64,
    pub(super) length: Duration,
}

impl Amount {
    pub(super) fn add(&mut self, items: usize, length: Duration) {
        self.items += items as u64;
        self.length += length;
    }

    #[expect(clippy::cast_precision_loss, reason = "an estimate")]
    fn per_second(self) -> f64 {
        self.items as f64 / self.length.as_secs_f64()
    }
}

/// What is known of a series. Conversations follow the hours of a working day, so each hour of the UTC day is known by
/// itself; one of which less than an hour was ever seen is taken to be like all that was seen.
#[derive(Clone, Debug, Default)]
pub(super) struct Density {
    all: Amount,
    hours: [Amount; 24],
}

impl Density {
    /// A stretch of time was seen; `items` gives how many lie in a part of it.
    pub(super) fn add(&mut self, seen: Span, items: impl Fn(Span) -> usize) {
        for (hour, part) in seen.by_hour() {
            let (items, length) = (items(part), part.length());
            self.all.add(items, length);
            self.hours[hour].add(items, length);
        }
    }

    /// So many items were seen in so much time, but not where in it they lie.
    pub(super) fn add_somewhere(&mut self, length: Duration, items: usize) {
        self.all.add(items, length);
    }

    /// All that was seen.
    pub(super) fn seen(&self) -> Amount {
        self.all
    }

    /// How many calls these runs will take, each at least one; `None` if nothing was seen.
    pub(super) fn calls(&self, runs: &[Span]) -> Option<u64> {
        if !runs.is_empty() && self.all.length.is_zero() {
            return None;
        }
        Some(runs.iter().map(|run| self.items(*run).div_ceil(u64::from(PAGE_LIMIT)).max(1)).sum())
    }

    fn items(&self, run: Span) -> u64 {
        let items: f64 = run.by_hour().map(|(hour, part)| self.per_second(hour) * part.length().as_secs_f64()).sum();
        // Rounded, so that what comes out even on paper is no page more for the last digit of a fraction.
        #[expect(clippy::cast_possible_truncation, clippy::cast_sign_loss, reason = "an `as` saturates")]
        let items = items.round() as u64;
        items
    }

    fn per_second(&self, hour: usize) -> f64 {
        let of_this_hour = self.hours[hour];
        if of_this_hour.length >= HOUR { of_this_hour.per_second() } else { self.all.per_second() }
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::window::Moment;

    const DAY: i64 = 24 * 3600;

    fn span(start: i64, end: i64) -> Span {
        Span::new(Moment::from_seconds(start), Moment::from_seconds(end))
    }

    #[test]
    fn nothing_is_known_before_something_was_seen() {
        let density = Density::default();
        assert_eq!(density.calls(&[span(0, 10)]), None);
        assert_eq!(density.calls(&[]), Some(0), "what asks for nothing costs nothing all the same");
    }

    #[test]
    fn an_even_stream_costs_its_pages_and_each_run_a_call_at_least() {
        let mut density = Density::default();
        // An item each ten seconds.
        density.add(span(0, DAY), |part| usize::try_from(part.length().as_secs() / 10).unwrap());
        assert_eq!(density.seen(), Amount { items: 8640, length: Duration::from_hours(24) });
        for (runs, calls) in [
            (vec![span(DAY, 2 * DAY)], 87),
            (vec![span(DAY, DAY + 1000)], 1),
            (vec![span(DAY, DAY + 1010)], 2),
            (vec![span(DAY, DAY + 10), span(3 * DAY, 3 * DAY + 10), span(5 * DAY, 5 * DAY + 2000)], 4),
        ] {
            assert_eq!(density.calls(&runs), Some(calls), "{runs:?}");
        }
    }

    #[test]
    fn an_hour_of_the_day_is_known_by_itself() {
        let mut density = Density::default();
        density.add(span(0, 3600), |_| 0);
        density.add(span(9 * 3600, 10 * 3600), |_| 2000);
        // Too little to know this hour by.
        density.add(span(20 * 3600, 20 * 3600 + 60), |_| 0);
        let at =
            |density: &Density, hour: i64| density.calls(&[span(DAY + hour * 3600, DAY + (hour + 1) * 3600)]).unwrap();
        assert_eq!((at(&density, 0), at(&density, 9)), (1, 20));
        assert_eq!((at(&density, 12), at(&density, 20)), (10, 10), "as all that was seen");
        density.add_somewhere(Duration::from_mins(119), 0);
        assert_eq!((at(&density, 9), at(&density, 12)), (20, 5));
    }

    proptest! {
        /// However what was seen lies in copies, the same comes out.
        #[test]
        fn the_copies_it_was_seen_in_do_not_matter(cuts in prop::collection::vec(0i64..2 * DAY, 0..12), at in 0i64..9 * DAY, length in 1i64..3 * DAY) {
            let items = |part: Span| {
                let before = |moment: Moment| usize::try_from(moment.as_seconds() * moment.as_seconds() / 90_000_000).unwrap();
                before(part.end) - before(part.start)
            };
            let (mut whole, mut cut) = (Density::default(), Density::default());
            whole.add(span(0, 2 * DAY), items);
            let mut lines = [cuts, vec![0, 2 * DAY]].concat();
            lines.sort_unstable();
            lines.windows(2).for_each(|pair| cut.add(span(pair[0], pair[1]), items));
            let runs = [span(at, at + length)];
            prop_assert_eq!(whole.seen(), cut.seen());
            prop_assert_eq!(whole.calls(&runs), cut.calls(&runs));
        }
    }
}
