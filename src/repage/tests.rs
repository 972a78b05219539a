use std::sync::Mutex;

use bytes::Bytes;
use proptest::prelude::*;
use tower::{ServiceExt as _, service_fn};

use super::*;
use crate::upstream::{Asker, Filter};
use crate::window::{Bound, QueryBounds, UpperBound};

mod lines;
mod parted;
mod proven;
mod side_by_side;
mod told;

/// How the naive upstream orders its rows.
#[derive(Clone, Copy, Debug, PartialEq)]
enum Rows {
    Ascending,
    Descending,
    /// Always the same, but by name.
    ByName,
    /// Ascending, but rows of one second change places at each call.
    Ties,
    /// Anything at each call.
    Shuffled,
}

/// An upstream in one vector.
#[derive(Debug)]
struct Upstream {
    rows: Vec<(Moment, String)>,
    order: Rows,
    bound: UpperBound,
    page_limit: usize,
    calls: u64,
    /// At this call, before it is answered, these rows appear.
    arrivals: Vec<(u64, Moment, String)>,
    /// Before the page at this offset is answered for the first time, these rows appear.
    arrivals_at: Vec<(u64, Moment, String)>,
    /// The items show another timestamp than the one that is selected on, an hour later.
    misplaced: bool,
    /// More is promised behind each full page, even the last.
    promises_too_much: bool,
    /// Walks that hold more are cut.
    walk_bytes: usize,
    /// A proof is due each time that a walk has seen so many rows more.
    proven_each: usize,
    /// The row at this second shows no timestamp.
    timeless_at: Option<i64>,
    /// The page at this offset holds fewer items than it could, and promises more.
    short_page_at: Option<u64>,
}

impl Upstream {
    fn selected(&self, bounds: QueryBounds) -> Vec<(Moment, String)> {
        let span = self.bound.enclosed(Bound::Second(bounds.from), bounds.to);
        self.rows.iter().filter(|(at, _)| span.contains(*at)).cloned().collect()
    }

    fn answer(&mut self, request: &PageRequest) -> Page {
        self.calls += 1;
        let calls = self.calls;
        let arrived = self.arrivals.extract_if(.., |(call, ..)| *call <= calls).map(|(_, at, name)| (at, name));
        self.rows.extend(arrived);
        let arrived = self.arrivals_at.extract_if(.., |(offset, ..)| *offset == request.offset);
        self.rows.extend(arrived.map(|(_, at, name)| (at, name)));
        let mut rows = self.selected(request.bounds);
        let salted = |name: &str| xxhash_rust::xxh3::xxh3_64_with_seed(name.as_bytes(), calls);
        match self.order {
            Rows::Ascending => rows.sort(),
            Rows::Descending => rows.sort_by(|a, b| b.cmp(a)),
            Rows::ByName => rows.sort_by_key(|(_, name)| salted_once(name)),
            Rows::Ties => rows.sort_by_key(|(at, name)| (at.as_seconds(), salted(name))),
            Rows::Shuffled => rows.sort_by_key(|(_, name)| salted(name)),
        }
        let offset = usize::try_from(request.offset).unwrap().min(rows.len());
        let rest = &rows[offset..];
        let page_limit = if self.short_page_at == Some(request.offset) { self.page_limit / 2 } else { self.page_limit };
        let items = &rest[..rest.len().min(page_limit).min(request.limit as usize)];
        let shown = |(at, name): &(Moment, String)| {
            if self.timeless_at == Some(at.as_seconds()) {
                return format!(r#"{{"segmentID":"{name}","segmentStartTime":null}}"#).into();
            }
            let shown = if self.misplaced { *at + Duration::from_hours(1) } else { *at };
            json(&(shown, name.clone()))
        };
        let full = self.promises_too_much && items.len() == self.page_limit;
        let items = items.iter().map(shown).collect::<Vec<_>>();
        Page { has_more: full || items.len() < rest.len(), items, allowance: None }
    }
}

fn salted_once(name: &str) -> u64 {
    xxhash_rust::xxh3::xxh3_64(name.as_bytes())
}

fn json((at, name): &(Moment, String)) -> Bytes {
    format!(r#"{{"segmentID":"{name}","segmentStartTime":"{at}","n":1.0}}"#).into()
}

fn window(upper_bound: UpperBound) -> config::Window {
    config::Window {
        field: "segmentStartTime".into(),
        upper_bound,
        settle_after: Duration::ZERO,
        freshness: Vec::new(),
        // Short, so that much is handed on before a walk has ended.
        chunk: Duration::from_secs(20),
        max_span: Duration::MAX,
    }
}

/// Runs one run against `upstream`: the stretches or the error, and the calls spent.
fn run(upstream: Upstream, span: Span, placed: Placed) -> (Result<Vec<Stretch>, RepageError>, u64, Upstream) {
    run_for(&Demand::new(Asker::anyone()), upstream, span, placed)
}

/// The same for somebody.
fn run_for(
    demand: &Arc<Demand>,
    upstream: Upstream,
    span: Span,
    placed: Placed,
) -> (Result<Vec<Stretch>, RepageError>, u64, Upstream) {
    let (bound, walk_bytes, proven_each) = (upstream.bound, upstream.walk_bytes, upstream.proven_each);
    let shared = Arc::new(Mutex::new(upstream));
    let below = service_fn({
        let shared = shared.clone();
        move |request: PageRequest| {
            let page = shared.lock().unwrap().answer(&request);
            async move { Ok::<_, QuotaError>(page) }
        }
    });
    let settings = RepageLayer {
        window: window(bound),
        clock: settled(),
        queue_timeout: Duration::from_secs(1),
        walk_bytes,
        proven_each,
        places: Arc::default(),
    };
    let series =
        Series { account: "a".into(), stream: "s".into(), filter: Filter::None, parameters: vec![], rich: false };
    let (deliver, delivered) = mpsc::unbounded_channel();
    let run = Run { series: series.into(), span, placed, demand: demand.clone(), deliver };
    let runtime = tokio::runtime::Builder::new_current_thread().enable_time().build().unwrap();
    let (result, (stretches, left)) =
        runtime.block_on(async { tokio::join!(settings.layer(below).oneshot(run), take(delivered)) });
    assert!(left.is_empty());
    let upstream = Arc::try_unwrap(shared).unwrap().into_inner().unwrap();
    (result.map(|()| stretches), upstream.calls, upstream)
}

/// A time at which all that the tests ask for has settled.
fn settled() -> Clock {
    Clock::manual(Moment::from_seconds(1_000_000_000))
}

/// What a run delivers: the stretches that are proven, and what it leaves to others.
async fn take(mut delivered: mpsc::UnboundedReceiver<Delivery>) -> (Vec<Stretch>, Vec<(Span, Span)>) {
    let (mut stretches, mut seen, mut left) = (Vec::new(), Vec::new(), Vec::new());
    while let Some(delivery) = delivered.recv().await {
        match delivery {
            Delivery::Stretch(stretch) => stretches.push(stretch),
            Delivery::Seen(stretch, _) => seen.push(stretch),
            Delivery::Proven => stretches.append(&mut seen),
            Delivery::Refuted => seen.clear(),
            Delivery::Parted { rest, wanted } => left.push((rest, wanted)),
            Delivery::Begun | Delivery::Long => {}
            other => panic!("{other:?}"),
        }
    }
    (stretches, left)
}

/// Puts stretches together, which must tile `span`.
fn together(mut stretches: Vec<Stretch>, span: Span) -> Vec<Bytes> {
    // Of one that was handed on before, nothing is left.
    stretches.sort_by_key(|stretch| (stretch.span.start, stretch.span.end));
    assert_eq!(stretches.first().map(|s| s.span.start), Some(span.start));
    assert_eq!(stretches.last().map(|s| s.span.end), Some(span.end));
    assert!(stretches.windows(2).all(|pair| pair[0].span.end == pair[1].span.start), "a hole between stretches");
    stretches.into_iter().flat_map(|stretch| stretch.items).map(|item| item.json).collect()
}

fn expected(rows: &[(Moment, String)], span: Span) -> Vec<Bytes> {
    let mut rows: Vec<_> = rows.iter().filter(|(at, _)| span.contains(*at)).collect();
    rows.sort();
    rows.into_iter().map(json).collect()
}

fn rows() -> impl Strategy<Value = Vec<(Moment, String)>> {
    // Milliseconds in a few minutes, many of them shared, many on whole seconds.
    let at = prop_oneof![3 => 0i64..400_000, 1 => (0i64..400).prop_map(|s| s * 1000), 1 => 7_000i64..7_020];
    prop::collection::vec(at, 0..700).prop_map(|ats| {
        ats.into_iter()
            .enumerate()
            .map(|(n, at)| (Moment::from_millis(at), format!("ac-{:05}", n * 7919 % 10007)))
            .collect()
    })
}

fn any_bound() -> impl Strategy<Value = UpperBound> {
    prop_oneof![Just(UpperBound::Inclusive), Just(UpperBound::Exclusive)]
}

fn upstream(rows: Vec<(Moment, String)>, order: Rows, bound: UpperBound) -> Upstream {
    Upstream {
        rows,
        order,
        bound,
        page_limit: 100,
        calls: 0,
        arrivals: Vec::new(),
        arrivals_at: Vec::new(),
        misplaced: false,
        promises_too_much: false,
        walk_bytes: usize::MAX,
        proven_each: usize::MAX,
        timeless_at: None,
        short_page_at: None,
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(96))]

    #[test]
    fn a_run_over_rows_that_hold_still_is_whole_and_costs_no_call_too_many(
        rows in rows(), bound in any_bound(), start in 0i64..300, length in 1i64..400, page_limit in 20usize..=100,
        order in prop_oneof![Just(Rows::Ascending), Just(Rows::Descending), Just(Rows::ByName)]
    ) {
        let span = bound.enclosed(Bound::Second(Moment::from_seconds(start)), Bound::Second(Moment::from_seconds(start + length)));
        let mut upstream = upstream(rows, order, bound);
        upstream.page_limit = page_limit;
        let (result, calls, upstream) = run(upstream, span, Placed::Checked);
        let items = together(result.unwrap(), span);
        prop_assert_eq!(&items, &expected(&upstream.rows, span));
        prop_assert_eq!(calls, items.len().div_ceil(page_limit).max(1) as u64);
    }

    #[test]
    fn rows_that_change_places_are_put_in_order(
        rows in rows(), bound in any_bound(), order in prop_oneof![Just(Rows::Ties), Just(Rows::Shuffled)]
    ) {
        // At most 100 of these rows share a second: more of them would be refused, which is tested below.
        let span = bound.enclosed(Bound::Second(Moment::from_seconds(0)), Bound::Second(Moment::from_seconds(400)));
        let mut in_second = HashMap::<i64, usize>::new();
        let rows: Vec<_> = rows.into_iter().filter(|(at, _)| {
            let count = in_second.entry(at.as_seconds()).or_default();
            *count += 1;
            *count <= 50
        }).collect();
        let (result, _, upstream) = run(upstream(rows, order, bound), span, Placed::Checked);
        prop_assert_eq!(together(result.unwrap(), span), expected(&upstream.rows, span));
    }

    /// Every row that was there from the beginning is in the answer once, whatever arrives meanwhile.
    #[test]
    fn rows_that_arrive_push_no_row_out(
        rows in rows(), bound in any_bound(), arrivals in prop::collection::vec((1u64..8, 0i64..400_000), 1..6),
        order in prop_oneof![Just(Rows::Ascending), Just(Rows::Descending), Just(Rows::ByName)]
    ) {
        let span = bound.enclosed(Bound::Second(Moment::from_seconds(0)), Bound::Second(Moment::from_seconds(400)));
        let before = expected(&rows, span);
        let mut upstream = upstream(rows, order, bound);
        upstream.arrivals = arrivals.into_iter().enumerate()
            .map(|(n, (call, at))| (call, Moment::from_millis(at), format!("late-{n}"))).collect();
        let (result, ..) = run(upstream, span, Placed::Checked);
        let mut items = together(result.unwrap(), span);
        items.retain(|item| !item.windows(5).any(|five| five == b"late-"));
        prop_assert_eq!(items, before);
    }
}

#[test]
fn a_second_that_never_holds_still_is_an_error_and_not_a_hole() {
    let rows = (0..150).map(|n| (Moment::from_seconds(7), format!("ac-{n}"))).collect();
    let span = Span::new(Moment::from_seconds(0), Moment::from_seconds(60));
    let (result, calls, _) = run(upstream(rows, Rows::Shuffled, UpperBound::Exclusive), span, Placed::Checked);
    assert!(matches!(result, Err(RepageError::Torn)), "{result:?}");
    assert!(calls < 40, "{calls} calls");
}

/// The items show a timestamp that is an hour off from the one the upstream selects on.
#[test]
fn items_out_of_place_are_not_cut_but_may_be_served_whole() {
    let rows: Vec<_> = (0..50).map(|n| (Moment::from_seconds(n), format!("ac-{n}"))).collect();
    let span = Span::new(Moment::from_seconds(0), Moment::from_seconds(60));
    let misplaced = |rows: Vec<(Moment, String)>| {
        let mut upstream = upstream(rows, Rows::Ascending, UpperBound::Exclusive);
        upstream.misplaced = true;
        upstream
    };
    let (result, calls, _) = run(misplaced(rows.clone()), span, Placed::Checked);
    assert!(matches!(result, Err(RepageError::WindowField)), "{result:?}");
    assert_eq!(calls, 2, "a freak answer gets one more chance");
    let (result, calls, _) = run(misplaced(rows), span, Placed::Unchecked);
    assert_eq!((together(result.unwrap(), span).len(), calls), (50, 1));
}

#[test]
fn an_item_without_a_timestamp_spoils_its_run_and_no_account() {
    let rows: Vec<_> = (0..50).map(|n| (Moment::from_seconds(n), format!("ac-{n}"))).collect();
    let span = Span::new(Moment::from_seconds(0), Moment::from_seconds(60));
    let mut upstream = upstream(rows, Rows::Ascending, UpperBound::Exclusive);
    upstream.timeless_at = Some(30);
    let (result, ..) = run(upstream, span, Placed::Checked);
    assert!(matches!(result, Err(RepageError::Unplaced)), "{result:?}");
}

#[test]
fn an_upstream_that_promises_too_much_is_believed_the_second_time() {
    let rows: Vec<_> = (0..200).map(|n| (Moment::from_seconds(n), format!("ac-{n:03}"))).collect();
    let span = Span::new(Moment::from_seconds(0), Moment::from_seconds(600));
    let mut upstream = upstream(rows.clone(), Rows::Ascending, UpperBound::Exclusive);
    upstream.promises_too_much = true;
    let (result, calls, _) = run(upstream, span, Placed::Checked);
    assert_eq!(together(result.unwrap(), span), expected(&rows, span));
    assert_eq!(calls, 6);
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(64))]

    /// A walk that grows too large is cut where it is proven whole, for one call each time.
    #[test]
    fn a_walk_that_is_cut_loses_nothing(
        rows in rows(), bound in any_bound(), walk_bytes in 5_000usize..60_000,
        order in prop_oneof![Just(Rows::Ascending), Just(Rows::Descending), Just(Rows::ByName), Just(Rows::Ties)]
    ) {
        let span = bound.enclosed(Bound::Second(Moment::from_seconds(0)), Bound::Second(Moment::from_seconds(400)));
        let mut upstream = upstream(rows, order, bound);
        upstream.walk_bytes = walk_bytes;
        let (result, _, upstream) = run(upstream, span, Placed::Checked);
        match result {
            Ok(stretches) => prop_assert_eq!(together(stretches, span), expected(&upstream.rows, span)),
            // Many rows of one second that change places may be more than can be told apart; a hole they are not.
            Err(error) => prop_assert!(order == Rows::Ties && matches!(error, RepageError::Torn), "{:?}", error),
        }
    }
}
