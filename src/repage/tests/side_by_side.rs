//! Runs whose pages are fetched side by side, from an upstream that takes its time. The clock is tokio's, and stands
//! still but for what is waited for.

use std::sync::atomic::{AtomicUsize, Ordering};

use tokio::time::{Instant, sleep};

use super::*;
use crate::token::TokenError;
use crate::upstream::{Class, UpstreamError};

const AT_ONCE: usize = 8;
const PAGE: Duration = Duration::from_millis(150);

/// What becomes of a call instead, if anything; told of which number it is.
type Instead = dyn Fn(u64, &PageRequest) -> Option<QuotaError> + Send + Sync;

/// How an upstream is to answer.
#[derive(Clone)]
struct Manner {
    /// How long the nth call takes, which is for the page at this offset.
    takes: Arc<dyn Fn(u64, u64) -> Duration + Send + Sync>,
    instead: Arc<Instead>,
    /// Somebody urgent comes to wait for this at this call.
    visit: Option<(u64, Span)>,
}

impl Default for Manner {
    fn default() -> Self {
        Self { takes: Arc::new(|_, _| PAGE), instead: Arc::new(|_, _| None), visit: None }
    }
}

/// What became of a run.
struct Told {
    result: Result<(), RepageError>,
    stretches: Vec<Stretch>,
    left: Vec<Span>,
    took: Duration,
    calls: u64,
    /// The most that were under way at once.
    at_once: usize,
    /// The calls that its answer would tell of.
    charged: u32,
}

impl Told {
    fn items(self, span: Span) -> Vec<Bytes> {
        self.result.unwrap();
        together(self.stretches, span)
    }
}

fn run_slowly(upstream: Upstream, span: Span, manner: &Manner) -> Told {
    let settings = RepageLayer {
        window: window(upstream.bound),
        clock: settled(),
        queue_timeout: Duration::from_secs(1),
        walk_bytes: upstream.walk_bytes,
        proven_each: upstream.proven_each,
        places: Arc::new(HashMap::from([("a".into(), Places::new(AT_ONCE))])),
    };
    let shared = Arc::new(Mutex::new(upstream));
    let (under_way, most, calls) =
        (Arc::new(AtomicUsize::new(0)), Arc::new(AtomicUsize::new(0)), Arc::new(Mutex::new(0)));
    let waiting = Arc::new(Mutex::new(None));
    let below = service_fn({
        let (shared, under_way, most, calls) = (shared.clone(), under_way.clone(), most.clone(), calls.clone());
        let manner = manner.clone();
        move |request: PageRequest| {
            let (shared, under_way, most, calls) = (shared.clone(), under_way.clone(), most.clone(), calls.clone());
            let (manner, waiting) = (manner.clone(), waiting.clone());
            async move {
                let number = {
                    let mut calls = calls.lock().unwrap();
                    *calls += 1;
                    *calls
                };
                if let Some(error @ QuotaError::Exhausted(_)) = (manner.instead)(number, &request) {
                    // It never gets as far as the upstream.
                    *calls.lock().unwrap() -= 1;
                    return Err(error);
                }
                assert!(request.demand.begin(Duration::ZERO), "it is wanted");
                if let Some((_, need)) = manner.visit.filter(|(at, _)| *at == number) {
                    *waiting.lock().unwrap() = request.demand.join(Asker::anyone(), need);
                }
                let now = under_way.fetch_add(1, Ordering::Relaxed) + 1;
                most.fetch_max(now, Ordering::Relaxed);
                // The rows are looked at in the middle of it.
                sleep((manner.takes)(number, request.offset) / 2).await;
                let page = shared.lock().unwrap().answer(&request);
                sleep((manner.takes)(number, request.offset) / 2).await;
                under_way.fetch_sub(1, Ordering::Relaxed);
                match (manner.instead)(number, &request) {
                    Some(error) => Err(error),
                    None => Ok(page),
                }
            }
        }
    });
    let series =
        Series { account: "a".into(), stream: "s".into(), filter: Filter::None, parameters: vec![], rich: false };
    let (deliver, delivered) = mpsc::unbounded_channel();
    let demand = Demand::new(Asker { class: Class::Background, ..Asker::anyone() });
    let run = Run { series: series.into(), span, placed: Placed::Checked, demand: demand.clone(), deliver };
    let runtime = tokio::runtime::Builder::new_current_thread().enable_time().start_paused(true).build().unwrap();
    let (result, took, (stretches, left)) = runtime.block_on(async {
        let begun = Instant::now();
        let (result, delivered) = tokio::join!(settings.layer(below).oneshot(run), take(delivered));
        let took = begun.elapsed();
        // What nobody waits for any more ends too.
        while under_way.load(Ordering::Relaxed) > 0 {
            sleep(PAGE).await;
        }
        (result, took, delivered)
    });
    let left = left.into_iter().map(|(rest, _)| rest).collect();
    let calls = *calls.lock().unwrap();
    Told { result, stretches, left, took, calls, at_once: most.load(Ordering::Relaxed), charged: demand.charge() }
}

/// So many rows, a second apart.
fn seconds(count: i64) -> Vec<(Moment, String)> {
    (0..count).map(|n| (Moment::from_seconds(n), format!("ac-{n:06}"))).collect()
}

fn span(end: i64) -> Span {
    Span::new(Moment::from_seconds(0), Moment::from_seconds(end))
}

fn slowly(order: Rows, rows: i64, manner: &Manner) -> Told {
    run_slowly(upstream(seconds(rows), order, UpperBound::Exclusive), span(rows), manner)
}

#[test]
fn a_long_run_takes_a_sixth_of_the_time_and_next_to_no_call_more() {
    for order in [Rows::Ascending, Rows::Descending] {
        let told = slowly(order, 11_850, &Manner::default());
        assert!(told.took * 6 <= PAGE * 119, "{order:?}: {:?}", told.took);
        assert!((119..=120).contains(&told.calls), "{order:?}: {} calls", told.calls);
        assert_eq!((told.at_once, u64::from(told.charged)), (AT_ONCE, told.calls), "{order:?}");
        assert_eq!(told.items(span(11_850)), expected(&seconds(11_850), span(11_850)), "{order:?}");
    }
}

/// Between two walks there is nothing to read ahead of.
#[test]
fn a_walk_that_is_proven_now_and_then_takes_little_longer() {
    for order in [Rows::Ascending, Rows::Descending] {
        let proven = Upstream { proven_each: 2_500, ..upstream(seconds(11_850), order, UpperBound::Exclusive) };
        let told = run_slowly(proven, span(11_850), &Manner::default());
        // A proof, and the pages in front of it and behind it that are alone.
        assert!(told.took <= PAGE * 119 / 6 + PAGE * 2 * 4, "{order:?}: {:?}", told.took);
        assert!((119 + 3..=119 + 5).contains(&told.calls), "{order:?}: {} calls", told.calls);
        assert_eq!(told.items(span(11_850)), expected(&seconds(11_850), span(11_850)), "{order:?}");
    }
}

#[test]
fn where_pages_come_quickly_they_come_one_after_the_other() {
    let quick = Manner { takes: Arc::new(|_, _| Duration::from_millis(20)), ..Manner::default() };
    let told = slowly(Rows::Ascending, 11_850, &quick);
    assert_eq!((told.calls, told.at_once), (119, 1));
    // One that is slow says nothing.
    let mostly = Manner { takes: Arc::new(|n, _| Duration::from_millis(if n % 5 == 0 { 900 } else { 20 })), ..quick };
    let told = slowly(Rows::Ascending, 11_850, &mostly);
    assert_eq!((told.calls, told.at_once), (119, 1));
}

#[test]
fn in_no_plain_order_they_come_one_after_the_other() {
    let told = slowly(Rows::ByName, 1_950, &Manner::default());
    assert_eq!((told.calls, told.at_once), (20, 1));
}

#[test]
fn short_pages_that_promise_more_are_walked_one_after_the_other() {
    let mut upstream = upstream(seconds(3_000), Rows::Ascending, UpperBound::Exclusive);
    upstream.page_limit = 60;
    let told = run_slowly(upstream, span(3_000), &Manner::default());
    assert_eq!((told.calls, told.at_once), (50, 1));
}

/// What was asked for behind a page that is short all of a sudden begins elsewhere than the walk goes on.
#[test]
fn a_page_that_is_short_all_of_a_sudden_is_no_hole() {
    let mut short = upstream(seconds(3_000), Rows::Ascending, UpperBound::Exclusive);
    short.short_page_at = Some(700);
    let told = run_slowly(short, span(3_000), &Manner::default());
    assert!(told.at_once > 1 && told.calls <= 31 + AT_ONCE as u64, "{} calls", told.calls);
    assert_eq!(told.items(span(3_000)), expected(&seconds(3_000), span(3_000)));
}

fn no_room() -> QuotaError {
    QuotaError::Exhausted(Exhausted { retry_after: Duration::ZERO })
}

#[test]
fn without_room_for_more_than_one_they_come_one_after_the_other() {
    let scarce = Manner { instead: Arc::new(|_, request| request.ahead.then(no_room)), ..Manner::default() };
    let told = slowly(Rows::Ascending, 2_950, &scarce);
    assert_eq!((told.calls, told.at_once), (30, 1));
    assert_eq!(told.items(span(2_950)).len(), 2_950);
}

#[test]
fn what_fails_ahead_matters_only_when_the_walk_gets_there() {
    let broken = || QuotaError::Token(TokenError::Upstream(UpstreamError::BrokenOff));
    // All that is asked for ahead fails, now and then or always: the walk asks for it again.
    for each in [1, 2, 5] {
        let fails = move |n: u64, request: &PageRequest| (request.ahead && n.is_multiple_of(each)).then(broken);
        let told = slowly(Rows::Ascending, 2_950, &Manner { instead: Arc::new(fails), ..Manner::default() });
        assert!(told.calls <= 30 + 30 / each + 8, "each {each}: {} calls", told.calls);
        assert_eq!(u64::from(told.charged), told.calls, "what it cost is counted");
        assert_eq!(told.items(span(2_950)), expected(&seconds(2_950), span(2_950)), "each {each}");
    }
    // And if that fails too, the run does.
    let fails = move |_: u64, request: &PageRequest| (request.offset == 1_500).then(broken);
    let told = slowly(Rows::Ascending, 2_950, &Manner { instead: Arc::new(fails), ..Manner::default() });
    assert!(matches!(told.result, Err(RepageError::Quota(QuotaError::Token(_)))), "{:?}", told.result);
}

#[test]
fn a_walk_that_grows_too_large_is_cut_and_loses_nothing() {
    for order in [Rows::Ascending, Rows::Descending] {
        let mut large = upstream(seconds(6_000), order, UpperBound::Exclusive);
        large.walk_bytes = 100_000;
        let told = run_slowly(large, span(6_000), &Manner::default());
        let cuts = told.stretches.len() as u64 - 1;
        assert!(cuts > 1 && told.at_once > 1, "{cuts} cuts");
        // A proof each, and the second of the last item once more.
        assert!(told.calls <= 60 + 3 * cuts, "{} calls for {cuts} cuts", told.calls);
        assert_eq!(told.items(span(6_000)), expected(&seconds(6_000), span(6_000)));
    }
}

/// Somebody urgent waits for a piece of a background run, while pages of it are under way ahead.
#[test]
fn a_run_that_is_parted_uses_what_was_asked_for_ahead() {
    let slow = Manner { takes: Arc::new(|_, _| Duration::from_secs(5)), ..Manner::default() };
    for (need, is_left) in [(20..120, false), (15_000..15_100, true)] {
        let need = Span::new(Moment::from_seconds(need.start), Moment::from_seconds(need.end));
        let told = run_slowly(
            upstream(seconds(20_000), Rows::Ascending, UpperBound::Exclusive),
            span(20_000),
            &Manner { visit: Some((20, need)), ..slow.clone() },
        );
        told.result.as_ref().unwrap();
        assert_eq!(told.left.iter().any(|left| left.overlaps(need)), is_left);
        let fetched: Vec<Span> = told.stretches.iter().map(|stretch| stretch.span).chain(told.left.clone()).collect();
        let whole = fetched.iter().map(|span| span.length()).sum::<Duration>();
        assert_eq!(whole, span(20_000).length(), "{fetched:?}");
        let items: usize = told.stretches.iter().map(|stretch| stretch.items.len()).sum();
        assert!(told.calls <= items.div_ceil(100) as u64 + 4, "{} calls for {items} items", told.calls);
        for stretch in told.stretches {
            let items: Vec<Bytes> = stretch.items.iter().map(|item| item.json.clone()).collect();
            assert_eq!(items, expected(&seconds(20_000), stretch.span));
        }
    }
}

/// The last page comes early, and then a row arrives within the page before the one before it: that page pushes a row out
/// of itself, which none of the others has, and the count would be right.
#[test]
fn the_last_page_is_not_believed_if_it_was_asked_for_too_early() {
    let mut upstream = upstream(seconds(1_550), Rows::Ascending, UpperBound::Exclusive);
    upstream.arrivals_at = vec![(1_300, Moment::from_millis(1_300_500), "late-0".to_owned())];
    let takes = |_: u64, offset: u64| if offset == 1_300 { PAGE * 10 } else { PAGE };
    let told = run_slowly(upstream, span(4_000), &Manner { takes: Arc::new(takes), ..Manner::default() });
    let items = told.items(span(4_000));
    assert!(expected(&seconds(1_550), span(4_000)).iter().all(|row| items.contains(row)));
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(64))]

    /// Whatever arrives, in front or behind, between pages that come in any order: what was there is in the answer. It
    /// arrives as the run comes to its end, which comes sooner than it looks, near where the pages are that are under way.
    #[test]
    fn rows_that_arrive_between_pages_side_by_side_push_no_row_out(
        pages in 12i64..25, last in 1i64..100, seed: u64, descending: bool,
        proven_each in prop_oneof![200usize..1_500, Just(usize::MAX)],
        arrivals in prop::collection::vec((0i64..9, -50i64..150), 1..4)
    ) {
        let all = span(4_000);
        let place = |second: i64| if descending { 3_999_000 - second * 1000 } else { second * 1000 };
        let row = |second: i64| (Moment::from_millis(place(second)), format!("ac-{second:06}"));
        let rows: Vec<_> = (0..pages * 100 + last).map(row).collect();
        let order = if descending { Rows::Descending } else { Rows::Ascending };
        let mut upstream = Upstream { proven_each, ..upstream(rows.clone(), order, UpperBound::Exclusive) };
        upstream.arrivals_at = arrivals.into_iter().enumerate().map(|(n, (from_the_end, within))| {
            let offset = (pages - from_the_end) * 100;
            (offset.unsigned_abs(), Moment::from_millis(place(offset + within) + 500), format!("late-{n}"))
        }).collect();
        let takes = move |n: u64, _: u64| Duration::from_millis(100 + xxhash_rust::xxh3::xxh3_64_with_seed(&n.to_le_bytes(), seed) % 400);
        let told = run_slowly(upstream, all, &Manner { takes: Arc::new(takes), ..Manner::default() });
        let mut items = told.items(all);
        items.retain(|item| !item.windows(5).any(|five| five == b"late-"));
        prop_assert_eq!(items, expected(&rows, all));
    }
}
