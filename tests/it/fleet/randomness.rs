//! The randomness of a run.
//!
//! Hash maps and tokio draw their seeds from the system. On the thread of a run, `getrandom` gives numbers that follow
//! from the seed of the run instead. tokio counts its runtimes in a static besides, so a run needs a process of its own.

#![allow(unsafe_code, reason = "only a function of C's ABI can stand in for the system's")]

use std::cell::Cell;
use std::ffi::{c_uint, c_void};

thread_local! {
    /// The state of the generator; `None` on threads that do not simulate.
    static STATE: Cell<Option<u64>> = const { Cell::new(None) };
}

/// Makes all randomness of this thread follow from `seed`, which must be before the first hash map of the thread.
pub(super) fn follow(seed: u64) {
    STATE.set(Some(seed));
    fastrand::seed(seed);
}

/// Stands in for the function of the C library.
///
/// # Safety
/// `buffer` must have room for `length` bytes.
#[unsafe(no_mangle)]
unsafe extern "C" fn getrandom(buffer: *mut c_void, length: usize, flags: c_uint) -> isize {
    let Some(mut state) = STATE.get() else {
        // SAFETY: the arguments are those of the caller.
        let read = unsafe { libc::syscall(libc::SYS_getrandom, buffer, length, flags) };
        return isize::try_from(read).unwrap_or(-1);
    };
    // SAFETY: the caller gives a buffer of this length.
    let bytes = unsafe { std::slice::from_raw_parts_mut(buffer.cast::<u8>(), length) };
    for byte in bytes {
        // An LCG of 64 bits (Knuth, MMIX), of which the upper bits are used.
        state = state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        *byte = state.to_be_bytes()[0];
    }
    STATE.set(Some(state));
    length.cast_signed()
}
