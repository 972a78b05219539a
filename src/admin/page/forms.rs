//! The first request to try, signing in and out, and the steps of a purge.

use std::fmt::Write as _;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};

use super::format::number;
use super::template::small_page;
use crate::admin::views::status::Status;
use crate::problem::escape_html;

/// A request to try, from the configuration.
#[derive(Clone, Debug)]
pub(in crate::admin) struct ExampleRequest<'a> {
    /// The listener for callers.
    pub(in crate::admin) addr: SocketAddr,
    pub(in crate::admin) is_tls: bool,
    /// The first stream that is named anywhere.
    pub(in crate::admin) stream: Option<&'a str>,
    /// The first account, if a request has to name one.
    pub(in crate::admin) account: Option<&'a str>,
    /// Whether callers are configured, so that a key is needed.
    pub(in crate::admin) needs_key: bool,
    /// A day that has passed.
    pub(in crate::admin) day: String,
}

/// The advice on what to do first, as long as nothing has been requested.
pub(super) fn first_request(example: Option<&ExampleRequest<'_>>) -> String {
    let Some(ExampleRequest { addr, is_tls, stream, account, needs_key, day }) = example else { return String::new() };
    let host = match addr.ip() {
        IpAddr::V4(ip) if ip.is_unspecified() => IpAddr::V4(Ipv4Addr::LOCALHOST),
        IpAddr::V6(ip) if ip.is_unspecified() => IpAddr::V6(Ipv6Addr::LOCALHOST),
        ip => ip,
    };
    let (scheme, host) = (if *is_tls { "https" } else { "http" }, SocketAddr::new(host, addr.port()));
    let mut command = format!(
        "curl -i '{scheme}://{host}/agentassist/api/v1/public/{}/v2/agentassistinteractions?from={day}&to={day}&limit=2'",
        stream.unwrap_or("STREAM")
    );
    if let Some(account) = account {
        let _ = write!(command, " \\\n  -H 'accountId: {account}'");
    }
    if *needs_key {
        command.push_str(" \\\n  -H \"x-api-key: $KOREGATE_API_KEY\"");
    }
    let note = if stream.is_none() { "<p>Write one of your streams in the place of STREAM.</p>" } else { "" };
    format!(
        "<section aria-labelledby=\"first-title\"><h2 id=\"first-title\">Nothing has been requested yet</h2>\
         <p>This asks for two items of a day. Then the day is cached, and the same request costs no call:</p>\
         <pre class=\"scroll\" id=\"first-command\" tabindex=\"0\" role=\"group\" aria-label=\"A request to try\">{}</pre>{note}\
         <p><button type=\"button\" data-copy=\"first-command\" id=\"first-copy\" hidden>Copy</button></p></section>",
        escape_html(&command)
    )
}

/// The button that ends the session.
pub(super) fn sign_out(csrf: &str) -> String {
    format!(
        "<form method=\"post\" action=\"sign-out\"><input type=\"hidden\" name=\"csrf\" value=\"{csrf}\">\
         <button>Sign out</button></form>"
    )
}

/// The choice of the account to purge.
pub(super) fn account_choice(status: &Status) -> String {
    let mut options = String::new();
    for account in &status.accounts {
        let id = escape_html(&account.account_id);
        let _ = write!(options, "<option value=\"{id}\">{id}</option>");
    }
    format!("<label>Account <select name=\"account\">{options}</select></label>")
}

/// The page that asks for the admin token; `was_wrong` if one was sent that is not it.
pub(in crate::admin) fn sign_in(was_wrong: bool) -> String {
    let wrong = if was_wrong { "<p class=\"bad\" role=\"alert\">This is not the admin token.</p>" } else { "" };
    let content = format!(
        "<h1>Sign in</h1>{wrong}<p>The status page needs the admin token (<code>admin.token</code>). The browser keeps a \
         session of 12 hours in its place.</p>\
         <form id=\"sign-in-form\" method=\"post\" action=\"sign-in\"><label>Admin token \
         <input type=\"password\" name=\"token\" autocomplete=\"current-password\" required autofocus></label>\
         <p class=\"actions\"><button>Sign in</button></p></form>"
    );
    small_page("koregate: sign in", "<script src=\"assets/sign_in.js\" defer></script>", &content)
}

/// A purge that was asked for and waits for its confirmation.
#[derive(Clone, Debug)]
pub(in crate::admin) struct PurgeQuestion {
    pub(in crate::admin) account: String,
    pub(in crate::admin) stream: Option<String>,
    pub(in crate::admin) from: Option<String>,
    pub(in crate::admin) to: Option<String>,
    /// Number of days with anything in the cache of this replica, in the last months.
    pub(in crate::admin) cached_days: usize,
    pub(in crate::admin) csrf: String,
}

/// The page that says what a purge will remove, and asks.
pub(in crate::admin) fn confirm_purge(question: &PurgeQuestion) -> String {
    let PurgeQuestion { account, stream, from, to, cached_days, csrf } = question;
    let escaped = |text: &Option<String>| text.as_deref().map(escape_html);
    let (stream, from, to) = (escaped(stream), escaped(from), escaped(to));
    let account = escape_html(account);
    let what = match &stream {
        Some(stream) => format!("stream <strong>{stream}</strong> of account <strong>{account}</strong>"),
        None => format!("<strong>all streams</strong> of account <strong>{account}</strong>"),
    };
    let time = match (&from, &to) {
        (None, None) => "of <strong>all time</strong>".to_owned(),
        (Some(from), None) => format!("from <strong>{from}</strong> on"),
        (None, Some(to)) => format!("up to <strong>{to}</strong>, that day included"),
        (Some(from), Some(to)) => format!("from <strong>{from}</strong> to <strong>{to}</strong>, that day included"),
    };
    let mut fields = format!("<input type=\"hidden\" name=\"account\" value=\"{account}\">");
    for (name, value) in [("stream", &stream), ("from", &from), ("to", &to)] {
        if let Some(value) = value {
            let _ = write!(fields, "<input type=\"hidden\" name=\"{name}\" value=\"{value}\">");
        }
    }
    let days = match cached_days {
        0 => "This replica has nothing of it in memory or on disk for the last 400 days; other replicas and Redis may."
            .to_owned(),
        1 => "This replica has data of 1 day of it, of the last 400.".to_owned(),
        days => format!("This replica has data of {} days of it, of the last 400.", number(*days as u64)),
    };
    let content = format!(
        "<h1>Remove this from the cache?</h1>\
         <p>Everything that is cached for {what}, {time}, will be removed from memory, disk and Redis, on all replicas. \
         {days} It cannot be undone: what is requested again is fetched from Kore again, and costs calls.</p>\
         <form method=\"post\" action=\"purge\"><input type=\"hidden\" name=\"csrf\" value=\"{}\">\
         <input type=\"hidden\" name=\"confirm\" value=\"yes\">{fields}\
         <p class=\"actions\"><a class=\"button\" href=\"./\">Cancel</a> <button class=\"danger\">Purge now</button></p></form>",
        escape_html(csrf)
    );
    small_page("koregate: purge", "", &content)
}

/// The page with the result of a purge; `left` explains what is not done.
pub(in crate::admin) fn purge_result(removed: &str, left: &[String]) -> String {
    let mut content = if left.is_empty() {
        format!("<h1>Purged</h1><p>It has left the cache: {}.</p>", escape_html(removed))
    } else {
        format!("<h1>Purged in part</h1><p>{}. What is left:</p><ul class=\"problems\">", escape_html(removed))
    };
    for left in left {
        let _ = write!(content, "<li>{}</li>", escape_html(left));
    }
    if !left.is_empty() {
        content.push_str("</ul>");
    }
    content.push_str("<p class=\"actions\"><a class=\"button\" href=\"./\">Back to the status page</a></p>");
    small_page("koregate: purged", "", &content)
}

/// The page about a purge, or another change, that was refused.
pub(in crate::admin) fn purge_refused(why: &str) -> String {
    let content = format!(
        "<h1>Nothing was changed</h1><p>{}.</p><p class=\"actions\"><a class=\"button\" href=\"./\">Back to the status page</a></p>",
        escape_html(why)
    );
    small_page("koregate: refused", "", &content)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn first_request_is_one_that_the_configuration_allows() {
        let example = ExampleRequest {
            addr: "0.0.0.0:8080".parse().unwrap(),
            is_tls: true,
            stream: None,
            account: Some("a"),
            needs_key: true,
            day: "2026-02-23".to_owned(),
        };
        let html = first_request(Some(&example));
        for part in ["https://127.0.0.1:8080/", "/STREAM/", "from=2026-02-23&amp;to=", "accountId: a", "x-api-key"] {
            assert!(html.contains(part), "{part} in {html}");
        }
        let plain = ExampleRequest { is_tls: false, stream: Some("st-1"), account: None, needs_key: false, ..example };
        let html = first_request(Some(&plain));
        assert!(html.contains("http://127.0.0.1:8080/agentassist/api/v1/public/st-1/"), "{html}");
        assert!(!html.contains("accountId") && !html.contains("x-api-key"), "{html}");
        assert_eq!(first_request(None), "");
    }

    #[test]
    fn confirmation_names_all_that_is_removed_and_escapes_it() {
        let question = PurgeQuestion {
            account: "a".to_owned(),
            stream: Some("\"><script>".to_owned()),
            from: None,
            to: Some("2026-02-23".to_owned()),
            cached_days: 2,
            csrf: "c".to_owned(),
        };
        let html = confirm_purge(&question);
        assert!(!html.contains("<script>") && html.contains("&quot;&gt;&lt;script&gt;"), "{html}");
        assert!(html.contains("up to <strong>2026-02-23</strong>") && html.contains("data of 2 days"), "{html}");
        let everything = PurgeQuestion { stream: None, to: None, ..question };
        let html = confirm_purge(&everything);
        assert!(html.contains("<strong>all streams</strong>") && html.contains("<strong>all time</strong>"), "{html}");
    }
}
