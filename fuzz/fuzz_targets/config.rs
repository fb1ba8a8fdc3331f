//! See `tests/fuzz_properties/config.rs`, which says what is held true. To run it:
//! `cargo +nightly fuzz run --features engine config`.

#![no_main]

use libfuzzer_sys::fuzz_target;

#[path = "../../tests/fuzz_properties/mod.rs"]
mod fuzz_properties;

fuzz_target!(|input: &[u8]| fuzz_properties::config::check(input));
