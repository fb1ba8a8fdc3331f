//! See `tests/fuzz_properties/form.rs`, which says what is held true. To run it:
//! `cargo +nightly fuzz run form`.

#![no_main]

use libfuzzer_sys::fuzz_target;

#[path = "../../tests/fuzz_properties/mod.rs"]
mod fuzz_properties;

fuzz_target!(|input: &[u8]| fuzz_properties::form::check(input));
