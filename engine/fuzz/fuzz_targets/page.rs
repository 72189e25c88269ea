#![no_main]

libfuzzer_sys::fuzz_target!(|input: calamus_engine_fuzz::page::Input| calamus_engine_fuzz::page::run(&input));
