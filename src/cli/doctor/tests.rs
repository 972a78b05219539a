//! Tests of the doctor against a naive model of the upstream: whatever its data and its behaviour, each conclusion is
//! right or "unknown", within 12 calls.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use proptest::prelude::*;

use super::bound::BoundFinding;
use super::evidence::{
    Evidence, MAX_CALLS, Probe, ProbeAnswer, ProbeOutcome, SampleItem, SamplePage, Setup, TokenForm,
};
use super::findings::{Credential, Findings, Schemes};
use super::paging::{Limit, Order};
use super::plan;
use super::report::{DoctorReport, Investigated, Subject};
use crate::config::{JtiMode, TokenScheme, UpperBound};
use crate::window::Timestamp;

const START: &str = "segmentStartTime";
const END: &str = "segmentEndTime";
const NOW: i64 = 1_795_341_600;
const HOUR_MS: i64 = 3_600_000;
const DAY_MS: i64 = 24 * HOUR_MS;

/// The order of the model's answers.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum ModelOrder {
    Ascending,
    Descending,
    Shuffled,
}

/// The traits in which upstreams differ.
#[derive(Clone, Debug)]
struct Model {
    /// Start and end, in milliseconds since the epoch.
    items: Vec<(i64, Option<i64>)>,
    field: &'static str,
    bound: UpperBound,
    order: ModelOrder,
    /// `None` accepts both.
    scheme: Option<TokenScheme>,
    enforces_jti: bool,
    page_limit: usize,
    default_limit: usize,
    longest_span: Option<Duration>,
    /// Whether `to` covers its whole second.
    covers_second: bool,
}

impl Model {
    fn new(items: Vec<(i64, Option<i64>)>) -> Self {
        Self {
            items,
            field: START,
            bound: UpperBound::Inclusive,
            order: ModelOrder::Ascending,
            scheme: None,
            enforces_jti: false,
            page_limit: 100,
            default_limit: 100,
            longest_span: None,
            covers_second: false,
        }
    }

    /// All combinations of order, bound, field and scheme, with these items.
    fn personalities(items: &[(i64, Option<i64>)]) -> Vec<Self> {
        let mut all = Vec::new();
        for order in [ModelOrder::Ascending, ModelOrder::Descending, ModelOrder::Shuffled] {
            for bound in [UpperBound::Inclusive, UpperBound::Exclusive] {
                for field in [START, END] {
                    for scheme in [Some(TokenScheme::Bare), Some(TokenScheme::Bearer), None] {
                        all.push(Self { field, bound, order, scheme, ..Self::new(items.to_vec()) });
                    }
                }
            }
        }
        all
    }

    fn answer(&self, probe: &Probe, call: u64) -> ProbeAnswer {
        ProbeAnswer { outcome: self.outcome(probe, call), clock_ahead: Some(0), rate_limit: None }
    }

    fn outcome(&self, Probe { token, window, offset, limit, .. }: &Probe, call: u64) -> ProbeOutcome {
        let has_scheme = self.scheme.is_none_or(|scheme| scheme == token.scheme);
        if !has_scheme || (self.enforces_jti && token.jti == JtiMode::Off) {
            return ProbeOutcome::Unauthorized("401".to_owned());
        }
        if self.longest_span.is_some_and(|longest| window.span() > longest) {
            return ProbeOutcome::Invalid("412".to_owned());
        }
        let [from, to] = [window.from, window.to].map(|bound| bound.as_nanos() / 1_000_000);
        let at = |item: &(i64, Option<i64>)| if self.field == START { Some(item.0) } else { item.1 };
        let is_selected = |item: &(i64, Option<i64>)| {
            let is_before_end = |at| at < to || (at == to && self.bound == UpperBound::Inclusive);
            at(item).is_some_and(|at| from <= at && (is_before_end(at) || (self.covers_second && at < to + 1000)))
        };
        let mut selected: Vec<_> = (0u64..).zip(&self.items).filter(|(_, item)| is_selected(item)).collect();
        selected.sort_by_key(|(id, item)| (at(item), *id));
        match self.order {
            ModelOrder::Ascending => {}
            ModelOrder::Descending => selected.reverse(),
            ModelOrder::Shuffled => fastrand::Rng::with_seed(call).shuffle(&mut selected),
        }
        let limit = limit.map_or(self.default_limit, |limit| limit as usize).min(self.page_limit);
        let offset = usize::try_from(*offset).unwrap();
        let has_more = selected.len() > offset + limit;
        let sample = |(id, (start, end)): (u64, &(i64, Option<i64>))| {
            let start = (Arc::from(START), Timestamp::from_millis(*start));
            let end = end.map(|end| (Arc::from(END), Timestamp::from_millis(end)));
            SampleItem { id, digest: id, times: [start].into_iter().chain(end).collect::<BTreeMap<_, _>>() }
        };
        ProbeOutcome::Page(SamplePage {
            items: selected.into_iter().skip(offset).take(limit).map(sample).collect(),
            has_more,
        })
    }

    fn investigate(&self) -> (Evidence, Findings) {
        let now = Timestamp::from_seconds(NOW);
        let mut evidence = Evidence::new(Setup {
            token: TokenForm { scheme: TokenScheme::Bare, jti: JtiMode::Off },
            field: START.into(),
            now,
            settled: now - Duration::from_hours(24),
        });
        while let Some(probe) = plan::next_probe(&evidence) {
            let answer = self.answer(&probe, evidence.exchanges.len() as u64);
            evidence.exchanges.push((probe, answer));
            assert!(evidence.exchanges.len() <= MAX_CALLS);
        }
        let findings = Findings::new(&evidence);
        (evidence, findings)
    }

    /// Investigates, and requires that no conclusion is wrong.
    fn investigate_rightly(&self) -> Findings {
        let (evidence, findings) = self.investigate();
        let context = || {
            let probes: Vec<_> = evidence.exchanges.iter().map(|(probe, _)| probe).collect();
            let Self { field, bound, order, scheme, .. } = self;
            format!("{field} {bound:?} {order:?} {scheme:?}: {findings:#?}\n{probes:#?}")
        };
        if let Some(name) = findings.field.name() {
            assert_eq!(&**name, self.field, "{}", context());
        }
        match findings.bound {
            BoundFinding::Known { bound, .. } => assert_eq!(bound, self.bound, "{}", context()),
            BoundFinding::Unknown => {}
            other => panic!("{other:?} {}", context()),
        }
        let order = match self.order {
            ModelOrder::Ascending => Order::Ascending,
            ModelOrder::Descending => Order::Descending,
            ModelOrder::Shuffled => Order::Other,
        };
        assert!([order, Order::Unknown].contains(&findings.order), "{}", context());
        let schemes = self.scheme.map_or(Schemes::Both, Schemes::One);
        assert_eq!((findings.credential, findings.schemes), (Credential::Works, schemes), "{}", context());
        for (limit, real) in [(findings.page_limit, self.page_limit), (findings.default_limit, self.default_limit)] {
            match limit {
                Limit::Exactly { items, .. } => assert_eq!(items, real, "{}", context()),
                Limit::AtLeast { items, .. } => assert!(items <= real, "{}", context()),
                Limit::Refused { .. } | Limit::Unknown => {}
            }
        }
        findings
    }
}

/// `count` items a day over 40 days, of which every tenth has both times on whole seconds.
fn regular(count: i64) -> Vec<(i64, Option<i64>)> {
    let mut rng = fastrand::Rng::with_seed(7);
    let items = (0..40 * count).map(|number| {
        let start = NOW * 1000 - 40 * DAY_MS + number * DAY_MS / count.max(1) + rng.i64(0..1000);
        let start = if number % 10 == 0 { start / 1000 * 1000 } else { start };
        let lasts = rng.i64(5..7200) * 1000 + if number % 10 == 0 { 0 } else { rng.i64(1..1000) };
        (start, Some(start + lasts).filter(|_| number % 50 != 1))
    });
    items.collect()
}

#[test]
fn every_personality_is_named_where_items_are_plenty() {
    for model in Model::personalities(&regular(300)) {
        let findings = model.investigate_rightly();
        assert!(findings.field.name().is_some() && findings.order != Order::Unknown, "{findings:#?}");
        assert!(matches!(findings.bound, BoundFinding::Known { .. }), "{findings:#?}");
        assert!(matches!(findings.page_limit, Limit::Exactly { items: 100, .. }), "{findings:#?}");
        assert!(matches!(findings.default_limit, Limit::Exactly { items: 100, .. }), "{findings:#?}");
    }
}

#[test]
fn full_hours_are_looked_at_where_items_are_dense() {
    // Only the items at full hours have whole seconds, and they are far from the beginning of the first window.
    let dense = (0..48 * 1200i64).map(|number| {
        let start = NOW * 1000 - 3 * DAY_MS + number * 3000;
        let start = if start % HOUR_MS < 3000 { start / HOUR_MS * HOUR_MS } else { start / 1000 * 1000 + 7 };
        (start, Some(start + 61_003))
    });
    for bound in [UpperBound::Inclusive, UpperBound::Exclusive] {
        let findings = Model { bound, ..Model::new(dense.clone().collect()) }.investigate_rightly();
        assert!(matches!(findings.bound, BoundFinding::Known { .. }), "{findings:#?}");
    }
}

#[test]
fn personality_is_named_where_items_are_few() {
    for model in Model::personalities(&regular(2)) {
        let findings = model.investigate_rightly();
        assert!(findings.field.name().is_some() && findings.order != Order::Unknown, "{findings:#?}");
        assert!(matches!(findings.bound, BoundFinding::Known { .. }), "{findings:#?}");
        assert!(!matches!(findings.page_limit, Limit::Exactly { .. }), "{findings:#?}");
    }
}

#[test]
fn nothing_is_known_where_there_are_no_items() {
    for model in Model::personalities(&[]) {
        let findings = model.investigate_rightly();
        assert!(findings.field.name().is_none() && findings.order == Order::Unknown, "{findings:#?}");
        assert_eq!((findings.bound, findings.page_limit), (BoundFinding::Unknown, Limit::Unknown));
    }
}

#[test]
fn items_of_one_time_tell_neither_field_nor_order() {
    let at = (NOW - 40_000) * 1000 - DAY_MS;
    for model in Model::personalities(&vec![(at, Some(at)); 500]) {
        let findings = model.investigate_rightly();
        assert!(findings.field.name().is_none(), "{findings:#?}");
        assert_eq!((findings.bound, findings.order), (BoundFinding::Unknown, Order::Unknown));
        assert!(matches!(findings.page_limit, Limit::Exactly { items: 100, .. }), "{findings:#?}");
    }
    // The same with ends elsewhere.
    for model in Model::personalities(&vec![(at, Some(at + 60_000)); 500]) {
        model.investigate_rightly();
    }
}

#[test]
fn unusual_limits_are_named() {
    let items = regular(1000);
    for (page_limit, default_limit) in [(50, 50), (100, 10), (400, 100), (250, 250)] {
        let findings = Model { page_limit, default_limit, ..Model::new(items.clone()) }.investigate_rightly();
        assert_eq!(Findings::number(findings.page_limit), Some(page_limit));
        assert_eq!(Findings::number(findings.default_limit), Some(default_limit));
    }
    let findings = Model { page_limit: 5000, ..Model::new(items) }.investigate_rightly();
    assert!(matches!(findings.page_limit, Limit::AtLeast { .. }), "{findings:#?}");
}

#[test]
fn long_windows_that_are_refused_are_reported() {
    let span_of = |findings: &Findings| findings.lines.iter().find(|line| line.name == "longest_span").unwrap().clone();
    let week = Some(Duration::from_hours(7 * 24));
    for items in [regular(1000), regular(5)] {
        let findings = Model { longest_span: week, ..Model::new(items) }.investigate_rightly();
        let line = span_of(&findings);
        assert_eq!(line.value.as_deref(), Some("7d to 31d"), "{findings:#?}");
    }
    assert_eq!(span_of(&Model::new(regular(1000)).investigate_rightly()).value, None);
}

#[test]
fn enforced_jti_is_found() {
    for scheme in [TokenScheme::Bare, TokenScheme::Bearer] {
        let model = Model { enforces_jti: true, scheme: Some(scheme), ..Model::new(regular(1000)) };
        let findings = model.investigate_rightly();
        assert_eq!(findings.jti, Some(JtiMode::PerRequest));
        assert!(findings.field.name().is_some(), "{findings:#?}");
    }
}

/// An upstream that gives the same answer to all.
fn always(outcome: &ProbeOutcome) -> (usize, Findings) {
    let mut evidence = Evidence::new(Setup {
        token: TokenForm { scheme: TokenScheme::Bare, jti: JtiMode::Off },
        field: START.into(),
        now: Timestamp::from_seconds(NOW),
        settled: Timestamp::from_seconds(NOW - 86_400),
    });
    while let Some(probe) = plan::next_probe(&evidence) {
        evidence.exchanges.push((probe, ProbeAnswer { outcome: outcome.clone(), clock_ahead: None, rate_limit: None }));
    }
    (evidence.exchanges.len(), Findings::new(&evidence))
}

#[test]
fn refused_credential_costs_one_call_for_each_form() {
    let (calls, findings) = always(&ProbeOutcome::Unauthorized("401".to_owned()));
    assert_eq!((calls, findings.credential, findings.schemes), (4, Credential::Refused, Schemes::Unknown));
    for outcome in [
        ProbeOutcome::Failed("x".to_owned()),
        ProbeOutcome::RateLimited("x".to_owned()),
        ProbeOutcome::Invalid("x".to_owned()),
    ] {
        let (calls, findings) = always(&outcome);
        assert!(calls <= 4, "{calls}");
        assert_eq!(findings.credential, Credential::Unreachable);
    }
}

fn report(model: &Model, is_only_account: bool) -> DoctorReport {
    let (evidence, findings) = model.investigate();
    let subject = Subject {
        account: "acc-1".to_owned(),
        stream: "st-1".to_owned(),
        is_only_account,
        scheme: TokenScheme::Bare,
        jti: JtiMode::Off,
        field: START.to_owned(),
        bound: UpperBound::Inclusive,
    };
    let upstream = Some(Investigated { subject, findings, calls: evidence.exchanges.len(), stopped: None });
    DoctorReport { upstream, checks: Vec::new() }
}

#[test]
fn report_names_settings_that_differ() {
    let usual = report(&Model::new(regular(1000)), true);
    assert!(usual.wrong().is_empty(), "{:?}", usual.wrong());
    assert!(usual.to_text().contains("Nothing is wrong."));

    let scheme = Some(TokenScheme::Bearer);
    let model = Model { field: END, bound: UpperBound::Exclusive, scheme, ..Model::new(regular(1000)) };
    for is_only_account in [true, false] {
        let report = report(&model, is_only_account);
        assert_eq!(report.wrong().len(), 3, "{:?}", report.wrong());
        let object = report.to_json();
        assert_eq!((&object["credential"], &object["scheme"]), (&"ok".into(), &"bearer".into()));
        assert_eq!((&object["field"], &object["upper_bound"]), (&END.into(), &"exclusive".into()));
        assert_eq!((&object["order"], &object["page_limit"]), (&"ascending".into(), &100.into()));
        let settings: toml::Table = object["settings"].as_str().unwrap().parse().unwrap();
        let window = if is_only_account { &settings["window"] } else { &settings["accounts"][0]["window"] };
        assert_eq!((window["field"].as_str(), window["upper_bound"].as_str()), (Some(END), Some("exclusive")));
        assert_eq!(settings["accounts"][0]["token"]["scheme"].as_str(), Some("bearer"));
        let text = report.to_text();
        assert!(text.contains("window.upper_bound") && text.contains("account_id = \"acc-1\""), "{text}");
    }
}

#[test]
fn whole_second_reading_of_to_is_no_bound() {
    let pairs = regular(300).into_iter().flat_map(|(start, end)| {
        let second = start / 1000 * 1000;
        [(second, end), (second + 400, end)]
    });
    let (_, findings) = Model { covers_second: true, ..Model::new(pairs.collect()) }.investigate();
    assert!(matches!(findings.bound, BoundFinding::WholeSecond { .. }), "{findings:#?}");
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 200, ..ProptestConfig::default() })]

    #[test]
    fn no_conclusion_is_wrong(
        items in prop::collection::vec((0..40 * 86_400i64, 0..4i64, prop::option::weighted(0.9, (0..7200i64, 0..4i64))), 0..400),
        few_seconds in prop::option::of(1..500i64),
        page_limit in 20usize..150,
        personality in any::<prop::sample::Index>(),
    ) {
        let items: Vec<_> = items
            .into_iter()
            .map(|(second, quarter, lasts)| {
                let second = few_seconds.map_or(second, |few| second % few + 86_400);
                let start = (NOW - second) * 1000 + quarter * 250;
                (start, lasts.map(|(seconds, quarter)| start + seconds * 1000 + quarter * 250))
            })
            .collect();
        let model = personality.get(&Model::personalities(&items)).clone();
        Model { page_limit, default_limit: page_limit / 2, ..model }.investigate_rightly();
    }
}
