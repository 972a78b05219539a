//! The memory suite: what an attack takes of a gateway's memory, and whether the gateway lives through it.

mod connections;
mod readers;
mod series;
mod upstreams;
