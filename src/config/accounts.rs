//! Keys, defaults and checks of `[[accounts]]` and `[[callers]]`.

pub(super) mod cache_control;

use std::collections::HashSet;
use std::num::NonZeroU32;
use std::time::Duration;

use super::parse::Keyword;
use super::table_reader::TableReader;
use super::value_tree::{ConfigNode, Value};
use super::{
    AccountConfig, CacheControlGrants, CacheDirective, CallerConfig, JtiMode, NamePatterns, QuotaLimit, TokenConfig,
    TokenScheme, keys, parse, window_settings,
};
use crate::hex;

const MINUTE: Duration = Duration::from_mins(1);
const HOUR: Duration = Duration::from_hours(1);

/// Kore's documented limits: 60 calls a minute and 1,800 an hour.
const DEFAULT_LIMITS: [QuotaLimit; 2] =
    [QuotaLimit { requests: 60, per: MINUTE }, QuotaLimit { requests: 1800, per: HOUR }];

/// The longest lifetime of a token that Kore accepts for apps that enforce JTI.
const MAX_LIFETIME_WITH_JTI: Duration = HOUR;

impl Keyword for TokenScheme {
    const KEYWORDS: &'static [(&'static str, Self)] = &[("bare", Self::Bare), ("bearer", Self::Bearer)];
}

impl Keyword for JtiMode {
    const KEYWORDS: &'static [(&'static str, Self)] = &[("off", Self::Off), ("per-request", Self::PerRequest)];
}

impl Keyword for CacheDirective {
    const KEYWORDS: &'static [(&'static str, Self)] = &[
        (Self::OnlyIfCached.name(), Self::OnlyIfCached),
        (Self::NoCache.name(), Self::NoCache),
        (Self::MaxAge.name(), Self::MaxAge),
        (Self::MaxStale.name(), Self::MaxStale),
    ];
}

/// All accounts; `None` if a problem of them was reported.
pub(super) fn accounts(root: &mut TableReader<'_>) -> Option<Vec<AccountConfig>> {
    root.require_key("accounts");
    let tables = root.tables("accounts")?;
    if tables.is_empty() {
        root.report("accounts", "is empty; there must be at least one account");
    }
    let mut seen = HashSet::new();
    // All are read before the result is decided, so that the problems of each are reported.
    let accounts: Vec<_> = tables.into_iter().map(|table| account(table, &mut seen)).collect();
    accounts.into_iter().collect()
}

fn account(mut table: TableReader<'_>, seen: &mut HashSet<String>) -> Option<AccountConfig> {
    let account_id = table.required("account_id", parse::name);
    if let Some(id) = &account_id
        && !seen.insert(id.clone())
    {
        table.report("account_id", format!("{id:?} stands on another account too"));
    }
    let client_id = table.required("client_id", parse::label);
    let client_secret = table.required_secret("client_secret");
    let streams = table.value_or("streams", NamePatterns::All, parse::names);
    let token = token(table.table("token"));
    let limits = limits(table.table("quota"));
    let window = window_settings::overrides(&mut table);
    let stream_settings = window_settings::streams(&mut table, &streams);
    table.finish();
    Some(AccountConfig {
        account_id: account_id?.into(),
        client_id: client_id?,
        client_secret: client_secret?,
        streams,
        token,
        limits,
        window,
        stream_settings,
    })
}

fn token(mut table: TableReader<'_>) -> TokenConfig {
    let token = TokenConfig {
        lifetime: table.value_or("lifetime", HOUR, parse::whole_seconds),
        refresh_ahead: table.value_or("refresh_ahead", 5 * MINUTE, parse::duration),
        scheme: table.value_or("scheme", TokenScheme::Bare, parse::keyword),
        jti: table.value_or("jti", JtiMode::Off, parse::keyword),
    };
    if table.is_faultless() {
        if token.refresh_ahead >= token.lifetime {
            table.report("refresh_ahead", "must be shorter than `lifetime`, or no token would ever be used");
        }
        if token.jti == JtiMode::PerRequest && token.lifetime > MAX_LIFETIME_WITH_JTI {
            table.report("lifetime", "must be at most \"1h\" while `jti` is \"per-request\": Kore refuses longer ones");
        }
    }
    table.finish();
    token
}

fn limits(mut table: TableReader<'_>) -> Vec<QuotaLimit> {
    let mut limits = DEFAULT_LIMITS.to_vec();
    if let Some(tables) = table.tables("limits") {
        if tables.is_empty() {
            table.report("limits", "is empty; there must be at least one limit");
        }
        limits.clear();
        for mut item in tables {
            let requests = item.required("requests", parse::integer(1..=u32::MAX));
            let per = item.required("per", parse::positive_duration);
            if let Some(per) = per
                && limits.iter().any(|limit: &QuotaLimit| limit.per == per)
            {
                item.report("per", "stands in another limit too");
            }
            item.finish();
            limits.extend(requests.zip(per).map(|(requests, per)| QuotaLimit { requests, per }));
        }
    }
    table.finish();
    limits
}

/// All callers; `None` if a problem of them was reported. `accounts` are those that a caller may name; `None` if they
/// have problems themselves, so that names are not checked.
pub(super) fn callers(root: &mut TableReader<'_>, accounts: Option<&[AccountConfig]>) -> Option<Vec<CallerConfig>> {
    let Some(tables) = root.tables("callers") else { return Some(Vec::new()) };
    let mut names = HashSet::new();
    let mut keys = HashSet::new();
    let callers: Vec<_> = tables.into_iter().map(|table| caller(table, accounts, &mut names, &mut keys)).collect();
    callers.into_iter().collect()
}

fn caller(
    mut table: TableReader<'_>,
    known: Option<&[AccountConfig]>,
    names: &mut HashSet<String>,
    keys: &mut HashSet<[u8; 32]>,
) -> Option<CallerConfig> {
    let name = table.required("name", parse::label);
    if let Some(name) = &name
        && !names.insert(name.clone())
    {
        table.report("name", format!("{name:?} is another caller's too"));
    }
    if name.as_deref() == Some("-") {
        table.report("name", "\"-\" stands for a caller that nobody knows, in logs and metrics; take another one");
    }
    let api_key_sha256 = table.required("api_key_sha256", digests);
    if api_key_sha256.iter().flatten().any(|key| !keys.insert(*key)) {
        table.report("api_key_sha256", "is another caller's too, and nothing else could tell them apart");
    }
    let accounts = table.value_or("accounts", NamePatterns::All, parse::names);
    if let (NamePatterns::Only(names), Some(known)) = (&accounts, known) {
        for name in names.iter().filter(|name| known.iter().all(|account| *account.account_id != **name)) {
            let message = match keys::suggestion(name, known.iter().map(|account| &*account.account_id)) {
                Some(near) => format!("{name:?} is no configured account; did you mean {near:?}?"),
                None => format!("{name:?} is no configured account"),
            };
            table.report("accounts", message);
        }
    }
    let streams = table.value_or("streams", NamePatterns::All, parse::names);
    let requests_per_minute = table.value_or("requests_per_minute", 600, parse::integer(1..=u32::MAX));
    let weight = table.value_or("weight", 1, parse::integer(1..=u32::MAX));
    let cache_control = table.value_or("cache_control", CacheControlGrants::default(), cache_directives);
    table.finish();
    Some(CallerConfig {
        name: name?.into(),
        api_key_sha256: api_key_sha256?,
        accounts,
        streams,
        requests_per_minute: NonZeroU32::new(requests_per_minute)?,
        weight,
        cache_control,
    })
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
