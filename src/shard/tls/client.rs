//! How a job's connections secure themselves: what is trusted, by which name, and what is resumed.

use std::io::{Read, Write};
use std::sync::Arc;

use rustls::client::danger::{HandshakeSignatureValid, ServerCertVerified, ServerCertVerifier};
use rustls::client::{Resumption, UnbufferedClientConnection, WebPkiServerVerifier};
use rustls::crypto::CryptoProvider;
use rustls::pki_types::{CertificateDer, ServerName, UnixTime};
use rustls::{ClientConfig, ClientConnection, DigitallySignedStruct, RootCertStore, SignatureScheme};

use super::tickets::Tickets;
use super::verify_once::VerifyOnce;
use super::{Session, Tls, certificates, no_pair, private_key, provider};
use crate::job::spec::{ConnectionType, JobSpec, SpecError};

/// What files say of a job's TLS, read by whoever was given their names.
#[derive(Clone, Debug, Default)]
pub struct ClientTlsFiles {
    /// Certificates (PEM) of the issuers that are trusted, in place of the system's.
    pub ca_pem: Option<Vec<u8>>,
    /// What the client shows of itself where it is asked.
    pub identity: Option<ClientIdentity>,
}

/// A client's certificate and its key.
#[derive(Clone)]
pub struct ClientIdentity {
    /// The certificate, and those that lead to its issuer (PEM).
    pub certificates_pem: Vec<u8>,
    /// Its private key (PEM).
    pub key_pem: Vec<u8>,
}

impl std::fmt::Debug for ClientIdentity {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("ClientIdentity").finish_non_exhaustive()
    }
}

/// The TLS of a job: one configuration for all connections of a shard.
#[derive(Clone)]
pub struct ClientTls {
    config: Arc<ClientConfig>,
    name: ServerName<'static>,
    resumption: bool,
}

impl std::fmt::Debug for ClientTls {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("ClientTls").field("name", &self.name).finish_non_exhaustive()
    }
}

impl ClientTls {
    /// The TLS of a job, `None` where its target has none. What is wrong with a file or the host's name shows here, before
    /// anything is started.
    pub fn of_job(spec: &JobSpec, files: &ClientTlsFiles) -> Result<Option<ClientTls>, SpecError> {
        if spec.target.connection != ConnectionType::Plain {
            let tls = ClientTls::new(&spec.target.host, spec.skip_verify, spec.resumption, files)?;
            return Ok(Some(if spec.http.is_some() { tls.for_http() } else { tls }));
        }
        let given = [("ca_file", files.ca_pem.is_some()), ("client_cert", files.identity.is_some())];
        match given.into_iter().find(|(_, given)| *given) {
            Some((field, _)) => Err(SpecError::without_tls(field)),
            None => Ok(None),
        }
    }

    /// The TLS of connections to `host`, a name or an IP address, for which the server's certificate must be valid, unless
    /// any is believed.
    pub fn new(
        host: &str,
        skip_verify: bool,
        resumption: bool,
        files: &ClientTlsFiles,
    ) -> Result<ClientTls, SpecError> {
        let name = ServerName::try_from(host.to_owned())
            .map_err(|_| SpecError::new("target", "a host name or an IP address that a certificate can name", host))?;
        let provider = provider();
        let builder = ClientConfig::builder_with_provider(Arc::clone(&provider))
            .with_safe_default_protocol_versions()
            .expect("the provider has cipher suites for the versions that it is built with");
        let builder = builder.dangerous().with_custom_certificate_verifier(match (&files.ca_pem, skip_verify) {
            // A file that cannot be read is an error all the same.
            (Some(pem), true) => {
                certificates("ca_file", pem)?;
                Arc::new(BelieveAll(provider))
            }
            (None, true) => Arc::new(BelieveAll(provider)),
            (ca_pem, false) => verifier(ca_pem.as_deref(), provider)?,
        });
        let mut config = match &files.identity {
            None => builder.with_no_client_auth(),
            Some(identity) => {
                let chain = certificates("client_cert", &identity.certificates_pem)?;
                let key = private_key("client_key", &identity.key_pem)?;
                builder
                    .with_client_auth_cert(chain, key)
                    .map_err(|error| no_pair(("client_cert", "client_key"), &error))?
            }
        };
        config.resumption = Resumption::disabled();
        Ok(ClientTls { config: Arc::new(config), name, resumption })
    }

    /// The same for connections that speak HTTP/1.1, which they say in the handshake (ALPN, RFC 7301): a server that has
    /// HTTP/2 too would else choose by itself.
    pub fn for_http(&self) -> ClientTls {
        let mut config = ClientConfig::clone(&self.config);
        config.alpn_protocols = vec![b"http/1.1".to_vec()];
        ClientTls { config: Arc::new(config), ..self.clone() }
    }

    /// The same for one shard with so many connections, which resumes its own sessions.
    pub fn for_shard(&self, connections: u32) -> ClientTls {
        if !self.resumption {
            return self.clone();
        }
        let mut config = ClientConfig::clone(&self.config);
        config.resumption = Resumption::store(Arc::new(Tickets::new(connections)));
        ClientTls { config: Arc::new(config), ..self.clone() }
    }

    /// Does one handshake on a stream that blocks, whoever the server is, and gives its certificate (DER).
    ///
    /// # Errors
    ///
    /// What the stream or the peer did.
    pub fn certificate_of(host: &str, stream: &mut (impl Read + Write)) -> std::io::Result<Vec<u8>> {
        let wrong = |error: String| std::io::Error::other(error);
        let tls = ClientTls::new(host, true, false, &ClientTlsFiles::default()).map_err(|e| wrong(e.to_string()))?;
        let mut session = ClientConnection::new(tls.config, tls.name).map_err(|e| wrong(e.to_string()))?;
        while session.is_handshaking() {
            session.complete_io(stream)?;
        }
        let chain = session.peer_certificates().unwrap_or_default();
        chain.first().map(|first| first.to_vec()).ok_or_else(|| wrong("the server has shown no certificate".to_owned()))
    }

    /// Begins the TLS of one connection.
    pub(in crate::shard) fn connect(&self) -> Box<Tls> {
        let connection = UnbufferedClientConnection::new(Arc::clone(&self.config), self.name.clone());
        Box::new(Tls::new(Session::Client(connection.expect("the configuration is whole, and there is randomness"))))
    }
}

fn verifier(ca_pem: Option<&[u8]>, provider: Arc<CryptoProvider>) -> Result<Arc<dyn ServerCertVerifier>, SpecError> {
    let mut roots = RootCertStore::empty();
    match ca_pem {
        Some(pem) => {
            for certificate in certificates("ca_file", pem)? {
                roots
                    .add(certificate)
                    .map_err(|error| SpecError::new("ca_file", "certificates of issuers in PEM", error))?;
            }
        }
        None => {
            // Some of a system's certificates may be unreadable or odd; what matters is that any is left.
            roots.add_parsable_certificates(rustls_native_certs::load_native_certs().certs);
            if roots.is_empty() {
                let expected = "a file, since this system has no certificates of issuers (or skip_verify)";
                return Err(SpecError::new("ca_file", expected, "none"));
            }
        }
    }
    match WebPkiServerVerifier::builder_with_provider(Arc::new(roots), provider).build() {
        Ok(verifier) => Ok(Arc::new(VerifyOnce::new(verifier))),
        Err(error) => Err(SpecError::new("ca_file", "certificates of issuers in PEM", error)),
    }
}

/// Believes every certificate, though not that somebody has its key who has not.
#[derive(Debug)]
struct BelieveAll(Arc<CryptoProvider>);

impl ServerCertVerifier for BelieveAll {
    fn verify_server_cert(
        &self,
        _: &CertificateDer<'_>,
        _: &[CertificateDer<'_>],
        _: &ServerName<'_>,
        _: &[u8],
        _: UnixTime,
    ) -> Result<ServerCertVerified, rustls::Error> {
        Ok(ServerCertVerified::assertion())
    }

    fn verify_tls12_signature(
        &self,
        message: &[u8],
        certificate: &CertificateDer<'_>,
        signed: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        let algorithms = &self.0.signature_verification_algorithms;
        rustls::crypto::verify_tls12_signature(message, certificate, signed, algorithms)
    }

    fn verify_tls13_signature(
        &self,
        message: &[u8],
        certificate: &CertificateDer<'_>,
        signed: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        let algorithms = &self.0.signature_verification_algorithms;
        rustls::crypto::verify_tls13_signature(message, certificate, signed, algorithms)
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        self.0.signature_verification_algorithms.supported_schemes()
    }
}
