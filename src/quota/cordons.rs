//! Cordons: accounts and streams for which an operator has stopped the upstream calls, while what is cached is served.
//! Each replica holds its cordons in memory, so they do not survive a restart.

use std::collections::BTreeSet;
use std::sync::{Arc, PoisonError, RwLock};

use super::QuotaError;
use crate::request::Series;

/// An account, or one of its streams.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Cordon {
    /// Kore's `accountId`.
    pub account: Arc<str>,
    /// Kore's `streamId`; `None` for all streams of the account.
    pub stream: Option<Arc<str>>,
}

/// The cordons of this replica. Cheap to clone; all clones share them.
#[derive(Clone, Debug, Default)]
pub struct Cordons(Arc<RwLock<BTreeSet<Cordon>>>);

/// Maximum cordons of single streams and accounts.
const MAX_CORDONS: usize = 10_000;

impl Cordons {
    /// Adds a cordon. Returns `false` if there are too many.
    pub fn add(&self, cordon: Cordon) -> bool {
        let mut cordons = self.0.write().unwrap_or_else(PoisonError::into_inner);
        if cordons.len() >= MAX_CORDONS && !cordons.contains(&cordon) {
            return false;
        }
        cordons.insert(cordon);
        true
    }

    /// Removes a cordon; without a stream, also those of all streams of the account.
    pub fn remove(&self, cordon: &Cordon) {
        let mut cordons = self.0.write().unwrap_or_else(PoisonError::into_inner);
        cordons.retain(|other| {
            other.account != cordon.account || (cordon.stream.is_some() && other.stream != cordon.stream)
        });
    }

    /// All cordons, in order.
    pub fn all(&self) -> Vec<Cordon> {
        self.0.read().unwrap_or_else(PoisonError::into_inner).iter().cloned().collect()
    }

    /// Checks that calls may be made for a series.
    ///
    /// # Errors
    /// [`QuotaError::Cordoned`] if its account or its stream is cordoned.
    pub fn check(&self, series: &Series) -> Result<(), QuotaError> {
        let cordons = self.0.read().unwrap_or_else(PoisonError::into_inner);
        let is_cordoned = !cordons.is_empty()
            && [None, Some(series.stream.clone())]
                .into_iter()
                .any(|stream| cordons.contains(&Cordon { account: series.account.clone(), stream }));
        if is_cordoned { Err(QuotaError::Cordoned) } else { Ok(()) }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::request::Filter;

    #[test]
    fn cordon_covers_its_account_or_its_stream() {
        let cordon =
            |account: &str, stream: Option<&str>| Cordon { account: account.into(), stream: stream.map(Arc::from) };
        let cordons = Cordons::default();
        let open = || {
            let is_open = |account: &str, stream: &str| {
                let (account, stream) = (account.into(), stream.into());
                let series = Series { account, stream, filter: Filter::None, parameters: Vec::new(), agentic: false };
                cordons.check(&series).is_ok()
            };
            [is_open("a", "s"), is_open("a", "t"), is_open("b", "s")]
        };
        assert_eq!(open(), [true; 3]);
        assert!(cordons.add(cordon("a", Some("s"))));
        assert_eq!(open(), [false, true, true]);
        assert!(cordons.add(cordon("a", None)));
        assert_eq!(open(), [false, false, true]);
        cordons.remove(&cordon("a", Some("t")));
        assert_eq!(open(), [false, false, true], "the account is still cordoned");
        cordons.remove(&cordon("a", None));
        assert_eq!((open(), cordons.all()), ([true; 3], Vec::new()));
    }
}
