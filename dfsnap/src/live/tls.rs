//! How `rediss://` is spoken: what the command line says, and what an address adds.
//!
//! `main` keeps the options of the command line here once; `url` asks for what goes with an address.

use crate::report::Failure;
use clap::Args;
use dfsnap_tls::{
    ClientSettings, Connector, Identity, KeyPassword, PeerCheck, Session, Suites, TlsError, Trust,
};
use std::path::PathBuf;
use std::sync::OnceLock;

/// How servers are spoken to whose address begins with rediss://
#[derive(Debug, Clone, Default, Args)]
#[command(next_help_heading = "TLS")]
pub struct TlsArgs {
    /// Who is trusted: a file or a folder of certificates; otherwise what this machine trusts
    #[arg(
        long,
        global = true,
        value_name = "PATH",
        env = "DFSNAP_CACERT",
        hide_short_help = true
    )]
    pub cacert: Option<PathBuf>,
    /// Certificate to show
    #[arg(
        long,
        global = true,
        value_name = "FILE",
        env = "DFSNAP_CERT",
        hide_short_help = true
    )]
    pub cert: Option<PathBuf>,
    /// Key of the certificate; its password, if it has one, is in DFSNAP_CERT_KEY_PASSWORD
    #[arg(
        long,
        global = true,
        value_name = "FILE",
        env = "DFSNAP_CERT_KEY",
        hide_short_help = true
    )]
    pub cert_key: Option<PathBuf>,
    /// Name that the server's certificate must have; otherwise that of the address
    #[arg(long, global = true, value_name = "NAME", hide_short_help = true)]
    pub server_name: Option<String>,
    /// Do not look at the server's certificate: anybody could be in between
    #[arg(long, global = true, hide_short_help = true)]
    pub insecure: bool,
}

const KEY_PASSWORD_VARIABLE: &str = "DFSNAP_CERT_KEY_PASSWORD";

static ARGS: OnceLock<TlsArgs> = OnceLock::new();

/// Called once, with what the command line says.
pub fn keep(args: TlsArgs) {
    // A second call would be a second command line.
    let _ = ARGS.set(args);
}

/// How one server is spoken to.
#[derive(Debug, Clone)]
pub struct Tls {
    connector: Connector,
    name: String,
    /// The name was given, and is that of every node.
    is_named: bool,
}

impl Tls {
    /// For the server `host`, with what the query of its address says before what the command line says.
    pub fn new(host: &str, query: &str) -> Result<Tls, Failure> {
        let args = with_query(ARGS.get().cloned().unwrap_or_default(), query)?;
        let identity = match (args.cert, args.cert_key) {
            (None, None) => None,
            (Some(cert_file), Some(key_file)) => Some(Identity {
                cert_file,
                key_file,
                key_password: key_password(),
            }),
            _ => {
                return Err(Failure {
                    message: "a certificate needs its key, and a key its certificate".to_owned(),
                    advice: "--cert FILE --cert-key FILE".to_owned(),
                });
            }
        };
        let is_folder = args.cacert.as_ref().is_some_and(|path| path.is_dir());
        let (ca_file, ca_dir) = match is_folder {
            true => (None, args.cacert),
            false => (args.cacert, None),
        };
        let settings = ClientSettings {
            identity,
            trust: Trust { ca_file, ca_dir },
            suites: Suites::default(),
            check: match args.insecure {
                true => PeerCheck::Nothing,
                false => PeerCheck::Name,
            },
        };
        Ok(Tls {
            connector: Connector::new(&settings).map_err(|error| failure(&error))?,
            is_named: args.server_name.is_some(),
            name: args.server_name.unwrap_or_else(|| host.to_owned()),
        })
    }

    /// The same for another node of the cluster.
    pub fn at(&self, host: &str) -> Tls {
        let mut tls = self.clone();
        if !tls.is_named {
            tls.name = host.to_owned();
        }
        tls
    }

    /// A session with the server.
    pub fn begin(&self) -> std::io::Result<Session> {
        self.connector
            .begin(&self.name)
            .map_err(std::io::Error::other)
    }
}

fn key_password() -> Option<KeyPassword> {
    let value = std::env::var_os(KEY_PASSWORD_VARIABLE)?;
    Some(KeyPassword(std::os::unix::ffi::OsStringExt::into_vec(
        value,
    )))
}

fn failure(error: &TlsError) -> Failure {
    let advice = match error {
        TlsError::NoTrust => "this machine trusts nobody: --cacert FILE says who signed",
        _ => "PEM files: --cacert who signed for the server, --cert and --cert-key who we are",
    };
    Failure {
        message: error.to_string(),
        advice: advice.to_owned(),
    }
}

/// `cacert=…&cert=…&cert-key=…&server-name=…&insecure`
fn with_query(mut args: TlsArgs, query: &str) -> Result<TlsArgs, Failure> {
    for part in query.split('&').filter(|part| !part.is_empty()) {
        let (name, value) = part.split_once('=').unwrap_or((part, ""));
        let value = super::url::decoded(value)
            .and_then(|bytes| String::from_utf8(bytes).ok())
            .unwrap_or_default();
        match name {
            "insecure" => args.insecure = !matches!(value.as_str(), "no" | "0" | "false"),
            _ if value.is_empty() => return Err(unknown(name)),
            "cacert" => args.cacert = Some(value.into()),
            "cert" => args.cert = Some(value.into()),
            "cert-key" => args.cert_key = Some(value.into()),
            "server-name" => args.server_name = Some(value),
            _ => return Err(unknown(name)),
        }
    }
    Ok(args)
}

fn unknown(name: &str) -> Failure {
    Failure {
        message: format!("{name}: not what an address can say behind its question mark"),
        advice: "cacert=PATH, cert=FILE, cert-key=FILE, server-name=NAME, insecure".to_owned(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_address_goes_before_the_command_line() {
        let args = TlsArgs {
            cacert: Some("all.crt".into()),
            cert: Some("me.crt".into()),
            insecure: true,
            ..TlsArgs::default()
        };
        let found = with_query(args, "cacert=a%26b.crt&server-name=db&insecure=no").unwrap();
        assert_eq!(found.cacert, Some("a&b.crt".into()));
        assert_eq!(found.cert, Some("me.crt".into()));
        assert_eq!(found.server_name.as_deref(), Some("db"));
        assert!(!found.insecure);
        for query in ["cacert=", "key=x", "cert"] {
            assert!(with_query(TlsArgs::default(), query).is_err(), "{query}");
        }
    }
}
