//! An item that does not lie where it was asked for: whom it costs what.

use super::*;
use crate::paging::{MisplacedItem, PlacementCheck};

/// Settled: a day and more before the others.
const OLD: i64 = -90_000;

/// The item of this second, where it does not belong.
fn misplaced(second: i64) -> PagingError {
    PagingError::MisplacedItem(MisplacedItem { at: at(second), id: second.to_string().into() })
}

impl Played {
    fn is_cut(&self) -> bool {
        self.run.placed == PlacementCheck::Checked
    }

    /// Makes a call, and fails.
    fn fail(self, error: PagingError) {
        self.call();
        self.end(Err(error));
    }

    /// Makes a call, which brings nothing.
    fn bring_nothing(self) {
        self.call();
        let (start, _) = self.interval();
        self.end_empty(start);
    }

    fn end_empty(self, start: i64) {
        let interval = interval(start, self.interval().1);
        let packed = self.run.packer.pack(RunPart { interval, items: Vec::new(), fetched_at: at(5_000) });
        self.end(Ok(FetchedRun { interval, packed, order: RowOrder::Unknown, halved: false }));
    }
}

impl Rig {
    /// Asks for an old window, whose run fails with this; gives the runs that follow by then: that of the whole window, and
    /// that of the second that the item names, if it is looked for.
    async fn fail(&mut self, start: i64, error: PagingError) -> (ResponseFuture, Played, Option<Played>) {
        let asking = self.ask(start, start + 100, Priority::Interactive).await;
        let run = self.run().await;
        assert!(run.is_cut());
        run.fail(error);
        settle().await;
        let (mut whole, mut second) = (None, None);
        while let Ok(run) = self.runs.try_recv() {
            assert!(!run.is_cut(), "{:?}", run.interval());
            let place = if run.interval().1 - run.interval().0 == 1 { &mut second } else { &mut whole };
            *place = Some(run);
        }
        (asking, whole.expect("the window is asked for as a whole"), second)
    }

    /// Asks for an old window; whether it is fetched to be cut.
    async fn is_cut(&mut self, start: i64) -> bool {
        let asking = self.ask(start, start + 100, Priority::Interactive).await;
        let run = self.run().await;
        let is_cut = run.is_cut();
        run.succeed();
        assert_whole(&answered(asking).await, start, start + 100);
        settle().await;
        is_cut
    }
}

#[tokio::test(start_paused = true)]
async fn item_found_where_it_says_costs_only_its_window() {
    let mut rig = Rig::new();
    assert!(rig.is_cut(OLD).await);
    let (asking, whole, second) = rig.fail(OLD + 1_000, misplaced(77)).await;
    let second = second.expect("the item is looked for");
    assert_eq!(second.interval(), (77, 78));
    let waits = rig.ask(OLD + 2_000, OLD + 2_100, Priority::Interactive).await;
    rig.no_run().await;
    assert!(!waits.is_finished(), "a window that is to be cut waits for the verdict");
    second.succeed();
    let run = rig.run().await;
    assert!(run.is_cut());
    run.succeed();
    assert_whole(&answered(waits).await, OLD + 2_000, OLD + 2_100);
    whole.succeed();
    assert_whole(&answered(asking).await, OLD + 1_000, OLD + 1_100);

    // The same window is there, and a part of it is asked for as a whole at once.
    assert_whole(
        &answered(rig.ask(OLD + 1_000, OLD + 1_100, Priority::Interactive).await).await,
        OLD + 1_000,
        OLD + 1_100,
    );
    assert!(!rig.is_cut(OLD + 1_050).await);
    // Elsewhere the same item asks nothing any more, and holds nobody up.
    let (asking, whole, second) = rig.fail(OLD + 3_000, misplaced(77)).await;
    assert!(second.is_none() && rig.is_cut(OLD + 4_000).await);
    whole.succeed();
    answered(asking).await;
    let hit = answered(rig.ask(OLD, OLD + 100, Priority::Interactive).await).await;
    assert_eq!(hit.outcome, Outcome::Hit, "what was cut before is kept");
    rig.no_run().await;
}

#[tokio::test(start_paused = true)]
async fn absent_item_shows_the_field_wrong_until_others_contradict() {
    let mut rig = Rig::new();
    assert!(rig.is_cut(OLD).await);
    let (asking, whole, second) = rig.fail(OLD + 1_000, misplaced(77)).await;
    let cut_meanwhile = rig.ask(OLD + 2_000, OLD + 2_100, Priority::Interactive).await;
    second.expect("the item is looked for").bring_nothing();
    let run = rig.run().await;
    assert!(!run.is_cut(), "nothing is cut any more");
    run.succeed();
    answered(cut_meanwhile).await;
    whole.succeed();
    answered(asking).await;
    assert_eq!(rig.stage.0.window_fields.wrong_accounts().len(), 1);
    assert!(!rig.is_cut(OLD).await, "what was cut is forgotten");

    // A while later, each whole window has one of its items looked for; one that is absent confirms the verdict.
    tokio::time::advance(Duration::from_mins(1)).await;
    assert!(!rig.is_cut(OLD + 5_000).await);
    rig.run().await.bring_nothing();
    settle().await;
    assert_eq!(rig.stage.0.window_fields.wrong_accounts().len(), 1);
    tokio::time::advance(Duration::from_mins(1)).await;
    for window in 0..3 {
        assert!(!rig.is_cut(OLD + 6_000 + 200 * window).await);
        let second = rig.run().await;
        assert_eq!(second.interval().1 - second.interval().0, 1);
        second.succeed();
        settle().await;
    }
    assert!(rig.stage.0.window_fields.wrong_accounts().is_empty());
    assert!(rig.is_cut(OLD + 7_000).await);
    // The item that led to it does not do so again.
    let (_, _, second) = rig.fail(OLD + 8_000, misplaced(77)).await;
    assert!(second.is_none() && rig.stage.0.window_fields.wrong_accounts().is_empty());
}

#[tokio::test(start_paused = true)]
async fn operator_takes_a_verdict_back() {
    let mut rig = Rig::new();
    let (.., second) = rig.fail(OLD, misplaced(77)).await;
    second.expect("the item is looked for").bring_nothing();
    settle().await;
    assert!(!rig.is_cut(OLD + 1_000).await);
    assert!(rig.stage.0.window_fields.clear(&"a".into()));
    assert!(rig.is_cut(OLD + 2_000).await);
}

#[tokio::test(start_paused = true)]
async fn series_that_shifts_its_window_condemns_only_itself() {
    let mut rig = Rig::new();
    let shifting = Series { parameters: vec![("tz".to_owned(), "-5".to_owned())], ..series() };
    for error in [misplaced(77), PagingError::NoneIsPlaced] {
        assert!(rig.is_cut(OLD).await);
        let asking = rig.ask_of(shifting.clone(), OLD, OLD + 100, Priority::Interactive).await;
        let run = rig.run().await;
        if run.is_cut() {
            run.fail(error);
            let whole = rig.run().await;
            assert!(!whole.is_cut());
            whole.succeed();
        } else {
            run.succeed();
        }
        assert_whole(&answered(asking).await, OLD, OLD + 100);
        rig.no_run().await;
        let asking = rig.ask_of(shifting.clone(), OLD + 9_000, OLD + 9_100, Priority::Interactive).await;
        let elsewhere = rig.run().await;
        assert!(!elsewhere.is_cut(), "the series may be shifted anywhere");
        elsewhere.succeed();
        answered(asking).await;
        assert!(rig.stage.0.window_fields.wrong_accounts().is_empty());
        rig = Rig::new();
    }
}

#[tokio::test(start_paused = true)]
async fn windows_without_timestamps_show_the_field_wrong_unless_some_had_one() {
    for (some_were_placed, wrong) in [(false, 1), (true, 0)] {
        let mut rig = Rig::new();
        if some_were_placed {
            assert!(rig.is_cut(OLD).await);
        }
        for window in 1..=3 {
            assert!(rig.stage.0.window_fields.wrong_accounts().is_empty(), "one odd item is no evidence");
            let (asking, whole, second) = rig.fail(OLD + 1_000 * window, PagingError::NoneIsPlaced).await;
            assert!(second.is_none());
            whole.succeed();
            answered(asking).await;
        }
        assert_eq!(rig.stage.0.window_fields.wrong_accounts().len(), wrong);
        assert_eq!(rig.is_cut(OLD + 9_000).await, wrong == 0);
    }
}
