//! Whether the upstream refuses the credential of an account, or one stream of the account only. Pure: time is an
//! argument.
//!
//! Kore answers both with the same 401, so other streams tell them apart: if the credential was accepted for another
//! stream lately, the refusal concerns the stream.

use std::collections::HashMap;
use std::sync::Arc;
use std::time::Duration;

use http::StatusCode;

use crate::upstream::UpstreamError;
use crate::window::Timestamp;

/// How long a call that was accepted proves that the credential is valid, unless its stream is refused meanwhile.
const PROOF_LIFETIME: Duration = Duration::from_hours(1);
/// Streams that are remembered; beyond that, the one that was accepted first is forgotten.
const MAX_STREAMS: usize = 64;

/// The streams of an account that the credential was accepted for.
#[derive(Debug, Default)]
pub(super) struct StreamReach(HashMap<Arc<str>, Accepted>);

#[derive(Clone, Copy, Debug)]
struct Accepted {
    last_at: Timestamp,
    /// Whether the stream has been refused since.
    is_refused: bool,
}

impl StreamReach {
    /// Records that a call for `stream` was accepted.
    pub(super) fn accepted(&mut self, stream: &Arc<str>, now: Timestamp) {
        if !self.0.contains_key(stream)
            && self.0.len() >= MAX_STREAMS
            && let Some(first) =
                self.0.iter().min_by_key(|(_, accepted)| accepted.last_at).map(|(name, _)| name.clone())
        {
            self.0.remove(&first);
        }
        self.0.insert(stream.clone(), Accepted { last_at: now, is_refused: false });
    }

    /// Records that a call for `stream` was refused. Returns whether the refusal concerns the stream only: the
    /// credential was accepted for another stream within the last hour, later than for this one.
    pub(super) fn refused(&mut self, stream: &str, now: Timestamp) -> bool {
        let own = self.0.get_mut(stream).map(|own| {
            own.is_refused = true;
            own.last_at
        });
        self.0.values().any(|accepted| {
            // After a credential has lost its validity, the stream that is asked for most is refused first.
            let is_later = own.is_none_or(|own| own < accepted.last_at);
            !accepted.is_refused && is_later && now.since(accepted.last_at) < PROOF_LIFETIME
        })
    }
}

/// Status and message of an answer that may refuse the stream; `None` for all other errors.
pub(super) fn possible_stream_refusal(error: &UpstreamError) -> Option<(StatusCode, Option<&'static str>)> {
    let is_about_token = |message: &str| message.to_ascii_lowercase().contains("jwt");
    match error {
        UpstreamError::Unauthorized { message } if !message.is_some_and(is_about_token) => {
            Some((error.status()?, *message))
        }
        UpstreamError::Status { status, message } if matches!(status.as_u16(), 403 | 404) => Some((*status, *message)),
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::upstream::known_message;

    fn at(seconds: i64) -> Timestamp {
        Timestamp::from_seconds(seconds)
    }

    #[test]
    fn stream_is_refused_only_while_others_are_accepted() {
        let [a, b]: [Arc<str>; 2] = ["a".into(), "b".into()];
        let mut reach = StreamReach::default();
        assert!(!reach.refused("b", at(0)), "nothing is known");
        reach.accepted(&a, at(10));
        assert!(!reach.refused("a", at(11)), "no other stream");
        assert!(!reach.refused("b", at(12)), "the other is refused too");
        reach.accepted(&a, at(20));
        assert!(reach.refused("b", at(21)) && reach.refused("b", at(20 + 3599)));
        assert!(!reach.refused("b", at(20 + 3600)), "too long ago");
        reach.accepted(&b, at(4000));
        assert!(!reach.refused("b", at(4001)), "it was accepted later than the other");
        reach.accepted(&a, at(4002));
        assert!(reach.refused("b", at(4003)));
    }

    #[test]
    fn number_of_streams_is_bounded() {
        let mut reach = StreamReach::default();
        for number in 0..1_000 {
            reach.accepted(&format!("s-{number}").into(), at(number));
        }
        assert_eq!(reach.0.len(), MAX_STREAMS);
        assert!(reach.0.contains_key("s-999") && !reach.0.contains_key("s-0"));
    }

    #[test]
    fn fault_of_the_token_is_not_one_of_the_stream() {
        let unauthorized = |message| UpstreamError::Unauthorized { message: known_message(message) };
        let status = |status: u16| UpstreamError::of_status(status.try_into().unwrap(), None);
        let refusal = |error| possible_stream_refusal(&error).map(|(status, _)| status.as_u16());
        assert_eq!(refusal(unauthorized("Invalid SDK credentials")), Some(401));
        assert_eq!([unauthorized(""), status(403), status(404)].map(refusal), [Some(401), Some(403), Some(404)]);
        for error in [
            unauthorized("Invalid JWT token"),
            unauthorized("error verifying the jwt: possibly a replay"),
            status(405),
            status(500),
            status(412),
            UpstreamError::Timeout,
        ] {
            assert_eq!(possible_stream_refusal(&error), None, "{error}");
        }
    }

    proptest! {
        /// Each step is a second, and a stream that is accepted or refused.
        #[test]
        fn refusal_follows_the_history_of_the_streams(steps in prop::collection::vec((0usize..3, any::<bool>()), 0..60)) {
            let names: [Arc<str>; 3] = ["a".into(), "b".into(), "c".into()];
            let mut reach = StreamReach::default();
            for (now, (stream, is_accepted)) in steps.iter().enumerate() {
                let time = at(i64::try_from(now).unwrap());
                if *is_accepted {
                    reach.accepted(&names[*stream], time);
                    continue;
                }
                // The naive model looks through the history.
                let last = |of: usize| steps[..now].iter().rposition(|step| *step == (of, true));
                let refused_since = |of: usize, since: usize| steps[since..now].contains(&(of, false));
                let expected = (0..3).filter(|other| other != stream).any(|other| {
                    last(other).is_some_and(|at| !refused_since(other, at) && last(*stream).is_none_or(|own| own < at))
                });
                prop_assert_eq!(reach.refused(&names[*stream], time), expected);
            }
        }
    }
}
