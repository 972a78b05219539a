#![no_main]

libfuzzer_sys::fuzz_target!(|data: &[u8]| koregate::fuzz_targets::disk_record(data));
