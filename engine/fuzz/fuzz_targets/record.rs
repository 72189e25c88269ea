#![no_main]

libfuzzer_sys::fuzz_target!(|input: calamus_engine_fuzz::record::Input| calamus_engine_fuzz::record::run(&input));
