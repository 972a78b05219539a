//! Tests of the simulator over real sockets.

mod data;
mod wire;

use std::time::Duration;

use bytes::Bytes;
use http::{Request, StatusCode};
use http_body_util::{BodyExt, Full};
use hyper_util::client::legacy::Client;
use hyper_util::client::legacy::connect::HttpConnector;
use hyper_util::rt::TokioExecutor;
use jiff::Timestamp;
use serde::Deserialize;
use serde_json::value::RawValue;

use crate::{Control, ItemFilter, Profile, Simulator, StreamProfile};

const NOW: &str = "2026-02-25T12:00:00Z";
const STREAM: &str = "st-test";
const DAY: &str = "from=2026-02-24&to=2026-02-24";

fn at(text: &str) -> Timestamp {
    text.parse().expect("a timestamp")
}

fn small_profile() -> Profile {
    Profile { streams: vec![StreamProfile::new(STREAM, 240)], days: 3, ..Profile::default() }
}

/// A simulator whose clock stands at [`NOW`], and a client.
struct TestSimulator {
    simulator: Simulator,
    control: Control,
    client: Client<HttpConnector, Full<Bytes>>,
    token: String,
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct PageBody {
    num_results: usize,
    has_more: bool,
    data: Vec<Box<RawValue>>,
}

impl TestSimulator {
    async fn start(profile: Profile) -> Self {
        let simulator = Simulator::start_with_clock(profile, || at(NOW)).await.expect("a free port");
        let control = simulator.control();
        let token = control.token().expect("a token");
        Self { simulator, control, client: Client::builder(TokioExecutor::new()).build_http(), token }
    }

    fn request(&self, query: &str) -> http::request::Builder {
        let base = self.simulator.base_url();
        Request::get(format!("{base}/agentassist/api/v1/public/{STREAM}/v2/agentassistinteractions?{query}"))
            .header("accountId", "664b33a620bd0892e0000001")
            .header("auth", &self.token)
    }

    async fn send(
        &self,
        request: http::request::Builder,
        body: &str,
    ) -> anyhow::Result<(http::response::Parts, Bytes)> {
        let request = request.body(Full::from(body.to_owned()))?;
        let (parts, body) = self.client.request(request).await?.into_parts();
        Ok((parts, body.collect().await?.to_bytes()))
    }

    async fn get(&self, query: &str) -> anyhow::Result<(http::response::Parts, Bytes)> {
        self.send(self.request(query), "").await
    }

    async fn page(&self, query: &str, body: &str) -> PageBody {
        let (parts, body) = self.send(self.request(query), body).await.expect("a response");
        assert_eq!(parts.status, StatusCode::OK);
        let page: PageBody = serde_json::from_slice(&body).expect("a page");
        assert_eq!(page.num_results, page.data.len());
        page
    }

    /// The items of all pages of a window.
    async fn all_pages(&self, query: &str) -> Vec<String> {
        let mut items = Vec::new();
        loop {
            let page = self.page(&format!("{query}&offset={}", items.len()), "").await;
            items.extend(page.data.iter().map(|item| item.get().to_owned()));
            if !page.has_more {
                return items;
            }
        }
    }

    /// The expected items of a UTC day.
    fn expected_day(&self, day: &str, agentic: bool, filter: &ItemFilter) -> Vec<(String, String)> {
        let from = at(&format!("{day}T00:00:00Z"));
        let items = self.control.expected_until(STREAM, from, from + Duration::from_hours(24), agentic, filter);
        let text = |bytes| String::from_utf8(bytes).expect("UTF-8");
        items.into_iter().map(|(id, bytes)| (id, text(bytes))).collect()
    }
}
