//! Traces of callers, told again to koregate in front of the simulator, and to two models: of a cache that is keyed by
//! URL, and of what nobody could do with less. What is compared is upstream calls, which no noise touches.

mod models;
mod traces;

use std::net::SocketAddr;

use anyhow::{Context as _, ensure};
use bytes::Bytes;
use futures_util::future::try_join_all;
use http::Request;
use http_body_util::{BodyExt as _, Empty};
use hyper_util::client::legacy::Client;
use hyper_util::client::legacy::connect::HttpConnector;
use hyper_util::rt::TokioExecutor;
use koregate::window::Timestamp;
use koregate_simulator::{ItemFilter, StreamProfile};

use self::models::{Ladder, LowerBound, UrlCache};
use self::traces::{Ask, traces};
use super::rig::{DAY, Rig};

const STREAM: &str = "st-replay";
/// Items a day.
const ITEMS: u32 = 1_700;
/// Days that are lived again, and days before them that callers look back on.
const DAYS: u32 = 7;
const DAYS_BEFORE: u32 = 31;

/// Tells all traces again, and prints what they cost as a table.
pub(crate) fn run() -> anyhow::Result<()> {
    let begin = Timestamp::from("2026-02-17T00:00:00Z".parse::<jiff::Timestamp>()?);
    let runtime = tokio::runtime::Builder::new_multi_thread().enable_all().build()?;
    let times = runtime.block_on(times(begin))?;
    println!("| trace | requests | koregate | cache by URL | lower bound | koregate ÷ bound | by URL ÷ koregate |");
    println!("| :-- | --: | --: | --: | --: | --: | --: |");
    for (name, asks) in traces(begin, DAYS) {
        let koregate = runtime.block_on(tell(begin, &asks)).context(name)?;
        let (mut by_url, mut bound) = (UrlCache::new(&times), LowerBound::new(&times));
        for together in asks.chunk_by(|a, b| a.when == b.when) {
            for ask in together {
                by_url.ask(ask);
            }
            bound.ask(together);
        }
        let hundredths = |a: u64, b: u64| format!("{}.{:02}", a / b, a * 100 / b % 100);
        println!(
            "| {name} | {} | {koregate} | {} | {} | {} | {} |",
            asks.len(),
            by_url.calls,
            bound.calls,
            hundredths(koregate, bound.calls),
            hundredths(by_url.calls, koregate)
        );
    }
    Ok(())
}

async fn rig(begin: Timestamp) -> anyhow::Result<Rig> {
    // The data goes on up to the end of the day on which the simulator starts.
    let last = begin + DAY * (DAYS - 1);
    Rig::start(vec![StreamProfile::new(STREAM, ITEMS)], DAYS_BEFORE + DAYS, last).await
}

/// The upstream calls that koregate makes for all this, from an empty cache on.
async fn tell(begin: Timestamp, asks: &[Ask]) -> anyhow::Result<u64> {
    let rig = rig(begin).await?;
    // No connection is kept: one that koregate closes for being idle could be the next one to be used.
    let client = Client::builder(TokioExecutor::new()).pool_max_idle_per_host(0).build_http();
    for together in asks.chunk_by(|a, b| a.when == b.when) {
        rig.clock.set(together[0].when);
        try_join_all(together.iter().map(|ask| send(&client, rig.addr(), ask))).await?;
    }
    Ok(rig.control.counts().total)
}

async fn send(client: &Client<HttpConnector, Empty<Bytes>>, addr: SocketAddr, ask: &Ask) -> anyhow::Result<()> {
    // A window is fetched whole, however few of its items are looked at.
    let request = Request::get(format!("http://{addr}{}", ask.path(STREAM, Some(1)))).body(Empty::new())?;
    let response = client.request(request).await?;
    let status = response.status();
    let body = response.into_body().collect().await?.to_bytes();
    ensure!(status.is_success(), "{}: {status} {}", ask.path(STREAM, None), String::from_utf8_lossy(&body));
    Ok(())
}

/// The timestamps of all items, ascending; day by day, so that not all items need be in memory at once.
async fn times(begin: Timestamp) -> anyhow::Result<Vec<Timestamp>> {
    #[derive(serde::Deserialize)]
    #[serde(rename_all = "camelCase")]
    struct Item<'a> {
        segment_start_time: &'a str,
    }

    let rig = rig(begin).await?;
    rig.clock.set(begin + DAY * DAYS);
    let mut times = Vec::new();
    let mut day = begin - DAY * DAYS_BEFORE;
    while day < begin + DAY * DAYS {
        for (_, json) in rig.control.expected_until(STREAM, day, day + DAY, false, &ItemFilter::default()) {
            let item: Item<'_> = serde_json::from_slice(&json)?;
            times.push(item.segment_start_time.parse::<jiff::Timestamp>()?.into());
        }
        day = day + DAY;
    }
    ensure!(times.is_sorted(), "the simulator's truth is not in order");
    Ok(times)
}

/// The rules of age that koregate has by default.
fn default_ladder() -> Ladder {
    use super::rig::{HOUR, MINUTE};
    Ladder { settle_after: DAY, rungs: vec![(HOUR, MINUTE / 2), (HOUR * 6, MINUTE * 5), (DAY, HOUR)] }
}
