//! The log against a list of all records, with damage, failures and crashes.

use std::collections::BTreeSet;
use std::fs;

use proptest::prelude::*;

use super::super::ReadError;
use super::*;

#[derive(Clone, Debug)]
enum Step {
    Append {
        meta_len: usize,
        len: usize,
    },
    Reserve {
        bytes: usize,
    },
    Read {
        record: prop::sample::Index,
    },
    Erase {
        divisor: usize,
    },
    Evict,
    Remove {
        segment: prop::sample::Index,
    },
    /// What becomes of the next call of a kind.
    Fault {
        call: Call,
        outcome: Outcome,
    },
    /// Closes and opens the log; a crash leaves the files as they are at this moment.
    Reopen {
        is_crash: bool,
        damage: Damage,
    },
}

#[derive(Clone, Debug)]
enum Damage {
    None,
    Cut { file: prop::sample::Index, place: prop::sample::Index },
    Flip { file: prop::sample::Index, place: prop::sample::Index, bits: u8 },
}

fn step() -> impl Strategy<Value = Step> {
    let index = any::<prop::sample::Index>;
    let damage = prop_oneof![
        Just(Damage::None),
        (index(), index()).prop_map(|(file, place)| Damage::Cut { file, place }),
        (index(), index(), 1..=255_u8).prop_map(|(file, place, bits)| Damage::Flip { file, place, bits }),
    ];
    let call = prop_oneof![Just(Call::Create), Just(Call::Write), Just(Call::SetLen)];
    let outcome = prop_oneof![
        (0..200_usize).prop_map(Outcome::Short),
        Just(Outcome::Failure(ENOSPC)),
        Just(Outcome::Failure(EIO)),
    ];
    prop_oneof![
        12 => (12..40_usize, 0..300_usize).prop_map(|(meta_len, len)| Step::Append { meta_len, len }),
        1 => (0..1100_usize).prop_map(|bytes| Step::Reserve { bytes }),
        3 => index().prop_map(|record| Step::Read { record }),
        1 => (1..6_usize).prop_map(|divisor| Step::Erase { divisor }),
        1 => Just(Step::Evict),
        1 => index().prop_map(|segment| Step::Remove { segment }),
        1 => (call, outcome).prop_map(|(call, outcome)| Step::Fault { call, outcome }),
        2 => (any::<bool>(), damage).prop_map(|(is_crash, damage)| Step::Reopen { is_crash, damage }),
    ]
}

/// A record that was appended.
#[derive(Clone, Debug)]
struct Written {
    id: usize,
    slot: Slot,
    meta: Vec<u8>,
    payload: Vec<u8>,
    /// Whether its bytes may be damaged.
    is_doubtful: bool,
    is_erased: bool,
}

impl Written {
    fn end(&self) -> usize {
        self.slot.offset as usize + SegmentLog::record_bytes(self.meta.len(), self.payload.len())
    }
}

/// Eight bytes that no other record has.
fn token(id: usize) -> [u8; 8] {
    let mut token = (id as u64 + 1).wrapping_mul(0x9e37_79b9_7f4a_7c15).to_le_bytes();
    token[7] |= 1;
    token
}

fn repeated(id: usize, len: usize) -> Vec<u8> {
    token(id).into_iter().cycle().take(len).collect()
}

struct Model {
    directory: TempDir,
    faults: Faults,
    log: Option<SegmentLog>,
    written: Vec<Written>,
    /// Meta bytes of records whose append failed. They may be there all the same.
    failed: BTreeSet<Vec<u8>>,
    next_id: usize,
}

impl Model {
    fn new() -> Self {
        let (directory, faults) = (TempDir::new().unwrap(), Faults::default());
        let log = Some(faults.open(&directory));
        Self { directory, faults, log, written: Vec::new(), failed: BTreeSet::new(), next_id: 0 }
    }

    fn log(&self) -> &SegmentLog {
        self.log.as_ref().unwrap()
    }

    fn run(&mut self, step: &Step) {
        match step {
            Step::Append { meta_len, len } => self.append(*meta_len, *len),
            Step::Reserve { bytes } => drop(self.log().reserve(*bytes)),
            Step::Read { record } if !self.written.is_empty() => self.check_read(record.get(&self.written)),
            Step::Read { .. } => {}
            Step::Erase { divisor } => self.erase(*divisor),
            Step::Evict => drop(self.log().evict()),
            Step::Remove { segment } => {
                let segments = self.log().segments();
                if !segments.is_empty() {
                    self.log().remove(segment.get(&segments).segment).unwrap();
                }
            }
            Step::Fault { call, outcome } => self.faults.next(*call, &[*outcome]),
            Step::Reopen { is_crash, damage } => self.reopen(*is_crash, damage),
        }
    }

    fn append(&mut self, meta_len: usize, len: usize) {
        let id = self.next_id;
        self.next_id += 1;
        let (meta, payload) = (repeated(id, meta_len), repeated(id, len));
        match self.log().append(&meta, &payload) {
            Ok(slot) => {
                assert!(self.written.iter().all(|written| written.slot != slot || written.is_doubtful));
                self.written.retain(|written| written.slot != slot);
                self.written.push(Written { id, slot, meta, payload, is_doubtful: false, is_erased: false });
            }
            Err(_) => drop(self.failed.insert(meta)),
        }
    }

    fn erase(&mut self, divisor: usize) {
        // A failure of the disk makes an erasure delete whole segments; that has tests of its own.
        self.faults.clear();
        let is_erased = |id: usize| id.is_multiple_of(divisor);
        let metas: BTreeSet<Vec<u8>> =
            (0..self.next_id).filter(|id| is_erased(*id)).map(|id| repeated(id, 12)).collect();
        let erased = self.log().erase(&mut |meta| metas.contains(&meta[..12])).unwrap();
        let log = self.log.as_ref().unwrap();
        let mut certain = 0;
        for written in self.written.iter_mut().filter(|written| is_erased(written.id)) {
            certain += u64::from(!written.is_erased && !written.is_doubtful && log.contains(written.slot));
            written.is_erased = true;
        }
        assert!(erased >= certain, "{erased} of at least {certain}");
        let files: Vec<_> = files_of(self.directory.path()).iter().map(|file| fs::read(file).unwrap()).collect();
        for id in (0..self.next_id).filter(|id| is_erased(*id)) {
            let token = token(id);
            assert!(files.iter().all(|bytes| !bytes.windows(8).any(|part| part == token)), "{id} is still there");
        }
    }

    fn reopen(&mut self, is_crash: bool, damage: &Damage) {
        self.faults.clear();
        if is_crash {
            // A copy of the files at this moment is what a killed process leaves.
            let copy = TempDir::new().unwrap();
            for file in files_of(self.directory.path()) {
                fs::copy(&file, copy.path().join(file.file_name().unwrap())).unwrap();
            }
            self.directory = copy;
        }
        self.log = None;
        self.damage(damage);
        self.log = Some(self.faults.open(&self.directory));
        let listed: BTreeSet<Slot> = scan(self.log()).into_iter().map(|(_, slot)| slot).collect();
        // The caller knows no others, so their places may be used again.
        let log = self.log.as_ref().unwrap();
        self.written
            .retain(|written| log.contains(written.slot) && (!written.is_doubtful || listed.contains(&written.slot)));
    }

    /// Damages a file, and marks the records that it may have.
    fn damage(&mut self, damage: &Damage) {
        let files = files_of(self.directory.path());
        let (Damage::Cut { file, place } | Damage::Flip { file, place, .. }) = damage else { return };
        if files.is_empty() {
            return;
        }
        let path = file.get(&files);
        let mut bytes = fs::read(path).unwrap();
        if bytes.is_empty() {
            return;
        }
        let place = place.index(bytes.len());
        let is_cut = matches!(damage, Damage::Cut { .. });
        match damage {
            Damage::Flip { bits, .. } => bytes[place] ^= bits,
            _ => bytes.truncate(place),
        }
        fs::write(path, bytes).unwrap();
        if path.extension().unwrap() == "segment" {
            let number = u32::from_str_radix(path.file_stem().unwrap().to_str().unwrap(), 16).unwrap();
            for written in self.written.iter_mut().filter(|written| written.slot.segment == number) {
                let begins_before = written.slot.offset as usize <= place;
                let is_hit = if is_cut { place < written.end() } else { begins_before && place < written.end() };
                written.is_doubtful |= is_hit || place < 16;
            }
        }
    }

    fn check_read(&self, written: &Written) {
        match self.log().read(written.slot) {
            Ok(record) => {
                assert!(!written.is_erased, "an erased record was read: {written:?}");
                assert_eq!((&record.meta[..], &record.payload[..]), (&written.meta[..], &written.payload[..]));
            }
            Err(ReadError::Gone) => assert!(!self.log().contains(written.slot), "{written:?}"),
            Err(ReadError::Damaged) => assert!(written.is_erased || written.is_doubtful, "{written:?} is damaged"),
            Err(ReadError::Io(error)) => panic!("{error}"),
        }
    }

    fn check(&self) {
        self.written.iter().for_each(|written| self.check_read(written));
        let listed = scan(self.log());
        let slots: BTreeSet<Slot> = listed.iter().map(|(_, slot)| *slot).collect();
        assert_eq!(slots.len(), listed.len(), "listed twice");
        assert!(listed.is_sorted_by_key(|(_, slot)| (slot.segment, slot.offset)), "order of writing");
        for (meta, slot) in &listed {
            let known = self.written.iter().find(|written| written.slot == *slot && written.meta == *meta);
            match known {
                Some(written) => assert!(!written.is_erased, "{written:?} is listed"),
                None => assert!(self.failed.contains(meta), "{meta:?} was never written at {slot:?}"),
            }
        }
        for written in self.written.iter().filter(|written| !written.is_doubtful && !written.is_erased) {
            let is_there = self.log().contains(written.slot);
            assert_eq!(slots.contains(&written.slot), is_there, "{written:?} is not listed");
        }
        let on_disk: u64 = files_of(self.directory.path()).iter().map(|file| fs::metadata(file).unwrap().len()).sum();
        assert!(on_disk <= MAX_BYTES + u64::from(SEGMENT_BYTES), "{on_disk} bytes");
        assert_eq!(self.log().bytes(), on_disk);
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(64))]

    #[test]
    fn log_keeps_what_was_appended_and_nothing_that_was_erased(steps in prop::collection::vec(step(), 1..120)) {
        let mut model = Model::new();
        for step in &steps {
            model.run(step);
            model.check();
        }
        model.reopen(false, &Damage::None);
        model.check();
    }
}
