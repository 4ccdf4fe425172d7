//! How much the log says, and what `ps` shows of a server: both follow CONFIG SET.

use dfsnap_tests::process::Server;

/// What the kernel shows of a process.
fn title(server: &Server) -> String {
    let path = format!("/proc/{}/cmdline", server.pid());
    let bytes = std::fs::read(path).expect("a command line");
    String::from_utf8_lossy(&bytes)
        .trim_end_matches('\0')
        .replace('\0', " ")
}

#[test]
fn the_log_says_as_much_as_was_asked_for_last() {
    let server = Server::ours(&["--loglevel", "warning"]);
    let mut client = server.client();
    let saves = |wanted: usize, level: &str| {
        let log = server.log();
        assert_eq!(
            log.matches("DB saved on disk").count(),
            wanted,
            "{level}:\n{log}"
        );
    };
    client.ask("SAVE");
    saves(0, "warning");
    client.ask("CONFIG SET loglevel notice");
    client.ask("SAVE");
    saves(1, "notice");
    client.ask("CONFIG SET loglevel warning");
    client.ask("SAVE");
    saves(1, "warning again");
}

#[test]
fn the_title_of_the_process_follows_the_settings() {
    let server = Server::ours(&[]);
    let mut client = server.client();
    let program = dfsnap_tests::process::our_binary();
    let usual = format!("{} 127.0.0.1:{}", program.display(), server.port);
    if title(&server).contains("--port") {
        println!("skipped: this kernel shows no titles");
        return;
    }
    assert_eq!(title(&server), usual);
    let template = "TEST {{title} {port} {tls-port} {config-file}";
    let set = ["CONFIG", "SET", "proc-title-template", template];
    assert_eq!(client.call(&set).text(), "OK");
    assert_eq!(
        title(&server),
        format!("TEST {{title}} {} 0 -", server.port)
    );
    let refused = client.call(&["CONFIG", "SET", "proc-title-template", "{nosuch}"]);
    assert!(refused.is_error(), "{refused:?}");
    let plain = Server::ours(&["--set-proc-title", "no"]);
    assert!(
        title(&plain).contains("--set-proc-title no"),
        "{}",
        title(&plain)
    );
}
