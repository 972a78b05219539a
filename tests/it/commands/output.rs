//! Where the output of a command cannot be written: exit codes, and no panic.

use std::io::{BufRead as _, BufReader};
use std::path::Path;
use std::process::{Command, Stdio};

use crate::support::{KOREGATE_BINARY, environment, text};

/// Every command that prints a result, and two that clap answers.
const PRINTING: [&[&str]; 8] = [
    &["check"],
    &["key"],
    &["token"],
    &["simulate", "--listen", "127.0.0.1:0", "--days", "1"],
    &["demo", "--once"],
    &["warm", "--estimate", "--stream", "st-1", "--from", "2026-01-01", "--to", "2026-01-02"],
    &["--help"],
    &["--version"],
];

fn koregate(arguments: &[&str], directory: &Path) -> Command {
    let mut command = Command::new(KOREGATE_BINARY);
    command.args(arguments).env_clear().envs(environment("http://127.0.0.1:1"));
    command.env("KOREGATE__QUOTA__STATE_FILE", directory.join("state"));
    command.stdin(Stdio::null()).stderr(Stdio::piped());
    command
}

#[test]
fn full_disk_is_exit_code_1_with_a_reason() {
    let directory = tempfile::tempdir().unwrap();
    for arguments in PRINTING {
        let full = std::fs::OpenOptions::new().write(true).open("/dev/full").unwrap();
        let output = koregate(arguments, directory.path()).stdout(full).output().unwrap();
        let errors = text(&output.stderr);
        assert_eq!(output.status.code(), Some(1), "{arguments:?}: {errors}");
        assert!(errors.contains("standard output cannot be written: No space left"), "{arguments:?}: {errors}");
    }
}

#[test]
fn closed_pipe_ends_a_command_quietly() {
    let directory = tempfile::tempdir().unwrap();
    // `simulate` goes on without a reader.
    for arguments in PRINTING.iter().filter(|arguments| arguments[0] != "simulate") {
        let mut child = koregate(arguments, directory.path()).stdout(Stdio::piped()).spawn().unwrap();
        let mut stdout = BufReader::new(child.stdout.take().unwrap());
        if arguments[0] == "demo" {
            // As `head -n 1` does.
            stdout.read_line(&mut String::new()).unwrap();
        }
        drop(stdout);
        let output = child.wait_with_output().unwrap();
        let errors = text(&output.stderr);
        assert_eq!(output.status.code(), Some(0), "{arguments:?}: {errors}");
        assert!(!errors.contains("panicked") && !errors.contains("standard output"), "{arguments:?}: {errors}");
    }
}
