use std::sync::Arc;

use super::*;
use crate::admin::session::CsrfToken;
use crate::admin::views::calendar::{CalendarDay, DayParts};
use crate::admin::views::configuration::{ConfigurationStatus, FailedReload};
use crate::admin::views::coverage::{CoverageStatus, StreamStatus};
use crate::admin::views::history::{CallTotals, Sample};
use crate::admin::views::problems::{LimitName, ProblemStatus, ProblemsStatus};
use crate::admin::views::runs::{RunStatusLine, RunsStatus};
use crate::admin::views::status::{
    AccountStatus, CacheStatus, CallsStatus, QuotaStatus, RedisStatus, RoleStatus, Status, UpstreamFailure,
    UpstreamStatus, WaitingStatus,
};
use crate::api::{AccountUsage, CallerUsage, Calls};
use crate::window::Timestamp;

/// A name that ends a text, an attribute and an element, and begins a place of the template.
const HOSTILE: &str = "\"'></td><script>alert(1)</script>{{csrf}}&lt;";
const NOW: Timestamp = Timestamp::from_seconds(1_771_840_800);

fn status(name: &str) -> Status {
    let at = || NOW.to_string();
    Status {
        status: "degraded",
        problems: vec![format!("Redis: {name}")],
        version: "1.2.3",
        uptime_seconds: 3_700,
        replica: Some(name.to_owned()),
        calls: CallsStatus { requests: 5, made: 100, saved: 900 },
        cache: CacheStatus { memory_bytes: 1 << 20, memory_limit_bytes: 4 << 20, disk: None },
        redis: RedisStatus::Down { why: name.to_owned(), seconds: 5.0 },
        accounts: vec![AccountStatus {
            account_id: name.to_owned(),
            waiting: 3,
            waiting_by_priority: WaitingStatus { interactive: 1, refresh: 0, background: 2 },
            quota: vec![QuotaStatus { requests: 60, per_seconds: 60, budget: 40, remaining: 12 }],
            role: RoleStatus::Follower { leader: name.to_owned() },
            upstream: UpstreamStatus {
                last_page: Some(at()),
                last_failure: Some(UpstreamFailure { at: at(), why: name.to_owned() }),
                failures_in_a_row: 4,
                closed_seconds: Some(9.0),
            },
        }],
        cordons: Vec::new(),
        configuration: ConfigurationStatus {
            hash: "0a1b".to_owned(),
            since: at(),
            needs_restart: vec!["server.listen"],
            failed_reload: Some(FailedReload { at: at(), faults: vec![name.to_owned()] }),
        },
    }
}

fn caller(name: &str) -> CallerUsage {
    let calls = Calls { spent: 100, saved: 900 };
    let account =
        AccountUsage { account_id: name.to_owned(), requests: 5, items: 7, calls, quota: Vec::new(), waiting: 0 };
    CallerUsage { caller: name.to_owned(), weight: 1, limit: None, accounts: vec![account] }
}

fn page_with(name: &str) -> String {
    let at = || NOW.to_string();
    let run = RunStatusLine {
        account_id: name.to_owned(),
        stream: name.to_owned(),
        from: at(),
        to: at(),
        caller: name.to_owned(),
        priority: "interactive",
        seconds: 2.0,
        pages: 3,
        expected_pages: Some(12),
        paused_seconds: None,
        is_remote: false,
    };
    let problem = ProblemStatus {
        first: at(),
        last: at(),
        times: 7,
        caller: Some(name.to_owned()),
        stream: Some(name.to_owned()),
        kind: name.to_owned(),
        text: name.to_owned(),
    };
    let parts = DayParts { memory: 43_200, missing: 43_200, ..DayParts::default() };
    let stream = StreamStatus {
        account_id: name.to_owned(),
        stream: name.to_owned(),
        filtered_series: 2,
        days: vec![CalendarDay { date: "2026-02-23".to_owned(), parts }],
    };
    let counts = CallTotals { requests: 5, made: 100, saved: 900 };
    let spans = [Sample { start: NOW, counts, least_left: vec![7] }];
    let model = PageModel {
        now: NOW,
        status: &status(name),
        callers: &[caller(name)],
        view: SpanView::new(&spans, 3_700),
        limits: &[LimitName { account_id: name.to_owned(), requests: 60, per_seconds: 60 }],
        coverage: Some(Arc::new(CoverageStatus::for_test(vec![stream]))),
        runs: &RunsStatus { runs: vec![run], total: 1 },
        problems: &ProblemsStatus { problems: vec![problem] },
        configuration: name,
        example: None,
        csrf: CsrfToken([0xab; 32]),
        is_session: true,
    };
    render(&model)
}

#[test]
fn hostile_name_stays_text_wherever_it_is_shown() {
    let page = page_with(HOSTILE);
    assert!(!page.contains("<script>alert") && !page.contains("\"'></td>"), "{page}");
    // Twice for the CSRF token itself; a name that became a place would show it more often.
    assert_eq!(page.matches(&"ab".repeat(32)).count(), 2);
    let escaped = "&quot;'&gt;&lt;/td&gt;&lt;script&gt;alert(1)&lt;/script&gt;{{csrf}}&amp;lt;";
    assert!(page.matches(escaped).count() >= 15, "{page}");
    // Everything is opened and closed as often as with a harmless name.
    let harmless = page_with("st-1");
    for tag in ["<td", "</td>", "<tr", "<script", "<svg", "<section", "</section>"] {
        assert_eq!(page.matches(tag).count(), harmless.matches(tag).count(), "{tag}");
    }
}

#[test]
fn page_answers_what_an_operator_asks() {
    let page = page_with("st-1");
    for (question, answer) in [
        ("is it healthy", "Degraded: 2 problems"),
        ("why not", "<li>Redis: st-1</li>"),
        ("does Kore answer", "the last 4 calls to Kore have failed"),
        ("what does it save", "90 % of calls saved"),
        ("of how many", "100 calls to Kore instead of 1,000"),
        ("what is left", "<strong>12</strong> of 60"),
        ("who waits", "3 calls wait for the quota"),
        ("by class", "1 interactive, 0 refresh, 2 background"),
        ("which days are cached", "50 % in memory, 50 % missing"),
        ("what is fetched", "3 of about 12 pages"),
        ("what failed last", "7 times since"),
        ("how long is it up", "up for 1 h 1 min"),
    ] {
        assert!(page.contains(answer), "{question}: {page}");
    }
    assert!(!page.contains("{{"), "a place is left: {page}");
}

#[test]
fn page_needs_nothing_but_its_own_files() {
    let page = page_with("st-1");
    for outside in ["http://", "https://", "//", "style=\"", "onclick", "javascript:"] {
        assert!(!page.contains(outside), "{outside}");
    }
    for path in [STYLE_PATH, SCRIPT_PATH] {
        assert!(asset(path).is_some() && page.contains(path.trim_start_matches('/')), "{path}");
    }
    assert!(sign_in(false).contains(SIGN_IN_SCRIPT_PATH.trim_start_matches('/')));
    assert!(asset("/assets/none").is_none());
}
