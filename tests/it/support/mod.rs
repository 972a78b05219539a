//! The harness of all integration tests.
//!
//! | file | provides |
//! | --- | --- |
//! | `harness` | [`TestHarness`]: a simulator behind a gateway; [`GatewayClient`]: one gateway and its client |
//! | `settings` | [`Settings`]: the configuration of a gateway |
//! | `profile` | the simulator's types, and profiles of its data |
//! | `request`, `response`, `open_response` | [`TestRequest`]; [`TestResponse`] and [`OpenResponse`], complete or not |
//! | `http_client`, `raw_http` | a pooling HTTP client; bytes on a socket |
//! | `timestamps`, `window` | the clock, timestamps, windows and the comparison of their items |
//! | `metrics` | [`Metrics`]: values of the Prometheus text |
//! | `wait` | the only place that polls, with a deadline |
//! | `process` | [`KoregateProcess`], [`GatewayProcess`]: the binary as a child process |
//! | `network` | [`Network`]: network namespaces, between which links can be cut |
//! | `proxy` | [`RecordingProxy`]: a proxy between gateway and upstream that can hold calls |
//! | `redis` | real Redis servers: alone, as a Cluster, behind Sentinels; on loopback or in namespaces |
//! | `certificates` | [`CertificateAuthority`]: certificates made for a test |

mod certificates;
mod harness;
mod http_client;
mod metrics;
mod network;
mod open_response;
mod openapi;
mod process;
mod profile;
mod proxy;
mod raw_http;
mod redis;
mod request;
mod response;
mod settings;
mod timestamps;
mod wait;
mod window;

pub(crate) use self::redis::{Place, RedisCluster, RedisSentinels, RedisServer, free_port};
pub(crate) use certificates::CertificateAuthority;
pub(crate) use harness::{GatewayClient, TestHarness};
pub(crate) use http_client::HttpClient;
pub(crate) use metrics::Metrics;
pub(crate) use network::{Lan, Namespace, Network};
pub(crate) use open_response::OpenResponse;
pub(crate) use process::{
    GatewayProcess, KOREGATE_BINARY, KoregateProcess, environment, on_one_core, run_koregate, text,
};
pub(crate) use profile::{
    ACCOUNT, AcceptedScheme, ApiVariant, CallOutcome, Control, Credential, FAULTS, Fault, FaultPlan, ItemFilter,
    OTHER_ACCOUNT, OTHER_STREAM, Profile, RateLimits, RecordedCall, RollingLimit, STREAM, SelectOn, Simulator,
    SortOrder, StreamProfile, TokenRules, channel_filter, exact_profile, exact_stream, other_credential, profile,
    settled_day_items, start_dated_simulator,
};
pub(crate) use proxy::RecordingProxy;
pub(crate) use raw_http::{RawResponses, exchange, first_response, read_to_end, send_raw, split_head};
pub(crate) use request::TestRequest;
pub(crate) use response::{ResponsePage, TestResponse, to_ndjson};
pub(crate) use settings::{Settings, caller_table, key_hash};
pub(crate) use timestamps::{
    Clock, DAY, HOUR, Interval, IntervalSet, NOW, QueryBound, Timestamp, UpperBound, at, format_query_time,
};
pub(crate) use wait::{hold, pause, poll_blocking, until, until_async, until_polled, within_deadline};
pub(crate) use window::{SETTLED_DAY, Window, assert_items, assert_pages, assert_pages_of, pages_of};
