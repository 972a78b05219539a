//! The commands of sorted sets.

use std::collections::BTreeMap;

use super::store::{Entry, ModelReply, Store, Value};

/// One end of a range of scores.
#[derive(Clone, Copy)]
struct ScoreBound {
    score: f64,
    is_exclusive: bool,
}

impl ScoreBound {
    /// Parses `5`, `(5`, `-inf` or `+inf`.
    fn parse(text: &[u8]) -> Self {
        let text = std::str::from_utf8(text).unwrap();
        let (is_exclusive, number) = text.strip_prefix('(').map_or((false, text), |rest| (true, rest));
        Self { score: number.parse().unwrap(), is_exclusive }
    }

    fn admits_from(self, score: f64) -> bool {
        if self.is_exclusive { score > self.score } else { score >= self.score }
    }

    fn admits_to(self, score: f64) -> bool {
        if self.is_exclusive { score < self.score } else { score <= self.score }
    }
}

fn integer(count: usize) -> ModelReply {
    ModelReply::Integer(i64::try_from(count).unwrap())
}

fn score_text(score: f64) -> Vec<u8> {
    if score.is_infinite() { b"inf".to_vec() } else { format!("{score}").into_bytes() }
}

impl Store {
    fn sorted(&mut self, key: &[u8]) -> &mut BTreeMap<Vec<u8>, f64> {
        let new = || Entry { value: Value::Sorted(BTreeMap::new()), expires_at: None };
        match &mut self.entries.entry(key.to_vec()).or_insert_with(new).value {
            Value::Sorted(set) => set,
            other => panic!("{} is {other:?}", String::from_utf8_lossy(key)),
        }
    }

    pub(super) fn run_on_sorted_set(&mut self, name: &[u8], arguments: &[&[u8]]) -> Option<ModelReply> {
        let (key, rest) = arguments.split_first()?;
        let set = self.sorted(key);
        let within = |from: &[u8], to: &[u8]| {
            let (from, to) = (ScoreBound::parse(from), ScoreBound::parse(to));
            move |score: f64| from.admits_from(score) && to.admits_to(score)
        };
        let reply = match (name, rest) {
            (b"ZADD", [b"XX", score, member]) => {
                if let Some(known) = set.get_mut(*member) {
                    *known = ScoreBound::parse(score).score;
                }
                integer(0)
            }
            (b"ZADD", [score, member]) => {
                integer(usize::from(set.insert(member.to_vec(), ScoreBound::parse(score).score).is_none()))
            }
            (b"ZSCORE", [member]) => {
                set.get(*member).map_or(ModelReply::Nil, |score| ModelReply::Bytes(score_text(*score)))
            }
            (b"ZREM", members) => integer(members.iter().filter(|member| set.remove(**member).is_some()).count()),
            (b"ZREMRANGEBYSCORE", [from, to]) => {
                let (within, before) = (within(from, to), set.len());
                set.retain(|_, score| !within(*score));
                integer(before - set.len())
            }
            (b"ZCOUNT", [from, to]) => {
                let within = within(from, to);
                integer(set.values().filter(|score| within(**score)).count())
            }
            (b"ZRANGEBYSCORE", [from, to, b"WITHSCORES"]) => {
                let within = within(from, to);
                let mut found: Vec<_> = set.iter().filter(|(_, score)| within(**score)).collect();
                found.sort_by(|one, other| one.1.total_cmp(other.1));
                let pair = |(member, score): (&Vec<u8>, &f64)| {
                    [ModelReply::Bytes(member.clone()), ModelReply::Bytes(score_text(*score))]
                };
                ModelReply::Array(found.into_iter().flat_map(pair).collect())
            }
            _ => return None,
        };
        if self.sorted(key).is_empty() {
            self.entries.remove(*key);
        }
        Some(reply)
    }
}
