//! Parser of the URL of Redis. Errors do not quote the URL, because it may contain a password.

use http::uri::Authority;
use percent_encoding::percent_decode_str;
use secrecy::SecretString;

use crate::config::url;

const EXPECTED: &str = "write it like \"redis://127.0.0.1:6379\", \"rediss://user:password@host:6379/0\", \
                        \"redis+sentinel://user:password@h1:26379,h2:26379/mymaster\" or \
                        \"redis+cluster://user:password@h1:6379,h2:6379\", with signs other than letters and digits in \
                        the password percent-encoded";

/// A parsed URL of Redis.
#[derive(Clone, Debug)]
pub struct RedisUrl {
    /// The kind of deployment.
    pub kind: RedisKind,
    /// Whether connections to all nodes use TLS.
    pub tls: bool,
    /// Host and port of each node, at least one. IPv6 addresses are without brackets.
    pub nodes: Vec<(String, u16)>,
    /// The ACL user; `None` means the default user.
    pub username: Option<String>,
    /// The password. Never printed.
    pub password: Option<SecretString>,
    /// The number of the database; 0 in a Cluster.
    pub database: u32,
}

/// The kind of deployment at the nodes of a [`RedisUrl`].
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum RedisKind {
    /// A single Redis server.
    Single,
    /// Sentinels, which know the address of the master of this name.
    Sentinel(String),
    /// Some nodes of a Cluster, which know all others.
    Cluster,
}

impl RedisUrl {
    /// Parses `redis://`, `redis+sentinel://` or `redis+cluster://`, or one of these with `rediss` for TLS.
    ///
    /// # Errors
    /// A message that does not quote the URL.
    pub fn parse(text: &str) -> Result<Self, String> {
        Self::parse_parts(text).map_err(|message| format!("{message}; {EXPECTED}"))
    }

    fn parse_parts(text: &str) -> Result<Self, &'static str> {
        let (scheme, rest) = text.split_once("://").ok_or("is not a URL")?;
        if rest.contains(|char: char| char.is_whitespace() || char.is_control()) {
            return Err("is not a URL");
        }
        let (protocol, kind) = scheme.split_once('+').unwrap_or((scheme, "single"));
        let tls = match protocol {
            "redis" => false,
            "rediss" => true,
            _ => return Err("has a scheme that is neither redis nor rediss"),
        };
        let (authority, path) = rest.split_once('/').unwrap_or((rest, ""));
        let (login, hosts) =
            authority.rsplit_once('@').map_or((None, authority), |(login, hosts)| (Some(login), hosts));
        let (kind, database) = match kind {
            "single" => (RedisKind::Single, path),
            "sentinel" => {
                let (master, database) = path.split_once('/').unwrap_or((path, ""));
                let is_name = |byte: u8| byte.is_ascii_alphanumeric() || b"-_.".contains(&byte);
                if master.is_empty() || !master.bytes().all(is_name) {
                    return Err("does not name the master that the Sentinels watch, or not only that");
                }
                (RedisKind::Sentinel(master.to_owned()), database)
            }
            "cluster" if path.is_empty() => (RedisKind::Cluster, ""),
            "cluster" => return Err("names a database, and a Cluster has one only"),
            _ => return Err("has a scheme that ends with neither +sentinel nor +cluster"),
        };
        let port = if matches!(kind, RedisKind::Sentinel(_)) { 26379 } else { 6379 };
        let nodes = hosts.split(',').map(|host| node(host, port)).collect::<Result<Vec<_>, _>>()?;
        if kind == RedisKind::Single && nodes.len() > 1 {
            return Err("names several hosts, which only +sentinel and +cluster may");
        }
        let database = match database {
            "" => 0,
            digits if digits.bytes().all(|byte| byte.is_ascii_digit()) => {
                digits.parse().map_err(|_| "has a number of a database that is none")?
            }
            _ => return Err("holds more after the host than the number of a database"),
        };
        // A login without a colon is the password, as for redis-cli.
        let (username, password) = match login {
            None => (None, None),
            Some(login) => {
                let (user, password) = login.split_once(':').unwrap_or(("", login));
                (Some(decoded(user)?), Some(decoded(password)?))
            }
        };
        let [username, password] = [username, password].map(|part| part.filter(|part| !part.is_empty()));
        Ok(Self { kind, tls, nodes, username, password: password.map(SecretString::from), database })
    }
}

fn node(host: &str, default_port: u16) -> Result<(String, u16), &'static str> {
    let authority: Authority = host.parse().map_err(|_| "names no host, or one that is none")?;
    url::check_authority(&authority).map_err(|_| "names no host, or has a port that is none")?;
    let name = authority.host().trim_start_matches('[').trim_end_matches(']');
    Ok((name.to_owned(), authority.port_u16().unwrap_or(default_port)))
}

fn decoded(part: &str) -> Result<String, &'static str> {
    let text = percent_decode_str(part).decode_utf8();
    text.map(String::from).map_err(|_| "has a user or a password that is not UTF-8")
}

/// A URL that [`RedisUrl::parse`] accepts, with `[redacted]` in place of its password.
pub(in crate::config) fn redact(text: &str) -> String {
    let Some((scheme, rest)) = text.split_once("://") else { return "[redacted]".to_owned() };
    // The password ends at the last `@`, so that no part of a password with an `@` is shown.
    let Some((login, host)) = rest.rsplit_once('@') else { return text.to_owned() };
    let user = login.split_once(':').map_or("", |(user, _)| user);
    format!("{scheme}://{user}:[redacted]@{host}")
}

#[cfg(test)]
mod tests {
    use secrecy::ExposeSecret as _;

    use super::*;

    #[test]
    fn url_is_checked_and_its_password_never_shown() {
        for (good, shown) in [
            ("redis://127.0.0.1:6379", "redis://127.0.0.1:6379"),
            ("rediss://cache.example/2", "rediss://cache.example/2"),
            ("redis://:hunter2@cache.example:6379/0", "redis://:[redacted]@cache.example:6379/0"),
            ("redis://me:hunter2@cache.example", "redis://me:[redacted]@cache.example"),
            ("redis://hunter2@cache.example", "redis://:[redacted]@cache.example"),
            ("redis://me:a%40hunter2@cache.example/", "redis://me:[redacted]@cache.example/"),
            ("redis+sentinel://me:hunter2@a,b:1/main/3", "redis+sentinel://me:[redacted]@a,b:1/main/3"),
            ("rediss+cluster://:hunter2@a:1,b:2", "rediss+cluster://:[redacted]@a:1,b:2"),
        ] {
            let parsed = RedisUrl::parse(good).unwrap();
            assert_eq!(redact(good), shown);
            assert!(!format!("{parsed:?}").contains("hunter2"));
        }
        for (bad, says) in [
            ("http://me:hunter2@cache.example", "neither redis nor rediss"),
            ("redis://me:hunter2@", "host"),
            ("redis://me:hunter2@cache.example:port", "host"),
            ("redis://me:hunter2@cache.example:0", "port"),
            ("redis://me:hunter2@cache.example/zero", "database"),
            ("redis://me:hunter2@cache.example/99999999999", "database"),
            ("redis://me:hunter2@cache.example/0?a=b", "database"),
            ("redis://me:hunter2@cache.example/0#insecure", "database"),
            ("redis://me:hun/ter2@cache.example", "host"),
            ("redis://me:hun ter2@cache.example", "not a URL"),
            ("redis://me:%ffhunter2@cache.example", "UTF-8"),
            ("redis://me:hunter2@a,b", "several hosts"),
            ("redis+ring://me:hunter2@a", "neither +sentinel nor +cluster"),
            ("redis+sentinel://me:hunter2@a,b", "name the master"),
            ("redis+sentinel://me:hunter2@a,b/my master", "not a URL"),
            ("redis+sentinel://me:hunter2@a,,b/main", "host"),
            ("redis+cluster://me:hunter2@a,b/1", "Cluster has one only"),
            ("cache.example:6379", "not a URL"),
        ] {
            let error = RedisUrl::parse(bad).unwrap_err();
            assert!(error.contains(says) && error.contains("redis://"), "{bad}: {error}");
            assert!(!error.contains("ter2"), "{error}");
        }
    }

    #[test]
    fn url_gives_kind_nodes_login_and_database() {
        let url = RedisUrl::parse("rediss+sentinel://me:p%40ss@s1,[::1]:26380/main/3").unwrap();
        assert_eq!((url.kind, url.tls, url.database), (RedisKind::Sentinel("main".to_owned()), true, 3));
        assert_eq!(url.nodes, [("s1".to_owned(), 26379), ("::1".to_owned(), 26380)]);
        assert_eq!((url.username.as_deref(), url.password.unwrap().expose_secret()), (Some("me"), "p@ss"));

        let url = RedisUrl::parse("redis://secret@h").unwrap();
        assert_eq!((url.kind, url.tls, url.username), (RedisKind::Single, false, None));
        assert_eq!(url.password.unwrap().expose_secret(), "secret");

        let url = RedisUrl::parse("redis+cluster://a:1,b").unwrap();
        assert_eq!((url.kind, url.nodes), (RedisKind::Cluster, vec![("a".to_owned(), 1), ("b".to_owned(), 6379)]));
        assert!(url.username.is_none() && url.password.is_none());
    }
}
