//! A service of the demo, which requests windows one after another over HTTP, as any client would.

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

/// A window, and the size of the pages in which it is requested.
#[derive(Clone, Copy, Debug)]
pub(super) struct WindowRequest {
    pub(super) from: Timestamp,
    pub(super) to: Timestamp,
    pub(super) page_size: u64,
}

/// A service and its progress.
#[derive(Debug)]
pub(super) struct Service {
    pub(super) name: &'static str,
    /// A description of its requests.
    pub(super) habit: &'static str,
    windows: Vec<WindowRequest>,
    /// The pause after each window.
    pause: Duration,
    requests: AtomicU64,
    items: AtomicU64,
    /// The calls to Kore that the service would have made without the gateway.
    direct_calls: AtomicU64,
    is_done: AtomicBool,
}

impl Service {
    pub(super) fn new(
        name: &'static str,
        habit: &'static str,
        windows: Vec<WindowRequest>,
        pause: Duration,
    ) -> Arc<Self> {
        let (requests, items, direct_calls, is_done) = Default::default();
        Arc::new(Self { name, habit, windows, pause, requests, items, direct_calls, is_done })
    }

    pub(super) fn requests(&self) -> u64 {
        self.requests.load(Ordering::Relaxed)
    }

    pub(super) fn items(&self) -> u64 {
        self.items.load(Ordering::Relaxed)
    }

    pub(super) fn direct_calls(&self) -> u64 {
        self.direct_calls.load(Ordering::Relaxed)
    }

    pub(super) fn is_done(&self) -> bool {
        self.is_done.load(Ordering::Relaxed)
    }

    /// Requests all windows.
    pub(super) async fn run(self: Arc<Self>, url: String) -> anyhow::Result<()> {
        let client = Client::builder(TokioExecutor::new()).build(HttpConnector::new());
        for window in &self.windows {
            let mut offset = 0;
            loop {
                let (items, has_more) = request_page(&client, &url, window, offset).await?;
                offset += items;
                self.requests.fetch_add(1, Ordering::Relaxed);
                self.items.fetch_add(items, Ordering::Relaxed);
                self.direct_calls.fetch_add(items.div_ceil(u64::from(PAGE_LIMIT)).max(1), Ordering::Relaxed);
                if !has_more {
                    break;
                }
            }
            tokio::time::sleep(self.pause).await;
        }
        self.is_done.store(true, Ordering::Relaxed);
        Ok(())
    }
}

/// Requests one page. Returns the number of its items, and whether there are more.
async fn request_page(
    client: &Client<HttpConnector, Empty<Bytes>>,
    url: &str,
    window: &WindowRequest,
    offset: u64,
) -> anyhow::Result<(u64, bool)> {
    let format = |time: Timestamp| time.strftime("%Y-%m-%dT%H:%M:%S").to_string();
    let (from, to, limit) = (format(window.from), format(window.to), window.page_size);
    let uri = format!("{url}?from={from}&to={to}&offset={offset}&limit={limit}").parse()?;
    let response = client.get(uri).await?;
    let status = response.status();
    let mut body = response.into_body();
    let mut head = Vec::new();
    // The first members of the envelope suffice; the items are received and discarded.
    while let Some(frame) = body.frame().await {
        if let Ok(data) = frame?.into_data()
            && head.len() < 64
        {
            head.extend_from_slice(&data);
        }
    }
    let head = String::from_utf8_lossy(&head);
    anyhow::ensure!(status.is_success(), "the gateway answered {status}: {head}");
    let member = |name: &str| {
        let rest = &head[head.find(name)? + name.len()..];
        rest.split([',', '}']).next()
    };
    let items = member("\"numResults\":").context("an answer without numResults")?.parse()?;
    let has_more = member("\"hasMore\":").context("an answer without hasMore")?.parse()?;
    Ok((items, has_more))
}
