//! The planted bugs of `tests/planted/`, which nobody runs each day: their patches must apply to the code as it is.

use std::fs;
use std::path::Path;
use std::process::Command;

#[test]
fn planted_bugs_apply() {
    let root = Path::new(env!("CARGO_MANIFEST_DIR"));
    let files = fs::read_dir(root.join("tests/planted")).unwrap().map(|entry| entry.unwrap().path());
    let patches: Vec<_> = files.filter(|file| file.extension().is_some_and(|extension| extension == "patch")).collect();
    assert!(patches.len() >= 10, "{} patches", patches.len());
    for patch in patches {
        let applied = Command::new("git").args(["apply", "--check"]).arg(&patch).current_dir(root).output();
        let applied = applied.expect("git runs");
        let errors = String::from_utf8_lossy(&applied.stderr);
        assert!(applied.status.success() && errors.is_empty(), "{}: {errors}", patch.display());
    }
}
