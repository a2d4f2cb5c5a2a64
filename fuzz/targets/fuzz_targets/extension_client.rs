#![no_main]

libfuzzer_sys::fuzz_target!(|bytes: &[u8]| palisade_fuzz_entries::run("extension_client", bytes));
