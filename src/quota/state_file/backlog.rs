//! Backlog of records that could not be written, for instance on a full disk. Pure: the write function is an argument.

use std::collections::BTreeMap;
use std::io;

use super::record::StateRecord;

/// Records that are not in the file yet, by line index. Each is the newest one of its line.
#[derive(Debug, Default)]
pub(super) struct Backlog {
    records: BTreeMap<u64, StateRecord>,
    /// Why the first of them could not be written; `None` if there are none.
    error: Option<String>,
}

impl Backlog {
    /// Number of records that are missing in the file, and the reason; `None` if none are.
    pub(super) fn problem(&self) -> Option<(usize, &str)> {
        self.error.as_deref().map(|error| (self.records.len(), error))
    }

    /// Writes a record, together with those that could not be written before.
    ///
    /// # Errors
    /// The first error of `write`. The records that are not written stay in the backlog.
    pub(super) fn write(
        &mut self,
        index: u64,
        record: StateRecord,
        write: impl FnMut(u64, &StateRecord) -> io::Result<()>,
    ) -> io::Result<()> {
        self.records.insert(index, record);
        self.flush(write)
    }

    /// Writes the records that could not be written before, in the order of the file, so that it never has a hole.
    ///
    /// # Errors
    /// The first error of `write`. The records that are not written stay in the backlog.
    pub(super) fn flush(&mut self, mut write: impl FnMut(u64, &StateRecord) -> io::Result<()>) -> io::Result<()> {
        while let Some(first) = self.records.first_entry() {
            if let Err(error) = write(*first.key(), first.get()) {
                self.error = Some(error.to_string());
                return Err(error);
            }
            first.remove();
        }
        self.error = None;
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use proptest::prelude::*;

    use super::*;
    use crate::quota::state_file::record::{RecordAccount, RecordStamp, RecordState};

    proptest! {
        /// The disk has room for some lines, which can be overwritten even while there is no room for more.
        #[test]
        fn backlog_disk_full_for_a_while_loses_no_record(writes in prop::collection::vec((0u64..12, 0u64..12), 1..60)) {
            let (mut backlog, mut disk, mut truth) = (Backlog::default(), BTreeMap::new(), BTreeMap::new());
            for (number, (index, room)) in writes.into_iter().enumerate() {
                let uptime = Duration::from_millis(u64::try_from(number).unwrap());
                let stamp = RecordStamp { wall: 0, uptime, boot: None };
                let record = StateRecord { state: RecordState::Open, account: RecordAccount::ANY, stamp };
                truth.insert(index, record);
                let write = |index, record: &StateRecord| {
                    if index >= room {
                        return Err(io::ErrorKind::StorageFull.into());
                    }
                    disk.insert(index, *record);
                    Ok(())
                };
                let is_whole = backlog.write(index, record, write).is_ok();
                prop_assert_eq!(is_whole, disk == truth);
                let missing = truth.iter().filter(|(index, record)| disk.get(index) != Some(record)).count();
                prop_assert_eq!(backlog.problem().map_or(0, |(records, _)| records), missing);
            }
            let write = |index, record: &StateRecord| {
                disk.insert(index, *record);
                Ok(())
            };
            prop_assert!(backlog.flush(write).is_ok());
            prop_assert_eq!(disk, truth);
            prop_assert!(backlog.problem().is_none());
        }
    }
}
