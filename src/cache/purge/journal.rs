//! Where this replica remembers purges across restarts: a file beside the chunks on disk with all tombstones, and an
//! anchor beside the state file of the quota with the last epoch of each account.
//!
//! A purge is confirmed only after both are on disk. The anchor tells that the chunks and their journal are an older
//! copy, which was put back: then everything before the last purge counts as purged. An older copy of both is not
//! noticed.

use std::collections::HashMap;
use std::fmt::Write as _;
use std::fs::{self, File};
use std::io::{self, Write as _};
use std::path::{Path, PathBuf};
use std::sync::Arc;

use percent_encoding::percent_decode_str;
use xxhash_rust::xxh3::xxh3_64;

use super::tombstones::Tombstones;
use crate::cache::disk::DiskTier;
use crate::redis_client::key_segment;
use crate::replicas::{Tombstone, parse_epoch};
use crate::writable::directory_of;

/// The name of the journal in the directory of the disk tier.
const JOURNAL_NAME: &str = "purges";
/// Suffix of the anchor, behind the name of the state file.
const ANCHOR_SUFFIX: &str = ".purges";
/// The word before the epoch before which purges are forgotten.
const FLOOR: &str = "floor";
/// The word before the checksum of all lines before it.
const END: &str = "end";

/// The tombstones of each account.
type AllTombstones = HashMap<Arc<str>, Arc<Tombstones>>;

/// The journal and its anchor.
#[derive(Debug)]
pub(in crate::cache) struct PurgeJournal {
    disk: DiskTier,
    anchor: Option<PathBuf>,
}

impl PurgeJournal {
    /// The journal of a disk tier, with the state file beside which its anchor lies.
    pub(in crate::cache) fn new(disk: DiskTier, state_file: Option<&Path>) -> Self {
        let anchor = state_file.map(|file| {
            let mut name = file.as_os_str().to_owned();
            name.push(ANCHOR_SUFFIX);
            name.into()
        });
        Self { disk, anchor }
    }

    pub(super) fn disk(&self) -> &DiskTier {
        &self.disk
    }

    /// Remembers all purges. Blocks until they are on disk.
    ///
    /// # Errors
    /// If a restart might forget one of them.
    pub(super) fn save(&self, all: &AllTombstones) -> io::Result<()> {
        let saved = replace(&self.disk.path().join(JOURNAL_NAME), &print(all));
        let anchored = self.anchor.as_ref().map(|anchor| replace(anchor, &print_anchor(all)));
        match anchored {
            // With the anchor alone, a restart takes more for purged than was.
            Some(Ok(())) => Ok(()),
            Some(Err(error)) => saved.and(Err(error)),
            None => saved,
        }
    }

    /// The purges that a process before this one has confirmed. Blocks.
    ///
    /// # Errors
    /// If they cannot be read, or are damaged ([`io::ErrorKind::InvalidData`]). Then nothing on disk may be used.
    pub(super) fn load(&self) -> io::Result<HashMap<Arc<str>, Tombstones>> {
        let damaged = || io::Error::new(io::ErrorKind::InvalidData, "the journal of purges is damaged");
        let journal = read(&self.disk.path().join(JOURNAL_NAME))?;
        let mut all = journal.map_or(Some(HashMap::new()), |text| parse(&text)).ok_or_else(damaged)?;
        let anchor = self.anchor.as_deref().map(read).transpose()?.flatten();
        for (account, epoch) in anchor.map_or(Some(HashMap::new()), |text| parse_anchor(&text)).ok_or_else(damaged)? {
            let known: &mut Tombstones = all.entry(account).or_default();
            if known.epoch() < epoch {
                known.raise_floor(epoch);
            }
        }
        Ok(all)
    }
}

impl PurgeJournal {
    /// Deletes the journal and its anchor, because there is nothing on disk any more. Blocks.
    ///
    /// # Errors
    /// If a file cannot be deleted.
    pub(super) fn forget(&self) -> io::Result<()> {
        for path in std::iter::once(&self.disk.path().join(JOURNAL_NAME)).chain(&self.anchor) {
            match fs::remove_file(path) {
                Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(error),
                _ => {}
            }
        }
        Ok(())
    }
}

/// The text of a file; `None` if there is none.
fn read(path: &Path) -> io::Result<Option<String>> {
    match fs::read_to_string(path) {
        Ok(text) => Ok(Some(text)),
        // Text of another encoding is `InvalidData`, as any other damage.
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(None),
        Err(error) => Err(error),
    }
}

/// Replaces a file as a whole, on disk.
fn replace(path: &Path, text: &str) -> io::Result<()> {
    let mut name = path.as_os_str().to_owned();
    name.push(".new");
    let temporary = PathBuf::from(name);
    let mut file = File::create(&temporary)?;
    file.write_all(text.as_bytes())?;
    file.sync_all()?;
    fs::rename(&temporary, path)?;
    File::open(directory_of(path))?.sync_all()
}

/// The lines `ACCOUNT EPOCH TOMBSTONE` and `ACCOUNT floor EPOCH`.
fn print(all: &AllTombstones) -> String {
    let mut text = String::new();
    for (account, tombstones) in all {
        let account = key_segment(account);
        if tombstones.floor() > 0 {
            writeln!(text, "{account} {FLOOR} {}", tombstones.floor()).expect("writing to a String cannot fail");
        }
        for (epoch, tombstone) in tombstones.iter() {
            writeln!(text, "{account} {epoch} {tombstone}").expect("writing to a String cannot fail");
        }
    }
    seal(&text)
}

fn parse(text: &str) -> Option<HashMap<Arc<str>, Tombstones>> {
    let mut all: HashMap<Arc<str>, Tombstones> = HashMap::new();
    for line in unseal(text)?.lines() {
        let (account, rest) = line.split_once(' ')?;
        let (number, rest) = rest.split_once(' ')?;
        let tombstones = all.entry(parse_account(account)?).or_default();
        if number == FLOOR {
            tombstones.raise_floor(parse_epoch(rest)?);
        } else {
            tombstones.add(parse_epoch(number)?, Tombstone::parse(rest));
        }
    }
    Some(all)
}

/// The lines `ACCOUNT EPOCH`.
fn print_anchor(all: &AllTombstones) -> String {
    let mut text = String::new();
    for (account, tombstones) in all {
        writeln!(text, "{} {}", key_segment(account), tombstones.epoch()).expect("writing to a String cannot fail");
    }
    seal(&text)
}

fn parse_anchor(text: &str) -> Option<HashMap<Arc<str>, u64>> {
    let epochs = unseal(text)?.lines().map(|line| {
        let (account, epoch) = line.split_once(' ')?;
        Some((parse_account(account)?, parse_epoch(epoch)?))
    });
    epochs.collect()
}

fn parse_account(text: &str) -> Option<Arc<str>> {
    Some(percent_decode_str(text).decode_utf8().ok()?.into())
}

/// The text with a last line that has its checksum.
fn seal(text: &str) -> String {
    let checksum = xxh3_64(text.as_bytes());
    format!("{text}{END} {checksum:016x}\n")
}

/// The text of [`seal`]; `None` if it was changed or cut.
fn unseal(text: &str) -> Option<&str> {
    let end = text.strip_suffix('\n')?.rfind('\n').map_or(0, |line| line + 1);
    let (text, last) = text.split_at(end);
    (last == format!("{END} {:016x}\n", xxh3_64(text.as_bytes()))).then_some(text)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::request::IdHashes;
    use crate::window::{Interval, Timestamp};

    fn all() -> AllTombstones {
        let mut one = Tombstones::default();
        let interval = Interval::new(Timestamp::from_nanos(-5), Timestamp::from_nanos(9));
        one.add(7, Tombstone { stream: Some("st 1\n".into()), interval, ids: None });
        one.add(9, Tombstone { stream: None, interval, ids: IdHashes::from_ascending(vec![3, 70]) });
        let mut other = Tombstones::default();
        other.raise_floor(30);
        [("a b", one), ("c", other)].map(|(account, known)| (account.into(), Arc::new(known))).into()
    }

    fn plain(all: &AllTombstones) -> HashMap<Arc<str>, Tombstones> {
        all.iter().map(|(account, known)| (account.clone(), Tombstones::clone(known))).collect()
    }

    #[test]
    fn journal_is_parsed_back_and_no_damaged_one_is() {
        let text = print(&all());
        assert_eq!(parse(&text), Some(plain(&all())));
        assert_eq!(parse(&print(&HashMap::new())), Some(HashMap::new()));
        assert_eq!(parse_anchor(&print_anchor(&all())), Some([("a b".into(), 9), ("c".into(), 30)].into()));
        for cut in 0..text.len() {
            assert_eq!(parse(&text[..cut]), None, "cut at {cut}");
        }
        assert_eq!(parse(&text.replace('7', "8")), None);
    }
}
