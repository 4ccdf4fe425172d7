//! The end that is connected to.

use std::sync::Arc;
use std::time::Duration;

use rustls::server::{NoServerSessionStorage, WebPkiClientVerifier};
use rustls::{ServerConfig, ServerConnection};

use crate::error::TlsError;
use crate::files::{Identity, Trust};
use crate::session::Session;
use crate::store::SessionStore;
use crate::suites::Suites;

/// Whether clients show a certificate: `tls-auth-clients`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ClientAuth {
    /// None is asked for.
    No,
    /// Who shows none, or a bad one, is sent away.
    Yes,
    /// Who shows a bad one is sent away.
    Optional,
}

/// How many sessions can be resumed, and for how long.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct SessionLimits {
    /// 0: any number.
    pub size: usize,
    /// Since the session began.
    pub timeout: Duration,
}

/// What a server is told.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ServerSettings {
    /// Who it is.
    pub identity: Identity,
    /// Whose clients it lets in.
    pub trust: Trust,
    /// Versions and ciphers.
    pub suites: Suites,
    /// Must clients show a certificate?
    pub clients: ClientAuth,
    /// The server's order of ciphers decides, not the client's.
    pub prefers_own_order: bool,
    /// `None`: every connection begins anew.
    pub sessions: Option<SessionLimits>,
}

/// Begins sessions with those who connect. Cheap to clone.
#[derive(Clone, Debug)]
pub struct Acceptor(Arc<ServerConfig>);

impl Acceptor {
    /// Reads all files and checks all settings.
    pub fn new(settings: &ServerSettings) -> Result<Acceptor, TlsError> {
        let (provider, versions) = settings.suites.resolve()?;
        let identity = settings.identity.load(&provider)?;
        let builder = ServerConfig::builder_with_provider(provider.clone())
            .with_protocol_versions(&versions)?;
        let builder = match settings.clients {
            ClientAuth::No => builder.with_no_client_auth(),
            ClientAuth::Yes | ClientAuth::Optional => {
                let roots = Arc::new(settings.trust.load()?);
                let verifier = WebPkiClientVerifier::builder_with_provider(roots, provider);
                let verifier = match settings.clients {
                    ClientAuth::Optional => verifier.allow_unauthenticated(),
                    _ => verifier,
                };
                let verifier = verifier
                    .build()
                    .map_err(|error| rustls::Error::General(error.to_string()))?;
                builder.with_client_cert_verifier(verifier)
            }
        };
        let mut config = builder.with_cert_resolver(identity);
        config.ignore_client_order = settings.prefers_own_order;
        match settings.sessions {
            Some(SessionLimits { size, timeout }) => {
                config.session_storage = Arc::new(SessionStore::new(size, timeout));
            }
            None => {
                config.session_storage = Arc::new(NoServerSessionStorage {});
                config.send_tls13_tickets = 0;
            }
        }
        Ok(Acceptor(Arc::new(config)))
    }

    /// A session with a client that has just connected.
    pub fn begin(&self) -> Result<Session, TlsError> {
        let connection = ServerConnection::new(self.0.clone())?;
        Ok(Session::new(connection.into()))
    }
}
