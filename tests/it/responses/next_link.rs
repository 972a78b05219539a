//! `Link: <…>; rel="next"`: a paginator that knows nothing but links gets the whole window.

use crate::support::{SETTLED_DAY, TestHarness, TestRequest, TestResponse, to_ndjson};

/// The path and the query of the next page.
fn next(response: &TestResponse) -> Option<(&str, &str)> {
    let target = response.header("link")?.strip_prefix('<')?.strip_suffix(">; rel=\"next\"")?;
    Some(target.split_once('?').unwrap())
}

/// The bodies of all pages, from link to link.
async fn follow(harness: &TestHarness, first: TestRequest) -> Vec<TestResponse> {
    let mut pages = vec![harness.send(&first).await];
    while let Some((path, query)) = next(&pages[pages.len() - 1]) {
        assert!(pages.len() < 100, "links without an end");
        let following = TestRequest::get(query).path(path);
        let request = first.clone().path(path).with_query_of(&following);
        pages.push(harness.send(&request).await);
    }
    pages
}

#[tokio::test]
async fn links_lead_through_the_whole_window() {
    let harness = TestHarness::start_exact(250, 4).await;
    let expected = harness.settled_day();
    for page in ["limit=100", "limit=100&offset=0", "offset=00&limit=125", "limit=250", "limit=1000"] {
        let pages = follow(&harness, TestRequest::get(SETTLED_DAY).and(page)).await;
        let items: Vec<Vec<u8>> =
            pages.iter().flat_map(|page| page.page().items().map(<[u8]>::to_vec).collect::<Vec<_>>()).collect();
        assert!(items == expected, "{page}: {} items", items.len());
        assert!(pages.iter().all(|response| response.page().has_more == next(response).is_some()), "{page}");
    }
    let lines = follow(&harness, TestRequest::get(SETTLED_DAY).and("limit=60").ndjson()).await;
    assert!(lines.iter().map(|page| &page.body[..]).collect::<Vec<_>>().concat() == to_ndjson(&expected));

    let (filter, calls) = (r#"{"channels":["chat","voice"]}"#, harness.calls());
    let whole = harness.send(&TestRequest::post(SETTLED_DAY, filter)).await;
    for request in [TestRequest::post(SETTLED_DAY, filter), TestRequest::query(SETTLED_DAY, filter)] {
        assert_eq!(harness.send(&request).await.body, whole.body);
        let pages = follow(&harness, request.and("limit=50")).await;
        let items: usize = pages.iter().map(|page| page.page().num_results).sum();
        assert_eq!((items, pages.len() > 1), (whole.page().num_results, true));
    }
    assert_eq!(harness.calls(), calls, "a filtered window out of the cached one");
}

#[tokio::test]
async fn page_without_progress_has_no_link() {
    let harness = TestHarness::start_exact(250, 4).await;
    for page in ["limit=0", "limit=10&offset=250", "limit=10&offset=18446744073709551615", "offset=3"] {
        assert_eq!(harness.send(&TestRequest::get(SETTLED_DAY).and(page)).await.header("link"), None, "{page}");
    }
    let missing = TestRequest::query(SETTLED_DAY, "{}").header("content-type", "");
    harness.send(&missing).await.assert_problem_names(400, "Content-Type");
    let form = missing.header("content-type", "application/x-www-form-urlencoded");
    harness.send(&form).await.assert_problem_names(415, "application/json");
}
