//! `watchdog-period`: the log tells what holds up a shard, and nobody is watched who did not ask for it.

use std::time::Duration;

use dfsnap_tests::process::Server;
use dfsnap_tests::wait_for;

const EXPIRED: &str = "--- WATCHDOG TIMER EXPIRED ---";
const LIMIT: Duration = Duration::from_secs(20);

/// The lines of the watchdog that tell of a wait.
fn told(server: &Server) -> Vec<String> {
    let log = server.log();
    let lines = log.lines().filter(|line| line.contains(EXPIRED));
    lines.map(str::to_owned).collect()
}

#[test]
fn the_log_tells_what_holds_up_a_shard_and_when_it_goes_on() {
    let server = Server::ours(&["--threads", "2"]);
    let mut client = server.client();
    client.ask("DEBUG SLEEP 0.3");
    assert!(told(&server).is_empty(), "nobody asked for it");
    assert_eq!(client.ask("CONFIG SET watchdog-period 100").text(), "OK");
    let long = "for i = 1, 3e7 do local x = i * i end return 1";
    let rows: [(&[&str], &str); 2] = [
        (&["DEBUG", "SLEEP", "0.6"], "'debug'"),
        (&["EVAL", long, "0"], "'eval'"),
    ];
    for (row, (words, wanted)) in rows.into_iter().enumerate() {
        client.call(words);
        let lines = wait_for("a line of the watchdog", LIMIT, || {
            let lines = told(&server);
            (lines.len() > row).then_some(lines)
        });
        let line = &lines[row];
        assert!(
            line.contains("it runs the command") && line.contains(wanted),
            "{line}"
        );
        wait_for("the shard's going on", LIMIT, || {
            let again = server.log().matches("Watchdog: shard").count();
            (again > row).then_some(())
        });
    }
    assert_eq!(client.ask("CONFIG SET watchdog-period 0").text(), "OK");
    let before = told(&server).len();
    client.ask("DEBUG SLEEP 0.3");
    assert_eq!(told(&server).len(), before, "{:?}", told(&server));
}

#[test]
fn a_configuration_may_ask_for_it_and_only_who_knows_its_name_sees_it() {
    let server = Server::ours(&["--threads", "1", "--watchdog-period", "50"]);
    let mut client = server.client();
    client.ask("DEBUG SLEEP 0.5");
    wait_for("a line of the watchdog", LIMIT, || {
        told(&server)
            .iter()
            .any(|line| line.contains("'debug'"))
            .then_some(())
    });
    let shown = client.ask("CONFIG GET watchdog-period");
    assert_eq!(shown.items()[1].text(), "50");
    assert!(client.ask("CONFIG GET watch*").items().is_empty());
    let refused = client.call(&["CONFIG", "SET", "watchdog-period", "-1"]);
    assert!(refused.is_error(), "{refused:?}");
}
