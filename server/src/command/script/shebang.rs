//! The first line of a script or library: `#!lua name=mylib flags=no-writes`.

use dfsnap_formats::resp::split_words;

use crate::command::CommandError;

/// What a script or function says of itself.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Flags {
    /// It writes nothing.
    pub no_writes: bool,
    /// It may run when memory is short.
    pub allow_oom: bool,
    /// It may run on a replica whose data may be old.
    pub allow_stale: bool,
    /// It does not run in a cluster.
    pub no_cluster: bool,
    /// It may touch keys of several slots.
    pub allow_cross_slot_keys: bool,
}

impl Flags {
    const NAMES: [&str; 5] = [
        "no-writes",
        "allow-oom",
        "allow-stale",
        "no-cluster",
        "allow-cross-slot-keys",
    ];

    fn places(&mut self) -> [&mut bool; 5] {
        [
            &mut self.no_writes,
            &mut self.allow_oom,
            &mut self.allow_stale,
            &mut self.no_cluster,
            &mut self.allow_cross_slot_keys,
        ]
    }

    /// Sets the flag of this name; false if there is none.
    pub fn set(&mut self, name: &[u8]) -> bool {
        let at = Flags::NAMES
            .iter()
            .position(|known| known.as_bytes() == name);
        if let Some(at) = at {
            *self.places()[at] = true;
        }
        at.is_some()
    }

    /// The names of those that are set.
    pub fn names(mut self) -> Vec<&'static str> {
        let set = self.places().map(|flag| *flag);
        let names = Flags::NAMES.into_iter().zip(set);
        names
            .filter(|(_, set)| *set)
            .map(|(name, _)| name)
            .collect()
    }
}

/// Where the code of a script begins, and its flags if it has a shebang line.
pub fn of_script(body: &[u8]) -> Result<(usize, Option<Flags>), CommandError> {
    let Some((end, words)) = line(body)? else {
        return Ok((0, None));
    };
    let mut flags = Flags::default();
    if words.is_empty() || words[0] != b"#!lua" {
        let engine = words.first().map_or(&b""[..], Vec::as_slice);
        return Err(CommandError::new(format!(
            "Unexpected engine in script shebang: {}",
            String::from_utf8_lossy(engine)
        )));
    }
    for word in &words[1..] {
        let Some(list) = word.strip_prefix(b"flags=") else {
            let word = String::from_utf8_lossy(word);
            return Err(CommandError::new(format!(
                "Unknown lua shebang option: {word}"
            )));
        };
        for name in list
            .split(|byte| *byte == b',')
            .filter(|name| !name.is_empty())
        {
            if !flags.set(name) {
                let name = String::from_utf8_lossy(name);
                return Err(CommandError::new(format!(
                    "Unexpected flag in script shebang: {name}"
                )));
            }
        }
    }
    Ok((end, Some(flags)))
}

/// Where a shebang line ends, and its words.
type Line = (usize, Vec<Vec<u8>>);

/// The words of the shebang line and where it ends; `None` if there is none.
fn line(body: &[u8]) -> Result<Option<Line>, CommandError> {
    if !body.starts_with(b"#!") {
        return Ok(None);
    }
    let invalid = || CommandError::new("Invalid script shebang");
    let end = body
        .iter()
        .position(|byte| *byte == b'\n')
        .ok_or_else(invalid)?;
    let words = words(&body[..end]).ok_or_else(invalid)?;
    Ok(Some((end, words)))
}

fn words(line: &[u8]) -> Option<Vec<Vec<u8>>> {
    let (mut text, mut places) = (Vec::new(), Vec::new());
    split_words(line, &mut text, &mut places).ok()?;
    Some(places.into_iter().map(|at| text[at].to_vec()).collect())
}

/// Where the code of a library begins, and its name.
pub fn of_library(code: &[u8]) -> Result<(usize, String), CommandError> {
    if !code.starts_with(b"#!") {
        return Err(CommandError::new("Missing library metadata"));
    }
    let end = code
        .iter()
        .position(|byte| *byte == b'\n')
        .ok_or_else(|| CommandError::new("Invalid library metadata"))?;
    let words = words(&code[..end])
        .filter(|words| !words.is_empty())
        .ok_or_else(|| CommandError::new("Invalid library metadata"))?;
    if !words[0][2..].eq_ignore_ascii_case(b"lua") {
        let engine = String::from_utf8_lossy(&words[0][2..]).into_owned();
        return Err(CommandError::new(format!("Engine '{engine}' not found")));
    }
    let mut name = None;
    for word in &words[1..] {
        let Some(value) = word.strip_prefix(b"name=") else {
            let word = String::from_utf8_lossy(word);
            return Err(CommandError::new(format!(
                "Invalid metadata value given: {word}"
            )));
        };
        if name.is_some() {
            return Err(CommandError::new(
                "Invalid metadata value, name argument was given multiple times",
            ));
        }
        name = Some(value);
    }
    let name = name.ok_or_else(|| CommandError::new("Library name was not given"))?;
    if !is_name(name) {
        return Err(CommandError::new(
            "Library names can only contain letters, numbers, or underscores(_) and must be at least one character long",
        ));
    }
    Ok((end, String::from_utf8_lossy(name).into_owned()))
}

/// Whether these bytes may name a library or a function.
pub fn is_name(name: &[u8]) -> bool {
    let is_plain = |byte: &u8| byte.is_ascii_alphanumeric() || *byte == b'_';
    !name.is_empty() && name.iter().all(is_plain)
}
