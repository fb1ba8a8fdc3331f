//! How a sink secures its connections: with the certificate that it was given, or one that it signs itself.

use std::sync::Arc;

use rustls::pki_types::{CertificateDer, PrivateKeyDer, PrivatePkcs8KeyDer};
use rustls::server::{
    ClientHello, NoServerSessionStorage, ResolvesServerCert, UnbufferedServerConnection, WantsServerCert,
};
use rustls::sign::CertifiedKey;
use rustls::{ConfigBuilder, ServerConfig};
use x509_parser::prelude::{FromDer as _, X509Certificate};

use super::{Session, Tls, certificates, no_pair, private_key, provider};
use crate::job::spec::SpecError;

/// Tickets that a client is given with each handshake under TLS 1.3.
const TICKETS: usize = 2;

/// The TLS of a sink: one configuration for all connections, whose tickets are good on every shard.
#[derive(Clone)]
pub struct ServerTls {
    config: Arc<ServerConfig>,
    expiry_unix_s: Option<i64>,
}

impl std::fmt::Debug for ServerTls {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("ServerTls").finish_non_exhaustive()
    }
}

impl ServerTls {
    /// With a certificate, and those that lead to its issuer, and its key, both in PEM.
    pub fn from_pem(certificates_pem: &[u8], key_pem: &[u8]) -> Result<ServerTls, SpecError> {
        ServerTls::new(certificates("tls_cert", certificates_pem)?, private_key("tls_key", key_pem)?)
    }

    /// With a fresh certificate (ECDSA, P-256) that nobody has signed but itself, for this machine's names.
    pub fn self_signed(hostname: &str) -> Result<ServerTls, SpecError> {
        let names = ["localhost", "127.0.0.1", "::1"].map(str::to_owned).to_vec();
        // A name that no certificate can hold is left out.
        let named = rcgen::generate_simple_self_signed([names.clone(), vec![hostname.to_owned()]].concat());
        let made = named.or_else(|_| rcgen::generate_simple_self_signed(names));
        let made = made.map_err(|error| SpecError::new("tls_cert", "a certificate that signs itself", error))?;
        let key = PrivatePkcs8KeyDer::from(made.signing_key.serialize_der());
        ServerTls::new(vec![made.cert.der().clone()], key.into())
    }

    fn new(chain: Vec<CertificateDer<'static>>, key: PrivateKeyDer<'static>) -> Result<ServerTls, SpecError> {
        let expiry_unix_s = chain.first().and_then(|certificate| expiry_unix_s(certificate));
        let mut config =
            builder().with_single_cert(chain, key).map_err(|error| no_pair(("tls_cert", "tls_key"), &error))?;
        config.ticketer = rustls::crypto::ring::Ticketer::new()
            .map_err(|error| SpecError::new("tls_cert", "randomness for a ticket key", error))?;
        config.send_tls13_tickets = TICKETS;
        // Tickets hold all there is to know.
        config.session_storage = Arc::new(NoServerSessionStorage {});
        Ok(ServerTls { config: Arc::new(config), expiry_unix_s })
    }

    /// With a certificate and its key that are as they are.
    pub(super) fn of_parts(certificate: CertificateDer<'static>, key: Vec<u8>) -> Result<ServerTls, SpecError> {
        ServerTls::new(vec![certificate], PrivatePkcs8KeyDer::from(key).into())
    }

    /// Without any certificate: every handshake is refused by an alert.
    pub(super) fn refusing() -> ServerTls {
        let resolver = Arc::new(NoCertificate);
        ServerTls { config: Arc::new(builder().with_cert_resolver(resolver)), expiry_unix_s: None }
    }

    /// The same for HTTP: one who offers protocols in the handshake (RFC 7301) has to offer HTTP/1.1.
    pub fn for_http(&self) -> ServerTls {
        let mut config = ServerConfig::clone(&self.config);
        config.alpn_protocols = vec![b"http/1.1".to_vec()];
        ServerTls { config: Arc::new(config), ..self.clone() }
    }

    /// When the certificate that it shows expires, in seconds since 1970; `None` where it cannot be read.
    pub fn expiry_unix_s(&self) -> Option<i64> {
        self.expiry_unix_s
    }

    /// Begins the TLS of one connection.
    pub(in crate::shard) fn accept(&self) -> Box<Tls> {
        let connection = UnbufferedServerConnection::new(Arc::clone(&self.config));
        Box::new(Tls::new(Session::Server(connection.expect("the configuration is whole"))))
    }
}

/// When a certificate (DER) expires, in seconds since 1970; `None` where it cannot be read.
pub fn expiry_unix_s(certificate: &[u8]) -> Option<i64> {
    X509Certificate::from_der(certificate).ok().map(|(_, certificate)| certificate.validity().not_after.timestamp())
}

fn builder() -> ConfigBuilder<ServerConfig, WantsServerCert> {
    ServerConfig::builder_with_provider(provider())
        .with_safe_default_protocol_versions()
        .expect("the provider has cipher suites for the versions that it is built with")
        .with_no_client_auth()
}

/// Has none for anybody.
#[derive(Debug)]
struct NoCertificate;

impl ResolvesServerCert for NoCertificate {
    fn resolve(&self, _hello: ClientHello<'_>) -> Option<Arc<CertifiedKey>> {
        None
    }
}
