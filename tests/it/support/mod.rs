//! What every test needs: a simulator and a gateway that stand, a client that asks, and answers that can be compared.

pub(crate) mod attack;
mod client;
mod redis;
mod rig;
mod settings;
mod time;
mod window;
mod wire;

pub(crate) use self::redis::{RedisCluster, RedisServer, Sentinels, free_port, text, wait_for};
pub(crate) use client::{Answer, Ask, Client, Page, head_and_body, read_to_end, send_raw};
pub(crate) use rig::{Door, Rig};
pub(crate) use settings::Settings;
pub(crate) use time::{DAY, HOUR, NOW, at, spelled};
pub(crate) use window::{Window, assert_items, check_pages, check_pages_against};
pub(crate) use wire::{Answers, exchange, first_answer};

use std::time::{Duration, Instant};

use koregate_simulator::{Profile, StreamProfile};

/// The account of the simulator's default profile.
pub(crate) const ACCOUNT: &str = "664b33a620bd0892e0000001";
/// The stream that [`profile`] has.
pub(crate) const STREAM: &str = "st-test";

/// A simulator with `days` UTC days of one stream, up to the end of the day of "now".
pub(crate) fn profile(items_per_day: u32, days: u32) -> Profile {
    Profile { streams: vec![StreamProfile::new(STREAM, items_per_day)], days, ..Profile::default() }
}

/// The same, with exactly so many items on each day.
pub(crate) fn exact_profile(items_per_day: u32, days: u32) -> Profile {
    let stream = StreamProfile { exact: true, ..StreamProfile::new(STREAM, items_per_day) };
    Profile { streams: vec![stream], days, ..Profile::default() }
}

/// Waits until `condition` holds, letting all else run: for what another task is about to do.
pub(crate) async fn until(what: &str, mut condition: impl FnMut() -> bool) {
    let begun = Instant::now();
    while !condition() {
        assert!(begun.elapsed() < Duration::from_secs(30), "waited in vain: {what}");
        tokio::task::yield_now().await;
    }
}
