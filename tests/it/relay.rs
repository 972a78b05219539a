//! Replicas of which one makes all calls: whoever is asked, on however many of them, it is as if there were one gateway.

mod long_windows;
mod patience;

use std::time::Duration;

use futures_util::future::join_all;
use koregate::quota::{CallScheduler, Role};
use koregate::redis_client::ReplicaId;
use koregate::window::UpperBound;
use koregate_simulator::{ApiVariant, Fault, FaultPlan, ItemFilter, Profile, RollingLimit, SelectOn};
use tokio::runtime::{Builder, Runtime};
use tokio::task::JoinHandle;
use tokio::time::{Instant, sleep};

use crate::support::{
    ACCOUNT, Answer, Ask, Client, Door, RedisServer, Rig, Settings, Window, assert_items, at, exact_profile, text,
    until,
};

const DAY: &str = "from=2026-02-23&to=2026-02-23";
const DAY_OPEN: &str = "from=2026-02-25T11:00:00&to=2026-02-25T23:59:59";

/// One more replica, on a runtime of its own.
struct Replica {
    door: Door,
    runtime: Option<Runtime>,
}

impl Replica {
    async fn start(rig: &Rig, settings: &Settings) -> Self {
        let runtime = Builder::new_multi_thread().worker_threads(1).enable_all().build().unwrap();
        let door = rig.door_on(runtime.handle(), settings).await;
        Self { door, runtime: Some(runtime) }
    }

    fn turns(&self) -> &CallScheduler {
        self.door.gateway.stack().quotas.scheduler(ACCOUNT).unwrap()
    }

    fn role(&self) -> Role {
        self.turns().role().borrow().clone()
    }

    fn is(&self, id: &ReplicaId) -> bool {
        self.door.gateway.stack().post.as_ref().unwrap().me() == id
    }

    /// Ends as a process does that is killed.
    fn die(&mut self) {
        self.runtime.take().unwrap().shutdown_background();
    }
}

impl Drop for Replica {
    fn drop(&mut self) {
        if let Some(runtime) = self.runtime.take() {
            runtime.shutdown_background();
        }
    }
}

/// Replicas on one Redis. The rig's own door is none of them.
struct Replicas {
    redis: RedisServer,
    rig: Rig,
    /// The first of them makes the calls.
    all: Vec<Replica>,
}

impl Replicas {
    async fn start(profile: Profile, settings: Settings, count: usize) -> Self {
        let redis = RedisServer::start();
        let settings = with(&redis, settings);
        Self::start_with(redis, profile, &vec![settings; count]).await
    }

    /// One with each of `settings`. The first one is alone until it makes the calls.
    async fn start_with(redis: RedisServer, profile: Profile, settings: &[Settings]) -> Self {
        let rig = Rig::start(profile, &Settings::default()).await;
        let mut replicas = Self { redis, rig, all: Vec::new() };
        for settings in settings {
            let replica = Replica::start(&replicas.rig, settings).await;
            replicas.all.push(replica);
            if replicas.all.len() == 1 {
                replicas.settle().await;
            }
        }
        replicas.settle().await;
        replicas
    }

    /// All of them at once: any of them may be elected.
    async fn start_at_once(profile: Profile, settings: Settings, count: usize) -> Self {
        let mut replicas = Self::start_unsettled(profile, settings, count).await;
        replicas.settle().await;
        replicas
    }

    /// The same, and nobody is elected yet.
    async fn start_unsettled(profile: Profile, settings: Settings, count: usize) -> Self {
        let redis = RedisServer::start();
        let settings = with(&redis, settings);
        let rig = Rig::start(profile, &Settings::default()).await;
        let all = join_all((0..count).map(|_| Replica::start(&rig, &settings))).await;
        Self { redis, rig, all }
    }

    /// Waits until one makes the calls, and the others know it and listen; puts that one first.
    async fn settle(&mut self) {
        let patience = Instant::now() + Duration::from_secs(20);
        loop {
            let first = self.all.iter().position(|replica| replica.role() == Role::Leader);
            if let Some(first) = first
                && self.follow(first)
                && self.listening() >= self.all.len()
            {
                self.all.swap(0, first);
                return;
            }
            assert!(Instant::now() < patience, "{:?}", self.all.iter().map(Replica::role).collect::<Vec<_>>());
            sleep(Duration::from_millis(10)).await;
        }
    }

    /// Whether all others follow this one.
    fn follow(&self, first: usize) -> bool {
        let follows = |replica: &Replica| matches!(replica.role(), Role::Follower(id) if self.all[first].is(&id));
        self.all.iter().enumerate().all(|(number, replica)| number == first || follows(replica))
    }

    fn listening(&self) -> usize {
        text(&self.redis.admin(&["PUBSUB", "CHANNELS", "*:to:*"])).split_whitespace().count()
    }

    /// The one who makes the calls.
    fn caller(&self) -> &Door {
        &self.all[0].door
    }

    /// The first, the second … of the others.
    fn follower(&self, number: usize) -> &Door {
        &self.all[1 + number].door
    }

    fn waiting_for_a_turn(&self) -> usize {
        self.all[0].turns().queue_length()
    }

    /// Asks at the same instant, the first replica first, then the next one, and so on.
    async fn ask_all(&self, asks: &[Ask]) -> Vec<Answer> {
        join_all(asks.iter().enumerate().map(|(n, ask)| self.all[n % self.all.len()].door.ask(ask))).await
    }

    #[track_caller]
    fn assert_each_whole(&self, windows: &[Window], answers: &[Answer]) {
        assert_eq!(windows.len(), answers.len());
        for (window, answer) in windows.iter().zip(answers) {
            assert_items(&answer.page(), &self.rig.truth(window.from, window.end), &window.query);
        }
    }

    /// The fewest calls that bring all from the first of these windows to the end of the last.
    fn fewest_calls(&self, windows: &[Window]) -> u64 {
        let (first, last) = (windows.first().unwrap(), windows.last().unwrap());
        self.rig.truth(first.from, last.end).len().div_ceil(100) as u64
    }

    /// What Redis holds for a moment only.
    fn passing(&self) -> String {
        text(&self.redis.admin(&["KEYS", "*passing*"]))
    }

    /// Runs `body` in Redis with each `key` that holds chunks.
    fn for_each_chunk_key(&self, body: &str) -> String {
        let script = format!(
            "local n = 0 for _, pattern in ipairs({{'koregate:c*', '*:passing:*'}}) do \
             for _, key in ipairs(redis.call('keys', pattern)) do n = n + 1 {body} end end return n"
        );
        text(&self.redis.admin(&["EVAL", &script, "0"]))
    }
}

fn with(redis: &RedisServer, settings: Settings) -> Settings {
    settings.redis(&redis.url())
}

fn calls_told(answer: &Answer) -> u64 {
    let (_, calls) = answer.cache_status().rsplit_once("calls=").unwrap_or_else(|| panic!("{}", answer.cache_status()));
    calls.trim_end_matches('"').parse().unwrap()
}

fn fwd(answer: &Answer) -> String {
    answer.cache_status().split(';').nth(1).unwrap_or_default().trim().to_owned()
}

#[track_caller]
fn assert_whole(answer: &Answer, truth: &[Vec<u8>]) {
    assert_items(&answer.page(), truth, "the window");
}

fn day(rig: &Rig) -> Vec<Vec<u8>> {
    rig.truth(at("2026-02-23"), at("2026-02-24"))
}

/// A caller on a task of its own, over a connection of its own.
fn spawn(door: &Door, query: &str) -> JoinHandle<Answer> {
    let (addr, ask) = (door.addr(), Ask::get(query));
    tokio::spawn(async move { Client::default().send(addr, &ask).await.unwrap() })
}

#[tokio::test]
async fn one_who_follows_gets_a_cold_window_for_the_calls_of_one_gateway_and_tells_them() {
    let replicas = Replicas::start(exact_profile(250, 4), Settings::default(), 3).await;
    let rig = &replicas.rig;
    let answer = replicas.follower(0).ask(&Ask::get(DAY)).await;
    assert_whole(&answer, &day(rig));
    assert_eq!((rig.calls(), calls_told(&answer), fwd(&answer).as_str()), (3, 3, "fwd=miss"));
    let again = replicas.follower(0).ask(&Ask::get(DAY)).await;
    assert!(again.cache_status().starts_with("koregate; hit"), "{}", again.cache_status());
    let other = replicas.follower(1).ask(&Ask::get(DAY)).await;
    assert_whole(&other, &day(rig));
    assert!(other.cache_status().starts_with("koregate; hit"), "from Redis: {}", other.cache_status());
    assert_eq!((rig.calls(), replicas.passing()), (3, String::new()));
}

fn asks(windows: &[Window]) -> Vec<Ask> {
    windows.iter().map(|window| Ask::get(&window.query)).collect()
}

/// Windows of some hours that overlap.
fn overlapping(count: u32) -> Vec<Window> {
    let window = |n: u32| {
        let from = at("2026-02-23") + Duration::from_mins(17) * n;
        Window::seconds(from, from + Duration::from_hours(5), UpperBound::Inclusive)
    };
    (0..count).map(window).collect()
}

#[tokio::test]
async fn windows_that_overlap_on_three_replicas_cost_what_they_cost_on_one() {
    let windows = overlapping(40);
    let asks = asks(&windows);
    let alone = Rig::start(exact_profile(900, 4), &Settings::default()).await;
    alone.door.ask_at_once(&asks).await;
    let replicas = Replicas::start(exact_profile(900, 4), Settings::default(), 3).await;
    // Connections first: what is asked for must come in at the same instant.
    replicas.ask_all(&vec![Ask::get("from=2030-01-01&to=2030-01-01"); 40]).await;
    let answers = replicas.ask_all(&asks).await;
    replicas.assert_each_whole(&windows, &answers);
    assert_eq!(replicas.rig.calls(), alone.calls());
    assert_eq!(answers.iter().map(calls_told).sum::<u64>(), alone.calls(), "each call is told of once");
    assert!(answers.iter().any(|answer| answer.cache_status().contains("collapsed")));
}

#[tokio::test]
async fn two_hundred_callers_on_eight_replicas_cost_the_least_calls_that_there_are() {
    let hours = |n: u32| {
        let from = at("2026-02-23") + Duration::from_mins(5) * n;
        Window::seconds(from, from + Duration::from_mins(59), UpperBound::Inclusive)
    };
    let windows: Vec<Window> = (0..200).map(hours).collect();
    let asks = asks(&windows);
    let replicas = Replicas::start_at_once(exact_profile(600, 4), Settings::default(), 8).await;
    replicas.ask_all(&vec![Ask::get("from=2030-01-01&to=2030-01-01"); 200]).await;
    let answers = replicas.ask_all(&asks).await;
    replicas.assert_each_whole(&windows, &answers);
    let pages = replicas.fewest_calls(&windows);
    assert_eq!((replicas.rig.calls(), answers.iter().map(calls_told).sum()), (pages, pages));
}

#[tokio::test]
async fn windows_side_by_side_are_one_walk_also_if_nobody_was_elected_when_they_were_asked_for() {
    let hour = |n: u32| {
        let from = at("2026-02-23") + Duration::from_hours(1) * n;
        Window::seconds(from, from + Duration::from_hours(1), UpperBound::Inclusive)
    };
    let windows: Vec<Window> = (0..24).map(hour).collect();
    let asks = asks(&windows);
    let mut spent = Vec::new();
    // A replica that is held up for long comes too late to be waited for, and one that is lucky needs not be: so most count.
    for _ in 0..3 {
        let replicas = Replicas::start_unsettled(exact_profile(900, 4), Settings::default(), 8).await;
        assert!(replicas.all.iter().all(|replica| replica.role() == Role::Unknown));
        let answers = replicas.ask_all(&asks).await;
        replicas.assert_each_whole(&windows, &answers);
        spent.push((replicas.rig.calls(), replicas.fewest_calls(&windows)));
    }
    assert!(
        spent.iter().filter(|(calls, least)| calls == least).count() >= 2,
        "calls, and the least there are: {spent:?}"
    );
}

#[tokio::test]
async fn what_is_always_asked_for_afresh_and_kept_by_nobody_reaches_the_one_who_asks() {
    let settings = Settings::default().section("window", "freshness = []");
    let replicas = Replicas::start(exact_profile(250, 4), settings, 2).await;
    let rig = &replicas.rig;
    let mut spent = 0;
    for _ in 0..2 {
        let answer = replicas.follower(0).ask(&Ask::get(DAY_OPEN)).await;
        assert_whole(&answer, &rig.truth(at("2026-02-25T11:00:00Z"), rig.clock.now()));
        assert_eq!((calls_told(&answer), answer.header("age")), (rig.calls() - spent, None));
        assert!(rig.calls() > spent, "it was not asked for afresh");
        spent = rig.calls();
        rig.clock.set(rig.clock.now() + Duration::from_secs(40));
    }
}

#[tokio::test]
async fn a_filter_and_rich_items_are_brought_as_well() {
    let replicas = Replicas::start(exact_profile(250, 4), Settings::default(), 2).await;
    let (rig, door) = (&replicas.rig, replicas.follower(0));
    let (from, end) = (at("2026-02-23"), at("2026-02-24"));
    let voice = ItemFilter { channels: vec!["voice".to_owned()], ..ItemFilter::default() };
    let body = r#"{"channels":["voice"]}"#;
    let answer = door.ask(&Ask::post(DAY, body)).await;
    assert_whole(&answer, &rig.truth_of(from, end, false, &voice));
    let rich = door.ask(&Ask::get(DAY).and("includeAgenticData=true")).await;
    assert_whole(&rich, &rig.truth_of(from, end, true, &ItemFilter::default()));
    let spent = rig.calls();
    assert_whole(&door.ask(&Ask::get(DAY)).await, &day(rig));
    assert_eq!(rig.calls(), spent, "what is rich serves those who want none");
    // Both on their way at once: the one who wants none is brought what is made of the other.
    let other = "from=2026-02-22&to=2026-02-22";
    let asks = [Ask::get(other).and("includeAgenticData=true"), Ask::get(other)];
    let answers = join_all(asks.iter().map(|ask| door.ask(ask))).await;
    let (from, end) = (at("2026-02-22"), at("2026-02-23"));
    assert_whole(&answers[0], &rig.truth_of(from, end, true, &ItemFilter::default()));
    assert_whole(&answers[1], &rig.truth(from, end));
    assert_eq!(rig.calls(), spent + 3);
    let opaque = door.ask(&Ask::post(DAY, r#"{"channels":["voice"],"sessionIds":[]}"#)).await;
    assert_eq!(
        opaque.status,
        replicas.caller().ask(&Ask::post(DAY, r#"{"channels":["voice"],"sessionIds":[]}"#)).await.status
    );
}

#[tokio::test]
async fn a_window_that_cannot_be_cut_is_brought_whole_and_every_replica_learns_why() {
    let profile =
        Profile { api: ApiVariant { select_on: SelectOn::End, ..ApiVariant::default() }, ..exact_profile(250, 4) };
    let replicas = Replicas::start(profile, Settings::default(), 2).await;
    let (rig, door) = (&replicas.rig, replicas.follower(0));
    let sorted = |answer: &Answer| {
        let mut items: Vec<Vec<u8>> = answer.page().items().map(<[u8]>::to_vec).collect();
        items.sort_unstable();
        items
    };
    let answer = door.ask(&Ask::get(DAY)).await;
    let mut truth = day(rig);
    truth.sort_unstable();
    assert!(sorted(&answer) == truth, "the window as the upstream says it");
    assert_eq!(fwd(&answer), "fwd=bypass");
    // By the next window, one of the items was looked for where its timestamp says.
    door.ask(&Ask::get("from=2026-02-22&to=2026-02-22")).await.page();
    for Replica { door, .. } in &replicas.all {
        assert_eq!(door.admin("/readyz").await.json()["status"], "degraded");
    }
    let spent = rig.calls();
    let again = door.ask(&Ask::get(DAY)).await;
    assert!(sorted(&again) == truth && rig.calls() == spent, "it is settled, so it is kept: {}", again.cache_status());
}

#[tokio::test]
async fn what_fails_on_the_one_who_calls_is_told_of_in_the_same_words() {
    let settings = Settings::default().limits("[{ requests = 1_000_000, per = '1s' }]");
    let settings = settings.section("quota", "queue_timeout = '4s'");
    let replicas = Replicas::start(exact_profile(50, 4), settings, 2).await;
    let problem = |answer: &Answer| {
        let mut problem = answer.json();
        problem.as_object_mut().unwrap().remove("request_id");
        (answer.status, answer.header("retry-after").is_some(), problem)
    };
    // The account is closed after the last one.
    for fault in [Fault::Status500, Fault::Unauthorized, Fault::Html200, Fault::WrongCount, Fault::TooMany] {
        replicas.rig.control.set_faults(FaultPlan::always(fault));
        let told = problem(&replicas.follower(0).ask(&Ask::get(DAY)).await);
        let mut own = problem(&replicas.caller().ask(&Ask::get("from=2026-02-22&to=2026-02-22")).await);
        if fault == Fault::TooMany {
            // How long it is closed grows with each refusal.
            own.2 = told.2.clone();
        }
        assert_eq!(told, own, "{fault:?}");
    }
}

/// A quota of one call in two seconds, of which the first is spent.
async fn busy() -> Replicas {
    let limit = RollingLimit::new(1, Duration::from_secs(2));
    let profile = Profile { rate_limits: vec![limit].into(), ..exact_profile(50, 20) };
    let settings = Settings::default().limits("[{ requests = 1, per = '2s' }]");
    let replicas = Replicas::start(profile, settings, 2).await;
    replicas.caller().ask(&Ask::get("from=2026-02-10&to=2026-02-10")).await.page();
    replicas
}

#[tokio::test]
async fn who_hangs_up_at_one_who_follows_costs_no_call() {
    let replicas = busy().await;
    let leaves = spawn(replicas.follower(0), "from=2026-02-12&to=2026-02-12");
    until("it waits for its turn", || replicas.waiting_for_a_turn() == 1).await;
    leaves.abort();
    until("nobody waits any more", || replicas.waiting_for_a_turn() == 0).await;
    replicas.follower(0).ask(&Ask::get("from=2026-02-14&to=2026-02-14")).await.page();
    assert_eq!(replicas.rig.calls(), 2);
}

#[tokio::test]
async fn an_errand_of_a_replica_that_is_gone_is_dropped() {
    let mut replicas = busy().await;
    // It waits there for longer than the silence that is bearable.
    replicas.rig.control.set_latency(Duration::from_secs(20), Duration::from_secs(20));
    let first = spawn(replicas.caller(), "from=2026-02-11&to=2026-02-11");
    until("a call is under way", || replicas.rig.calls() == 2).await;
    let asking = spawn(replicas.follower(0), "from=2026-02-12&to=2026-02-12");
    until("it waits for its turn", || replicas.waiting_for_a_turn() == 1).await;
    replicas.all[1].die();
    until("it is dropped", || replicas.waiting_for_a_turn() == 0).await;
    asking.abort();
    first.abort();
}

#[tokio::test]
async fn when_the_one_who_calls_is_gone_the_next_one_goes_on() {
    for dies in [true, false] {
        let mut replicas = Replicas::start(exact_profile(250, 4), Settings::default(), 4).await;
        replicas.rig.control.set_latency(Duration::from_mins(1), Duration::from_mins(1));
        // One of them will make the calls, so this asks both one that goes on following and one that does not.
        let doors = [replicas.follower(0), replicas.follower(1), replicas.follower(2)];
        let asking: Vec<_> = (0..6).map(|n| spawn(doors[n % 3], DAY)).collect();
        until("the first call is under way", || replicas.rig.calls() == 1).await;
        replicas.rig.control.set_latency(Duration::ZERO, Duration::ZERO);
        let mut gone = replicas.all.remove(0);
        if dies {
            gone.die();
        } else {
            gone.door.gateway.stack().quotas.leave().await;
        }
        let mut told = 0;
        for answer in join_all(asking).await {
            let answer = answer.unwrap();
            assert_whole(&answer, &day(&replicas.rig));
            told += calls_told(&answer);
        }
        assert_eq!((replicas.rig.calls(), told), (1 + 3, 3), "fetched once; died: {dies}");
    }
}

#[tokio::test]
async fn when_redis_goes_away_meanwhile_the_one_who_follows_fetches_by_itself() {
    for how in [RedisServer::kill as fn(&mut RedisServer), |redis| redis.stop()] {
        let mut replicas = Replicas::start(exact_profile(250, 4), Settings::default(), 2).await;
        replicas.rig.control.set_latency(Duration::from_mins(1), Duration::from_mins(1));
        let asking = spawn(replicas.follower(0), DAY);
        until("the first call is under way", || replicas.rig.calls() == 1).await;
        replicas.rig.control.set_latency(Duration::ZERO, Duration::ZERO);
        how(&mut replicas.redis);
        let answer = asking.await.unwrap();
        assert_whole(&answer, &day(&replicas.rig));
        assert_eq!((replicas.rig.calls(), calls_told(&answer)), (4, 3));
    }
}

#[tokio::test]
async fn what_has_gone_from_redis_before_it_was_read_is_handed_over_anew() {
    let replicas = Replicas::start(exact_profile(250, 4), Settings::default(), 2).await;
    let rig = &replicas.rig;
    replicas.caller().ask(&Ask::get(DAY)).await.page();
    let spent = rig.calls();
    until("it is in Redis", || replicas.for_each_chunk_key("") == "24").await;
    // The one who calls believes that all is there.
    replicas.follower(0).ask(&Ask::get("from=2026-02-22T01:00:00&to=2026-02-22T01:00:00")).await.page();
    let spent = spent.max(rig.calls());
    replicas.for_each_chunk_key("redis.call('del', key)");
    let answer = replicas.follower(0).ask(&Ask::get(DAY)).await;
    assert_whole(&answer, &day(rig));
    assert_eq!((rig.calls(), calls_told(&answer)), (spent, 0));
    assert!(replicas.passing().contains(":passing:"));
}

#[tokio::test]
async fn letters_that_are_lost_are_written_again() {
    let replicas = Replicas::start(exact_profile(900, 4), Settings::default(), 3).await;
    let windows = overlapping(24);
    let asks = asks(&windows);
    let kill = async {
        for _ in 0..30 {
            replicas.redis.admin(&["CLIENT", "KILL", "TYPE", "pubsub"]);
            sleep(Duration::from_millis(10)).await;
        }
    };
    let (answers, ()) = tokio::join!(replicas.ask_all(&asks), kill);
    replicas.assert_each_whole(&windows, &answers);
}

#[tokio::test]
async fn letters_and_what_is_handed_over_are_sealed() {
    let dir = tempfile::tempdir().unwrap();
    let file = dir.path().join("key");
    std::fs::write(&file, "a secret of 32 random bytes or more").unwrap();
    let redis = RedisServer::start();
    let key = format!(", encryption_key = {{ file = '{}' }}", file.display());
    let settings = Settings::default()
        .section("window", "freshness = []")
        .section("cache", &format!("redis = {{ url = '{}', timeout = '1s'{key} }}", redis.url()));
    let replicas = Replicas::start_with(redis, exact_profile(250, 4), &[settings.clone(), settings]).await;
    let answer = replicas.follower(0).ask(&Ask::get(DAY_OPEN)).await;
    assert_whole(&answer, &replicas.rig.truth(at("2026-02-25T11:00:00Z"), replicas.rig.clock.now()));
    let shown = replicas.for_each_chunk_key(
        "for _, value in ipairs(redis.call('hvals', key)) do if value:sub(1, 4) ~= 'kgs1' then return 'shown' end end",
    );
    assert!(shown.parse::<u32>().is_ok_and(|values| values > 0), "{shown}");
}

#[tokio::test]
async fn a_replica_that_cuts_otherwise_fetches_for_itself_with_turns_of_the_one_who_calls() {
    let redis = RedisServer::start();
    let one = with(&redis, Settings::default());
    let other = with(&redis, Settings::default().section("window", "chunk = '30m'"));
    let replicas = Replicas::start_with(redis, exact_profile(50, 4), &[one, other]).await;
    let answer = replicas.follower(0).ask(&Ask::get(DAY)).await;
    assert_whole(&answer, &replicas.rig.truth(at("2026-02-23T00:00:00Z"), at("2026-02-24T00:00:00Z")));
    assert_eq!(replicas.rig.calls(), 1);
}
