//! A client of a server: commands out, replies in, pipelined as far as the caller likes.
//!
//! Errors of the server are replies (`Frame::Error`) and for the caller to judge; what ends here is the connection.
//! Speaks RESP2, which every server of the family does without being asked.
//!
//! Invariants
//! - As many replies are taken as commands were given; after an error the connection is of no more use.

use super::socket::{Socket, is_timeout};
use super::stop;
use super::url::Url;
use crate::report::{self, Failure};
use dfsnap_formats::resp::{Frame, FrameDecoder, encode_command};
use std::io::{Read, Write};
use std::time::{Duration, Instant};

#[derive(Debug)]
pub struct Client {
    /// For messages.
    name: String,
    socket: Socket,
    decoder: FrameDecoder,
    input: Vec<u8>,
    /// Bytes of `input` that arrived, and how many of them are done with.
    filled: usize,
    consumed: usize,
    out: Vec<u8>,
    /// Commands without their reply.
    pending: usize,
}

/// The connection is gone.
#[derive(Debug)]
pub struct Lost {
    pub failure: Failure,
    /// Another connection may do better: nothing that was sent was the trouble.
    pub is_passing: bool,
}

impl From<Lost> for Failure {
    fn from(lost: Lost) -> Failure {
        lost.failure
    }
}

const READ_BYTES: usize = 64 << 10;
/// One wait; between two of them a stop is noticed.
const TICK: Duration = Duration::from_millis(500);
/// A server that is silent for longer is stuck, or gone without a word.
const SILENCE_MAX: Duration = Duration::from_secs(60);
/// Once we are to end, a reply that is on its way is still waited for, but not for long.
const SILENCE_STOPPED: Duration = Duration::from_secs(5);
/// What is collected before it goes out.
const OUT_BYTES: usize = 1 << 20;

impl Client {
    /// Connects, logs in and selects the database of the address.
    pub fn connect(url: &Url) -> Result<Client, Lost> {
        let name = url.to_string();
        let failed = |error: std::io::Error| Lost {
            failure: unreachable_server(&name, &error.to_string()),
            is_passing: true,
        };
        let socket = Socket::connect(url).map_err(failed)?;
        socket.set_timeouts(TICK, SILENCE_MAX).map_err(failed)?;
        let mut client = Client {
            name,
            socket,
            decoder: FrameDecoder::default(),
            input: Vec::new(),
            filled: 0,
            consumed: 0,
            out: Vec::new(),
            pending: 0,
        };
        client.login(url)?;
        Ok(client)
    }

    fn login(&mut self, url: &Url) -> Result<(), Lost> {
        if let Some(password) = &url.password {
            let reply = match &url.user {
                Some(user) => self.call(&[b"AUTH", user.as_bytes(), password])?,
                None => self.call(&[&b"AUTH"[..], password])?,
            };
            if let Frame::Error(text) = reply {
                return Err(self.lost(&text, "the user and the password of the address, of --password-file or of DFSNAP_PASSWORD"));
            }
        }
        let select = url.db.unwrap_or(0).to_string();
        match self.call(&[b"SELECT", select.as_bytes()])? {
            Frame::Error(text) if text.starts_with(b"NOAUTH") => Err(self.lost(
                &text,
                "put the password into DFSNAP_PASSWORD or into a file for --password-file",
            )),
            Frame::Error(text) if text.starts_with(b"LOADING") => {
                Err(self.lost(&text, "wait until the server has loaded its data"))
            }
            Frame::Error(text) if url.db.is_some() => Err(self.lost(
                &text,
                "an address without a database, or one that the server has",
            )),
            // Without SELECT there is one database, and we are in it.
            _ => Ok(()),
        }
    }

    /// `host:port`
    pub fn name(&self) -> &str {
        &self.name
    }

    /// Puts a command behind those that are waiting to go out.
    pub fn push<W: AsRef<[u8]>>(&mut self, words: &[W]) -> Result<(), Lost> {
        encode_command(&mut self.out, words);
        self.pending += 1;
        match self.out.len() >= OUT_BYTES {
            true => self.flush(),
            false => Ok(()),
        }
    }

    /// Puts bytes that hold `commands` encoded commands behind those that are waiting.
    pub fn push_encoded(&mut self, bytes: &[u8], commands: usize) -> Result<(), Lost> {
        self.flush()?;
        self.write(bytes)?;
        self.pending += commands;
        Ok(())
    }

    pub fn flush(&mut self) -> Result<(), Lost> {
        let out = std::mem::take(&mut self.out);
        let written = self.write(&out);
        self.out = out;
        self.out.clear();
        written
    }

    fn write(&mut self, bytes: &[u8]) -> Result<(), Lost> {
        self.socket
            .write_all(bytes)
            .and_then(|()| self.socket.flush())
            .map_err(|error| self.gone(&error.to_string()))
    }

    /// Commands that were given and not answered yet.
    pub fn pending(&self) -> usize {
        self.pending
    }

    /// The reply to the oldest command without one.
    pub fn reply(&mut self) -> Result<Frame, Lost> {
        assert!(self.pending > 0, "a reply without a command");
        self.flush()?;
        let mut since = Instant::now();
        loop {
            let decoded = self
                .decoder
                .decode(&self.input[self.consumed..self.filled])
                .map_err(|error| self.broken(&error.to_string()))?;
            if let Some((frame, consumed)) = decoded {
                self.consumed += consumed;
                self.pending -= 1;
                return Ok(frame);
            }
            self.make_room();
            match self.socket.read(&mut self.input[self.filled..]) {
                Ok(0) => return Err(self.gone("closed by the server")),
                Ok(n) => {
                    self.filled += n;
                    since = Instant::now();
                }
                Err(error) if is_timeout(&error) => {
                    if stop::requested() && since.elapsed() > SILENCE_STOPPED {
                        return Err(self.stopped());
                    }
                    if since.elapsed() > SILENCE_MAX {
                        let seconds = SILENCE_MAX.as_secs();
                        return Err(self.gone(&format!("no reply for {seconds} seconds")));
                    }
                }
                Err(error) => return Err(self.gone(&error.to_string())),
            }
        }
    }

    /// One command and its reply, behind everything that was given before.
    pub fn call<W: AsRef<[u8]>>(&mut self, words: &[W]) -> Result<Frame, Lost> {
        assert!(self.pending == 0, "{} replies not taken", self.pending);
        self.push(words)?;
        self.reply()
    }

    /// As `call`, where an error of the server is the end.
    pub fn ask<W: AsRef<[u8]>>(&mut self, words: &[W], advice: &str) -> Result<Frame, Lost> {
        match self.call(words)? {
            Frame::Error(text) => {
                let command = report::key(words[0].as_ref());
                let text = [command.as_bytes(), b": ", &text].concat();
                Err(self.lost(&text, advice))
            }
            frame => Ok(frame),
        }
    }

    fn make_room(&mut self) {
        if self.consumed > 0 {
            self.input.copy_within(self.consumed..self.filled, 0);
            self.filled -= self.consumed;
            self.consumed = 0;
        }
        if self.input.len() - self.filled < READ_BYTES {
            // By the bytes that came, not by what the server announces.
            let len = (self.filled * 2).max(READ_BYTES * 2);
            self.input.resize(len, 0);
        }
    }

    /// The server said something that is the end.
    pub fn lost(&self, text: &[u8], advice: &str) -> Lost {
        Lost {
            failure: Failure {
                message: format!("{}: {}", self.name, String::from_utf8_lossy(text)),
                advice: advice.to_owned(),
            },
            is_passing: false,
        }
    }

    fn gone(&self, reason: &str) -> Lost {
        Lost {
            failure: unreachable_server(&self.name, reason),
            is_passing: true,
        }
    }

    fn broken(&self, reason: &str) -> Lost {
        Lost {
            failure: Failure {
                message: format!("{}: {reason}", self.name),
                advice: "is this a server of the Redis family, and its plain port?".to_owned(),
            },
            is_passing: false,
        }
    }

    fn stopped(&self) -> Lost {
        Lost {
            failure: interrupted(&self.name),
            is_passing: false,
        }
    }
}

/// The text of INFO, by field.
pub fn info_field<'t>(text: &'t str, field: &str) -> Option<&'t str> {
    text.lines()
        .find_map(|line| line.strip_prefix(field)?.strip_prefix(':'))
}

pub(super) fn unreachable_server(name: &str, reason: &str) -> Failure {
    let advice = match reason.strip_prefix("TLS: ") {
        Some(reason) if reason.contains("invalid peer certificate") => {
            "--cacert FILE says who signed for the server, --server-name NAME which name it goes by"
                .to_owned()
        }
        Some(reason) if reason.contains("alert") => {
            "--cert FILE and --cert-key FILE, signed by whom the server trusts".to_owned()
        }
        Some(_) => "is this the server's port for TLS? redis:// goes to the plain one".to_owned(),
        None => format!("is the server there? redis-cli against {name} shows it"),
    };
    Failure {
        message: format!("{name}: {reason}"),
        advice,
    }
}

pub(super) fn interrupted(name: &str) -> Failure {
    Failure {
        message: format!("{name}: stopped by a signal"),
        advice: "run the command again".to_owned(),
    }
}
