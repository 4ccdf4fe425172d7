//! Both ends of a link get what no peer should send: sessions of real servers with bytes changed, lost, doubled and cut off.
//!
//! Whatever comes is an error and another attempt: the server answers, has not panicked, takes bounded memory, and in between and at the
//! end a session that is whole gives exactly the data it should. `DFSNAP_SEED` and `DFSNAP_SECONDS` as for all random tests.

use std::io::{Read, Write};
use std::net::{Shutdown, TcpListener, TcpStream};
use std::time::{Duration, Instant};

use dfsnap_tests::client::{Client, Reply, frame};
use dfsnap_tests::link::RawReplica;
use dfsnap_tests::load::Load;
use dfsnap_tests::process::{Server, has_program};
use dfsnap_tests::{seconds, seed, wait_for};
use fastrand::Rng;

const LIMIT: Duration = Duration::from_secs(30);
/// A replica that says nothing for so long waits for something.
const SILENCE: Duration = Duration::from_millis(100);
/// What the server may have more than before, whatever is claimed by a peer.
const MEMORY_BYTES: u64 = 200 << 20;

/// What a primary sends, in parts: each answers something of the replica.
#[derive(Clone)]
struct Session {
    parts: Vec<Vec<u8>>,
    /// Of the data at its end.
    digest: String,
    offset: u64,
}

/// A real primary's session: a full sync of some data, and a stream of all kinds of commands.
fn recorded(seed: u64) -> Session {
    let primary = Server::redis(&["--repl-ping-replica-period", "3600"]);
    let ours = Server::ours(&["--threads", "1"]);
    let mut load = Load::new(seed, &mut [primary.client(), ours.client()]);
    let mut client = primary.client();
    for _ in 0..400 {
        load.step(&mut client);
    }
    // What is to expire would make the data differ from one look to the next.
    let mut replica = RawReplica::full(primary.port).expect("a full sync");
    let (answer, payload) = (replica.answer.clone(), replica.payload.clone());
    for _ in 0..300 {
        load.step(&mut client);
    }
    client.ask("FLUSHALL");
    client.ask("SELECT 0");
    let times = [
        b"PX".as_slice(),
        b"EX",
        b"PXAT",
        b"PSETEX",
        b"SETEX",
        b"PEXPIRE",
        b"EXPIRE",
        b"PEXPIREAT",
        b"EXPIREAT",
    ];
    for _ in 0..300 {
        let words = load.command();
        if !words.iter().any(|word| times.contains(&word.as_slice())) {
            client.call(&words);
        }
    }
    client.ask("SELECT 0");
    client.ask("SET the end");
    let mut stream = Vec::new();
    loop {
        let words = replica.command().expect("a command");
        let slices: Vec<&[u8]> = words.iter().map(Vec::as_slice).collect();
        stream.extend(frame(&slices));
        if slices == [b"SET".as_slice(), b"the", b"end"] {
            break;
        }
    }
    let mark = "m".repeat(40);
    let head = format!("{answer}\r\n$EOF:{mark}\r\n");
    let sync = [head.as_bytes(), &payload, mark.as_bytes()].concat();
    Session {
        parts: vec![
            b"+PONG\r\n".to_vec(),
            b"+OK\r\n+OK\r\n".to_vec(),
            sync,
            stream,
        ],
        digest: primary.digest(),
        offset: replica.offset,
    }
}

/// Changes some bytes in some way.
fn mutated(bytes: &[u8], rng: &mut Rng) -> Vec<u8> {
    const NUMBERS: [&str; 9] = [
        "-1",
        "0",
        "1",
        "4294967296",
        "1073741824",
        "9223372036854775807",
        "18446744073709551615",
        "99999999999999999999",
        "07",
    ];
    const BITS: [&[u8]; 10] = [
        b"\r\n",
        b"*",
        b"$",
        b"\0",
        b"*3\r\n$3\r\nSET\r\n",
        b"-ERR no\r\n",
        b"$-1\r\n",
        b"MULTI\r\n",
        b"*1\r\n$5\r\nMULTI\r\n",
        b"$EOF:",
    ];
    let mut bytes = bytes.to_vec();
    for _ in 0..rng.usize(1..4) {
        if bytes.is_empty() {
            return bytes;
        }
        let at = rng.usize(..bytes.len());
        let end = (at + rng.usize(1..40)).min(bytes.len());
        match rng.u32(..7) {
            0 => bytes[at] ^= 1 << rng.u32(..8),
            1 => drop(bytes.drain(at..end)),
            2 => {
                let piece = bytes[at..end].to_vec();
                bytes.splice(at..at, piece);
            }
            3 => bytes.truncate(at),
            4 => {
                let bit = BITS[rng.usize(..BITS.len())];
                bytes.splice(at..at, bit.iter().copied());
            }
            5 => {
                // A number in place of the next one.
                let from = bytes[at..]
                    .iter()
                    .position(u8::is_ascii_digit)
                    .map(|i| at + i);
                let Some(from) = from else { continue };
                let len = bytes[from..]
                    .iter()
                    .take_while(|b| b.is_ascii_digit())
                    .count();
                let number = NUMBERS[rng.usize(..NUMBERS.len())];
                bytes.splice(from..from + len, number.bytes());
            }
            _ => {
                for byte in &mut bytes[at..end] {
                    *byte = rng.u8(..);
                }
            }
        }
    }
    bytes
}

/// Sends bytes in pieces; false once the peer has closed.
fn send(socket: &mut TcpStream, bytes: &[u8], rng: &mut Rng) -> bool {
    let mut rest = bytes;
    while !rest.is_empty() {
        let most = if rng.bool() {
            rest.len()
        } else {
            rng.usize(1..=rest.len())
        };
        if socket.write_all(&rest[..most]).is_err() {
            return false;
        }
        rest = &rest[most..];
    }
    true
}

fn resident(server: &Server) -> u64 {
    let path = format!("/proc/{}/statm", server.pid());
    let text = std::fs::read_to_string(path).unwrap_or_default();
    let pages: u64 = text
        .split(' ')
        .nth(1)
        .and_then(|n| n.parse().ok())
        .unwrap_or(0);
    pages * 4096
}

/// It lives, and has not grown beyond bounds.
fn is_well(server: &Server, client: &mut Client, before: u64, run: u64) {
    assert!(
        server.is_running(),
        "run {run}: it has ended\n{}",
        server.log()
    );
    let reply = format!("{:?}", client.call(&["PING", "well"]));
    assert!(
        reply.contains("LOADING") || reply == format!("{:?}", Reply::Text(b"well".to_vec())),
        "run {run}: {reply}"
    );
    let grown = resident(server).saturating_sub(before);
    assert!(grown < MEMORY_BYTES, "run {run}: {grown} bytes more");
}

/// Plays a session to a replica that connects.
fn play(
    listener: &TcpListener,
    replica: &Server,
    parts: &[Vec<u8>],
    patience: Duration,
    rng: &mut Rng,
) -> Option<TcpStream> {
    listener.set_nonblocking(true).expect("a listener");
    let (mut socket, _) = wait_for("the replica comes", LIMIT, || {
        assert!(replica.is_running(), "it has ended\n{}", replica.log());
        listener.accept().ok()
    });
    socket.set_nonblocking(false).expect("a socket");
    socket.set_read_timeout(Some(patience)).expect("a timeout");
    socket.set_nodelay(true).expect("a socket");
    let mut heard = [0; 4096];
    for part in parts {
        // The stream follows the payload's ACK; a replica that has given up says nothing.
        match socket.read(&mut heard) {
            Ok(0) => return None,
            Ok(_) => {}
            Err(_) => return None,
        }
        if !send(&mut socket, part, rng) {
            return None;
        }
    }
    Some(socket)
}

#[test]
fn a_replica_survives_any_primary() {
    if !has_program("redis-server") {
        return;
    }
    let seed = seed("replica");
    let mut rng = Rng::with_seed(seed);
    let session = recorded(seed);
    let replica = Server::ours(&["--threads", "2", "--repl-timeout", "5"]);
    // A server does not leave a primary for itself: two take turns.
    let listeners = [(); 2].map(|()| TcpListener::bind(("127.0.0.1", 0)).expect("a port"));
    let ports = listeners
        .each_ref()
        .map(|l| l.local_addr().expect("its address").port());
    let mut client = replica.client();
    let (before, began, length) = (resident(&replica), Instant::now(), seconds(15));
    let mut run = 0u64;
    while began.elapsed() < length {
        let turn = (run % 2) as usize;
        let listener = &listeners[turn];
        let port = ports[turn].to_string();
        wait_for("it may change its primary", LIMIT, || {
            // While it loads, it may not.
            let reply = client.call(&["REPLICAOF", "127.0.0.1", &port]);
            (!reply.is_error()).then_some(())
        });
        let load = ["disabled", "on-empty-db", "swapdb"][rng.usize(..3)];
        // Refused if a payload is coming again already: then it stays as it was.
        client.call(&["CONFIG", "SET", "repl-diskless-load", load]);
        if run % 50 == 49 {
            // It may come with what is left of an earlier session first.
            let socket = wait_for("a session that is whole", LIMIT, || {
                play(listener, &replica, &session.parts, LIMIT, &mut rng)
            });
            wait_for(&format!("run {run}: the right data"), LIMIT, || {
                let offset = client.info("slave_repl_offset")?;
                let is_there = offset == session.offset.to_string();
                (is_there && replica.digest() == session.digest).then_some(())
            });
            drop(socket);
        } else {
            let mut parts = session.parts.clone();
            let at = match rng.u32(..10) {
                0 => 0,
                1 => 1,
                2..6 => 2,
                _ => 3,
            };
            parts[at] = mutated(&parts[at], &mut rng);
            if rng.u32(..20) == 0 {
                parts.swap(at, 3);
            }
            if let Some(mut socket) = play(listener, &replica, &parts, SILENCE, &mut rng) {
                let _ = socket.shutdown(Shutdown::Write);
                // It reads what came before it sees the end.
                let mut heard = [0; 4096];
                while socket.read(&mut heard).is_ok_and(|read| read > 0) {}
            }
        }
        is_well(&replica, &mut client, before, run);
        run += 1;
    }
    println!("{run} sessions");
    assert!(!replica.log().contains("panicked"), "{}", replica.log());
}

#[test]
fn a_primary_survives_any_replica() {
    let seed = seed("primary");
    let mut rng = Rng::with_seed(seed);
    let primary = Server::ours(&[
        "--threads",
        "2",
        "--repl-ping-replica-period",
        "3600",
        "--repl-timeout",
        "3600",
    ]);
    let mut client = primary.client();
    for i in 0..200 {
        client.call(&["SET", &format!("k{i}"), &"v".repeat(i)]);
    }
    let mut good = RawReplica::full(primary.port).expect("a full sync");
    let (before, began, length) = (resident(&primary), Instant::now(), seconds(10));
    let mut run = 0u64;
    while began.elapsed() < length {
        let offset = rng.u64(..100) + 1;
        let psync = match rng.u32(..4) {
            0 => frame(&[
                b"PSYNC",
                good.replid().as_bytes(),
                offset.to_string().as_bytes(),
            ]),
            1 => b"SYNC\r\n".to_vec(),
            _ => frame(&[b"PSYNC", b"?", b"-1"]),
        };
        let parts = [
            frame(&[b"PING"]),
            [
                frame(&[
                    b"REPLCONF",
                    b"listening-port",
                    b"6380",
                    b"ip-address",
                    b"10.0.0.1",
                ]),
                frame(&[b"REPLCONF", b"capa", b"eof", b"capa", b"psync2"]),
                frame(&[b"REPLCONF", b"rdb-filter-only", b"functions"]),
            ]
            .concat(),
            psync,
            [
                frame(&[b"REPLCONF", b"ACK", b"12"]),
                b"\n\r\n".to_vec(),
                frame(&[b"REPLCONF", b"ACK", b"99999999"]),
            ]
            .concat(),
        ];
        let broken = rng.usize(..parts.len() + 1);
        let mut socket = TcpStream::connect(("127.0.0.1", primary.port)).expect("a connection");
        socket
            .set_read_timeout(Some(Duration::from_millis(5)))
            .expect("a timeout");
        for (i, part) in parts.iter().enumerate() {
            let bytes = if i == broken {
                mutated(part, &mut rng)
            } else {
                part.clone()
            };
            if !send(&mut socket, &bytes, &mut rng) {
                break;
            }
            if rng.u32(..5) > 0 {
                let _ = socket.read(&mut [0; 4096]);
            }
        }
        drop(socket);
        client.call(&["SET", "run", &run.to_string()]);
        is_well(&primary, &mut client, before, run);
        run += 1;
    }
    println!("{run} sessions");
    assert!(!primary.log().contains("panicked"), "{}", primary.log());
    // The one that behaves has seen exactly what was written.
    let mut next = 0;
    while next < run {
        let words = good.command().expect("a command");
        // Bytes that were changed may be a command that writes.
        if words[0] == b"SET" && words[1] == b"run" {
            assert_eq!(words[2], next.to_string().into_bytes());
            next += 1;
        }
    }
    wait_for("the others are forgotten", LIMIT, || {
        (client.info("connected_slaves")? == "1").then_some(())
    });
}
