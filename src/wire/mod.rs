//! Between bytes and their meaning: codecs and protocol machines, all without I/O.

pub mod flow;
mod held;
pub mod http;
pub mod line;
pub mod smtp;
