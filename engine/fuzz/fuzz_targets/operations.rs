#![no_main]

libfuzzer_sys::fuzz_target!(|input: calamus_engine_fuzz::operations::Input| calamus_engine_fuzz::operations::run(
    &input
));
