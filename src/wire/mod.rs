//! Between bytes and their meaning: codecs and protocol machines, all without I/O.

pub mod line;
pub mod smtp;
