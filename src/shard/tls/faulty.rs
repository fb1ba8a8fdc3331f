//! The TLS of a server with which something is wrong, for clients to be tested against.

use super::ServerTls;
use crate::job::spec::SpecError;

/// A host that nobody connects to (RFC 6761 §6.4).
const WRONG_NAME: &str = "wrong-name.invalid";

/// Servers that no client should go on with.
#[derive(Clone, Debug)]
pub struct FaultyTls {
    /// Refuses every handshake by an alert.
    pub refusing: ServerTls,
    /// Its certificate has expired, in 2020.
    pub expired: ServerTls,
    /// Its certificate is one of another host.
    pub wrong_name: ServerTls,
}

impl FaultyTls {
    /// With fresh certificates that nobody has signed but themselves; the expired one is for this machine's names.
    pub fn new(hostname: &str) -> Result<FaultyTls, SpecError> {
        let year = |year| rcgen::date_time_ymd(year, 1, 1);
        let local = ["localhost", "127.0.0.1", "::1"].map(str::to_owned);
        // A name that no certificate can hold is left out.
        let named = rcgen::CertificateParams::new([&local[..], &[hostname.to_owned()]].concat());
        let mut expired = named.or_else(|_| rcgen::CertificateParams::new(local)).map_err(wrong)?;
        (expired.not_before, expired.not_after) = (year(2019), year(2020));
        let other = rcgen::CertificateParams::new([WRONG_NAME.to_owned()]).map_err(wrong)?;
        Ok(FaultyTls { refusing: ServerTls::refusing(), expired: signed(&expired)?, wrong_name: signed(&other)? })
    }

    /// The same for HTTP, see [`ServerTls::for_http`].
    pub fn for_http(&self) -> FaultyTls {
        FaultyTls {
            refusing: self.refusing.for_http(),
            expired: self.expired.for_http(),
            wrong_name: self.wrong_name.for_http(),
        }
    }
}

fn signed(params: &rcgen::CertificateParams) -> Result<ServerTls, SpecError> {
    let key = rcgen::KeyPair::generate().map_err(wrong)?;
    let certificate = params.self_signed(&key).map_err(wrong)?;
    ServerTls::of_parts(certificate.der().clone(), key.serialize_der())
}

fn wrong(error: rcgen::Error) -> SpecError {
    SpecError::new("tls_cert", "a certificate that signs itself", error)
}
