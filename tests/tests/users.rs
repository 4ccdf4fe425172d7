//! Users and what each may do: checked at once, in MULTI, in scripts, and kept in files.

use std::time::Duration;

use dfsnap_tests::client::{Client, Reply};
use dfsnap_tests::process::{Server, free_port, our_binary};
use dfsnap_tests::wait_for;

/// The text of a reply that may be an error.
fn said(client: &mut Client, line: &str) -> String {
    let words: Vec<&str> = line.split(' ').collect();
    match client.call(&words) {
        Reply::Error(text) => text,
        Reply::Int(number) => number.to_string(),
        reply => reply.text(),
    }
}

const NO_KEY: &str =
    "NOPERM this user has no permissions to access one of the keys used as arguments";

#[test]
fn a_user_may_do_what_the_rules_say_and_no_more() {
    let server = Server::ours(&["--threads", "2"]);
    let mut admin = server.client();
    admin.ask(
        "ACL SETUSER al on >secret ~a:* %R~r:* resetchannels &news:* +@all -@dangerous -append",
    );
    admin.ask("SET r:1 v");
    let mut al = server.client();
    let rows = [
        (
            "AUTH al wrong",
            "WRONGPASS invalid username-password pair or user is disabled.",
        ),
        ("AUTH al secret", "OK"),
        ("ACL WHOAMI", "al"),
        ("SET a:1 v", "OK"),
        ("SET b:1 v", NO_KEY),
        ("GET r:1", "v"),
        ("SET r:1 w", NO_KEY),
        ("MSET a:1 x b:1 y", NO_KEY),
        ("COPY r:1 a:2", "1"),
        ("COPY a:1 r:2", NO_KEY),
        // Rights come before a number of keys that is none.
        ("EVAL return 1.5 b:1", NO_KEY),
        (
            "APPEND a:1 x",
            "NOPERM this user has no permissions to run the 'append' command",
        ),
        (
            "FLUSHALL",
            "NOPERM this user has no permissions to run the 'flushall' command",
        ),
        (
            "CONFIG GET port",
            "NOPERM this user has no permissions to run the 'config|get' command",
        ),
        ("PUBLISH news:1 x", "0"),
        (
            "PUBLISH other x",
            "NOPERM this user has no permissions to access one of the channels used as arguments",
        ),
    ];
    for (line, want) in rows {
        assert_eq!(said(&mut al, line), want, "{line}");
    }
    let script = |client: &mut Client, script: &str, key: &str| match client
        .call(&["EVAL", script, "1", key])
    {
        Reply::Error(text) => text,
        reply => reply.text(),
    };
    assert_eq!(
        script(&mut al, "return redis.call('get',KEYS[1])", "a:1"),
        "v"
    );
    let inner = script(&mut al, "return redis.call('get','b:1')", "a:1");
    assert!(
        inner
            .starts_with("ERR The user executing the script can't access at least one of the keys"),
        "{inner}"
    );
    assert_eq!(script(&mut al, "return 'x'", "b:1"), NO_KEY);
    // Rules that change between MULTI and EXEC.
    al.ask("MULTI");
    al.ask("SET a:3 x");
    al.ask("GET a:1");
    admin.ask("ACL SETUSER al -set");
    let replies = al.ask("EXEC");
    let refused = &replies.items()[0];
    assert!(
        matches!(refused, Reply::Error(text) if text.starts_with("NOPERM ACLs rules changed")),
        "{refused:?}"
    );
    assert_eq!(replies.items()[1].text(), "v");
    al.ask("MULTI");
    assert!(said(&mut al, "SET a:1 x").starts_with("NOPERM"));
    assert!(said(&mut al, "EXEC").starts_with("EXECABORT"));
    assert_eq!(admin.ask("ACL LOG 1").items().len(), 1);
    assert!(admin.ask("CLIENT LIST").text().contains("user=al "));
    // Who is gone is disconnected.
    assert_eq!(admin.ask("ACL DELUSER al").number(), Some(1));
    wait_for("the end of the connection", Duration::from_secs(10), || {
        al.try_call(&["PING"]).is_err().then_some(())
    });
}

#[test]
fn requirepass_is_the_password_of_the_default_user() {
    let server = Server::ours(&["--threads", "2"]);
    let mut admin = server.client();
    admin.ask("CONFIG SET requirepass first");
    let mut other = server.client();
    assert_eq!(said(&mut other, "PING"), "NOAUTH Authentication required.");
    assert!(said(&mut other, "AUTH no").starts_with("WRONGPASS"));
    assert_eq!(said(&mut other, "AUTH first"), "OK");
    assert_eq!(said(&mut other, "PING"), "PONG");
    admin.call(&["CONFIG", "SET", "requirepass", ""]);
    let mut third = server.client();
    assert_eq!(said(&mut third, "PING"), "PONG");
    admin.ask("ACL SETUSER default off");
    let mut fourth = server.client();
    assert_eq!(said(&mut fourth, "PING"), "NOAUTH Authentication required.");
}

#[test]
fn users_are_kept_in_files() {
    let folder = tempfile::tempdir().expect("a folder");
    let path = folder.path().join("users.acl");
    let rules =
        "user default on nopass ~* &* +@all\nuser bo on >pw ~b:* resetchannels -@all +get\n";
    std::fs::write(&path, rules).expect("the file is written");
    let mut server = Server::ours(&["--aclfile", path.to_str().expect("a path")]);
    let mut admin = server.client();
    let lines = |client: &mut Client| -> Vec<String> {
        client
            .ask("ACL LIST")
            .items()
            .iter()
            .map(Reply::text)
            .collect()
    };
    let before = lines(&mut admin);
    assert!(
        before[0].starts_with("user bo on #")
            && before[0].ends_with(" ~b:* resetchannels -@all +get")
    );
    admin.ask("ACL SETUSER cy on nopass +@read (%W~w* +set)");
    admin.ask("ACL SAVE");
    let with_cy = lines(&mut admin);
    admin.ask("ACL SETUSER cy +@all");
    admin.ask("ACL LOAD");
    assert_eq!(lines(&mut admin), with_cy);
    std::fs::write(&path, "user x on\nuser y +nosuch\n").expect("the file is written");
    let refused = said(&mut admin, "ACL LOAD");
    assert!(
        refused.contains(":2: ") && refused.contains("no change"),
        "{refused}"
    );
    assert_eq!(lines(&mut admin), with_cy);
    admin.ask("ACL SAVE");
    server.kill();
    server.restart();
    assert_eq!(lines(&mut server.client()), with_cy);
}

/// A server of ours with a configuration file, gone when dropped.
struct Configured(std::process::Child);

impl Configured {
    fn start(file: &std::path::Path, port: u16) -> (Configured, Client) {
        let child = std::process::Command::new(our_binary())
            .arg(file)
            .stdout(std::process::Stdio::null())
            .spawn()
            .expect("the server starts");
        let client = wait_for("the server", Duration::from_secs(30), || {
            let mut client = Client::connect(port).ok()?;
            client.try_call(&["PING"]).ok()?;
            Some(client)
        });
        (Configured(child), client)
    }
}

impl Drop for Configured {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

#[test]
fn users_are_kept_in_the_configuration_file() {
    let folder = tempfile::tempdir().expect("a folder");
    let path = folder.path().join("server.conf");
    let port = free_port();
    let dir = folder.path().display();
    let text = format!("port {port}\ndir {dir}\nuser di on >pw ~d:* +@all\n# a comment\n");
    std::fs::write(&path, text).expect("a file");
    let (server, mut admin) = Configured::start(&path, port);
    admin.ask("ACL SETUSER ed on nopass ~* +get");
    admin.ask("ACL SETUSER di -flushall");
    let before = admin.ask("ACL LIST").items().len();
    admin.ask("CONFIG REWRITE");
    let text = std::fs::read_to_string(&path).expect("the file is there");
    assert!(
        text.contains("# a comment") && text.contains("user ed on nopass ~* "),
        "{text}"
    );
    drop(server);
    let (_server, mut admin) = Configured::start(&path, port);
    assert_eq!(admin.ask("ACL LIST").items().len(), before);
    let di = admin.ask("ACL GETUSER di").items()[5].text();
    assert_eq!(di, "+@all -flushall");
}
