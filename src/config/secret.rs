//! Files with a secret in them, and files that must hold certificates.

use std::fs::{DirBuilder, File, OpenOptions};
use std::io::{ErrorKind, Read as _, Write as _};
use std::os::unix::fs::{DirBuilderExt as _, OpenOptionsExt as _, PermissionsExt as _};
use std::path::Path;

use rustls::pki_types::pem::PemObject as _;
use rustls::pki_types::{CertificateDer, PrivateKeyDer};
use secrecy::{ExposeSecret as _, SecretString};

use super::expected;
use crate::probe::header::{KEY_BYTES, Key};

/// Octets of the longest secret.
const SECRET_BYTES_MAX: u64 = 4_096;
/// Octets of the longest file of certificates: many times what a system trusts.
const PEM_BYTES_MAX: u64 = 16 << 20;
/// Fewest characters of a token.
const TOKEN_CHARS_MIN: usize = 16;

/// A secret that was read, and what is to be said about its file.
#[derive(Debug)]
pub struct Read {
    /// The secret itself, which is shown nowhere.
    pub secret: SecretString,
    /// The file may be read by everybody.
    pub is_open: bool,
}

/// Reads the bearer token: one line of visible ASCII.
pub(super) fn token(path: &Path) -> Result<Read, String> {
    visible(path, "write one with: openssl rand -hex 32")
}

/// Reads the key of an integration of PagerDuty's, 32 characters that nobody but PagerDuty can make.
pub(super) fn routing_key(path: &Path) -> Result<Read, String> {
    visible(path, "copy the Integration Key of an Events API V2 integration from PagerDuty's service page")
}

fn visible(path: &Path, remedy: &str) -> Result<Read, String> {
    let read = secret(path)?;
    let token = read.secret.expose_secret();
    match token.len() >= TOKEN_CHARS_MIN && token.bytes().all(|octet| octet.is_ascii_graphic()) {
        true => Ok(read),
        false => Err(format!(
            "expected one line of at least {TOKEN_CHARS_MIN} visible ASCII characters in {}, got something else; {remedy}",
            path.display()
        )),
    }
}

/// Reads a password: a file of one line.
pub fn password(path: &Path) -> Result<Read, String> {
    let read = secret(path)?;
    let password = read.secret.expose_secret();
    match !password.is_empty() && !password.contains(char::is_control) {
        true => Ok(read),
        false => Err(format!(
            "expected one line without control characters in {}, got none, several, or others; correct the file",
            path.display()
        )),
    }
}

/// The file without its last line end.
fn secret(path: &Path) -> Result<Read, String> {
    let wrong = |got: String| expected("a file with one line of text", format!("{}: {got}", path.display()));
    let metadata = path.metadata().map_err(|error| wrong(error.to_string()))?;
    if !metadata.is_file() {
        return Err(wrong("it is none".to_owned()));
    }
    let file = File::open(path).map_err(|error| wrong(error.to_string()))?;
    let mut text = String::new();
    // Of a text that is no UTF-8 the error says only that.
    file.take(SECRET_BYTES_MAX + 1).read_to_string(&mut text).map_err(|error| wrong(error.to_string()))?;
    if text.len() as u64 > SECRET_BYTES_MAX {
        return Err(wrong(format!("more than {SECRET_BYTES_MAX} octets")));
    }
    let line = text.strip_suffix('\n').map_or(&*text, |line| line.strip_suffix('\r').unwrap_or(line));
    Ok(Read { secret: line.into(), is_open: metadata.permissions().mode() & 0o004 != 0 })
}

/// Checks that a file, if there is one, holds a key for probes.
pub(super) fn check_probe_key(path: &Path) -> Result<(), String> {
    if path.exists() { read_probe_key(path).map(drop) } else { Ok(()) }
}

/// Reads the key that probes are signed with, and makes it first where there is none.
///
/// # Errors
///
/// Says what was expected of which file.
pub fn probe_key(path: &Path) -> Result<Key, String> {
    let wrong = |error: std::io::Error| {
        expected("a file for the probes' key that can be made", format!("{}: {error}", path.display()))
    };
    if let Some(folder) = path.parent().filter(|folder| !folder.as_os_str().is_empty()) {
        DirBuilder::new().recursive(true).mode(0o700).create(folder).map_err(wrong)?;
    }
    match OpenOptions::new().write(true).create_new(true).mode(0o600).open(path) {
        Err(error) if error.kind() == ErrorKind::AlreadyExists => {}
        Err(error) => return Err(wrong(error)),
        Ok(mut file) => {
            let octets: [u8; KEY_BYTES] = rand::random();
            let digits: String = octets.iter().map(|octet| format!("{octet:02x}")).collect();
            let written = writeln!(file, "{digits}").and_then(|()| file.sync_all());
            if let Err(error) = written {
                // Half a key would be taken for a wrong one at the next start.
                let _ = std::fs::remove_file(path);
                return Err(wrong(error));
            }
        }
    }
    read_probe_key(path)
}

fn read_probe_key(path: &Path) -> Result<Key, String> {
    hexadecimal_key(path, ", or remove the file, and one is made at the start").map(|(key, _)| key)
}

/// Reads the key that an audit's stamps are signed with, and says whether everybody may read its file.
///
/// # Errors
///
/// Says what was expected of which file.
pub fn audit_key(path: &Path) -> Result<(Key, bool), String> {
    hexadecimal_key(path, "")
}

/// A key, and whether everybody may read its file; `or` is what else can be done about a wrong one.
fn hexadecimal_key(path: &Path, or: &str) -> Result<(Key, bool), String> {
    let read = secret(path)?;
    let key = Key::parse(read.secret.expose_secret()).ok_or_else(|| {
        format!(
            "expected {} lower-case hexadecimal digits in {}, got something else; write them with: openssl rand -hex \
             {KEY_BYTES}{or}",
            2 * KEY_BYTES,
            path.display()
        )
    })?;
    Ok((key, read.is_open))
}

/// Reads a file that holds a private key as PEM.
///
/// # Errors
///
/// Says what was expected of which file.
pub fn private_key(path: &Path) -> Result<Vec<u8>, String> {
    pem(path, "a private key as PEM", |pem| {
        PrivateKeyDer::from_pem_slice(pem).map_err(|error| error.to_string()).map(drop)
    })
}

/// Reads a file that holds certificates as PEM.
///
/// # Errors
///
/// Says what was expected of which file.
pub fn certificates(path: &Path) -> Result<Vec<u8>, String> {
    pem(
        path,
        "a file of certificates as PEM (-----BEGIN CERTIFICATE-----)",
        |pem| match CertificateDer::pem_slice_iter(pem).try_fold(0, |found, certificate| certificate.map(|_| found + 1))
        {
            Ok(0) => Err("none is in it".to_owned()),
            Ok(_) => Ok(()),
            Err(error) => Err(error.to_string()),
        },
    )
}

/// Reads a file in PEM and has it looked at. Only a regular file: another one might never end.
fn pem(path: &Path, what: &str, check: impl Fn(&[u8]) -> Result<(), String>) -> Result<Vec<u8>, String> {
    let wrong = |got: &dyn std::fmt::Display| expected(what, format!("{}: {got}", path.display()));
    if !path.metadata().map_err(|error| wrong(&error))?.is_file() {
        return Err(wrong(&"it is no file"));
    }
    let file = File::open(path).map_err(|error| wrong(&error))?;
    let mut pem = Vec::new();
    file.take(PEM_BYTES_MAX + 1).read_to_end(&mut pem).map_err(|error| wrong(&error))?;
    if pem.len() as u64 > PEM_BYTES_MAX {
        return Err(wrong(&format_args!("more than {PEM_BYTES_MAX} octets")));
    }
    check(&pem).map_err(|got| wrong(&got))?;
    Ok(pem)
}
