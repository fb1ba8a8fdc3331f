//! See `tests/fuzz_properties/fault_rule.rs`, which says what is held true. To run it:
//! `cargo +nightly fuzz run fault_rule`.

#![no_main]

use libfuzzer_sys::fuzz_target;

#[path = "../../tests/fuzz_properties/mod.rs"]
mod fuzz_properties;

fuzz_target!(|input: &[u8]| fuzz_properties::fault_rule::check(input));
