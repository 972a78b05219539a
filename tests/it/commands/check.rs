//! `koregate check`.

use super::SECRET;
use crate::support::{environment, run_koregate, text};

#[test]
fn check_prints_effective_settings_and_names_faults() {
    let environment = environment("http://127.0.0.1:1");
    let output = run_koregate(&["check"], &environment, "");
    let printed = text(&output.stdout);
    assert_eq!(output.status.code(), Some(0));
    for line in ["base_url = \"http://127.0.0.1:1", "settle_after = \"", "queue_timeout = \"30s\"", "client_secret = "]
    {
        assert!(printed.contains(line), "no {line} in {printed}");
    }
    assert!(!printed.contains(SECRET) && !text(&output.stderr).contains(SECRET));

    let dir = tempfile::tempdir().unwrap();
    let file = dir.path().join("koregate.toml");
    let account = "[[accounts]]\naccount_id = 'a'\nclient_id = 'c'\nclient_secret = { env = 'KORE_CLIENT_SECRET' }\n";
    for (fault, line, key) in [
        ("[quota]\nqueue_timeuot = '1s'", 6, "quota.queue_timeuot"),
        ("[window]\nchunk = '7h'", 6, "window.chunk"),
        ("[window]\nchunk = ", 6, "window.chunk"),
    ] {
        std::fs::write(&file, format!("{account}{fault}\n")).unwrap();
        let output = run_koregate(&["check", "--config", file.to_str().unwrap()], &environment, "");
        let errors = text(&output.stderr);
        assert_eq!(output.status.code(), Some(2), "{fault}");
        assert!(errors.contains(&format!("koregate.toml:{line}")) && errors.contains(key), "{fault}: {errors}");
        assert!(output.stdout.is_empty() && !errors.contains(SECRET), "{errors}");
    }
}
