//! The identity of a response, with random callers, streams, windows, pages, filters, parameters and purges: each
//! response is compared with the simulator's items.

use std::time::Duration;

use proptest::prelude::*;
use proptest::test_runner::{Config, TestRunner};

use crate::support::{
    ItemFilter, OTHER_STREAM, STREAM, Settings, TestHarness, TestRequest, TestResponse, Timestamp, UpperBound, Window,
    at, caller_table, exact_profile, exact_stream,
};

const KEYS: [&str; 3] = ["key-of-both", "key-of-one", "key-of-other"];
/// The window of the caller that must always get hits.
const CACHED: &str = "from=2026-02-21&to=2026-02-21";

/// A random request.
#[derive(Clone, Debug)]
struct RandomRequest {
    key: usize,
    stream: &'static str,
    /// The first hour of the window, counted from 2026-02-22, and the number of hours.
    hours: (u16, u16),
    /// `offset` and `limit`.
    page: Option<(usize, usize)>,
    agentic: bool,
    filter: ItemFilter,
    /// A parameter that the gateway does not know.
    parameter: Option<&'static str>,
    /// Whether the body has a field that the gateway does not know.
    is_opaque: bool,
    /// Whether its stream and window are purged first.
    purge: bool,
}

fn requests() -> impl Strategy<Value = RandomRequest> {
    let channels = prop::sample::select(vec![vec![], vec!["chat"], vec!["voice", "email"], vec!["fax"]]);
    (
        0..KEYS.len(),
        prop::sample::select(vec![STREAM, OTHER_STREAM]),
        (0u16..60, 1u16..40),
        prop::option::of((0usize..200, 0usize..150)),
        any::<bool>(),
        channels,
        prop::option::of(prop::sample::select(vec!["x=1", "x=2", "x=1&y=2", "y=2&x=1"])),
        prop::bool::weighted(0.2),
        prop::bool::weighted(0.1),
    )
        .prop_map(|(key, stream, hours, page, agentic, channels, parameter, is_opaque, purge)| {
            let channels = channels.into_iter().map(str::to_owned).collect();
            let filter = ItemFilter { channels, ..ItemFilter::default() };
            RandomRequest { key, stream, hours, page, agentic, filter, parameter, is_opaque, purge }
        })
}

impl RandomRequest {
    fn window(&self) -> Window {
        let from = at("2026-02-22") + Duration::from_hours(self.hours.0.into());
        let to = from + Duration::from_hours(self.hours.1.into()) - Duration::from_secs(1);
        Window::seconds(from, to, UpperBound::Inclusive)
    }

    fn to_test_request(&self) -> TestRequest {
        let page = self.page.map(|(offset, limit)| format!("offset={offset}&limit={limit}"));
        let agentic = self.agentic.then_some("includeAgenticData=true");
        let parameters = page.as_deref().into_iter().chain(agentic).chain(self.parameter);
        let mut body = serde_json::Map::new();
        if !self.filter.channels.is_empty() {
            body.insert("channels".to_owned(), self.filter.channels.clone().into());
        }
        if self.is_opaque {
            body.insert("unknown".to_owned(), 1.into());
        }
        let body = if body.is_empty() { Vec::new() } else { serde_json::to_vec(&body).unwrap() };
        let request = TestRequest::post(self.window().query, body).stream(self.stream).key(KEYS[self.key]);
        parameters.fold(request, TestRequest::and)
    }

    fn is_allowed(&self) -> bool {
        self.key == 0 || (self.key == 1) == (self.stream == STREAM)
    }

    fn check(&self, response: &TestResponse, harness: &TestHarness) -> Result<(), TestCaseError> {
        if !self.is_allowed() {
            prop_assert_eq!(response.status.as_u16(), 403);
            return Ok(());
        }
        prop_assert_eq!(response.status.as_u16(), 200, "{}", response.text());
        let Window { from, end, .. } = self.window();
        let end: Timestamp = end.min(harness.clock.now());
        let expected = harness.control.expected_until(self.stream, from, end, self.agentic, &self.filter);
        let (offset, limit) = self.page.unwrap_or((0, usize::MAX));
        let page_items: Vec<Vec<u8>> = expected.into_iter().map(|(_, item)| item).skip(offset).take(limit).collect();
        let page = response.page();
        prop_assert!(
            page.items().eq(page_items.iter().map(Vec::as_slice)),
            "{} items, not {}",
            page.items().len(),
            page_items.len()
        );
        Ok(())
    }
}

#[test]
fn random_requests_get_own_response_and_keep_hits() {
    let runtime = tokio::runtime::Runtime::new().unwrap();
    let mut runner = TestRunner::new(Config { cases: 6, max_shrink_iters: 64, ..Config::default() });
    let result = runner.run(&prop::collection::vec(requests(), 40), |requests| {
        runtime.block_on(async {
            let mut profile = exact_profile(150, 6);
            profile.streams.push(exact_stream(OTHER_STREAM, 130));
            let callers = [
                caller_table("both", KEYS[0], ""),
                caller_table("one", KEYS[1], &format!("streams = ['{STREAM}']")),
                caller_table("other", KEYS[2], &format!("streams = ['{OTHER_STREAM}']")),
                caller_table("warm", "key-of-warm", ""),
            ];
            let harness = TestHarness::start(profile, &Settings::default().tables(&callers.concat())).await;
            let cached = TestRequest::get(CACHED).key("key-of-warm");
            let first = harness.send(&cached).await;
            for request in &requests {
                if request.purge {
                    let query = format!("stream={}&{}", request.stream, request.window().query);
                    let purged = harness.gateway.purge(&query).await;
                    prop_assert_eq!(purged.status.as_u16(), 200, "{}", purged.text());
                }
                request.check(&harness.send(&request.to_test_request()).await, &harness)?;
                harness.control.reset_counts();
                let repeated = harness.send(&cached).await;
                prop_assert!(repeated.body == first.body && harness.calls() == 0, "the cached day is no longer a hit");
            }
            Ok(())
        })
    });
    if let Err(error) = result {
        panic!("{error}\n{runner}");
    }
}
