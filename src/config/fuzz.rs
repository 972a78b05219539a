//! Fuzz target of the configuration.

use std::collections::BTreeMap;
use std::io;
use std::sync::Arc;

use super::Config;
use super::table_reader::LoadContext;
use super::value_tree::ConfigNode;

/// The line between the file and the variables.
const SEPARATOR: &str = "\n--- environment\n";
/// A secret that variables hold, which must not be shown.
const SECRET: &str = "s3cr3t-9f1c";

/// A file, and lines such as `KOREGATE__WINDOW__CHUNK=1h`. Each problem is reported without secrets, and a
/// configuration that is accepted is the same after it was printed.
///
/// # Panics
/// If a property does not hold.
pub fn config(data: &[u8]) {
    let Ok(text) = std::str::from_utf8(data) else { return };
    let (file, lines) = text.split_once(SEPARATOR).unwrap_or((text, ""));
    let file = Some(file).filter(|file| !file.is_empty());
    let variables = lines.lines().filter_map(|line| line.split_once('='));
    let mut environment: BTreeMap<String, String> =
        variables.map(|(name, value)| (name.to_owned(), value.to_owned())).collect();
    environment.insert("SECRET".to_owned(), SECRET.to_owned());
    let shows_secret = |shown: &str| shown.contains(SECRET) && !text.contains(SECRET);
    match load(file, environment) {
        Err(problems) => {
            assert!(!problems.is_empty() && !shows_secret(&problems), "{problems}");
        }
        Ok(config) => {
            let printed = config.render();
            assert!(!shows_secret(&printed) && !shows_secret(&format!("{config:?}")), "{printed}");
            reload(&config, &printed);
        }
    }
}

/// Loads a configuration from texts. No file of a secret exists.
fn load(file: Option<&str>, environment: BTreeMap<String, String>) -> Result<Config, String> {
    let mut context = LoadContext::new(environment);
    context.read_file = |_| Err(io::ErrorKind::NotFound.into());
    let tree = file.map(|text| ConfigNode::from_file(&Arc::from("koregate.toml"), text)).transpose();
    let tree = tree.map_err(|problem| problem.to_string())?;
    Config::from_tree(tree, &context).map_err(|problems| problems.to_string())
}

/// Loads a printed configuration with its secrets restored.
fn reload(config: &Config, printed: &str) {
    let restored = printed
        .replace("\"[redacted]\"", "{ env = \"SECRET\" }")
        .replace("[redacted]", "hunter2")
        .replace('…', &"0".repeat(56));
    // What restores secrets would change the same characters in a name; and digests that begin alike become one.
    let is_unique = |digests: Vec<[u8; 4]>| digests.iter().enumerate().all(|(n, one)| !digests[..n].contains(one));
    let digests = config.callers.iter().flat_map(|caller| &caller.api_key_sha256);
    let is_restorable = is_unique(digests.filter_map(|digest| digest.first_chunk().copied()).collect());
    let digests = config.callers.iter().map(|caller| caller.api_key_sha256.len()).sum::<usize>();
    if !is_restorable || printed.matches('…').count() != digests {
        return;
    }
    let environment = BTreeMap::from([("SECRET".to_owned(), SECRET.to_owned())]);
    let again = load(Some(&restored), environment).unwrap_or_else(|problems| panic!("{problems}\n{restored}"));
    assert_eq!(again.render(), printed);
}
