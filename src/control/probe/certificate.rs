//! When certificates expire: those of the routes' targets, asked for once a day by a handshake of its own, and ours.

use std::io::{self, BufRead as _, BufReader, Read, Write};
use std::net::TcpStream;
use std::path::Path;
use std::thread;
use std::time::Duration;

use async_channel::Receiver;
use rustls::pki_types::CertificateDer;
use rustls::pki_types::pem::PemObject as _;
use x509_parser::prelude::{FromDer as _, X509Certificate};

use crate::control::targets::ResolvedTarget;
use crate::job::spec::ConnectionType;
use crate::shard::tls::ClientTls;

/// How long connecting, and each answer after it, may take.
const ANSWER_WITHIN: Duration = Duration::from_secs(30);
/// Lines that a server may say before TLS, and octets of all of them.
const LINES_MAX: usize = 100;
const OCTETS_MAX: u64 = 64 << 10;

/// Asks a target for its certificate on a thread of its own; gives the end of it, in seconds since 1970. `None` where
/// there is no TLS.
pub fn ask(target: ResolvedTarget) -> Option<Receiver<io::Result<i64>>> {
    if target.connection == ConnectionType::Plain {
        return None;
    }
    let (answer, receiver) = async_channel::bounded(1);
    let asked = thread::Builder::new().name("timecop-certificate".to_owned()).spawn(move || {
        // Nobody waits any longer when the service ends.
        let _ = answer.try_send(of_target(&target));
    });
    asked.ok().map(|_| receiver)
}

fn of_target(target: &ResolvedTarget) -> io::Result<i64> {
    let mut stream = TcpStream::connect_timeout(&target.address, ANSWER_WITHIN)?;
    stream.set_read_timeout(Some(ANSWER_WITHIN))?;
    stream.set_write_timeout(Some(ANSWER_WITHIN))?;
    if target.connection == ConnectionType::StartTls {
        start_tls(&stream)?;
    }
    let certificate = ClientTls::certificate_of(&target.as_target().host, &mut stream)?;
    expiry(&certificate).ok_or_else(|| io::Error::other("the certificate cannot be read"))
}

/// As far as TLS may begin (RFC 3207 §4).
fn start_tls(mut stream: &TcpStream) -> io::Result<()> {
    // What is read ahead of the last reply would be lost to TLS, and no server may say it.
    let mut reader = BufReader::new(Read::take(stream, OCTETS_MAX));
    let mut lines = 0;
    let mut expect = |code: &str| -> io::Result<()> {
        loop {
            let mut line = String::new();
            reader.read_line(&mut line)?;
            lines += 1;
            let is_right = line.starts_with(code) && lines <= LINES_MAX;
            match line.as_bytes().get(3) {
                Some(b'-') if is_right => {}
                _ if is_right => return Ok(()),
                _ => return Err(io::Error::other(format!("expected {code}, got {:?}", line.trim_end()))),
            }
        }
    };
    expect("220")?;
    stream.write_all(b"EHLO timecop.invalid\r\n")?;
    expect("250")?;
    stream.write_all(b"STARTTLS\r\n")?;
    expect("220")
}

/// When the first certificate of a file of PEM expires.
pub fn of_file(path: &Path) -> Option<i64> {
    expiry(&CertificateDer::from_pem_file(path).ok()?)
}

fn expiry(certificate: &[u8]) -> Option<i64> {
    X509Certificate::from_der(certificate).ok().map(|(_, certificate)| certificate.validity().not_after.timestamp())
}

#[cfg(test)]
mod tests {
    use std::net::TcpListener;

    use super::*;

    /// 2030-01-02 00:00:00 UTC.
    const UNTIL: i64 = 1_893_542_400;

    fn certificate() -> (rcgen::Certificate, rcgen::KeyPair) {
        let mut parameters = rcgen::CertificateParams::new(["localhost".to_owned()]).unwrap();
        parameters.not_after = rcgen::date_time_ymd(2030, 1, 2);
        let key = rcgen::KeyPair::generate().unwrap();
        (parameters.self_signed(&key).unwrap(), key)
    }

    /// A server that speaks just enough, on a thread of its own.
    fn server(connection: ConnectionType) -> ResolvedTarget {
        let (certificate, key) = certificate();
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let address = listener.local_addr().unwrap();
        thread::spawn(move || {
            let provider = std::sync::Arc::new(rustls::crypto::ring::default_provider());
            let key = rustls::pki_types::PrivatePkcs8KeyDer::from(key.serialize_der());
            let config = rustls::ServerConfig::builder_with_provider(provider)
                .with_safe_default_protocol_versions()
                .unwrap()
                .with_no_client_auth()
                .with_single_cert(vec![certificate.der().clone()], key.into())
                .unwrap();
            let mut stream = listener.accept().unwrap().0;
            if connection == ConnectionType::StartTls {
                let mut reader = BufReader::new(stream.try_clone().unwrap());
                stream.write_all(b"220 a\r\n").unwrap();
                reader.read_line(&mut String::new()).unwrap();
                stream.write_all(b"250-a\r\n250 STARTTLS\r\n").unwrap();
                reader.read_line(&mut String::new()).unwrap();
                stream.write_all(b"220 go\r\n").unwrap();
            }
            let mut session = rustls::ServerConnection::new(std::sync::Arc::new(config)).unwrap();
            while session.is_handshaking() {
                session.complete_io(&mut stream).unwrap();
            }
        });
        ResolvedTarget {
            name: "t".to_owned(),
            host: "localhost".to_owned(),
            address,
            connection,
            credentials: None,
            ca_file: None,
            skip_verify: false,
            request: Default::default(),
            tls: None,
        }
    }

    #[test]
    fn a_targets_certificate_says_when_it_expires() {
        for connection in [ConnectionType::Tls, ConnectionType::StartTls] {
            let answer = ask(server(connection)).unwrap();
            assert_eq!(answer.recv_blocking().unwrap().unwrap(), UNTIL);
        }
        assert!(ask(ResolvedTarget { connection: ConnectionType::Plain, ..server(ConnectionType::Tls) }).is_none());
        let plain = ResolvedTarget { connection: ConnectionType::StartTls, ..server(ConnectionType::Tls) };
        assert!(of_target(&ResolvedTarget { address: "127.0.0.1:1".parse().unwrap(), ..plain }).is_err());
    }

    #[test]
    fn a_files_first_certificate_says_when_it_expires() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("a.pem");
        std::fs::write(&path, certificate().0.pem()).unwrap();
        assert_eq!(of_file(&path), Some(UNTIL));
        std::fs::write(&path, "none").unwrap();
        assert_eq!((of_file(&path), of_file(Path::new("/nowhere"))), (None, None));
    }
}
