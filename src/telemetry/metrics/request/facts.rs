//! Facts of a request for its line of the log, however it ended. They are read only where the line is written. Texts of
//! the client, which metrics must not have as labels.

use std::borrow::Cow;
use std::net::SocketAddr;

use percent_encoding::percent_decode_str;

/// The path before the stream.
const BEFORE_STREAM: &str = "/agentassist/api/v1/public/";
/// Maximum bytes of each text of the client in a line of the log.
const MAX_TEXT_LENGTH: usize = 128;

/// The parts of a request's head that are logged, and where it came from.
#[derive(Clone, Copy, Debug, Default)]
pub struct RequestFacts<'a> {
    /// The method, of any length.
    pub method: &'a str,
    /// The path, and the query after a `?`.
    pub target: &'a str,
    /// The account that the request names, of any length.
    pub account: Option<&'a str>,
    /// The address that the connection came from.
    pub peer: Option<SocketAddr>,
}

impl<'a> RequestFacts<'a> {
    /// The method, cut as the texts below.
    pub fn method(&self) -> &'a str {
        shortened(self.method)
    }

    /// The path, cut as the texts below.
    pub fn path(&self) -> &'a str {
        shortened(self.target.split('?').next().unwrap_or_default())
    }

    /// The account that the request names.
    pub(super) fn account(&self) -> Option<&'a str> {
        self.account.map(shortened)
    }

    /// The stream that the request names.
    pub fn stream(&self) -> Option<Cow<'a, str>> {
        let path = self.target.split('?').next().unwrap_or_default();
        let (stream, _) = path.strip_prefix(BEFORE_STREAM)?.split_once('/')?;
        Some(match percent_decode_str(stream).decode_utf8_lossy() {
            Cow::Borrowed(stream) => shortened(stream).into(),
            Cow::Owned(stream) => shortened(&stream).to_owned().into(),
        })
    }

    /// The query of the request. Only the parameters of a window are logged, if they are times and numbers.
    pub(super) fn query(&self) -> &'a str {
        self.target.split_once('?').map_or("", |(_, query)| query)
    }
}

/// The beginning of `text`.
fn shortened(text: &str) -> &str {
    &text[..text.floor_char_boundary(MAX_TEXT_LENGTH)]
}

#[cfg(test)]
mod tests {
    use super::*;

    fn facts(target: &str) -> RequestFacts<'_> {
        RequestFacts { method: "POST", target, account: Some("acc-1"), peer: None }
    }

    #[test]
    fn facts_are_read_from_the_target_and_cut() {
        let path = "/agentassist/api/v1/public/st%2D1/v2/agentassistinteractions";
        let target = format!("{path}?limit=-1&x=?");
        assert_eq!((facts(&target).stream().as_deref(), facts(&target).query()), (Some("st-1"), "limit=-1&x=?"));
        for (long, cut) in [("s", "s"), ("%2D", "-")] {
            let target = path.replace("st%2D1", &long.repeat(200));
            assert_eq!(facts(&target).stream().as_deref(), Some(&*cut.repeat(MAX_TEXT_LENGTH)));
        }
        let long = "a".repeat(200);
        let facts = RequestFacts { method: &long, account: Some(&long), ..facts(&long) };
        assert_eq!([facts.method(), facts.path(), facts.account().unwrap()].map(str::len), [MAX_TEXT_LENGTH; 3]);
    }

    #[test]
    fn request_without_a_window_has_no_stream_and_no_parameters() {
        for target in ["/koregate/v1/usage", "/agentassist/api/v1/public/st?x=/", ""] {
            assert_eq!(facts(target).stream(), None, "{target}");
        }
        assert_eq!(facts("/koregate/v1/usage").query(), "");
    }
}
