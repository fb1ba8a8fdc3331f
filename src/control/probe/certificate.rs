//! Certificates: when those of the routes' targets expire, asked for once a day by a handshake of its own; and that of our
//! own server, read from its files.

use std::io::{self, BufRead as _, BufReader, Read, Write};
use std::net::TcpStream;
use std::thread;
use std::time::{Duration, Instant};

use async_channel::Receiver;
use thiserror::Error;

use crate::config::{self, Smtp};
use crate::control::targets::ResolvedTarget;
use crate::job::spec::ConnectionType;
use crate::shard::tls::{ClientTls, ServerTls, expiry_unix_s};

/// How long connecting and all answers together may take.
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
    of_target_within(target, ANSWER_WITHIN)
}

fn of_target_within(target: &ResolvedTarget, within: Duration) -> io::Result<i64> {
    let until = Instant::now() + within;
    let mut stream = Limited { stream: TcpStream::connect_timeout(&target.address, within)?, until };
    if target.connection == ConnectionType::StartTls {
        start_tls(&mut stream)?;
    }
    let certificate = ClientTls::certificate_of(&target.as_target().host, &mut stream)?;
    expiry_unix_s(&certificate).ok_or_else(|| io::Error::other("the certificate cannot be read"))
}

/// A stream whose every call ends in time, so that a server that says an octet now and then holds nobody up.
struct Limited {
    stream: TcpStream,
    until: Instant,
}

impl Limited {
    fn left(&self) -> io::Result<Option<Duration>> {
        match self.until.saturating_duration_since(Instant::now()) {
            Duration::ZERO => Err(io::ErrorKind::TimedOut.into()),
            left => Ok(Some(left)),
        }
    }
}

impl Read for Limited {
    fn read(&mut self, octets: &mut [u8]) -> io::Result<usize> {
        self.stream.set_read_timeout(self.left()?)?;
        self.stream.read(octets)
    }
}

impl Write for Limited {
    fn write(&mut self, octets: &[u8]) -> io::Result<usize> {
        self.stream.set_write_timeout(self.left()?)?;
        self.stream.write(octets)
    }

    fn flush(&mut self) -> io::Result<()> {
        self.stream.flush()
    }
}

/// As far as TLS may begin (RFC 3207 §4).
fn start_tls(stream: &mut Limited) -> io::Result<()> {
    // What is read ahead of the last reply would be lost to TLS, and no server may say it.
    let mut reader = BufReader::new(Read::take(stream, OCTETS_MAX));
    let mut lines = 0;
    let mut expect = |reader: &mut BufReader<io::Take<&mut Limited>>, code: &str| -> io::Result<()> {
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
    expect(&mut reader, "220")?;
    reader.get_mut().get_mut().write_all(b"EHLO timecop.invalid\r\n")?;
    expect(&mut reader, "250")?;
    reader.get_mut().get_mut().write_all(b"STARTTLS\r\n")?;
    expect(&mut reader, "220")
}

/// What is wrong with the certificate of our own server.
#[derive(Debug, Error)]
#[error("{key} in [smtp]: {problem}")]
pub struct CertificateFault {
    /// The key of `[smtp]` whose file it is.
    pub key: &'static str,
    /// What was expected of it and what came.
    pub problem: String,
}

/// The TLS of our own server as it is configured: by its files, or by a certificate that it signs itself.
///
/// # Errors
///
/// A file cannot be read, or holds something else. What was read before stays good.
pub fn of_server(smtp: &Smtp, hostname: &str) -> Result<ServerTls, CertificateFault> {
    let fault = |key| move |problem| CertificateFault { key, problem };
    let made = match &smtp.certificate {
        None => ServerTls::self_signed(hostname),
        Some(files) => {
            let certificate = config::certificates(&files.cert_file).map_err(fault("cert_file"))?;
            let key = config::private_key(&files.key_file).map_err(fault("key_file"))?;
            ServerTls::from_pem(&certificate, &key)
        }
    };
    // In the words of the configuration.
    made.map_err(|error| {
        let key = if error.field == "tls_key" { "key_file" } else { "cert_file" };
        CertificateFault { key, problem: error.problem.replace("tls_cert", "cert_file") }
    })
}

#[cfg(test)]
mod tests {
    use std::net::TcpListener;

    use super::*;
    use crate::config::CertificateFiles;

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

    /// It says an octet now and then, and never all of a line.
    #[test]
    fn a_server_that_drips_is_waited_for_no_longer_than_one_that_is_silent() {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let address = listener.local_addr().unwrap();
        let dripping = thread::spawn(move || {
            let mut stream = listener.accept().unwrap().0;
            while stream.write_all(b"2").is_ok() {
                thread::sleep(Duration::from_millis(10));
            }
        });
        let target = ResolvedTarget { address, ..server(ConnectionType::StartTls) };
        assert!(of_target_within(&target, Duration::from_millis(300)).is_err());
        dripping.join().unwrap();
    }

    #[test]
    fn our_own_certificate_is_read_from_its_files_and_says_when_it_expires() {
        let folder = tempfile::tempdir().unwrap();
        let files = CertificateFiles { cert_file: folder.path().join("a.pem"), key_file: folder.path().join("k.pem") };
        let (certificate, key) = certificate();
        std::fs::write(&files.cert_file, certificate.pem()).unwrap();
        std::fs::write(&files.key_file, key.serialize_pem()).unwrap();
        let smtp = Smtp { certificate: Some(files.clone()), ..Smtp::default() };
        assert_eq!(of_server(&smtp, "a.example").unwrap().expiry_unix_s(), Some(UNTIL));
        let fault = || of_server(&smtp, "a.example").unwrap_err().to_string();
        std::fs::write(&files.key_file, rcgen::KeyPair::generate().unwrap().serialize_pem()).unwrap();
        let said =
            "key_file in [smtp]: expected the private key of the first certificate in `cert_file`, got that of another";
        assert!(fault().starts_with(said), "{}", fault());
        std::fs::write(&files.key_file, "none").unwrap();
        assert!(fault().starts_with("key_file in [smtp]: expected a private key as PEM"), "{}", fault());
        std::fs::remove_file(&files.cert_file).unwrap();
        assert!(fault().starts_with("cert_file in [smtp]: expected a file of certificates as PEM"), "{}", fault());
        assert!(of_server(&Smtp::default(), "a.example").unwrap().expiry_unix_s() > Some(UNTIL));
    }
}
