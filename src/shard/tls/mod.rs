//! TLS 1.2 and 1.3 over the ring's bytes: rustls without I/O of its own.
//!
//! [`Tls`] stands between a connection's bytes and its machine, which sees nothing but plaintext. What was received goes
//! through [`Tls::receive`]; what is to be sent is gathered in the clear as everywhere, and [`Tls::seal`] makes records of
//! it, as large as they may be, which leave at the end of the turn.

mod client;
mod faulty;
mod server;
mod tickets;
mod verify_once;

use std::io::{BufRead as _, IoSlice, Write as _};
use std::sync::Arc;

use rustls::crypto::CryptoProvider;
use rustls::pki_types::pem::PemObject as _;
use rustls::pki_types::{CertificateDer, PrivateKeyDer};
use rustls::{CertificateError, Connection, HandshakeKind, ProtocolVersion};

pub use client::{ClientIdentity, ClientTls, ClientTlsFiles};
pub use faulty::FaultyTls;
pub use server::{ServerTls, expiry_unix_s};

use crate::job::link::{TlsFailure, TlsSession};
use crate::job::spec::SpecError;
use crate::outgoing::Outgoing;

/// Octets of records that are made at once. More plaintext waits until they are sent, so that a large message is not held a
/// second time, ciphered, for every connection.
const SEALED_BYTES_MAX: usize = 128 << 10;
/// Octets that rustls may hold back in either direction.
const BUFFER_BYTES_MAX: usize = 64 << 10;

/// The TLS of one connection.
pub struct Tls {
    session: Connection,
    /// What was put out before TLS began; it goes first, as it is.
    clear: Outgoing,
    /// Octets of the plaintext in hand that are sealed.
    sealed: usize,
    /// Octets of the plaintext in hand that the caller was told of.
    told: usize,
    is_ready: bool,
    failed: bool,
}

/// What came of bytes that arrived.
#[derive(Debug, Default)]
pub struct Heard {
    /// The handshake has come to its good end, before any plaintext.
    pub ready: Option<TlsSession>,
    /// Nothing follows: the peer has said goodbye, or TLS failed.
    pub end: Option<Result<(), TlsFailure>>,
}

impl Tls {
    fn new(mut session: Connection) -> Tls {
        session.set_buffer_limit(Some(BUFFER_BYTES_MAX));
        Tls { session, clear: Outgoing::new(), sealed: 0, told: 0, is_ready: false, failed: false }
    }

    /// What was put out so far goes first, in the clear.
    pub fn put_first(&mut self, clear: Outgoing) {
        self.clear = clear;
    }

    /// Takes up what arrived and appends the plaintext in it to `plain`, which grows by no more than that.
    pub fn receive(&mut self, mut bytes: &[u8], plain: &mut Vec<u8>) -> Heard {
        let mut heard = Heard::default();
        while !bytes.is_empty() && heard.end.is_none() {
            let result = match self.session.read_tls(&mut bytes) {
                Ok(0) => return heard,
                Ok(_) => self.session.process_new_packets(),
                Err(error) => Err(rustls::Error::General(error.to_string())),
            };
            self.take_plaintext(plain);
            match result {
                Ok(state) => {
                    if !self.is_ready && !self.session.is_handshaking() {
                        self.is_ready = true;
                        heard.ready = Some(self.describe());
                    }
                    if state.peer_has_closed() {
                        heard.end = Some(Ok(()));
                    }
                }
                Err(error) => {
                    self.failed = true;
                    heard.end = Some(Err(failure(&error, self.is_ready)));
                }
            }
        }
        heard
    }

    fn take_plaintext(&mut self, plain: &mut Vec<u8>) {
        let mut reader = self.session.reader();
        while let Ok(chunk) = reader.fill_buf() {
            let octets = chunk.len();
            if octets == 0 {
                return;
            }
            plain.extend_from_slice(chunk);
            reader.consume(octets);
        }
    }

    fn describe(&self) -> TlsSession {
        let version = match self.session.protocol_version() {
            Some(ProtocolVersion::TLSv1_3) => "TLSv1.3",
            Some(ProtocolVersion::TLSv1_2) => "TLSv1.2",
            _ => "unknown",
        };
        let cipher = self.session.negotiated_cipher_suite().and_then(|suite| suite.suite().as_str());
        let resumed = self.session.handshake_kind() == Some(HandshakeKind::Resumed);
        TlsSession { version, cipher: cipher.unwrap_or("unknown"), resumed }
    }

    /// How much of the plaintext in hand the caller has not been told of yet.
    pub fn news(&mut self, plain: &Outgoing) -> usize {
        plain.len() - std::mem::replace(&mut self.told, plain.len())
    }

    /// Puts what is to be sent next into `out`: what the handshake wants, then records of `plain`, no more than
    /// `SEALED_BYTES_MAX` octets at once. Says whether all of `plain` is sealed.
    pub fn seal(&mut self, plain: Option<&Outgoing>, out: &mut Outgoing) -> bool {
        for segment in self.clear.segments() {
            out.push(segment);
        }
        self.clear = Outgoing::new();
        self.drain(out);
        let Some(plain) = plain.filter(|_| self.is_ready && !self.failed) else { return true };
        while self.sealed < plain.len() && out.bytes.len() < SEALED_BYTES_MAX {
            let mut writer = self.session.writer();
            // Gathering costs an allocation, and most plaintext is in one piece.
            let written = match plain.has_shared() {
                false => writer.write(&plain.bytes[self.sealed..]),
                true => writer.write_vectored(&rest(plain, self.sealed)),
            };
            match written {
                Ok(octets) if octets > 0 => self.sealed += octets,
                // It is bounded by its buffer, which is empty here: it takes no more because the peer has broken TLS off.
                Ok(_) | Err(_) => self.sealed = plain.len(),
            }
            self.drain(out);
        }
        let is_whole = self.sealed == plain.len();
        if is_whole {
            (self.sealed, self.told) = (0, 0);
        }
        is_whole
    }

    fn drain(&mut self, out: &mut Outgoing) {
        while self.session.wants_write() && self.session.write_tls(&mut out.bytes).is_ok_and(|octets| octets > 0) {}
    }

    /// Nothing more will be sent: the peer is told so behind what is sealed, if it can be.
    pub fn close(&mut self) {
        if self.is_ready {
            self.session.send_close_notify();
        }
    }
}

impl std::fmt::Debug for Tls {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Tls").field("is_ready", &self.is_ready).field("failed", &self.failed).finish_non_exhaustive()
    }
}

/// What is left of `plain` behind its first octets.
fn rest(plain: &Outgoing, mut skipped: usize) -> [IoSlice<'_>; 3] {
    plain.segments().map(|segment| {
        let skip = skipped.min(segment.len());
        skipped -= skip;
        IoSlice::new(&segment[skip..])
    })
}

/// What went wrong, for whoever reads the report.
fn failure(error: &rustls::Error, was_ready: bool) -> TlsFailure {
    let (kind, reason) = match error {
        rustls::Error::InvalidCertificate(fault) => ("certificate", certificate_fault(fault)),
        rustls::Error::AlertReceived(alert) => {
            (if was_ready { "tls" } else { "handshake" }, format!("the peer ended TLS by the alert {alert:?}"))
        }
        rustls::Error::InvalidMessage(rustls::InvalidMessage::InvalidContentType) if !was_ready => (
            "handshake",
            "the peer does not speak TLS at this port: one in the clear is a target of smtp://, smtp+starttls:// or http://"
                .to_owned(),
        ),
        error => (if was_ready { "tls" } else { "handshake" }, error.to_string()),
    };
    TlsFailure { kind, reason }
}

fn certificate_fault(fault: &CertificateError) -> String {
    match fault {
        CertificateError::UnknownIssuer => {
            "the certificate's issuer is unknown: expected one that the system trusts, or \
             one that is named as to be trusted (--ca-file, ca_file)"
                .to_owned()
        }
        CertificateError::BadSignature => "the certificate is not signed by the issuer that it names".to_owned(),
        CertificateError::Expired | CertificateError::ExpiredContext { .. } => "the certificate has expired".to_owned(),
        CertificateError::NotValidYet | CertificateError::NotValidYetContext { .. } => {
            "the certificate is not valid yet".to_owned()
        }
        CertificateError::NotValidForName => "the certificate is not valid for this host's name".to_owned(),
        CertificateError::NotValidForNameContext { expected, presented } => {
            let expected = expected.to_str();
            let plain = |name: &String| name.trim_start_matches("DnsName(\"").trim_end_matches("\")").to_owned();
            let presented: Vec<String> = presented.iter().map(plain).collect();
            format!("the certificate is not valid for {expected}, but for {}", presented.join(", "))
        }
        other => format!("the certificate is not valid: {other:?}"),
    }
}

/// The cryptography of every configuration.
fn provider() -> Arc<CryptoProvider> {
    Arc::new(rustls::crypto::ring::default_provider())
}

/// The certificates of a PEM file, `field`'s; at least one.
fn certificates(field: &'static str, pem: &[u8]) -> Result<Vec<CertificateDer<'static>>, SpecError> {
    let expected = "a file of certificates in PEM";
    let found = CertificateDer::pem_slice_iter(pem).collect::<Result<Vec<_>, _>>();
    match found {
        Ok(found) if found.is_empty() => Err(SpecError::new(field, expected, "one without any")),
        Ok(found) => Ok(found),
        Err(error) => Err(SpecError::new(field, expected, error)),
    }
}

/// The private key of a PEM file, `field`'s.
fn private_key(field: &'static str, pem: &[u8]) -> Result<PrivateKeyDer<'static>, SpecError> {
    PrivateKeyDer::from_pem_slice(pem)
        // What the parser says of a key may show parts of it.
        .map_err(|_| SpecError::new(field, "a private key in PEM", "a file without a readable one"))
}

/// Why the files of these two fields, a certificate's and a key's, cannot be used together.
fn no_pair((certificate, key): (&'static str, &'static str), error: &rustls::Error) -> SpecError {
    match error {
        rustls::Error::InconsistentKeys(_) => SpecError::new(
            key,
            format!("the private key of the first certificate in `{certificate}`"),
            "that of another one: the two files do not belong together; name the key that the certificate was issued for, \
             or have one issued for this key",
        ),
        _ => SpecError::new(key, format!("a private key of a kind that TLS can use, that of `{certificate}`"), error),
    }
}

#[cfg(test)]
mod tests;
