//! Follows primaries that are nothing but a script: what a real one does rarely or never.

use std::cell::RefCell;
use std::io::{Read, Write};
use std::net::{TcpListener, TcpStream};
use std::rc::Rc;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::thread;
use std::time::Duration;

use dfsnap_replica::{
    Apply, ApplyError, Disconnect, End, Follower, LinkConfig, PayloadStart, Transaction,
};

const ID: &str = "8371b4fb1155b71f4a04d3e1bc3e18c4a990aeeb";

/// Listens, and has `script` talk to every connection; counts them.
fn primary(script: impl Fn(TcpStream) + Send + 'static) -> (u16, Arc<AtomicUsize>) {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let port = listener.local_addr().unwrap().port();
    let connections = Arc::new(AtomicUsize::new(0));
    let count = connections.clone();
    thread::spawn(move || {
        for socket in listener.incoming() {
            count.fetch_add(1, Ordering::Relaxed);
            script(socket.unwrap());
        }
    });
    (port, connections)
}

/// Reads until `end` came.
fn read_until(socket: &mut TcpStream, end: &str) -> String {
    let mut text = String::new();
    let mut byte = [0];
    while !text.ends_with(end) {
        if socket.read(&mut byte).unwrap_or(0) == 0 {
            break;
        }
        text.push(char::from(byte[0]));
    }
    text
}

/// Answers everything up to PSYNC and then says `reply`.
fn greet(socket: &mut TcpStream, reply: &str) {
    read_until(socket, "PING\r\n");
    socket.write_all(b"+PONG\r\n").unwrap();
    read_until(socket, "psync2\r\n");
    socket.write_all(b"+OK\r\n+OK\r\n").unwrap();
    read_until(socket, "-1\r\n");
    socket.write_all(reply.as_bytes()).unwrap();
}

#[derive(Clone, Default)]
struct Receiver {
    rdb: Rc<RefCell<Vec<u8>>>,
    units: Rc<RefCell<Vec<u64>>>,
    lost: Rc<RefCell<Vec<Disconnect>>>,
    load_time: Duration,
    unit_time: Duration,
}

impl Apply for Receiver {
    async fn begin_payload(&mut self, _: PayloadStart) -> Result<(), ApplyError> {
        self.rdb.borrow_mut().clear();
        Ok(())
    }

    async fn payload(&mut self, bytes: &[u8]) -> Result<(), ApplyError> {
        self.rdb.borrow_mut().extend_from_slice(bytes);
        Ok(())
    }

    async fn end_payload(&mut self) -> Result<u32, ApplyError> {
        tokio::time::sleep(self.load_time).await;
        Ok(0)
    }

    async fn transaction(&mut self, unit: Transaction<'_>) -> Result<(), ApplyError> {
        tokio::time::sleep(self.unit_time).await;
        self.units.borrow_mut().push(unit.end_offset);
        Ok(())
    }

    fn disconnected(&mut self, why: &Disconnect) {
        self.lost.borrow_mut().push(why.clone());
    }
}

fn follow_for(time: Duration, follower: &mut Follower, receiver: &Receiver) {
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()
        .unwrap();
    let end = runtime.block_on(async {
        follower
            .follow(&mut receiver.clone(), tokio::time::sleep(time))
            .await
    });
    assert_eq!(end.unwrap(), End::Stopped);
}

#[test]
fn slow_loader_sends_newlines_and_the_stream_waits_for_its_ack() {
    let (said, heard) = std::sync::mpsc::channel();
    let (port, _) = primary(move |mut socket| {
        let mark = "m".repeat(40);
        greet(
            &mut socket,
            &format!("+FULLRESYNC {ID} 10\r\n$EOF:{mark}\r\nRDB{mark}"),
        );
        said.send(read_until(&mut socket, "ACK\r\n$2\r\n10\r\n"))
            .unwrap();
        socket.write_all(b"*1\r\n$4\r\nping\r\n").unwrap();
        said.send(read_until(&mut socket, "ACK\r\n$2\r\n24\r\n"))
            .unwrap();
        read_until(&mut socket, "never");
    });
    let receiver = Receiver {
        load_time: Duration::from_millis(2500),
        ..Receiver::default()
    };
    let mut follower = Follower::new("127.0.0.1", port, LinkConfig::default());
    follow_for(Duration::from_millis(4800), &mut follower, &receiver);
    assert_eq!(*receiver.rdb.borrow(), b"RDB");
    assert!(
        heard.recv().unwrap().starts_with("\n\n*3\r\n"),
        "two newlines while loading, then the ACK"
    );
    assert!(heard.recv().unwrap().ends_with("24\r\n"));
    assert_eq!(follower.position.unwrap().offset, 24);
}

#[test]
fn socket_that_breaks_during_a_transaction_does_not_cancel_it() {
    let (port, _) = primary(|mut socket| {
        greet(
            &mut socket,
            &format!("+FULLRESYNC {ID} 0\r\n$3\r\nRDB*2\r\n$3\r\nDEL\r\n$1\r\nx\r\n"),
        );
        thread::sleep(Duration::from_millis(300)); // and closes while the follower works
    });
    let receiver = Receiver {
        unit_time: Duration::from_millis(2300),
        ..Receiver::default()
    };
    let mut follower = Follower::new("127.0.0.1", port, LinkConfig::default());
    follow_for(Duration::from_millis(2900), &mut follower, &receiver);
    assert_eq!(*receiver.units.borrow(), [20]);
    assert!(
        matches!(receiver.lost.borrow()[..], [Disconnect::Connection(_), ..]),
        "{:?}",
        receiver.lost.borrow()
    );
}

#[test]
fn useless_primary_is_asked_once_a_second() {
    type Script = (&'static str, fn(&Disconnect) -> bool);
    let scripts: [Script; 3] = [
        ("*2\r\n$6\r\nSELECT\r\n$2\r\n20\r\n", |why| {
            matches!(why, Disconnect::DatabaseOutOfRange { .. })
        }),
        ("SET inline 1\r\n", |why| {
            matches!(why, Disconnect::Corrupt { .. })
        }),
        ("", |why| matches!(why, Disconnect::Connection(_))),
    ];
    for (stream, is_expected) in scripts {
        let (port, connections) = primary(move |mut socket| {
            greet(
                &mut socket,
                &format!("+FULLRESYNC {ID} 0\r\n$3\r\nRDB{stream}"),
            );
        });
        let receiver = Receiver::default();
        // Nothing but full resyncs: the script knows no other.
        let config = LinkConfig {
            databases: 16,
            ..LinkConfig::default()
        };
        let mut follower = Follower::new("127.0.0.1", port, config);
        follow_for(Duration::from_millis(2500), &mut follower, &receiver);
        let connections = connections.load(Ordering::Relaxed);
        assert!(
            (2..=3).contains(&connections),
            "{stream:?}: {connections} connections"
        );
        assert!(
            is_expected(&receiver.lost.borrow()[0]),
            "{stream:?}: {:?}",
            receiver.lost.borrow()
        );
    }
}
