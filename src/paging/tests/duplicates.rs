//! Rows that stand twice in the upstream: they are brought as they stand, and nothing else is taken for such.

use super::*;

const SECONDS: i64 = 400;

fn interval() -> Interval {
    Interval::new(Timestamp::from_seconds(0), Timestamp::from_seconds(SECONDS))
}

/// A row each second, and besides those at these milliseconds, each with the name of a row that is there.
fn with_again(again: &[(i64, i64)], order: Rows) -> Upstream {
    let row = |at: i64, name: i64| (Timestamp::from_millis(at), format!("ac-{name:04}"));
    let rows = (0..350).map(|n| row(n * 1000, n)).chain(again.iter().map(|(at, name)| row(*at, *name)));
    upstream(rows.collect(), order, UpperBound::Exclusive)
}

#[test]
fn doubled_row_costs_one_more_call() {
    for order in [Rows::Ascending, Rows::Descending, Rows::ByName] {
        let upstream = with_again(&[(150_000, 150)], order);
        let rows = expected(&upstream.rows, interval());
        let played = run(upstream, interval(), PlacementCheck::Checked);
        assert_eq!(played.calls, 4 + 1, "{order:?}");
        let items = played.items(interval());
        assert!(items == rows && items.len() == 351, "{order:?}: {}", items.len());
    }
}

#[test]
fn row_in_two_seconds_costs_two_more_calls() {
    let upstream = with_again(&[(250_500, 150)], Rows::Ascending);
    let rows = expected(&upstream.rows, interval());
    let played = run(upstream, interval(), PlacementCheck::Checked);
    assert_eq!(played.calls, 4 + 2);
    assert_eq!(played.items(interval()), rows);
}

#[test]
fn exact_window_repeats_rows_as_the_upstream() {
    let upstream = with_again(&[(150_000, 150), (150_000, 150)], Rows::Ascending);
    let played = run(upstream, interval(), PlacementCheck::Unchecked);
    assert_eq!(played.calls, 4 + 1);
    assert_eq!(played.items(interval()).len(), 352);
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(64))]

    /// Whatever stands twice, and whatever arrives meanwhile: nothing that was there is lost, or comes too often.
    #[test]
    fn rows_come_as_often_as_they_stand(
        again in prop::collection::vec((0i64..350, prop_oneof![Just(0i64), 0i64..60_000]), 0..5),
        arrivals in prop::collection::vec((1u64..8, 0i64..400_000), 0..4),
        order in prop_oneof![Just(Rows::Ascending), Just(Rows::Descending), Just(Rows::ByName), Just(Rows::Ties)]
    ) {
        let again: Vec<_> = again.into_iter().map(|(name, later)| (name * 1000 + later, name)).collect();
        let mut upstream = with_again(&again, order);
        upstream.arrivals = arrivals.into_iter().enumerate()
            .map(|(n, (call, at))| (call, Timestamp::from_millis(at), format!("late-{n}"))).collect();
        let before = expected(&upstream.rows, interval());
        match run_all(upstream, interval()).0 {
            Ok(mut items) => {
                items.retain(|item| !item.windows(5).any(|five| five == b"late-"));
                prop_assert_eq!(items, before);
            }
            Err(error) => prop_assert!(matches!(error, PagingError::Torn(_)), "{:?}", error),
        }
    }
}
