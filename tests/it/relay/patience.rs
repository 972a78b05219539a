//! How long one who follows waits for the quota.

use super::*;

#[tokio::test]
async fn one_who_follows_goes_on_waiting_while_its_pages_come_elsewhere() {
    let profile =
        Profile { rate_limits: vec![RollingLimit::new(1, Duration::from_millis(700))].into(), ..exact_profile(950, 4) };
    let settings = Settings::default().limits("[{ requests = 1, per = '700ms' }]");
    let replicas = Replicas::start(profile, settings.section("quota", "queue_timeout = '2s'"), 2).await;
    let answer = replicas.follower(0).ask(&Ask::get(DAY)).await;
    assert_whole(&answer, &day(&replicas.rig));
    assert_eq!(replicas.rig.calls(), 10);
}
