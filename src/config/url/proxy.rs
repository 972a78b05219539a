//! `upstream.proxy`: the proxy through which calls go, written down or taken from the environment.

use secrecy::ExposeSecret as _;
use serde_json::json;

use crate::config::schema::described;
use crate::config::table_reader::TableReader;
use crate::config::url;
use crate::config::value_tree::{ConfigNode, Value};
use crate::config::{ProxyConfig, parse};

/// The value of `proxy` that names the environment.
pub(in crate::config) const ENVIRONMENT: &str = "env";
const EXPECTED: &str = "write { url = \"http://proxy:3128\" }, or \"env\" for HTTPS_PROXY and NO_PROXY";

/// The proxy of `[upstream]`; `None` if the key is absent or its value is reported as a problem.
pub(in crate::config) fn proxy(upstream: &mut TableReader<'_>) -> Option<ProxyConfig> {
    upstream.describe("proxy", schema);
    let node = upstream.take("proxy")?;
    if is_text(&node) {
        if parse::text(&node, EXPECTED).is_ok_and(|text| text == ENVIRONMENT) {
            return environment(upstream);
        }
        // Not quoted: it may be a URL with a password.
        upstream.report("proxy", format!("is no proxy; {EXPECTED}"));
        return None;
    }
    let mut table = TableReader::new(upstream.context, upstream.path_of("proxy"), node);
    let url = table.required("url", |node: &ConfigNode| url::proxy_url(parse::text(node, EXPECTED)?));
    let credentials = table.optional_secret("credentials");
    if credentials.as_ref().is_some_and(|credentials| !is_user_and_password(credentials.expose_secret())) {
        table.report("credentials", "is not a user and a password of visible ASCII with a colon between them");
    }
    table.finish();
    Some(ProxyConfig::Fixed { url: url?, credentials })
}

fn environment(upstream: &TableReader<'_>) -> Option<ProxyConfig> {
    let variable = |names: [&str; 2]| {
        names.into_iter().find_map(|name| upstream.context.environment.get(name).filter(|value| !value.is_empty()))
    };
    let https_proxy = variable(["https_proxy", "HTTPS_PROXY"]);
    if let Some(https_proxy) = https_proxy
        && let Err(message) = url::check_environment_proxy(https_proxy)
    {
        upstream.report("proxy", format!("HTTPS_PROXY {message}"));
        return None;
    }
    let no_proxy = variable(["no_proxy", "NO_PROXY"]).cloned().unwrap_or_default();
    Some(ProxyConfig::Environment { https_proxy: https_proxy.map(|text| text.as_str().into()), no_proxy })
}

fn is_text(node: &ConfigNode) -> bool {
    match &node.value {
        Value::String(_) => true,
        Value::Raw(text) => !text.trim_start().starts_with('{'),
        _ => false,
    }
}

fn is_user_and_password(text: &str) -> bool {
    text.contains(':') && text.bytes().all(|byte| byte.is_ascii_graphic())
}

fn schema() -> serde_json::Value {
    let mut table = described::table();
    let url = json!({ "type": "string", "format": "uri", "pattern": "^[hH][tT][tT][pP]://" });
    table["properties"] = json!({ "url": url, "credentials": described::secret() });
    table["required"] = json!(["url"]);
    json!({ "anyOf": [{ "const": ENVIRONMENT }, table] })
}
