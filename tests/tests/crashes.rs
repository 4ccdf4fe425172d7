//! How the process ends by a bug or by a signal that means one: the log tells what happened and what ran, and the exit status is the signal's.

use std::os::unix::process::ExitStatusExt;
use std::process::Command;
use std::time::Duration;

use dfsnap_tests::process::Server;
use dfsnap_tests::wait_for;

const LIMIT: Duration = Duration::from_secs(30);
const START: &str = "=== DFSNAP BUG REPORT START";
const END: &str = "=== DFSNAP BUG REPORT END ===";

fn send(server: &Server, signal: &str) {
    let killed = Command::new("kill")
        .args(["-s", signal, &server.pid().to_string()])
        .status();
    assert!(killed.is_ok_and(|status| status.success()), "kill");
}

/// The report in a log: there must be one.
fn report(log: &str) -> &str {
    let starts = log.matches(START).count();
    assert_eq!(starts, 1, "{log}");
    let from = &log[log.find(START).expect("it is there")..];
    let end = from
        .find(END)
        .unwrap_or_else(|| panic!("the report is cut off:\n{from}"));
    &from[..end]
}

#[test]
fn a_signal_that_means_a_bug_is_told_with_its_number_and_ends_the_process() {
    for (name, number) in [
        ("SEGV", 11),
        ("BUS", 7),
        ("FPE", 8),
        ("ILL", 4),
        ("ABRT", 6),
    ] {
        let mut server = Server::ours(&["--threads", "2"]);
        send(&server, name);
        let status = server.wait_until_ended(LIMIT);
        assert_eq!(status.signal(), Some(number), "{name}: {status}");
        let log = server.log();
        let report = report(&log);
        for wanted in [
            &*format!("crashed by signal: {number} (SIG{name})"),
            "Killed by PID: ",
            "Shard 0: no command",
            "Shard 1: no command",
            "role:master",
        ] {
            assert!(
                report.contains(wanted),
                "{name}: no {wanted:?} in\n{report}"
            );
        }
    }
}

#[test]
fn a_fault_is_told_with_its_address_and_the_command_that_ran() {
    let mut server = Server::ours(&["--threads", "2"]);
    let _ = server.client().try_call(&["DEBUG", "SEGFAULT"]);
    let status = server.wait_until_ended(LIMIT);
    assert_eq!(status.signal(), Some(11), "{status}");
    let log = server.log();
    let report = report(&log);
    for wanted in [
        "(SIGSEGV), si_code: ",
        "Accessing address: 0x",
        "Thread: shard-",
        ": command 'debug'",
    ] {
        assert!(report.contains(wanted), "no {wanted:?} in\n{report}");
    }
    let trace = report
        .split("------ STACK TRACE ------")
        .nth(1)
        .expect("a trace");
    let places = trace.lines().filter(|line| line.starts_with("0x")).count();
    assert!(places > 3, "{trace}");
}

#[test]
fn a_failed_assertion_is_told_before_the_process_ends() {
    for word in ["PANIC", "ASSERT"] {
        let mut server = Server::ours(&[]);
        let _ = server.client().try_call(&["DEBUG", word]);
        let status = server.wait_until_ended(LIMIT);
        assert_eq!(status.signal(), Some(6), "{word}: {status}");
        let log = server.log();
        assert!(log.contains("ASSERTION FAILED: "), "{log}");
        assert!(log.contains(&format!("called by DEBUG {word}")), "{log}");
        let report = report(&log);
        assert!(
            report.contains("(SIGABRT)") && report.contains("'debug'"),
            "{report}"
        );
    }
}

/// A supervisor ends a process that it takes for stuck. What it was stuck in is what the operator wants to know.
#[test]
fn what_a_stuck_server_was_running_is_told_when_it_is_aborted() {
    let mut server = Server::ours(&[
        "--threads",
        "1",
        "--logfile",
        "own.log",
        "--busy-reply-threshold",
        "50",
    ]);
    let (mut client, mut other) = (server.client(), server.client());
    other.ask("PING");
    client
        .send(&["EVAL", "while true do end", "0"])
        .expect("a send");
    wait_for("the script to be overdue", LIMIT, || {
        other.call(&["PING"]).is_error().then_some(())
    });
    send(&server, "ABRT");
    let status = server.wait_until_ended(LIMIT);
    assert_eq!(status.signal(), Some(6), "{status}");
    let log = std::fs::read_to_string(server.folder().join("own.log")).expect("a log");
    assert!(report(&log).contains("Shard 0: command 'eval'"), "{log}");
}

#[test]
fn nothing_is_told_where_nobody_wants_it() {
    let mut server = Server::ours(&["--crash-log-enabled", "no"]);
    send(&server, "ABRT");
    assert_eq!(server.wait_until_ended(LIMIT).signal(), Some(6));
    assert!(!server.log().contains(START));
    server.restart();
    let mut client = server.client();
    assert_eq!(client.ask("CONFIG SET crash-log-enabled yes").text(), "OK");
    assert_eq!(client.ask("CONFIG SET crash-log-enabled no").text(), "OK");
    let _ = client.try_call(&["DEBUG", "SEGFAULT"]);
    assert_eq!(server.wait_until_ended(LIMIT).signal(), Some(11));
    assert!(!server.log().contains(START));
}
