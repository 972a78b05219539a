use std::fs;
use std::path::Path;
use std::sync::atomic::{AtomicU64, Ordering};

use proptest::prelude::*;
use tempfile::TempDir;

use super::*;
use crate::window::Timestamp;

const KEEP: Duration = Duration::from_hours(1);
/// Longest time that a call takes.
const CALL_TIMEOUT: Duration = Duration::from_secs(10);
const SECOND: u64 = 1000;
const HOUR: u64 = 3600 * SECOND;

/// Machine with a state file, on which processes start and die. Times are in milliseconds.
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
        StateFile::open_at(
            &self.path(),
            KEEP,
            CALL_TIMEOUT,
            &self.clock,
            BootClock::manual(self.mark, self.uptime.clone()),
        )
    }

    fn advance(&self, millis: u64) {
        self.uptime.fetch_add(millis, Ordering::SeqCst);
        self.step(i64::try_from(millis).unwrap());
    }

    /// Sets the wall clock alone.
    fn step(&self, millis: i64) {
        self.clock.set(Timestamp::from_nanos(self.clock.now().as_nanos() + millis * 1_000_000));
    }

    fn reboot(&mut self) {
        self.mark = self.mark.map(|mark| mark + 1);
        self.uptime = Arc::new(AtomicU64::new(0));
    }

    fn lines(&self) -> usize {
        fs::read(self.path()).unwrap().len() / RECORD_BYTES - 1
    }
}

/// Ages of an account's restored calls in seconds, rounded up, the youngest first.
fn ages(state_file: &StateFile, account: &str) -> Vec<u64> {
    let mut ages: Vec<_> =
        state_file.restored(account).iter().map(|call| (call.age + CLOCK_RESOLUTION).as_secs()).collect();
    ages.sort_unstable();
    ages
}

#[test]
fn state_file_reopened_restores_calls_of_earlier_process() {
    let machine = Machine::new();
    let state_file = machine.open();
    let slots = ["a", "a", "a", "b"].map(|account| state_file.begin(account));
    let [first, second, third, _under_way] = slots;
    state_file.end(first);
    machine.advance(7 * SECOND);
    state_file.end(second);
    state_file.refund(third);
    assert_eq!(state_file.restored("a"), [], "only calls of earlier processes");
    drop(state_file);
    machine.advance(5 * SECOND);
    let state_file = machine.open();
    assert_eq!(ages(&state_file, "a"), [5, 12]);
    assert_eq!(ages(&state_file, "b"), [2], "it may have counted until its timeout");
    drop(state_file);
    machine.advance(9 * SECOND);
    let state_file = machine.open();
    assert_eq!((ages(&state_file, "a"), ages(&state_file, "b")), (vec![14, 21], vec![11]));
    machine.advance(3585 * SECOND);
    assert_eq!((ages(&state_file, "a"), ages(&state_file, "b")), (vec![3599], vec![3596]));
}

#[test]
fn call_in_flight_at_kill_counts_until_its_timeout() {
    let machine = Machine::new();
    let _under_way = machine.open().begin("a");
    // In a crash loop its age is not reset each time.
    for left in [7, 4, 1] {
        machine.advance(3 * SECOND);
        let restored = machine.open().restored("a");
        assert_eq!(
            restored.iter().map(|call| call.ahead.saturating_sub(CLOCK_RESOLUTION).as_secs()).collect::<Vec<_>>(),
            [left]
        );
    }
    machine.advance(3 * SECOND);
    assert_eq!(ages(&machine.open(), "a"), [2]);
}

#[test]
fn line_of_aged_call_is_used_again() {
    let machine = Machine::new();
    for _ in 0..3 {
        let state_file = machine.open();
        for _ in 0..50 {
            let slot = state_file.begin("a");
            machine.advance(90 * SECOND);
            state_file.end(slot);
            state_file.refund(state_file.begin("a"));
        }
    }
    assert_eq!(machine.lines(), 42, "the calls of 61 minutes, one refunded, and one in flight");
}

#[test]
fn wall_clock_step_within_boot_changes_no_age() {
    for step in [-30 * 24 * 3_600_000, -90_000, 90_000, 30 * 24 * 3_600_000] {
        let machine = Machine::new();
        let state_file = machine.open();
        state_file.end(state_file.begin("a"));
        machine.advance(60 * SECOND);
        machine.step(step);
        drop(state_file);
        assert_eq!(ages(&machine.open(), "a"), [60], "{step}");
    }
}

#[test]
fn age_after_reboot_follows_wall_clock() {
    for mark in [Some(1), None] {
        let mut machine = Machine { mark, ..Machine::new() };
        let state_file = machine.open();
        state_file.end(state_file.begin("a"));
        drop(state_file);
        machine.reboot();
        machine.advance(120 * SECOND);
        assert_eq!(ages(&machine.open(), "a"), [120]);
        machine.step(-300_000);
        assert_eq!(ages(&machine.open(), "a"), [0]);
        machine.advance(10 * SECOND);
        assert_eq!(ages(&machine.open(), "a"), [10], "the age is reset once");
    }
}

#[test]
fn state_file_in_use_cannot_be_opened() {
    let machine = Machine::new();
    let state_file = machine.open();
    let error = machine.try_open().unwrap_err();
    assert!(matches!(error, StateFileError::InUse(_)));
    assert!(error.to_string().ends_with("quota.state: another process uses this state file"), "{error}");
    drop(state_file);
    machine.open();
}

#[test]
fn file_of_another_content_is_refused_and_kept() {
    let machine = Machine::new();
    let long = "[quota]\n".repeat(20);
    let newer = String::from_utf8(HEADER.to_vec()).unwrap().replace("format 1", "format 2");
    for text in ["x", &long, &newer, "koregate quota state, but not quite"] {
        fs::write(machine.path(), text).unwrap();
        assert!(matches!(machine.try_open(), Err(StateFileError::NotOurs(_))), "{text}");
        assert_eq!(fs::read_to_string(machine.path()).unwrap(), text);
    }
    // Reading a device to its end would use up the memory.
    for device in ["/dev/full", "/dev/zero"] {
        assert!(matches!(
            StateFile::open(Path::new(device), KEEP, CALL_TIMEOUT, &machine.clock.clone().into()),
            Err(StateFileError::NotOurs(_))
        ));
    }
    let nowhere = machine.folder.path().join("nowhere/quota.state");
    assert!(matches!(
        StateFile::open(&nowhere, KEEP, CALL_TIMEOUT, &machine.clock.clone().into()),
        Err(StateFileError::Io { .. })
    ));
}

#[test]
fn header_written_in_part_is_completed() {
    for length in 0..=RECORD_BYTES {
        let machine = Machine::new();
        fs::write(machine.path(), &HEADER[..length]).unwrap();
        let state_file = machine.open();
        state_file.end(state_file.begin("a"));
        drop(state_file);
        assert_eq!(ages(&machine.open(), "a"), [0]);
    }
}

#[test]
fn line_damaged_counts_for_every_account_for_an_hour() {
    let machine = Machine::new();
    let state_file = machine.open();
    ["a", "a"].map(|account| state_file.begin(account)).into_iter().for_each(|slot| state_file.end(slot));
    drop(state_file);
    machine.advance(60 * SECOND);
    let mut text = fs::read(machine.path()).unwrap();
    text[RECORD_BYTES + 9] ^= 4;
    fs::write(machine.path(), text).unwrap();
    let state_file = machine.open();
    assert_eq!((ages(&state_file, "a"), ages(&state_file, "b")), (vec![0, 60], vec![0]));
    drop(state_file);
    machine.advance(3600 * SECOND);
    assert_eq!(ages(&machine.open(), "b"), [3600]);
    machine.advance(SECOND);
    assert!(ages(&machine.open(), "b").is_empty());
}

#[test]
fn file_of_zeros_counts_as_everything_spent_for_an_hour() {
    let limits = [QuotaLimit { requests: 60, per: Duration::from_mins(1) }, QuotaLimit { requests: 1800, per: KEEP }];
    let lost = |state_file: &StateFile| {
        let calls: Vec<_> = state_file.lost(&limits).map(|call| (call.age + CLOCK_RESOLUTION).as_secs()).collect();
        calls.first().map(|age| (calls.len(), *age))
    };
    let damaged = [
        vec![0; 1],
        vec![0; RECORD_BYTES],
        vec![0; 100 * RECORD_BYTES],
        [&[0; RECORD_BYTES], [b'x'; 999].as_slice()].concat(),
    ];
    for text in damaged {
        let mut machine = Machine::new();
        fs::write(machine.path(), text).unwrap();
        let state_file = machine.open();
        assert_eq!(lost(&state_file), Some((1800, 0)));
        state_file.end(state_file.begin("a"));
        drop(state_file);
        machine.advance(60 * SECOND);
        let state_file = machine.open();
        assert_eq!((lost(&state_file), ages(&state_file, "a")), (Some((1800, 60)), vec![60, 60]));
        drop(state_file);
        machine.reboot();
        machine.advance(3541 * SECOND);
        let state_file = machine.open();
        assert_eq!((lost(&state_file), ages(&state_file, "a")), (None, vec![]));
    }
}

#[test]
fn state_file_with_system_clocks_restores_call() {
    let machine = Machine::new();
    let clock = Clock::system();
    let state_file = StateFile::open(&machine.path(), KEEP, CALL_TIMEOUT, &clock.clone().into()).unwrap();
    state_file.end(state_file.begin("a"));
    drop(state_file);
    let restored = StateFile::open(&machine.path(), KEEP, CALL_TIMEOUT, &clock.clone().into()).unwrap().restored("a");
    assert!(restored.len() == 1 && restored[0].age < Duration::from_secs(30), "{restored:?}");
}

#[derive(Clone, Debug)]
enum Op {
    Begin(usize),
    End(prop::sample::Index),
    Refund(prop::sample::Index),
    Advance(u64),
    Step(i64),
    /// The process is killed: at one of the bytes of its last write, if `within` is given.
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
        4 => (0u64..1_500_000).prop_map(Op::Advance),
        1 => (-9_000_000i64..9_000_000).prop_map(Op::Step),
        2 => (prop::option::of(index()), any::<bool>()).prop_map(|(within, reboot)| Op::Kill { within, reboot }),
    ];
    prop::collection::vec(op, 1..60)
}

/// A call in true time.
struct ModelCall {
    account: &'static str,
    slot: Option<RecordSlot>,
    /// Its timeout: it cannot have counted later.
    timeout: u64,
    /// The latest time at which it can have counted.
    counted: Option<u64>,
}

proptest! {
    /// The model is the list of all calls.
    #[test]
    fn process_killed_at_any_write_restores_no_call_older(ops in ops(), reboots in any::<bool>()) {
        let mut machine = Machine::new();
        let mut state_file = machine.open();
        let (mut now, mut calls, mut unclear) = (0, Vec::<ModelCall>::new(), 0);
        // Content of the file before the last write, and whether that write began a call.
        let mut before: Option<(Vec<u8>, bool)> = None;
        for op in ops.into_iter().chain([Op::Kill { within: None, reboot: false }]) {
            let text = fs::read(machine.path()).unwrap();
            let mut open: Vec<_> = calls.iter_mut().filter(|call| call.slot.is_some()).collect();
            match op {
                Op::Begin(account) => {
                    let account = ["a", "b"][account];
                    let timeout = now + u64::try_from(CALL_TIMEOUT.as_millis()).unwrap();
                    calls.push(ModelCall { account, slot: Some(state_file.begin(account)), timeout, counted: None });
                    before = Some((text, true));
                }
                Op::End(index) if !open.is_empty() => {
                    let index = index.index(open.len());
                    let call = open.remove(index);
                    call.counted = Some(now.min(call.timeout));
                    state_file.end(call.slot.take().unwrap());
                    before = Some((text, false));
                }
                Op::Refund(index) if !open.is_empty() => {
                    let index = index.index(open.len());
                    state_file.refund(open[index].slot.take().unwrap());
                    before = Some((text, false));
                }
                Op::End(_) | Op::Refund(_) => {}
                Op::Advance(millis) => {
                    machine.advance(millis);
                    now += millis;
                    before = None;
                }
                // After a reboot there is only the wall clock, and a step forward cannot be detected.
                Op::Step(millis) => machine.step(if reboots { -millis.abs() } else { millis }),
                Op::Kill { within, reboot } => {
                    drop(state_file);
                    if let (Some(byte), Some((old, began))) = (within, before.take()) {
                        let grown = &text[old.len()..];
                        let written = byte.index(grown.len().max(1));
                        fs::write(machine.path(), [&old, &grown[..written]].concat()).unwrap();
                        if began {
                            calls.pop();
                        } else {
                            unclear += 1;
                        }
                    }
                    for call in &mut calls {
                        call.counted = call.slot.take().map(|_| call.timeout).or(call.counted);
                    }
                    if reboot && reboots {
                        machine.reboot();
                    }
                    state_file = machine.open();
                    before = None;
                    for account in ["a", "b"] {
                        let mut restored: Vec<_> = state_file.restored(account).iter().map(|call| call.age).collect();
                        restored.sort_unstable();
                        let times = calls.iter().filter(|call| call.account == account).filter_map(|call| call.counted);
                        let mut truth: Vec<_> = times.map(|at| Duration::from_millis(now.saturating_sub(at))).collect();
                        truth.sort_unstable();
                        // No call is invented, except where its last write is unclear.
                        prop_assert!(restored.len() <= truth.len() + unclear);
                        truth.retain(|age| *age <= KEEP);
                        prop_assert!(restored.len() >= truth.len(), "{:?} of {:?}", restored, truth);
                        let is_never_older = restored.iter().zip(&truth).all(|(restored, age)| restored <= age);
                        prop_assert!(is_never_older, "{:?} {:?}", restored, truth);
                    }
                }
            }
        }
    }
}
