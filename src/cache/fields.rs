//! Which accounts turned out to have a wrong `window.field`.

use std::collections::BTreeSet;
use std::sync::{Arc, Mutex, PoisonError};

use crate::telemetry;

/// The accounts whose items do not lie where they were asked for. Cheap to clone; all clones see the same.
///
/// An account stays here until the process ends: nothing but a change of the configuration can mend it.
#[derive(Clone, Debug, Default)]
pub struct WindowFields(Arc<Mutex<BTreeSet<Arc<str>>>>);

impl WindowFields {
    /// Whether windows of this account must not be cut.
    pub fn is_wrong(&self, account: &str) -> bool {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).contains(account)
    }

    /// The accounts with a wrong field.
    pub fn wrong(&self) -> Vec<Arc<str>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).iter().cloned().collect()
    }

    /// Remembers that an account's field is wrong; true if that is news.
    pub(super) fn found_wrong(&self, account: &Arc<str>) -> bool {
        let news = self.0.lock().unwrap_or_else(PoisonError::into_inner).insert(account.clone());
        if news {
            telemetry::window_field_wrong(account);
        }
        news
    }
}
