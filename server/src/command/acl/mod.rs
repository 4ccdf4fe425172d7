//! Access control: users, and what each may do.
//!
//! All threads share the users. A connection keeps its own, and looks for a newer one only when the generation has changed, so
//! a command of a user who may do everything costs one comparison.

pub mod catalog;
pub mod log;
mod selector;
mod user;

use std::collections::BTreeMap;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, LazyLock, PoisonError, RwLock};

pub use selector::{Denied, Selector};
pub use user::User;

use super::CommandError;

type Users = BTreeMap<Vec<u8>, Arc<User>>;

static USERS: LazyLock<RwLock<Users>> = LazyLock::new(|| {
    let user = Arc::new(User::default_user(None));
    RwLock::new(BTreeMap::from([(user.name.clone(), user)]))
});
static GENERATION: AtomicU64 = AtomicU64::new(1);

/// Grows with each change of a user.
#[inline]
pub fn generation() -> u64 {
    GENERATION.load(Ordering::Acquire)
}

/// The user of this name.
pub fn find(name: &[u8]) -> Option<Arc<User>> {
    USERS
        .read()
        .unwrap_or_else(PoisonError::into_inner)
        .get(name)
        .cloned()
}

/// The user of connections that have not logged in.
pub fn default_user() -> Arc<User> {
    find(b"default").expect("it cannot be removed")
}

/// All users in order of their names.
pub fn all() -> Vec<Arc<User>> {
    let users = USERS.read().unwrap_or_else(PoisonError::into_inner);
    users.values().cloned().collect()
}

fn change<R>(change: impl FnOnce(&mut Users) -> R) -> R {
    let mut users = USERS.write().unwrap_or_else(PoisonError::into_inner);
    let result = change(&mut users);
    GENERATION.fetch_add(1, Ordering::Release);
    result
}

/// Sets or clears the password of the default user (`requirepass`).
pub fn set_default_password(password: Option<&str>) {
    change(|users| {
        let mut user = User::clone(&users[&b"default"[..]]);
        user.set_password(password);
        users.insert(user.name.clone(), Arc::new(user));
    });
}

/// Puts a parenthesis that the client's words have torn apart together again.
fn joined(rules: &[&[u8]]) -> Result<Vec<Vec<u8>>, CommandError> {
    let mut joined: Vec<Vec<u8>> = Vec::new();
    let mut open: Option<Vec<u8>> = None;
    for rule in rules {
        match &mut open {
            Some(selector) => {
                selector.push(b' ');
                selector.extend_from_slice(rule);
            }
            None if rule.first() == Some(&b'(') => open = Some(rule.to_vec()),
            None => joined.push(rule.to_vec()),
        }
        if open
            .as_ref()
            .is_some_and(|selector| selector.ends_with(b")"))
        {
            joined.extend(open.take());
        }
    }
    match open {
        None => Ok(joined),
        Some(selector) => {
            let selector = String::from_utf8_lossy(&selector).into_owned();
            Err(CommandError::new(format!(
                "Unmatched parenthesis in acl selector starting at '{selector}'."
            )))
        }
    }
}

/// Whether a name may be a user's.
fn check_name(name: &[u8]) -> Result<(), CommandError> {
    if name
        .iter()
        .any(|byte| byte.is_ascii_whitespace() || *byte == 0)
    {
        return Err(CommandError::new(
            "Usernames can't contain spaces or null characters",
        ));
    }
    Ok(())
}

/// ACL SETUSER: changes a user, or makes a new one. All rules or none.
pub fn set_user(name: &[u8], rules: &[&[u8]], has_all_channels: bool) -> Result<(), CommandError> {
    check_name(name)?;
    let rules = joined(rules)?;
    let rules: Vec<&[u8]> = rules.iter().map(Vec::as_slice).collect();
    change(|users| {
        let mut user = match users.get(name) {
            Some(user) => User::clone(user),
            None => User::new(name, has_all_channels),
        };
        user.apply_all(&rules, has_all_channels)
            .map_err(|(rule, refused)| {
                let rule = String::from_utf8_lossy(&rule).into_owned();
                CommandError::new(format!("Error in ACL SETUSER modifier '{rule}': {refused}"))
            })?;
        users.insert(user.name.clone(), Arc::new(user));
        Ok(())
    })
}

/// ACL DELUSER: removes users, and says which were there.
pub fn remove(names: &[&[u8]]) -> Result<Vec<Vec<u8>>, CommandError> {
    if names.contains(&&b"default"[..]) {
        return Err(CommandError::new("The 'default' user cannot be removed"));
    }
    Ok(change(|users| {
        let gone = names.iter().filter_map(|name| users.remove(*name));
        gone.map(|user| user.name.clone()).collect()
    }))
}

/// Puts these users in place of all. Each is the words of a line behind `user`. The error says which and why.
pub fn replace(
    lines: &[Vec<Vec<u8>>],
    has_all_channels: bool,
    password: Option<&str>,
) -> Result<(), String> {
    let mut new = Users::new();
    for (number, words) in lines.iter().enumerate() {
        let line = number + 1;
        let Some((name, rules)) = words.split_first() else {
            return Err(format!("{line}: a line without a user"));
        };
        let shown = String::from_utf8_lossy(name).into_owned();
        check_name(name).map_err(|error| format!("{line}: {}", error.0))?;
        if new.contains_key(name) {
            return Err(format!(
                "{line}: Duplicate user '{shown}' found. A user can only be defined once in config files"
            ));
        }
        let mut user = User::new(name, has_all_channels);
        let rules: Vec<&[u8]> = rules.iter().map(Vec::as_slice).collect();
        let rules = joined(&rules).map_err(|error| format!("{line}: {}", error.0))?;
        let rules: Vec<&[u8]> = rules.iter().map(Vec::as_slice).collect();
        user.apply_all(&rules, has_all_channels)
            .map_err(|(rule, refused)| {
                let rule = String::from_utf8_lossy(&rule).into_owned();
                format!("{line}: Error in user declaration '{rule}': {refused}")
            })?;
        new.insert(name.clone(), Arc::new(user));
    }
    new.entry(b"default".to_vec())
        .or_insert_with(|| Arc::new(User::default_user(password)));
    change(|users| *users = new);
    Ok(())
}

/// The refusal of a command.
pub fn refusal(denied: &Denied) -> CommandError {
    CommandError(format!("NOPERM {}", explained(denied, false)).into())
}

/// Why a command is refused; `is_verbose` names the key or channel. The texts are those of Redis 7.0.
pub fn explained(denied: &Denied, is_verbose: bool) -> String {
    let shown = |word: &[u8]| String::from_utf8_lossy(word).into_owned();
    let who = if is_verbose { "This user" } else { "this user" };
    match denied {
        Denied::Command(command) => {
            format!("{who} has no permissions to run the '{command}' command")
        }
        Denied::Key(key) if is_verbose => {
            format!(
                "{who} has no permissions to access the '{}' key",
                shown(key)
            )
        }
        Denied::Key(_) => {
            format!("{who} has no permissions to access one of the keys used as arguments")
        }
        Denied::Channel(channel) if is_verbose => {
            let channel = shown(channel);
            format!("{who} has no permissions to access the '{channel}' channel")
        }
        Denied::Channel(_) => {
            format!("{who} has no permissions to access one of the channels used as arguments")
        }
    }
}
