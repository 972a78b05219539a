//! The text of `warm --estimate`.

use crate::cli::span::{Cost, Span};
use crate::units::print_duration_roughly;

/// The cost of caching `span`.
pub(super) fn describe(cost: &Cost, span: &Span) -> String {
    if cost.is_cached {
        return "calls     0: all of it is cached\n".to_owned();
    }
    let calls = match cost.expected {
        Some(calls) => format!("about {calls}, at least {}", cost.at_least),
        None => format!("at least {}: nothing of the stream is cached, so its density is not known", cost.at_least),
    };
    let (rows, time) = cost.known;
    let known = match rows {
        0 => "none cached".to_owned(),
        _ => format!("{rows} cached, in {} of the stream", print_duration_roughly(time)),
    };
    let wait = match cost.expected {
        Some(_) => format!("about {} of quota", print_duration_roughly(cost.wait)),
        None => "not known".to_owned(),
    };
    let length = print_duration_roughly(span.length());
    format!(
        "span      {length}\ncalls     {calls}\nrows      {known}\ntime      {wait}, and the time that Kore takes to answer\n"
    )
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;

    #[test]
    fn estimate_has_calls_rows_and_time() {
        let span = Span::parse("2026-02-01", "2026-02-28").unwrap();
        let cost = Cost {
            at_least: 12,
            expected: Some(476),
            wait: Duration::from_mins(8),
            is_cached: false,
            known: (3000, Duration::from_hours(48)),
            settled_until: None,
            source: None,
        };
        let expected = "span      28d\ncalls     about 476, at least 12\nrows      3000 cached, in 2d of the stream\n\
                        time      about 8m of quota, and the time that Kore takes to answer\n";
        assert_eq!(describe(&cost, &span), expected);
        let unknown = describe(&Cost { expected: None, known: (0, Duration::ZERO), ..cost.clone() }, &span);
        assert!(unknown.contains("density is not known") && unknown.contains("none cached"), "{unknown}");
        assert!(describe(&Cost { is_cached: true, ..cost }, &span).contains("all of it is cached"));
    }
}
