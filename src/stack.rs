//! The way of a request, from the socket to Kore.

use tower::ServiceBuilder;

use crate::api::{ApiLayer, ApiStage, RequestMemory, ResponseCache, Usage};
use crate::cache::{CacheLayer, CacheStage, Memory, Purges, WindowFields};
use crate::clock::Clock;
use crate::config::Config;
use crate::edge::{Callers, DrainTimeout, EdgeLayer, EdgeStage};
use crate::paging::{PagingLayer, RunBounds, RunLimiters};
use crate::quota::{QuotaLayer, QuotaManager};
use crate::redis_client::{Mailbox, RedisClient};
use crate::retry::RetryLayer;
use crate::token::TokenLayer;
use crate::upstream::Client;

/// Answers requests; never fails, for every failure is an answer.
pub type GatewayService = EdgeStage<ApiStage<CacheStage>>;

/// The stages, and what of them the admin plane looks at.
#[derive(Clone)]
pub struct Stack {
    /// The way in.
    pub service: GatewayService,
    /// The ledgers of all accounts.
    pub quotas: QuotaManager,
    /// The memory tier.
    pub memory: Memory,
    /// The accounts whose windows cannot be cut.
    pub fields: WindowFields,
    /// The hand that purges.
    pub purges: Purges,
    /// The way to the other replicas.
    pub post: Option<Mailbox>,
    /// Answers that are given again and again.
    pub answers: ResponseCache,
    /// What each caller had.
    pub usage: Usage,
    /// How the callers' own limits stand.
    pub callers: Callers,
    /// What large heads and bodies take their room of.
    pub request_memory: RequestMemory,
    /// To be told when a drain has taken too long.
    pub drain_timeout: DrainTimeout,
}

impl Stack {
    /// Builds the stages in the order in which a request meets them.
    ///
    /// # Errors
    /// If the trust anchors for the upstream cannot be loaded, or the state file of the quota cannot be used.
    pub fn new(config: &Config, clock: &Clock) -> anyhow::Result<Self> {
        let post = match &config.cache.redis {
            Some(redis) => Some(Mailbox::new(RedisClient::new(redis)?, &redis.prefix)),
            None => None,
        };
        let quotas = {
            let upstream = &config.upstream;
            let own =
                QuotaManager::new(&config.accounts, &config.quota, upstream.max_concurrency, upstream.timeout, clock)?;
            match (&post, &config.cache.redis) {
                (Some(post), Some(redis)) => own.with_replicas(post, redis.replicas, upstream.timeout),
                _ => own,
            }
        };
        let limiters = RunLimiters::new(&config.accounts, config.upstream.max_concurrency);
        let (cache, redis) = (&config.cache, post.as_ref());
        let cache = CacheLayer::new(cache, redis, &config.window, &config.quota, &quotas, &limiters, clock);
        let (memory, fields, purges) = (cache.memory().clone(), cache.fields().clone(), cache.purges().clone());
        let (accounts, callers, limits) = (&config.accounts, &config.callers, config.server.limits);
        let request_memory = RequestMemory::new(limits.request_memory);
        let api = ApiLayer::new(accounts, callers, &config.window, &config.cache, &quotas, &request_memory, clock);
        let edge = EdgeLayer::new(callers, &config.server.hosts, limits.max_requests, clock.clone());
        let (answers, usage, callers) = (api.answers().clone(), api.usage().clone(), edge.callers().clone());
        let drain_timeout = edge.drain_timeout().clone();

        let service = ServiceBuilder::new()
            // Names the request, lets in who may call, and turns every failure into a response.
            .layer(edge)
            // From Kore's path and parameters to a window; from a window to Kore's answer, of any size.
            .layer(api)
            // Serves chunks from memory, then Redis; asks below only for the missing runs, once for all who wait.
            .layer(cache)
            // Fetches a bounded run, in pages of 100, until it is whole, or fails.
            .layer(PagingLayer::new(&config.window, &limiters, clock).bounded(RunBounds::beside(config.cache.memory)))
            // Tries again what a second attempt can mend; above the quota, so that each attempt takes a turn.
            .layer(RetryLayer)
            // Waits for the account's turn: no rolling limit is ever passed.
            .layer(QuotaLayer(quotas.clone()))
            // A fresh JWT in `auth`.
            .layer(TokenLayer::new(&config.accounts, clock))
            // One call to Kore, within its deadline.
            .service(Client::new(&config.upstream, clock.clone())?);

        Ok(Self {
            service,
            quotas,
            memory,
            fields,
            purges,
            post,
            answers,
            usage,
            callers,
            request_memory,
            drain_timeout,
        })
    }
}
