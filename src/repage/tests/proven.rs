//! Long walks over what is settled, which are proven now and then.

use super::*;

const EACH: usize = 2_500;

fn seconds(start: i64, end: i64) -> Span {
    Span::new(Moment::from_seconds(start), Moment::from_seconds(end))
}

/// A row each second, and a proof after each 25 pages.
fn each_second(count: i64, order: Rows) -> Upstream {
    let rows = (0..count).map(|second| (Moment::from_seconds(second), format!("ac-{second:05}"))).collect();
    Upstream { proven_each: EACH, ..upstream(rows, order, UpperBound::Exclusive) }
}

/// Where what was proven at once ends.
fn lines(stretches: &[Stretch]) -> Vec<i64> {
    let mut lines: Vec<_> = stretches.iter().map(|stretch| stretch.span).collect();
    lines.retain(|span| span.end.as_seconds() % 20 != 0);
    lines.into_iter().map(|span| span.end.as_seconds()).collect()
}

#[test]
fn a_long_walk_is_proven_now_and_then_with_a_call_each() {
    for order in [Rows::Ascending, Rows::Descending] {
        let (result, calls, upstream) = run(each_second(9_950, order), seconds(0, 9_960), Placed::Checked);
        let stretches = result.unwrap();
        if order == Rows::Ascending {
            assert_eq!(lines(&stretches), [2_499, 4_998, 7_497]);
        }
        assert_eq!(together(stretches, seconds(0, 9_960)), expected(&upstream.rows, seconds(0, 9_960)));
        assert_eq!(calls, 100 + 3, "{order:?}");
    }
}

#[test]
fn a_walk_that_is_no_longer_costs_nothing_more() {
    let (result, calls, _) = run(each_second(2_500, Rows::Ascending), seconds(0, 2_500), Placed::Checked);
    assert_eq!((together(result.unwrap(), seconds(0, 2_500)).len(), calls), (2_500, 25));
}

/// What moves is walked again from where it was proven last.
#[test]
fn rows_that_move_cost_only_what_has_been_walked_since_the_last_proof() {
    let mut upstream = each_second(9_950, Rows::Ascending);
    // While the 40th page of the run is asked for, a row arrives in front of it, and one that no proof tells of any more.
    upstream.arrivals = vec![
        (41, Moment::from_millis(1_000_500), "late-0".to_owned()),
        (41, Moment::from_millis(3_000_500), "late-1".to_owned()),
    ];
    let (result, calls, upstream) = run(upstream, seconds(0, 9_960), Placed::Checked);
    let mut rows = upstream.rows.clone();
    rows.retain(|(_, name)| name != "late-0");
    assert_eq!(together(result.unwrap(), seconds(0, 9_960)), expected(&rows, seconds(0, 9_960)));
    // Fifteen pages of which the last told of it, and a call to see whether anything of them holds.
    assert_eq!(calls, 103 + 15 + 1);
}
