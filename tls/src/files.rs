//! Certificates and keys from PEM files.

use std::fmt;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use rustls::crypto::CryptoProvider;
use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, PrivateKeyDer};
use rustls::sign::{CertifiedKey, SingleCertAndKey};
use rustls::{InconsistentKeys, RootCertStore};

use crate::error::TlsError;
use crate::key;

/// Who one is: a chain of certificates and the key of the first.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Identity {
    /// PEM; the own certificate first, then those that lead to a trusted one.
    pub cert_file: PathBuf,
    /// PEM: PKCS#8 (encrypted or not), PKCS#1 or SEC1.
    pub key_file: PathBuf,
    /// Of an encrypted key.
    pub key_password: Option<KeyPassword>,
}

/// A password that is never shown.
#[derive(Clone, PartialEq, Eq)]
pub struct KeyPassword(pub Vec<u8>);

impl fmt::Debug for KeyPassword {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("(hidden)")
    }
}

/// Whom one believes.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Trust {
    /// PEM, any number of certificates.
    pub ca_file: Option<PathBuf>,
    /// All certificates of a folder's files; what is none is passed over.
    pub ca_dir: Option<PathBuf>,
}

impl Identity {
    /// Reads and checks it.
    pub(crate) fn load(
        &self,
        provider: &CryptoProvider,
    ) -> Result<Arc<SingleCertAndKey>, TlsError> {
        let certs = certificates(&self.cert_file)?;
        let key = self.key()?;
        let key = provider
            .key_provider
            .load_private_key(key)
            .map_err(|error| TlsError::unusable(&self.key_file, error.to_string()))?;
        let certified = CertifiedKey::new(certs, key);
        match certified.keys_match() {
            Ok(()) | Err(rustls::Error::InconsistentKeys(InconsistentKeys::Unknown)) => {}
            Err(rustls::Error::InconsistentKeys(_)) => {
                return Err(TlsError::Mismatch {
                    cert: self.cert_file.clone(),
                    key: self.key_file.clone(),
                });
            }
            // A certificate of version 1 can be shown, whatever a peer makes of it.
            Err(error) if error.to_string().contains("UnsupportedCertVersion") => {}
            Err(error) => return Err(TlsError::unusable(&self.cert_file, error.to_string())),
        }
        Ok(Arc::new(SingleCertAndKey::from(certified)))
    }

    fn key(&self) -> Result<PrivateKeyDer<'static>, TlsError> {
        let pem = read(&self.key_file)?;
        let is_protected = key::is_encrypted(&pem);
        if let Some(password) = self.key_password.as_ref().filter(|_| is_protected) {
            return key::decrypt(&pem, &password.0)
                .map_err(|reason| TlsError::unusable(&self.key_file, reason));
        }
        PrivateKeyDer::from_pem_slice(&pem).map_err(|error| {
            let reason = match is_protected {
                true => "the key is encrypted and no password is given".to_owned(),
                false => format!("no private key: {error}"),
            };
            TlsError::unusable(&self.key_file, reason)
        })
    }
}

impl Trust {
    /// Says whether it names anything.
    pub fn is_given(&self) -> bool {
        self.ca_file.is_some() || self.ca_dir.is_some()
    }

    /// Reads what it names.
    pub(crate) fn load(&self) -> Result<RootCertStore, TlsError> {
        let mut roots = RootCertStore::empty();
        if let Some(path) = &self.ca_file {
            for cert in certificates(path)? {
                let added = roots.add(cert);
                added.map_err(|error| TlsError::unusable(path, error.to_string()))?;
            }
        }
        if let Some(folder) = &self.ca_dir {
            add_folder(&mut roots, folder)?;
        }
        match roots.is_empty() {
            true => Err(TlsError::NoTrust),
            false => Ok(roots),
        }
    }
}

/// What this machine trusts.
pub(crate) fn machine_roots() -> Result<RootCertStore, TlsError> {
    let mut roots = RootCertStore::empty();
    roots.add_parsable_certificates(rustls_native_certs::load_native_certs().certs);
    match roots.is_empty() {
        true => Err(TlsError::NoTrust),
        false => Ok(roots),
    }
}

fn add_folder(roots: &mut RootCertStore, folder: &Path) -> Result<(), TlsError> {
    let unreadable = |source| TlsError::Unreadable {
        path: folder.to_owned(),
        source,
    };
    let known = roots.len();
    for entry in std::fs::read_dir(folder).map_err(unreadable)? {
        let path = entry.map_err(unreadable)?.path();
        if let Some(certs) = path.is_file().then(|| certificates(&path)) {
            roots.add_parsable_certificates(certs.unwrap_or_default());
        }
    }
    match roots.len() == known {
        true => Err(TlsError::unusable(folder, "no certificates in this folder")),
        false => Ok(()),
    }
}

fn certificates(path: &Path) -> Result<Vec<CertificateDer<'static>>, TlsError> {
    let pem = read(path)?;
    let certs: Result<Vec<_>, _> = CertificateDer::pem_slice_iter(&pem).collect();
    match certs {
        Ok(certs) if certs.is_empty() => {
            Err(TlsError::unusable(path, "no certificate in PEM form"))
        }
        Ok(certs) => Ok(certs),
        Err(error) => Err(TlsError::unusable(path, error.to_string())),
    }
}

fn read(path: &Path) -> Result<Vec<u8>, TlsError> {
    std::fs::read(path).map_err(|source| TlsError::Unreadable {
        path: path.to_owned(),
        source,
    })
}
