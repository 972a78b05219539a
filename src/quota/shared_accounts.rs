//! The accounts whose quotas replicas share, for the tasks that serve all of them.

use std::sync::Weak;

use super::lease::LeaseChannel;
use super::scheduler::CallScheduler;
use crate::live::Live;

/// The accounts whose quotas are shared; a reload changes them. The schedulers are weak, so that tasks end with them.
pub(super) type SharedAccounts = Live<Vec<(LeaseChannel, Weak<CallScheduler>)>>;
