//! `koregate key`: generates the API key of a caller, or hashes an existing one.

use std::io::Read as _;
use std::process::ExitCode;

use aws_lc_rs::digest::{SHA256, digest};
use aws_lc_rs::rand;
use http::HeaderValue;
use secrecy::{ExposeSecret as _, SecretString};

use super::output;
use crate::hex;

/// Random bytes of a key: too many to guess a key, or to find one for a hash.
const KEY_BYTES: usize = 32;

const HINT: &str = "\
The first line is the caller's: the header that it sends with each request. It is a password, and not shown again.
The second line goes into the caller's [[callers]] table: koregate keeps the hash only.
While a key is being changed, api_key_sha256 = [\"OLD\", \"NEW\"] lets both in.
";

/// Makes an API key for a caller, and the hash that goes into the configuration.
#[derive(Clone, Debug, clap::Args)]
pub struct KeyArgs {
    /// Make no key: read one from stdin, and print its hash only.
    #[arg(long)]
    pub hash: bool,
}

/// Without `--hash`, makes a key: the header and the hash on stdout, what they are for on stderr. With it, prints the
/// hash of the key on stdin, of which one newline at the end is no part.
///
/// Exit code 1 if the key on stdin could not be sent in a header, or no key could be made.
pub fn run(args: &KeyArgs) -> ExitCode {
    let output = if args.hash {
        read_key().and_then(|text| parse_key(&text)).map(|key| hash_line(&key))
    } else {
        generate_key().map(|key| {
            output::complain(&HINT.trim_end());
            format!("x-api-key: {}\n{}", key.expose_secret(), hash_line(&key))
        })
    };
    match output {
        Ok(lines) => output::print(&lines),
        Err(message) => {
            output::complain(&message);
            ExitCode::FAILURE
        }
    }
}

/// A new key. Its prefix tells people and secret scanners what it is.
fn generate_key() -> Result<SecretString, String> {
    let mut bytes = [0; KEY_BYTES];
    rand::fill(&mut bytes).map_err(|_| "the system gives no random bytes".to_owned())?;
    Ok(format!("kg_{}", hex::encode(&bytes)).into())
}

fn read_key() -> Result<SecretString, String> {
    let mut text = String::new();
    let read = std::io::stdin().read_to_string(&mut text);
    read.map_err(|error| format!("the key cannot be read from stdin: {error}"))?;
    Ok(text.into())
}

/// The key in `text`. The error does not quote it.
fn parse_key(text: &SecretString) -> Result<SecretString, String> {
    let text = text.expose_secret();
    let key = text.strip_suffix('\n').map_or(text, |line| line.strip_suffix('\r').unwrap_or(line));
    // Accepts the whole header line that this command has printed.
    let key = key.strip_prefix("x-api-key: ").unwrap_or(key);
    if key.is_empty() {
        return Err("there is no key on stdin".to_owned());
    }
    // A hash of such a key would be useless, because no request can contain the key.
    if key.trim() != key || HeaderValue::from_str(key).is_err() {
        return Err(
            "no header can carry this key: it has a space at an end, or a sign that is not printable ASCII".to_owned()
        );
    }
    Ok(key.into())
}

fn hash_line(key: &SecretString) -> String {
    format!("api_key_sha256 = \"{}\"\n", hex::encode(digest(&SHA256, key.expose_secret().as_bytes()).as_ref()))
}

#[cfg(test)]
mod tests {
    use std::collections::HashSet;

    use super::*;

    #[test]
    fn generated_keys_differ_and_fit_a_header() {
        let keys: HashSet<String> = (0..100).map(|_| generate_key().unwrap().expose_secret().to_owned()).collect();
        assert_eq!(keys.len(), 100);
        for key in keys {
            assert_eq!((key.len(), &key[..3]), (67, "kg_"));
            assert_eq!(parse_key(&key.clone().into()).unwrap().expose_secret(), key);
        }
    }

    #[test]
    fn hash_ignores_newline_and_header_name() {
        // SHA-256 of "abc" from FIPS 180-2.
        let expected = "api_key_sha256 = \"ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad\"\n";
        for text in ["abc", "abc\n", "abc\r\n", "x-api-key: abc\n"] {
            assert_eq!(hash_line(&parse_key(&text.into()).unwrap()), expected, "{text:?}");
        }
    }

    #[test]
    fn key_unfit_for_a_header_is_refused_unquoted() {
        for text in ["", "\n", "\r\n", "hunter2\n\n", " hunter2", "hunter2\t", "hun\nter2", "hunter2\u{7f}"] {
            let message = parse_key(&text.into()).unwrap_err();
            assert!(!message.contains("ter2"), "{text:?}: {message}");
        }
        assert!(parse_key(&"two words".into()).is_ok());
    }
}
