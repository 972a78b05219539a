//! The resolution of settings, compared with a naive one.

use proptest::prelude::*;
use secrecy::SecretString;

use super::*;
use crate::config::{JtiMode, NamePatterns, TokenConfig, TokenScheme};

const NAMES: [&str; 4] = ["a", "b", "c", "d"];

fn window() -> WindowConfig {
    WindowConfig {
        field: "start".into(),
        upper_bound: UpperBound::Inclusive,
        settle_after: Duration::from_hours(24),
        freshness: vec![tier(60)],
        chunk: Duration::from_hours(1),
        max_span: Duration::MAX,
    }
}

fn tier(seconds: u64) -> FreshnessTier {
    FreshnessTier { younger_than: Duration::from_secs(seconds), max_age: Duration::from_secs(seconds) }
}

fn account(name: &str, window: WindowOverrides, streams: Vec<(&str, WindowOverrides)>) -> AccountConfig {
    let stream = |(stream, window): (&str, WindowOverrides)| StreamConfig { stream: stream.into(), window };
    let (lifetime, refresh_ahead) = (Duration::from_hours(1), Duration::from_mins(5));
    AccountConfig {
        account_id: name.into(),
        client_id: "cs-1".to_owned(),
        client_secret: SecretString::from("secret"),
        streams: NamePatterns::All,
        token: TokenConfig { lifetime, refresh_ahead, scheme: TokenScheme::Bare, jti: JtiMode::Off },
        limits: Vec::new(),
        window,
        stream_settings: streams.into_iter().map(stream).collect(),
    }
}

/// What a series has in effect, in a form that can be compared.
type Effective = (Arc<str>, UpperBound, Duration, Vec<FreshnessTier>, Option<Duration>);

/// The naive resolution: of each setting, the first that is set.
fn resolve(levels: &[&WindowOverrides], global: &WindowConfig) -> Effective {
    fn first<T: Clone>(levels: &[&WindowOverrides], get: impl Fn(&WindowOverrides) -> Option<T>) -> Option<T> {
        levels.iter().find_map(|level| get(level))
    }
    (
        first(levels, |level| level.field.clone()).unwrap_or_else(|| global.field.clone()),
        first(levels, |level| level.upper_bound).unwrap_or(global.upper_bound),
        first(levels, |level| level.settle_after).unwrap_or(global.settle_after),
        first(levels, |level| level.freshness.clone()).unwrap_or_else(|| global.freshness.clone()),
        first(levels, |level| level.retention),
    )
}

fn overrides() -> impl Strategy<Value = WindowOverrides> {
    let seconds = || prop::option::of((1u64..1_000_000).prop_map(Duration::from_secs));
    let freshness = prop::option::of(prop::collection::vec((1u64..100).prop_map(tier), 0..2));
    let bound = prop::option::of(prop_oneof![Just(UpperBound::Inclusive), Just(UpperBound::Exclusive)]);
    let field = prop::option::of(prop::sample::select(&["start", "end", "created"][..]).prop_map(Arc::from));
    (field, bound, seconds(), freshness, seconds()).prop_map(
        |(field, upper_bound, settle_after, freshness, retention)| WindowOverrides {
            field,
            upper_bound,
            settle_after,
            freshness,
            retention,
        },
    )
}

/// Accounts by name, each with its own overrides and those of its streams by name, in any order.
fn accounts() -> impl Strategy<Value = Vec<AccountConfig>> {
    let names = |most| prop::sample::subsequence(NAMES.to_vec(), 0..most).prop_shuffle();
    let account_of = move |name: &'static str| {
        let streams =
            names(4).prop_flat_map(|names| names.into_iter().map(|name| (Just(name), overrides())).collect::<Vec<_>>());
        (overrides(), streams).prop_map(move |(window, streams)| account(name, window, streams))
    };
    names(4).prop_flat_map(move |names| names.into_iter().map(account_of).collect::<Vec<_>>())
}

proptest! {
    #[test]
    fn series_has_the_nearest_setting_of_each_key(accounts in accounts()) {
        let (global, now) = (window(), Timestamp::from_seconds(1_000_000_000));
        let settings = SeriesSettings::new(&global, &accounts);
        for (account_name, stream) in NAMES.iter().flat_map(|account| NAMES.map(|stream| (*account, stream))) {
            let account = accounts.iter().find(|account| *account.account_id == *account_name);
            let of_stream = account.and_then(|account| {
                account.stream_settings.iter().find(|settings| *settings.stream == *stream)
            });
            let levels: Vec<_> =
                of_stream.map(|it| &it.window).into_iter().chain(account.map(|it| &it.window)).collect();
            let WindowSettings { field, upper_bound, settle_after, freshness, retention, .. } =
                &*settings.for_series(account_name, stream);
            let found = (
                field.clone(), *upper_bound, *settle_after, freshness.clone(), retention.map(|retention| retention.0),
            );
            prop_assert_eq!(&found, &resolve(&levels, &global), "{} {}", account_name, stream);
            let since = settings.retained_since(account_name, stream, now);
            prop_assert_eq!(since, found.4.map(|kept| now - kept));
            let in_effect = settings.for_series(account_name, stream);
            let policy = &in_effect.freshness_policy;
            prop_assert_eq!(policy.settled_before(now), now - found.2);
            // All streams of the account are enclosed by its widest bound.
            let widest = settings.widest_upper_bound(account_name, None);
            prop_assert!(widest == UpperBound::Inclusive || found.1 == UpperBound::Exclusive);
            prop_assert_eq!(settings.widest_upper_bound(account_name, Some(stream)), found.1);
        }
        let with_retention: Vec<_> = settings.accounts_with_retention().iter().map(ToString::to_string).collect();
        let has_retention = |account: &AccountConfig| {
            account.window.retention.is_some()
                || account.stream_settings.iter().any(|settings| settings.window.retention.is_some())
        };
        let mut expected: Vec<_> =
            accounts.iter().filter(|account| has_retention(account)).map(|it| it.account_id.to_string()).collect();
        expected.sort();
        prop_assert_eq!(with_retention, expected);
    }
}
