//! `[[callers]]`: keys, defaults and checks; its types are in `types`.

pub(super) mod cache_control;
pub(super) mod types;

use std::collections::HashSet;
use std::num::NonZeroU32;

use super::parse::Keyword;
use super::table_reader::TableReader;
use super::value_tree::{ConfigNode, Value};
use super::{
    AccountConfig, CacheControlGrants, CacheDirective, CallerConfig, CallerLimits, LimitMode, NamePatterns,
    PriorityClass, keys, parse,
};
use crate::hex;

impl Keyword for CacheDirective {
    const KEYWORDS: &'static [(&'static str, Self)] = &[
        (Self::OnlyIfCached.name(), Self::OnlyIfCached),
        (Self::NoCache.name(), Self::NoCache),
        (Self::MaxAge.name(), Self::MaxAge),
        (Self::MaxStale.name(), Self::MaxStale),
    ];
}

impl Keyword for LimitMode {
    const KEYWORDS: &'static [(&'static str, Self)] = &[("enforce", Self::Enforce), ("shadow", Self::Shadow)];
}

impl Keyword for PriorityClass {
    const KEYWORDS: &'static [(&'static str, Self)] =
        &[("interactive", Self::Interactive), ("refresh", Self::Refresh), ("background", Self::Background)];
}

/// All callers; `None` if a problem of them was reported. `accounts` are those that a caller may name; `None` if they
/// have problems themselves, so that names are not checked. `client_certificates` says whether the listener demands
/// certificates of clients.
pub(super) fn callers(
    root: &mut TableReader<'_>,
    accounts: Option<&[AccountConfig]>,
    client_certificates: bool,
) -> Option<Vec<CallerConfig>> {
    let Some(tables) = root.tables("callers") else { return Some(Vec::new()) };
    let mut others = Identities::default();
    let callers: Vec<_> =
        tables.into_iter().map(|table| caller(table, accounts, client_certificates, &mut others)).collect();
    callers.into_iter().collect()
}

/// The names, keys and certificates that no two callers may have in common.
#[derive(Default)]
struct Identities {
    names: HashSet<String>,
    keys: HashSet<[u8; 32]>,
    certificate_sans: HashSet<String>,
}

fn caller(
    mut table: TableReader<'_>,
    known: Option<&[AccountConfig]>,
    client_certificates: bool,
    others: &mut Identities,
) -> Option<CallerConfig> {
    let name = table.required("name", parse::label);
    if let Some(name) = &name
        && !others.names.insert(name.clone())
    {
        table.report("name", format!("{name:?} is another caller's too"));
    }
    if name.as_deref() == Some("-") {
        table.report("name", "\"-\" stands for a caller that nobody knows, in logs and metrics; take another one");
    }
    let (api_key_sha256, certificate_san) = credentials(&mut table, client_certificates, others);
    let accounts = table.value_or("accounts", NamePatterns::All, parse::names);
    check_accounts(&mut table, &accounts, known);
    let streams = table.value_or("streams", NamePatterns::All, parse::names);
    let weight = table.value_or("weight", 1, parse::integer(1..=u32::MAX));
    let cache_control = table.value_or("cache_control", CacheControlGrants::default(), cache_directives);
    let max_priority = table.value_or("max_priority", PriorityClass::Interactive, parse::keyword);
    let not_after = table.optional("not_after", parse::date);
    let limits = limits(&mut table);
    table.finish();
    Some(CallerConfig {
        name: name?.into(),
        api_key_sha256,
        certificate_san: certificate_san.map(Into::into),
        accounts,
        streams,
        weight,
        cache_control,
        max_priority,
        not_after,
        limits: limits?,
    })
}

/// The digests of the keys, and the name in the certificate; at least one of both.
fn credentials(
    table: &mut TableReader<'_>,
    client_certificates: bool,
    others: &mut Identities,
) -> (Vec<[u8; 32]>, Option<String>) {
    let certificate_san = table.optional("certificate_san", parse::name);
    if let Some(san) = &certificate_san {
        if !client_certificates {
            table.report("certificate_san", "is of no use without `server.tls.client_ca`");
        }
        if !others.certificate_sans.insert(san.clone()) {
            table.report("certificate_san", "is another caller's too, and nothing else could tell them apart");
        }
    }
    if certificate_san.is_none() {
        table.report_if_absent("api_key_sha256");
    }
    let api_key_sha256 = table.optional("api_key_sha256", digests).unwrap_or_default();
    if api_key_sha256.iter().any(|key| !others.keys.insert(*key)) {
        table.report("api_key_sha256", "is another caller's too, and nothing else could tell them apart");
    }
    (api_key_sha256, certificate_san)
}

fn limits(table: &mut TableReader<'_>) -> Option<CallerLimits> {
    let requests_per_minute =
        table.value_or("requests_per_minute", types::DEFAULT_REQUESTS_PER_MINUTE, parse::integer(1..=u32::MAX));
    let mut count = |key| table.optional(key, parse::integer(1..=u32::MAX)).and_then(NonZeroU32::new);
    let max_concurrent_requests = count("max_concurrent_requests");
    let upstream_calls_per_hour = count("upstream_calls_per_hour");
    let upstream_calls_per_day = count("upstream_calls_per_day");
    Some(CallerLimits {
        requests_per_minute: NonZeroU32::new(requests_per_minute)?,
        max_concurrent_requests,
        upstream_calls_per_hour,
        upstream_calls_per_day,
        mode: table.value_or("mode", LimitMode::Enforce, parse::keyword),
    })
}

fn check_accounts(table: &mut TableReader<'_>, accounts: &NamePatterns, known: Option<&[AccountConfig]>) {
    let (NamePatterns::Only(names), Some(known)) = (accounts, known) else { return };
    for name in names.iter().filter(|name| known.iter().all(|account| *account.account_id != **name)) {
        let message = match keys::suggestion(name, known.iter().map(|account| &*account.account_id)) {
            Some(near) => format!("{name:?} is no configured account; did you mean {near:?}?"),
            None => format!("{name:?} is no configured account"),
        };
        table.report("accounts", message);
    }
}

/// A list of directives, which may be empty.
fn cache_directives(node: &ConfigNode) -> Result<CacheControlGrants, String> {
    const EXPECTED: &str = "write a list of \"only-if-cached\", \"no-cache\", \"max-age\" and \"max-stale\"";
    let node = node.clone().structured().map_err(|message| format!("{message}; {EXPECTED}"))?;
    let Value::Array(items) = &node.value else { return Err(format!("is {}; {EXPECTED}", node.kind())) };
    let directives = items.iter().map(parse::keyword).collect::<Result<Vec<CacheDirective>, _>>();
    directives
        .map(|directives| CacheControlGrants::new(&directives))
        .map_err(|message| format!("a directive {message}"))
}

const DIGEST_EXPECTED: &str =
    "the SHA-256 of the API key in 64 hex digits, as `koregate key` prints it, or a list of them";

/// A digest, or a list of different digests: during a rotation, the old and the new key are both valid.
fn digests(node: &ConfigNode) -> Result<Vec<[u8; 32]>, String> {
    // The text of a variable is a list if it begins with a bracket, and a digest otherwise.
    let is_list = matches!(&node.value, Value::Raw(text) if text.trim_start().starts_with('['));
    let structured = if is_list { Some(node.clone().structured()?) } else { None };
    let node = structured.as_ref().unwrap_or(node);
    let Value::Array(items) = &node.value else { return Ok(vec![digest(node)?]) };
    let digests = items.iter().map(digest).collect::<Result<Vec<_>, _>>()?;
    if digests.is_empty() {
        return Err(format!("is empty; it must be {DIGEST_EXPECTED}"));
    }
    if digests.iter().collect::<HashSet<_>>().len() < digests.len() {
        return Err("holds the same digest twice".to_owned());
    }
    Ok(digests)
}

/// A digest of 64 hex digits. The error does not quote other text, which may be the API key itself.
fn digest(node: &ConfigNode) -> Result<[u8; 32], String> {
    hex::decode(parse::text(node, DIGEST_EXPECTED)?).ok_or_else(|| format!("must be {DIGEST_EXPECTED}"))
}
