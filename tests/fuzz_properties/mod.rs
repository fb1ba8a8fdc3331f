//! What must be true of whatever reads what others wrote. Included by the fuzz targets, and by `fuzz_corpus`, which
//! replays what they have found without a fuzzer.
//!
//! For the protocol machines, an input is one line of settings, which is cut off at its LF, and the octets that arrive. Settings are octets whose
//! bits choose what [`Settings`] says; those that are missing are zero. The same octets then arrive in several splits.

#![allow(dead_code, reason = "each fuzz target uses a part")]

pub mod audit_stamp;
pub mod auth_exchange;
pub mod client_session;
pub mod command;
#[cfg(feature = "engine")]
pub mod config;
pub mod data_decoder;
pub mod expansion;
pub mod fault_rule;
pub mod form;
pub mod http_response;
pub mod http_server;
pub mod job_request;
pub mod line_scanner;
pub mod probe_header;
pub mod reply;
pub mod server_session;
pub mod words;

/// What the first line of an input chooses.
pub struct Settings<'a>(&'a [u8]);

impl Settings<'_> {
    /// The settings, and what arrives.
    pub fn split(input: &[u8]) -> (Settings<'_>, &[u8]) {
        match input.iter().position(|octet| *octet == b'\n') {
            Some(at) => (Settings(&input[..at]), &input[at + 1..]),
            None => (Settings(input), &[]),
        }
    }

    /// Setting number `at`.
    pub fn get(&self, at: usize) -> u8 {
        self.0.get(at).copied().unwrap_or(0)
    }

    /// The pieces in which `octets` arrive in split number `split`: whole, one by one, or by a sequence of lengths.
    pub fn pieces<'o>(&self, octets: &'o [u8], split: usize) -> Vec<&'o [u8]> {
        match split {
            0 if octets.is_empty() => Vec::new(),
            0 => vec![octets],
            1 => octets.chunks(1).collect(),
            _ => {
                // Lengths from 1 to 256 that the settings decide (a linear congruential generator of Knuth's).
                let mut state =
                    self.0.iter().fold(split as u64, |state, octet| state << 8 ^ state >> 56 ^ u64::from(*octet));
                let (mut rest, mut pieces) = (octets, Vec::new());
                while !rest.is_empty() {
                    state = state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
                    let most = if state >> 63 == 0 { 8 } else { 256 };
                    let (piece, others) = rest.split_at((1 + (state >> 33) as usize % most).min(rest.len()));
                    pieces.push(piece);
                    rest = others;
                }
                pieces
            }
        }
    }
}

/// Splits that each input is tried in.
pub const SPLITS: usize = 4;
