//! Events of the disk tier.

use std::fmt::Display;
use std::sync::{Mutex, PoisonError};
use std::time::Instant;

use metrics::{counter, gauge};

use super::log_sampler::LogSampler;

/// A chunk was read from disk, or could not be.
pub fn disk_read(result: &'static str) {
    counter!("koregate_disk_reads_total", "result" => result).increment(1);
}

/// A chunk was written to disk, or could not be.
pub fn disk_write(result: &'static str) {
    counter!("koregate_disk_writes_total", "result" => result).increment(1);
}

/// The state of the disk tier has changed: whether it reads and writes, and why not.
pub fn disk_state(is_working: bool, problem: Option<&str>) {
    gauge!("koregate_disk_up").set(if is_working { 1.0 } else { 0.0 });
    match problem {
        Some(problem) => tracing::warn!(problem, "the disk tier does not work: koregate goes on without it"),
        None if is_working => tracing::info!("the disk tier works"),
        None => {}
    }
}

/// An operation on the disk failed.
pub fn disk_failed(operation: &'static str, error: &dyn Display) {
    static SAMPLER: Mutex<LogSampler> = Mutex::new(LogSampler::new());
    let admitted = SAMPLER.lock().unwrap_or_else(PoisonError::into_inner).admit(Instant::now());
    if let Some(suppressed) = admitted {
        tracing::warn!(operation, %error, suppressed, "the disk fails");
    }
}
