//! The reload of the stages: what can fail is prepared first, and then everything is replaced, which cannot fail. ADR 53
//! has the reasons.

use super::Stack;
use crate::api::ApiLayer;
use crate::config::Config;
use crate::environment::Environment;
use crate::token::TokenLayer;
use crate::upstream::Client;

/// The stages whose settings a reload changes, beside the shared state.
#[derive(Clone)]
pub(super) struct StageSettings {
    pub(super) api: ApiLayer,
    pub(super) tokens: TokenLayer,
    pub(super) upstream: Client,
}

/// The parts of a reload that can fail.
pub struct PreparedReload {
    /// With the certificate authorities and the proxy of the new configuration.
    upstream: Client,
}

impl PreparedReload {
    /// Reads the files that `config` names.
    ///
    /// # Errors
    /// If the trust anchors for the upstream cannot be loaded.
    pub fn new(config: &Config, environment: &Environment) -> anyhow::Result<Self> {
        let Environment { clock, network, .. } = environment;
        Ok(Self { upstream: Client::new(&config.upstream, clock, network)? })
    }
}

impl Stack {
    /// Replaces what `config` may change, from the upstream to the edge, so that a new caller is admitted when what it may
    /// ask for is there. The keys that need a restart must have their old values in `config`.
    pub fn reload(&self, config: &Config, prepared: &PreparedReload) {
        let Config { server, accounts, quota, upstream, callers, .. } = config;
        let handles = &self.handles;
        self.settings.upstream.connect_as(&prepared.upstream);
        self.settings.tokens.configure(accounts);
        handles.quotas.configure(accounts, callers, quota);
        handles.run_limiters.add_accounts(accounts, upstream.max_concurrency);
        handles.series_settings.replace(&config.window, accounts);
        handles.cache.set_accounts(handles.quotas.all().map(|(account, _)| account).collect());
        handles.usage.configure(callers, accounts);
        self.settings.api.configure(accounts, quota.max_wait);
        handles.callers.configure(callers, &server.hosts);
    }
}
