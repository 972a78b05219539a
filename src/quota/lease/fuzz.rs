//! Fuzz target of the replies to exchanges.

use std::time::Duration;

use super::sync::{ExchangeReply, ExchangeRequest, GrantRequest, LeaseRequest};
use crate::quota::limiter::MonotonicTime;
use crate::redis_client::Reply;
use crate::replicas::ReplicaId;

/// Calls that the exchange asks for.
const WANTED: u32 = 5;

/// A reply to an exchange. Never grants more than was asked for, and names calls only where they were to be read.
pub(crate) fn exchange_reply(reply: &Reply) {
    for look_back in [None, Some(Duration::from_mins(1))] {
        let me = ReplicaId::parse(b"fedcba9876543210").expect("an identity");
        let request = ExchangeRequest {
            sent: MonotonicTime::from_secs(100),
            me: me.clone(),
            lease: LeaseRequest { duration: Duration::from_secs(1), last_holder: me, may_acquire: true },
            grants: GrantRequest { calls: WANTED, first: 1, latest: Duration::from_secs(10) },
            declares_complete: false,
            look_back,
            retention: Duration::from_hours(1),
            limits: Vec::new(),
            recorded: Vec::new(),
            removed: Vec::new(),
        };
        let Some(read) = ExchangeReply::read(&request, reply) else { continue };
        assert!(read.granted <= WANTED);
        assert_eq!(read.calls.is_some(), look_back.is_some());
        for (_, age) in read.calls.into_iter().flatten() {
            let at = age.before(request.sent);
            assert!(if age.0 > 0 { at < request.sent } else { at >= request.sent }, "{age:?} is {at:?}");
        }
    }
}
