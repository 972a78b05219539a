//! The simulator over real sockets, held against its own truth.

mod data;
mod wire;

use std::time::Duration;

use bytes::Bytes;
use http::{Request, StatusCode};
use http_body_util::{BodyExt, Full};
use hyper_util::client::legacy::Client;
use hyper_util::client::legacy::connect::HttpConnector;
use hyper_util::rt::TokioExecutor;
use serde::Deserialize;
use serde_json::value::RawValue;

use super::{Control, Filter, Profile, Simulator, StreamProfile};
use crate::clock::Clock;
use crate::window::Timestamp;

const NOW: &str = "2026-02-25T12:00:00Z";
const STREAM: &str = "st-test";
const DAY: &str = "from=2026-02-24&to=2026-02-24";

fn at(spelled: &str) -> Timestamp {
    spelled.parse::<jiff::Timestamp>().expect("a timestamp").into()
}

fn small() -> Profile {
    Profile { streams: vec![StreamProfile::new(STREAM, 240)], days: 3, ..Profile::default() }
}

struct Rig {
    simulator: Simulator,
    control: Control,
    client: Client<HttpConnector, Full<Bytes>>,
    token: String,
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct Page {
    num_results: usize,
    has_more: bool,
    data: Vec<Box<RawValue>>,
}

impl Rig {
    async fn start(profile: Profile) -> Self {
        let simulator = Simulator::start(profile, Clock::manual(at(NOW))).await.expect("a free port");
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

    async fn page(&self, query: &str, body: &str) -> Page {
        let (parts, body) = self.send(self.request(query), body).await.expect("an answer");
        assert_eq!(parts.status, StatusCode::OK);
        let page: Page = serde_json::from_slice(&body).expect("a page");
        assert_eq!(page.num_results, page.data.len());
        page
    }

    /// All pages of a window, put together.
    async fn window(&self, query: &str) -> Vec<String> {
        let mut items = Vec::new();
        loop {
            let page = self.page(&format!("{query}&offset={}", items.len()), "").await;
            items.extend(page.data.iter().map(|item| item.get().to_owned()));
            if !page.has_more {
                return items;
            }
        }
    }

    /// The truth of a whole UTC day.
    fn day(&self, day: &str, rich: bool, filter: &Filter) -> Vec<(String, String)> {
        let from = at(&format!("{day}T00:00:00Z"));
        let truth = self.control.expected_until(STREAM, from, from + Duration::from_hours(24), rich, filter);
        let text = |bytes| String::from_utf8(bytes).expect("UTF-8");
        truth.into_iter().map(|(id, bytes)| (id, text(bytes))).collect()
    }
}
