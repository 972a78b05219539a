//! The pages to which the `type` of a problem document resolves: one for each type, and their list.

use bytes::Bytes;
use http::{HeaderValue, Response, header};
use http_body_util::Full;

use super::document::Problem;
use super::types::{PAGES_PATH, PageText, ProblemType};

/// Request id in the examples.
const EXAMPLE_REQUEST_ID: &str = "01a2163b-46a0-73d2-8a9c-4fc26a9760e4";
/// Styles of all pages.
const STYLE: &str = "body{font:1rem/1.5 system-ui,sans-serif;max-width:44rem;margin:2rem auto;padding:0 1rem}\
                     pre{background:#f4f4f4;padding:1rem;overflow:auto}dt{margin-top:.5rem}";

/// Whether the path is that of the list, or that of a page, known or not.
pub(crate) fn is_page_path(path: &str) -> bool {
    path.starts_with(PAGES_PATH)
}

/// The page at `path`, or the list; `None` if there is no such type.
pub(crate) fn page(path: &str) -> Option<Response<Full<Bytes>>> {
    let name = path.strip_prefix(PAGES_PATH)?;
    if name.is_empty() {
        return Some(respond(list()));
    }
    ProblemType::ALL.into_iter().find(|kind| kind.name() == name).map(|kind| respond(describe(kind)))
}

fn respond(html: String) -> Response<Full<Bytes>> {
    let mut response = Response::new(Full::from(html));
    let headers = response.headers_mut();
    for (name, value) in [
        (header::CONTENT_TYPE, "text/html; charset=utf-8"),
        (header::CACHE_CONTROL, "public, max-age=3600"),
        (header::CONTENT_SECURITY_POLICY, "default-src 'none'; style-src 'unsafe-inline'"),
        (header::X_CONTENT_TYPE_OPTIONS, "nosniff"),
    ] {
        headers.insert(name, HeaderValue::from_static(value));
    }
    response
}

fn list() -> String {
    let entry = |kind: ProblemType| {
        let (uri, name, status, title) = (kind.uri(), kind.name(), kind.status().as_u16(), escape_html(kind.title()));
        format!("<dt>{status} <a href=\"{uri}\"><code>{name}</code></a></dt><dd>{title}</dd>\n")
    };
    let entries: String = ProblemType::ALL.into_iter().map(entry).collect();
    html("Problem types of koregate", &format!("<dl>\n{entries}</dl>\n"))
}

fn describe(kind: ProblemType) -> String {
    let PageText { meaning, remedy, .. } = kind.page_text();
    let (meaning, remedy, example) = (escape_html(meaning), escape_html(remedy), escape_html(&example(kind)));
    let body = format!(
        "<p>Status {}, type <code>{}</code>.</p>\n<h2>What it means</h2>\n<p>{meaning}</p>\n<h2>What to do</h2>\n\
         <p>{remedy}</p>\n<h2>Example</h2>\n<pre>{example}</pre>\n<p><a href=\"{PAGES_PATH}\">All problem types</a></p>\n",
        escape_html(&kind.status().to_string()),
        kind.uri(),
    );
    html(kind.title(), &body)
}

/// A document of the type, as it may be sent.
fn example(kind: ProblemType) -> String {
    let problem = Problem::new(kind, kind.page_text().detail).with_request_id(EXAMPLE_REQUEST_ID).with_kore_code();
    let policies: Vec<&str> = kind.example_policy().into_iter().collect();
    problem.with_violated_policies(&policies).to_pretty_json()
}

fn html(title: &str, body: &str) -> String {
    let title = escape_html(title);
    format!(
        "<!doctype html>\n<html lang=\"en\">\n<head>\n<meta charset=\"utf-8\">\n\
         <meta name=\"viewport\" content=\"width=device-width\">\n<title>{title}</title>\n<style>{STYLE}</style>\n\
         </head>\n<body>\n<h1>{title}</h1>\n{body}</body>\n</html>\n"
    )
}

/// The text as HTML, within elements and attributes.
pub(crate) fn escape_html(text: &str) -> String {
    text.replace('&', "&amp;").replace('<', "&lt;").replace('>', "&gt;").replace('"', "&quot;")
}

#[cfg(test)]
mod tests {
    use std::collections::HashSet;

    use http_body_util::BodyExt as _;

    use super::*;

    async fn text(path: &str) -> Option<String> {
        let body = page(path)?.into_body().collect().await.unwrap().to_bytes();
        Some(String::from_utf8(body.into()).unwrap())
    }

    #[tokio::test]
    async fn each_type_resolves_to_its_own_page() {
        let list = text(PAGES_PATH).await.unwrap();
        let mut titles = HashSet::new();
        for kind in ProblemType::ALL {
            let document: serde_json::Value =
                serde_json::from_slice(&Problem::new(kind, "a detail").to_json()).unwrap();
            let uri = document["type"].as_str().unwrap();
            let page = text(uri).await.unwrap_or_else(|| panic!("no page at {uri}"));
            let title = document["title"].as_str().unwrap();
            assert!(page.contains(&format!("<h1>{}</h1>", escape_html(title))) && titles.insert(kind.title()), "{uri}");
            for part in [kind.page_text().meaning, kind.page_text().remedy, kind.page_text().detail] {
                assert!(!part.is_empty() && page.contains(&escape_html(part)) || part.contains('"'), "{uri}: {part}");
            }
            assert!(list.contains(&format!("href=\"{uri}\"")), "{uri} is not in the list");
        }
    }

    #[tokio::test]
    async fn unknown_name_has_no_page() {
        for path in ["bad_request", "Bad-Request", "bad-request/", "nothing", "../usage"] {
            assert!(text(&format!("{PAGES_PATH}{path}")).await.is_none(), "{path}");
        }
        assert!(is_page_path(&format!("{PAGES_PATH}nothing")) && !is_page_path("/koregate/v1/usage"));
    }

    #[tokio::test]
    async fn page_escapes_its_text() {
        assert_eq!(escape_html("<a href=\"x\">&"), "&lt;a href=&quot;x&quot;&gt;&amp;");
        let page = text(&ProblemType::TooManyRequests.uri()).await.unwrap();
        assert!(page.contains("&quot;violated-policies&quot;: [\n    &quot;caller&quot;"), "{page}");
    }
}
