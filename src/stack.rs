//! The path of a request through the stages, from the listener to Kore.

mod handles;
mod preflight;
mod reload;

use tower::ServiceBuilder;

use crate::api::{ApiLayer, ApiStage};
use crate::cache::{CacheLayer, CacheStage};
use crate::config::Config;
use crate::edge::{EdgeLayer, EdgeStage};
use crate::environment::Environment;
use crate::jobs::{JobsLayer, JobsStage};
use crate::paging::{PagingLayer, RunBounds};
use crate::quota::QuotaLayer;
use crate::retry::RetryLayer;
use crate::token::TokenLayer;
use crate::upstream::{Client, HealthLayer};

pub use self::handles::{Handles, open_quotas};
pub use self::preflight::preflight;
pub use self::reload::PreparedReload;

use self::reload::StageSettings;

/// The service of the data plane. Never fails: every failure is an answer.
pub type GatewayService = EdgeStage<ApiStage<JobsStage<CacheStage>>>;

/// The stages, and the state that the admin plane and the server share with them.
#[derive(Clone)]
pub struct Stack {
    /// The outermost stage.
    pub service: GatewayService,
    /// The shared state.
    pub handles: Handles,
    /// The parts of stages that a reload changes, beside the shared state.
    settings: StageSettings,
}

impl Stack {
    /// Builds the stages in the order in which a request passes them.
    ///
    /// # Errors
    /// If the trust anchors for the upstream cannot be loaded, or the shared state cannot be built (see
    /// [`Handles::new`]).
    pub fn new(config: &Config, environment: &Environment) -> anyhow::Result<Self> {
        let Config { server, accounts, quota, cache, .. } = config;
        let clock = &environment.clock;
        let handles = Handles::new(config, environment)?;
        let Handles { callers, ends, usage, response_cache, request_memory, run_limiters, quotas, .. } = &handles;
        let settings = &handles.series_settings;

        let api = ApiLayer::new(accounts, settings, quotas, usage, response_cache, request_memory, clock)
            .with_max_wait(quota.max_wait, config.jobs);
        let tokens = TokenLayer::new(accounts, clock);
        let upstream = Client::new(&config.upstream, clock, &environment.network)?;

        let service = ServiceBuilder::new()
            // Authenticates the caller, applies its limit, and turns every failure into a response.
            .layer(EdgeLayer::new(server.limits.max_requests, callers, ends).observed(&handles.tracer, &handles.audit))
            // Parses Kore's path and parameters into a window; writes a window as Kore's answer, of any size.
            .layer(api.clone())
            // Fetches windows for callers that do not wait, and tells how far they are.
            .layer(JobsLayer(handles.jobs.clone()))
            // Serves chunks from memory, disk or Redis; fetches only missing runs, once for all that need them.
            .layer(CacheLayer::new(&handles.cache, settings, quota, quotas, run_limiters, clock))
            // Fetches a bounded run in pages of 100 items until it is complete and verified, or fails.
            .layer(PagingLayer::new(settings, run_limiters, clock).bounded(RunBounds::beside(cache.memory)))
            // Repeats calls that may succeed when repeated; above the quota, so that each attempt is counted.
            .layer(RetryLayer)
            // Waits for a permit of the account's scheduler: no rolling limit is ever exceeded.
            .layer(QuotaLayer(quotas.clone()))
            // Puts a valid JWT into `auth`.
            .layer(tokens.clone())
            // Records how calls end, for the status page.
            .layer(HealthLayer { health: handles.upstream_health.clone(), clock: clock.clone() })
            // Makes one call to Kore, within its deadline.
            .service(upstream.clone());

        let settings = StageSettings { api, tokens, upstream };
        Ok(Self { service, handles, settings })
    }
}
