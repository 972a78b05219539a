//! Overwrites what was purged on disk in the background, and again until that succeeds.

use std::sync::{Arc, Weak};
use std::time::Duration;

use tokio::sync::mpsc;
use tokio::time::sleep;

use super::purges::{Purges, PurgesInner};
use crate::telemetry;

/// Pause after a sweep that failed.
const RETRY_INTERVAL: Duration = Duration::from_secs(30);

impl Purges {
    /// Has the disk swept by the task that does so for all purges.
    pub(super) fn start_disk_sweep(&self) {
        let sender = self.0.disk_sweeps.get_or_init(|| {
            let (sender, receiver) = mpsc::channel(1);
            tokio::spawn(run(Arc::downgrade(&self.0), receiver));
            sender
        });
        // If one waits already, it sweeps for this purge too.
        let _ = sender.try_send(());
    }
}

/// Sweeps as often as it is asked to, until the cache is dropped.
async fn run(purges: Weak<PurgesInner>, mut requests: mpsc::Receiver<()>) {
    while requests.recv().await.is_some() {
        while let Some(purges) = purges.upgrade().map(Purges) {
            let Some(Err(error)) = purges.sweep_disk().await else { break };
            drop(purges);
            telemetry::disk_failed("erase", &error);
            sleep(RETRY_INTERVAL).await;
        }
    }
}
