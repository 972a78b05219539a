//! The names of all keys, for errors that must name one before anything could be read.

/// Begins the name of every variable that stands for a key.
pub(super) const PREFIX: &str = "KOREGATE__";

/// The variable that stands for `key`: `KOREGATE__ACCOUNTS__0__CLIENT_ID` for `accounts[0].client_id`.
pub(super) fn variable(key: &str) -> String {
    PREFIX.to_owned() + &key.replace('[', "__").replace(']', "").replace('.', "__").to_uppercase()
}

/// Every word that is a key somewhere in the file.
pub(super) const KEYS: [&str; 66] = [
    "server",
    "listen",
    "admin_listen",
    "hosts",
    "tls",
    "cert",
    "key",
    "client_ca",
    "drain_timeout",
    "admin",
    "metric_streams",
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
    "accounts",
    "account_id",
    "client_id",
    "client_secret",
    "file",
    "env",
    "streams",
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
    "interactive_reserve",
    "state_file",
    "cache",
    "memory",
    "redis",
    "url",
    "prefix",
    "ttl",
    "max_value",
    "replicas",
    "encryption_key",
    "previous_encryption_key",
    "callers",
    "name",
    "api_key_sha256",
    "requests_per_minute",
    "weight",
];

/// The key that is being set in `text` at the byte `end`, with the names of the tables around it as far as they are
/// plain to see: `accounts.token.jti`.
///
/// A syntax error has a place but no key. Only words that are keys are looked for, so that no piece of a secret can
/// be taken for one.
pub(super) fn last_before(text: &str, end: usize) -> Option<String> {
    // The error may point at the key itself: look up to the sign that makes it one.
    let (before, after) = text.as_bytes().split_at_checked(end)?;
    let word = after.iter().take_while(|byte| is_word(**byte)).count();
    let spaces = after[word..].iter().take_while(|byte| **byte == b' ').count();
    let sign = usize::from(after.get(word + spaces) == Some(&b'='));
    let before = &text.as_bytes()[..before.len() + word + spaces + sign];

    let mut path = Vec::new();
    for line in before.rsplit(|byte| *byte == b'\n') {
        if let Some(table) = header(line) {
            path.insert(0, table);
            break;
        }
        if path.is_empty() {
            path = set_in(line);
        }
    }
    if path.is_empty() { None } else { Some(path.join(".")) }
}

/// The last key that is set in `line`, behind the one that the line begins with.
fn set_in(line: &[u8]) -> Vec<String> {
    let mut pieces: Vec<&[u8]> = line.split(|byte| *byte == b'=').map(<[u8]>::trim_ascii).collect();
    pieces.pop();
    let first = pieces.first().and_then(|piece| known(piece));
    let last = pieces.iter().rev().find_map(|piece| known(piece.rsplit(|byte| !is_word(*byte)).next()?));
    let first = first.filter(|first| last != Some(first));
    first.into_iter().chain(last).map(ToOwned::to_owned).collect()
}

fn is_word(byte: u8) -> bool {
    byte.is_ascii_alphanumeric() || byte == b'_'
}

fn known(word: &[u8]) -> Option<&'static str> {
    KEYS.iter().find(|key| key.as_bytes() == word).copied()
}

/// `cache.redis` for `[cache.redis]`, `accounts` for `[[accounts]]`.
fn header(line: &[u8]) -> Option<String> {
    let line = line.trim_ascii();
    let name = line.strip_prefix(b"[[").or_else(|| line.strip_prefix(b"["))?;
    let name = name.split(|byte| *byte == b']').next()?;
    let words: Option<Vec<_>> = name.split(|byte| *byte == b'.').map(|word| known(word.trim_ascii())).collect();
    Some(words?.join("."))
}

/// Which of `known` the writer of `unknown` may have meant: at most two letters away, and most of the word right.
pub(super) fn nearest<'a>(unknown: &str, known: impl IntoIterator<Item = &'a str>) -> Option<&'a str> {
    let tolerance = (unknown.chars().count() / 3).min(2);
    known
        .into_iter()
        .map(|name| (distance(unknown, name), name))
        .filter(|(distance, _)| *distance <= tolerance)
        .min()
        .map(|(_, name)| name)
}

/// Levenshtein's distance, one row of the matrix at a time.
fn distance(from: &str, to: &str) -> usize {
    let to: Vec<char> = to.chars().collect();
    let mut row: Vec<usize> = (0..=to.len()).collect();
    for (i, a) in from.chars().enumerate() {
        let mut diagonal = row[0];
        row[0] = i + 1;
        for (j, b) in to.iter().enumerate() {
            let replaced = diagonal + usize::from(a != *b);
            diagonal = row[j + 1];
            row[j + 1] = replaced.min(diagonal + 1).min(row[j] + 1);
        }
    }
    row[to.len()]
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn counts_the_letters_that_differ() {
        for (from, to, expected) in [
            ("", "", 0),
            ("", "abc", 3),
            ("abc", "", 3),
            ("chunk", "chunk", 0),
            ("chunk", "chunks", 1),
            ("listn", "listen", 1),
            ("kitten", "sitting", 3),
            ("für", "fur", 1),
        ] {
            assert_eq!(distance(from, to), expected, "{from} {to}");
        }
    }

    #[test]
    fn only_a_near_key_is_suggested() {
        for (unknown, expected) in
            [("listn", Some("listen")), ("ttl_", Some("ttl")), ("urls", Some("url")), ("pw", None), ("colour", None)]
        {
            assert_eq!(nearest(unknown, KEYS), expected, "{unknown}");
        }
    }

    #[test]
    fn a_word_that_is_no_key_is_never_named() {
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
            assert_eq!(last_before(&text.replace('@', ""), at).as_deref(), expected, "{text}");
        }
        assert_eq!(last_before("chunk", 500), None);
    }
}
