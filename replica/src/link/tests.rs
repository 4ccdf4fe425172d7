//! Byte scripts: what a primary sends, cut in every way, and what the link makes of it.

use super::*;
use proptest::prelude::*;

const ID: &str = "8371b4fb1155b71f4a04d3e1bc3e18c4a990aeeb";
const OTHER: &str = "ffff000011112222333344445555666677778888";
const MARK: &str = "0123456789012345678901234567890123456789";

fn position() -> Position {
    Position {
        replid: ReplId::parse(ID.as_bytes()).unwrap(),
        offset: 100,
        db: 7,
    }
}

/// Runs `script` through a link, the input growing to each of `ends` and then to the whole. Payloads are
/// loaded and units applied at once. Returns a line for each event, the last position, and what was sent.
fn run(
    config: &LinkConfig,
    from: Option<Position>,
    script: &[u8],
    ends: &[usize],
) -> (Result<Vec<String>, Disconnect>, Option<Position>, Vec<u8>) {
    let mut link = Link::begin(config.clone(), from, 0);
    let (mut start, mut events, mut rdb, mut sent) = (0, Vec::new(), Vec::new(), Vec::new());
    for &end in ends.iter().chain([&script.len()]) {
        loop {
            let step = match link.poll(&script[start..end]) {
                Ok(step) => step,
                Err(error) => return (Err(error), link.position(), sent),
            };
            start += step.consumed;
            let Some(event) = step.event else { break };
            match event {
                Event::PayloadStart(payload) => {
                    events.push(format!("start {:?}", payload.origin.map(|(_, at)| at)))
                }
                Event::PayloadBytes(bytes) => rdb.extend_from_slice(bytes),
                Event::PayloadEnd => {
                    events.push(format!("rdb {}", rdb.escape_ascii()));
                    link.loaded(3);
                }
                Event::Continue {
                    replid,
                    renamed_from,
                } => {
                    events.push(format!(
                        "continue {replid}{}",
                        if renamed_from.is_some() {
                            " renamed"
                        } else {
                            ""
                        }
                    ));
                }
                Event::Transaction(unit) => {
                    let names: Vec<_> = unit
                        .commands()
                        .map(|c| format!("{}:{}", c.db, c.name().escape_ascii()))
                        .collect();
                    events.push(format!("{} {}", unit.end_offset, names.join(",")));
                    let end_offset = unit.end_offset;
                    link.applied(end_offset);
                }
            }
            sent.append(link.output());
        }
        sent.append(link.output());
    }
    (Ok(events), link.position(), sent)
}

fn acks(sent: &[u8]) -> Vec<String> {
    let mut decoder = dfsnap_formats::resp::RequestDecoder::new(1000);
    let (mut found, mut at) = (Vec::new(), 0);
    while let Some(consumed) = decoder.decode(&sent[at..]).unwrap() {
        let words: Vec<_> = decoder
            .words(&sent[at..])
            .map(|w| str::from_utf8(w).unwrap().to_owned())
            .collect();
        if let [_, ack, offset] = &words[..]
            && ack == "ACK"
        {
            found.push(offset.clone());
        }
        at += consumed;
    }
    found
}

const GREETING: &str = "+PONG\r\n+OK\r\n+OK\r\n";
const STREAM: &str = "*3\r\n$3\r\nSET\r\n$1\r\nx\r\n$1\r\n1\r\n*3\r\n$8\r\nREPLCONF\r\n$6\r\nGETACK\r\n$1\r\n*\r\n*1\r\n$5\r\nMULTI\r\n*2\r\n$6\r\nSELECT\r\n$1\r\n9\r\n*2\r\n$3\r\nDEL\r\n$1\r\nx\r\n*1\r\n$4\r\nEXEC\r\n";

struct Script {
    name: &'static str,
    from: Option<Position>,
    bytes: String,
    events: Vec<String>,
    /// Offset and database at the end.
    position: Option<(u64, u32)>,
    acks: &'static [&'static str],
}

fn scripts() -> Vec<Script> {
    let stream_events = |at: u64, db: u32| -> Vec<String> {
        vec![
            format!("{} {db}:SET", at + 27),
            format!("{} ", at + 64),
            format!("{} 9:DEL", at + 136),
        ]
    };
    let list = |head: &[&str], tail: Vec<String>| {
        head.iter()
            .map(|s| s.to_string())
            .chain(tail)
            .collect::<Vec<_>>()
    };
    vec![
        Script {
            name: "length form, stream glued to the RDB",
            from: None,
            bytes: format!("{GREETING}\n\n+FULLRESYNC {ID} 1000\r\n\n$8\r\nRDBbytes{STREAM}"),
            events: list(
                &["start Some(1000)", "rdb RDBbytes"],
                stream_events(1000, 3),
            ),
            position: Some((1136, 9)),
            acks: &["1000", "1027"],
        },
        Script {
            name: "mark form",
            from: Some(position()),
            bytes: format!("{GREETING}+FULLRESYNC {ID} 0\r\n$EOF:{MARK}\r\nRDB01{MARK}{STREAM}"),
            events: list(&["start Some(0)", "rdb RDB01"], stream_events(0, 3)),
            position: Some((136, 9)),
            acks: &["0", "27"],
        },
        Script {
            name: "continue in the database where it broke off",
            from: Some(position()),
            bytes: format!("{GREETING}+CONTINUE\r\n{STREAM}"),
            events: list(&[&format!("continue {ID}")], stream_events(100, 7)),
            position: Some((236, 9)),
            acks: &["127"],
        },
        Script {
            name: "continue under a new name",
            from: Some(position()),
            bytes: format!("{GREETING}\n+CONTINUE {OTHER}\r\n"),
            events: vec![format!("continue {OTHER} renamed")],
            position: Some((100, 7)),
            acks: &[],
        },
        Script {
            name: "primary that only knows SYNC",
            from: Some(position()),
            bytes: format!(
                "{GREETING}-ERR unknown command 'PSYNC'\r\n$EOF:{MARK}\r\nRDB01{MARK}{STREAM}"
            ),
            events: list(&["start None", "rdb RDB01"], stream_events(0, 3)),
            position: None,
            acks: &["-1", "-1"],
        },
    ]
}

#[test]
fn scripts_give_the_same_events_for_every_cut() {
    for script in scripts() {
        let bytes = script.bytes.as_bytes();
        let every: Vec<usize> = (0..bytes.len()).collect();
        let cuts = (0..=bytes.len()).map(|cut| vec![cut]).chain([every]);
        for cut in cuts {
            let (events, position, sent) = run(&LinkConfig::default(), script.from, bytes, &cut);
            // What is sent inline (SYNC) is no array; acks are read from the arrays after it.
            let from = sent
                .windows(6)
                .position(|w| w == b"SYNC\r\n")
                .map_or(0, |at| at + 6);
            let sent = if script.acks == ["-1", "-1"] {
                &sent[from..]
            } else {
                &sent[..]
            };
            assert_eq!(
                events.as_ref(),
                Ok(&script.events),
                "{}, cut {cut:?}",
                script.name
            );
            assert_eq!(
                position.map(|p| (p.offset, p.db)),
                script.position,
                "{}, cut {cut:?}",
                script.name
            );
            assert_eq!(acks(sent), script.acks, "{}, cut {cut:?}", script.name);
        }
    }
}

#[test]
fn failures_say_who_can_act_and_keep_the_position_when_it_holds() {
    let rows: &[(&str, String, &str, bool)] = &[
        (
            "ping refused",
            "-LOADING x\r\n".into(),
            "the primary is not ready: -LOADING x",
            true,
        ),
        (
            "not linked",
            format!("{GREETING}-NOMASTERLINK Can't\r\n"),
            "not ready: -NOMASTERLINK Can't",
            true,
        ),
        (
            "no password",
            format!("{GREETING}-NOAUTH Authentication required.\r\n"),
            "reply to PSYNC: refused",
            true,
        ),
        (
            "bgsave failed",
            format!("{GREETING}+FULLRESYNC {ID} 1\r\n-ERR BGSAVE failed\r\n"),
            "full resync failed",
            true,
        ),
        (
            "no header",
            format!("{GREETING}+FULLRESYNC {ID} 1\r\n+hm\r\n"),
            "payload header: unexpected \"+hm\"",
            true,
        ),
        (
            "corrupt",
            format!("{GREETING}+CONTINUE\r\n*03\r\n"),
            "offset 100: Protocol error",
            false,
        ),
    ];
    for (name, script, want, keeps) in rows {
        let (events, _, _) = run(
            &LinkConfig::default(),
            Some(position()),
            script.as_bytes(),
            &[3],
        );
        let error = events.unwrap_err();
        assert!(error.to_string().contains(want), "{name}: {error}");
        assert_eq!(error.keeps_position(), *keeps, "{name}");
    }
}

#[test]
fn position_is_gone_while_a_payload_replaces_the_data() {
    let script = format!("{GREETING}+FULLRESYNC {ID} 5\r\n$10\r\nabc");
    let (_, left, _) = run(
        &LinkConfig::default(),
        Some(position()),
        script.as_bytes(),
        &[],
    );
    assert_eq!(left, None);
    let (_, left, _) = run(
        &LinkConfig::default(),
        Some(position()),
        GREETING.as_bytes(),
        &[],
    );
    assert_eq!(left, Some(position()), "nothing was replaced yet");
    let script = format!("{GREETING}+FULLRESYNC {OTHER} 5\r\n\n\n");
    let (_, left, _) = run(
        &LinkConfig::default(),
        Some(position()),
        script.as_bytes(),
        &[],
    );
    assert_eq!(left, Some(position()), "no payload has come yet");
}

#[test]
fn a_quiet_link_says_once_what_is_applied() {
    let mut link = Link::begin(LinkConfig::default(), Some(position()), 0);
    let set = "*3\r\n$3\r\nSET\r\n$1\r\nx\r\n$1\r\n1\r\n";
    let script = format!("{GREETING}+CONTINUE\r\n{set}");
    let mut start = 0;
    for _ in 0..2 {
        start += link.poll(&script.as_bytes()[start..]).unwrap().consumed;
    }
    link.output().clear();
    link.quiet();
    assert!(link.output().is_empty(), "nobody has said what is applied");
    assert!(link.owes_ack() && !link.is_asked_for_ack());
    link.applied(127);
    assert!(link.output().is_empty(), "the next second, or silence");
    link.quiet();
    assert_eq!(acks(link.output()), ["127"]);
    assert!(!link.owes_ack());
    link.output().clear();
    link.quiet();
    assert!(link.output().is_empty());
}

#[test]
fn rdb_only_link_ends_with_the_payload() {
    let config = LinkConfig {
        rdb_only: true,
        ..LinkConfig::default()
    };
    let mut link = Link::begin(config, None, 0);
    let script = format!("{GREETING}+OK\r\n+FULLRESYNC {ID} 5\r\n$1\r\na");
    let mut start = 0;
    while link.status().phase != Phase::Finished {
        start += link.poll(&script.as_bytes()[start..]).unwrap().consumed;
    }
    assert!(!link.wants_input());
    link.loaded(0);
    assert_eq!(link.status().phase, Phase::Finished);
}

#[test]
fn silence_ends_the_link_by_what_is_awaited() {
    let rows: &[(&str, String, u64)] = &[
        ("PING", String::new(), 5_000),
        ("PSYNC", GREETING.into(), 60_000),
        (
            "header",
            format!("{GREETING}+FULLRESYNC {ID} 5\r\n"),
            60_000,
        ),
        (
            "payload",
            format!("{GREETING}+FULLRESYNC {ID} 5\r\n$9\r\nabc"),
            60_000,
        ),
        ("stream", format!("{GREETING}+CONTINUE\r\n"), 60_000),
    ];
    for (name, script, limit) in rows {
        let mut link = Link::begin(LinkConfig::default(), Some(position()), 0);
        let mut start = 0;
        loop {
            let step = link.poll(&script.as_bytes()[start..]).unwrap();
            start += step.consumed;
            if step.event.is_none() {
                break;
            }
        }
        link.received(1_000);
        assert_eq!(link.tick(1_000 + limit), Ok(()), "{name}");
        assert!(
            matches!(link.tick(1_001 + limit), Err(Disconnect::Timeout { .. })),
            "{name}"
        );
        link.tick_busy(1_001 + limit);
        assert_eq!(
            link.tick(1_001 + 2 * limit),
            Ok(()),
            "{name}: a busy caller heard nothing and blames nobody"
        );
    }
}

#[test]
fn acks_follow_what_is_applied_not_what_is_read() {
    let mut link = Link::begin(LinkConfig::default(), Some(position()), 0);
    let script = format!("{GREETING}+CONTINUE\r\n{STREAM}");
    let mut start = 0;
    for _ in 0..3 {
        start += link.poll(&script.as_bytes()[start..]).unwrap().consumed;
    }
    link.output().clear();
    link.tick(5).unwrap();
    assert_eq!(
        acks(link.output()),
        ["0"],
        "nobody has said what is applied"
    );
    link.applied(100);
    link.output().clear();
    link.tick(10).unwrap();
    assert_eq!(
        acks(link.output()),
        ["100"],
        "SET was read, nothing was applied; GETACK waits"
    );
    link.output().clear();
    link.applied(127);
    assert_eq!(acks(link.output()), ["127"], "now GETACK is answered");
    link.output().clear();
    link.applied(164);
    assert!(link.output().is_empty());
    link.tick(20).unwrap();
    assert_eq!(acks(link.output()), ["164"]);
}

#[test]
fn loading_sends_newlines() {
    let mut link = Link::begin(LinkConfig::default(), None, 0);
    let script = format!("{GREETING}+FULLRESYNC {ID} 5\r\n$1\r\na");
    let mut start = 0;
    while link.status().phase != Phase::Loading {
        start += link.poll(&script.as_bytes()[start..]).unwrap().consumed;
    }
    assert!(!link.wants_input());
    link.output().clear();
    link.tick(u64::MAX).unwrap();
    assert_eq!(link.output(), b"\n");
}

proptest! {
    #[test]
    fn garbage_never_panics(
        prefix in 0usize..6,
        garbage in prop::collection::vec(prop::sample::select(b"+-$*\r\n01EOF:CONTIUE a".to_vec()), 0..80),
    ) {
        let script = &scripts()[prefix % scripts().len()].bytes;
        let keep = script.len() * prefix / 6;
        let bytes = [&script.as_bytes()[..keep], &garbage].concat();
        let _ = run(&LinkConfig::default(), Some(position()), &bytes, &[keep]);
    }
}
