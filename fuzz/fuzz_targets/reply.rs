//! See `tests/fuzz_properties/reply.rs`, which says what is held true. To run it:
//! `cargo +nightly fuzz run reply`.

#![no_main]

use libfuzzer_sys::fuzz_target;

#[path = "../../tests/fuzz_properties/mod.rs"]
mod fuzz_properties;

fuzz_target!(|input: &[u8]| fuzz_properties::reply::check(input));
