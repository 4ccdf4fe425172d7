//! A user: on or off, passwords, and selectors.

use sha2::{Digest as _, Sha256};

use super::selector::{Denied, Refused, SYNTAX, Selector};
use crate::command::{Args, Command};

const BAD_HASH: Refused = "The password hash must be exactly 64 characters and contain only lowercase hexadecimal characters";
const NO_SUCH_PASSWORD: Refused =
    "The password you are trying to remove from the user does not exist";

/// Somebody who may do something.
#[derive(Clone, Debug)]
pub struct User {
    /// The name.
    pub name: Vec<u8>,
    /// May log in.
    pub is_on: bool,
    /// Any password will do.
    pub is_nopass: bool,
    /// Whether payloads of RESTORE are checked, if it was said.
    sanitizes: Option<bool>,
    /// SHA-256 in hex.
    passwords: Vec<String>,
    root: Selector,
    selectors: Vec<Selector>,
}

/// The SHA-256 of a password in hex.
fn hash(password: &[u8]) -> String {
    let digest = Sha256::digest(password);
    digest.iter().map(|byte| format!("{byte:02x}")).collect()
}

fn checked_hash(hash: &[u8]) -> Result<String, Refused> {
    let is_hex = |byte: &u8| byte.is_ascii_digit() || (b'a'..=b'f').contains(byte);
    if hash.len() != 64 || !hash.iter().all(is_hex) {
        return Err(BAD_HASH);
    }
    Ok(String::from_utf8_lossy(hash).into_owned())
}

impl User {
    /// One who may do nothing. `has_all_channels`: `acl-pubsub-default allchannels`.
    pub fn new(name: &[u8], has_all_channels: bool) -> User {
        User {
            name: name.to_vec(),
            is_on: false,
            is_nopass: false,
            sanitizes: None,
            passwords: Vec::new(),
            root: Selector::new(has_all_channels),
            selectors: Vec::new(),
        }
    }

    /// The user of connections that have not logged in: may do everything, with the password if there is one.
    pub fn default_user(password: Option<&str>) -> User {
        let mut user = User::new(b"default", true);
        for rule in ["on", "nopass", "~*", "&*", "+@all"] {
            user.apply(rule.as_bytes(), true)
                .expect("these are good rules");
        }
        user.set_password(password);
        user
    }

    /// Sets the only password; none: any will do.
    pub fn set_password(&mut self, password: Option<&str>) {
        self.passwords.clear();
        self.is_nopass = password.is_none();
        self.passwords
            .extend(password.map(|text| hash(text.as_bytes())));
    }

    /// Applies rules, all or none. The error names the rule that is refused.
    pub fn apply_all(
        &mut self,
        rules: &[&[u8]],
        has_all_channels: bool,
    ) -> Result<(), (Vec<u8>, Refused)> {
        let mut changed = self.clone();
        for rule in rules {
            changed
                .apply(rule, has_all_channels)
                .map_err(|refused| (rule.to_vec(), refused))?;
        }
        *self = changed;
        Ok(())
    }

    fn apply(&mut self, rule: &[u8], has_all_channels: bool) -> Result<(), Refused> {
        if rule.is_empty() {
            return Ok(());
        }
        match rule.to_ascii_lowercase().as_slice() {
            b"on" => self.is_on = true,
            b"off" => self.is_on = false,
            b"nopass" => {
                self.is_nopass = true;
                self.passwords.clear();
            }
            b"resetpass" => {
                self.is_nopass = false;
                self.passwords.clear();
            }
            b"sanitize-payload" => self.sanitizes = Some(true),
            b"skip-sanitize-payload" => self.sanitizes = Some(false),
            b"reset" => {
                let name = std::mem::take(&mut self.name);
                *self = User::new(&name, has_all_channels);
                self.sanitizes = Some(true);
            }
            b"clearselectors" => self.selectors.clear(),
            _ => match rule.first() {
                Some(b'>') => self.add_password(hash(&rule[1..])),
                Some(b'#') => {
                    let hash = checked_hash(&rule[1..])?;
                    self.add_password(hash);
                }
                Some(b'<') => self.remove_password(&hash(&rule[1..]))?,
                Some(b'!') => {
                    let hash = checked_hash(&rule[1..])?;
                    self.remove_password(&hash)?;
                }
                Some(b'(') if rule.ends_with(b")") => {
                    let mut selector = Selector::new(has_all_channels);
                    let inner = &rule[1..rule.len() - 1];
                    for word in inner.split(|byte| byte.is_ascii_whitespace()) {
                        if !word.is_empty() {
                            selector.apply(word)?;
                        }
                    }
                    self.selectors.push(selector);
                }
                None => return Err(SYNTAX),
                _ => self.root.apply(rule)?,
            },
        }
        Ok(())
    }

    fn add_password(&mut self, hash: String) {
        self.is_nopass = false;
        if !self.passwords.contains(&hash) {
            self.passwords.push(hash);
        }
    }

    fn remove_password(&mut self, hash: &str) -> Result<(), Refused> {
        let at = self.passwords.iter().position(|known| known == hash);
        self.passwords.remove(at.ok_or(NO_SUCH_PASSWORD)?);
        Ok(())
    }

    /// Whether one who says this password is this user.
    pub fn accepts(&self, password: &[u8]) -> bool {
        let given = hash(password);
        // All are looked at to the end: the time tells nothing.
        let same = |known: &String| {
            let pairs = known.bytes().zip(given.bytes());
            pairs.fold(0, |difference, (a, b)| difference | (a ^ b)) == 0
        };
        let count = self.passwords.iter().filter(|known| same(known)).count();
        self.is_on && (self.is_nopass || count > 0)
    }

    /// Whether a command may run.
    pub fn check(&self, command: &'static Command, args: Args<'_>) -> Result<(), Denied> {
        if self.root.allows_everything() {
            return Ok(());
        }
        let mut denied = match self.root.check(command, args) {
            Ok(()) => return Ok(()),
            Err(denied) => denied,
        };
        for selector in &self.selectors {
            match selector.check(command, args) {
                Ok(()) => return Ok(()),
                // What comes nearest to being allowed is what is told.
                Err(other) if rank(&other, args) > rank(&denied, args) => denied = other,
                Err(_) => {}
            }
        }
        Err(denied)
    }

    /// Whether it may read all keys.
    pub fn reads_all_keys(&self) -> bool {
        let mut all = std::iter::once(&self.root).chain(&self.selectors);
        all.any(Selector::reads_all_keys)
    }

    /// Whether it may use a channel, or subscribe to a pattern.
    pub fn may_use_channel(&self, name: &[u8], is_pattern: bool) -> bool {
        let mut all = std::iter::once(&self.root).chain(&self.selectors);
        all.any(|selector| selector.allows_channel(name, is_pattern))
    }

    /// The words in front of the rules.
    pub fn flags(&self) -> Vec<&'static str> {
        let mut flags = vec![if self.is_on { "on" } else { "off" }];
        flags.extend(self.is_nopass.then_some("nopass"));
        flags.extend(self.sanitizes.map(|sanitizes| {
            if sanitizes {
                "sanitize-payload"
            } else {
                "skip-sanitize-payload"
            }
        }));
        flags
    }

    /// Hashes of the passwords.
    pub fn passwords(&self) -> &[String] {
        &self.passwords
    }

    /// The rules.
    pub fn root(&self) -> &Selector {
        &self.root
    }

    /// The selectors beside the rules.
    pub fn selectors(&self) -> &[Selector] {
        &self.selectors
    }

    /// A line of ACL LIST and of files, without the word `user`.
    pub fn describe(&self) -> Vec<u8> {
        let mut parts: Vec<Vec<u8>> = vec![self.name.clone()];
        parts.extend(self.flags().iter().map(|flag| flag.as_bytes().to_vec()));
        let passwords = self.passwords.iter();
        parts.extend(passwords.map(|hash| format!("#{hash}").into_bytes()));
        parts.push(self.root.describe());
        let selectors = self.selectors.iter();
        parts.extend(selectors.map(|one| [b"(", one.describe().as_slice(), b")"].concat()));
        parts.join(&b' ')
    }
}

/// How near a command came to being allowed: what was in its way, and at which word.
fn rank(denied: &Denied, args: Args<'_>) -> (u8, Option<usize>) {
    let at = |name: &[u8]| args.iter().position(|word| *word == name);
    match denied {
        Denied::Command(_) => (0, None),
        Denied::Key(key) => (1, at(key)),
        Denied::Channel(channel) => (2, at(channel)),
    }
}
