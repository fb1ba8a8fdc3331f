//! A server shows the same certificates with every handshake: that they lead to a trusted issuer is verified once a minute.
//!
//! Verifying a chain costs a client nearly a third of a full handshake. What it finds depends on the certificates, the name
//! and the time alone, so it is remembered for as long as the first two are the same. That the server has the
//! certificate's key is verified with each handshake.

use std::sync::{Arc, Mutex};

use rustls::client::danger::{HandshakeSignatureValid, ServerCertVerified, ServerCertVerifier};
use rustls::pki_types::{CertificateDer, ServerName, UnixTime};
use rustls::{DigitallySignedStruct, DistinguishedName, Error, SignatureScheme};

/// How long a chain that was found good is believed: a certificate that expires meanwhile is noticed that much later.
const BELIEVED_S: u64 = 60;

/// Asks another verifier, and not again while the answer would be the same. Only good answers are remembered.
#[derive(Debug)]
pub(super) struct VerifyOnce<V> {
    verifier: Arc<V>,
    /// The last chain that was found good. The lock is held for a comparison.
    known: Mutex<Option<Known>>,
}

#[derive(Debug)]
struct Known {
    /// The server's certificate first.
    chain: Vec<CertificateDer<'static>>,
    name: ServerName<'static>,
    since: UnixTime,
}

impl Known {
    fn answers(&self, chain: &[&[CertificateDer<'_>]], name: &ServerName<'_>, now: UnixTime) -> bool {
        // A clock that was set back is no reason to believe anything.
        let age_s = now.as_secs().checked_sub(self.since.as_secs());
        age_s.is_some_and(|age_s| age_s < BELIEVED_S)
            && self.name == *name
            && self.chain.iter().eq(chain.iter().copied().flatten())
    }
}

impl<V> VerifyOnce<V> {
    pub(super) fn new(verifier: Arc<V>) -> VerifyOnce<V> {
        VerifyOnce { verifier, known: Mutex::default() }
    }
}

impl<V: ServerCertVerifier> ServerCertVerifier for VerifyOnce<V> {
    fn verify_server_cert(
        &self,
        end_entity: &CertificateDer<'_>,
        intermediates: &[CertificateDer<'_>],
        name: &ServerName<'_>,
        ocsp_response: &[u8],
        now: UnixTime,
    ) -> Result<ServerCertVerified, Error> {
        let chain = [std::slice::from_ref(end_entity), intermediates];
        let known = || self.known.lock().unwrap_or_else(|poisoned| poisoned.into_inner());
        if known().as_ref().is_some_and(|known| known.answers(&chain, name, now)) {
            return Ok(ServerCertVerified::assertion());
        }
        let verified = self.verifier.verify_server_cert(end_entity, intermediates, name, ocsp_response, now)?;
        let chain = chain.into_iter().flatten().map(|certificate| certificate.clone().into_owned()).collect();
        *known() = Some(Known { chain, name: name.to_owned(), since: now });
        Ok(verified)
    }

    fn verify_tls12_signature(
        &self,
        message: &[u8],
        certificate: &CertificateDer<'_>,
        signed: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        self.verifier.verify_tls12_signature(message, certificate, signed)
    }

    fn verify_tls13_signature(
        &self,
        message: &[u8],
        certificate: &CertificateDer<'_>,
        signed: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        self.verifier.verify_tls13_signature(message, certificate, signed)
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        self.verifier.supported_verify_schemes()
    }

    fn root_hint_subjects(&self) -> Option<&[DistinguishedName]> {
        self.verifier.root_hint_subjects()
    }
}

#[cfg(test)]
mod tests {
    use std::sync::atomic::{AtomicU32, Ordering::Relaxed};
    use std::time::Duration;

    use super::*;

    /// Counts how often it is asked and finds everything good but an empty certificate.
    #[derive(Debug, Default)]
    struct Counting(AtomicU32);

    impl ServerCertVerifier for Counting {
        fn verify_server_cert(
            &self,
            end_entity: &CertificateDer<'_>,
            _: &[CertificateDer<'_>],
            _: &ServerName<'_>,
            _: &[u8],
            _: UnixTime,
        ) -> Result<ServerCertVerified, Error> {
            self.0.fetch_add(1, Relaxed);
            match end_entity.is_empty() {
                true => Err(Error::General("empty".to_owned())),
                false => Ok(ServerCertVerified::assertion()),
            }
        }

        fn verify_tls12_signature(
            &self,
            _: &[u8],
            _: &CertificateDer<'_>,
            _: &DigitallySignedStruct,
        ) -> Result<HandshakeSignatureValid, Error> {
            unreachable!("no handshake is done here")
        }

        fn verify_tls13_signature(
            &self,
            _: &[u8],
            _: &CertificateDer<'_>,
            _: &DigitallySignedStruct,
        ) -> Result<HandshakeSignatureValid, Error> {
            unreachable!("no handshake is done here")
        }

        fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
            Vec::new()
        }
    }

    #[test]
    fn a_chain_is_verified_again_when_anything_differs_or_a_minute_is_over() {
        let verify = VerifyOnce::new(Arc::new(Counting::default()));
        // What is asked, and how often the other verifier has been asked behind it.
        let ask = |certificate: &'static [u8], more: &'static [u8], name: &'static str, second: u64| {
            let chain = [certificate, more].map(CertificateDer::from);
            let now = UnixTime::since_unix_epoch(Duration::from_secs(second));
            let name = ServerName::try_from(name).unwrap();
            let found = verify.verify_server_cert(&chain[0], &chain[1..], &name, &[], now);
            (found.is_ok(), verify.verifier.0.load(Relaxed))
        };
        assert_eq!(ask(b"one", b"ca", "a.example", 100), (true, 1));
        assert_eq!(ask(b"one", b"ca", "a.example", 100 + BELIEVED_S - 1), (true, 1));
        assert_eq!(ask(b"one", b"ca", "a.example", 100 + BELIEVED_S), (true, 2));
        assert_eq!(ask(b"one", b"ca", "a.example", 99), (true, 3), "the clock was set back");
        assert_eq!(ask(b"two", b"ca", "a.example", 100), (true, 4));
        assert_eq!(ask(b"two", b"cb", "a.example", 100), (true, 5));
        assert_eq!(ask(b"two", b"cb", "b.example", 100), (true, 6));
        // What is not good is never remembered, and does not make the other forgotten.
        assert_eq!(ask(b"", b"cb", "b.example", 100), (false, 7));
        assert_eq!(ask(b"", b"cb", "b.example", 100), (false, 8));
        assert_eq!(ask(b"two", b"cb", "b.example", 100), (true, 8));
    }
}
