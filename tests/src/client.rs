//! A small synchronous client. It shares no code with the server, so that both cannot be wrong in the same way.

use std::io::{self, BufRead, BufReader, Read, Write};
use std::net::TcpStream;
use std::time::Duration;

/// A reply. Simple and bulk strings are one here: tests that care read raw bytes.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub enum Reply {
    Nil,
    Int(i64),
    Text(Vec<u8>),
    Error(String),
    Array(Vec<Reply>),
}

impl Reply {
    /// The number that an integer or a text holds.
    pub fn number(&self) -> Option<i64> {
        match self {
            Reply::Int(number) => Some(*number),
            Reply::Text(text) => std::str::from_utf8(text).ok()?.parse().ok(),
            _ => None,
        }
    }

    pub fn text(&self) -> String {
        match self {
            Reply::Text(text) => String::from_utf8_lossy(text).into_owned(),
            other => panic!("wanted a text, got {other:?}"),
        }
    }

    pub fn items(&self) -> &[Reply] {
        match self {
            Reply::Array(items) => items,
            other => panic!("wanted an array, got {other:?}"),
        }
    }

    pub fn is_error(&self) -> bool {
        matches!(self, Reply::Error(_))
    }
}

/// A connection.
pub struct Client {
    pub stream: TcpStream,
    reader: BufReader<TcpStream>,
}

/// A command as a RESP array.
pub fn frame(words: &[&[u8]]) -> Vec<u8> {
    let mut out = format!("*{}\r\n", words.len()).into_bytes();
    for word in words {
        out.extend(format!("${}\r\n", word.len()).bytes());
        out.extend_from_slice(word);
        out.extend(b"\r\n");
    }
    out
}

impl Client {
    pub fn connect(port: u16) -> io::Result<Client> {
        let stream = TcpStream::connect(("127.0.0.1", port))?;
        stream.set_nodelay(true)?;
        stream.set_read_timeout(Some(Duration::from_secs(60)))?;
        stream.set_write_timeout(Some(Duration::from_secs(60)))?;
        let reader = BufReader::new(stream.try_clone()?);
        Ok(Client { stream, reader })
    }

    /// Sends one command.
    pub fn send<W: AsRef<[u8]>>(&mut self, words: &[W]) -> io::Result<()> {
        let words: Vec<&[u8]> = words.iter().map(AsRef::as_ref).collect();
        self.stream.write_all(&frame(&words))
    }

    /// Sends bytes as they are.
    pub fn send_raw(&mut self, bytes: &[u8]) -> io::Result<()> {
        self.stream.write_all(bytes)
    }

    /// One line without its end.
    pub fn line(&mut self) -> io::Result<String> {
        let mut line = Vec::new();
        self.reader.read_until(b'\n', &mut line)?;
        if line.is_empty() {
            return Err(io::ErrorKind::UnexpectedEof.into());
        }
        Ok(String::from_utf8_lossy(&line).trim_end().to_owned())
    }

    /// Reads what is there, or waits for something.
    pub fn read(&mut self, bytes: &mut [u8]) -> io::Result<usize> {
        self.reader.read(bytes)
    }

    /// Reads all that comes until the peer closes.
    pub fn rest(&mut self) -> io::Result<Vec<u8>> {
        let mut bytes = Vec::new();
        self.reader.read_to_end(&mut bytes)?;
        Ok(bytes)
    }

    pub fn reply(&mut self) -> io::Result<Reply> {
        let line = self.line()?;
        let (mark, rest) = line.split_at(1);
        let invalid = || io::Error::new(io::ErrorKind::InvalidData, format!("reply {line:?}"));
        let count = || rest.parse::<i64>().map_err(|_| invalid());
        Ok(match mark {
            "+" => Reply::Text(rest.as_bytes().to_vec()),
            "-" => Reply::Error(rest.to_owned()),
            ":" => Reply::Int(count()?),
            "_" => Reply::Nil,
            "#" => Reply::Int(i64::from(rest == "t")),
            "," => Reply::Text(rest.as_bytes().to_vec()),
            "$" | "=" => match usize::try_from(count()?) {
                Err(_) => Reply::Nil,
                Ok(len) => {
                    let mut text = vec![0; len + 2];
                    self.reader.read_exact(&mut text)?;
                    text.truncate(len);
                    Reply::Text(text)
                }
            },
            "*" | ">" | "~" => match usize::try_from(count()?) {
                Err(_) => Reply::Nil,
                Ok(len) => Reply::Array((0..len).map(|_| self.reply()).collect::<io::Result<_>>()?),
            },
            "%" => {
                let len = count()? * 2;
                Reply::Array((0..len).map(|_| self.reply()).collect::<io::Result<_>>()?)
            }
            _ => return Err(invalid()),
        })
    }

    /// One command and its reply.
    pub fn try_call<W: AsRef<[u8]>>(&mut self, words: &[W]) -> io::Result<Reply> {
        self.send(words)?;
        self.reply()
    }

    /// One command and its reply, which must come; errors are replies.
    pub fn call<W: AsRef<[u8]>>(&mut self, words: &[W]) -> Reply {
        self.try_call(words).unwrap_or_else(|error| {
            let words: Vec<_> = words
                .iter()
                .map(|word| String::from_utf8_lossy(word.as_ref()).into_owned())
                .collect();
            panic!("{words:?}: {error}")
        })
    }

    /// A command in words, which must not fail.
    pub fn ask(&mut self, command: &str) -> Reply {
        let words: Vec<&str> = command.split_whitespace().collect();
        let reply = self.call(&words);
        assert!(!reply.is_error(), "{command}: {reply:?}");
        reply
    }

    /// MULTI, the commands, EXEC, in one write; what EXEC replies.
    pub fn transaction(&mut self, commands: &[Vec<Vec<u8>>]) -> io::Result<Reply> {
        let mut bytes = frame(&[b"MULTI"]);
        for words in commands {
            let words: Vec<&[u8]> = words.iter().map(Vec::as_slice).collect();
            bytes.extend(frame(&words));
        }
        bytes.extend(frame(&[b"EXEC"]));
        self.stream.write_all(&bytes)?;
        for _ in 0..=commands.len() {
            let reply = self.reply()?;
            if reply.is_error() {
                return Err(io::Error::other(format!("in MULTI: {reply:?}")));
            }
        }
        self.reply()
    }

    /// The value of a line of INFO.
    pub fn info(&mut self, name: &str) -> Option<String> {
        let text = self.ask("INFO everything").text();
        let line = text
            .lines()
            .find_map(|line| line.strip_prefix(name)?.strip_prefix(':'))?;
        Some(line.to_owned())
    }

    /// Whether the server has this command.
    pub fn knows(&mut self, command: &str) -> bool {
        let reply = self.call(&["COMMAND", "INFO", command]);
        matches!(&reply, Reply::Array(items) if matches!(items.first(), Some(Reply::Array(_))))
    }
}

/// Words of a command, owned.
#[macro_export]
macro_rules! words {
    ($($word:expr),+ $(,)?) => { vec![$($word.to_string().into_bytes()),+] };
}
