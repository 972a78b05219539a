//! A gateway whose clock is not that of the upstream.

use std::time::Duration;

use koregate::clock::Clock;

use super::support::{Ask, Rig, Settings, at, profile};

const DAY: Duration = Duration::from_hours(24);
const TODAY: &str = "from=2026-02-25&to=2026-02-25";

#[tokio::test]
async fn clock_that_was_ahead_for_a_moment_makes_nothing_settle() {
    let rig = Rig::start(profile(400, 5), &Settings::default()).await;
    rig.clock.set(at("2026-02-25T12:00:00Z"));
    let clock = Clock::manual(rig.clock.now() + 2 * DAY);
    let door = rig.door_by(&clock, &Settings::default()).await;
    let at_noon = door.ask(&Ask::get(TODAY)).await.page().items().count();
    let (start, end) = (at("2026-02-25"), at("2026-02-26"));

    // The clock is right again; the day ends, and settles.
    for now in [rig.clock.now() + DAY, rig.clock.now() + 3 * DAY] {
        rig.clock.set(now);
        clock.set(now);
        let items: Vec<_> = door.ask(&Ask::get(TODAY)).await.page().items().map(<[u8]>::to_vec).collect();
        assert!(items.len() > at_noon && items == rig.truth(start, end), "{at_noon}, then {}", items.len());
    }
    assert_eq!(door.admin("/readyz").await.json()["status"], "ready");
}

#[tokio::test]
async fn clock_that_stays_wrong_is_told_of_and_mends_by_itself() {
    let rig = Rig::start(profile(400, 5), &Settings::default()).await;
    let clock = Clock::manual(rig.clock.now() - Duration::from_mins(10));
    let door = rig.door_by(&clock, &Settings::default()).await;
    for hour in 10..13 {
        door.ask(&Ask::get(format!("from=2026-02-20T{hour}:00:00&to=2026-02-20T{hour}:59:59"))).await.page();
    }
    let told = door.admin("/readyz").await.json();
    assert_eq!(told["status"], "degraded");
    assert!(told["problems"][0].as_str().unwrap().contains("clock"), "{told}");
    assert!(door.admin("/metrics").await.text().contains("koregate_clock_wrong 1"));
    let settled = || Ask::get("from=2026-02-20T15:00:00&to=2026-02-20T15:59:59");
    rig.control.reset_counts();
    door.ask(&settled()).await.page();
    door.ask(&settled()).await.page();
    assert_eq!(rig.calls(), 2, "nothing is kept as settled");
    clock.set(rig.clock.now());
    // The first answer shows that it is right.
    door.ask(&settled()).await.page();
    door.ask(&settled()).await.page();
    assert_eq!((rig.calls(), door.admin("/readyz").await.json()["status"].clone()), (3, "ready".into()));
}
