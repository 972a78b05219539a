//! `[[accounts]]` and `[[callers]]`: who Kore knows, and who the gateway knows.

use std::collections::HashSet;
use std::num::NonZeroU32;
use std::time::Duration;

use super::parse::Keyword;
use super::table_reader::Section;
use super::value_tree::{ConfigNode, Value};
use super::{AccountConfig, CallerConfig, JtiMode, NamePatterns, QuotaLimit, TokenConfig, TokenScheme, keys, parse};

const MINUTE: Duration = Duration::from_mins(1);
const HOUR: Duration = Duration::from_hours(1);

/// What Kore enforces when its documentation says nothing else: 60 calls a minute and 1,800 an hour.
const LIMITS: [QuotaLimit; 2] = [QuotaLimit { requests: 60, per: MINUTE }, QuotaLimit { requests: 1800, per: HOUR }];

/// The longest life of a token that Kore accepts where it enforces JTI.
const LONGEST_WITH_JTI: Duration = HOUR;

impl Keyword for TokenScheme {
    const WORDS: &'static [(&'static str, Self)] = &[("bare", Self::Bare), ("bearer", Self::Bearer)];
}

impl Keyword for JtiMode {
    const WORDS: &'static [(&'static str, Self)] = &[("off", Self::Off), ("per-request", Self::PerRequest)];
}

/// All accounts; `None` if one of them, or that there is none, has been noted as a fault.
pub(super) fn accounts(root: &mut Section<'_>) -> Option<Vec<AccountConfig>> {
    root.demand("accounts");
    let sections = root.sections("accounts")?;
    if sections.is_empty() {
        root.fail("accounts", "is empty; there must be at least one account");
    }
    let mut seen = HashSet::new();
    // First all, so that the faults of each are noted, then whether all are well.
    let accounts: Vec<_> = sections.into_iter().map(|section| account(section, &mut seen)).collect();
    accounts.into_iter().collect()
}

fn account(mut section: Section<'_>, seen: &mut HashSet<String>) -> Option<AccountConfig> {
    let account_id = section.required("account_id", parse::name);
    if let Some(id) = &account_id
        && !seen.insert(id.clone())
    {
        section.fail("account_id", format!("{id:?} stands on another account too"));
    }
    let client_id = section.required("client_id", parse::label);
    let client_secret = section.required_secret("client_secret");
    let streams = section.or("streams", NamePatterns::All, parse::names);
    let token = token(section.section("token"));
    let limits = limits(section.section("quota"));
    section.done();
    Some(AccountConfig {
        account_id: account_id?.into(),
        client_id: client_id?,
        client_secret: client_secret?,
        streams,
        token,
        limits,
    })
}

fn token(mut section: Section<'_>) -> TokenConfig {
    let token = TokenConfig {
        lifetime: section.or("lifetime", HOUR, parse::whole_seconds),
        refresh_ahead: section.or("refresh_ahead", 5 * MINUTE, parse::duration),
        scheme: section.or("scheme", TokenScheme::Bare, parse::word),
        jti: section.or("jti", JtiMode::Off, parse::word),
    };
    if section.is_clean() {
        if token.refresh_ahead >= token.lifetime {
            section.fail("refresh_ahead", "must be shorter than `lifetime`, or no token would ever be used");
        }
        if token.jti == JtiMode::PerRequest && token.lifetime > LONGEST_WITH_JTI {
            section.fail("lifetime", "must be at most \"1h\" while `jti` is \"per-request\": Kore refuses longer ones");
        }
    }
    section.done();
    token
}

fn limits(mut section: Section<'_>) -> Vec<QuotaLimit> {
    let mut limits = LIMITS.to_vec();
    if let Some(sections) = section.sections("limits") {
        if sections.is_empty() {
            section.fail("limits", "is empty; there must be at least one limit");
        }
        limits.clear();
        for mut item in sections {
            let requests = item.required("requests", parse::integer(1..=u32::MAX));
            let per = item.required("per", parse::positive_duration);
            if let Some(per) = per
                && limits.iter().any(|limit: &QuotaLimit| limit.per == per)
            {
                item.fail("per", "stands in another limit too");
            }
            item.done();
            limits.extend(requests.zip(per).map(|(requests, per)| QuotaLimit { requests, per }));
        }
    }
    section.done();
    limits
}

/// All callers; `None` if one of them has been noted as a fault. `accounts` are those that a caller may name, `None`
/// if they are at fault themselves.
pub(super) fn callers(root: &mut Section<'_>, accounts: Option<&[AccountConfig]>) -> Option<Vec<CallerConfig>> {
    let Some(sections) = root.sections("callers") else { return Some(Vec::new()) };
    let mut names = HashSet::new();
    let mut keys = HashSet::new();
    let callers: Vec<_> =
        sections.into_iter().map(|section| caller(section, accounts, &mut names, &mut keys)).collect();
    callers.into_iter().collect()
}

fn caller(
    mut section: Section<'_>,
    known: Option<&[AccountConfig]>,
    names: &mut HashSet<String>,
    keys: &mut HashSet<[u8; 32]>,
) -> Option<CallerConfig> {
    let name = section.required("name", parse::label);
    if let Some(name) = &name
        && !names.insert(name.clone())
    {
        section.fail("name", format!("{name:?} is another caller's too"));
    }
    if name.as_deref() == Some("-") {
        section.fail("name", "\"-\" stands for a caller that nobody knows, in logs and metrics; take another one");
    }
    let api_key_sha256 = section.required("api_key_sha256", digests);
    if api_key_sha256.iter().flatten().any(|key| !keys.insert(*key)) {
        section.fail("api_key_sha256", "is another caller's too, and nothing else could tell them apart");
    }
    let accounts = section.or("accounts", NamePatterns::All, parse::names);
    if let (NamePatterns::Only(names), Some(known)) = (&accounts, known) {
        for name in names.iter().filter(|name| known.iter().all(|account| *account.account_id != **name)) {
            let message = match keys::nearest(name, known.iter().map(|account| &*account.account_id)) {
                Some(near) => format!("{name:?} is no configured account; did you mean {near:?}?"),
                None => format!("{name:?} is no configured account"),
            };
            section.fail("accounts", message);
        }
    }
    let streams = section.or("streams", NamePatterns::All, parse::names);
    let requests_per_minute = section.or("requests_per_minute", 600, parse::integer(1..=u32::MAX));
    let weight = section.or("weight", 1, parse::integer(1..=u32::MAX));
    section.done();
    Some(CallerConfig {
        name: name?.into(),
        api_key_sha256: api_key_sha256?,
        accounts,
        streams,
        requests_per_minute: NonZeroU32::new(requests_per_minute)?,
        weight,
    })
}

const DIGEST: &str = "the SHA-256 of the API key in 64 hex digits, as `koregate key` prints it, or a list of them";

/// One digest, or a list of different ones: while a key is being changed, the old and the new are both good.
fn digests(node: &ConfigNode) -> Result<Vec<[u8; 32]>, String> {
    // A text that begins no list is the digest itself.
    let is_list = matches!(&node.value, Value::Raw(text) if text.trim_start().starts_with('['));
    let structured = if is_list { Some(node.clone().structured()?) } else { None };
    let node = structured.as_ref().unwrap_or(node);
    let Value::Array(items) = &node.value else { return Ok(vec![digest(node)?]) };
    let digests = items.iter().map(digest).collect::<Result<Vec<_>, _>>()?;
    if digests.is_empty() {
        return Err(format!("is empty; it must be {DIGEST}"));
    }
    if digests.iter().collect::<HashSet<_>>().len() < digests.len() {
        return Err("holds the same digest twice".to_owned());
    }
    Ok(digests)
}

/// 64 hex digits. What is none is not quoted: it may be the key itself.
fn digest(node: &ConfigNode) -> Result<[u8; 32], String> {
    let text = parse::text(node, DIGEST)?;
    let mut digest = [0; 32];
    if text.len() != 64 || !text.bytes().all(|byte| byte.is_ascii_hexdigit()) {
        return Err(format!("must be {DIGEST}"));
    }
    for (byte, pair) in digest.iter_mut().zip(text.as_bytes().chunks_exact(2)) {
        let nibble = |digit: u8| (digit as char).to_digit(16).and_then(|nibble| u8::try_from(nibble).ok());
        let (high, low) = nibble(pair[0]).zip(nibble(pair[1])).expect("all are hex digits, as was just checked");
        *byte = high << 4 | low;
    }
    Ok(digest)
}
