//! The delivery audit: whether what was accepted has arrived, once and unaltered, and after how long.
//!
//! - [`stamp`]: the header field by which a message is known again, and the key that signs it;
//! - [`body`]: what of a body must not change on its way, as one number; [`scan`]: both found in a message that passes by;
//! - [`sequences`]: which of many messages, a bit each;
//! - [`ledger`]: what a sink's shards have seen arrive; [`sent`]: what a job's target has accepted;
//! - [`mod@file`]: either of them as a file, for another host; [`join`]: both made one account.

pub mod body;
pub mod file;
pub mod join;
pub mod ledger;
pub mod scan;
pub mod sent;
pub mod sequences;
pub mod stamp;
