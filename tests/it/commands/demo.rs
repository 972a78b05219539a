//! `koregate demo`.

use crate::support::{run_koregate, text};

#[test]
fn demo_once_ends_with_a_percentage_that_matches_its_numbers() {
    let output = run_koregate(&["demo", "--once"], &[], "");
    let printed = text(&output.stdout);
    assert_eq!(output.status.code(), Some(0), "{printed}");
    // The demo ends by itself, so it is neither stopped nor sent a request by hand.
    assert!(!printed.contains("Ctrl-C") && !printed.contains("curl"), "{printed}");
    let numbers = |line: &str| -> Vec<u64> { line.split([' ', ':']).filter_map(|word| word.parse().ok()).collect() };
    let calls_of = |service: &str| {
        let row = printed.lines().find(|line| line.trim_start().starts_with(service)).unwrap();
        let row: Vec<&str> = row.split_whitespace().collect();
        row[3].parse::<u64>().unwrap()
    };
    let services: u64 = ["bi-load", "qa-dashboard", "compliance-export"].map(calls_of).iter().sum();
    let total = printed.lines().find(|line| line.contains("Alone they would have called Kore")).unwrap();
    let [alone, spent, percent] = numbers(total)[..] else { panic!("{total}") };
    assert_eq!(percent, (alone - spent) * 100 / alone, "{total}");
    // Up to five runs end without a response that reports their last call.
    assert!((services..=services + 5).contains(&alone), "{services} by the services, {total}");
}
