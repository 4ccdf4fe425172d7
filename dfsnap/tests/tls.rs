//! Verbs that talk to a server over `rediss://`.

mod servers;

use dfsnap_formats::resp::Frame;
use rcgen::{
    BasicConstraints, CertificateParams, DnType, ExtendedKeyUsagePurpose, IsCa, Issuer, KeyPair,
};
use servers::{Redis, command, err, fill, out, succeed, wait_for};
use std::io::{BufRead, BufReader};
use std::net::TcpListener;
use std::process::{Output, Stdio};
use tempfile::TempDir;

/// An authority, a server's certificate and a client's, in one folder.
struct Files {
    folder: TempDir,
}

impl Files {
    fn new() -> Files {
        let folder = tempfile::tempdir().unwrap();
        let write =
            |name: &str, text: String| std::fs::write(folder.path().join(name), text).unwrap();
        let mut ca = CertificateParams::new(Vec::new()).unwrap();
        ca.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
        let name = folder.path().display().to_string();
        ca.distinguished_name.push(DnType::CommonName, name);
        let key = KeyPair::generate().unwrap();
        write("ca.crt", ca.self_signed(&key).unwrap().pem());
        let issuer = Issuer::new(ca, key);
        for (name, host) in [
            ("server", "localhost"),
            ("client", "me"),
            ("elsewhere", "elsewhere"),
        ] {
            let mut params = CertificateParams::new(vec![host.to_owned()]).unwrap();
            params.extended_key_usages = vec![
                ExtendedKeyUsagePurpose::ServerAuth,
                ExtendedKeyUsagePurpose::ClientAuth,
            ];
            params.distinguished_name.push(DnType::CommonName, host);
            let key = KeyPair::generate().unwrap();
            write(
                &format!("{name}.crt"),
                params.signed_by(&key, &issuer).unwrap().pem(),
            );
            write(&format!("{name}.key"), key.serialize_pem());
        }
        Files { folder }
    }

    fn path(&self, name: &str) -> String {
        self.folder.path().join(name).display().to_string()
    }

    /// A server with a port for TLS, and that port.
    fn server(&self, name: &str, more: &[&str]) -> Option<(Redis, u16)> {
        let port = TcpListener::bind(("127.0.0.1", 0))
            .unwrap()
            .local_addr()
            .unwrap()
            .port();
        let (cert, key) = (
            self.path(&format!("{name}.crt")),
            self.path(&format!("{name}.key")),
        );
        let (ca, tls_port) = (self.path("ca.crt"), port.to_string());
        let args = [
            "--tls-port",
            &tls_port,
            "--tls-cert-file",
            &cert,
            "--tls-key-file",
            &key,
            "--tls-ca-cert-file",
            &ca,
        ];
        Some((Redis::start(&[&args, more].concat())?, port))
    }
}

fn run(args: &[&str]) -> Output {
    command(args).output().unwrap()
}

#[test]
fn every_verb_speaks_tls() {
    let files = Files::new();
    let Some((source, port)) = files.server("server", &[]) else {
        return;
    };
    let (target, target_port) = files
        .server("server", &["--tls-auth-clients", "no"])
        .unwrap();
    fill(&source);
    let (ca, cert, key) = (
        files.path("ca.crt"),
        files.path("client.crt"),
        files.path("client.key"),
    );
    let tls = ["--cacert", &ca, "--cert", &cert, "--cert-key", &key];
    let (from, to) = (
        format!("rediss://localhost:{port}"),
        format!("rediss://localhost:{target_port}"),
    );
    let folder = tempfile::tempdir().unwrap();
    let path = |name: &str| folder.path().join(name).display().to_string();

    let rdb = path("b.rdb");
    succeed(&[&["backup", &from, &rdb][..], &tls].concat());
    assert_eq!(
        succeed(&["digest", "--legacy", &rdb]).trim(),
        source.digest()
    );
    let scanned = path("s.rdb");
    succeed(&[&["backup", &from, &scanned, "--scan"][..], &tls].concat());
    assert_eq!(
        succeed(&["digest", "--legacy", &scanned]).trim(),
        source.digest()
    );
    assert_eq!(
        succeed(&[&["digest", "--legacy", &from][..], &tls].concat()).trim(),
        source.digest()
    );
    assert!(succeed(&[&["inspect", &from][..], &tls].concat()).contains("keys"));
    assert!(succeed(&[&["ls", &from, "--match", "zset"][..], &tls].concat()).contains("zset"));
    succeed(&[&["restore", &rdb, &to, "--verify"][..], &tls].concat());
    assert_eq!(target.digest(), source.digest());
    succeed(&[&["diff", &from, &to][..], &tls].concat());
    target.call(&["FLUSHALL"]);
    // Each server can have its own files.
    let full = format!("{from}?cacert={ca}&cert={cert}&cert-key={key}");
    let bare = format!("{to}?cacert={ca}");
    succeed(&[
        "migrate",
        &full,
        &bare,
        "--until-caught-up",
        "--state",
        &path("state"),
    ]);
    assert_eq!(target.digest(), source.digest());
}

#[test]
fn the_stream_is_followed_over_tls() {
    let files = Files::new();
    let Some((source, port)) = files.server("server", &["--tls-auth-clients", "no"]) else {
        return;
    };
    let (url, ca) = (format!("rediss://localhost:{port}"), files.path("ca.crt"));
    let mut follower = command(&["follow", &url, "--cacert", &ca])
        .stdout(Stdio::piped())
        .spawn()
        .unwrap();
    let lines = BufReader::new(follower.stdout.take().unwrap()).lines();
    wait_for("a replica", || source.info("connected_slaves") == "1");
    source.call(&["SET", "seen", "1"]);
    let line = lines
        .map_while(Result::ok)
        .find(|line| line.contains("seen"));
    assert!(line.is_some());
    follower.kill().unwrap();
    follower.wait().unwrap();
}

#[test]
fn a_server_is_believed_only_with_reason() {
    let files = Files::new();
    let Some((server, port)) = files.server("elsewhere", &["--tls-auth-clients", "no"]) else {
        return;
    };
    server.call(&["SET", "x", "1"]);
    let other = Files::new();
    let (ca, strange) = (files.path("ca.crt"), other.path("ca.crt"));
    let url = format!("rediss://localhost:{port}");
    let plain = format!("redis://localhost:{port}");
    let tls_to_plain = format!("rediss://localhost:{}", server.port);
    let rows: [(&[&str], &str); 7] = [
        (&["digest", &url, "--cacert", &ca], "not valid for name"),
        (
            &[
                "digest",
                &url,
                "--cacert",
                &strange,
                "--server-name",
                "elsewhere",
            ],
            "invalid peer certificate",
        ),
        (
            &["digest", &url, "--cacert", "/nowhere"],
            "/nowhere: No such file",
        ),
        (
            &["digest", &url, "--cert", &ca],
            "a certificate needs its key",
        ),
        (&["digest", &tls_to_plain, "--insecure"], "TLS: "),
        (&["digest", &plain], "error: "),
        (
            &["digest", &format!("{url}?nonsense=1")],
            "nonsense: not what an address can say",
        ),
    ];
    for (args, want) in rows {
        let output = run(args);
        assert_eq!(output.status.code(), Some(2), "{args:?}");
        let text = err(&output);
        assert!(
            text.contains(want) && text.contains("try: "),
            "{args:?}: {text}"
        );
    }
    let digest = server.digest();
    for more in [
        &["--insecure"][..],
        &["--cacert", &ca, "--server-name", "elsewhere"],
    ] {
        let text = succeed(&[&["digest", "--legacy", &url], more].concat());
        assert_eq!(text.trim(), digest);
    }
}

#[test]
fn a_server_that_wants_a_certificate_says_so() {
    let files = Files::new();
    let Some((server, port)) = files.server("server", &[]) else {
        return;
    };
    let (url, ca) = (format!("rediss://localhost:{port}"), files.path("ca.crt"));
    for protocol in ["TLSv1.2", "TLSv1.3"] {
        let reply = server.call(&["CONFIG", "SET", "tls-protocols", protocol]);
        assert!(matches!(reply, Frame::Simple(_)), "{reply:?}");
        let output = run(&["digest", &url, "--cacert", &ca]);
        let text = err(&output);
        assert!(
            text.contains("alert") && text.contains("--cert FILE"),
            "{protocol}: {text}"
        );
        assert_eq!(out(&output), "");
    }
}
