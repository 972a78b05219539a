//! The memory suite: attacks on a gateway process, whose memory must stay bounded and whose liveness must not suffer.

mod connections;
mod monitored_gateway;
mod readers;
mod series;
mod upstreams;
