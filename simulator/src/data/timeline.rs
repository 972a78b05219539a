//! Generation of the timeline: the start times of the segments of a UTC day.

use fastrand::Rng;

use super::hash;
use super::item::TimelineItem;
use crate::profile::StreamProfile;

const HOUR_MS: i64 = 3_600_000;
pub(super) const DAY_MS: i64 = 24 * HOUR_MS;

/// The relative load of each hour of a day: high in office hours, low at night.
const HOURLY_LOAD: [u32; 24] =
    [12, 8, 6, 5, 6, 10, 22, 45, 80, 100, 108, 104, 92, 98, 104, 100, 90, 74, 58, 46, 38, 30, 22, 16];

/// The items of one UTC day, ascending. The result depends only on the stream's profile, the seed and the day, not on
/// the end of the timeline.
pub(super) fn generate_day(profile: &StreamProfile, seed: u64, day: i64) -> Vec<TimelineItem> {
    let mut rng = Rng::with_seed(hash(seed ^ 0x6461_7973, day.unsigned_abs()));
    let begin = day * DAY_MS;
    let mut starts: Vec<i64> = Vec::new();
    for _ in 0..draw_count(profile, &mut rng) {
        let at = match (rng.u32(..1_000), starts.last()) {
            // Several items in one millisecond: ties, which reveal that paging by offset depends on the order.
            (..30, Some(last)) => *last,
            // Exactly at the start of an hour: reveals whether an item at the bound of two windows is returned once.
            (30..38, _) => begin + draw_hour(profile, &mut rng) * HOUR_MS,
            _ => begin + draw_hour(profile, &mut rng) * HOUR_MS + rng.i64(0..HOUR_MS),
        };
        starts.push(at);
    }
    // On one day in three, an item at midnight exactly.
    if let Some(first) = starts.first_mut().filter(|_| rng.u8(..3) == 0) {
        *first = begin;
    }
    starts.sort_unstable();
    let upper = day.unsigned_abs() << 32;
    starts.into_iter().zip(0u64..).map(|(start, number)| TimelineItem { start, key: upper | number }).collect()
}

/// Draws the number of items of a day.
fn draw_count(profile: &StreamProfile, rng: &mut Rng) -> u32 {
    let mean = profile.items_per_day;
    if profile.exact { mean } else { mean - mean / 10 + rng.u32(..=mean / 5) }
}

/// Draws the hour in which an item starts.
fn draw_hour(profile: &StreamProfile, rng: &mut Rng) -> i64 {
    if profile.flat {
        return rng.i64(0..24);
    }
    let mut draw = rng.u32(..HOURLY_LOAD.iter().sum::<u32>());
    let mut hour = 0;
    for load in HOURLY_LOAD {
        if draw < load {
            break;
        }
        draw -= load;
        hour += 1;
    }
    hour
}
