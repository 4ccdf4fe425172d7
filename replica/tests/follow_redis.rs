//! Follows a real redis-server: full resync in both forms, the stream, a lost link, a wrong password.
//! Skipped, with a line saying so, where no redis-server is installed.

use std::io::{Read, Write};
use std::net::{TcpListener, TcpStream};
use std::process::{Child, Command, Stdio};
use std::rc::Rc;
use std::sync::atomic::{AtomicU16, Ordering};
use std::time::{Duration, Instant};
use std::{cell::RefCell, io, thread};

use dfsnap_formats::resp::{Frame, FrameDecoder, encode_command};
use dfsnap_replica::{
    Apply, ApplyError, Auth, Disconnect, End, FollowError, Follower, Form, LinkConfig,
    PayloadStart, Phase, ReplId, Status, Transaction,
};

struct Redis {
    process: Child,
    port: u16,
}

impl Redis {
    /// `None` where redis-server is not installed.
    fn start(settings: &[&str]) -> Option<Redis> {
        let port = free_port();
        let started = Command::new("redis-server")
            .args([
                "--port",
                &port.to_string(),
                "--bind",
                "127.0.0.1",
                "--save",
                "",
                "--dir",
            ])
            .arg(std::env::temp_dir())
            .args([
                "--dbfilename",
                &format!("follow-redis-{port}.rdb"),
                "--repl-diskless-sync-delay",
                "0",
            ])
            .args([
                "--repl-ping-replica-period",
                "3600",
                "--enable-debug-command",
                "yes",
            ])
            .args(settings)
            .stdout(Stdio::null())
            .spawn();
        let Ok(process) = started else {
            eprintln!("skipped: redis-server is not installed");
            return None;
        };
        let redis = Redis { process, port };
        let began = Instant::now();
        while TcpStream::connect(("127.0.0.1", port)).is_err() {
            assert!(
                began.elapsed() < Duration::from_secs(10),
                "redis-server did not start"
            );
            thread::sleep(Duration::from_millis(20));
        }
        Some(redis)
    }

    fn command(&self, words: &[&str]) -> Frame {
        let mut socket = TcpStream::connect(("127.0.0.1", self.port)).unwrap();
        let mut request = Vec::new();
        encode_command(&mut request, words);
        socket.write_all(&request).unwrap();
        let (mut decoder, mut reply) = (FrameDecoder::default(), Vec::new());
        loop {
            if let Some((frame, _)) = decoder.decode(&reply).unwrap() {
                return frame;
            }
            let mut bytes = [0; 4096];
            let n = socket.read(&mut bytes).unwrap();
            assert!(n > 0, "redis-server closed the connection");
            reply.extend_from_slice(&bytes[..n]);
        }
    }

    fn info(&self, field: &str) -> String {
        let info = self.command(&["INFO", "replication"]);
        let text = String::from_utf8(info.as_bytes().unwrap().to_vec()).unwrap();
        let line = text
            .lines()
            .find_map(|line| line.strip_prefix(&format!("{field}:")));
        line.unwrap_or_default().to_owned()
    }
}

/// Below the ephemeral ports: a connect to a free one of those can end up connected to itself.
fn free_port() -> u16 {
    static NEXT: AtomicU16 = AtomicU16::new(0);
    loop {
        let step = NEXT.fetch_add(1, Ordering::Relaxed);
        let port = 20_000 + (std::process::id() as u16 % 1000) * 10 + step;
        if TcpListener::bind(("127.0.0.1", port)).is_ok() {
            return port;
        }
    }
}

impl Drop for Redis {
    fn drop(&mut self) {
        let _ = self.process.kill();
        let _ = self.process.wait();
        let _ = std::fs::remove_file(
            std::env::temp_dir().join(format!("follow-redis-{}.rdb", self.port)),
        );
    }
}

#[derive(Default)]
struct Seen {
    forms: Vec<Form>,
    rdb: Vec<u8>,
    commands: Vec<String>,
    end_offset: u64,
    continued: usize,
    lost: Vec<Disconnect>,
    phases: Vec<Phase>,
}

#[derive(Clone, Default)]
struct Recorder(Rc<RefCell<Seen>>);

impl Apply for Recorder {
    async fn begin_payload(&mut self, start: PayloadStart) -> Result<(), ApplyError> {
        let mut seen = self.0.borrow_mut();
        seen.rdb.clear();
        seen.forms.push(start.form);
        seen.end_offset = start.origin.expect("PSYNC is known").1;
        Ok(())
    }

    async fn payload(&mut self, bytes: &[u8]) -> Result<(), ApplyError> {
        self.0.borrow_mut().rdb.extend_from_slice(bytes);
        Ok(())
    }

    async fn end_payload(&mut self) -> Result<u32, ApplyError> {
        // Longer than a second: the primary must get newlines meanwhile.
        tokio::time::sleep(Duration::from_millis(1200)).await;
        Ok(0)
    }

    async fn transaction(&mut self, unit: Transaction<'_>) -> Result<(), ApplyError> {
        let mut seen = self.0.borrow_mut();
        assert_eq!(
            seen.end_offset,
            unit.start_offset(),
            "units follow each other"
        );
        seen.end_offset = unit.end_offset;
        for command in unit.commands() {
            let words: Vec<_> = command
                .words()
                .map(|w| w.escape_ascii().to_string())
                .collect();
            seen.commands
                .push(format!("{}> {}", command.db, words.join(" ")));
        }
        Ok(())
    }

    fn continued(&mut self, _: ReplId, _: Option<ReplId>) {
        self.0.borrow_mut().continued += 1;
    }

    fn observe(&mut self, status: &Status) {
        let mut seen = self.0.borrow_mut();
        if seen.phases.last() != Some(&status.phase) {
            seen.phases.push(status.phase);
        }
    }

    fn disconnected(&mut self, why: &Disconnect) {
        self.0.borrow_mut().lost.push(why.clone());
    }
}

/// Runs the follower on this thread while `script` runs on another; the script's end stops the follower.
fn follow_while(
    follower: &mut Follower,
    recorder: &Recorder,
    script: impl FnOnce() + Send + 'static,
) -> Result<End, FollowError> {
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()
        .unwrap();
    let (done, stop) = tokio::sync::oneshot::channel();
    let script = thread::spawn(move || {
        script();
        let _ = done.send(());
    });
    let end = runtime.block_on(follower.follow(&mut recorder.clone(), async {
        let _ = stop.await;
    }));
    script.join().unwrap();
    end
}

fn wait_until(what: &str, is_so: impl Fn() -> bool) {
    let began = Instant::now();
    while !is_so() {
        assert!(
            began.elapsed() < Duration::from_secs(20),
            "waited for {what}"
        );
        thread::sleep(Duration::from_millis(20));
    }
}

#[test]
fn follower_of_redis_keeps_its_offset() {
    for (name, diskless, is_mark) in [("disk", "no", false), ("diskless", "yes", true)] {
        let Some(redis) = Redis::start(&["--repl-diskless-sync", diskless]) else {
            return;
        };
        redis.command(&["SET", "before", "the cut"]);
        let redis = std::sync::Arc::new(redis);
        let recorder = Recorder::default();
        let config = LinkConfig {
            listening_port: 4711,
            ..LinkConfig::default()
        };
        let mut follower = Follower::new("127.0.0.1", redis.port, config);

        let server = redis.clone();
        let end = follow_while(&mut follower, &recorder, move || {
            wait_until("the replica to be online", || {
                server.info("slave0").contains("state=online")
            });
            assert!(server.info("slave0").contains("port=4711"));
            server.command(&["SET", "x", "1"]);
            server.command(&[
                "EVAL",
                "redis.call('set','a','1') redis.call('incr','a')",
                "0",
            ]);
            server.command(&["SWAPDB", "0", "1"]);
            // WAIT sends GETACK and counts the answer.
            let mut socket = TcpStream::connect(("127.0.0.1", server.port)).unwrap();
            socket.write_all(b"SET y 2\r\nWAIT 1 5000\r\n").unwrap();
            let mut replies = [0; 9];
            socket.read_exact(&mut replies).unwrap();
            assert_eq!(replies, *b"+OK\r\n:1\r\n");
            wait_until("all to be acknowledged", || {
                let offset = server.info("master_repl_offset");
                server.info("slave0").contains(&format!("offset={offset},"))
            });
        });
        assert_eq!(end.unwrap(), End::Stopped, "{name}");

        let position = follower.position.expect("a position");
        assert_eq!(
            position.offset.to_string(),
            redis.info("master_repl_offset"),
            "{name}"
        );
        assert_eq!(
            position.replid.to_string(),
            redis.info("master_replid"),
            "{name}"
        );
        {
            let seen = recorder.0.borrow();
            assert!(matches!(
                (&seen.forms[..], is_mark),
                ([Form::Mark(_)], true) | ([Form::Length(_)], false)
            ));
            assert!(seen.rdb.starts_with(b"REDIS0010"), "{name}");
            assert_eq!(
                seen.rdb[seen.rdb.len() - 9],
                0xff,
                "{name}: the RDB ends with its checksum"
            );
            let commands = [
                "0> SET x 1",
                "0> set a 1",
                "0> incr a",
                "0> SWAPDB 0 1",
                "0> SET y 2",
            ];
            assert_eq!(seen.commands, commands, "{name}");
            assert_eq!(seen.lost, [], "{name}");
            let phases = [
                Phase::Handshake,
                Phase::AwaitPayload,
                Phase::Payload,
                Phase::Loading,
                Phase::Stream,
            ];
            // A payload that comes with its header is loading at the next look.
            assert!(
                seen.phases.iter().all(|phase| phases.contains(phase)),
                "{name}: {:?}",
                seen.phases
            );
        }

        // Written while nobody listens, then a link that is cut: both are caught up without a full resync.
        redis.command(&["SET", "z", "3"]);
        let server = redis.clone();
        let end = follow_while(&mut follower, &recorder, move || {
            wait_until("the replica to be online", || {
                server.info("slave0").contains("state=online")
            });
            assert_eq!(
                server.command(&["CLIENT", "KILL", "TYPE", "replica"]),
                Frame::Int(1)
            );
            server.command(&["SET", "w", "4"]);
            wait_until("all to be acknowledged", || {
                let offset = server.info("master_repl_offset");
                server.info("slave0").contains(&format!("offset={offset},"))
            });
        });
        assert_eq!(end.unwrap(), End::Stopped, "{name}");
        let seen = recorder.0.borrow();
        assert_eq!(seen.forms.len(), 1, "{name}: no second payload");
        assert_eq!(seen.continued, 2, "{name}");
        assert!(
            matches!(seen.lost[..], [Disconnect::Connection(_)]),
            "{name}: {:?}",
            seen.lost
        );
        assert_eq!(seen.commands[5..], ["0> SET z 3", "0> SET w 4"], "{name}");
        assert_eq!(
            follower.position.unwrap().offset.to_string(),
            redis.info("master_repl_offset"),
            "{name}"
        );
    }
}

#[test]
fn rdb_only_follower_ends_with_the_payload() {
    let Some(redis) = Redis::start(&["--requirepass", "sekret"]) else {
        return;
    };
    let recorder = Recorder::default();
    let auth = Some(Auth {
        user: None,
        password: b"sekret".to_vec(),
    });
    let config = LinkConfig {
        auth,
        rdb_only: true,
        ..LinkConfig::default()
    };
    let mut follower = Follower::new("127.0.0.1", redis.port, config);
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()
        .unwrap();
    let end = runtime.block_on(follower.follow(&mut recorder.clone(), std::future::pending()));
    assert_eq!(end.unwrap(), End::PayloadComplete);
    assert!(recorder.0.borrow().rdb.starts_with(b"REDIS0010"));
}

#[test]
fn wrong_password_is_told_by_the_step_that_failed() {
    let Some(redis) = Redis::start(&["--requirepass", "sekret"]) else {
        return;
    };
    for (auth, want) in [
        (None, "reply to PSYNC: refused: -NOAUTH"),
        (Some("wrong"), "reply to AUTH: refused: -WRONGPASS"),
    ] {
        let auth = auth.map(|password| Auth {
            user: None,
            password: password.as_bytes().to_vec(),
        });
        let mut follower = Follower::new(
            "127.0.0.1",
            redis.port,
            LinkConfig {
                auth,
                ..LinkConfig::default()
            },
        );
        follower.attempts_max = Some(1);
        let runtime = tokio::runtime::Builder::new_current_thread()
            .enable_all()
            .build()
            .unwrap();
        let error = runtime
            .block_on(follower.follow(&mut Recorder::default(), std::future::pending()))
            .unwrap_err();
        assert!(error.to_string().contains(want), "{error}");
    }
}

/// Fails to apply the n-th transaction.
struct Failing {
    inner: Recorder,
    left: usize,
    with: fn() -> ApplyError,
}

impl Apply for Failing {
    async fn begin_payload(&mut self, start: PayloadStart) -> Result<(), ApplyError> {
        self.inner.begin_payload(start).await
    }

    async fn payload(&mut self, bytes: &[u8]) -> Result<(), ApplyError> {
        self.inner.payload(bytes).await
    }

    async fn end_payload(&mut self) -> Result<u32, ApplyError> {
        Ok(0)
    }

    async fn transaction(&mut self, unit: Transaction<'_>) -> Result<(), ApplyError> {
        if !unit.is_empty() {
            self.left = self.left.wrapping_sub(1);
            if self.left == 0 {
                return Err((self.with)());
            }
        }
        self.inner.transaction(unit).await
    }
}

#[test]
fn unit_that_cannot_be_applied_is_not_in_the_position() {
    let Some(redis) = Redis::start(&[]) else {
        return;
    };
    let redis = std::sync::Arc::new(redis);
    let recorder = Recorder::default();
    let stop: fn() -> ApplyError = || ApplyError::Stop(io::Error::other("disk full"));
    let mut failing = Failing {
        inner: recorder.clone(),
        left: 2,
        with: stop,
    };
    let mut follower = Follower::new("127.0.0.1", redis.port, LinkConfig::default());
    let server = redis.clone();
    let script = thread::spawn(move || {
        wait_until("the replica to be online", || {
            server.info("slave0").contains("state=online")
        });
        server.command(&["SET", "a", "1"]);
        server.command(&["SET", "b", "2"]);
    });
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()
        .unwrap();
    let error = runtime
        .block_on(follower.follow(&mut failing, std::future::pending()))
        .unwrap_err();
    script.join().unwrap();
    assert_eq!(
        error.to_string(),
        "cannot apply what the primary sent: disk full"
    );
    assert_eq!(recorder.0.borrow().commands, ["0> SET a 1"]);
    assert_eq!(
        follower.position.unwrap().offset,
        recorder.0.borrow().end_offset
    );
    let behind: u64 = redis.info("master_repl_offset").parse().unwrap();
    assert_eq!(
        behind - follower.position.unwrap().offset,
        27,
        "SET b 2 is wanted again"
    );
}

#[test]
fn useless_data_are_synced_anew() {
    let Some(redis) = Redis::start(&[]) else {
        return;
    };
    let redis = std::sync::Arc::new(redis);
    let recorder = Recorder::default();
    let resync: fn() -> ApplyError = || ApplyError::Resync("diverged".into());
    let mut failing = Failing {
        inner: recorder.clone(),
        left: 1,
        with: resync,
    };
    let mut follower = Follower::new("127.0.0.1", redis.port, LinkConfig::default());
    let (done, stop) = tokio::sync::oneshot::channel::<()>();
    let server = redis.clone();
    let script = thread::spawn(move || {
        wait_until("the replica to be online", || {
            server.info("slave0").contains("state=online")
        });
        server.command(&["SET", "a", "1"]);
        wait_until("the second resync", || {
            server.command(&["SET", "b", "2"]);
            let stats = server.command(&["INFO", "stats"]);
            let text = String::from_utf8(stats.as_bytes().unwrap().to_vec()).unwrap();
            text.contains("sync_full:2") && server.info("slave0").contains("state=online")
        });
        let _ = done.send(());
    });
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()
        .unwrap();
    let end = runtime.block_on(follower.follow(&mut failing, async {
        let _ = stop.await;
    }));
    script.join().unwrap();
    assert_eq!(end.unwrap(), End::Stopped);
    let seen = recorder.0.borrow();
    assert_eq!(seen.forms.len(), 2);
}
