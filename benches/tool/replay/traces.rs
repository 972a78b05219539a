//! Who asks when for what. All of it derives from a seed.

use std::time::Duration;

use koregate::window::Timestamp;

use crate::rig::{DAY, HOUR, MINUTE, date, path, second};

/// One request.
#[derive(Clone, Debug)]
pub(super) struct Ask {
    pub(super) when: Timestamp,
    pub(super) from: Timestamp,
    /// The last second that is asked for; it may lie in the future.
    pub(super) to: Timestamp,
    /// Dates, not seconds, stand in the URL.
    days: bool,
    /// `offset` and `limit`; `None`: the whole window.
    pub(super) page: Option<(u64, u64)>,
}

impl Ask {
    fn seconds(when: Timestamp, from: Timestamp, to: Timestamp) -> Self {
        Self { when, from: from.floor_second(), to: to.floor_second(), days: false, page: None }
    }

    /// So many whole days, from the one in which `from` lies.
    fn days(when: Timestamp, from: Timestamp, days: u32) -> Self {
        let from = from.floor_to(DAY);
        Self { when, from, to: from + DAY * days - Duration::from_secs(1), days: true, page: None }
    }

    /// Path and query. Of a whole window, `at_most` items are asked for.
    pub(super) fn path(&self, stream: &str, at_most: Option<u64>) -> String {
        let spelled = if self.days { date } else { second };
        let page = match (self.page, at_most) {
            (Some((offset, limit)), _) => format!("&offset={offset}&limit={limit}"),
            (None, Some(limit)) => format!("&limit={limit}"),
            (None, None) => String::new(),
        };
        path(stream, &spelled(self.from), &spelled(self.to), &page)
    }
}

/// Every trace alone, and all of them at once; each in the order of time.
pub(super) fn traces(begin: Timestamp, days: u32) -> Vec<(&'static str, Vec<Ask>)> {
    let mut traces = vec![
        ("every 5 minutes, the last hour", polls(begin, days)),
        ("every hour, the last 7 days", pulls(begin, days)),
        ("every day, yesterday, by 5 services", yesterdays(begin, days)),
        ("dashboards: 60 random windows a day", dashboards(begin, days)),
        ("4 clients a day that page", pagers(begin, days)),
        ("200 callers at one instant, once a day", herds(begin, days)),
    ];
    traces.push(("all of them", traces.iter().flat_map(|(_, asks)| asks.clone()).collect()));
    for (_, asks) in &mut traces {
        asks.sort_by_key(|ask| ask.when);
    }
    traces
}

/// Nobody asks on the full second: schedulers and people are late.
const LATE: Duration = Duration::from_millis(137);

fn each_day(begin: Timestamp, days: u32) -> impl Iterator<Item = Timestamp> {
    (0..days).map(move |day| begin + DAY * day)
}

fn polls(begin: Timestamp, days: u32) -> Vec<Ask> {
    let poll = |n| Ask::seconds(begin + MINUTE * 5 * n + LATE, begin + MINUTE * 5 * n - HOUR, begin + MINUTE * 5 * n);
    (0..days * 288).map(poll).collect()
}

fn pulls(begin: Timestamp, days: u32) -> Vec<Ask> {
    let pull = |n| {
        let when = begin + HOUR * n + MINUTE * 7;
        Ask::seconds(when + LATE, when - DAY * 7, when)
    };
    (0..days * 24).map(pull).collect()
}

fn yesterdays(begin: Timestamp, days: u32) -> Vec<Ask> {
    let of = |day: Timestamp| {
        (0..5).map(move |service| Ask::days(day + HOUR * 6 + MINUTE * 25 * service + LATE, day - DAY, 1))
    };
    each_day(begin, days).flat_map(of).collect()
}

/// Half of them with round edges, as who picks from a list makes them, half with any.
fn dashboards(begin: Timestamp, days: u32) -> Vec<Ask> {
    let mut rng = fastrand::Rng::with_seed(2_026);
    let mut asks = Vec::new();
    for day in each_day(begin, days) {
        for _ in 0..60 {
            let when = day + HOUR * 7 + Duration::from_millis(rng.u64(..12 * 3_600_000));
            if rng.bool() {
                let length = [1, 3, 7, 14][rng.usize(..4)];
                asks.push(Ask::days(when, when - DAY * rng.u32(length..=30), length));
            } else {
                let longest = [3_600, 86_400, 604_800][rng.usize(..3)];
                let length = Duration::from_secs(rng.u64(600..longest));
                let to = when - Duration::from_secs(rng.u64(..20 * 86_400));
                asks.push(Ask::seconds(when, to - length, to));
            }
        }
    }
    asks
}

/// Each walks through one to three days, in pages of its own size, a page every two seconds.
fn pagers(begin: Timestamp, days: u32) -> Vec<Ask> {
    let mut rng = fastrand::Rng::with_seed(7);
    let mut asks = Vec::new();
    for day in each_day(begin, days) {
        for size in [50, 100, 250, 1_000] {
            let start = day + Duration::from_secs(rng.u64(6 * 3_600..20 * 3_600)) + LATE;
            let length = rng.u32(1..=3);
            let window = Ask::days(start, start - DAY * rng.u32(length..=4), length);
            // It stops when a page is not full; a model of the client would not ask otherwise.
            let pages = u64::from(length) * 1_700 / size;
            for page in 0..=pages {
                let when = start + Duration::from_secs(2) * u32::try_from(page).unwrap_or(u32::MAX);
                asks.push(Ask { when, page: Some((page * size, size)), ..window.clone() });
            }
        }
    }
    asks
}

/// At nine, everybody looks: at the last days, or at some hours of them.
fn herds(begin: Timestamp, days: u32) -> Vec<Ask> {
    let mut rng = fastrand::Rng::with_seed(200);
    let mut asks = Vec::new();
    for day in each_day(begin, days) {
        let when = day + HOUR * 9 + LATE;
        for _ in 0..200 {
            let back = DAY * rng.u32(1..=7);
            asks.push(match rng.u8(..4) {
                0 => Ask::days(when, when - DAY, 1),
                1 => Ask::days(when, when - back, 1),
                2 => Ask::seconds(when, when - back, when),
                _ => {
                    let hour = day - back + HOUR * rng.u32(..24);
                    Ask::seconds(when, hour, hour + HOUR)
                }
            });
        }
    }
    asks
}
