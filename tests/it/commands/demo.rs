//! `koregate demo`.

use std::process::Command;

use crate::support::{KoregateProcess, text};

/// Lines and columns of the smallest usual terminal.
const SCREEN: (usize, usize) = (24, 80);

#[tokio::test]
async fn demo_shows_its_savings_and_a_request_that_works() {
    let mut demo = KoregateProcess::start(&["demo"], &[]);
    demo.wait_for_line(|line| line.contains("stops the demo").then_some(())).await;
    let printed = demo.output();
    let width = printed.lines().map(|line| line.chars().count()).max();
    assert!(width <= Some(SCREEN.1), "{width:?} columns: {printed}");
    assert!(printed.contains("Status page: http://127.0.0.1:"), "{printed}");
    assert_savings(&printed);

    let begin = printed.find("  curl ").unwrap();
    let command = printed[begin..].split("\n\n").next().unwrap();
    let answer = Command::new("sh").args(["-c", command]).output().unwrap();
    let answer = text(&answer.stdout);
    assert!(answer.starts_with("HTTP/1.1 200 OK") && answer.contains("\"numResults\":1"), "{command}\n{answer}");
    assert!(answer.to_lowercase().contains("\ncache-status: koregate; hit"), "{answer}");
    assert!(answer.lines().count() < SCREEN.0, "{} lines: {answer}", answer.lines().count());

    demo.terminate();
    assert_eq!(demo.wait().await.0, Some(0));
}

/// Compares the share saved with the numbers from which it follows.
fn assert_savings(printed: &str) {
    let row = |name: &str| -> Vec<u64> {
        let is_row = |line: &&str| line.trim_start().starts_with(name) && !line.contains("pages");
        let line = printed.lines().rev().find(is_row).unwrap();
        line.replace(',', "").split_whitespace().filter_map(|word| word.parse().ok()).collect()
    };
    let services = ["bi-load", "qa-dashboard", "compliance-export"].map(row);
    let [requests, items, alone, calls, percent] = row("together")[..] else { panic!("{printed}") };
    for (column, total) in [requests, items, alone].into_iter().enumerate() {
        assert_eq!(services.iter().map(|service| service[column]).sum::<u64>(), total, "{printed}");
    }
    assert!(calls > 0 && calls < alone && percent == (alone - calls) * 100 / alone, "{printed}");
    // From the first second on, the progress has numbers.
    assert!(printed.lines().filter(|line| line.contains("at work")).count() >= 2, "{printed}");
}
