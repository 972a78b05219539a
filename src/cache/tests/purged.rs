//! What is purged stays away, whatever is under way.

use super::*;

/// The first second of an hour that has settled.
const OLD: i64 = -100_000;

impl Rig {
    async fn purge(&self, stream: Option<&str>, start: i64, end: i64) -> PurgeResult {
        let (account, stream) = ("a".into(), stream.map(Into::into));
        self.stage.0.purges.purge(Purge { account, stream, interval: interval(OLD + start, OLD + end) }).await
    }

    async fn ask_old(&self, start: i64, end: i64) -> ResponseFuture {
        self.ask(OLD + start, OLD + end, Priority::Interactive).await
    }

    /// Asks, and plays the one run that this takes.
    async fn fill(&mut self, series: &Series, start: i64, end: i64) {
        let answering = self.ask_of(series.clone(), OLD + start, OLD + end, Priority::Interactive).await;
        self.run().await.succeed();
        answered(answering).await;
    }

    /// Asks for what must be there.
    async fn hit(&mut self, series: &Series, start: i64, end: i64) {
        let answer = answered(self.ask_of(series.clone(), OLD + start, OLD + end, Priority::Interactive).await).await;
        assert_eq!(answer.outcome, Outcome::Hit);
        assert_old(&answer, start, end);
    }
}

impl Played {
    /// Where it lies behind [`OLD`].
    fn old_span(&self) -> (i64, i64) {
        let (start, end) = self.interval();
        (start - OLD, end - OLD)
    }
}

#[track_caller]
fn assert_old(answer: &WindowAnswer, start: i64, end: i64) {
    assert_whole(answer, OLD + start, OLD + end);
}

#[tokio::test(start_paused = true)]
async fn a_fetch_that_is_under_way_serves_those_who_waited_and_nobody_after_them() {
    let mut rig = Rig::new();
    let before = rig.ask_old(0, 100).await;
    let old = rig.run().await;
    old.call();
    let purged = rig.purge(None, 50, 60).await;
    assert_eq!((purged.memory_chunks, purged.delivery), (0, None));
    let after = rig.ask_old(0, 100).await;
    let new = rig.run().await;
    assert_eq!(new.old_span(), (0, 100));
    old.succeed();
    let answer = answered(before).await;
    assert_old(&answer, 0, 100);
    assert!(answer.items.slices.iter().all(|slice| slice.chunk.epoch() < purged.epoch));
    settle().await;
    assert!(!after.is_finished(), "it waits for what was fetched since");
    assert_eq!(rig.stage.0.memory.bytes(), 0, "nothing of it is kept");
    new.succeed();
    let answer = answered(after).await;
    assert!(answer.items.slices.iter().all(|slice| slice.chunk.epoch() == purged.epoch));
    rig.hit(&series(), 0, 100).await;
    rig.assert_nothing_left();
}

#[tokio::test(start_paused = true)]
async fn purge_during_a_run_leaves_what_it_does_not_touch() {
    let mut rig = Rig::new();
    let hour = 3_600;
    let before = rig.ask_old(0, 2 * hour).await;
    let run = rig.run().await;
    run.call();
    assert_eq!(rig.purge(None, 10, 20).await.memory_chunks, 0);
    let (_, end) = run.interval();
    run.bring_up_to(end);
    assert_old(&answered(before).await, 0, 2 * hour);
    let next = rig.ask_old(0, 2 * hour).await;
    let run = rig.run().await;
    assert!(run.old_span().0 == 0 && run.old_span().1 < 2 * hour, "{:?}", run.old_span());
    run.succeed();
    assert_old(&answered(next).await, 0, 2 * hour);
    rig.hit(&series(), 0, 2 * hour).await;
    rig.no_run().await;
}

#[tokio::test(start_paused = true)]
async fn what_is_gathered_when_a_purge_comes_is_fetched_after_it() {
    let mut rig = Rig::new();
    let waits = rig.ask_old(0, 100).await;
    rig.purge(None, 0, 100).await;
    rig.run().await.succeed();
    assert_old(&answered(waits).await, 0, 100);
    rig.hit(&series(), 0, 100).await;
}

#[tokio::test(start_paused = true)]
async fn filtered_and_rich_copies_leave_too_and_those_of_other_streams_stay() {
    let mut rig = Rig::new();
    let filter = Filter::parse(&Bytes::from_static(br#"{"channels":["voice"]}"#)).unwrap();
    let opaque = Filter::parse(&Bytes::from_static(br#"{"other":1}"#)).unwrap();
    let mine = [
        Series { filter, ..series() },
        Series { filter: opaque, ..series() },
        Series { agentic: true, parameters: vec![("x".into(), "1".into())], ..series() },
        series(),
    ];
    let other = Series { stream: "other".into(), ..series() };
    let elsewhere = Series { account: "b".into(), ..series() };
    for series in mine.iter().chain([&other, &elsewhere]) {
        rig.fill(series, 0, 100).await;
    }
    let first = rig.purge(Some("s"), 99, 100).await;
    assert_eq!(first.memory_chunks, mine.len());
    let again = rig.purge(Some("s"), 99, 100).await;
    assert!(again.memory_chunks == 0 && again.epoch > first.epoch, "{again:?}");
    for series in [&other, &elsewhere] {
        rig.hit(series, 0, 100).await;
    }
    for series in &mine {
        rig.fill(series, 0, 100).await;
        rig.hit(series, 0, 100).await;
    }
    assert_eq!(rig.purge(None, -1, 1).await.memory_chunks, mine.len() + 1, "of all streams");
    rig.hit(&elsewhere, 0, 100).await;
}

#[tokio::test(start_paused = true)]
async fn only_chunks_that_a_purge_touches_leave() {
    const HOUR: i64 = 3_600;
    let mut rig = Rig::new();
    rig.fill(&series(), 0, 3 * HOUR).await;
    assert_eq!(rig.purge(None, HOUR + 10, HOUR + 11).await.memory_chunks, 1);
    assert_eq!(rig.purge(None, 3 * HOUR, 4 * HOUR).await.memory_chunks, 0, "it ends where that begins");
    let answering = rig.ask_old(0, 3 * HOUR).await;
    let run = rig.run().await;
    assert_eq!(run.old_span(), (HOUR, 2 * HOUR));
    run.succeed();
    assert_old(&answered(answering).await, 0, 3 * HOUR);
}

#[tokio::test(start_paused = true)]
async fn windows_that_cannot_be_cut_leave_as_wholes() {
    let mut rig = Rig::new();
    rig.stage.0.window_fields.mark_wrong_elsewhere(&"a".into());
    rig.fill(&series(), 0, 100).await;
    rig.hit(&series(), 0, 100).await;
    let before = rig.ask_old(0, 200).await;
    let old = rig.run().await;
    old.call();
    assert_eq!(rig.purge(None, 20, 30).await.memory_chunks, 1);
    let after = rig.ask_old(0, 200).await;
    let new = rig.run().await;
    old.succeed();
    assert_old(&answered(before).await, 0, 200);
    assert_eq!(rig.stage.0.memory.bytes(), 0);
    new.succeed();
    assert_old(&answered(after).await, 0, 200);
    rig.hit(&series(), 0, 200).await;
    rig.fill(&series(), 0, 100).await;
}
