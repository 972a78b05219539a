//! When things happen: the starts of the segments of one UTC day.

use fastrand::Rng;

use super::item::Item;
use super::mix;
use crate::simulator::profile::StreamProfile;

const HOUR_MS: i64 = 3_600_000;
pub(super) const DAY_MS: i64 = 24 * HOUR_MS;

/// The load of each hour of a day, relative to the others: busy at office hours, quiet at night.
const CURVE: [u32; 24] =
    [12, 8, 6, 5, 6, 10, 22, 45, 80, 100, 108, 104, 92, 98, 104, 100, 90, 74, 58, 46, 38, 30, 22, 16];

/// The items of one UTC day, ascending. They depend on the seed and the day alone, not on where the timeline ends.
pub(super) fn day(profile: &StreamProfile, seed: u64, day: i64) -> Vec<Item> {
    let mut rng = Rng::with_seed(mix(seed ^ 0x6461_7973, day.unsigned_abs()));
    let begin = day * DAY_MS;
    let mut starts: Vec<i64> = Vec::new();
    for _ in 0..count(profile, &mut rng) {
        let at = match (rng.u32(..1_000), starts.last()) {
            // Several in one millisecond: what makes offset paging tear.
            (..30, Some(last)) => *last,
            // On the bound of an hour exactly: what shows whether bounds are counted once.
            (30..38, _) => begin + hour(profile, &mut rng) * HOUR_MS,
            _ => begin + hour(profile, &mut rng) * HOUR_MS + rng.i64(0..HOUR_MS),
        };
        starts.push(at);
    }
    // On midnight now and then.
    if let Some(first) = starts.first_mut().filter(|_| rng.u8(..3) == 0) {
        *first = begin;
    }
    starts.sort_unstable();
    let upper = day.unsigned_abs() << 32;
    starts.into_iter().zip(0u64..).map(|(start, place)| Item { start, key: upper | place }).collect()
}

fn count(profile: &StreamProfile, rng: &mut Rng) -> u32 {
    let mean = profile.items_per_day;
    if profile.exact { mean } else { mean - mean / 10 + rng.u32(..=mean / 5) }
}

fn hour(profile: &StreamProfile, rng: &mut Rng) -> i64 {
    if profile.flat {
        return rng.i64(0..24);
    }
    let mut draw = rng.u32(..CURVE.iter().sum::<u32>());
    let mut hour = 0;
    for load in CURVE {
        if draw < load {
            break;
        }
        draw -= load;
        hour += 1;
    }
    hour
}
