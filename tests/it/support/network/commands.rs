//! The commands of iproute2.

use std::path::Path;
use std::process::Command;

/// All namespaces of tests begin with this, followed by the id of their process.
pub(super) const PREFIX: &str = "koregate";

/// A namespace with a name. The name is removed when dropped, and the namespace when its last process has ended.
pub(super) struct NamedNamespace(pub(super) String);

impl NamedNamespace {
    /// Creates a namespace, or says why the system refuses one.
    pub(super) fn create(name: String) -> Result<Self, String> {
        run(&["netns", "add", &name])?;
        Ok(Self(name))
    }

    /// Runs `ip` inside of the namespace.
    pub(super) fn ip(&self, arguments: &[&str]) {
        self.try_ip(arguments).unwrap();
    }

    /// The same, or the reason for which it failed.
    pub(super) fn try_ip(&self, arguments: &[&str]) -> Result<(), String> {
        let arguments = [&["-netns", &self.0][..], arguments].concat();
        run(&arguments).map(drop).map_err(|error| format!("ip {}: {error}", arguments.join(" ")))
    }

    /// The file that stands for the namespace.
    pub(super) fn path(&self) -> String {
        format!("/run/netns/{}", self.0)
    }
}

impl Drop for NamedNamespace {
    fn drop(&mut self) {
        let _ = run(&["netns", "delete", &self.0]);
    }
}

/// Removes namespaces of tests that were killed before they could.
pub(super) fn remove_orphans() {
    for line in run(&["netns", "list"]).unwrap_or_default().lines() {
        let name = line.split(' ').next().unwrap_or_default();
        let process = name.strip_prefix(PREFIX).and_then(|rest| rest.strip_prefix('-')?.split('-').next());
        if process.is_some_and(|process| !Path::new("/proc").join(process).exists()) {
            let _ = run(&["netns", "delete", name]);
        }
    }
}

/// Runs `ip`: its output, or the text of its error.
fn run(arguments: &[&str]) -> Result<String, String> {
    let path = format!("{}:/usr/sbin:/sbin", std::env::var("PATH").unwrap_or_default());
    let output = Command::new("ip").args(arguments).env("PATH", path).output().map_err(|error| error.to_string())?;
    let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).trim().to_owned();
    if output.status.success() { Ok(text(&output.stdout)) } else { Err(text(&output.stderr)) }
}
