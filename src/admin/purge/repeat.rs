//! Purges that are repeated after a while, because Kore deletes asynchronously and may have returned the data again
//! meanwhile. They are timers of this process and end with it.

use std::sync::{Arc, Weak};
use std::time::Duration;

use tokio::sync::OwnedSemaphorePermit;

use super::PurgeOrder;
use crate::admin::state::{Admin, AdminInner};

impl Admin {
    /// Repeats a purge once, after a while, unless the process has ended by then.
    pub(super) fn repeat(&self, order: PurgeOrder, pause: Duration, permit: OwnedSemaphorePermit) {
        let admin: Weak<AdminInner> = Arc::downgrade(&self.0);
        tokio::spawn(async move {
            tokio::time::sleep(pause).await;
            if let Some(admin) = admin.upgrade().map(Admin) {
                let results = admin.carry_out(&order).await;
                order.log(&format!("{}, repeated", order.requester), &results);
            }
            drop(permit);
        });
    }
}
