//! The data of the model, and the commands on it.

use std::collections::BTreeMap;
use std::time::Duration;

/// A value.
#[derive(Clone, Debug)]
pub(super) enum Value {
    Text(Vec<u8>),
    Hash(BTreeMap<Vec<u8>, Vec<u8>>),
    /// Members with their scores.
    Sorted(BTreeMap<Vec<u8>, f64>),
}

#[derive(Clone, Debug)]
pub(super) struct Entry {
    pub(super) value: Value,
    pub(super) expires_at: Option<Duration>,
}

/// A reply.
#[derive(Clone, Debug, PartialEq)]
pub(super) enum ModelReply {
    Nil,
    Integer(i64),
    Bytes(Vec<u8>),
    Status(&'static str),
    Array(Vec<ModelReply>),
    Error(String),
}

/// The data. A clone is a snapshot.
#[derive(Clone, Debug, Default)]
pub(super) struct Store {
    pub(super) entries: BTreeMap<Vec<u8>, Entry>,
    /// Milliseconds since the Unix epoch.
    pub(super) now: Duration,
    /// When the next entry expires at the earliest; `None` if it is not known.
    pub(super) next_expiry: Option<Duration>,
    /// Whether writes are refused, as by a Redis that is full.
    pub(super) refuses_writes: bool,
}

const WRITES: [&[u8]; 12] = [
    b"SET",
    b"DEL",
    b"UNLINK",
    b"EXPIRE",
    b"PEXPIRE",
    b"HINCRBY",
    b"HSET",
    b"HDEL",
    b"ZADD",
    b"ZREM",
    b"ZREMRANGEBYSCORE",
    b"HSETNX",
];

fn number<T: std::str::FromStr>(text: &[u8]) -> Option<T> {
    std::str::from_utf8(text).ok()?.parse().ok()
}

fn count(found: usize) -> ModelReply {
    ModelReply::Integer(i64::try_from(found).unwrap())
}

impl Store {
    /// Runs a command; `None` if it is not one on data.
    pub(super) fn run(&mut self, command: &[Vec<u8>]) -> Option<ModelReply> {
        let name = command[0].to_ascii_uppercase();
        let now = self.now;
        if self.next_expiry.is_none_or(|at| at <= now) {
            self.entries.retain(|_, entry| entry.expires_at.is_none_or(|at| at > now));
            let ends = self.entries.values().filter_map(|entry| entry.expires_at);
            self.next_expiry = Some(ends.min().unwrap_or(Duration::MAX));
        }
        if self.refuses_writes && WRITES.contains(&name.as_slice()) {
            let text = "OOM command not allowed when used memory > 'maxmemory'.";
            return Some(ModelReply::Error(text.to_owned()));
        }
        let arguments: Vec<&[u8]> = command[1..].iter().map(Vec::as_slice).collect();
        Some(match (name.as_slice(), arguments.as_slice()) {
            (b"TIME", []) => {
                let part = |number: u128| ModelReply::Bytes(number.to_string().into_bytes());
                ModelReply::Array(vec![part(now.as_secs().into()), part(now.as_micros() % 1_000_000)])
            }
            (b"GET", [key]) => self.text(key).map_or(ModelReply::Nil, |text| ModelReply::Bytes(text.clone())),
            (b"MGET", keys) => {
                let value =
                    |key: &&[u8]| self.text(key).map_or(ModelReply::Nil, |text| ModelReply::Bytes(text.clone()));
                ModelReply::Array(keys.iter().map(value).collect())
            }
            (b"SET", [key, value, options @ ..]) => self.set(key, value, options),
            (b"DEL" | b"UNLINK", keys) => count(keys.iter().filter(|key| self.entries.remove(**key).is_some()).count()),
            (b"EXISTS", keys) => count(keys.iter().filter(|key| self.entries.contains_key(**key)).count()),
            (b"EXPIRE", [key, seconds]) => self.expire(key, Duration::from_secs(number(seconds)?)),
            (b"PEXPIRE", [key, millis]) => self.expire(key, Duration::from_millis(number(millis)?)),
            (b"SCAN", [_, b"MATCH", pattern, ..]) => self.scan(pattern),
            (b"INFO" | b"CONFIG", _) => ModelReply::Error("ERR unknown command".to_owned()),
            _ if name.starts_with(b"H") => self.run_on_hash(&name, &arguments)?,
            _ if name.starts_with(b"Z") => self.run_on_sorted_set(&name, &arguments)?,
            _ => return None,
        })
    }

    fn text(&self, key: &[u8]) -> Option<&Vec<u8>> {
        match &self.entries.get(key)?.value {
            Value::Text(text) => Some(text),
            other => panic!("{} is {other:?}", String::from_utf8_lossy(key)),
        }
    }

    fn set(&mut self, key: &[u8], value: &[u8], options: &[&[u8]]) -> ModelReply {
        let expires_at = match options {
            [] => None,
            [b"XX", rest @ ..] if self.entries.contains_key(key) => return self.set(key, value, rest),
            [b"XX", ..] => return ModelReply::Nil,
            [b"PX", millis] => Some(self.now + Duration::from_millis(number(millis).unwrap())),
            [b"EX", seconds] => Some(self.now + Duration::from_secs(number(seconds).unwrap())),
            other => panic!("SET with {other:?}"),
        };
        self.next_expiry = None;
        self.entries.insert(key.to_vec(), Entry { value: Value::Text(value.to_vec()), expires_at });
        ModelReply::Status("OK")
    }

    fn expire(&mut self, key: &[u8], after: Duration) -> ModelReply {
        let now = self.now;
        self.next_expiry = None;
        count(self.entries.get_mut(key).map(|entry| entry.expires_at = Some(now + after)).iter().count())
    }

    /// All keys that match a pattern of the kind `prefix*`, in one reply.
    fn scan(&self, pattern: &[u8]) -> ModelReply {
        let prefix = pattern.strip_suffix(b"*").expect("a prefix");
        let unescaped: Vec<u8> = prefix.iter().copied().filter(|byte| *byte != b'\\').collect();
        let keys = self.entries.keys().filter(|key| key.starts_with(&unescaped));
        let keys = keys.map(|key| ModelReply::Bytes(key.clone())).collect();
        ModelReply::Array(vec![ModelReply::Bytes(b"0".to_vec()), ModelReply::Array(keys)])
    }

    fn hash(&self, key: &[u8]) -> Option<&BTreeMap<Vec<u8>, Vec<u8>>> {
        match &self.entries.get(key)?.value {
            Value::Hash(hash) => Some(hash),
            other => panic!("{} is {other:?}", String::from_utf8_lossy(key)),
        }
    }

    fn hash_mut(&mut self, key: &[u8]) -> &mut BTreeMap<Vec<u8>, Vec<u8>> {
        let new = || Entry { value: Value::Hash(BTreeMap::new()), expires_at: None };
        match &mut self.entries.entry(key.to_vec()).or_insert_with(new).value {
            Value::Hash(hash) => hash,
            other => panic!("{} is {other:?}", String::from_utf8_lossy(key)),
        }
    }

    fn run_on_hash(&mut self, name: &[u8], arguments: &[&[u8]]) -> Option<ModelReply> {
        let bytes = |text: &Vec<u8>| ModelReply::Bytes(text.clone());
        let (key, rest) = arguments.split_first()?;
        Some(match (name, rest) {
            (b"HSET", pairs) => {
                let hash = self.hash_mut(key);
                let new = |pair: &&[&[u8]]| hash.insert(pair[0].to_vec(), pair[1].to_vec()).is_none();
                count(pairs.chunks_exact(2).filter(new).count())
            }
            (b"HSETNX", [field, value]) => {
                let hash = self.hash_mut(key);
                let is_new = !hash.contains_key(*field);
                hash.entry(field.to_vec()).or_insert_with(|| value.to_vec());
                count(usize::from(is_new))
            }
            (b"HINCRBY", [field, by]) => {
                let value = self.hash_mut(key).entry(field.to_vec()).or_insert_with(|| b"0".to_vec());
                let sum = number::<i64>(value)? + number::<i64>(by)?;
                *value = sum.to_string().into_bytes();
                ModelReply::Integer(sum)
            }
            (b"HDEL", fields) => {
                let removed = fields.iter().filter(|field| self.hash_mut(key).remove(**field).is_some()).count();
                if self.hash(key).is_some_and(BTreeMap::is_empty) {
                    self.entries.remove(*key);
                }
                count(removed)
            }
            (b"HGET", [field]) => self.hash(key).and_then(|hash| hash.get(*field)).map_or(ModelReply::Nil, bytes),
            (b"HMGET", fields) => {
                let value =
                    |field: &&[u8]| self.hash(key).and_then(|hash| hash.get(*field)).map_or(ModelReply::Nil, bytes);
                ModelReply::Array(fields.iter().map(value).collect())
            }
            (b"HKEYS", []) => {
                ModelReply::Array(self.hash(key).into_iter().flat_map(BTreeMap::keys).map(bytes).collect())
            }
            (b"HLEN", []) => count(self.hash(key).map_or(0, BTreeMap::len)),
            (b"HSTRLEN", [field]) => count(self.hash(key).and_then(|hash| hash.get(*field)).map_or(0, Vec::len)),
            (b"HGETALL", []) => {
                let pairs = self.hash(key).into_iter().flatten();
                ModelReply::Array(pairs.flat_map(|(field, value)| [bytes(field), bytes(value)]).collect())
            }
            _ => return None,
        })
    }
}
