//! TLS 1.2 and 1.3 over the ring's bytes: rustls without I/O and without buffers of its own.
//!
//! [`Tls`] stands between a connection's bytes and its machine, which sees nothing but plaintext. What was received goes
//! through [`Tls::receive`]; what is to be sent is gathered in the clear as everywhere, and [`Tls::seal`] makes records of
//! it, as large as they may be, which leave at the end of the turn. Records are read where they lie and written where they
//! leave from (rustls' unbuffered API).

mod client;
mod faulty;
mod server;
mod tickets;
mod verify_once;

use std::sync::Arc;

use rustls::client::UnbufferedClientConnection;
use rustls::crypto::CryptoProvider;
use rustls::pki_types::pem::PemObject as _;
use rustls::pki_types::{CertificateDer, PrivateKeyDer};
use rustls::server::UnbufferedServerConnection;
use rustls::unbuffered::{ConnectionState, EncodeError, EncryptError, UnbufferedStatus};
use rustls::{CertificateError, CommonState, HandshakeKind, ProtocolVersion};

pub use client::{ClientIdentity, ClientTls, ClientTlsFiles};
pub use faulty::FaultyTls;
pub use server::{ServerTls, expiry_unix_s};

use crate::job::link::{TlsFailure, TlsSession};
use crate::job::spec::SpecError;
use crate::outgoing::Outgoing;

/// Octets of records that are made at once. More plaintext waits until they are sent, so that a large message is not held a
/// second time, ciphered, for every connection.
const SEALED_BYTES_MAX: usize = 128 << 10;
/// Octets of the plaintext of one record (RFC 8446 §5.1).
const RECORD_BYTES: usize = 16 << 10;
/// Octets by which a record, and the change of a key before it, are longer than the plaintext, at most.
const RECORD_OVERHEAD: usize = 64;
/// Octets that may have arrived of a record, or of a message of the handshake in several, whose end has not. rustls itself
/// takes no message of the handshake that is as long.
const UNREAD_BYTES_MAX: usize = 128 << 10;

/// The TLS of one connection.
pub struct Tls {
    session: Session,
    /// What arrived and is no whole record yet.
    unread: Vec<u8>,
    /// What goes first: what was put out before TLS began, as it is, then what the handshake wants.
    first: Vec<u8>,
    /// Octets of the plaintext in hand that are sealed.
    sealed: usize,
    /// Octets of the plaintext in hand that the caller was told of.
    told: usize,
    is_ready: bool,
    failed: bool,
}

/// Either end of a connection.
enum Session {
    Client(UnbufferedClientConnection),
    Server(UnbufferedServerConnection),
}

/// What rustls has done last.
enum Step {
    /// There may be more to do.
    More,
    /// The piece of plaintext that it was given has become a record.
    Sealed,
    /// Nothing until more arrives.
    Blocked,
    /// The peer has said goodbye.
    PeerClosed,
}

/// What is to be sealed next.
#[derive(Clone, Copy)]
enum Next<'a> {
    Nothing,
    Plain(&'a [u8]),
    Goodbye,
}

/// What came of bytes that arrived.
#[derive(Debug, Default)]
pub struct Heard {
    /// The handshake has come to its good end, before any plaintext.
    pub ready: Option<TlsSession>,
    /// Nothing follows: the peer has said goodbye, or TLS failed.
    pub end: Option<Result<(), TlsFailure>>,
}

impl Session {
    fn state(&self) -> &CommonState {
        match self {
            Session::Client(session) => session,
            Session::Server(session) => session,
        }
    }
}

impl Tls {
    fn new(session: Session) -> Tls {
        let (unread, first) = (Vec::new(), Vec::new());
        Tls { session, unread, first, sealed: 0, told: 0, is_ready: false, failed: false }
    }

    /// What was put out so far goes first, in the clear.
    pub fn put_first(&mut self, clear: Outgoing) {
        self.first.splice(..0, clear.to_vec());
    }

    /// Takes up what arrived and appends the plaintext in it to `plain`, which grows by no more than that.
    pub fn receive(&mut self, bytes: &[u8], plain: &mut Vec<u8>) -> Heard {
        let mut heard = Heard::default();
        if self.failed {
            return heard;
        }
        self.unread.extend_from_slice(bytes);
        let mut first = std::mem::take(&mut self.first);
        let result = loop {
            match self.step(Next::Nothing, &mut first, plain) {
                Ok(Step::More | Step::Sealed) => {}
                Ok(Step::Blocked) if self.unread.len() > UNREAD_BYTES_MAX => {
                    break Err(rustls::Error::General("a message of the handshake is too long".to_owned()));
                }
                Ok(Step::Blocked) => break Ok(()),
                Ok(Step::PeerClosed) => {
                    heard.end = Some(Ok(()));
                    break Ok(());
                }
                Err(error) => break Err(error),
            }
        };
        if result.is_err() {
            // The alert that tells the peer why, if there is one, is the next thing to be put out. A step beyond it would
            // only fail again.
            let _ = self.step(Next::Nothing, &mut first, plain);
        }
        self.first = first;
        if let Err(error) = result {
            self.failed = true;
            self.unread = Vec::new();
            heard.end = Some(Err(failure(&error, self.is_ready)));
        } else if !self.is_ready && !self.session.state().is_handshaking() {
            self.is_ready = true;
            heard.ready = Some(self.describe());
        }
        heard
    }

    /// Lets rustls do one thing: read a record of what arrived, whose plaintext goes to `plain`, or put one into `out`.
    #[inline]
    fn step(&mut self, next: Next<'_>, out: &mut Vec<u8>, plain: &mut Vec<u8>) -> Result<Step, rustls::Error> {
        let (discard, step) = match &mut self.session {
            Session::Client(session) => advance(session.process_tls_records(&mut self.unread), next, out, plain),
            Session::Server(session) => advance(session.process_tls_records(&mut self.unread), next, out, plain),
        };
        self.unread.drain(..discard);
        step
    }

    fn describe(&self) -> TlsSession {
        let state = self.session.state();
        let version = match state.protocol_version() {
            Some(ProtocolVersion::TLSv1_3) => "TLSv1.3",
            Some(ProtocolVersion::TLSv1_2) => "TLSv1.2",
            _ => "unknown",
        };
        let cipher = state.negotiated_cipher_suite().and_then(|suite| suite.suite().as_str());
        let resumed = state.handshake_kind() == Some(HandshakeKind::Resumed);
        TlsSession { version, cipher: cipher.unwrap_or("unknown"), resumed }
    }

    /// How much of the plaintext in hand the caller has not been told of yet.
    pub fn news(&mut self, plain: &Outgoing) -> usize {
        plain.len() - std::mem::replace(&mut self.told, plain.len())
    }

    /// Puts what is to be sent next into `out`: what the handshake wants, then records of `plain`, no more than
    /// `SEALED_BYTES_MAX` octets at once. Says whether all of `plain` is sealed.
    pub fn seal(&mut self, plain: Option<&Outgoing>, out: &mut Outgoing) -> bool {
        if !self.first.is_empty() {
            out.bytes.append(&mut self.first);
            self.first = Vec::new();
        }
        if self.failed {
            return true;
        }
        let plain = plain.filter(|_| self.is_ready);
        let (mut gathered, mut unexpected) = (Vec::new(), Vec::new());
        loop {
            let piece = match plain {
                Some(plain) if self.sealed < plain.len() => Some(piece(plain, self.sealed, &mut gathered)),
                _ => None,
            };
            let step = self.step(piece.map_or(Next::Nothing, Next::Plain), &mut out.bytes, &mut unexpected);
            debug_assert!(unexpected.is_empty(), "what has arrived was read when it did");
            match (step, plain, piece) {
                (Ok(Step::More), ..) => {}
                (Ok(Step::Sealed), Some(plain), Some(piece)) => {
                    self.sealed += piece.len();
                    if self.sealed == plain.len() || out.bytes.len() >= SEALED_BYTES_MAX {
                        break;
                    }
                }
                // It takes no more because the peer has broken TLS off, or no key may seal more.
                (_, Some(plain), _) => {
                    self.sealed = plain.len();
                    break;
                }
                _ => break,
            }
        }
        let Some(plain) = plain else { return true };
        let is_whole = self.sealed == plain.len();
        if is_whole {
            (self.sealed, self.told) = (0, 0);
        }
        is_whole
    }

    /// Nothing more will be sent: the peer is told so behind what is sealed, if it can be.
    pub fn close(&mut self) {
        if !self.is_ready || self.failed {
            return;
        }
        let mut first = std::mem::take(&mut self.first);
        while let Ok(Step::More) = self.step(Next::Goodbye, &mut first, &mut Vec::new()) {}
        self.first = first;
    }
}

/// Does what rustls has come to: how many octets of what arrived are done with, and what that was.
#[inline]
fn advance<Data>(
    status: UnbufferedStatus<'_, '_, Data>,
    next: Next<'_>,
    out: &mut Vec<u8>,
    plain: &mut Vec<u8>,
) -> (usize, Result<Step, rustls::Error>) {
    let UnbufferedStatus { mut discard, state } = status;
    let at = out.len();
    let step = match state {
        Err(error) => Err(error),
        Ok(ConnectionState::WriteTraffic(mut traffic)) => {
            let mut room = RECORD_OVERHEAD;
            if let Next::Plain(piece) = next {
                room += piece.len();
            }
            loop {
                out.resize(at + room, 0);
                let sealed = match next {
                    Next::Nothing => Ok(0),
                    Next::Plain(piece) => traffic.encrypt(piece, &mut out[at..]),
                    Next::Goodbye => traffic.queue_close_notify(&mut out[at..]),
                };
                match sealed {
                    Err(EncryptError::InsufficientSize(of)) if of.required_size > room => room = of.required_size,
                    Err(_) => {
                        out.truncate(at);
                        break Ok(Step::Blocked);
                    }
                    Ok(octets) => {
                        out.truncate(at + octets);
                        break Ok(if matches!(next, Next::Nothing) { Step::Blocked } else { Step::Sealed });
                    }
                }
            }
        }
        Ok(ConnectionState::ReadTraffic(mut traffic)) => loop {
            match traffic.next_record() {
                None => break Ok(Step::More),
                Some(Err(error)) => break Err(error),
                Some(Ok(record)) => {
                    plain.extend_from_slice(record.payload);
                    discard += record.discard;
                }
            }
        },
        Ok(ConnectionState::EncodeTlsData(mut data)) => {
            if let Err(EncodeError::InsufficientSize(of)) = data.encode(&mut []) {
                out.resize(at + of.required_size, 0);
                data.encode(&mut out[at..]).map_err(|error| rustls::Error::General(error.to_string()))
            } else {
                Ok(0)
            }
            .map(|_| Step::More)
        }
        // It leaves with `out`.
        Ok(ConnectionState::TransmitTlsData(data)) => {
            data.done();
            Ok(Step::More)
        }
        Ok(ConnectionState::PeerClosed) => Ok(Step::PeerClosed),
        // No early data is ever offered or taken.
        Ok(_) => Ok(Step::Blocked),
    };
    (discard, step)
}

/// The next octets of `plain` for one record, behind those that were `sealed`; where they stand in several segments, they
/// are put together in `gathered`.
fn piece<'a>(plain: &'a Outgoing, sealed: usize, gathered: &'a mut Vec<u8>) -> &'a [u8] {
    let mut skipped = sealed;
    let rest = plain.segments().map(|segment| {
        let skip = skipped.min(segment.len());
        skipped -= skip;
        &segment[skip..]
    });
    let first = rest.iter().find(|segment| !segment.is_empty()).copied().unwrap_or_default();
    if first.len() >= RECORD_BYTES || sealed + first.len() == plain.len() {
        return &first[..first.len().min(RECORD_BYTES)];
    }
    gathered.clear();
    for segment in rest {
        gathered.extend_from_slice(&segment[..segment.len().min(RECORD_BYTES - gathered.len())]);
    }
    gathered
}

impl std::fmt::Debug for Tls {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Tls").field("is_ready", &self.is_ready).field("failed", &self.failed).finish_non_exhaustive()
    }
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
             one that is named as to be trusted (--ca-file; in a service `ca_file` of a [targets.NAME], or `skip_verify`)"
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
