//! What was named on the command line: a file, a folder, standard input, or a server.

use std::path::PathBuf;

/// Where a dump is.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Place {
    Stdin,
    /// A file, a folder, or the base name of a set.
    Path(PathBuf),
    /// `redis://`, `rediss://`, either with `+cluster`, or `unix:`.
    Url(String),
}

impl Place {
    /// As clap calls it: every text names a place.
    pub fn parse(text: &str) -> Result<Place, std::convert::Infallible> {
        let is_url = [
            "redis://",
            "rediss://",
            "redis+cluster://",
            "rediss+cluster://",
            "unix:",
        ]
        .iter()
        .any(|scheme| text.starts_with(scheme));
        Ok(match text {
            "-" => Place::Stdin,
            url if is_url => Place::Url(url.to_owned()),
            path => Place::Path(PathBuf::from(path)),
        })
    }
}

impl std::fmt::Display for Place {
    /// Without the password of a URL.
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Place::Stdin => f.write_str("-"),
            Place::Path(path) => write!(f, "{}", path.display()),
            Place::Url(url) => match (url.split_once("://"), url.rsplit_once('@')) {
                (Some((scheme, _)), Some((_, host))) => write!(f, "{scheme}://{host}"),
                _ => f.write_str(url),
            },
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn places_are_told_apart_and_passwords_stay_hidden() {
        let shown = |text: &str| Place::parse(text).unwrap().to_string();
        assert_eq!(Place::parse("-"), Ok(Place::Stdin));
        assert_eq!(Place::parse("a/b"), Ok(Place::Path("a/b".into())));
        assert_eq!(shown("redis://me:secret@host:1/2"), "redis://host:1/2");
        assert_eq!(shown("redis://host"), "redis://host");
        assert_eq!(shown("unix:/run/redis.sock"), "unix:/run/redis.sock");
    }
}
