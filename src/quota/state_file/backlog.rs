//! Lines that the disk did not take, until it does. Pure: writing is an argument.

use std::collections::BTreeMap;
use std::io;

use super::record::StateRecord;

/// Lines on their way to the file, by place, each as it is to stand there at last.
#[derive(Debug, Default)]
pub(super) struct Backlog {
    lines: BTreeMap<u64, StateRecord>,
    /// Why the first of them could not be written.
    why: Option<String>,
}

impl Backlog {
    /// How many lines are missing in the file, and why; `None` if none are.
    pub(super) fn problem(&self) -> Option<(usize, &str)> {
        self.why.as_deref().map(|why| (self.lines.len(), why))
    }

    /// Writes a line, after those that could not be written before.
    ///
    /// # Errors
    /// If not all could be written; the rest stays here.
    pub(super) fn put(
        &mut self,
        place: u64,
        line: StateRecord,
        write: impl FnMut(u64, &StateRecord) -> io::Result<()>,
    ) -> io::Result<()> {
        self.lines.insert(place, line);
        self.flush(write)
    }

    /// Writes what could not be written before, in the order of the file, so that it never grows around a hole.
    ///
    /// # Errors
    /// If not all could be written; the rest stays here.
    pub(super) fn flush(&mut self, mut write: impl FnMut(u64, &StateRecord) -> io::Result<()>) -> io::Result<()> {
        while let Some(first) = self.lines.first_entry() {
            if let Err(error) = write(*first.key(), first.get()) {
                self.why = Some(error.to_string());
                return Err(error);
            }
            first.remove();
        }
        self.why = None;
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use proptest::prelude::*;

    use super::*;
    use crate::quota::state_file::record::{RecordAccount, RecordStamp, State};

    proptest! {
        /// A disk with room for some lines, which may be overwritten even where there is no room for more.
        #[test]
        fn disk_full_for_a_while_loses_no_line(puts in prop::collection::vec((0u64..12, 0u64..12), 1..60)) {
            let (mut backlog, mut disk, mut truth) = (Backlog::default(), BTreeMap::new(), BTreeMap::new());
            for (number, (place, room)) in puts.into_iter().enumerate() {
                let uptime = Duration::from_millis(u64::try_from(number).unwrap());
                let line = StateRecord { state: State::Open, account: RecordAccount::ANY, stamp: RecordStamp { wall: 0, uptime, boot: None } };
                truth.insert(place, line);
                let write = |place, line: &StateRecord| {
                    if place >= room {
                        return Err(io::ErrorKind::StorageFull.into());
                    }
                    disk.insert(place, *line);
                    Ok(())
                };
                let is_whole = backlog.put(place, line, write).is_ok();
                prop_assert_eq!(is_whole, disk == truth);
                let missing = truth.iter().filter(|(place, line)| disk.get(place) != Some(line)).count();
                prop_assert_eq!(backlog.problem().map_or(0, |(lines, _)| lines), missing);
            }
            let write = |place, line: &StateRecord| {
                disk.insert(place, *line);
                Ok(())
            };
            prop_assert!(backlog.flush(write).is_ok());
            prop_assert_eq!(disk, truth);
            prop_assert!(backlog.problem().is_none());
        }
    }
}
