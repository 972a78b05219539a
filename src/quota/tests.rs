//! Tests of the schedulers of all accounts.

use std::sync::atomic::{AtomicU64, Ordering};

use super::*;
use crate::config::{
    AccountConfig, JtiMode, NamePatterns, QuotaConfig, QuotaLimit, TokenConfig, TokenScheme, WindowOverrides,
};
use crate::request::{Requester, RunWaiters};

fn account(id: &str, requests: u32) -> AccountConfig {
    let token = TokenConfig {
        lifetime: Duration::from_hours(1),
        refresh_ahead: Duration::ZERO,
        scheme: TokenScheme::Bare,
        jti: JtiMode::Off,
    };
    AccountConfig {
        account_id: id.into(),
        client_id: "c".to_owned(),
        client_secret: "s".into(),
        streams: NamePatterns::All,
        token,
        limits: vec![QuotaLimit { requests, per: Duration::from_mins(1) }],
        window: WindowOverrides::default(),
        stream_settings: Vec::new(),
    }
}

#[tokio::test(start_paused = true)]
async fn reload_adds_changes_and_removes_accounts() {
    let (queue_timeout, max_wait) = (Duration::from_secs(30), Duration::from_mins(5));
    let quota = QuotaConfig { queue_timeout, max_wait, interactive_reserve: 0.0, state_file: None };
    let accounts = [account("stays", 5), account("goes", 5)];
    let quotas = QuotaManager::new(&accounts, &quota, 8, Duration::from_secs(30), &Environment::default()).unwrap();
    let waiters = RunWaiters::new(Requester::anyone());
    let stays = quotas.scheduler("stays").unwrap();
    for scheduler in [&stays, &quotas.scheduler("goes").unwrap()] {
        scheduler.acquire(&waiters).await.unwrap().answered(None);
    }

    quotas.configure(&[account("stays", 2), account("comes", 7)], &[], &quota);
    let limits = |account: &str| {
        let usage = quotas.scheduler(account)?.limit_usage();
        Some(usage.iter().map(|usage| (usage.limit.requests, usage.remaining)).collect::<Vec<_>>())
    };
    assert_eq!(limits("stays"), Some(vec![(2, 1)]), "its call counts");
    assert_eq!(limits("comes"), Some(vec![(7, 7)]));
    let configured = |account: &str| quotas.iter().any(|(configured, _)| *configured == *account);
    assert_eq!(["stays", "comes", "goes"].map(configured), [true, true, false]);
    quotas.configure(&[account("stays", 2), account("goes", 3)], &[], &quota);
    assert_eq!(limits("goes"), Some(vec![(3, 2)]), "its call from before counts");
    assert_eq!(["stays", "comes", "goes"].map(configured), [true, false, true]);
    assert!(Arc::ptr_eq(&stays, &quotas.scheduler("stays").unwrap()));
}

#[tokio::test(start_paused = true)]
async fn state_file_keeps_calls_for_a_longer_limit_after_reload() {
    let (folder, uptime) = (tempfile::tempdir().unwrap(), Arc::new(AtomicU64::new(3_600_000)));
    let environment = Environment { uptime: Some(uptime.clone()), ..Environment::default() };
    let (queue_timeout, max_wait) = (Duration::from_secs(30), Duration::from_mins(5));
    let state_file = Some(folder.path().join("quota.state"));
    let quota = QuotaConfig { queue_timeout, max_wait, interactive_reserve: 0.0, state_file };
    let open = |accounts: &[AccountConfig]| {
        QuotaManager::new(accounts, &quota, 8, Duration::from_secs(30), &environment).unwrap()
    };
    let call = async |quotas: &QuotaManager, account: &str| {
        let waiters = RunWaiters::new(Requester::anyone());
        quotas.scheduler(account).unwrap().acquire(&waiters).await.unwrap().answered(None);
    };
    let hourly =
        AccountConfig { limits: vec![QuotaLimit { requests: 5, per: Duration::from_hours(1) }], ..account("a", 5) };

    let quotas = open(&[account("a", 5)]);
    call(&quotas, "a").await;
    quotas.configure(&[hourly.clone(), account("b", 5)], &[], &quota);
    for _ in 0..2 {
        uptime.fetch_add(600_000, Ordering::Relaxed);
        call(&quotas, "a").await;
        call(&quotas, "b").await;
    }
    drop(quotas);
    let usage = open(&[hourly]).scheduler("a").unwrap().limit_usage();
    assert_eq!(usage[0].remaining, 2, "the line of no call was used for another");
}
