#![no_main]

libfuzzer_sys::fuzz_target!(|data: &[u8]| stateway_fuzz::nat::run(data));
