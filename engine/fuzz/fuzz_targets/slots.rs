#![no_main]

libfuzzer_sys::fuzz_target!(|input: calamus_engine_fuzz::slots::Input| calamus_engine_fuzz::slots::run(&input));
