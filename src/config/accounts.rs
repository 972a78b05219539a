//! Keys, defaults and checks of `[[accounts]]`.

use std::collections::HashSet;
use std::time::Duration;

use super::parse::Keyword;
use super::table_reader::TableReader;
use super::{AccountConfig, JtiMode, NamePatterns, QuotaLimit, TokenConfig, TokenScheme, parse, window_settings};

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
