//! The names of all configuration keys, and of their environment variables, for error messages.

/// Prefix of the environment variables that set a key.
pub(super) const VARIABLE_PREFIX: &str = "KOREGATE__";

/// The environment variable that sets `key`: `KOREGATE__ACCOUNTS__0__CLIENT_ID` for `accounts[0].client_id`.
pub(super) fn variable_name(key: &str) -> String {
    VARIABLE_PREFIX.to_owned() + &key.replace('[', "__").replace(']', "").replace('.', "__").to_uppercase()
}

/// Every key and table name of the file, each once.
pub(super) const ALL_KEYS: [&str; 97] = [
    "server",
    "listen",
    "admin_listen",
    "metrics_listen",
    "hosts",
    "tls",
    "cert",
    "key",
    "client_ca",
    "drain_timeout",
    "admin",
    "metric_streams",
    "level",
    "max_connections",
    "max_connections_per_peer",
    "max_requests",
    "max_head_size",
    "request_memory",
    "send_timeout",
    "send_memory",
    "upstream",
    "base_url",
    "timeout",
    "max_concurrency",
    "ca_file",
    "proxy",
    "credentials",
    "send_traceparent",
    "accounts",
    "account_id",
    "client_id",
    "client_secret",
    "file",
    "env",
    "streams",
    "retention",
    "stream_settings",
    "stream",
    "token",
    "lifetime",
    "refresh_ahead",
    "scheme",
    "jti",
    "quota",
    "limits",
    "requests",
    "per",
    "window",
    "field",
    "upper_bound",
    "settle_after",
    "freshness",
    "younger_than",
    "max_age",
    "chunk",
    "max_span",
    "queue_timeout",
    "max_wait",
    "interactive_reserve",
    "state_file",
    "jobs",
    "per_caller",
    "keep_for",
    "cache",
    "memory",
    "disk",
    "path",
    "size",
    "redis",
    "url",
    "prefix",
    "ttl",
    "max_value",
    "replicas",
    "encryption_key",
    "previous_encryption_key",
    "log",
    "audit",
    "traces",
    "endpoint",
    "protocol",
    "service_name",
    "sample_ratio",
    "headers",
    "callers",
    "name",
    "api_key_sha256",
    "requests_per_minute",
    "weight",
    "cache_control",
    "certificate_san",
    "max_priority",
    "not_after",
    "max_concurrent_requests",
    "upstream_calls_per_hour",
    "upstream_calls_per_day",
    "mode",
];

/// The dotted key that the TOML in `text` sets at byte `end`, as far as the lines before it show the tables around it:
/// `accounts.token.jti`. `None` if no key is found.
///
/// A syntax error of the TOML parser has a position but no key. Only words of [`ALL_KEYS`] are returned, so that a
/// piece of a secret is never taken for a key.
pub(super) fn key_before(text: &str, end: usize) -> Option<String> {
    // The error may point at the key itself, so the search extends to the `=` behind that key.
    let (before, after) = text.as_bytes().split_at_checked(end)?;
    let word = after.iter().take_while(|byte| is_word(**byte)).count();
    let spaces = after[word..].iter().take_while(|byte| **byte == b' ').count();
    let sign = usize::from(after.get(word + spaces) == Some(&b'='));
    let before = &text.as_bytes()[..before.len() + word + spaces + sign];

    let mut path = Vec::new();
    for line in before.rsplit(|byte| *byte == b'\n') {
        if let Some(table) = table_header(line) {
            path.insert(0, table);
            break;
        }
        if path.is_empty() {
            path = last_key_in(line);
        }
    }
    if path.is_empty() { None } else { Some(path.join(".")) }
}

/// The key at the start of `line`, and the last key that the line sets inside of an inline table.
fn last_key_in(line: &[u8]) -> Vec<String> {
    let mut pieces: Vec<&[u8]> = line.split(|byte| *byte == b'=').map(<[u8]>::trim_ascii).collect();
    pieces.pop();
    let first = pieces.first().and_then(|piece| known_key(piece));
    let last = pieces.iter().rev().find_map(|piece| known_key(piece.rsplit(|byte| !is_word(*byte)).next()?));
    let first = first.filter(|first| last != Some(first));
    first.into_iter().chain(last).map(ToOwned::to_owned).collect()
}

fn is_word(byte: u8) -> bool {
    byte.is_ascii_alphanumeric() || byte == b'_'
}

fn known_key(word: &[u8]) -> Option<&'static str> {
    ALL_KEYS.iter().find(|key| key.as_bytes() == word).copied()
}

/// The name in a table header: `cache.redis` of `[cache.redis]`, `accounts` of `[[accounts]]`.
fn table_header(line: &[u8]) -> Option<String> {
    let line = line.trim_ascii();
    let name = line.strip_prefix(b"[[").or_else(|| line.strip_prefix(b"["))?;
    let name = name.split(|byte| *byte == b']').next()?;
    let words: Option<Vec<_>> = name.split(|byte| *byte == b'.').map(|word| known_key(word.trim_ascii())).collect();
    Some(words?.join("."))
}

/// The name among `known` that the writer of `unknown` most likely meant: the one with the smallest Levenshtein
/// distance, of at most two edits and at most a third of the letters of `unknown`. `None` if no name is that close.
pub(super) fn suggestion<'a>(unknown: &str, known: impl IntoIterator<Item = &'a str>) -> Option<&'a str> {
    let max_distance = (unknown.chars().count() / 3).min(2);
    known
        .into_iter()
        .map(|name| (strsim::levenshtein(unknown, name), name))
        .filter(|(distance, _)| *distance <= max_distance)
        .min()
        .map(|(_, name)| name)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_a_close_name_is_suggested() {
        for (unknown, expected) in
            [("listn", Some("listen")), ("ttl_", Some("ttl")), ("urls", Some("url")), ("pw", None), ("colour", None)]
        {
            assert_eq!(suggestion(unknown, ALL_KEYS), expected, "{unknown}");
        }
        for (unknown, known, is_suggested) in [
            ("", "", true),
            ("", "abc", false),
            ("abc", "", false),
            ("chunk", "chunk", true),
            ("chunks", "chunk", true),
            ("listn", "listen", true),
            ("sitting", "kitten", false),
            ("für", "fur", true),
        ] {
            assert_eq!(suggestion(unknown, [known]).is_some(), is_suggested, "{unknown} {known}");
        }
    }

    #[test]
    fn word_that_is_no_key_is_never_returned() {
        for (text, expected) in [
            ("", None),
            ("hunter2 = @", None),
            ("[accounts]\nhunter2 = @", Some("accounts")),
            ("[accounts]\nhunter2.client_secret.hunter2 = @", Some("accounts")),
            ("[hunter2]\nhunter2==\n\"a\" @", None),
            ("[server]\ntls = { cert = \"key file\" @", Some("server.tls.cert")),
            ("[ @server", Some("server")),
            ("[cache]\n[cache.redis]\nurl @= é", Some("cache.redis.url")),
        ] {
            let at = text.find('@').unwrap_or(0);
            assert_eq!(key_before(&text.replace('@', ""), at).as_deref(), expected, "{text}");
        }
        assert_eq!(key_before("chunk", 500), None);
    }
}
