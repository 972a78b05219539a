//! The doctor's conclusions, each with its evidence in words. Pure.

use std::time::Duration;

use super::bound::{self, BoundFinding};
use super::evidence::{DOCUMENTED_LIMIT, Evidence, ProbeOutcome, SECOND};
use super::field::{self, Field};
use super::paging::{self, Limit, Order, Repeatability};
use crate::config::{JtiMode, TokenScheme};
use crate::units::print_duration;
use crate::window::UpperBound;

/// Differences of the clocks beyond this are a finding: a `Date` is cut to seconds, and an answer takes time.
const CLOCK_TOLERANCE_SECONDS: i64 = 5;

/// Whether the credential works.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Credential {
    /// A token was accepted.
    Works,
    /// Every token was refused.
    Refused,
    /// No answer told.
    Unreachable,
}

/// The forms of the `auth` header that the upstream accepts.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Schemes {
    One(TokenScheme),
    Both,
    Unknown,
}

/// All conclusions.
#[derive(Clone, Debug)]
pub(super) struct Findings {
    pub(super) credential: Credential,
    pub(super) schemes: Schemes,
    /// The form of `jti` of the token that was accepted.
    pub(super) jti: Option<JtiMode>,
    pub(super) field: Field,
    pub(super) bound: BoundFinding,
    pub(super) order: Order,
    pub(super) page_limit: Limit,
    pub(super) default_limit: Limit,
    /// All of these and further conclusions, in words.
    pub(super) lines: Vec<Finding>,
}

/// A conclusion in words.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Finding {
    pub(super) name: &'static str,
    /// `None` if it is not known.
    pub(super) value: Option<String>,
    /// The evidence, or which data would tell.
    pub(super) evidence: String,
}

impl Findings {
    /// The conclusions from all answers.
    pub(super) fn new(evidence: &Evidence) -> Self {
        let field = field::infer(evidence);
        let bound = field.name().map_or(BoundFinding::Unknown, |name| bound::infer(evidence, name));
        let mut findings = Self {
            credential: credential(evidence),
            schemes: schemes(evidence),
            jti: evidence.accepted_token().map(|token| token.jti),
            order: paging::order(evidence, &field),
            page_limit: paging::page_limit(evidence),
            default_limit: paging::default_limit(evidence),
            field,
            bound,
            lines: Vec::new(),
        };
        findings.lines = vec![
            credential_line(evidence, findings.credential),
            scheme_line(evidence, findings.schemes),
            field_line(evidence, &findings.field),
            bound_line(findings.bound, &findings.field),
            order_line(findings.order),
            limit_line("page_limit", findings.page_limit),
            limit_line("default_limit", findings.default_limit),
            repetition_line(paging::repeatability(evidence)),
            span_line(evidence),
            clock_line(evidence),
            quota_line(evidence),
        ];
        findings
    }

    /// The value of `page_limit` or `default_limit` in the JSON object.
    pub(super) fn number(limit: Limit) -> Option<usize> {
        match limit {
            Limit::Exactly { items, .. } => Some(items),
            Limit::Refused { .. } => Some(DOCUMENTED_LIMIT as usize),
            Limit::AtLeast { .. } | Limit::Unknown => None,
        }
    }
}

/// The number of a call in words, counted from 1.
fn call(number: usize) -> String {
    format!("call {}", number + 1)
}

fn known(name: &'static str, value: impl Into<String>, evidence: String) -> Finding {
    Finding { name, value: Some(value.into()), evidence }
}

fn unknown(name: &'static str, evidence: impl Into<String>) -> Finding {
    Finding { name, value: None, evidence: evidence.into() }
}

fn credential(evidence: &Evidence) -> Credential {
    let is_refused = |outcome: &ProbeOutcome| matches!(outcome, ProbeOutcome::Unauthorized(_));
    if evidence.pages().next().is_some() {
        Credential::Works
    } else if evidence.exchanges.iter().any(|(_, answer)| is_refused(&answer.outcome)) {
        Credential::Refused
    } else {
        Credential::Unreachable
    }
}

fn credential_line(evidence: &Evidence, credential: Credential) -> Finding {
    let last = evidence.exchanges.iter().rev().find_map(|(_, answer)| match &answer.outcome {
        ProbeOutcome::Page(_) => None,
        ProbeOutcome::Unauthorized(text)
        | ProbeOutcome::Invalid(text)
        | ProbeOutcome::RateLimited(text)
        | ProbeOutcome::Failed(text) => Some(text.as_str()),
    });
    let said = last.unwrap_or("no call was made");
    match credential {
        Credential::Works => {
            let first = evidence.pages().next().map_or(0, |(number, ..)| number);
            known("credential", "ok", format!("the stream answers with a page ({})", call(first)))
        }
        Credential::Refused => known(
            "credential",
            "refused",
            format!(
                "{said}. Look at client_id, client_secret, the account and the stream, and at the app's scope \
                 `AgentAssist Analytics`; `koregate token` shows what is sent"
            ),
        ),
        Credential::Unreachable => known("credential", "unreachable", said.to_owned()),
    }
}

fn schemes(evidence: &Evidence) -> Schemes {
    let Some(token) = evidence.accepted_token() else { return Schemes::Unknown };
    match evidence.accepts(token.other_scheme()) {
        Some(true) => Schemes::Both,
        Some(false) => Schemes::One(token.scheme),
        None => Schemes::Unknown,
    }
}

fn scheme_line(evidence: &Evidence, schemes: Schemes) -> Finding {
    let refusal = evidence.exchanges.iter().enumerate().find_map(|(number, (_, answer))| match &answer.outcome {
        ProbeOutcome::Unauthorized(text) => Some(format!("{text} ({})", call(number))),
        _ => None,
    });
    let refusal = refusal.unwrap_or_default();
    match schemes {
        Schemes::One(TokenScheme::Bare) => known("scheme", "bare", format!("with `Bearer` in front: {refusal}")),
        Schemes::One(TokenScheme::Bearer) => known("scheme", "bearer", format!("the token alone: {refusal}")),
        Schemes::Both => {
            known("scheme", "both", "the token alone and with `Bearer` in front both got a page".to_owned())
        }
        Schemes::Unknown => unknown("scheme", "not both forms were answered"),
    }
}

fn field_line(evidence: &Evidence, field: &Field) -> Finding {
    let names = |names: &[std::sync::Arc<str>]| names.join(", ");
    match field {
        Field::Known { name, call: number } => known(
            "field",
            &**name,
            format!(
                "items came in the window of their {name}, while their other timestamps lie outside of it ({})",
                call(*number)
            ),
        ),
        Field::Unknown(_) if evidence.items().is_empty() => {
            unknown("field", "no window had an item; try another stream, or later")
        }
        Field::Unknown(possible) if possible.is_empty() => unknown(
            "field",
            "no timestamp of the items explains the answers: it may be one that items do not show, or from and to may \
             not be in UTC",
        ),
        Field::Unknown(possible) => unknown(
            "field",
            format!(
                "possible: {}. An item would tell whose timestamps are seconds apart, in a second with few items",
                names(possible)
            ),
        ),
    }
}

fn bound_line(bound: BoundFinding, field: &Field) -> Finding {
    match bound {
        BoundFinding::Known { bound: UpperBound::Inclusive, call: number } => {
            known("upper_bound", "inclusive", format!("an item exactly at `to` came ({})", call(number)))
        }
        BoundFinding::Known { bound: UpperBound::Exclusive, call: number } => {
            known("upper_bound", "exclusive", format!("a known item exactly at `to` did not come ({})", call(number)))
        }
        BoundFinding::WholeSecond { call: number } => unknown(
            "upper_bound",
            format!("items after `to` came, within its second ({}); \"inclusive\" comes closest", call(number)),
        ),
        BoundFinding::Contradiction => unknown("upper_bound", "answers contradict each other"),
        BoundFinding::Unknown if field.name().is_none() => unknown("upper_bound", "it needs the field"),
        BoundFinding::Unknown => unknown(
            "upper_bound",
            "no item that was seen has a timestamp of a whole second, in a second with few items; try a stream or a \
             time with more items",
        ),
    }
}

fn order_line(order: Order) -> Finding {
    let sorted = || "all answers are sorted by the field".to_owned();
    match order {
        Order::Ascending => known("order", "ascending", sorted()),
        Order::Descending => known("order", "descending", sorted()),
        Order::Other => known("order", "other", "an answer is sorted neither way by the field".to_owned()),
        Order::Unknown => unknown("order", "it needs an answer with ten different timestamps, and the field"),
    }
}

fn limit_line(name: &'static str, limit: Limit) -> Finding {
    match limit {
        Limit::Exactly { items, call: number } => {
            known(name, items.to_string(), format!("that many came, and more were left ({})", call(number)))
        }
        Limit::AtLeast { items, call: number } => {
            unknown(name, format!("at least {items}: that many came ({})", call(number)))
        }
        Limit::Refused { call: number } => {
            known(name, DOCUMENTED_LIMIT.to_string(), format!("a larger limit is refused ({})", call(number)))
        }
        Limit::Unknown => unknown(name, "it needs a window with more than a hundred items"),
    }
}

fn repetition_line(repeatability: Repeatability) -> Finding {
    const NAME: &str = "repeatable";
    match repeatability {
        Repeatability::Same { call: number } => {
            known(NAME, "yes", format!("the same request got the same answer ({})", call(number)))
        }
        Repeatability::Reordered { call: number } => {
            known(NAME, "no", format!("the same request got the same items in another order ({})", call(number)))
        }
        Repeatability::Different { call: number } => known(
            NAME,
            "no",
            format!("the same request got other items, although its window is settled ({})", call(number)),
        ),
        Repeatability::Unknown => unknown(NAME, "no request with several items was repeated"),
    }
}

fn span_line(evidence: &Evidence) -> Finding {
    const NAME: &str = "longest_span";
    match paging::spans(evidence) {
        (Some(accepted), Some(refused)) => known(
            NAME,
            format!("{} to {}", print_duration(accepted), print_duration(refused)),
            "the shorter one was accepted, the longer one refused".to_owned(),
        ),
        (Some(accepted), None) => unknown(NAME, format!("at least {}: none was refused", print_duration(accepted))),
        (None, _) => unknown(NAME, "no window was accepted"),
    }
}

fn clock_line(evidence: &Evidence) -> Finding {
    const NAME: &str = "clock";
    let differences: Vec<i64> = evidence.exchanges.iter().filter_map(|(_, answer)| answer.clock_ahead).collect();
    // The smallest one is the least distorted by slow answers.
    match differences.iter().min_by_key(|seconds| seconds.abs()) {
        Some(ahead) if ahead.abs() > CLOCK_TOLERANCE_SECONDS => {
            let direction = if *ahead > 0 { "ahead of" } else { "behind" };
            let by = print_duration(SECOND * u32::try_from(ahead.unsigned_abs()).unwrap_or(u32::MAX));
            known(NAME, "wrong", format!("this machine is {by} {direction} the upstream's `Date`"))
        }
        Some(_) => known(NAME, "ok", "it agrees with the upstream's `Date`".to_owned()),
        None => unknown(NAME, "no answer had a `Date`"),
    }
}

fn quota_line(evidence: &Evidence) -> Finding {
    const NAME: &str = "quota_signals";
    let refusal = evidence.exchanges.iter().enumerate().find_map(|(number, (_, answer))| match &answer.outcome {
        ProbeOutcome::RateLimited(text) => Some(known(NAME, "refused", format!("{text} ({})", call(number)))),
        _ => None,
    });
    let header = evidence.exchanges.iter().rev().find_map(|(_, answer)| answer.rate_limit);
    match (refusal, header) {
        (Some(refusal), _) => refusal,
        (None, Some(header)) => {
            let limit = header.limit.map(|limit| format!(" of {limit}")).unwrap_or_default();
            let reset = header.reset.filter(|reset| *reset > Duration::ZERO);
            let reset = reset.map(|reset| format!(", more in {}", print_duration(reset))).unwrap_or_default();
            known(NAME, "headers", format!("answers say what is left: {}{limit} calls{reset}", header.remaining))
        }
        (None, None) => unknown(NAME, "no header says what is left, and the quota was not exceeded on purpose"),
    }
}
