//! Variables on top of a file, and configurations from the environment alone.

use super::*;

/// A configuration from the environment alone.
fn load_env(variables: &[(&str, &str)]) -> Result<Config, String> {
    Config::load(None, env(variables)).map_err(|error| error.to_string())
}

const KORE: [(&str, &str); 4] = [
    ("KORE_HOST", "platform.kore.example"),
    ("KORE_ACCOUNT_ID", "acc-1"),
    ("KORE_CLIENT_ID", "cs-1"),
    ("KORE_CLIENT_SECRET", "hunter2"),
];

/// [`KORE`] with the variables in `change` set to a new value, or removed.
fn kore(change: &[(&'static str, Option<&'static str>)]) -> Vec<(&'static str, &'static str)> {
    let changed = |name: &str| change.iter().any(|(changed, _)| *changed == name);
    let kept = KORE.into_iter().filter(|(name, _)| !changed(name));
    kept.chain(change.iter().filter_map(|(name, value)| Some((*name, (*value)?)))).collect()
}

#[test]
fn variable_overrides_the_file() {
    let file = format!("{MINIMAL}[window]\nchunk = \"15m\"\nmax_span = \"7d\"\n");
    let config = load_with(
        &file,
        &[
            ("KOREGATE__WINDOW__CHUNK", "30m"),
            ("KOREGATE__Window__settle_AFTER", "15m"),
            ("KOREGATE__WINDOW__FRESHNESS", "[{younger_than=\"1h\",max_age=\"30s\"}]"),
            ("KOREGATE__SERVER__LISTEN", "127.0.0.1:1"),
            ("KOREGATE__QUOTA__INTERACTIVE_RESERVE", "0.5"),
            ("KOREGATE__QUOTA__STATE_FILE", "/data/quota"),
            ("KOREGATE__UPSTREAM__MAX_CONCURRENCY", "3"),
            ("KOREGATE__CACHE__MEMORY", "1000000"),
            ("KOREGATE__CACHE__REDIS__URL", "redis://127.0.0.1"),
            ("KOREGATE__ACCOUNTS__0__CLIENT_ID", "cs-9"),
            ("KOREGATE__ACCOUNTS__0__TOKEN__SCHEME", "bearer"),
            ("KOREGATE__ACCOUNTS__0__STREAMS", "[\"st-1\"]"),
            ("KOREGATE__ACCOUNTS__0__RETENTION", "400d"),
            ("KOREGATE__ACCOUNTS__0__WINDOW__FIELD", "end"),
            ("KOREGATE__ACCOUNTS__0__STREAM_SETTINGS__0__STREAM", "st-1"),
            ("KOREGATE__ACCOUNTS__0__STREAM_SETTINGS__0__WINDOW", "{ settle_after = \"1h\" }"),
            ("KOREGATE__ACCOUNTS__0__STREAM_SETTINGS__0__WINDOW__UPPER_BOUND", "exclusive"),
            ("KOREGATE__CALLERS__0__NAME", "etl"),
            ("KOREGATE__CALLERS__0__API_KEY_SHA256", &"0".repeat(64)),
            ("KOREGATE__CALLERS__0__STREAMS__0", "st-1"),
            ("KOREGATE__CALLERS__0__STREAMS__1", "st-2"),
            // Variables that set no key.
            ("KOREGATE_LOG", "debug"),
            ("KOREGATE_PORT", "tcp://10.0.0.1:80"),
            ("KORE_ACCOUNT_ID", "not used, as there is a file"),
        ],
    )
    .unwrap();
    let window = &config.window;
    assert_eq!((window.chunk, window.settle_after), (Duration::from_mins(30), Duration::from_mins(15)));
    assert_eq!(window.max_span, Duration::from_hours(7 * 24));
    let tier = FreshnessTier { younger_than: Duration::from_hours(1), max_age: Duration::from_secs(30) };
    assert_eq!(window.freshness, [tier]);
    assert_eq!(config.server.listen.port(), 1);
    assert!((config.quota.interactive_reserve - 0.5).abs() < f64::EPSILON);
    assert_eq!(config.quota.state_file, Some("/data/quota".into()));
    assert_eq!((config.upstream.max_concurrency, config.cache.memory), (3, 1_000_000));
    assert_eq!(config.cache.redis.unwrap().url.expose_secret(), "redis://127.0.0.1");
    let account = &config.accounts[0];
    assert_eq!(
        (&*account.account_id, &*account.client_id, account.token.scheme),
        ("acc-1", "cs-9", TokenScheme::Bearer)
    );
    assert_eq!(account.streams, NamePatterns::Only(vec!["st-1".to_owned()]));
    let settings = SeriesSettings::new(window, &config.accounts);
    let WindowSettings { field, upper_bound, settle_after, retention, .. } = &*settings.for_series("acc-1", "st-1");
    assert_eq!((&**field, *upper_bound), ("end", UpperBound::Exclusive));
    assert_eq!((*settle_after, retention.unwrap().0), (Duration::from_hours(1), Duration::from_hours(400 * 24)));
    assert_eq!(&*config.callers[0].name, "etl");
    assert_eq!(config.callers[0].api_key_sha256, [[0; 32]]);
    assert_eq!(config.callers[0].streams, NamePatterns::Only(vec!["st-1".to_owned(), "st-2".to_owned()]));
}

#[test]
fn variable_of_a_key_changes_a_table_that_another_sets() {
    let config = load_with(
        MINIMAL,
        &[
            ("KOREGATE__ACCOUNTS__0__TOKEN", "{ lifetime = \"30m\", scheme = \"bearer\" }"),
            ("KOREGATE__ACCOUNTS__0__TOKEN__LIFETIME", "20m"),
        ],
    );
    let token = config.unwrap().accounts[0].token;
    assert_eq!((token.lifetime, token.scheme), (Duration::from_mins(20), TokenScheme::Bearer));
}

#[test]
fn digests_are_set_as_a_list_or_one_by_one() {
    let [zeros, ones] = ["0".repeat(64), "01".repeat(32)];
    for keys in [
        vec![("KOREGATE__CALLERS__0__API_KEY_SHA256", format!(" [\"{zeros}\", '{ones}']"))],
        vec![
            ("KOREGATE__CALLERS__0__API_KEY_SHA256__0", zeros.clone()),
            ("KOREGATE__CALLERS__0__API_KEY_SHA256__1", ones.clone()),
        ],
    ] {
        let variables: Vec<_> = keys.iter().map(|(name, value)| (*name, value.as_str())).collect();
        let config = load_with(MINIMAL, &[&[("KOREGATE__CALLERS__0__NAME", "etl")], &variables[..]].concat());
        assert_eq!(config.unwrap().callers[0].api_key_sha256, [[0; 32], [1; 32]]);
    }
}

#[test]
fn eleven_indexed_variables_keep_their_numeric_order() {
    let names: Vec<_> = (0..11).map(|i| (format!("KOREGATE__ACCOUNTS__0__STREAMS__{i}"), format!("st-{i}"))).collect();
    let names: Vec<_> = names.iter().map(|(name, value)| (&**name, &**value)).collect();
    let expected = (0..11).map(|i| format!("st-{i}")).collect();
    assert_eq!(load_with(MINIMAL, &names).unwrap().accounts[0].streams, NamePatterns::Only(expected));
}

#[test]
fn problem_names_its_variable() {
    for (name, value, expected) in [
        ("KOREGATE__WINDOW__CHUNK", "7m", "window.chunk: must divide a day"),
        ("KOREGATE__WINDOW__CHUNKS", "1h", "window.chunks: unknown key; did you mean `chunk`?"),
        ("KOREGATE__WINDOW", "1h", "window: is not a TOML value: "),
        ("KOREGATE__WINDOW", "5", "window: is an integer; it must be a table"),
        ("KOREGATE__WINDOW__FRESHNESS", "[1]", "window.freshness[0]: is an integer; it must be a table"),
        ("KOREGATE__WINDOW__FRESHNESS", "[", "window.freshness: is not a TOML value: "),
        ("KOREGATE__WINDOWS__CHUNK", "1h", "windows: unknown key; did you mean `window`?"),
        ("KOREGATE__", "1h", "unknown key"),
        ("KOREGATE__LOG", "debug", "log: is not a TOML value"),
        ("KOREGATE__SERVER____LISTEN", "x", "server.: unknown key"),
        ("KOREGATE__SERVER__LISTEN", "", "server.listen: \"\" is not an address"),
        ("KOREGATE__SERVER__LISTEN", "0.0.0.0:80", "server.listen: 0.0.0.0:80 is open to the network"),
        (
            "KOREGATE__UPSTREAM__MAX_CONCURRENCY",
            "many",
            "upstream.max_concurrency: is \"many\"; it must be a whole number",
        ),
        ("KOREGATE__QUOTA__INTERACTIVE_RESERVE", "NaN", "quota.interactive_reserve: is NaN; it must be a number"),
        ("KOREGATE__ACCOUNTS__0__STREAMS", "*", "accounts[0].streams: is not a TOML value: "),
        ("KOREGATE__ACCOUNTS__2__CLIENT_ID", "cs-2", "accounts[2].client_id: there is no number 1 before it"),
        ("KOREGATE__CALLERS__0__API_KEY_SHA256", "aa", "callers[0].api_key_sha256: must be the SHA-256"),
        ("KOREGATE__CALLERS__0__API_KEY_SHA256", "[]", "callers[0].api_key_sha256: is empty"),
        ("KOREGATE__CALLERS__0__API_KEY_SHA256", "[aa", "callers[0].api_key_sha256: is not a TOML value: "),
    ] {
        let error = load_with(MINIMAL, &[(name, value)]).expect_err(name);
        let expected = format!("environment {name}: {expected}");
        assert!(error.lines().any(|line| line.starts_with(&expected)), "{expected}\n{error}");
    }
    let error = load_with(MINIMAL, &[("KOREGATE__CALLERS__0__NAME", "etl")]).unwrap_err();
    assert_eq!(error, "environment KOREGATE__CALLERS__0__API_KEY_SHA256: callers[0].api_key_sha256: is missing");
    let twice =
        load_with(MINIMAL, &[("KOREGATE__WINDOW__CHUNK", "1h"), ("KOREGATE__WINDOW__chunk", "2h")]).unwrap_err();
    assert_eq!(twice, "environment KOREGATE__WINDOW__chunk: window.chunk: is set by KOREGATE__WINDOW__CHUNK too");
}

#[test]
fn four_kore_variables_make_one_account() {
    let config = load_env(&KORE).unwrap();
    let [account] = &config.accounts[..] else { panic!("{:?}", config.accounts) };
    assert_eq!(config.upstream.base_url.to_string(), "https://platform.kore.example/");
    assert_eq!((&*account.account_id, &*account.client_id), ("acc-1", "cs-1"));
    assert_eq!((account.client_secret.expose_secret(), &account.streams), ("hunter2", &NamePatterns::All));

    let dir = TempDir::new().unwrap();
    let file = dir.path().join("secret");
    fs::write(&file, "from-file\n").unwrap();
    let mut variables = kore(&[("KORE_CLIENT_SECRET", None)]);
    variables.push(("KORE_CLIENT_SECRET_FILE", file.to_str().unwrap()));
    assert_eq!(load_env(&variables).unwrap().accounts[0].client_secret.expose_secret(), "from-file");

    let url = load_env(&kore(&[("KORE_HOST", Some("http://127.0.0.1:9000/"))])).unwrap();
    assert_eq!(url.upstream.base_url.to_string(), "http://127.0.0.1:9000/");
}

#[test]
fn kore_variables_combine_with_other_keys() {
    let jti = ("KOREGATE__ACCOUNTS__0__TOKEN__JTI", Some("per-request"));
    let config = load_env(&kore(&[jti, ("KOREGATE__WINDOW__CHUNK", Some("15m"))])).unwrap();
    assert_eq!((config.accounts[0].token.jti, config.window.chunk), (JtiMode::PerRequest, Duration::from_mins(15)));

    let base_url = ("KOREGATE__UPSTREAM__BASE_URL", Some("https://eu.kore.example"));
    for host in [None, Some("us.kore.example")] {
        let config = load_env(&kore(&[base_url, ("KORE_HOST", host)])).unwrap();
        assert_eq!(config.upstream.base_url.to_string(), "https://eu.kore.example/");
    }
}

#[test]
fn accounts_from_the_environment_replace_the_kore_variables() {
    let config = load_env(&[
        ("KOREGATE__ACCOUNTS__0__ACCOUNT_ID", "acc-1"),
        ("KOREGATE__ACCOUNTS__0__CLIENT_ID", "cs-1"),
        ("KOREGATE__ACCOUNTS__0__CLIENT_SECRET__ENV", "SECRET"),
        (
            "KOREGATE__ACCOUNTS__1",
            "{ account_id = \"acc-2\", client_id = \"cs-2\", client_secret = { env = \"SECRET\" } }",
        ),
        ("KORE_ACCOUNT_ID", "not used"),
    ]);
    let ids: Vec<_> = config.unwrap().accounts.into_iter().map(|account| account.account_id).collect();
    assert_eq!(ids.iter().map(|id| &**id).collect::<Vec<_>>(), ["acc-1", "acc-2"]);
    let error = load_env(&[("KOREGATE__ACCOUNTS__0__ACCOUNT_ID", "acc-1")]).unwrap_err();
    assert!(
        error.contains("environment KOREGATE__ACCOUNTS__0__CLIENT_ID: accounts[0].client_id: is missing"),
        "{error}"
    );
    assert!(!error.contains("KORE_"), "{error}");
}

#[test]
fn missing_kore_variable_is_named() {
    for missing in KORE.map(|(name, _)| name) {
        for value in [None, Some("")] {
            let error = load_env(&kore(&[(missing, value)])).unwrap_err();
            assert!(error.starts_with(&format!("environment {missing}: ")), "{error}");
            assert_eq!(error.lines().count(), 1, "{error}");
            assert!(error.contains(": is not set; with no file, KORE_HOST, "), "{error}");
        }
    }
    assert_eq!(load_env(&[]).unwrap_err().lines().count(), 4);
    let both = load_env(&kore(&[("KORE_CLIENT_SECRET_FILE", Some("/some/file"))])).unwrap_err();
    let expected = "environment KORE_CLIENT_SECRET_FILE: accounts[0].client_secret: is set beside KORE_CLIENT_SECRET";
    assert!(both.starts_with(expected), "{both}");
    let bad = load_env(&kore(&[("KORE_HOST", Some("http://kore.example"))])).unwrap_err();
    assert!(bad.starts_with("environment KORE_HOST: upstream.base_url: is http, "), "{bad}");
}

#[test]
fn proxy_of_the_environment_is_used_only_if_asked_for() {
    let set = [("HTTPS_PROXY", "http://me:hunter2@proxy:3128"), ("NO_PROXY", "a.example")];
    assert!(load_with(MINIMAL, &set).unwrap().upstream.proxy.is_none());
    let asked = format!("{MINIMAL}[upstream]\nproxy = \"env\"\n");
    let config = load_with(&asked, &set).unwrap();
    let Some(ProxyConfig::Environment { https_proxy: Some(url), no_proxy }) = &config.upstream.proxy else {
        panic!("{:?}", config.upstream.proxy)
    };
    assert_eq!((url.expose_secret(), no_proxy.as_str()), (set[0].1, set[1].1));
    assert!(config.render().contains("proxy = \"env\"") && !config.render().contains("hunter2"));
    let without = load_with(&asked, &[]).unwrap().upstream.proxy;
    assert!(matches!(without, Some(ProxyConfig::Environment { https_proxy: None, .. })), "{without:?}");
    let error = load_with(&asked, &[("https_proxy", "socks5://me:hunter2@proxy:1080")]).unwrap_err();
    assert!(error.contains("upstream.proxy: HTTPS_PROXY") && !error.contains("hunter2"), "{error}");
}

#[test]
fn proxy_is_printed_without_its_credentials() {
    let toml = format!(
        "{MINIMAL}[upstream]\nproxy = {{ url = \"http://proxy:3128\", credentials = {{ env = \"PROXY\" }} }}\n"
    );
    let rendered = load_with(&toml, &[]).unwrap().render();
    assert!(rendered.contains("proxy = { url = \"http://proxy:3128\", credentials = \"[redacted]\" }"), "{rendered}");
    let no_colon = toml.replace("PROXY", "SECRET");
    let error = load_with(&no_colon, &[]).unwrap_err();
    assert!(error.contains("upstream.proxy.credentials") && !error.contains("s3cr3t"), "{error}");
}
