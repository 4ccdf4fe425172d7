//! Modules and crates import only what stands below them, as docs/architecture.md says.
//!
//! The order of the server's modules is the code block under "Who may import whom". Code under `#[cfg(test)]` is free.

use std::collections::HashMap;
use std::path::{Path, PathBuf};

fn workspace() -> &'static Path {
    Path::new(env!("CARGO_MANIFEST_DIR"))
        .parent()
        .expect("the workspace")
}

/// All sources below a folder, with their code: no comments, no tests.
fn sources(folder: &str) -> Vec<(PathBuf, String)> {
    let root = workspace().join(folder);
    let (mut folders, mut found) = (vec![root.clone()], Vec::new());
    while let Some(folder) = folders.pop() {
        for entry in std::fs::read_dir(&folder).expect("a folder").flatten() {
            let path = entry.path();
            let is_source = path.extension().is_some_and(|extension| extension == "rs");
            let is_test = path.ends_with("tests.rs") || path.ends_with("testing.rs");
            if path.is_dir() {
                folders.push(path);
            } else if is_source && !is_test {
                let text = std::fs::read_to_string(&path).expect("a text");
                let relative = path.strip_prefix(&root).expect("it is below").to_owned();
                found.push((relative, code_of(&text)));
            }
        }
    }
    found.sort();
    found
}

fn code_of(text: &str) -> String {
    let end = text.find("#[cfg(test)]\nmod tests {").unwrap_or(text.len());
    let lines = text[..end].lines();
    let code = lines.map(|line| line.split("//").next().unwrap_or_default());
    code.collect::<Vec<_>>().join("\n")
}

/// The names that follow `prefix` in the code: `prefix::name` and `prefix::{name, other::…}`.
fn named_after<'a>(code: &'a str, prefix: &str) -> Vec<&'a str> {
    let mut names = Vec::new();
    for (at, _) in code.match_indices(prefix) {
        let is_word = code[..at]
            .chars()
            .next_back()
            .is_some_and(|c| c.is_alphanumeric() || c == '_' || c == '$');
        let rest = &code[at + prefix.len()..];
        if is_word {
            continue;
        }
        match rest.strip_prefix('{') {
            Some(list) => names.extend(top_names(list)),
            None => names.push(word_at(rest)),
        }
    }
    names
}

fn word_at(text: &str) -> &str {
    let end = text.find(|c: char| !c.is_alphanumeric() && c != '_');
    &text[..end.unwrap_or(text.len())]
}

/// The first word of each part of a brace list.
fn top_names(list: &str) -> Vec<&str> {
    let (mut depth, mut start, mut names) = (0, 0, Vec::new());
    for (at, c) in list.char_indices() {
        match c {
            '{' => depth += 1,
            '}' if depth > 0 => depth -= 1,
            ',' | '}' if depth == 0 => {
                names.push(word_at(list[start..at].trim_start()));
                start = at + 1;
                if c == '}' {
                    break;
                }
            }
            _ => {}
        }
    }
    names.retain(|name| !name.is_empty());
    names
}

/// The line of each module in the documented order; the first line may use all.
fn documented_order() -> HashMap<String, usize> {
    let path = workspace().join("docs/architecture.md");
    let text = std::fs::read_to_string(path).expect("docs/architecture.md");
    let section = text
        .split("## Who may import whom")
        .nth(1)
        .expect("the section");
    let block = section.split("```").nth(1).expect("a code block");
    let lines = block.lines().skip(1).filter(|line| !line.trim().is_empty());
    let names = lines.enumerate().flat_map(|(level, line)| {
        let names = line.split([',', '·']).map(str::trim);
        names
            .map(move |name| (name.to_owned(), level))
            .collect::<Vec<_>>()
    });
    names.collect()
}

#[test]
fn server_modules_use_what_stands_below_them() {
    let order = documented_order();
    let mut findings = Vec::new();
    for (path, code) in sources("server/src") {
        let first = path.components().next().expect("a name");
        let module = first
            .as_os_str()
            .to_string_lossy()
            .trim_end_matches(".rs")
            .to_owned();
        if module == "lib" {
            continue;
        }
        let Some(own) = order.get(&module) else {
            findings.push(format!("{module} is not in docs/architecture.md"));
            continue;
        };
        let own_crate = named_after(&code, "crate::");
        let by_name = named_after(&code, "dfsnap_server::");
        for name in own_crate.into_iter().chain(by_name) {
            if order.get(name).is_some_and(|level| level < own) {
                findings.push(format!(
                    "{}: {module} uses {name}, which stands above it",
                    path.display()
                ));
            }
        }
    }
    findings.dedup();
    assert!(findings.is_empty(), "{}", findings.join("\n"));
}

#[test]
fn crates_use_what_stands_below_them() {
    let all = [
        "dfsnap_formats",
        "dfsnap_tls",
        "dfsnap_replica",
        "dfsnap_server",
        "dfsnap_tests",
    ];
    let rows: [(&str, &[&str]); 5] = [
        ("formats/src", &[]),
        ("tls/src", &[]),
        ("replica/src", &["dfsnap_formats", "dfsnap_tls"]),
        (
            "dfsnap/src",
            &["dfsnap_formats", "dfsnap_tls", "dfsnap_replica"],
        ),
        (
            "server/src",
            &[
                "dfsnap_formats",
                "dfsnap_tls",
                "dfsnap_replica",
                "dfsnap_server",
            ],
        ),
    ];
    for (folder, allowed) in rows {
        for (path, code) in sources(folder) {
            let found = all
                .iter()
                .find(|name| !allowed.contains(name) && code.contains(&format!("{name}::")));
            assert_eq!(found, None, "{folder}/{}", path.display());
        }
    }
}

#[test]
fn formats_and_replica_touch_no_world() {
    let world = [
        "std::fs",
        "std::net",
        "std::thread",
        "std::time",
        "std::env",
        "std::process",
        "tokio::",
        "fastrand",
        "getrandom",
        "Instant::",
        "SystemTime",
    ];
    for (folder, free) in [("formats/src", ""), ("replica/src", "driver")] {
        for (path, code) in sources(folder) {
            if !free.is_empty() && path.to_string_lossy().starts_with(free) {
                continue;
            }
            // A length of time is a number; what time it is now is not.
            let code = code.replace("std::time::Duration", "");
            let found = world.iter().find(|name| code.contains(**name));
            assert_eq!(found, None, "{folder}/{}", path.display());
        }
    }
}

#[test]
fn names_in_paths_and_lists_are_found() {
    let code = "use crate::log::{Log, x::y};\nuse crate::{clock, net::{a, b}, tx};\nfn f() { crate::world::go(); other_crate::no(); }";
    assert_eq!(
        named_after(code, "crate::"),
        ["log", "clock", "net", "tx", "world"]
    );
}
