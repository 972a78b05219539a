//! The pages of `docs/recipes/`: their code is run against the simulator and a gateway, as far as its tools are
//! installed. `just recipes` installs the others.

use std::process::Command;

use crate::support::{KOREGATE_BINARY, text};

#[test]
fn recipes_run_where_their_tools_are_installed() {
    let arguments = ["--installed", "--binary", KOREGATE_BINARY];
    let output = Command::new("docs/recipes/check").args(arguments).output().unwrap();
    let (printed, errors) = (text(&output.stdout), text(&output.stderr));
    assert!(output.status.success(), "{printed}{errors}");
    // That of the standard library of Python, in which the check itself is written.
    assert!(printed.contains("passed   python\n"), "{printed}");
}
