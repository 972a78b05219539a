//! Whoever waits is told of the pages that are its own.

use super::*;
use crate::upstream::Patience;

/// How many pages were told to those who need these parts of a run over 300 s with a row each: four pages, the last with
/// one row only.
fn told(order: Rows, placed: Placed, needs: [(i64, i64); 3]) -> [u32; 3] {
    let span = |(start, end)| Span::new(Moment::from_seconds(start), Moment::from_seconds(end));
    let rows: Vec<_> = (0..301).map(|second| (Moment::from_seconds(second), format!("ac-{second:05}"))).collect();
    let demand = Demand::new(Asker::anyone());
    let waiting = needs.map(|need| {
        let patience = Arc::new(Patience::new(Duration::ZERO));
        let waiting = demand.join_with(&patience, Asker::anyone(), span(need)).unwrap();
        (patience, waiting)
    });
    let (result, calls, _) = run_for(&demand, upstream(rows, order, UpperBound::Exclusive), span((0, 301)), placed);
    assert!(result.is_ok() && calls == 4);
    waiting.map(|(patience, _)| patience.waited().pages)
}

#[test]
fn a_page_is_told_to_those_who_need_something_of_it() {
    let needs = [(0, 301), (110, 150), (250, 301)];
    assert_eq!(told(Rows::Ascending, Placed::Checked, needs), [4, 1, 2]);
    assert_eq!(told(Rows::Descending, Placed::Checked, needs), [4, 1, 1]);
    assert_eq!(told(Rows::ByName, Placed::Checked, needs), [4, 4, 3], "most pages are anybody's, and one row is not");
    assert_eq!(told(Rows::Ascending, Placed::Unchecked, needs), [4, 4, 4], "it cannot be cut");
}

#[test]
fn what_lies_between_two_pages_is_told_of_by_the_second() {
    assert_eq!(told(Rows::Ascending, Placed::Checked, [(99, 100), (100, 101), (300, 301)]), [2, 1, 1]);
}
