//! Addresses of servers: `redis://[user:password@]host[:port][/db]`, `rediss://` with TLS, and `unix:PATH[?db=N]`. With
//! `+cluster` in the scheme any node of a cluster stands for all of it.
//!
//! Passwords come from the address, from a file that the address names (`?password-file=FILE`), from a file or from the environment; they are shown
//! nowhere.

use super::tls::Tls;
use crate::report::Failure;
use std::borrow::Cow;
use std::fmt;
use std::os::unix::ffi::OsStringExt;
use std::path::{Path, PathBuf};

/// A server, and who we are there.
#[derive(Clone)]
pub struct Url {
    pub endpoint: Endpoint,
    /// None: without TLS.
    pub tls: Option<Tls>,
    /// A node that stands for its whole cluster.
    pub is_cluster: bool,
    pub user: Option<String>,
    pub password: Option<Vec<u8>>,
    /// None: the address names no database.
    pub db: Option<u32>,
}

#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Endpoint {
    Tcp { host: String, port: u16 },
    Unix(PathBuf),
}

/// Where passwords come from that are in no address. The file wins.
#[derive(Debug, Clone, Copy)]
pub struct Secrets<'a> {
    /// The first line is the password.
    pub file: Option<&'a Path>,
    pub variable: &'static str,
}

/// What every verb looks at unless it talks to two servers.
pub const PASSWORD_VARIABLE: &str = "DFSNAP_PASSWORD";
const PORT: u16 = 6379;

impl Url {
    /// Reads an address. The error never repeats it: a password may be in there.
    pub fn parse(text: &str) -> Result<Url, Failure> {
        for (scheme, plain) in [
            ("redis+cluster://", "redis://"),
            ("rediss+cluster://", "rediss://"),
        ] {
            if let Some(rest) = text.strip_prefix(scheme) {
                let mut url = Url::parse(&format!("{plain}{rest}"))?;
                url.is_cluster = true;
                return Ok(url);
            }
        }
        if let Some(rest) = text.strip_prefix("rediss://") {
            let (rest, query) = rest.split_once('?').unwrap_or((rest, ""));
            let mut url = parse_tcp(rest).ok_or_else(no_address)?;
            if let Endpoint::Tcp { host, .. } = &url.endpoint {
                url.tls = Some(Tls::new(host, query)?);
            }
            return Ok(url);
        }
        let parsed = match text.strip_prefix("unix:") {
            Some(rest) => parse_unix(rest),
            None => text.strip_prefix("redis://").and_then(parse_tcp),
        };
        parsed.ok_or_else(no_address)
    }

    /// Another node, reached as this one is. No host: the same.
    pub fn at(&self, host: Option<&str>, port: u16) -> Url {
        let own = match &self.endpoint {
            Endpoint::Tcp { host, .. } => host.as_str(),
            Endpoint::Unix(_) => "localhost",
        };
        let host = host.unwrap_or(own).to_owned();
        Url {
            tls: self.tls.as_ref().map(|tls| tls.at(&host)),
            endpoint: Endpoint::Tcp { host, port },
            is_cluster: false,
            ..self.clone()
        }
    }

    /// An address with the password that `secrets` have for it, if it has none itself.
    pub fn open(text: &str, secrets: Secrets<'_>) -> Result<Url, Failure> {
        let (text, file) = own_file(text);
        let mut url = Url::parse(&text)?;
        if url.password.is_none() {
            url.password = match &file {
                Some(file) => first_line(file)?,
                None => secrets.find()?,
            };
        }
        Ok(url)
    }
}

impl<'a> Secrets<'a> {
    pub fn new(file: Option<&'a Path>) -> Self {
        Secrets {
            file,
            variable: PASSWORD_VARIABLE,
        }
    }

    fn find(self) -> Result<Option<Vec<u8>>, Failure> {
        let Some(file) = self.file else {
            let value = std::env::var_os(self.variable).filter(|value| !value.is_empty());
            return Ok(value.map(OsStringExt::into_vec));
        };
        first_line(file)
    }
}

fn first_line(file: &Path) -> Result<Option<Vec<u8>>, Failure> {
    let text = std::fs::read(file).map_err(|error| Failure {
        message: format!("{}: {error}", file.display()),
        advice: "a file whose first line is the password, readable by you alone".to_owned(),
    })?;
    let line = text.split(|&byte| byte == b'\n').next().unwrap_or_default();
    let line = line.strip_suffix(b"\r").unwrap_or(line);
    Ok((!line.is_empty()).then(|| line.to_vec()))
}

/// The address without `password-file=FILE` among its parameters, and that file. For verbs that talk to two servers.
fn own_file(text: &str) -> (Cow<'_, str>, Option<PathBuf>) {
    const NAME: &str = "password-file=";
    let Some((place, query)) = text.rsplit_once('?') else {
        return (Cow::Borrowed(text), None);
    };
    let (own, others): (Vec<&str>, Vec<&str>) =
        query.split('&').partition(|it| it.starts_with(NAME));
    let Some(file) = own.last().and_then(|it| decoded(&it[NAME.len()..])) else {
        return (Cow::Borrowed(text), None);
    };
    let text = match others.is_empty() {
        true => place.to_owned(),
        false => format!("{place}?{}", others.join("&")),
    };
    let file = std::ffi::OsString::from_vec(file);
    (Cow::Owned(text), Some(file.into()))
}

fn no_address() -> Failure {
    Failure {
        message: "no address of a server".to_owned(),
        advice: "redis://[USER:PASSWORD@]HOST[:PORT][/DB], rediss:// with TLS, redis+cluster:// for a whole cluster, or unix:PATH[?db=N]; ?password-file=FILE behind any; other characters as %XX"
            .to_owned(),
    }
}

fn parse_tcp(rest: &str) -> Option<Url> {
    let (authority, path) = match rest.split_once('/') {
        Some((authority, path)) => (authority, Some(path)),
        None => (rest, None),
    };
    let (login, place) = match authority.rsplit_once('@') {
        Some((login, place)) => (Some(login), place),
        None => (None, authority),
    };
    let (user, password) = match login.map(|login| login.split_once(':').ok_or(login)) {
        None => (None, None),
        Some(Ok((user, password))) => (Some(decoded(user)?), Some(decoded(password)?)),
        Some(Err(user)) => (Some(decoded(user)?), None),
    };
    let user = match user {
        Some(user) if !user.is_empty() => Some(String::from_utf8(user).ok()?),
        _ => None,
    };
    let (host, port) = host_and_port(place)?;
    let db = match path {
        None | Some("") => None,
        Some(path) => Some(path.parse().ok()?),
    };
    Some(Url {
        endpoint: Endpoint::Tcp { host, port },
        tls: None,
        is_cluster: false,
        user,
        password,
        db,
    })
}

fn host_and_port(place: &str) -> Option<(String, u16)> {
    let (host, port) = match place.strip_prefix('[') {
        Some(rest) => {
            let (host, port) = rest.split_once(']')?;
            (host, port)
        }
        None => match place.find(':') {
            Some(at) => place.split_at(at),
            None => (place, ""),
        },
    };
    let port = match port.strip_prefix(':') {
        Some(digits) => digits.parse().ok()?,
        None if port.is_empty() => PORT,
        None => return None,
    };
    (!host.is_empty()).then(|| (host.to_owned(), port))
}

fn parse_unix(rest: &str) -> Option<Url> {
    let rest = rest.strip_prefix("//").unwrap_or(rest);
    let (path, db) = match rest.rsplit_once("?db=") {
        Some((path, db)) => (path, Some(db.parse().ok()?)),
        None => (rest, None),
    };
    (!path.is_empty()).then(|| Url {
        endpoint: Endpoint::Unix(PathBuf::from(path)),
        tls: None,
        is_cluster: false,
        user: None,
        password: None,
        db,
    })
}

/// `%41` is `A`.
pub(super) fn decoded(text: &str) -> Option<Vec<u8>> {
    let mut bytes = text.bytes();
    let mut out = Vec::with_capacity(text.len());
    while let Some(byte) = bytes.next() {
        out.push(match byte {
            b'%' => {
                let mut digit = || char::from(bytes.next()?).to_digit(16);
                (digit()? * 16 + digit()?) as u8
            }
            byte => byte,
        });
    }
    Some(out)
}

/// For people: without user and password.
impl fmt::Display for Url {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match &self.endpoint {
            Endpoint::Tcp { host, port } if host.contains(':') => write!(f, "[{host}]:{port}"),
            Endpoint::Tcp { host, port } => write!(f, "{host}:{port}"),
            Endpoint::Unix(path) => write!(f, "unix:{}", path.display()),
        }
    }
}

impl fmt::Debug for Url {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let password = self.password.as_ref().map(|_| "***");
        f.debug_struct("Url")
            .field("endpoint", &self.endpoint)
            .field("tls", &self.tls.is_some())
            .field("user", &self.user)
            .field("password", &password)
            .field("db", &self.db)
            .finish()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn addresses_say_where_who_and_which_database() {
        let rows = [
            ("redis://h", "h:6379 user None password None db None"),
            ("redis://h:1/", "h:1 user None password None db None"),
            (
                "redis://u:p%40x@h:1/3",
                "h:1 user Some(\"u\") password Some(\"p@x\") db Some(3)",
            ),
            (
                "redis://:p:q@[::1]:7",
                "[::1]:7 user None password Some(\"p:q\") db None",
            ),
            (
                "unix:/tmp/s?db=2",
                "unix:/tmp/s user None password None db Some(2)",
            ),
        ];
        for (text, want) in rows {
            let url = Url::parse(text).unwrap();
            let password = url
                .password
                .as_ref()
                .map(|bytes| String::from_utf8_lossy(bytes).into_owned());
            let (user, db) = (&url.user, url.db);
            let found = format!("{url} user {user:?} password {password:?} db {db:?}");
            assert_eq!(found, want, "{text}");
        }
    }

    #[test]
    fn what_is_no_address_is_refused_without_repeating_it() {
        let rows = [
            "redis://",
            "redis://:secret@",
            "redis://:secret@h:x",
            "redis://:secret@h/x",
            "redis+cluster://:secret@h:x",
            "redis://:secret%4@h",
            "rediss://:secret@h:x",
            "rediss://:secret@h?cacert=/nowhere",
            "unix:",
            "http://secret",
        ];
        for text in rows {
            let failure = Url::parse(text).unwrap_err();
            assert!(!format!("{failure:?}").contains("secret"), "{text}");
        }
    }

    #[test]
    fn an_address_may_name_the_file_of_its_password() {
        let file = |text: &str| {
            let (rest, file) = own_file(text);
            (
                rest.into_owned(),
                file.map(|file| file.display().to_string()),
            )
        };
        let rows = [
            ("redis://h?password-file=/a%20b", "redis://h", Some("/a b")),
            ("unix:/s?db=3&password-file=p", "unix:/s?db=3", Some("p")),
            (
                "rediss://h/1?password-file=p&cacert=c",
                "rediss://h/1?cacert=c",
                Some("p"),
            ),
            ("unix:/s?db=3", "unix:/s?db=3", None),
            ("redis://:a?b@h", "redis://:a?b@h", None),
        ];
        for (text, rest, want) in rows {
            let want = (rest.to_owned(), want.map(str::to_owned));
            assert_eq!(file(text), want, "{text}");
        }
    }

    #[test]
    fn passwords_are_not_shown() {
        let url = Url::parse("redis://u:secret@h").unwrap();
        assert!(!format!("{url:?} {url}").contains("secret"));
    }
}
