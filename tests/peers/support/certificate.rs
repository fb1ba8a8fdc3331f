//! Certificates that sign themselves, as files.

use std::fs;
use std::path::{Path, PathBuf};

use rcgen::{CertificateParams, DnType, KeyPair};
use tempfile::TempDir;

/// A certificate and its key. Whoever trusts the one file trusts the certificate.
pub struct Certificate {
    dir: TempDir,
}

impl Certificate {
    /// For these names, good from now on.
    pub fn of(names: &[&str]) -> Certificate {
        Certificate::make(names, |_| {})
    }

    /// For these names, and no more valid.
    pub fn expired(names: &[&str]) -> Certificate {
        Certificate::make(names, |made| made.not_after = rcgen::date_time_ymd(2001, 1, 1))
    }

    fn make(names: &[&str], change: impl FnOnce(&mut CertificateParams)) -> Certificate {
        let dir = tempfile::tempdir().expect("a temporary folder");
        let names: Vec<String> = names.iter().map(|name| (*name).to_owned()).collect();
        let mut made = CertificateParams::new(names).expect("names that a certificate can hold");
        made.distinguished_name.push(DnType::CommonName, dir.path().display().to_string());
        change(&mut made);
        let key = KeyPair::generate().expect("a key");
        let certificate = made.self_signed(&key).expect("a certificate");
        fs::write(dir.path().join("cert.pem"), certificate.pem()).expect("a file in our folder");
        fs::write(dir.path().join("key.pem"), key.serialize_pem()).expect("a file in our folder");
        Certificate { dir }
    }

    /// The certificate's file.
    pub fn file(&self) -> PathBuf {
        self.dir.path().join("cert.pem")
    }

    /// The key's file.
    pub fn key_file(&self) -> PathBuf {
        self.dir.path().join("key.pem")
    }
}

/// A path as an argument.
pub fn text(path: &Path) -> &str {
    path.to_str().expect("a temporary folder has a plain name")
}
