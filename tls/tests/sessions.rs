//! Sessions over a socket pair, with certificates made here.

use std::io::{ErrorKind, Read, Write};
use std::os::unix::net::UnixStream;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::Duration;

use dfsnap_tls::{
    Acceptor, ClientAuth, ClientSettings, Connector, Identity, KeyPassword, PeerCheck,
    ServerSettings, Session, SessionLimits, Suites, Trust,
};
use rcgen::{BasicConstraints, CertificateParams, ExtendedKeyUsagePurpose, IsCa, Issuer, KeyPair};

/// A folder with an authority, and certificates that it signed.
struct Pki {
    folder: tempfile::TempDir,
    issuer: Issuer<'static, KeyPair>,
}

impl Pki {
    fn new() -> Pki {
        let folder = tempfile::tempdir().expect("a folder");
        let mut params = CertificateParams::new(Vec::new()).expect("parameters");
        params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
        let key = KeyPair::generate().expect("a key");
        let cert = params.self_signed(&key).expect("a certificate");
        std::fs::write(folder.path().join("ca.crt"), cert.pem()).expect("a file");
        Pki {
            folder,
            issuer: Issuer::new(params, key),
        }
    }

    fn path(&self, name: &str) -> PathBuf {
        self.folder.path().join(name)
    }

    /// An identity for these names, signed by the authority.
    fn identity(&self, file: &str, names: &[&str]) -> Identity {
        let names: Vec<String> = names.iter().map(|name| (*name).to_owned()).collect();
        let mut params = CertificateParams::new(names).expect("parameters");
        params.extended_key_usages = vec![
            ExtendedKeyUsagePurpose::ServerAuth,
            ExtendedKeyUsagePurpose::ClientAuth,
        ];
        let key = KeyPair::generate().expect("a key");
        let cert = params.signed_by(&key, &self.issuer).expect("a certificate");
        let cert_file = self.path(&format!("{file}.crt"));
        let key_file = self.path(&format!("{file}.key"));
        std::fs::write(&cert_file, cert.pem()).expect("a file");
        std::fs::write(&key_file, key.serialize_pem()).expect("a file");
        Identity {
            cert_file,
            key_file,
            key_password: None,
        }
    }

    fn trust(&self) -> Trust {
        Trust {
            ca_file: Some(self.path("ca.crt")),
            ca_dir: None,
        }
    }

    fn server(&self) -> ServerSettings {
        ServerSettings {
            identity: self.identity("server", &["localhost"]),
            trust: self.trust(),
            suites: Suites::default(),
            clients: ClientAuth::No,
            prefers_own_order: false,
            sessions: Some(SessionLimits {
                size: 10,
                timeout: Duration::from_secs(300),
            }),
        }
    }

    fn client(&self) -> ClientSettings {
        ClientSettings {
            identity: None,
            trust: self.trust(),
            suites: Suites::default(),
            check: PeerCheck::Name,
        }
    }
}

/// What each end has after its handshake.
type Ended = Result<(Session, UnixStream), String>;

fn connect(server: &ServerSettings, client: &ClientSettings, name: &str) -> (Ended, Ended) {
    let server = Acceptor::new(server).expect("server settings");
    let client = Connector::new(client).expect("client settings");
    join(
        server.begin().expect("a session"),
        client.begin(name).expect("a session"),
    )
}

fn join(server: Session, client: Session) -> (Ended, Ended) {
    let (ours, theirs) = UnixStream::pair().expect("sockets");
    let run = |mut session: Session, mut socket: UnixStream, is_server: bool| -> Ended {
        let limit = Some(Duration::from_secs(10));
        socket.set_read_timeout(limit).expect("a timeout");
        session.handshake(&mut socket).map_err(|e| e.to_string())?;
        // A client of TLS 1.3 is done before the server has looked at its certificate.
        if is_server {
            session
                .write(&mut socket, b"!")
                .map_err(|e| e.to_string())?;
            session.flush(&mut socket).map_err(|e| e.to_string())?;
        } else {
            let mut byte = [0];
            let read = session.read(&mut socket, &mut byte);
            if read.map_err(|e| e.to_string())? == 0 {
                return Err("closed".into());
            }
        }
        Ok((session, socket))
    };
    std::thread::scope(|scope| {
        let server = scope.spawn(move || run(server, ours, true));
        let client = scope.spawn(move || run(client, theirs, false));
        (
            server.join().expect("no panic"),
            client.join().expect("no panic"),
        )
    })
}

fn openssl(args: &[&str], folder: &Path) {
    let output = Command::new("openssl")
        .args(args)
        .current_dir(folder)
        .output();
    let output = output.expect("openssl");
    assert!(
        output.status.success(),
        "{}",
        String::from_utf8_lossy(&output.stderr)
    );
}

#[test]
fn bytes_arrive_in_both_directions_whatever_the_sizes() {
    let pki = Pki::new();
    let (server, client) = connect(&pki.server(), &pki.client(), "localhost");
    let ((mut server, mut ours), (mut client, mut theirs)) =
        (server.expect("a server"), client.expect("a client"));
    let sent: Vec<u8> = (0..3_000_000u32).map(|n| (n * 7 % 251) as u8).collect();
    for socket in [&ours, &theirs] {
        socket.set_nonblocking(true).expect("non-blocking");
    }
    let (mut given, mut got, mut chunk) = (0, Vec::new(), vec![0; 100_000]);
    let mut steps = 0u64;
    while got.len() < sent.len() {
        steps += 1;
        let wanted = [1, 17, 4096, 50_000, chunk.len()][(steps % 5) as usize];
        let end = sent.len().min(given + wanted);
        match server.write(&mut ours, &sent[given..end]) {
            Ok(taken) => given += taken,
            Err(error) => assert_eq!(error.kind(), ErrorKind::WouldBlock),
        }
        match client.read(&mut theirs, &mut chunk[..wanted]) {
            Ok(0) => panic!("closed after {} bytes", got.len()),
            Ok(read) => got.extend_from_slice(&chunk[..read]),
            Err(error) => assert_eq!(error.kind(), ErrorKind::WouldBlock),
        }
    }
    assert!(got == sent, "other bytes arrived");
    // Peeked bytes are still there.
    client.write(&mut theirs, b"hello").expect("room");
    assert_eq!(server.peek(&mut ours).expect("bytes"), b"hello");
    server.consume(2);
    assert_eq!(server.read(&mut ours, &mut chunk).expect("bytes"), 3);
    assert_eq!(&chunk[..3], b"llo");
    client.close(&mut theirs);
    assert_eq!(server.read(&mut ours, &mut chunk).expect("an end"), 0);
    assert!(server.peek(&mut ours).expect("an end").is_empty());
}

#[test]
fn a_peer_that_goes_without_a_word_has_closed() {
    let pki = Pki::new();
    let (server, client) = connect(&pki.server(), &pki.client(), "localhost");
    let (mut server, mut ours) = server.expect("a server");
    drop(client.expect("a client"));
    assert_eq!(server.read(&mut ours, &mut [0; 10]).expect("an end"), 0);
}

#[test]
fn names_and_chains_are_checked_as_asked() {
    let (pki, other) = (Pki::new(), Pki::new());
    let rows = [
        ("the name", PeerCheck::Name, "localhost", true, Ok(())),
        (
            "another name",
            PeerCheck::Name,
            "elsewhere",
            true,
            Err("not valid for name"),
        ),
        (
            "a chain, another name",
            PeerCheck::Chain,
            "elsewhere",
            true,
            Ok(()),
        ),
        (
            "a chain, no name",
            PeerCheck::Chain,
            "no name!",
            true,
            Ok(()),
        ),
        (
            "another chain",
            PeerCheck::Chain,
            "localhost",
            false,
            Err("invalid peer certificate: BadSignature"),
        ),
        (
            "another chain, the name",
            PeerCheck::Name,
            "localhost",
            false,
            Err("invalid peer certificate: BadSignature"),
        ),
        ("nothing", PeerCheck::Nothing, "elsewhere", false, Ok(())),
    ];
    for (row, check, name, is_ours, want) in rows {
        let trust = if is_ours { pki.trust() } else { other.trust() };
        let client = ClientSettings {
            trust,
            check,
            ..pki.client()
        };
        let (_, client) = connect(&pki.server(), &client, name);
        match (client, want) {
            (Ok(_), Ok(())) => {}
            (Err(error), Err(want)) => assert!(error.contains(want), "{row}: {error}"),
            (got, want) => panic!("{row}: {got:?}, wanted {want:?}"),
        }
    }
}

#[test]
fn clients_show_certificates_as_asked() {
    let (pki, other) = (Pki::new(), Pki::new());
    let good = || Some(pki.identity("client", &["me"]));
    let bad = || Some(other.identity("client", &["me"]));
    let rows = [
        ("no, none", ClientAuth::No, None, true),
        ("no, bad", ClientAuth::No, bad(), true),
        ("yes, none", ClientAuth::Yes, None, false),
        ("yes, good", ClientAuth::Yes, good(), true),
        ("yes, bad", ClientAuth::Yes, bad(), false),
        ("optional, none", ClientAuth::Optional, None, true),
        ("optional, good", ClientAuth::Optional, good(), true),
        ("optional, bad", ClientAuth::Optional, bad(), false),
    ];
    for (row, clients, identity, want) in rows {
        for protocols in ["TLSv1.2", "TLSv1.3"] {
            let suites = Suites {
                protocols: protocols.into(),
                ..Suites::default()
            };
            let server = ServerSettings {
                clients,
                suites,
                ..pki.server()
            };
            let client = ClientSettings {
                identity: identity.clone(),
                ..pki.client()
            };
            let (server, client) = connect(&server, &client, "localhost");
            let is_in = server.is_ok() && client.is_ok();
            assert_eq!(is_in, want, "{row}, {protocols}: {server:?} {client:?}");
        }
    }
}

#[test]
fn versions_and_ciphers_are_those_of_the_settings() {
    let pki = Pki::new();
    let rows = [
        (
            ("TLSv1.2", "ECDHE-ECDSA-AES128-GCM-SHA256", ""),
            "TLSv1_2 TLS_ECDHE_ECDSA_WITH_AES_128_GCM_SHA256",
        ),
        (
            ("", "", "TLS_CHACHA20_POLY1305_SHA256"),
            "TLSv1_3 TLS13_CHACHA20_POLY1305_SHA256",
        ),
        (
            ("TLSv1.3 TLSv1.2", "", ""),
            "TLSv1_3 TLS13_AES_256_GCM_SHA384",
        ),
    ];
    for ((protocols, ciphers, ciphersuites), want) in rows {
        let suites = Suites {
            protocols: protocols.into(),
            ciphers: ciphers.into(),
            ciphersuites: ciphersuites.into(),
        };
        let server = ServerSettings {
            suites,
            ..pki.server()
        };
        let (_, client) = connect(&server, &pki.client(), "localhost");
        let (client, _) = client.expect("a client");
        assert_eq!(client.description().as_deref(), Some(want));
    }
    let suites = |protocols: &str| Suites {
        protocols: protocols.into(),
        ..Suites::default()
    };
    let server = ServerSettings {
        suites: suites("TLSv1.3"),
        ..pki.server()
    };
    let client = ClientSettings {
        suites: suites("TLSv1.2"),
        ..pki.client()
    };
    assert!(connect(&server, &client, "localhost").1.is_err());
}

#[test]
fn files_that_cannot_serve_are_named() {
    let pki = Pki::new();
    let (first, second) = (pki.identity("a", &["x"]), pki.identity("b", &["x"]));
    let junk = pki.path("junk");
    std::fs::write(&junk, "no PEM").expect("a file");
    let broken = pki.path("broken");
    std::fs::write(
        &broken,
        "-----BEGIN CERTIFICATE-----\nAAAA\n-----END CERTIFICATE-----\n",
    )
    .expect("a file");
    let missing = pki.path("missing");
    let with = |cert_file: &Path, key_file: &Path| Identity {
        cert_file: cert_file.to_owned(),
        key_file: key_file.to_owned(),
        key_password: None,
    };
    let rows = [
        (
            with(&first.cert_file, &second.key_file),
            "b.key: this key is not that of the certificate",
        ),
        (
            with(&junk, &first.key_file),
            "junk: no certificate in PEM form",
        ),
        (with(&broken, &first.key_file), "broken: "),
        (with(&first.cert_file, &junk), "junk: no private key"),
        (with(&missing, &first.key_file), "missing: No such file"),
        (with(&first.cert_file, &missing), "missing: No such file"),
    ];
    for (identity, want) in rows {
        let settings = ServerSettings {
            identity,
            ..pki.server()
        };
        let error = Acceptor::new(&settings).expect_err("an error").to_string();
        assert!(error.contains(want), "{error}; wanted {want}");
    }
    let settings = ServerSettings {
        trust: Trust::default(),
        clients: ClientAuth::Yes,
        ..pki.server()
    };
    assert!(Acceptor::new(&settings).is_err(), "nobody is trusted");
}

#[test]
fn a_folder_of_authorities_is_read() {
    let pki = Pki::new();
    let folder = pki.path("authorities");
    std::fs::create_dir(&folder).expect("a folder");
    std::fs::write(folder.join("README"), "not one").expect("a file");
    let trust = Trust {
        ca_file: None,
        ca_dir: Some(folder.clone()),
    };
    let client = ClientSettings {
        trust,
        ..pki.client()
    };
    assert!(Connector::new(&client).is_err(), "no certificate in it");
    std::fs::copy(pki.path("ca.crt"), folder.join("one.0")).expect("a file");
    let (_, client) = connect(&pki.server(), &client, "localhost");
    client.expect("a client");
}

#[test]
fn sessions_are_resumed_unless_switched_off() {
    let pki = Pki::new();
    for (is_kept, want) in [(true, Some(true)), (false, Some(false))] {
        for protocols in ["TLSv1.2", "TLSv1.3"] {
            let suites = Suites {
                protocols: protocols.into(),
                ..Suites::default()
            };
            let mut settings = ServerSettings {
                suites,
                ..pki.server()
            };
            settings.sessions = settings.sessions.filter(|_| is_kept);
            let server = Acceptor::new(&settings).expect("settings");
            let client = Connector::new(&pki.client()).expect("settings");
            for _ in 0..2 {
                let (_, ended) = join(
                    server.begin().expect("a session"),
                    client.begin("localhost").expect("a session"),
                );
                ended.expect("a client");
            }
            let (_, ended) = join(
                server.begin().expect("a session"),
                client.begin("localhost").expect("a session"),
            );
            assert_eq!(ended.expect("a client").0.is_resumed(), want, "{protocols}");
        }
    }
}

#[test]
fn keys_under_a_password_are_read() {
    let pki = Pki::new();
    let plain = pki.identity("owner", &["localhost"]);
    let folder = plain.key_file.parent().expect("a folder").to_owned();
    let rows: [&[&str]; 3] = [
        &["-v2", "aes256"],
        &["-v2", "aes128", "-v2prf", "hmacWithSHA512"],
        &["-v2", "aes256", "-v2prf", "hmacWithSHA1", "-iter", "5"],
    ];
    for row in rows {
        let base = [
            "pkcs8",
            "-topk8",
            "-in",
            "owner.key",
            "-out",
            "hidden.key",
            "-passout",
            "pass:1234",
        ];
        openssl(&[&base[..], row].concat(), &folder);
        let with = |password: Option<&str>| {
            let identity = Identity {
                key_file: folder.join("hidden.key"),
                key_password: password.map(|text| KeyPassword(text.as_bytes().to_vec())),
                ..plain.clone()
            };
            Acceptor::new(&ServerSettings {
                identity,
                ..pki.server()
            })
            .map(|_| ())
        };
        with(Some("1234")).unwrap_or_else(|error| panic!("{row:?}: {error}"));
        let error = with(Some("12345"))
            .expect_err("another password")
            .to_string();
        assert!(
            error.contains("the password does not open this key") || error.contains("key"),
            "{error}"
        );
        let error = with(None).expect_err("no password").to_string();
        assert!(
            error.contains("the key is encrypted and no password is given"),
            "{error}"
        );
    }
}

#[test]
fn a_certificate_of_version_1_can_be_shown() {
    let pki = Pki::new();
    let folder = pki.folder.path();
    std::fs::write(folder.join("ca.key"), pki.issuer.key().serialize_pem()).expect("a file");
    openssl(
        &[
            "req", "-newkey", "rsa:2048", "-nodes", "-keyout", "v1.key", "-out", "v1.csr", "-subj",
            "/CN=x",
        ],
        folder,
    );
    openssl(
        &[
            "x509",
            "-req",
            "-in",
            "v1.csr",
            "-CA",
            "ca.crt",
            "-CAkey",
            "ca.key",
            "-CAcreateserial",
            "-out",
            "v1.crt",
        ],
        folder,
    );
    let identity = Identity {
        cert_file: folder.join("v1.crt"),
        key_file: folder.join("v1.key"),
        key_password: None,
    };
    let server = Acceptor::new(&ServerSettings {
        identity,
        ..pki.server()
    });
    server.expect("OpenSSL's peers take it");
}

#[test]
fn what_is_no_handshake_ends_the_session() {
    let pki = Pki::new();
    let mut session = Acceptor::new(&pki.server())
        .expect("settings")
        .begin()
        .expect("a session");
    let (mut ours, mut theirs) = UnixStream::pair().expect("sockets");
    theirs.write_all(b"*1\r\n$4\r\nPING\r\n").expect("room");
    let error = session.handshake(&mut ours).expect_err("no handshake");
    assert_eq!(error.kind(), ErrorKind::InvalidData, "{error}");
    drop(ours);
    let mut alert = Vec::new();
    theirs.read_to_end(&mut alert).expect("an alert");
    assert_eq!(alert.first(), Some(&21), "an alert says so");
}
