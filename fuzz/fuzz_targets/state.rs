#![no_main]

libfuzzer_sys::fuzz_target!(|data: &[u8]| stateway_fuzz::state::run(data));
