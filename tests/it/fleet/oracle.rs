//! What the upstream's rows were at each moment, and whether an answer could be made of them.

use std::collections::{BTreeMap, HashMap};
use std::sync::OnceLock;
use std::time::Duration;

use koregate_simulator::{Control, ItemFilter};
use xxhash_rust::xxh3::xxh3_128;

use super::{START, STREAMS, timestamp};
use crate::support::to_ndjson;

/// One state of a row.
#[derive(Debug)]
struct Version {
    /// Time since the simulation began.
    from: Duration,
    /// `None` for the present state.
    until: Option<Duration>,
}

#[derive(Debug)]
struct Row {
    /// Time since the Unix epoch.
    at: Duration,
    versions: Vec<Version>,
}

/// A hash of a line of NDJSON.
pub(super) type Line = u128;

/// A line of an item.
fn line(item: Vec<u8>) -> Line {
    xxh3_128(to_ndjson(&[item]).trim_ascii_end())
}

/// The time of an item, since the Unix epoch.
fn start(item: &[u8]) -> Duration {
    let text = std::str::from_utf8(item).unwrap();
    let (_, rest) = text.split_once("\"segmentStartTime\"").unwrap();
    let at: jiff::Timestamp = rest.split('"').nth(1).unwrap().parse().unwrap();
    Duration::from_millis(u64::try_from(at.as_millisecond()).unwrap())
}

/// All rows of all streams, with their history.
pub(super) struct Oracle {
    control: Control,
    streams: BTreeMap<&'static str, BTreeMap<String, Row>>,
    /// The row and its version of each line of NDJSON that ever was right.
    by_content: HashMap<Line, (String, usize)>,
}

/// A window that was answered.
#[derive(Clone, Debug)]
pub(super) struct AnsweredWindow {
    pub(super) stream: &'static str,
    /// Time since the Unix epoch; both ends belong to the window.
    pub(super) from: Duration,
    pub(super) to: Duration,
    /// Rows after this may be missing: it was the gateway's present when the request came.
    pub(super) complete_to: Duration,
    /// Time since the simulation began.
    pub(super) answered_at: Duration,
    pub(super) rows: Vec<Line>,
}

impl Oracle {
    pub(super) fn new(control: Control) -> Self {
        /// The rows of the profile, which are the same for all seeds.
        static ROWS: OnceLock<Vec<(&str, String, Duration, Line)>> = OnceLock::new();
        let rows = ROWS.get_or_init(|| {
            let (from, to) = (timestamp(START.saturating_sub(Duration::from_hours(240))), timestamp(START));
            let rows = STREAMS.into_iter().flat_map(|stream| {
                let items = control.expected_until(stream, from, to, false, &ItemFilter::default());
                items.into_iter().map(move |(id, bytes)| (stream, id, start(&bytes), line(bytes)))
            });
            rows.collect()
        });
        let mut oracle = Self { control, streams: BTreeMap::new(), by_content: HashMap::new() };
        for (stream, id, at, line) in rows {
            oracle.add(stream, id.clone(), *at, *line, Duration::ZERO);
        }
        oracle
    }

    fn add(&mut self, stream: &'static str, id: String, at: Duration, line: Line, now: Duration) {
        let row = self.streams.entry(stream).or_default().entry(id.clone()).or_insert(Row { at, versions: Vec::new() });
        self.by_content.insert(line, (id, row.versions.len()));
        row.versions.push(Version { from: now, until: None });
    }

    /// Ids and times of the rows of a stream that exist now.
    pub(super) fn present(&self, stream: &str) -> Vec<(String, Duration)> {
        let rows = self.streams.get(stream).into_iter().flatten();
        let is_present = |row: &Row| row.versions.last().is_some_and(|version| version.until.is_none());
        rows.filter(|(_, row)| is_present(row)).map(|(id, row)| (id.clone(), row.at)).collect()
    }

    /// Inserts a row.
    pub(super) fn insert(&mut self, stream: &'static str, at: Duration, now: Duration) {
        let at = Duration::from_millis(u64::try_from(at.as_millis()).unwrap());
        let id = self.control.insert(stream, timestamp(at)).unwrap();
        let bytes = self.read(stream, &id, at);
        self.add(stream, id, at, line(bytes), now);
    }

    /// Changes a row.
    pub(super) fn touch(&mut self, stream: &'static str, id: &str, now: Duration) {
        assert!(self.control.touch(stream, id));
        let at = self.end_version(stream, id, now);
        let bytes = self.read(stream, id, at);
        self.add(stream, id.to_owned(), at, line(bytes), now);
    }

    /// Removes a row.
    pub(super) fn remove(&mut self, stream: &'static str, id: &str, now: Duration) {
        assert!(self.control.remove(stream, id));
        self.end_version(stream, id, now);
    }

    fn end_version(&mut self, stream: &str, id: &str, now: Duration) -> Duration {
        let row = self.streams.get_mut(stream).unwrap().get_mut(id).unwrap();
        row.versions.last_mut().unwrap().until = Some(now);
        row.at
    }

    fn read(&self, stream: &str, id: &str, at: Duration) -> Vec<u8> {
        let end = at + Duration::from_millis(1);
        let found = self.control.expected_until(stream, timestamp(at), timestamp(end), false, &ItemFilter::default());
        found.into_iter().find(|(other, _)| other == id).unwrap().1
    }

    /// Checks that each row of the answer is a state that the row had at some time since `oldest`, and that no row is
    /// missing that existed all that time. `oldest` is given the time of a row since the Unix epoch.
    pub(super) fn check(&self, answer: &AnsweredWindow, oldest: impl Fn(Duration) -> Duration) -> Result<(), String> {
        let mut found = HashMap::new();
        for bytes in &answer.rows {
            let Some((id, version)) = self.by_content.get(bytes) else {
                return Err(format!("a row that never was: {bytes:032x}"));
            };
            if found.insert(id.as_str(), *version).is_some() {
                return Err(format!("the row {id} stands twice"));
            }
        }
        for (id, row) in self.streams.get(answer.stream).into_iter().flatten() {
            let is_inside = row.at >= answer.from && row.at <= answer.to;
            let oldest = oldest(row.at);
            match found.remove(id.as_str()) {
                Some(_) if !is_inside => return Err(format!("the row {id} is outside the window")),
                Some(number) => {
                    let version = &row.versions[number];
                    if version.until.is_some_and(|until| until < oldest) {
                        let (until, at) = (version.until, row.at);
                        return Err(format!("the row {id} of {at:?} has a state that ended at {until:?} < {oldest:?}"));
                    }
                }
                None if is_inside
                    && row.at <= answer.complete_to
                    && row.existed_throughout(oldest, answer.answered_at) =>
                {
                    return Err(format!("the row {id} of {:?} is missing since {oldest:?}", row.at));
                }
                None => {}
            }
        }
        match found.into_keys().next() {
            Some(id) => Err(format!("the row {id} is of another stream")),
            None => Ok(()),
        }
    }
}

impl Row {
    fn existed_throughout(&self, from: Duration, to: Duration) -> bool {
        let mut reached = from;
        for version in &self.versions {
            if version.from <= reached && version.until.is_none_or(|until| until > reached) {
                match version.until {
                    None => return true,
                    Some(until) => reached = until,
                }
            }
        }
        reached > to
    }
}
