//! Content negotiation: the form of an answer.

use http::{HeaderMap, HeaderName, Version, header};

/// The form of an answer.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Negotiated {
    pub(super) format: Format,
    pub(super) coding: Coding,
}

/// Format of the body.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Format {
    /// JSON with Kore's envelope.
    Json,
    /// NDJSON: one item per line.
    Ndjson,
}

/// The content coding (RFC 9110, 8.4).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Coding {
    Identity,
    Gzip,
}

impl Negotiated {
    /// The form that `Accept` and `Accept-Encoding` prefer; JSON without a coding by default. The length of a coded
    /// answer is not known in advance, so HTTP/1.0 gets no coding.
    pub(super) fn negotiate(version: Version, headers: &HeaderMap) -> Self {
        let accept = |ranges: &[&str]| quality(headers, &header::ACCEPT, ranges);
        let coding = |codings: &[&str]| quality(headers, &header::ACCEPT_ENCODING, codings);
        let ndjson = accept(&["application/x-ndjson"]).unwrap_or(0.0);
        let json = accept(&["application/json", "application/*", "*/*"]).unwrap_or(0.0);
        let gzip = coding(&["gzip", "x-gzip", "*"]).unwrap_or(0.0);
        let identity = coding(&["identity"]).unwrap_or(0.0);
        Self {
            format: if ndjson > 0.0 && ndjson >= json { Format::Ndjson } else { Format::Json },
            coding: if may_be_chunked(version) && gzip > 0.0 && gzip >= identity {
                Coding::Gzip
            } else {
                Coding::Identity
            },
        }
    }
}

/// Whether an answer to a request of this version may be sent without a length. HTTP/1.0 has no chunked coding: the end
/// of such an answer is the end of the connection, so an aborted one looks complete.
pub(super) fn may_be_chunked(version: Version) -> bool {
    version >= Version::HTTP_11
}

/// The quality value of the first of `names` that a header mentions.
fn quality(headers: &HeaderMap, header: &HeaderName, names: &[&str]) -> Option<f32> {
    let elements: Vec<&str> = headers
        .get_all(header)
        .iter()
        .filter_map(|value| value.to_str().ok())
        .flat_map(|value| value.split(','))
        .collect();
    names.iter().find_map(|expected| {
        elements.iter().find_map(|element| {
            let mut parts = element.split(';').map(str::trim);
            parts.next().filter(|name| name.eq_ignore_ascii_case(expected))?;
            let weight = parts.find_map(|parameter| parameter.strip_prefix("q=").or(parameter.strip_prefix("Q=")));
            Some(weight.map_or(1.0, |weight| weight.trim().parse().unwrap_or(0.0)))
        })
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn negotiated(version: Version, accept: &str, encoding: &str) -> (Format, Coding) {
        let mut headers = HeaderMap::new();
        for (name, value) in [(header::ACCEPT, accept), (header::ACCEPT_ENCODING, encoding)] {
            if !value.is_empty() {
                headers.insert(name, value.parse().unwrap());
            }
        }
        let Negotiated { format, coding } = Negotiated::negotiate(version, &headers);
        (format, coding)
    }

    #[test]
    fn accept_fields_select_the_form() {
        use Coding::{Gzip, Identity};
        use Format::{Json, Ndjson};
        for (accept, encoding, expected) in [
            ("", "", (Json, Identity)),
            ("*/*", "identity", (Json, Identity)),
            ("application/x-ndjson", "gzip, deflate, br", (Ndjson, Gzip)),
            ("application/json, application/x-ndjson;q=0.5", "gzip;q=0", (Json, Identity)),
            ("application/x-ndjson, */*;q=0.1", "br;q=1.0, *;q=0.5", (Ndjson, Gzip)),
            ("application/x-ndjson;q=0", "gzip;q=0.2, identity;q=0.8", (Json, Identity)),
            ("text/html", "br", (Json, Identity)),
        ] {
            assert_eq!(negotiated(Version::HTTP_11, accept, encoding), expected, "{accept} {encoding}");
        }
    }

    #[test]
    fn http_1_0_answer_has_no_coding() {
        let negotiated = negotiated(Version::HTTP_10, "application/x-ndjson", "gzip");
        assert_eq!(negotiated, (Format::Ndjson, Coding::Identity));
    }
}
