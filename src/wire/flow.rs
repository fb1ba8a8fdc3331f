//! What a server's session asks of the driver of its connection.

/// What becomes of the connection.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[must_use]
pub enum Flow {
    /// It stays.
    Continue,
    /// What is in `out` is written in the clear; then TLS begins, which the session's `tls_ready` or `tls_failed` ends.
    StartTls,
    /// It is closed after what is in `out` was written.
    Close,
    /// It is closed at once, and what is in `out` is forgotten.
    Drop,
    /// It is reset (RFC 9293 §3.5.2) after what is in `out` was written.
    Reset,
}
