//! `koregate schema`, `completions`, `man`, `health` and `wait`.

use std::process::{Command, Stdio};

use crate::support::{GatewayProcess, KOREGATE_BINARY, environment, run_koregate, text};

#[test]
fn schema_is_json_and_a_closed_pipe_is_no_failure() {
    let schema = run_koregate(&["schema"], &[], "");
    let object: serde_json::Value = serde_json::from_slice(&schema.stdout).unwrap();
    assert_eq!(object["$schema"], "https://json-schema.org/draft/2020-12/schema");
    assert_eq!(object["properties"]["window"]["properties"]["chunk"]["default"], "1h");

    for arguments in [&["schema"][..], &["completions", "bash"], &["completions", "zsh"], &["key"]] {
        let mut child = Command::new(KOREGATE_BINARY);
        let mut child = child.args(arguments).stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().unwrap();
        drop(child.stdout.take());
        let output = child.wait_with_output().unwrap();
        assert_eq!(output.status.code(), Some(0), "{arguments:?}: {}", text(&output.stderr));
        assert!(!text(&output.stderr).contains("panicked"), "{arguments:?}");
    }
    let full = std::fs::OpenOptions::new().write(true).open("/dev/full").unwrap();
    let written = Command::new(KOREGATE_BINARY).arg("schema").stdout(full).stderr(Stdio::null()).status().unwrap();
    assert_eq!(written.code(), Some(1), "a full disk is a failure");
}

#[tokio::test]
async fn health_and_wait_ask_the_admin_listener() {
    let gateway = GatewayProcess::start(&environment("http://127.0.0.1:1")).await;
    let url = format!("http://{}", gateway.admin_addr);
    let exit_code = |arguments: &[&str]| run_koregate(arguments, &[], "").status.code();
    assert_eq!(exit_code(&["wait", "--url", &url, "--timeout", "10s"]), Some(0));
    assert_eq!(exit_code(&["health", "--url", &url]), Some(0));
    gateway.stop().await;
    assert_eq!(exit_code(&["health", "--url", &url]), Some(1));
    assert_eq!(exit_code(&["wait", "--url", &url, "--timeout", "1ms"]), Some(1));
    assert_eq!(exit_code(&["wait", "--timeout", "soon"]), Some(2));
}
