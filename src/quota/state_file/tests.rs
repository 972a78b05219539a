use std::fs;
use std::path::Path;
use std::sync::atomic::{AtomicU64, Ordering};

use proptest::prelude::*;
use tempfile::TempDir;

use super::*;

const KEEP: Duration = Duration::from_hours(1);
/// The longest that a call takes.
const LINGER: Duration = Duration::from_secs(10);
const SECOND: u64 = 1000;
const HOUR: u64 = 3600 * SECOND;

/// A machine with a file, on which processes come and go. Times are in milliseconds.
struct Machine {
    folder: TempDir,
    clock: Clock,
    mark: Option<u32>,
    uptime: Arc<AtomicU64>,
}

impl Machine {
    fn new() -> Self {
        let clock = Clock::manual(Timestamp::from_seconds(1_795_341_600));
        Self { folder: TempDir::new().unwrap(), clock, mark: Some(1), uptime: Arc::new(AtomicU64::new(50 * HOUR)) }
    }

    fn path(&self) -> PathBuf {
        self.folder.path().join("quota.state")
    }

    fn open(&self) -> StateFile {
        self.try_open().unwrap()
    }

    fn try_open(&self) -> Result<StateFile, StateFileError> {
        StateFile::open_at(&self.path(), KEEP, LINGER, &self.clock, BootClock::manual(self.mark, self.uptime.clone()))
    }

    fn pass(&self, millis: u64) {
        self.uptime.fetch_add(millis, Ordering::SeqCst);
        self.step(i64::try_from(millis).unwrap());
    }

    /// Moves the wall clock alone.
    fn step(&self, millis: i64) {
        self.clock.set(Timestamp::from_nanos(self.clock.now().as_nanos() + millis * 1_000_000));
    }

    fn reboot(&mut self) {
        self.mark = self.mark.map(|mark| mark + 1);
        self.uptime = Arc::new(AtomicU64::new(0));
    }

    fn lines(&self) -> usize {
        fs::read(self.path()).unwrap().len() / WIDTH - 1
    }
}

/// The ages of an account's calls in seconds, rounded up, the youngest first.
fn ages(journal: &StateFile, account: &str) -> Vec<u64> {
    let mut ages: Vec<_> = journal.restored(account).iter().map(|call| (call.age + STEP).as_secs()).collect();
    ages.sort_unstable();
    ages
}

#[test]
fn the_next_process_knows_what_this_one_spent() {
    let machine = Machine::new();
    let journal = machine.open();
    let slots = ["a", "a", "a", "b"].map(|account| journal.begin(account));
    let [first, second, third, _under_way] = slots;
    journal.end(first);
    machine.pass(7 * SECOND);
    journal.end(second);
    journal.refund(third);
    assert_eq!(journal.restored("a"), [], "only what others spent");
    drop(journal);
    machine.pass(5 * SECOND);
    let journal = machine.open();
    assert_eq!(ages(&journal, "a"), [5, 12]);
    assert_eq!(ages(&journal, "b"), [2], "the upstream may have counted it until it would have timed out");
    drop(journal);
    machine.pass(9 * SECOND);
    let journal = machine.open();
    assert_eq!((ages(&journal, "a"), ages(&journal, "b")), (vec![14, 21], vec![11]));
    machine.pass(3585 * SECOND);
    assert_eq!((ages(&journal, "a"), ages(&journal, "b")), (vec![3599], vec![3596]));
}

#[test]
fn a_call_that_may_be_on_its_way_yet_counts_when_it_arrives() {
    let machine = Machine::new();
    let _under_way = machine.open().begin("a");
    // In a crash loop it is not taken for younger each time.
    for left in [7, 4, 1] {
        machine.pass(3 * SECOND);
        let restored = machine.open().restored("a");
        assert_eq!(restored.iter().map(|call| call.ahead.saturating_sub(STEP).as_secs()).collect::<Vec<_>>(), [left]);
    }
    machine.pass(3 * SECOND);
    assert_eq!(ages(&machine.open(), "a"), [2]);
}

#[test]
fn a_line_is_used_again_when_its_call_has_aged() {
    let machine = Machine::new();
    for _ in 0..3 {
        let journal = machine.open();
        for _ in 0..50 {
            let slot = journal.begin("a");
            machine.pass(90 * SECOND);
            journal.end(slot);
            journal.refund(journal.begin("a"));
        }
    }
    assert_eq!(machine.lines(), 42, "as many as 61 minutes hold, one that is refunded, and one under way");
}

#[test]
fn a_step_of_the_wall_clock_bends_nothing_within_one_boot() {
    for step in [-30 * 24 * 3_600_000, -90_000, 90_000, 30 * 24 * 3_600_000] {
        let machine = Machine::new();
        let journal = machine.open();
        journal.end(journal.begin("a"));
        machine.pass(60 * SECOND);
        machine.step(step);
        drop(journal);
        assert_eq!(ages(&machine.open(), "a"), [60], "{step}");
    }
}

#[test]
fn after_a_reboot_the_wall_clock_counts_and_what_is_from_the_future_has_just_been() {
    for mark in [Some(1), None] {
        let mut machine = Machine { mark, ..Machine::new() };
        let journal = machine.open();
        journal.end(journal.begin("a"));
        drop(journal);
        machine.reboot();
        machine.pass(120 * SECOND);
        assert_eq!(ages(&machine.open(), "a"), [120]);
        machine.step(-300_000);
        assert_eq!(ages(&machine.open(), "a"), [0]);
        machine.pass(10 * SECOND);
        assert_eq!(ages(&machine.open(), "a"), [10], "it is taken for that once, not again and again");
    }
}

#[test]
fn two_processes_never_share_a_file() {
    let machine = Machine::new();
    let journal = machine.open();
    let error = machine.try_open().unwrap_err();
    assert!(matches!(error, StateFileError::InUse(_)));
    assert!(error.to_string().ends_with("quota.state: another process uses this state file"), "{error}");
    drop(journal);
    machine.open();
}

#[test]
fn what_is_not_ours_is_left_as_it_is() {
    let machine = Machine::new();
    let long = "[quota]\n".repeat(20);
    let newer = String::from_utf8(HEADER.to_vec()).unwrap().replace("format 1", "format 2");
    for text in ["x", &long, &newer, "koregate quota state, but not quite"] {
        fs::write(machine.path(), text).unwrap();
        assert!(matches!(machine.try_open(), Err(StateFileError::NotOurs(_))), "{text}");
        assert_eq!(fs::read_to_string(machine.path()).unwrap(), text);
    }
    // Were they read to their end, the process would be out of memory before.
    for device in ["/dev/full", "/dev/zero"] {
        assert!(matches!(
            StateFile::open(Path::new(device), KEEP, LINGER, &machine.clock),
            Err(StateFileError::NotOurs(_))
        ));
    }
    let nowhere = machine.folder.path().join("nowhere/quota.state");
    assert!(matches!(StateFile::open(&nowhere, KEEP, LINGER, &machine.clock), Err(StateFileError::Io { .. })));
}

#[test]
fn a_file_that_was_just_being_made_is_made() {
    for length in 0..=WIDTH {
        let machine = Machine::new();
        fs::write(machine.path(), &HEADER[..length]).unwrap();
        let journal = machine.open();
        journal.end(journal.begin("a"));
        drop(journal);
        assert_eq!(ages(&machine.open(), "a"), [0]);
    }
}

#[test]
fn a_damaged_line_counts_for_every_account_for_an_hour() {
    let machine = Machine::new();
    let journal = machine.open();
    ["a", "a"].map(|account| journal.begin(account)).into_iter().for_each(|slot| journal.end(slot));
    drop(journal);
    machine.pass(60 * SECOND);
    let mut text = fs::read(machine.path()).unwrap();
    text[WIDTH + 9] ^= 4;
    fs::write(machine.path(), text).unwrap();
    let journal = machine.open();
    assert_eq!((ages(&journal, "a"), ages(&journal, "b")), (vec![0, 60], vec![0]));
    drop(journal);
    machine.pass(3600 * SECOND);
    assert_eq!(ages(&machine.open(), "b"), [3600]);
    machine.pass(SECOND);
    assert!(ages(&machine.open(), "b").is_empty());
}

#[test]
fn file_of_zeros_counts_as_everything_spent_for_an_hour() {
    let limits = [QuotaLimit { requests: 60, per: Duration::from_mins(1) }, QuotaLimit { requests: 1800, per: KEEP }];
    let lost = |journal: &StateFile| {
        let calls: Vec<_> = journal.lost(&limits).map(|call| (call.age + STEP).as_secs()).collect();
        calls.first().map(|age| (calls.len(), *age))
    };
    let damaged = [vec![0; 1], vec![0; WIDTH], vec![0; 100 * WIDTH], [&[0; WIDTH], [b'x'; 999].as_slice()].concat()];
    for text in damaged {
        let mut machine = Machine::new();
        fs::write(machine.path(), text).unwrap();
        let journal = machine.open();
        assert_eq!(lost(&journal), Some((1800, 0)));
        journal.end(journal.begin("a"));
        drop(journal);
        machine.pass(60 * SECOND);
        let journal = machine.open();
        assert_eq!((lost(&journal), ages(&journal, "a")), (Some((1800, 60)), vec![60, 60]));
        drop(journal);
        machine.reboot();
        machine.pass(3541 * SECOND);
        let journal = machine.open();
        assert_eq!((lost(&journal), ages(&journal, "a")), (None, vec![]));
    }
}

#[test]
fn the_machine_s_own_clocks_will_do() {
    let machine = Machine::new();
    let clock = Clock::system();
    let journal = StateFile::open(&machine.path(), KEEP, LINGER, &clock).unwrap();
    journal.end(journal.begin("a"));
    drop(journal);
    let restored = StateFile::open(&machine.path(), KEEP, LINGER, &clock).unwrap().restored("a");
    assert!(restored.len() == 1 && restored[0].age < Duration::from_secs(30), "{restored:?}");
}

#[derive(Clone, Debug)]
enum Op {
    Begin(usize),
    End(prop::sample::Index),
    Refund(prop::sample::Index),
    Pass(u64),
    Step(i64),
    /// The process is killed; `within` the last write, if it wrote last, at one of its bytes.
    Kill {
        within: Option<prop::sample::Index>,
        reboot: bool,
    },
}

fn ops() -> impl Strategy<Value = Vec<Op>> {
    let index = any::<prop::sample::Index>;
    let op = prop_oneof![
        8 => (0usize..2).prop_map(Op::Begin),
        6 => index().prop_map(Op::End),
        2 => index().prop_map(Op::Refund),
        4 => (0u64..1_500_000).prop_map(Op::Pass),
        1 => (-9_000_000i64..9_000_000).prop_map(Op::Step),
        2 => (prop::option::of(index()), any::<bool>()).prop_map(|(within, reboot)| Op::Kill { within, reboot }),
    ];
    prop::collection::vec(op, 1..60)
}

/// A call as it was, in time that nothing bends.
struct Call {
    account: &'static str,
    slot: Option<RecordSlot>,
    /// It has timed out then, and cannot have counted later.
    longest: u64,
    /// The last time at which it can have counted.
    counted: Option<u64>,
}

proptest! {
    /// The naive model is the list of all calls.
    #[test]
    fn no_kill_at_any_point_makes_a_call_older_than_it_is(ops in ops(), reboots in any::<bool>()) {
        let mut machine = Machine::new();
        let mut journal = machine.open();
        let (mut now, mut calls, mut doubtful) = (0, Vec::<Call>::new(), 0);
        // What the file was before the last write, and whether that began a call.
        let mut before: Option<(Vec<u8>, bool)> = None;
        for op in ops.into_iter().chain([Op::Kill { within: None, reboot: false }]) {
            let text = fs::read(machine.path()).unwrap();
            let mut open: Vec<_> = calls.iter_mut().filter(|call| call.slot.is_some()).collect();
            match op {
                Op::Begin(account) => {
                    let account = ["a", "b"][account];
                    let longest = now + u64::try_from(LINGER.as_millis()).unwrap();
                    calls.push(Call { account, slot: Some(journal.begin(account)), longest, counted: None });
                    before = Some((text, true));
                }
                Op::End(which) if !open.is_empty() => {
                    let place = which.index(open.len());
                    let call = open.remove(place);
                    call.counted = Some(now.min(call.longest));
                    journal.end(call.slot.take().unwrap());
                    before = Some((text, false));
                }
                Op::Refund(which) if !open.is_empty() => {
                    let place = which.index(open.len());
                    journal.refund(open[place].slot.take().unwrap());
                    before = Some((text, false));
                }
                Op::End(_) | Op::Refund(_) => {}
                Op::Pass(millis) => {
                    machine.pass(millis);
                    now += millis;
                    before = None;
                }
                // After a reboot there is only the wall clock, and nothing can tell that it was put forward.
                Op::Step(millis) => machine.step(if reboots { -millis.abs() } else { millis }),
                Op::Kill { within, reboot } => {
                    drop(journal);
                    if let (Some(byte), Some((old, began))) = (within, before.take()) {
                        let grown = &text[old.len()..];
                        let written = byte.index(grown.len().max(1));
                        fs::write(machine.path(), [&old, &grown[..written]].concat()).unwrap();
                        if began {
                            calls.pop();
                        } else {
                            doubtful += 1;
                        }
                    }
                    for call in &mut calls {
                        call.counted = call.slot.take().map(|_| call.longest).or(call.counted);
                    }
                    if reboot && reboots {
                        machine.reboot();
                    }
                    journal = machine.open();
                    before = None;
                    for account in ["a", "b"] {
                        let mut restored: Vec<_> = journal.restored(account).iter().map(|call| call.age).collect();
                        restored.sort_unstable();
                        let times = calls.iter().filter(|call| call.account == account).filter_map(|call| call.counted);
                        let mut truth: Vec<_> = times.map(|at| Duration::from_millis(now.saturating_sub(at))).collect();
                        truth.sort_unstable();
                        // No call that never was: only one that could have been.
                        prop_assert!(restored.len() <= truth.len() + doubtful);
                        truth.retain(|age| *age <= KEEP);
                        prop_assert!(restored.len() >= truth.len(), "{:?} of {:?}", restored, truth);
                        prop_assert!(restored.iter().zip(&truth).all(|(told, age)| told <= age), "{:?} {:?}", restored, truth);
                    }
                }
            }
        }
    }
}
