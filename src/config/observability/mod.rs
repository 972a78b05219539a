//! `[log]` and `[traces]`: what a gateway tells of its requests, and where.

mod audit;
mod traces;
pub(super) mod types;

pub(super) use self::audit::log;
pub(super) use self::traces::traces;
