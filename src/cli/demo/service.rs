//! A service of the demo: asks for windows, one after another, as any client would, over HTTP.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::Duration;

use anyhow::Context as _;
use bytes::Bytes;
use http_body_util::{BodyExt as _, Empty};
use hyper_util::client::legacy::Client;
use hyper_util::client::legacy::connect::HttpConnector;
use hyper_util::rt::TokioExecutor;
use jiff::Timestamp;

use crate::upstream::PAGE_LIMIT;

/// A window, and the size of the pages in which it is asked for.
#[derive(Clone, Copy, Debug)]
pub(super) struct Ask {
    pub(super) from: Timestamp,
    pub(super) to: Timestamp,
    pub(super) page: u64,
}

/// A service and what it has done so far.
#[derive(Debug)]
pub(super) struct Service {
    pub(super) name: &'static str,
    pub(super) habit: &'static str,
    asks: Vec<Ask>,
    pause: Duration,
    requests: AtomicU64,
    items: AtomicU64,
    /// Calls to Kore that it would have made by itself.
    alone: AtomicU64,
    done: AtomicBool,
}

impl Service {
    pub(super) fn new(name: &'static str, habit: &'static str, asks: Vec<Ask>, pause: Duration) -> Arc<Self> {
        let (requests, items, alone, done) = Default::default();
        Arc::new(Self { name, habit, asks, pause, requests, items, alone, done })
    }

    pub(super) fn requests(&self) -> u64 {
        self.requests.load(Ordering::Relaxed)
    }

    pub(super) fn items(&self) -> u64 {
        self.items.load(Ordering::Relaxed)
    }

    pub(super) fn alone(&self) -> u64 {
        self.alone.load(Ordering::Relaxed)
    }

    pub(super) fn is_done(&self) -> bool {
        self.done.load(Ordering::Relaxed)
    }

    /// Asks for all its windows.
    pub(super) async fn run(self: Arc<Self>, url: String) -> anyhow::Result<()> {
        let client = Client::builder(TokioExecutor::new()).build(HttpConnector::new());
        for ask in &self.asks {
            let mut offset = 0;
            loop {
                let (items, has_more) = page(&client, &url, ask, offset).await?;
                offset += items;
                self.requests.fetch_add(1, Ordering::Relaxed);
                self.items.fetch_add(items, Ordering::Relaxed);
                self.alone.fetch_add(items.div_ceil(u64::from(PAGE_LIMIT)).max(1), Ordering::Relaxed);
                if !has_more {
                    break;
                }
            }
            tokio::time::sleep(self.pause).await;
        }
        self.done.store(true, Ordering::Relaxed);
        Ok(())
    }
}

/// Asks for one page; how many items came, and whether more follow.
async fn page(
    client: &Client<HttpConnector, Empty<Bytes>>,
    url: &str,
    ask: &Ask,
    offset: u64,
) -> anyhow::Result<(u64, bool)> {
    let spelled = |time: Timestamp| time.strftime("%Y-%m-%dT%H:%M:%S").to_string();
    let (from, to, limit) = (spelled(ask.from), spelled(ask.to), ask.page);
    let uri = format!("{url}?from={from}&to={to}&offset={offset}&limit={limit}").parse()?;
    let response = client.get(uri).await?;
    let status = response.status();
    let mut body = response.into_body();
    let mut head = Vec::new();
    // The envelope's first words say all that is needed; the items are received and let go.
    while let Some(frame) = body.frame().await {
        if let Ok(data) = frame?.into_data()
            && head.len() < 64
        {
            head.extend_from_slice(&data);
        }
    }
    let head = String::from_utf8_lossy(&head);
    anyhow::ensure!(status.is_success(), "the gateway answered {status}: {head}");
    let word = |name: &str| {
        let rest = &head[head.find(name)? + name.len()..];
        rest.split([',', '}']).next()
    };
    let items = word("\"numResults\":").context("an answer without numResults")?.parse()?;
    let has_more = word("\"hasMore\":").context("an answer without hasMore")?.parse()?;
    Ok((items, has_more))
}
