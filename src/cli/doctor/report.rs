//! The doctor's report: text for people, the JSON object, and the settings that follow. Pure.

use std::fmt::Write as _;

use serde_json::{Value, json};

use super::bound::BoundFinding;
use super::checks::{Check, CheckState};
use super::findings::{Credential, Findings, Schemes};
use super::paging::Order;
use crate::config::{Config, JtiMode, TokenScheme, UpperBound};

/// The account and the stream of an investigation, and what is configured for them.
#[derive(Clone, Debug)]
pub(super) struct Subject {
    pub(super) account: String,
    pub(super) stream: String,
    /// Whether the account is the only one, so that `[window]` is its own.
    pub(super) is_only_account: bool,
    pub(super) scheme: TokenScheme,
    pub(super) jti: JtiMode,
    pub(super) field: String,
    pub(super) bound: UpperBound,
}

/// Result of the upstream's investigation.
#[derive(Clone, Debug)]
pub(super) struct Investigated {
    pub(super) subject: Subject,
    pub(super) findings: Findings,
    /// Calls made.
    pub(super) calls: usize,
    /// Why the investigation ended early; `None` if it did not.
    pub(super) stopped: Option<String>,
}

/// The whole report.
#[derive(Clone, Debug)]
pub(super) struct DoctorReport {
    /// `None` with `--offline`.
    pub(super) upstream: Option<Investigated>,
    pub(super) checks: Vec<Check>,
}

impl DoctorReport {
    /// The faults, in words; empty if there are none.
    pub(super) fn wrong(&self) -> Vec<String> {
        let failed = self.checks.iter().filter(|check| check.state == CheckState::Wrong);
        let mut wrong: Vec<String> = failed.map(|check| format!("{}: {}", check.name, check.detail)).collect();
        if let Some(investigated) = &self.upstream {
            wrong.extend(investigated.wrong());
        }
        wrong
    }

    /// The JSON object.
    pub(super) fn to_json(&self) -> Value {
        let mut object = match &self.upstream {
            Some(investigated) => investigated.to_json(),
            None => json!({ "calls": 0 }),
        };
        object["checks"] = self.checks.iter().map(Check::to_json).collect();
        object["wrong"] = self.wrong().into();
        object
    }

    /// The text for people.
    pub(super) fn to_text(&self) -> String {
        let mut out = String::new();
        if let Some(investigated) = &self.upstream {
            investigated.write_text(&mut out);
        }
        if !self.checks.is_empty() {
            out.push_str("Checks\n");
            for Check { name, state, detail } in &self.checks {
                line(&mut out, name, state.label(), detail);
            }
            out.push('\n');
        }
        let wrong = self.wrong();
        if wrong.is_empty() {
            out.push_str("Nothing is wrong.\n");
        } else {
            out.push_str("Wrong\n");
            for wrong in wrong {
                write_line(&mut out, &format!("  {wrong}"));
            }
        }
        out
    }
}

fn write_line(out: &mut String, line: &str) {
    writeln!(out, "{line}").expect("a String takes all that is written to it");
}

fn line(out: &mut String, name: &str, value: &str, evidence: &str) {
    write_line(out, &format!("  {name:<14} {value:<18} {evidence}"));
}

impl Investigated {
    fn write_text(&self, out: &mut String) {
        let Self { subject, findings, calls, stopped } = self;
        write_line(out, &format!("Account {}, stream {}: {calls} calls", subject.account, subject.stream));
        let (known, unknown): (Vec<_>, Vec<_>) = findings.lines.iter().partition(|finding| finding.value.is_some());
        for finding in known {
            line(out, finding.name, finding.value.as_deref().unwrap_or_default(), &finding.evidence);
        }
        if let Some(reason) = stopped {
            write_line(out, &format!("  stopped early: {reason}"));
        }
        if !unknown.is_empty() {
            out.push_str("\nNot known\n");
            for finding in unknown {
                write_line(out, &format!("  {:<14} {}", finding.name, finding.evidence));
            }
        }
        out.push_str("\nSettings\n");
        for setting in self.settings().lines() {
            write_line(out, format!("  {setting}").trim_end());
        }
        out.push('\n');
    }

    fn to_json(&self) -> Value {
        let Self { subject, findings, calls, stopped } = self;
        let lines = findings.lines.iter();
        let lines = lines.map(|line| json!({ "name": line.name, "value": line.value, "evidence": line.evidence }));
        json!({
            "account": subject.account,
            "stream": subject.stream,
            "credential": match findings.credential {
                Credential::Works => "ok",
                Credential::Refused => "refused",
                Credential::Unreachable => "unreachable",
            },
            "scheme": match findings.schemes {
                Schemes::One(scheme) => scheme_name(scheme),
                Schemes::Both => "both",
                Schemes::Unknown => "unknown",
            },
            "field": findings.field.name().map_or("unknown", |name| &**name),
            "upper_bound": bound_name(findings.bound).unwrap_or("unknown"),
            "order": match findings.order {
                Order::Ascending => "ascending",
                Order::Descending => "descending",
                Order::Other => "other",
                Order::Unknown => "unknown",
            },
            "page_limit": Findings::number(findings.page_limit),
            "default_limit": Findings::number(findings.default_limit),
            "calls": calls,
            "settings": self.settings(),
            "stopped": stopped,
            "findings": lines.collect::<Vec<_>>(),
        })
    }

    /// The settings that follow, as TOML. What is not known is left out.
    fn settings(&self) -> String {
        let Self { subject, findings, .. } = self;
        let mut window = Vec::new();
        if let Some(name) = findings.field.name() {
            window.push(format!("field = {}", text(name)));
        }
        if let Some(bound) = bound_name(findings.bound) {
            window.push(format!("upper_bound = \"{bound}\""));
        }
        let mut account = Vec::new();
        if let Some(token) = self.token_setting() {
            account.push(token);
        }
        if !subject.is_only_account && !window.is_empty() {
            account.push(format!("window = {{ {} }}", window.join(", ")));
            window.clear();
        }
        let mut out = String::new();
        if !window.is_empty() {
            write_line(&mut out, &format!("[window]\n{}", window.join("\n")));
        }
        if !account.is_empty() {
            let lines = account.join("\n");
            let before = if out.is_empty() { "" } else { "\n" };
            write_line(&mut out, &format!("{before}[[accounts]]\naccount_id = {}\n{lines}", text(&subject.account)));
        }
        out
    }

    /// The form of tokens, if it is known.
    fn token_setting(&self) -> Option<String> {
        let scheme = match self.findings.schemes {
            Schemes::One(scheme) => scheme,
            // The configured one works.
            Schemes::Both => self.subject.scheme,
            Schemes::Unknown => return None,
        };
        let jti = match self.findings.jti {
            Some(JtiMode::PerRequest) => ", jti = \"per-request\"",
            _ => "",
        };
        Some(format!("token = {{ scheme = \"{}\"{jti} }}", scheme_name(scheme)))
    }

    /// Faults of the upstream, the clock or the settings.
    fn wrong(&self) -> Vec<String> {
        let Self { subject, findings, stopped, .. } = self;
        let mut wrong = Vec::new();
        if findings.credential != Credential::Works {
            wrong.extend(findings.lines.first().map(|line| format!("{}: {}", line.name, line.evidence)));
        }
        wrong.extend(stopped.iter().cloned());
        let mut differs = |key: &str, configured: &str, found: Option<&str>| {
            if let Some(found) = found.filter(|found| *found != configured) {
                wrong.push(format!("{key}: \"{configured}\" is configured, and the upstream's is \"{found}\""));
            }
        };
        let scheme = match findings.schemes {
            Schemes::One(scheme) => Some(scheme_name(scheme)),
            Schemes::Both | Schemes::Unknown => None,
        };
        differs("token.scheme", scheme_name(subject.scheme), scheme);
        let jti = findings.jti.filter(|jti| *jti == JtiMode::PerRequest).map(|_| "per-request");
        differs("token.jti", if subject.jti == JtiMode::PerRequest { "per-request" } else { "off" }, jti);
        differs("window.field", &subject.field, findings.field.name().map(|name| &**name));
        let configured = if subject.bound == UpperBound::Inclusive { "inclusive" } else { "exclusive" };
        differs("window.upper_bound", configured, bound_name(findings.bound));
        let clock = findings.lines.iter().find(|line| line.name == "clock" && line.value.as_deref() == Some("wrong"));
        wrong.extend(clock.map(|line| format!("clock: {}", line.evidence)));
        wrong
    }
}

impl Subject {
    /// The configuration of a stream. `None` if the account is not configured.
    pub(super) fn of(config: &Config, account: &str, stream: &str) -> Option<Self> {
        let settings = crate::config::SeriesSettings::new(&config.window, &config.accounts);
        let own = settings.for_series(account, stream);
        let token = config.accounts.iter().find(|known| *known.account_id == *account)?.token;
        Some(Self {
            account: account.to_owned(),
            stream: stream.to_owned(),
            is_only_account: config.accounts.len() == 1,
            scheme: token.scheme,
            jti: token.jti,
            field: own.field.to_string(),
            bound: own.upper_bound,
        })
    }
}

fn scheme_name(scheme: TokenScheme) -> &'static str {
    match scheme {
        TokenScheme::Bare => "bare",
        TokenScheme::Bearer => "bearer",
    }
}

fn bound_name(bound: BoundFinding) -> Option<&'static str> {
    match bound {
        BoundFinding::Known { bound: UpperBound::Inclusive, .. } => Some("inclusive"),
        BoundFinding::Known { bound: UpperBound::Exclusive, .. } => Some("exclusive"),
        _ => None,
    }
}

/// A TOML string, quoted and escaped.
fn text(value: &str) -> String {
    toml::Value::String(value.to_owned()).to_string()
}
