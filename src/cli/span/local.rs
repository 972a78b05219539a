//! The stages in this process, without listeners, and when they may make calls: only where their calls are counted
//! together with those of a running gateway.

use std::path::Path;
use std::time::Duration;

use super::failure::Failure;
use crate::clock::Clock;
use crate::config::{AuditTarget, Config, process_environment};
use crate::quota::StateFileError;
use crate::stack::{GatewayService, Handles, Stack};

/// The longest that returning the lease may take.
const LEAVE_TIMEOUT: Duration = Duration::from_secs(2);

/// The stages, and the state that they share.
pub(super) struct Local {
    pub(super) service: GatewayService,
    handles: Handles,
    /// Whether the cache outlives the process: in Redis or on disk.
    pub(super) has_lasting_cache: bool,
}

impl Local {
    /// Builds the stages of a configuration: that of `file`, or of the environment alone.
    ///
    /// # Errors
    /// [`Failure::Usage`] if the configuration is at fault; if it has neither Redis nor `quota.state_file`; or if another
    /// process has locked the state file. [`Failure::Failed`] if the stages cannot be built.
    pub(super) fn start(file: Option<&Path>) -> Result<Self, Failure> {
        let config =
            Config::load(file, process_environment()).map_err(|error| Failure::Usage(format!("{error}\n{USE_URL}")))?;
        let config = without_callers(config)?;
        let stack = Stack::new(&config, &Clock::system().into()).map_err(|error| match error.downcast_ref() {
            Some(StateFileError::InUse(path)) => Failure::Usage(format!(
                "{}: a running koregate uses this state file, and has the quota. {USE_URL}",
                path.display()
            )),
            _ => Failure::Failed(format!("{error:#}")),
        })?;
        let Stack { service, handles, .. } = stack;
        // Jobs of gateways need their upstream calls, and this process ends soon.
        handles.jobs.leave_to_others();
        let has_lasting_cache = config.cache.redis.is_some() || config.cache.disk.is_some();
        Ok(Self { service, handles, has_lasting_cache })
    }

    /// Returns the lease, so that another replica takes it over at once, and writes out traces, the audit log and what
    /// was cached.
    pub(super) async fn leave(&self) {
        let _ = tokio::time::timeout(LEAVE_TIMEOUT, self.handles.quotas.leave()).await;
        self.handles.flush().await;
    }
}

/// Advice for a command that cannot call Kore from its own process.
pub(in crate::cli) const USE_URL: &str = "To ask a running gateway, use --url (with the API key in KOREGATE_API_KEY)";

/// The configuration of stages that only this process asks.
///
/// # Errors
/// If the calls of this process would not be counted together with those of a running gateway.
fn without_callers(mut config: Config) -> Result<Config, Failure> {
    if config.cache.redis.is_none() && config.quota.state_file.is_none() {
        return Err(Failure::Usage(format!(
            "without Redis (cache.redis) and without quota.state_file, calls of this process and of a running gateway \
             would together exceed the quota. {USE_URL}"
        )));
    }
    if config.cache.redis.is_some() {
        // A gateway beside this process uses the directory.
        config.cache.disk = None;
    }
    if config.log.audit == Some(AuditTarget::Stdout) {
        // The standard output is that of the command.
        config.log.audit = None;
    }
    config.callers.clear();
    config.server.hosts.clear();
    Ok(config)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn config(more: &[(&str, &str)]) -> Config {
        let account = [("KORE_HOST", "http://127.0.0.1:1"), ("KORE_ACCOUNT_ID", "a"), ("KORE_CLIENT_ID", "c")];
        let all = account.iter().chain(&[("KORE_CLIENT_SECRET", "s")]).chain(more);
        Config::load(None, all.map(|(name, value)| ((*name).to_owned(), (*value).to_owned()))).unwrap()
    }

    #[test]
    fn calls_are_made_only_where_they_are_counted() {
        let Err(Failure::Usage(message)) = without_callers(config(&[])) else { panic!("not refused") };
        assert!(message.contains("--url"), "{message}");
        let own = [("KOREGATE__QUOTA__STATE_FILE", "/tmp/state"), ("KOREGATE__LOG__AUDIT", "stdout")];
        assert_eq!(without_callers(config(&own)).ok().unwrap().log.audit, None);
        assert!(without_callers(config(&[("KOREGATE__CACHE__REDIS__URL", "redis://127.0.0.1:1")])).is_ok());
    }
}
