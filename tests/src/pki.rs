//! Certificates for tests: an authority in a folder of its own, and what it signed.

use std::path::PathBuf;

use rcgen::{
    BasicConstraints, CertificateParams, DnType, ExtendedKeyUsagePurpose, IsCa, Issuer, KeyPair,
};
use tempfile::TempDir;

/// An authority.
pub struct Pki {
    folder: TempDir,
    issuer: Issuer<'static, KeyPair>,
}

impl Default for Pki {
    fn default() -> Pki {
        Pki::new()
    }
}

impl Pki {
    /// A new one; its certificate is `ca.crt`.
    pub fn new() -> Pki {
        let folder = TempDir::new().expect("a temporary folder");
        let mut params = CertificateParams::new(Vec::new()).expect("parameters");
        params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
        let name = folder.path().display().to_string();
        params.distinguished_name.push(DnType::CommonName, name);
        let key = KeyPair::generate().expect("a key");
        let cert = params.self_signed(&key).expect("a certificate");
        std::fs::write(folder.path().join("ca.crt"), cert.pem()).expect("a file");
        Pki {
            folder,
            issuer: Issuer::new(params, key),
        }
    }

    /// Signs `NAME.crt` for this machine, with `NAME.key`. Written over if they are there.
    pub fn sign(&self, name: &str) {
        let names = ["localhost".to_owned(), "127.0.0.1".to_owned()];
        let mut params = CertificateParams::new(names).expect("parameters");
        params.extended_key_usages = vec![
            ExtendedKeyUsagePurpose::ServerAuth,
            ExtendedKeyUsagePurpose::ClientAuth,
        ];
        params.distinguished_name.push(DnType::CommonName, name);
        let key = KeyPair::generate().expect("a key");
        let cert = params.signed_by(&key, &self.issuer).expect("a certificate");
        std::fs::write(self.path(&format!("{name}.crt")), cert.pem()).expect("a file");
        std::fs::write(self.path(&format!("{name}.key")), key.serialize_pem()).expect("a file");
    }

    /// A file of this name in the folder.
    pub fn path(&self, name: &str) -> PathBuf {
        self.folder.path().join(name)
    }

    /// The same as a text.
    pub fn text(&self, name: &str) -> String {
        self.path(name).display().to_string()
    }

    /// Arguments of a server, of ours or the machine's, that has `NAME.crt` and a port for TLS.
    pub fn server_args(&self, name: &str, tls_port: u16) -> Vec<String> {
        self.sign(name);
        let (cert, key) = (format!("{name}.crt"), format!("{name}.key"));
        let args = [
            ("--tls-port", tls_port.to_string()),
            ("--tls-cert-file", self.text(&cert)),
            ("--tls-key-file", self.text(&key)),
            ("--tls-ca-cert-file", self.text("ca.crt")),
        ];
        let words = args
            .into_iter()
            .flat_map(|(name, value)| [name.to_owned(), value]);
        words.collect()
    }
}
