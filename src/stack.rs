//! The path of a request through the stages, from the listener to Kore.

use anyhow::Context as _;
use tower::ServiceBuilder;

use crate::api::{ApiLayer, ApiStage, RequestMemory, ResponseCache, Usage};
use crate::cache::{CacheLayer, CacheStage, Memory, Purges, WindowFields};
use crate::clock::Clock;
use crate::config::Config;
use crate::edge::{Callers, DrainTimeout, EdgeLayer, EdgeStage};
use crate::paging::{PagingLayer, RunBounds, RunLimiters};
use crate::quota::{QuotaLayer, QuotaManager};
use crate::redis_client::RedisClient;
use crate::replicas::{Cipher, Mailbox};
use crate::retry::RetryLayer;
use crate::token::TokenLayer;
use crate::upstream::Client;

/// The service of the data plane. Never fails: every failure is an answer.
pub type GatewayService = EdgeStage<ApiStage<CacheStage>>;

/// The stages, and the handles that the admin plane and the server need.
#[derive(Clone)]
pub struct Stack {
    /// The outermost stage.
    pub service: GatewayService,
    /// The schedulers and ledgers of all accounts.
    pub quotas: QuotaManager,
    /// The memory tier of the cache.
    pub memory: Memory,
    /// The state of each account's `window.field` check.
    pub fields: WindowFields,
    /// Purges, for the admin API.
    pub purges: Purges,
    /// Messages to other replicas; `None` without Redis.
    pub post: Option<Mailbox>,
    /// Ready answers of repeated requests.
    pub answers: ResponseCache,
    /// Usage counts of each caller.
    pub usage: Usage,
    /// The callers' keys and limits.
    pub callers: Callers,
    /// Memory budget of request heads and bodies.
    pub request_memory: RequestMemory,
    /// Notified when a drain has exceeded its timeout.
    pub drain_timeout: DrainTimeout,
}

impl Stack {
    /// Builds the stages in the order in which a request passes them.
    ///
    /// # Errors
    /// If the trust anchors for the upstream cannot be loaded, or the state file of the quota cannot be used.
    pub fn new(config: &Config, clock: &Clock) -> anyhow::Result<Self> {
        let post = match &config.cache.redis {
            Some(redis) => {
                let cipher = Cipher::new(redis.encryption_key.iter().chain(&redis.previous_encryption_key));
                let cipher = cipher.context("no key can be derived from cache.redis.encryption_key")?;
                Some(Mailbox::new(RedisClient::new(redis)?, &redis.prefix, cipher))
            }
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
            // Authenticates the caller, applies its limit, and turns every failure into a response.
            .layer(edge)
            // Parses Kore's path and parameters into a window; writes a window as Kore's answer, of any size.
            .layer(api)
            // Serves chunks from memory, then Redis; fetches only missing runs, once for all requests that need them.
            .layer(cache)
            // Fetches a bounded run in pages of 100 items until it is complete and verified, or fails.
            .layer(PagingLayer::new(&config.window, &limiters, clock).bounded(RunBounds::beside(config.cache.memory)))
            // Repeats calls that may succeed when repeated; above the quota, so that each attempt is counted.
            .layer(RetryLayer)
            // Waits for a permit of the account's scheduler: no rolling limit is ever exceeded.
            .layer(QuotaLayer(quotas.clone()))
            // Puts a valid JWT into `auth`.
            .layer(TokenLayer::new(&config.accounts, clock))
            // Makes one call to Kore, within its deadline.
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
