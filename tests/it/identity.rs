//! What identifies an answer, by chance: callers, streams, windows, pages, richness, filters, parameters and purges, each
//! answer held against what the simulator has.

use std::time::Duration;

use koregate::window::{Timestamp, UpperBound};
use koregate_simulator::{ItemFilter, StreamProfile};
use proptest::prelude::*;
use proptest::test_runner::{Config, TestRunner};

use crate::callers::caller;
use crate::support::{Answer, Ask, Rig, STREAM, Settings, Window, at, exact_profile};

const OTHER_STREAM: &str = "st-other";
const KEYS: [&str; 3] = ["key-of-both", "key-of-one", "key-of-other"];
/// What the one who asks for hits asks for.
const WARM: &str = "from=2026-02-21&to=2026-02-21";

/// One request.
#[derive(Clone, Debug)]
struct Request {
    key: usize,
    stream: &'static str,
    /// The first hour of the window, from the beginning of the data on, and how many hours.
    hours: (u16, u16),
    /// The offset and the limit.
    page: Option<(usize, usize)>,
    rich: bool,
    filter: ItemFilter,
    /// A parameter that nobody knows.
    parameter: Option<&'static str>,
    /// A body that only the upstream understands.
    is_opaque: bool,
    /// Purged before, by its stream and window.
    purge: bool,
}

fn requests() -> impl Strategy<Value = Request> {
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
        .prop_map(|(key, stream, hours, page, rich, channels, parameter, is_opaque, purge)| {
            let channels = channels.into_iter().map(str::to_owned).collect();
            let filter = ItemFilter { channels, ..ItemFilter::default() };
            Request { key, stream, hours, page, rich, filter, parameter, is_opaque, purge }
        })
}

impl Request {
    fn window(&self) -> Window {
        let from = at("2026-02-22") + Duration::from_hours(self.hours.0.into());
        let to = from + Duration::from_hours(self.hours.1.into()) - Duration::from_secs(1);
        Window::seconds(from, to, UpperBound::Inclusive)
    }

    fn ask(&self) -> Ask {
        let page = self.page.map(|(offset, limit)| format!("offset={offset}&limit={limit}"));
        let rich = self.rich.then_some("includeAgenticData=true");
        let parameters = page.as_deref().into_iter().chain(rich).chain(self.parameter);
        let mut body = serde_json::Map::new();
        if !self.filter.channels.is_empty() {
            body.insert("channels".to_owned(), self.filter.channels.clone().into());
        }
        if self.is_opaque {
            body.insert("unknown".to_owned(), 1.into());
        }
        let body = if body.is_empty() { Vec::new() } else { serde_json::to_vec(&body).unwrap() };
        let ask = Ask::post(self.window().query, body).stream(self.stream).header("x-api-key", KEYS[self.key]);
        parameters.fold(ask, Ask::and)
    }

    fn may_ask(&self) -> bool {
        self.key == 0 || (self.key == 1) == (self.stream == STREAM)
    }

    fn check(&self, answer: &Answer, rig: &Rig) -> Result<(), TestCaseError> {
        if !self.may_ask() {
            prop_assert_eq!(answer.status.as_u16(), 403);
            return Ok(());
        }
        prop_assert_eq!(answer.status.as_u16(), 200, "{}", answer.text());
        let Window { from, end, .. } = self.window();
        let end: Timestamp = end.min(rig.clock.now());
        let truth = rig.control.expected_until(self.stream, from, end, self.rich, &self.filter);
        let (offset, limit) = self.page.unwrap_or((0, usize::MAX));
        let wanted: Vec<Vec<u8>> = truth.into_iter().map(|(_, item)| item).skip(offset).take(limit).collect();
        let page = answer.page();
        prop_assert!(
            page.items().eq(wanted.iter().map(Vec::as_slice)),
            "{} items, not {}",
            page.items().len(),
            wanted.len()
        );
        Ok(())
    }
}

#[test]
fn whatever_others_ask_for_each_answer_is_its_own_and_hits_stay_hits() {
    let runtime = tokio::runtime::Runtime::new().unwrap();
    let mut runner = TestRunner::new(Config { cases: 6, max_shrink_iters: 64, ..Config::default() });
    let result = runner.run(&prop::collection::vec(requests(), 40), |requests| {
        runtime.block_on(async {
            let mut profile = exact_profile(150, 6);
            profile.streams.push(StreamProfile { exact: true, ..StreamProfile::new(OTHER_STREAM, 130) });
            let callers = [
                caller("both", KEYS[0], ""),
                caller("one", KEYS[1], &format!("streams = ['{STREAM}']")),
                caller("other", KEYS[2], &format!("streams = ['{OTHER_STREAM}']")),
                caller("warm", "key-of-warm", ""),
            ];
            let rig = Rig::start(profile, &Settings::default().tables(&callers.concat())).await;
            let warm = Ask::get(WARM).header("x-api-key", "key-of-warm");
            let first = rig.ask(&warm).await;
            for request in &requests {
                if request.purge {
                    let query = format!("stream={}&{}", request.stream, request.window().query);
                    let purged = rig.door.purge(&query).await;
                    prop_assert_eq!(purged.status.as_u16(), 200, "{}", purged.text());
                }
                request.check(&rig.ask(&request.ask()).await, &rig)?;
                rig.control.reset_counts();
                let again = rig.ask(&warm).await;
                prop_assert!(again.body == first.body && rig.calls() == 0, "a hit of somebody else is no hit any more");
            }
            Ok(())
        })
    });
    if let Err(error) = result {
        panic!("{error}\n{runner}");
    }
}
