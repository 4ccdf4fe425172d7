//! The end that connects.

use std::net::{IpAddr, Ipv4Addr};
use std::sync::Arc;

use rustls::client::WebPkiServerVerifier;
use rustls::pki_types::ServerName;
use rustls::{ClientConfig, ClientConnection};

use crate::error::TlsError;
use crate::files::{Identity, Trust, machine_roots};
use crate::session::Session;
use crate::suites::Suites;
use crate::verify::NamelessVerifier;

/// What is checked of the server's certificate.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum PeerCheck {
    /// A trusted chain, and the name that was connected to.
    Name,
    /// A trusted chain. This is what Redis' own links check.
    Chain,
    /// Nothing: an eavesdropper is kept out, an impostor is not.
    Nothing,
}

/// What a client is told.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ClientSettings {
    /// Shown to servers that ask for it.
    pub identity: Option<Identity>,
    /// Whose servers are believed; what the machine trusts, if nothing is named.
    pub trust: Trust,
    /// Versions and ciphers.
    pub suites: Suites,
    /// How they are believed.
    pub check: PeerCheck,
}

/// Begins sessions with servers. Cheap to clone.
#[derive(Clone, Debug)]
pub struct Connector {
    config: Arc<ClientConfig>,
    check: PeerCheck,
}

impl Connector {
    /// Reads all files and checks all settings.
    pub fn new(settings: &ClientSettings) -> Result<Connector, TlsError> {
        let (provider, versions) = settings.suites.resolve()?;
        let roots = || match settings.trust.is_given() {
            true => settings.trust.load(),
            false => machine_roots(),
        };
        let builder = ClientConfig::builder_with_provider(provider.clone())
            .with_protocol_versions(&versions)?;
        let builder =
            match settings.check {
                PeerCheck::Name => {
                    let roots = Arc::new(roots()?);
                    let verifier =
                        WebPkiServerVerifier::builder_with_provider(roots, provider.clone());
                    let verifier = verifier
                        .build()
                        .map_err(|error| rustls::Error::General(error.to_string()))?;
                    builder.with_webpki_verifier(verifier)
                }
                PeerCheck::Chain => builder.dangerous().with_custom_certificate_verifier(
                    NamelessVerifier::of_chain(roots()?, provider.clone()),
                ),
                PeerCheck::Nothing => builder.dangerous().with_custom_certificate_verifier(
                    NamelessVerifier::of_nothing(provider.clone()),
                ),
            };
        let config = match &settings.identity {
            Some(identity) => builder.with_client_cert_resolver(identity.load(&provider)?),
            None => builder.with_no_client_auth(),
        };
        Ok(Connector {
            config: Arc::new(config),
            check: settings.check,
        })
    }

    /// A session with the server of this name or address.
    pub fn begin(&self, name: &str) -> Result<Session, TlsError> {
        let server = match ServerName::try_from(name.to_owned()) {
            Ok(server) => server,
            Err(_) if self.check == PeerCheck::Name => {
                return Err(TlsError::Setting {
                    setting: "server name",
                    reason: format!("{name:?} cannot stand in a certificate"),
                });
            }
            // An address is not sent, and here nobody looks at it.
            Err(_) => ServerName::IpAddress(IpAddr::V4(Ipv4Addr::UNSPECIFIED).into()),
        };
        let connection = ClientConnection::new(self.config.clone(), server)?;
        Ok(Session::new(connection.into()))
    }
}
