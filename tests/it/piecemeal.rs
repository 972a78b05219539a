//! A long window that only Redis has leaves piece by piece, as fast as it is read; and it is right, whatever becomes of
//! Redis meanwhile.

use std::time::Duration;

use http_body_util::BodyExt as _;
use koregate_simulator::{Fault, FaultPlan, ItemFilter};

use crate::support::{Answer, Ask, Door, RedisServer, Rig, Settings, at, exact_profile, text, until};

/// Six settled days of 4800 items in all: thirty megabytes, far more than lies between who sends and who reads.
const LONG: &str = "from=2026-02-18&to=2026-02-23";
const PAGES: u64 = 48;
/// One chunk in each.
const CELLS: usize = 144;
/// One of the days.
const DAY: &str = "from=2026-02-20&to=2026-02-20";
const PAGES_OF_DAY: u64 = 8;

/// Room for all of it.
fn roomy(redis: &RedisServer) -> Settings {
    with_memory(redis, "256MiB")
}

fn with_memory(redis: &RedisServer, memory: &str) -> Settings {
    let settings = Settings::default().section("cache", &format!("memory = '{memory}'")).redis(&redis.url());
    // Calls are counted: none is made ahead.
    settings.section("upstream", "max_concurrency = 1")
}

/// A replica that has fetched the window, and has written all of it; there is no room for it in memory.
async fn filled(redis: &RedisServer) -> Rig {
    let rig = Rig::start(exact_profile(800, 8), &with_memory(redis, "1KiB")).await;
    // Day by day: what is streamed is kept when all of it is proven, and memory has no room for it until then.
    for day in 18..=23 {
        rig.get(format!("from=2026-02-{day}&to=2026-02-{day}")).await.page();
    }
    until_written(redis).await;
    rig.control.reset_counts();
    rig
}

async fn until_written(redis: &RedisServer) {
    until("all chunks are in Redis", || for_each_chunk(redis, "") == CELLS.to_string()).await;
}

/// Does something with each chunk: `key`, `field` and `value` name it. How many there were.
fn for_each_chunk(redis: &RedisServer, body: &str) -> String {
    let script = format!(
        "local n = 0 for _, key in ipairs(redis.call('keys', 'koregate:c*')) do \
         local all = redis.call('type', key).ok == 'hash' and redis.call('hgetall', key) or {{}} for i = 1, #all, 2 do \
         local field, value = all[i], all[i + 1] n = n + 1 {body} end end return n"
    );
    text(&redis.admin(&["EVAL", &script, "0"]))
}

const DELETE: &str = "redis.call('del', key)";
const DAMAGE: &str = "redis.call('hset', key, field, value:sub(1, #value - 1))";

fn truth(rig: &Rig) -> Vec<Vec<u8>> {
    rig.truth(at("2026-02-18"), at("2026-02-24"))
}

#[track_caller]
fn assert_whole(answer: &Answer, truth: &[Vec<u8>]) {
    assert!(answer.page().items().eq(truth.iter().map(Vec::as_slice)), "not the whole window");
}

/// Asks for the whole window, and does something when its beginning has come and nobody reads on.
async fn ask_and(door: &Door, meanwhile: impl AsyncFnOnce()) -> Answer {
    let (parts, mut body) = door.client.open(door.addr(), &Ask::get(LONG)).await.unwrap().into_parts();
    let mut come = Vec::new();
    while come.len() < 1000 {
        come.extend_from_slice(&body.frame().await.unwrap().unwrap().into_data().unwrap());
    }
    meanwhile().await;
    come.extend_from_slice(&body.collect().await.unwrap().to_bytes());
    Answer { status: parts.status, headers: parts.headers, body: come.into() }
}

#[tokio::test]
async fn what_only_redis_has_is_streamed_without_a_call_whatever_fits_into_memory() {
    let redis = RedisServer::start();
    let mut rig = filled(&redis).await;
    let roomy = rig.another_door(&roomy(&redis)).await;
    let (truth, filter) = (truth(&rig), ItemFilter { channels: vec!["voice".to_owned()], ..ItemFilter::default() });
    let voice = rig.truth_of(at("2026-02-18"), at("2026-02-24"), false, &filter);
    rig.clock.set(rig.clock.now() + Duration::from_secs(90));
    rig.stop_upstream().await;
    for door in [&rig.door, &roomy] {
        let answer = door.ask(&Ask::get(LONG)).await;
        assert_eq!(answer.cache_status(), "koregate; hit; detail=\"streamed\"");
        assert_eq!(answer.header("age"), Some("90"));
        assert_whole(&answer, &truth);
    }
    let again = roomy.ask(&Ask::get(LONG)).await;
    assert!(again.cache_status().contains(&format!("chunks={CELLS} hits={CELLS}")), "what was taken is in memory");
    assert!(again.header("etag").is_some());
    let of_voice = rig.ask(&Ask::post(LONG, r#"{"channels":["voice"]}"#)).await;
    assert_eq!(of_voice.cache_status(), "koregate; hit; detail=\"streamed\"");
    assert_whole(&of_voice, &voice);
}

#[tokio::test]
async fn what_redis_lacks_is_fetched_with_as_few_calls_as_ever() {
    let redis = RedisServer::start();
    let rig = filled(&redis).await;
    let start = at("2026-02-20").as_seconds();
    let of_the_day = format!(
        "local at = tonumber(key:match(':(%d+):%d+$')) if at >= {start} and at < {} then redis.call('del', key) end",
        start + 24 * 3600
    );
    for_each_chunk(&redis, &of_the_day);
    let answer = rig.get(LONG).await;
    assert_eq!(answer.cache_status(), "koregate; fwd=partial; detail=\"streamed\"");
    assert_whole(&answer, &truth(&rig));
    assert_eq!(rig.calls(), PAGES_OF_DAY);
}

#[tokio::test]
async fn what_is_in_memory_is_sent_from_there() {
    let redis = RedisServer::start();
    let rig = filled(&redis).await;
    let roomy = rig.another_door(&roomy(&redis)).await;
    roomy.ask(&Ask::get(DAY)).await.page();
    assert_eq!(rig.calls(), 0);
    for_each_chunk(&redis, DELETE);
    assert_whole(&roomy.ask(&Ask::get(LONG)).await, &truth(&rig));
    assert_eq!(rig.calls(), PAGES - PAGES_OF_DAY);
}

#[tokio::test]
async fn names_that_keep_nothing_cost_hardly_a_call_more() {
    let redis = RedisServer::start();
    let rig = filled(&redis).await;
    for_each_chunk(&redis, DAMAGE);
    assert_whole(&rig.get(LONG).await, &truth(&rig));
    // Each piece that was listed and could not be read is a run.
    assert!((PAGES..=PAGES + 4).contains(&rig.calls()), "{} calls", rig.calls());
}

/// Something had been sent by then, and the rest had not been taken: a reader that is slow holds it up.
#[track_caller]
fn assert_the_rest_was_fetched(rig: &Rig) {
    // Where something was taken and the next thing was not, a run begins.
    assert!((PAGES / 4..PAGES).contains(&rig.calls()), "{} calls", rig.calls());
}

#[tokio::test]
async fn what_goes_from_redis_while_it_is_sent_is_fetched() {
    let redis = RedisServer::start();
    let rig = filled(&redis).await;
    let answer = ask_and(&rig.door, async || drop(for_each_chunk(&redis, DELETE))).await;
    assert_whole(&answer, &truth(&rig));
    assert_the_rest_was_fetched(&rig);
}

#[tokio::test]
async fn what_is_damaged_while_it_is_sent_is_fetched() {
    let redis = RedisServer::start();
    let rig = filled(&redis).await;
    let answer = ask_and(&rig.door, async || drop(for_each_chunk(&redis, DAMAGE))).await;
    assert_whole(&answer, &truth(&rig));
    assert_the_rest_was_fetched(&rig);
}

#[tokio::test]
async fn a_redis_that_dies_while_it_is_sent_is_not_missed() {
    let mut redis = RedisServer::start();
    let rig = filled(&redis).await;
    let answer = ask_and(&rig.door, async || redis.kill()).await;
    assert_whole(&answer, &truth(&rig));
    assert_the_rest_was_fetched(&rig);
}

#[tokio::test]
async fn what_is_purged_while_it_is_sent_is_fetched_anew() {
    let redis = RedisServer::start();
    let rig = filled(&redis).await;
    let answer = ask_and(&rig.door, async || assert_eq!(rig.door.purge("").await.status, 200)).await;
    assert_whole(&answer, &truth(&rig));
    assert_the_rest_was_fetched(&rig);
}

/// Six days of 26,400 items: 264 pages, of which 250 are proven before the last one comes.
#[tokio::test]
async fn what_a_long_fetch_has_proven_is_in_redis_before_its_end() {
    let redis = RedisServer::start();
    let rig = Rig::start(exact_profile(4_400, 8), &with_memory(&redis, "64MiB")).await;
    // The 251st call is the proof; the 261st is kept waiting for longer than this test lives.
    rig.control.set_faults(FaultPlan::always(Fault::Slow).after(260));
    let answer = rig.door.client.open(rig.door.addr(), &Ask::get(LONG)).await.unwrap();
    let reading = tokio::spawn(answer.into_body().collect());
    // One chunk at the least in each hour of it.
    until("what is proven is in Redis", || for_each_chunk(&redis, "").parse::<usize>().unwrap() > 135).await;
    until("calls", || rig.calls() == 261).await;
    let another = rig.another_door(&roomy(&redis)).await;
    let day = Ask::get("from=2026-02-22&to=2026-02-22");
    let truth = rig.truth(at("2026-02-22"), at("2026-02-23"));
    assert!(another.ask(&day).await.page().items().eq(truth.iter().map(Vec::as_slice)));
    assert_eq!(rig.calls(), 261);
    reading.abort();
}
