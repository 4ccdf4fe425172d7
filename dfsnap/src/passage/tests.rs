//! What becomes of each kind of command.

use super::*;
use clap::{Args, FromArgMatches};

/// Of options as they are typed.
fn passage(options: &str) -> Passage {
    let command = EditArgs::augment_args(FilterArgs::augment_args(clap::Command::new("x")));
    let words = std::iter::once("x").chain(options.split_whitespace());
    let found = command.try_get_matches_from(words).unwrap();
    let filter = FilterArgs::from_arg_matches(&found).unwrap();
    Passage::new(&filter, &EditArgs::from_arg_matches(&found).unwrap())
}

/// `db N: words`, `nothing`, or `refused: why`.
fn fate(passage: &mut Passage, db: u32, command: &str) -> String {
    let words: Vec<&[u8]> = command.split(' ').map(str::as_bytes).collect();
    match passage.command(db, &words) {
        Ok(None) => "nothing".to_owned(),
        Ok(Some(sent)) => {
            let words: Vec<_> = sent
                .words
                .iter()
                .map(|it| String::from_utf8_lossy(it))
                .collect();
            format!("db {}: {}", sent.db, words.join(" "))
        }
        Err(refused) => {
            assert!(!refused.advice.is_empty());
            format!("refused: {}", refused.why)
        }
    }
}

fn check_rows(options: &str, rows: &[(u32, &str, &str)]) {
    let mut passage = passage(options);
    for (db, command, want) in rows {
        let found = fate(&mut passage, *db, command);
        let is_as_wanted = match want.strip_prefix("refused: ") {
            Some(part) => found.starts_with("refused: ") && found.contains(part),
            None => found == *want,
        };
        assert!(is_as_wanted, "{options}: {command}: {found}, wanted {want}");
    }
}

#[test]
fn commands_are_cut_to_the_keys_that_pass() {
    check_rows(
        "--match u*",
        &[
            (0, "SET u 1", "db 0: SET u 1"),
            (3, "set v 1", "nothing"),
            (0, "DEL u1 v u2", "db 0: DEL u1 u2"),
            (0, "UNLINK v w", "nothing"),
            (0, "MSET v 1 u 2 w 3", "db 0: MSET u 2"),
            (0, "FLUSHALL", "db 0: FLUSHALL"),
            (2, "FLUSHDB ASYNC", "db 2: FLUSHDB ASYNC"),
            (0, "SWAPDB 0 1", "db 0: SWAPDB 0 1"),
            (7, "PUBLISH v hello", "db 0: PUBLISH v hello"),
            (0, "FUNCTION FLUSH", "db 0: FUNCTION FLUSH"),
            (0, "XGROUP CREATE u g $", "db 0: XGROUP CREATE u g $"),
            (0, "XGROUP CREATE v g $", "nothing"),
            (0, "EVAL x 1 u", "refused: a script"),
            (0, "MY.COMMAND u", "refused: not known"),
        ],
    );
}

#[test]
fn what_leaves_the_filter_is_removed_and_what_enters_is_refused() {
    check_rows(
        "--match u*",
        &[
            (0, "RENAME u1 u2", "db 0: RENAME u1 u2"),
            (0, "RENAME u1 v", "db 0: DEL u1"),
            (0, "RENAMENX u1 v", "db 0: DEL u1"),
            (
                0,
                "RENAME v u1",
                "refused: key u1 of database 0 passes and gets what is in v",
            ),
            (0, "RENAME v w", "nothing"),
            (0, "SMOVE u v m", "db 0: SREM u m"),
            (0, "SMOVE v u m", "db 0: SADD u m"),
            (0, "RPOPLPUSH u v", "db 0: RPOP u"),
            (0, "LMOVE u v left right", "db 0: LPOP u"),
            (0, "LMOVE u v RIGHT LEFT", "db 0: RPOP u"),
            (0, "LMOVE v u LEFT LEFT", "refused: passes and gets"),
            (0, "COPY u v", "nothing"),
            (0, "COPY v u", "refused: passes and gets"),
            (0, "SUNIONSTORE v u u1", "nothing"),
            (0, "SUNIONSTORE u u1 v", "refused: what is in v"),
            (
                0,
                "ZUNIONSTORE u 2 u1 u2 WEIGHTS 1 2",
                "db 0: ZUNIONSTORE u 2 u1 u2 WEIGHTS 1 2",
            ),
            (0, "SORT u BY w_* STORE u1", "refused: patterns"),
            (
                0,
                "SORT u BY nosort STORE u1",
                "db 0: SORT u BY nosort STORE u1",
            ),
        ],
    );
}

#[test]
fn databases_pass_as_wholes() {
    check_rows(
        "--db 0,1",
        &[
            (2, "SET k 1", "nothing"),
            (2, "FLUSHDB", "nothing"),
            (1, "FLUSHDB", "db 1: FLUSHDB"),
            (0, "MOVE k 1", "db 0: MOVE k 1"),
            (0, "MOVE k 2", "db 0: DEL k"),
            (2, "MOVE k 0", "refused: passes and gets"),
            (0, "COPY k d DB 2", "nothing"),
            (0, "COPY k d DB 1", "db 0: COPY k d DB 1"),
            (2, "COPY k d DB 1", "refused: passes and gets"),
            (0, "SWAPDB 0 1", "db 0: SWAPDB 0 1"),
            (0, "SWAPDB 0 2", "refused: do not pass alike"),
            (0, "SWAPDB 2 3", "nothing"),
            (0, "SORT k BY w_* STORE d", "db 0: SORT k BY w_* STORE d"),
        ],
    );
}

#[test]
fn names_and_databases_change_in_every_place() {
    check_rows(
        "--rename ^a:=>b: --to-db 0=5",
        &[
            (0, "SET a:1 a:1", "db 5: SET b:1 a:1"),
            (1, "SET a:1 1", "db 1: SET b:1 1"),
            (0, "MSET a:2 1 c 2", "db 5: MSET b:2 1 c 2"),
            (0, "MOVE a:1 1", "db 5: MOVE b:1 1"),
            (0, "COPY a:1 a:9 DB 1", "db 5: COPY b:1 b:9 DB 1"),
            (0, "SUNIONSTORE a:3 a:4 c", "db 5: SUNIONSTORE b:3 b:4 c"),
            (0, "RENAME a:1 a:5", "db 5: RENAME b:1 b:5"),
            (0, "SMOVE a:5 a:6 a:5", "db 5: SMOVE b:5 b:6 a:5"),
            (0, "FLUSHDB", "refused: keys of database 5"),
            (1, "FLUSHDB", "db 1: FLUSHDB"),
            (0, "SWAPDB 0 1", "refused: do not pass alike"),
        ],
    );
    check_rows("--db 0 --to-db 5", &[(0, "FLUSHDB", "db 5: FLUSHDB")]);
}

#[test]
fn two_keys_never_become_one_but_one_may_follow_another() {
    check_rows(
        "--rename ^a:=>b:",
        &[
            (0, "SET a:1 x", "db 0: SET b:1 x"),
            (0, "APPEND a:1 x", "db 0: APPEND b:1 x"),
            (0, "SET b:1 x", "refused: becomes b:1 in database 0"),
            (1, "SET b:1 x", "db 1: SET b:1 x"),
            (0, "DEL a:1", "db 0: DEL b:1"),
            (0, "SET b:1 x", "db 0: SET b:1 x"),
            (0, "SET a:1 x", "refused: becomes b:1"),
            (0, "RENAME b:1 c", "db 0: RENAME b:1 c"),
            (0, "SET a:1 x", "db 0: SET b:1 x"),
            (0, "SWAPDB 0 1", "db 0: SWAPDB 0 1"),
            (1, "SET a:1 x", "db 1: SET b:1 x"),
            (0, "SET a:1 x", "refused: becomes b:1"),
            (0, "FLUSHALL", "db 0: FLUSHALL"),
            (0, "SET a:1 x", "db 0: SET b:1 x"),
            (0, "FLUSHDB", "db 0: FLUSHDB"),
            (0, "SET b:1 x", "db 0: SET b:1 x"),
        ],
    );
    check_rows(
        "--to-db 0",
        &[
            (3, "SET k 1", "db 0: SET k 1"),
            (
                0,
                "SET k 1",
                "refused: key k of database 0 becomes k in database 0",
            ),
            (0, "MOVE other 3", "refused: becomes other"),
        ],
    );
}

#[test]
fn what_may_concern_a_key_is_printed() {
    let passage = passage("--match u* --db 0,1");
    let rows = [
        (0, "SET u 1", true),
        (2, "SET u 1", false),
        (0, "SET v 1", false),
        (0, "DEL v u", true),
        (0, "SUNIONSTORE v u w", true),
        (2, "COPY u u DB 1", true),
        (2, "MOVE u 1", true),
        (2, "MOVE u 3", false),
        (0, "RENAME v u", true),
        (0, "RENAME v w", false),
        (5, "FLUSHALL", true),
        (1, "FLUSHDB", true),
        (5, "FLUSHDB", false),
        (5, "SWAPDB 1 4", true),
        (5, "SWAPDB 5 4", false),
        (5, "EVAL x 0", true),
        (5, "MY.COMMAND v", true),
        (0, "PUBLISH u x", false),
        (0, "SORT v BY x_* STORE w", true),
    ];
    for (db, command, want) in rows {
        let words: Vec<&[u8]> = command.split(' ').map(str::as_bytes).collect();
        assert_eq!(passage.concerns(db, &words), want, "{db} {command}");
    }
}
