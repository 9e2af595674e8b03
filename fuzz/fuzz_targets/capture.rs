#![no_main]

libfuzzer_sys::fuzz_target!(|data: &[u8]| stateway_fuzz::capture::run(data));
