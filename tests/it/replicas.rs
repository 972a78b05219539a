//! Replicas that have one quota in common: whatever happens to them or to Redis, the upstream sees one client.

use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::Duration;

use futures_util::future::join_all;
use koregate_simulator::{Profile, RollingLimit};
use tokio::time::Instant;

use crate::support::{Ask, Door, RedisServer, Rig, Settings, at, exact_profile, until};

/// Twelve calls in two seconds.
const LIMIT: (usize, Duration) = (12, Duration::from_secs(2));
/// More callers than that serves, at each door.
const CALLERS: u64 = 8;

fn settings(url: &str) -> Settings {
    with_more(url, "")
}

fn with_more(url: &str, more: &str) -> Settings {
    Settings::default()
        .limits("[{ requests = 12, per = '2s' }, { requests = 100000, per = '1h' }]")
        .section("quota", "queue_timeout = '20s'")
        .section("cache", &format!("redis = {{ url = '{url}', timeout = '250ms'{more} }}"))
}

async fn rig(url: &str) -> Rig {
    let profile = Profile { rate_limits: vec![RollingLimit::new(LIMIT.0, LIMIT.1)].into(), ..exact_profile(480, 20) };
    Rig::start(profile, &settings(url)).await
}

/// Asks at all doors for windows of one call each, none twice, until it is told to stop.
struct Demand {
    next: AtomicU64,
    served: AtomicU64,
    stop: AtomicBool,
}

impl Demand {
    fn new() -> Self {
        Self { next: AtomicU64::new(0), served: AtomicU64::new(0), stop: AtomicBool::new(false) }
    }

    async fn at(&self, rig: &Rig, doors: &[&Door]) {
        join_all(doors.iter().map(|door| join_all((0..CALLERS).map(|_| self.caller(rig, door))))).await;
    }

    async fn caller(&self, rig: &Rig, door: &Door) {
        while !self.stop.load(Ordering::Relaxed) {
            let from = at("2026-02-06") + Duration::from_mins(10 * self.next.fetch_add(1, Ordering::Relaxed));
            let to = from + Duration::from_mins(8);
            let [first, last] = [from, to].map(|at| at.to_string().trim_end_matches('Z').to_owned());
            let Ok(answer) = door.try_ask(&Ask::get(format!("from={first}&to={last}"))).await else { return };
            if answer.status == 503 {
                // Where there is only a share of the quota, some are told to come again.
                assert!(answer.header("retry-after").is_some());
                continue;
            }
            assert!(answer.page().items().eq(rig.truth(from, to.next_tick()).iter().map(Vec::as_slice)));
            self.served.fetch_add(1, Ordering::Relaxed);
        }
    }

    fn served(&self) -> u64 {
        self.served.load(Ordering::Relaxed)
    }

    /// Ends when so many more have been served.
    async fn until_served(&self, more: u64) {
        let wanted = self.served() + more;
        until("the windows are served", || self.served() >= wanted).await;
    }

    fn stop(&self) {
        self.stop.store(true, Ordering::Relaxed);
    }
}

#[track_caller]
fn assert_kept(rig: &Rig) {
    let most = rig.control.max_in_any_window(LIMIT.1);
    assert!(most <= LIMIT.0, "{most} calls in {:?}", LIMIT.1);
    assert_eq!(rig.control.counts().limited, 0, "the upstream refused calls");
}

/// `ready` or `degraded`.
async fn status(door: &Door) -> String {
    let text = door.admin("/readyz").await.text().to_owned();
    let word = text.split("\"status\":\"").nth(1).and_then(|rest| rest.split('"').next());
    word.unwrap_or_default().to_owned()
}

async fn until_status(doors: &[&Door], wanted: &str) {
    let patience = Instant::now() + Duration::from_secs(40);
    for door in doors {
        while status(door).await != wanted {
            assert!(Instant::now() < patience, "not {wanted}: {}", door.admin("/readyz").await.text());
            tokio::task::yield_now().await;
        }
    }
}

#[tokio::test]
async fn many_doors_use_one_quota_and_nearly_all_of_it() {
    let redis = RedisServer::start();
    let rig = rig(&redis.url()).await;
    let others = [
        rig.another_door(&settings(&redis.url())).await,
        rig.another_door(&settings(&redis.url())).await,
        rig.another_door(&settings(&redis.url())).await,
    ];
    let doors: Vec<&Door> = std::iter::once(&rig.door).chain(&others).collect();
    let demand = Demand::new();
    let watch = async {
        demand.until_served(12).await;
        let (begun, before) = (Instant::now(), rig.calls());
        demand.until_served(72).await;
        let (took, calls) = (begun.elapsed(), rig.calls() - before);
        demand.stop();
        (took, calls)
    };
    let ((took, calls), ()) = tokio::join!(watch, demand.at(&rig, &doors));
    assert_kept(&rig);
    // A machine that is busy with other tests may be late, but not by a third.
    assert!(calls * 3 * 2000 > 2 * 12 * u64::try_from(took.as_millis()).unwrap(), "{calls} calls in {took:?}");
}

#[tokio::test]
async fn whoever_leaves_hands_the_calls_to_another_at_once() {
    let redis = RedisServer::start();
    let rig = rig(&redis.url()).await;
    let doors = [rig.another_door(&settings(&redis.url())).await, rig.another_door(&settings(&redis.url())).await];
    let both = [&doors[0], &doors[1]];
    let demand = Demand::new();
    let watch = async {
        demand.until_served(12).await;
        demand.stop();
    };
    tokio::join!(watch, demand.at(&rig, &both));
    let [one, other] = doors;
    assert!(one.gateway.drain().await);
    let answer = other.ask(&Ask::get("from=2026-02-24&to=2026-02-24")).await;
    assert_eq!(answer.status, 200);
    assert_kept(&rig);
}

/// Does something to Redis while both doors are asked without a pause, and undoes it when both have noticed.
async fn survive(harm: impl AsyncFnOnce(&mut RedisServer), mend: impl AsyncFnOnce(&mut RedisServer), login: bool) {
    let mut redis = RedisServer::start();
    if login {
        redis.admin(&["ACL", "SETUSER", "kg", "on", ">secret", "~*", "&*", "+@all"]);
    }
    let url = if login { redis.url_for("kg:secret") } else { redis.url() };
    let rig = rig(&url).await;
    let other = rig.another_door(&settings(&url)).await;
    let doors = [&rig.door, &other];
    until_status(&doors, "ready").await;
    let demand = Demand::new();
    let watch = async {
        demand.until_served(24).await;
        harm(&mut redis).await;
        until_status(&doors, "degraded").await;
        demand.until_served(12).await;
        mend(&mut redis).await;
        until_status(&doors, "ready").await;
        demand.until_served(24).await;
        demand.stop();
    };
    tokio::join!(watch, demand.at(&rig, &doors));
    assert_kept(&rig);
}

#[tokio::test]
async fn when_redis_dies_each_has_its_share_until_it_is_back() {
    survive(async |redis| redis.kill(), async |redis| redis.restart(), false).await;
}

#[tokio::test]
async fn when_redis_falls_silent_each_has_its_share_until_it_answers() {
    survive(async |redis| redis.stop(), async |redis| redis.cont(), false).await;
}

#[tokio::test]
async fn when_redis_takes_no_writes_each_has_its_share_until_it_does() {
    let replicate = |to: &'static [&str]| async move |redis: &mut RedisServer| drop(redis.admin(to));
    survive(replicate(&["REPLICAOF", "127.0.0.1", "1"]), replicate(&["REPLICAOF", "NO", "ONE"]), false).await;
}

#[tokio::test]
async fn when_redis_is_full_each_has_its_share_until_there_is_room() {
    let limit =
        |to: &'static str| async move |redis: &mut RedisServer| drop(redis.admin(&["CONFIG", "SET", "maxmemory", to]));
    survive(limit("1"), limit("0"), false).await;
}

#[tokio::test]
async fn when_scripts_are_forbidden_each_has_its_share_until_they_are_allowed() {
    let allow =
        |what: &'static str| async move |redis: &mut RedisServer| drop(redis.admin(&["ACL", "SETUSER", "kg", what]));
    survive(allow("-@scripting"), allow("+@scripting"), true).await;
}

#[tokio::test]
async fn when_letters_are_forbidden_each_has_its_share_until_they_are_allowed() {
    let allow =
        |what: &'static str| async move |redis: &mut RedisServer| drop(redis.admin(&["ACL", "SETUSER", "kg", what]));
    survive(allow("-@pubsub"), allow("+@pubsub"), true).await;
}

#[tokio::test]
async fn what_redis_forgets_the_replicas_still_know() {
    let redis = RedisServer::start();
    let rig = rig(&redis.url()).await;
    let other = rig.another_door(&settings(&redis.url())).await;
    let (doors, demand) = ([&rig.door, &other], Demand::new());
    let watch = async {
        for _ in 0..4 {
            demand.until_served(15).await;
            redis.admin(&["FLUSHALL"]);
        }
        demand.until_served(12).await;
        demand.stop();
    };
    tokio::join!(watch, demand.at(&rig, &doors));
    assert_kept(&rig);
}

#[tokio::test]
async fn replicas_that_cannot_read_each_other_fetch_by_themselves_and_keep_the_quota() {
    let redis = RedisServer::start();
    let rig = rig(&redis.url()).await;
    let keys = tempfile::tempdir().unwrap();
    let sealed = |name: &str| {
        let file = keys.path().join(name);
        std::fs::write(&file, format!("{name} is thirty-two bytes long, or more")).unwrap();
        with_more(&redis.url(), &format!(", encryption_key = {{ file = '{}' }}", file.display()))
    };
    let (one, two) = (rig.another_door(&sealed("one")).await, rig.another_door(&sealed("two")).await);
    let (doors, demand) = ([&rig.door, &one, &two], Demand::new());
    let watch = async {
        demand.until_served(60).await;
        demand.stop();
    };
    tokio::join!(watch, demand.at(&rig, &doors));
    assert_kept(&rig);
    // What stands under another key is missing here, and costs a call of this one's.
    let query = "from=2026-02-24T10:00:00&to=2026-02-24T10:29:59";
    let truth = rig.truth(at("2026-02-24T10:00:00Z"), at("2026-02-24T10:30:00Z"));
    for door in doors {
        let answer = door.ask(&Ask::get(query)).await;
        assert!(answer.page().items().eq(truth.iter().map(Vec::as_slice)), "{}", answer.text());
    }
    assert_kept(&rig);
}
