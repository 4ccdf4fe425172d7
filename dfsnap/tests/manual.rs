//! Help, completions and man pages: there for every verb, and made from the same definitions.

use assert_cmd::Command;

fn out(args: &[&str]) -> String {
    let mut command = Command::cargo_bin("dfsnap").unwrap();
    let output = command.env("COLUMNS", "100").args(args).assert().success();
    String::from_utf8(output.get_output().stdout.clone()).unwrap()
}

/// The verbs that `--help` lists.
fn verbs() -> Vec<String> {
    let help = out(&["--help"]);
    let listed = help.split("Commands:").nth(1).unwrap();
    let lines = listed.lines().skip(1).take_while(|line| !line.is_empty());
    // What goes on in a second line is further to the right.
    let names = lines.filter_map(|line| line.strip_prefix("  ")?.split(' ').next());
    names
        .filter(|name| !name.is_empty() && *name != "help")
        .map(str::to_owned)
        .collect()
}

#[test]
fn every_verb_has_help_in_two_lengths_with_examples() {
    let verbs = verbs();
    assert!(verbs.len() >= 9, "{verbs:?}");
    for verb in verbs {
        let (short, long) = (out(&[&verb, "-h"]), out(&[&verb, "--help"]));
        assert!(long.len() > short.len(), "{verb}");
        for help in [short, long] {
            assert!(
                help.contains("Examples:") && help.contains(&format!("dfsnap {verb}")),
                "{verb}"
            );
        }
    }
}

/// Of the others the tests of the verb look at it.
#[test]
fn help_reads_well() {
    for verb in [
        "get", "ls", "convert", "backup", "restore", "migrate", "follow",
    ] {
        insta::assert_snapshot!(format!("help_of_{verb}"), out(&[verb, "--help"]));
    }
}

#[test]
fn every_verb_has_a_man_page_and_is_completed() {
    let bash = out(&["completions", "bash"]);
    for verb in verbs() {
        let page = out(&["man", &verb]);
        assert!(page.contains(&format!(".TH dfsnap-{verb} 1")), "{page}");
        assert!(page.contains("Examples:"), "{verb}");
        assert!(bash.contains(&format!("dfsnap,{verb}")), "{verb}");
    }
    assert!(out(&["man"]).contains(".TH dfsnap 1"));
    for shell in ["zsh", "fish", "elvish", "powershell"] {
        assert!(out(&["completions", shell]).contains("inspect"), "{shell}");
    }
}

#[test]
fn an_unknown_verb_or_shell_is_an_error_that_names_the_known_ones() {
    for args in [["man", "nothing"], ["completions", "csh"]] {
        let mut command = Command::cargo_bin("dfsnap").unwrap();
        let output = command.args(args).assert().code(2);
        let text = String::from_utf8_lossy(&output.get_output().stderr).into_owned();
        assert!(text.contains("inspect") || text.contains("bash"), "{text}");
    }
}
