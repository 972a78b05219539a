//! Which requests have a trace that is recorded. Pure.

use super::context::TraceId;
use crate::config::TraceSampling;

/// Number of trace ids of 63 bits.
const ALL: f64 = 9_223_372_036_854_775_808.0;

/// Decides whether a trace is recorded, once for each trace that begins here.
#[derive(Clone, Copy, Debug)]
pub(super) struct Sampler {
    /// Trace ids below this, of 63 bits, are recorded.
    below: u64,
    follows_parent: bool,
}

impl Sampler {
    pub(super) fn new(TraceSampling { ratio, follows_parent }: TraceSampling) -> Self {
        #[expect(clippy::cast_possible_truncation, clippy::cast_sign_loss, reason = "an `as` saturates")]
        let below = (ratio * ALL) as u64;
        Self { below, follows_parent }
    }

    /// Whether a trace is recorded. `parent`: whether the caller records it. All services that apply the same ratio
    /// choose the same traces, because the trace id decides (`TraceIdRatioBased` of OpenTelemetry).
    pub(super) fn is_sampled(self, trace: TraceId, parent: Option<bool>) -> bool {
        let by_ratio = || {
            let low = u128::from_be_bytes(trace.0) & u128::from(u64::MAX);
            low >> 1 < u128::from(self.below)
        };
        parent.filter(|_| self.follows_parent).unwrap_or_else(by_ratio)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn sampler(ratio: f64, follows_parent: bool) -> Sampler {
        Sampler::new(TraceSampling { ratio, follows_parent })
    }

    #[test]
    fn parent_decides_if_it_is_followed() {
        let trace = TraceId([0xff; 16]);
        for (ratio, follows_parent, parent, expected) in [
            (0.0, true, Some(true), true),
            (1.0, true, Some(false), false),
            (0.0, true, None, false),
            (1.0, true, None, true),
            (0.0, false, Some(true), false),
            (1.0, false, Some(false), true),
        ] {
            assert_eq!(sampler(ratio, follows_parent).is_sampled(trace, parent), expected, "{ratio} {parent:?}");
        }
    }

    #[test]
    fn ratio_of_all_traces_is_recorded() {
        let traces = (0..10_000_u64).map(|number| number.wrapping_mul(0x9e37_79b9_7f4a_7c15));
        let id = |low: u64| TraceId(u128::from(low).to_be_bytes());
        let recorded = traces.filter(|low| sampler(0.25, true).is_sampled(id(*low), None)).count();
        assert!((2400..2600).contains(&recorded), "{recorded}");
    }
}
