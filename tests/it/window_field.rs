//! A configuration that names the wrong timestamp: found out, told of, and never served wrong.

use koregate_simulator::{ApiVariant, Credential, ItemFilter, Profile, SelectOn};

use super::support::{Ask, Page, Rig, STREAM, Settings, at, profile};

/// An account of its own: metrics are one for the whole process.
const MISLED: &str = "account-with-the-wrong-field";

fn sorted(page: &Page) -> Vec<Vec<u8>> {
    let mut items: Vec<Vec<u8>> = page.items().map(<[u8]>::to_vec).collect();
    items.sort_unstable();
    items
}

#[tokio::test]
async fn a_wrong_window_field_is_found_out_and_windows_are_no_longer_cut() {
    let account = Credential { account_id: MISLED.to_owned(), ..Credential::default() };
    let profile =
        Profile { account, api: ApiVariant { select_on: SelectOn::End, ..ApiVariant::default() }, ..profile(300, 5) };
    let rig = Rig::start(profile, &Settings::default()).await;
    let ask = |query: &str| Ask::get(query).header("accountId", MISLED);
    let truth = |from, end| {
        let truth = rig.control.expected_until(STREAM, at(from), at(end), false, &ItemFilter::default());
        let mut items: Vec<Vec<u8>> = truth.into_iter().map(|(_, item)| item).collect();
        items.sort_unstable();
        items
    };
    assert_eq!(rig.door.admin("/readyz").await.json()["status"], "ready");

    // Items that ended in these hours but began before them give the upstream away.
    let day = rig.ask(&ask("from=2026-02-23&to=2026-02-23")).await;
    let whole = truth("2026-02-23", "2026-02-24");
    assert!(whole.len() > 200);
    assert!(sorted(&day.page()) == whole, "the window is served, uncut, as the upstream says it");
    assert_eq!(day.cache_status().split(';').nth(1).map(str::trim), Some("fwd=bypass"));

    // A part of the same day is another window: what was fetched for the day is not cut for it.
    rig.control.reset_counts();
    let hours = "from=2026-02-23T09:00:00&to=2026-02-23T10:59:59";
    let part = rig.ask(&ask(hours)).await;
    assert!(sorted(&part.page()) == truth("2026-02-23T09:00:00Z", "2026-02-23T10:59:59.000000001Z"));
    assert!(rig.calls() > 0);

    // By then, one of them had been looked for where its timestamp says.
    let ready = rig.door.admin("/readyz").await;
    assert_eq!(ready.status, 200, "it serves, if not as well as it could");
    let told = ready.json();
    assert_eq!(told["status"], "degraded");
    let problem = told["problems"][0].as_str().unwrap();
    assert!(problem.contains(MISLED) && problem.contains("window.field"), "{problem}");
    let metrics = rig.door.admin("/metrics").await;
    let line = format!("koregate_window_field_wrong{{account=\"{MISLED}\"}} 1");
    assert!(metrics.text().lines().any(|found| found == line), "no line {line}");

    // The very same window, settled, is there; in pages as a whole.
    rig.control.reset_counts();
    let again = rig.ask(&ask("from=2026-02-23&to=2026-02-23")).await;
    assert!(again.body == day.body && rig.calls() == 0);
    let mut pages = Vec::new();
    while pages.len() < whole.len() {
        let query = format!("from=2026-02-23&to=2026-02-23&limit=37&offset={}", pages.len());
        let page = rig.ask(&ask(&query)).await.page();
        pages.extend(page.items().map(<[u8]>::to_vec));
        assert_eq!(page.has_more, pages.len() < whole.len());
    }
    assert!(pages.iter().map(Vec::as_slice).eq(day.page().items()) && rig.calls() == 0);

    // The operator says that it is right now.
    let trust = |query: String| Ask::post(query, "").path("/api/v1/window-field/trust");
    for (query, status) in [(String::new(), 400), ("account=nobody".to_owned(), 404)] {
        assert_eq!(rig.door.ask_admin(&trust(query)).await.status, status);
    }
    let told = rig.door.ask_admin(&trust(format!("account={MISLED}"))).await.json();
    assert_eq!((told["account"].as_str(), told["was_wrong"].as_bool()), (Some(MISLED), Some(true)));
    assert_eq!(rig.door.admin("/readyz").await.json()["status"], "ready");
}

#[tokio::test]
async fn what_was_cut_before_the_field_was_found_wrong_is_forgotten() {
    let account = Credential { account_id: "account-found-out-late".to_owned(), ..Credential::default() };
    let profile = Profile { account, ..profile(300, 5) };
    let rig = Rig::start(profile, &Settings::default()).await;
    let ask = |query: &str| Ask::get(query).header("accountId", "account-found-out-late");
    rig.ask(&ask("from=2026-02-22&to=2026-02-22")).await.page();
    rig.control.change(|profile| profile.api.select_on = SelectOn::End);
    rig.ask(&ask("from=2026-02-23&to=2026-02-23")).await.page();
    let day = rig.ask(&ask("from=2026-02-22&to=2026-02-22")).await.page();
    let truth = rig.control.expected_until(STREAM, at("2026-02-22"), at("2026-02-23"), false, &ItemFilter::default());
    let mut truth: Vec<Vec<u8>> = truth.into_iter().map(|(_, item)| item).collect();
    truth.sort_unstable();
    assert!(sorted(&day) == truth);
}
