//! Sources of secrets, and errors that do not quote them.

use super::*;

/// The first account, with `secret` as its `client_secret`, on line 4.
fn account_with(secret: &str) -> String {
    format!("[[accounts]]\naccount_id = \"acc-1\"\nclient_id = \"cs-1\"\nclient_secret = {secret}\n")
}

fn secret_of(config: &Config) -> &str {
    config.accounts[0].client_secret.expose_secret()
}

#[test]
fn one_final_newline_of_a_secret_file_is_removed() {
    let dir = TempDir::new().unwrap();
    let file = dir.path().join("secret");
    let toml = account_with(&format!("{{ file = '{}' }}", file.display()));
    for (written, secret) in
        [("a", "a"), ("a\n", "a"), ("a\r\n", "a"), ("a\n\n", "a\n"), (" a ", " a "), ("a\r", "a\r")]
    {
        fs::write(&file, written).unwrap();
        assert_eq!(secret_of(&load(&toml).unwrap()), secret, "{written:?}");
    }
    for (written, says) in [(&b""[..], "empty"), (b"\n", "empty"), (b"\r\n", "empty"), (b"hunter2\xff", "not UTF-8")] {
        fs::write(&file, written).unwrap();
        let error = load(&toml).unwrap_err();
        assert!(error.starts_with("koregate.toml:4: accounts[0].client_secret.file: "), "{error}");
        assert!(error.contains(says) && !error.contains("hunter2"), "{error}");
    }
}

#[test]
fn variable_overrides_the_source_of_a_secret() {
    let variables = [("KOREGATE__ACCOUNTS__0__CLIENT_SECRET__ENV", "OTHER"), ("OTHER", "from-other")];
    for secret in ["{ file = \"/none\" }", "{ env = \"NONE\" }"] {
        assert_eq!(secret_of(&load_with(&account_with(secret), &variables).unwrap()), "from-other");
    }
    let variables = [("KOREGATE__ACCOUNTS__0__CLIENT_SECRET", "{ env = \"OTHER\" }"), ("OTHER", "from-other")];
    assert_eq!(secret_of(&load_with(MINIMAL, &variables).unwrap()), "from-other");
}

#[test]
fn redis_url_is_accepted_as_a_literal_or_a_secret() {
    let url = |config: Config| config.cache.redis.unwrap().url.expose_secret().to_owned();
    let redis = |url: &str| format!("{MINIMAL}[cache]\nredis = {{ url = {url} }}\n");
    let literal = load(&redis("\"rediss://u:hunter2@h:1/2\"")).unwrap();
    assert_eq!(url(literal), "rediss://u:hunter2@h:1/2");
    let by_reference = load_with(&redis("{ env = \"REDIS\" }"), &[("REDIS", "redis://:hunter2@h")]).unwrap();
    assert_eq!(url(by_reference), "redis://:hunter2@h");
    let error = load_with(&redis("{ env = \"REDIS\" }"), &[("REDIS", "http://:hunter2@h")]).unwrap_err();
    assert!(error.starts_with("koregate.toml:6: cache.redis.url: has a scheme that is neither"), "{error}");
    assert!(!error.contains("hunter2"), "{error}");
}

#[test]
fn admin_token_that_no_header_can_carry_is_refused() {
    let toml = format!("{MINIMAL}[admin]\ntoken = {{ env = \"TOKEN\" }}\n");
    let token = |token: &str| load_with(&toml, &[("TOKEN", token)]);
    assert_eq!(token("5e5e").unwrap().admin.token.unwrap().expose_secret(), "5e5e");
    for refused in ["hunter2 hunter2", "hunter2\n", "hunter2é"] {
        let error = token(refused).unwrap_err();
        assert!(
            error.starts_with("koregate.toml:6: admin.token: holds a space") && !error.contains("hunter2"),
            "{error}"
        );
    }
}

/// `hunter2` is written in many wrong places; each error names the line and the key, and does not quote it.
#[test]
fn no_error_quotes_a_value_in_place_of_a_secret() {
    let refused = "a secret is not written down here; write { file = \"/path/of/the/secret\" } or { env = \"";
    for (secret, says) in [
        ("\"hunter2\"", refused),
        ("'hunter2'", refused),
        ("[\"hunter2\"]", refused),
        ("4711", refused),
        ("{ env = \"hunter2\" }", "the variable that it names is not set"),
        ("{ file = \"hunter2\" }", "the file that it names cannot be read"),
        ("{ file = \"hunter2\", env = \"SECRET\" }", "names both a file and a variable"),
        ("{ value = \"hunter2\" }", "names no secret"),
        ("{ file = [\"hunter2\"] }", "is a list; it must be a string"),
        ("{ env = \"SECRET\", value = \"hunter2\" }", "value: unknown key"),
        ("\"hunter2", ""),
        ("hunter2", ""),
        ("\"hunter2\" hunter2", ""),
        ("\"\\hunter2\"", ""),
        ("{ env = \"hunter2\", env = \"hunter2\" }", ""),
        ("\"hunter2\"\nclient_secret = \"hunter2\"", ""),
    ] {
        let error = load(&account_with(secret)).expect_err(secret);
        assert!(error.starts_with("koregate.toml:") && error.contains("client_secret"), "{secret}: {error}");
        assert!(error.contains(says), "{secret}: {error}");
        assert!(!error.contains("hunter2") && !error.contains("4711"), "{secret}: {error}");
    }
    let digest = "[[callers]]\nname = \"etl\"\napi_key_sha256 = ";
    for added in [
        "[cache]\nredis = \"redis://:hunter2@h\"".to_owned(),
        "[cache]\nredis = { url = \"redis://:hunter2@h:port\" }".to_owned(),
        "[cache]\nredis = { url = \"redis://:hunter2@h }".to_owned(),
        "[cache]\nredis = { url = redis://:hunter2@h }".to_owned(),
        "[cache]\nredis = { url = [\"redis://:hunter2@h\"] }".to_owned(),
        "[cache]\nredis = { url = \"redis://h\", encryption_key = \"hunter2\" }".to_owned(),
        "[upstream]\nbase_url = \"https://me:hunter2@kore.example\"".to_owned(),
        "[upstream]\nbase_url = \"https://me:hunter2 @kore.example\"".to_owned(),
        format!("{digest}\"hunter2\""),
        format!("{digest}{{ env = \"hunter2\" }}"),
        format!("{digest}[\"{}\", \"hunter2\"]", "0".repeat(64)),
        format!("{digest}[hunter2]"),
    ] {
        let error = load(&format!("{MINIMAL}{added}\n")).expect_err(&added);
        assert!(!error.contains("hunter2"), "{added}: {error}");
    }
    for (name, value) in [
        ("KOREGATE__ACCOUNTS__0__CLIENT_SECRET", "hunter2"),
        ("KOREGATE__ACCOUNTS__0__CLIENT_SECRET", "{hunter2"),
        ("KOREGATE__ACCOUNTS__0__CLIENT_SECRET__ENV", "hunter2"),
        ("KOREGATE__ACCOUNTS__0__CLIENT_SECRET__FILE", "hunter2"),
        ("KOREGATE__ACCOUNTS__0__CLIENT_SECRET__VALUE", "hunter2"),
        ("KOREGATE__ACCOUNTS__0__CLIENTSECRET", "hunter2"),
        ("KOREGATE__ACCOUNTS", "hunter2"),
        ("KOREGATE__CACHE__REDIS__URL", "redis://:hunter2@h:port"),
        ("KOREGATE__CACHE__REDIS", "redis://:hunter2@h"),
        ("KOREGATE__CALLERS__0__API_KEY_SHA256", "hunter2"),
        ("KOREGATE__CALLERS__0__API_KEY_SHA256", "[hunter2]"),
        ("KOREGATE__CALLERS__0__API_KEY_SHA256", "[\"hunter2\"]"),
    ] {
        let error = load_with(MINIMAL, &[(name, value)]).expect_err(name);
        assert!(error.contains(&format!("environment {name}: ")) && !error.contains("hunter2"), "{name}: {error}");
    }
}

#[test]
fn secret_that_is_not_utf_8_or_empty_is_refused() {
    let error = load_with(&account_with("{ env = \"OTHER\" }"), &[("OTHER", "a\u{fffd}")]).unwrap_err();
    assert_eq!(error, "koregate.toml:4: accounts[0].client_secret.env: the secret is not UTF-8");
    let error = load_with(&account_with("{ env = \"OTHER\" }"), &[("OTHER", "")]).unwrap_err();
    assert_eq!(error, "koregate.toml:4: accounts[0].client_secret.env: the secret is empty");
}
