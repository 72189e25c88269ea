#![no_main]

libfuzzer_sys::fuzz_target!(|input: calamus_engine_fuzz::journal::Input| calamus_engine_fuzz::journal::run(&input));
