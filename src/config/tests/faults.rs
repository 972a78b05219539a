//! Messages of the problems of a file.

use super::*;

/// Rows: the lines added to the minimal file from line 5 on, and the whole error.
#[test]
#[expect(clippy::too_many_lines, reason = "a table")]
fn problem_of_the_file_names_its_line_and_key() {
    const DURATION: &str =
        "is not a duration (at most \"36500d\"); write it like \"250ms\", \"30s\", \"5m\" or \"24h\"";
    const NAMES: &str = "write [\"*\"] for all, or a list of names";
    let chunk = "must divide a day into equal parts, such as \"15m\", \"1h\" or \"24h\"";
    let digest = "must be the SHA-256 of the API key in 64 hex digits, as `koregate key` prints it, or a list of them";
    for (added, expected) in [
        // Types and units.
        (
            "[server]\nlisten = \"localhost:8080\"",
            "6: server.listen: \"localhost:8080\" is not an address and a port; write it like \"127.0.0.1:8080\" or \
             \"[::1]:8080\""
                .to_owned(),
        ),
        (
            "[server]\nlisten = 8080",
            "6: server.listen: is an integer; it must be an address and a port, such as \"127.0.0.1:8080\"".to_owned(),
        ),
        ("[server]\n\ndrain_timeout = \"1 hour\"", format!("7: server.drain_timeout: \"1 hour\" {DURATION}")),
        (
            "[server]\ndrain_timeout = 30",
            "6: server.drain_timeout: is an integer; it must be a duration such as \"30s\", \"5m\" or \"24h\""
                .to_owned(),
        ),
        (
            "[server]\nhosts = [\"gate:8080\"]",
            "6: server.hosts: holds \"gate:8080\", which is no name of a host; write a list of names without ports, \
             such as [\"koregate.internal\"]"
                .to_owned(),
        ),
        (
            "[server]\nhosts = [\".\"]",
            "6: server.hosts: holds \".\", which is no name of a host; write a list of names without ports, such as \
             [\"koregate.internal\"]"
                .to_owned(),
        ),
        (
            "[admin]\nhosts = \"gate\"",
            "6: admin.hosts: is a string; write a list of names without ports, such as [\"koregate.internal\"]"
                .to_owned(),
        ),
        ("[server.tls]\ncert = \"a.pem\"", "5: server.tls.key: is missing".to_owned()),
        ("[server.tls]\nkey = \"a.pem\"", "5: server.tls.cert: is missing".to_owned()),
        ("[server]\ntls = true", "6: server.tls: is a boolean; it must be a table".to_owned()),
        ("[upstream]\ntimeout = \"0s\"", "6: upstream.timeout: must be more than zero".to_owned()),
        (
            "[server]\nmax_head_size = '4KiB'",
            "6: server.max_head_size: is 4KiB; it must be a size from 8KiB to 1MiB".to_owned(),
        ),
        (
            "[upstream]\nmax_concurrency = 0",
            "6: upstream.max_concurrency: is 0; it must be a whole number from 1 to 10000".to_owned(),
        ),
        (
            "[upstream]\nmax_concurrency = 1.5",
            "6: upstream.max_concurrency: is a float; it must be a whole number from 1 to 10000".to_owned(),
        ),
        (
            "[upstream]\nmax_concurrency = 99999999999999999999",
            "6: upstream.max_concurrency: is a number out of range; it must be a whole number from 1 to 10000"
                .to_owned(),
        ),
        (
            "[upstream]\nbase_url = \"http://kore.example\"",
            "6: upstream.base_url: is http, which would show the token to the network; write https (http is only for \
             loopback)"
                .to_owned(),
        ),
        ("[upstream]\nca_file = \"\"", "6: upstream.ca_file: is empty; it must be the path of a file".to_owned()),
        // Accounts: these keys belong to the account of the minimal file.
        ("streams = []", format!("5: accounts[0].streams: is empty; {NAMES}")),
        ("streams = \"*\"", format!("5: accounts[0].streams: is a string; {NAMES}")),
        ("streams = [\"st-1\", \"\"]", format!("5: accounts[0].streams: a name is empty; {NAMES}")),
        ("token = { lifetime = \"1 hour\" }", format!("5: accounts[0].token.lifetime: \"1 hour\" {DURATION}")),
        ("token = { lifetime = \"1500ms\" }", "5: accounts[0].token.lifetime: must be whole seconds".to_owned()),
        (
            "token = { lifetime = \"5m\" }",
            "5: accounts[0].token.refresh_ahead: must be shorter than `lifetime`, or no token would ever be used"
                .to_owned(),
        ),
        (
            "[accounts.token]\nlifetime = \"2h\"\njti = \"per-request\"",
            "6: accounts[0].token.lifetime: must be at most \"1h\" while `jti` is \"per-request\": Kore refuses \
             longer ones"
                .to_owned(),
        ),
        (
            "token.scheme = \"basic\"",
            "5: accounts[0].token.scheme: is \"basic\"; it must be \"bare\" or \"bearer\"".to_owned(),
        ),
        (
            "token.jti = true",
            "5: accounts[0].token.jti: is a boolean; it must be \"off\" or \"per-request\"".to_owned(),
        ),
        (
            "quota = { limits = [] }",
            "5: accounts[0].quota.limits: is empty; there must be at least one limit".to_owned(),
        ),
        (
            "quota = { limits = 60 }",
            "5: accounts[0].quota.limits: is an integer; it must be a list of tables".to_owned(),
        ),
        ("quota = { limits = [60] }", "5: accounts[0].quota.limits[0]: is an integer; it must be a table".to_owned()),
        (
            "[[accounts.quota.limits]]\nrequests = 0\nper = \"1m\"",
            "6: accounts[0].quota.limits[0].requests: is 0; it must be a whole number from 1 to 4294967295".to_owned(),
        ),
        (
            "[[accounts.quota.limits]]\nrequests = 1\nper = \"0s\"",
            "7: accounts[0].quota.limits[0].per: must be more than zero".to_owned(),
        ),
        (
            "quota.limits = [\n  { requests = 1, per = \"1m\" },\n  { requests = 2, per = \"60s\" },\n]",
            "7: accounts[0].quota.limits[1].per: stands in another limit too".to_owned(),
        ),
        (
            "[[accounts]]\naccount_id = \"acc-1\"\nclient_id = \"cs-2\"\nclient_secret = { env = \"SECRET\" }",
            "6: accounts[1].account_id: \"acc-1\" stands on another account too".to_owned(),
        ),
        (
            "[[accounts]]\naccount_id = \"acc 2\"\nclient_id = \"cs-2\"\nclient_secret = { env = \"SECRET\" }",
            "6: accounts[1].account_id: holds a space or a character beyond ASCII".to_owned(),
        ),
        (
            "[[accounts]]\naccount_id = \"acc-2\"\nclient_id = \" \"\nclient_secret = { env = \"SECRET\" }",
            "7: accounts[1].client_id: is empty".to_owned(),
        ),
        (
            "[[accounts]]\naccount_id = \"acc-2\"\nclient_id = \"a\\nb\"\nclient_secret = { env = \"SECRET\" }",
            "7: accounts[1].client_id: holds a control character".to_owned(),
        ),
        // Settings of accounts and streams.
        ("retention = \"0s\"", "5: accounts[0].retention: must be more than zero".to_owned()),
        ("retention = \"1500ms\"", "5: accounts[0].retention: must be whole seconds".to_owned()),
        (
            "\nwindow = { settle_after = \"1 day\" }",
            format!("6: accounts[0].window.settle_after: \"1 day\" {DURATION}"),
        ),
        ("window = { chunk = \"1h\" }", "5: accounts[0].window.chunk: unknown key".to_owned()),
        (
            "[[accounts.stream_settings]]\nretention = \"1d\"",
            "5: accounts[0].stream_settings[0].stream: is missing".to_owned(),
        ),
        (
            "streams = [\"st-1\"]\nstream_settings = [\n  { stream = \"st-1\" },\n  { stream = \"st-2\" },\n]",
            "8: accounts[0].stream_settings[1].stream: \"st-2\" is none of the `streams` of the account".to_owned(),
        ),
        (
            "stream_settings = [\n  { stream = \"st-1\" },\n  { stream = \"st-1\" },\n]",
            "7: accounts[0].stream_settings[1].stream: \"st-1\" has settings in another entry too".to_owned(),
        ),
        (
            "stream_settings = [{ stream = \"*\" }]",
            "5: accounts[0].stream_settings[0].stream: must be one stream; what holds for all of them is set for the \
             account"
                .to_owned(),
        ),
        (
            "[[accounts.stream_settings]]\nstream = \"st-1\"\nwindow = { upper_bound = \"open\" }",
            "7: accounts[0].stream_settings[0].window.upper_bound: is \"open\"; it must be \"inclusive\" or \
             \"exclusive\""
                .to_owned(),
        ),
        (
            "[[accounts.stream_settings]]\nstream = \"st-1\"\nretentoin = \"1d\"",
            "7: accounts[0].stream_settings[0].retentoin: unknown key; did you mean `retention`?".to_owned(),
        ),
        // Window.
        ("[window]\nfield = \"\"", "6: window.field: is empty".to_owned()),
        (
            "[window]\nupper_bound = \"open\"",
            "6: window.upper_bound: is \"open\"; it must be \"inclusive\" or \"exclusive\"".to_owned(),
        ),
        ("[window]\nchunk = \"7m\"", format!("6: window.chunk: {chunk}")),
        ("[window]\nchunk = \"2d\"", format!("6: window.chunk: {chunk}")),
        ("[window]\nchunk = \"0s\"", "6: window.chunk: must be more than zero".to_owned()),
        ("[window]\nchunk = \"500ms\"", "6: window.chunk: must be whole seconds".to_owned()),
        ("[window]\nmax_span = \"0s\"", "6: window.max_span: must be more than zero".to_owned()),
        (
            "[window]\nfreshness = [\n  { younger_than = \"1h\", max_age = \"1m\" },\n  { younger_than = \"1h\", \
             max_age = \"1m\" },\n]",
            "8: window.freshness[1].younger_than: must be more than that of the entry before it".to_owned(),
        ),
        (
            "[window]\nfreshness = [\n  { younger_than = \"1h\", max_age = \"1m\" },\n  { younger_than = \"2h\", \
             max_age = \"59s\" },\n]",
            "8: window.freshness[1].max_age: must not be less than that of the entry before it".to_owned(),
        ),
        ("[[window.freshness]]\nyounger_than = \"1h\"", "5: window.freshness[0].max_age: is missing".to_owned()),
        // Quota and cache.
        (
            "[quota]\ninteractive_reserve = 1.0",
            "6: quota.interactive_reserve: is 1; it must be a number from 0 to 0.9".to_owned(),
        ),
        (
            "[quota]\ninteractive_reserve = -1",
            "6: quota.interactive_reserve: is -1; it must be a number from 0 to 0.9".to_owned(),
        ),
        (
            "[quota]\ninteractive_reserve = nan",
            "6: quota.interactive_reserve: is NaN; it must be a number from 0 to 0.9".to_owned(),
        ),
        ("[quota]\nstate_file = \"\"", "6: quota.state_file: is empty; it must be the path of a file".to_owned()),
        ("[quota]\nstate_file = true", "6: quota.state_file: is a boolean; it must be the path of a file".to_owned()),
        (
            "[cache]\nmemory = \"256MB\"",
            "6: cache.memory: \"256MB\" is not a size; write it like \"64KiB\", \"256MiB\", \"1GiB\" or \"1000000\""
                .to_owned(),
        ),
        ("[cache]\nmemory = 0", "6: cache.memory: must be more than zero".to_owned()),
        ("[cache]\nmemory = -1", "6: cache.memory: must be more than zero".to_owned()),
        ("[cache.redis]", "5: cache.redis.url: is missing".to_owned()),
        (
            "[cache]\nredis = { url = \"redis://h\", ttl = \"0s\" }",
            "6: cache.redis.ttl: must be more than zero".to_owned(),
        ),
        (
            "[cache]\nredis = { url = \"redis://h\", timeout = \"0s\" }",
            "6: cache.redis.timeout: must be more than zero".to_owned(),
        ),
        // Callers.
        (
            "[server]\nlisten = \"0.0.0.0:8080\"",
            "6: server.listen: 0.0.0.0:8080 is open to the network, and there are no callers; add [[callers]], or \
             listen on loopback (\"127.0.0.1:8080\")"
                .to_owned(),
        ),
        ("[[callers]]\nname = \"etl\"", "5: callers[0].api_key_sha256: is missing".to_owned()),
        (
            "[[callers]]\nname = \"-\"\napi_key_sha256 = \"@A\"",
            "6: callers[0].name: \"-\" stands for a caller that nobody knows, in logs and metrics; take another one"
                .to_owned(),
        ),
        ("[[callers]]\nname = \"etl\"\napi_key_sha256 = \"abc\"", format!("7: callers[0].api_key_sha256: {digest}")),
        (
            "[[callers]]\nname = \"etl\"\napi_key_sha256 = 5",
            format!("7: callers[0].api_key_sha256: is an integer; it {digest}"),
        ),
        (
            "[[callers]]\nname = \"etl\"\napi_key_sha256 = []",
            format!("7: callers[0].api_key_sha256: is empty; it {digest}"),
        ),
        (
            "[[callers]]\nname = \"etl\"\napi_key_sha256 = [\"@A\", \"abc\"]",
            format!("7: callers[0].api_key_sha256: {digest}"),
        ),
        (
            "[[callers]]\nname = \"etl\"\napi_key_sha256 = [\"@A\", [\"@B\"]]",
            format!("7: callers[0].api_key_sha256: is a list; it {digest}"),
        ),
        (
            "[[callers]]\nname = \"etl\"\napi_key_sha256 = [\"@A\", \"@B\", \"@A\"]",
            "7: callers[0].api_key_sha256: holds the same digest twice".to_owned(),
        ),
        (
            "[[callers]]\nname = \"etl\"\napi_key_sha256 = \"@A\"\ncache_control = [\"no-store\"]",
            "8: callers[0].cache_control: a directive is \"no-store\"; it must be \"only-if-cached\" or \"no-cache\" or \"max-age\" or \"max-stale\""
                .to_owned(),
        ),
        (
            "[[callers]]\nname = \"etl\"\napi_key_sha256 = \"@A\"\nweight = 0",
            "8: callers[0].weight: is 0; it must be a whole number from 1 to 4294967295".to_owned(),
        ),
        (
            "[upstream]\nproxy = \"http://me:hunter2@proxy:3128\"",
            "6: upstream.proxy: is no proxy; write { url = \"http://proxy:3128\" }, or \"env\" for HTTPS_PROXY and NO_PROXY"
                .to_owned(),
        ),
        (
            "[upstream]\nproxy = { url = \"http://me:hunter2@proxy:3128\" }",
            "6: upstream.proxy.url: holds a user or a password; they belong into `credentials`".to_owned(),
        ),
        (
            "[[callers]]\nname = \"etl\"\ncertificate_san = \"spiffe://a/b\"",
            "7: callers[0].certificate_san: is of no use without `server.tls.client_ca`".to_owned(),
        ),
        (
            "[[callers]]\nname = \"etl\"\napi_key_sha256 = \"@A\"\nnot_after = \"soon\"",
            "8: callers[0].not_after: \"soon\" is not a date; it must be a date such as \"2027-01-01\", in UTC"
                .to_owned(),
        ),
        (
            "[[callers]]\nname = \"etl\"\napi_key_sha256 = \"@A\"\nrequests_per_minute = 0",
            "8: callers[0].requests_per_minute: is 0; it must be a whole number from 1 to 4294967295".to_owned(),
        ),
        (
            "[[callers]]\nname = \"etl\"\napi_key_sha256 = \"@A\"\naccounts = [\"acc-1\", \"acc-9\"]",
            "8: callers[0].accounts: \"acc-9\" is no configured account; did you mean \"acc-1\"?".to_owned(),
        ),
        (
            "[[callers]]\nname = \"etl\"\napi_key_sha256 = \"@A\"\naccounts = [\"elsewhere\"]",
            "8: callers[0].accounts: \"elsewhere\" is no configured account".to_owned(),
        ),
        (
            "[[callers]]\nname = \"etl\"\napi_key_sha256 = \"@A\"\n[[callers]]\nname = \"etl\"\napi_key_sha256 = \
             \"@B\"",
            "9: callers[1].name: \"etl\" is another caller's too".to_owned(),
        ),
        (
            "[[callers]]\nname = \"etl\"\napi_key_sha256 = \"@A\"\n[[callers]]\nname = \"bi\"\napi_key_sha256 = \"@A\"",
            "10: callers[1].api_key_sha256: is another caller's too, and nothing else could tell them apart".to_owned(),
        ),
        (
            "[[callers]]\nname = \"etl\"\napi_key_sha256 = \"@A\"\n[[callers]]\nname = \"bi\"\napi_key_sha256 = \
             [\"@B\", \"@A\"]",
            "10: callers[1].api_key_sha256: is another caller's too, and nothing else could tell them apart".to_owned(),
        ),
        // Unknown keys.
        ("[servre]\nlisten = 1", "5: servre: unknown key; did you mean `server`?".to_owned()),
        ("[server]\nlistn = 1", "6: server.listn: unknown key; did you mean `listen`?".to_owned()),
        ("clientid = 1", "5: accounts[0].clientid: unknown key; did you mean `client_id`?".to_owned()),
        ("token = { colour = 1 }", "5: accounts[0].token.colour: unknown key".to_owned()),
        ("[cache.redis]\nurl = \"redis://h\"\ndatabase = 1", "7: cache.redis.database: unknown key".to_owned()),
        (
            "[[window.freshness]]\nyounger_than = \"1h\"\nmax_age = \"1m\"\nmin_age = \"1m\"",
            "8: window.freshness[0].min_age: unknown key; did you mean `max_age`?".to_owned(),
        ),
        // Syntax.
        ("[window]\nchunk = 1h", "6: window.chunk: ".to_owned()),
    ] {
        let added = added.replace("@A", &"aB".repeat(32)).replace("@B", &"0".repeat(64));
        let error = load(&format!("{MINIMAL}{added}\n")).expect_err(&added);
        if expected.ends_with(": ") {
            // The text of a syntax error comes from toml.
            assert!(
                error.starts_with("koregate.toml:6: window.chunk: ") && error.lines().count() == 1,
                "{added}\n{error}"
            );
        } else {
            assert_eq!(error, format!("koregate.toml:{expected}"), "{added}");
        }
    }
}

#[test]
fn all_problems_are_reported_in_the_order_of_the_file() {
    let toml = "[window]\nchunk = 7\nmax_spam = 1\n[[accounts]]\naccount_id = 5\n[quota]\nqueue_timeout = \"x\"\n";
    let error = load_with(toml, &[("KOREGATE__CACHE__MEMORY", "much")]).unwrap_err();
    let starts: Vec<_> = error.lines().map(|line| line.split(": ").take(2).collect::<Vec<_>>().join(": ")).collect();
    let expected = [
        "koregate.toml:2: window.chunk",
        "koregate.toml:3: window.max_spam",
        "koregate.toml:4: accounts[0].client_id",
        "koregate.toml:4: accounts[0].client_secret",
        "koregate.toml:5: accounts[0].account_id",
        "koregate.toml:7: quota.queue_timeout",
        "environment KOREGATE__CACHE__MEMORY: cache.memory",
    ];
    assert_eq!(starts, expected, "{error}");
}

#[test]
fn problem_does_not_cause_a_second_report() {
    // `refresh_ahead` is longer than the default of `lifetime`, but the intended `lifetime` is unknown.
    let error = load(&format!("{MINIMAL}token = {{ lifetime = \"x\", refresh_ahead = \"2h\" }}")).unwrap_err();
    assert!(error.contains("token.lifetime") && error.lines().count() == 1, "{error}");
    // The accounts have problems, so the names of callers are not checked against them.
    let caller = format!("[[callers]]\nname = \"a\"\napi_key_sha256 = \"{}\"\naccounts = [\"b\"]", "0".repeat(64));
    let error = load(&format!("[[accounts]]\naccount_id = \"b\"\n{caller}")).unwrap_err();
    assert!(error.lines().all(|line| line.contains("accounts[0].client_")), "{error}");
    // A node that is no table is one problem, not one for each missing key.
    assert_eq!(load("accounts = [1]").unwrap_err(), "koregate.toml:1: accounts[0]: is an integer; it must be a table");
}

#[test]
fn configuration_without_accounts_is_refused() {
    assert_eq!(load("[window]\nchunk = \"1h\"").unwrap_err(), "koregate.toml: accounts: is missing");
    let empty = "koregate.toml:2: accounts: is empty; there must be at least one account";
    assert_eq!(load("\naccounts = []").unwrap_err(), empty);
}

#[test]
fn syntax_error_names_its_line_and_the_key_before_it() {
    for (toml, start) in [
        ("[server]\nlisten = \"127.0.0.1:80\nadmin_listen = 1", "koregate.toml:2: server.listen: "),
        ("[cache]\nmemory = \n", "koregate.toml:2: cache.memory: "),
        ("[cache]\nmemory = 1\n\nmemory = 2", "koregate.toml:4: cache.memory: "),
        ("[[accounts]]\nquota = { limits = [\n  { requests = 1 per = 2 },\n]}", "koregate.toml:3: accounts.per: "),
        ("\n[server", "koregate.toml:2: server: "),
        ("@", "koregate.toml:1: "),
    ] {
        let error = load(toml).unwrap_err();
        assert!(error.starts_with(start), "{toml}\n{error}");
    }
}
