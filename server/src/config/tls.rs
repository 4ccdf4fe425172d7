//! What the directives about TLS come to. `World` asks at the start and after each CONFIG SET.

use std::time::Duration;

use dfsnap_tls::{
    Acceptor, ClientAuth, ClientSettings, Connector, Identity, KeyPassword, PeerCheck,
    ServerSettings, SessionLimits, Suites, TlsError, Trust,
};

use super::Config;
use super::words::FromText;

impl FromText for ClientAuth {
    fn from_text(text: &str) -> Option<ClientAuth> {
        match text {
            "no" => Some(ClientAuth::No),
            "yes" => Some(ClientAuth::Yes),
            "optional" => Some(ClientAuth::Optional),
            _ => None,
        }
    }
}

/// Why there is no TLS: a directive that is missing, or one that cannot be followed.
#[derive(Debug, thiserror::Error)]
pub enum TlsUnconfigured {
    /// In Redis' words.
    #[error("{0}")]
    Missing(&'static str),
    /// A file or a word.
    #[error(transparent)]
    Settings(#[from] TlsError),
}

impl Config {
    /// Whether anything here speaks TLS.
    pub fn uses_tls(&self) -> bool {
        self.tls_port != 0 || self.tls_replication || self.tls_cluster
    }

    /// Where clients connect: without TLS if there is such a port.
    pub fn main_port(&self) -> u16 {
        match self.port {
            0 => self.tls_port,
            port => port,
        }
    }

    /// Whom a primary or a Sentinel connects to.
    pub fn announced_port(&self) -> u16 {
        match (self.replica_announce_port, self.tls_replication) {
            (0, true) if self.tls_port != 0 => self.tls_port,
            (0, _) => self.port,
            (port, _) => port,
        }
    }

    /// Both ends: for clients, and for links to primaries.
    pub fn tls_ends(&self) -> Result<(Acceptor, Option<Connector>), TlsUnconfigured> {
        let missing = TlsUnconfigured::Missing;
        let cert = (self.tls_cert_file.as_ref()).ok_or(missing("No tls-cert-file configured!"))?;
        let key = (self.tls_key_file.as_ref()).ok_or(missing("No tls-key-file configured!"))?;
        let trust = Trust {
            ca_file: self.tls_ca_cert_file.as_ref().map(Into::into),
            ca_dir: self.tls_ca_cert_dir.as_ref().map(Into::into),
        };
        let checks_peers =
            self.tls_auth_clients != ClientAuth::No || self.tls_cluster || self.tls_replication;
        if checks_peers && !trust.is_given() {
            return Err(missing(
                "Either tls-ca-cert-file or tls-ca-cert-dir must be specified when tls-cluster, tls-replication or \
                 tls-auth-clients are enabled!",
            ));
        }
        let own = identity(cert, key, self.tls_key_file_pass.as_ref());
        let client = match (&self.tls_client_cert_file, &self.tls_client_key_file) {
            (Some(cert), Some(key)) => identity(cert, key, self.tls_client_key_file_pass.as_ref()),
            (Some(_), None) => {
                return Err(missing(
                    "tls-client-cert-file is configured, but no tls-client-key-file!",
                ));
            }
            (None, _) => own.clone(),
        };
        let suites = Suites {
            protocols: self.tls_protocols.clone(),
            ciphers: self.tls_ciphers.clone(),
            ciphersuites: self.tls_ciphersuites.clone(),
        };
        let acceptor = Acceptor::new(&ServerSettings {
            identity: own,
            trust: trust.clone(),
            suites: suites.clone(),
            clients: self.tls_auth_clients,
            prefers_own_order: self.tls_prefer_server_ciphers,
            sessions: self.tls_session_caching.then(|| SessionLimits {
                size: self.tls_session_cache_size,
                timeout: Duration::from_secs(self.tls_session_cache_timeout),
            }),
        })?;
        // Links trust whom the directives name, nobody else: `tls-replication` cannot be on without.
        let connector = trust.is_given().then(|| {
            Connector::new(&ClientSettings {
                identity: Some(client),
                trust,
                suites,
                check: PeerCheck::Chain,
            })
        });
        let connector = connector.transpose()?;
        Ok((acceptor, connector))
    }
}

fn identity(cert: &str, key: &str, password: Option<&String>) -> Identity {
    Identity {
        cert_file: cert.into(),
        key_file: key.into(),
        key_password: password.map(|text| KeyPassword(text.clone().into_bytes())),
    }
}
