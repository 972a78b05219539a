//! The names of all keys, for errors that must name one before anything could be read.

/// Every word that is a key somewhere in the file.
pub(super) const KEYS: [&str; 52] = [
    "server",
    "listen",
    "admin_listen",
    "tls",
    "cert",
    "key",
    "client_ca",
    "drain_timeout",
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
    "cache",
    "memory",
    "redis",
    "url",
    "prefix",
    "ttl",
    "encryption_key",
    "callers",
    "name",
    "api_key_sha256",
    "requests_per_minute",
    "weight",
];

/// The key that stands last in `text` before the byte `end`, or at it.
///
/// A syntax error has a place but no key. Only words that are keys are looked for, so that no piece of a secret can
/// be taken for one.
pub(super) fn last_before(text: &str, end: usize) -> Option<&'static str> {
    let is_word = |byte: u8| byte.is_ascii_alphanumeric() || byte == b'_';
    // The error may point at the key itself: look up to the end of the word that it points at.
    let end = end + text.bytes().skip(end).take_while(|byte| is_word(*byte)).count();
    let words = text.as_bytes().get(..end)?.rsplit(|byte| !is_word(*byte));
    words.filter_map(|word| KEYS.iter().find(|key| key.as_bytes() == word)).copied().next()
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
