//! ACL, and what users mean for connections.

use std::path::PathBuf;
use std::sync::Arc;

use dfsnap_formats::resp::Reply;

use super::client::describe;
use super::connection::Connection;
use crate::command::acl::{self, Denied, Selector, User, catalog, log};
use crate::command::words::int;
use crate::command::{Args, Command, CommandError, table};
use crate::config::words::AclPubsub;
use crate::pubsub::Kind;
use crate::snapshot::file::{Backend, FileWriter};
use crate::threads;
use crate::world::World;

const NO_FILE: CommandError = CommandError::text(
    "ERR This Redis instance is not configured to use an ACL file. You may want to specify users via the ACL SETUSER command \
     and then issue a CONFIG REWRITE (assuming you have a Redis configuration file set) in order to store users in the Redis \
     configuration.",
);

/// Whether new users may use all channels.
fn has_all_channels(world: &World) -> bool {
    world.config().acl_pubsub_default == AclPubsub::AllChannels
}

/// Takes over the users of the configuration, or of the ACL file. The error is for the operator.
pub fn load_users(world: &World) -> Result<(), String> {
    let (users, aclfile) = {
        let config = world.config();
        (config.users.clone(), config.aclfile.clone())
    };
    match aclfile {
        Some(_) if !users.is_empty() => Err(
            "Configuring users in the configuration file and naming an ACL file at the same time is invalid. Use either one \
             or the other"
                .into(),
        ),
        Some(path) => load_file(world, &PathBuf::from(path)),
        None => {
            let bytes = |words: &Vec<String>| {
                words.iter().map(|word| word.clone().into_bytes()).collect()
            };
            let lines: Vec<Vec<Vec<u8>>> = users.iter().map(bytes).collect();
            let password = world.config().requirepass.clone();
            acl::replace(&lines, has_all_channels(world), password.as_deref())
                .map_err(|error| format!("user line {error}"))
        }
    }
}

fn load_file(world: &World, path: &PathBuf) -> Result<(), String> {
    let named = |error: &dyn std::fmt::Display| format!("{}:{error}", path.display());
    let text = std::fs::read(path).map_err(|error| named(&format!(" {error}")))?;
    let mut lines = Vec::new();
    for (number, line) in text.split(|byte| *byte == b'\n').enumerate() {
        let mut words = line
            .split(|byte| byte.is_ascii_whitespace())
            .filter(|word| !word.is_empty())
            .map(<[u8]>::to_vec);
        match words.next() {
            None => {}
            Some(word) if word.starts_with(b"#") => {}
            Some(word) if word == b"user" => lines.push(words.collect()),
            Some(_) => {
                let number = number + 1;
                return Err(named(&format!("{number}: should start with user keyword")));
            }
        }
    }
    let password = world.config().requirepass.clone();
    acl::replace(&lines, has_all_channels(world), password.as_deref())
        .map_err(|error| named(&error))
}

impl Connection {
    /// Becomes a user who has said who it is.
    pub(super) fn become_user(&mut self, user: Arc<User>) {
        let name = String::from_utf8_lossy(&user.name).into_owned();
        self.client.change_texts(|texts| texts.user = name);
        self.user = user;
        self.acl_generation = acl::generation();
        self.is_authenticated = true;
    }

    /// Becomes the user of connections that have not logged in.
    pub(super) fn become_default(&mut self) {
        let user = acl::default_user();
        let is_authenticated = user.is_on && user.is_nopass;
        self.become_user(user);
        self.is_authenticated = is_authenticated;
    }

    /// The user of this name and password.
    pub(super) fn user_of(&self, name: &[u8], password: &[u8]) -> Result<Arc<User>, CommandError> {
        let user = acl::find(name).filter(|user| user.accepts(password));
        user.ok_or_else(|| {
            self.note_denial(&log::What::Auth, name);
            CommandError::text("WRONGPASS invalid username-password pair or user is disabled.")
        })
    }

    fn note_denial(&self, what: &log::What<'_>, name: &[u8]) {
        let context = if self.transaction.is_some() {
            "multi"
        } else {
            "toplevel"
        };
        let max = self.thread.world.config().acllog_max_len;
        log::note(what, context, name, describe(&self.client), max);
    }

    /// Whether this connection's user may run a command.
    #[inline]
    pub(super) fn check_user(
        &mut self,
        command: &'static Command,
        args: Args<'_>,
    ) -> Result<(), CommandError> {
        if self.acl_generation != acl::generation() {
            self.acl_generation = acl::generation();
            if let Some(user) = acl::find(&self.user.name) {
                self.user = user;
            }
        }
        self.user.check(command, args).map_err(|denied| {
            self.note_denial(&log::What::Command(&denied), &self.user.name);
            acl::refusal(&denied)
        })?;
        if matches!(command.name, "sort" | "sort_ro") && !self.user.reads_all_keys() {
            return check_sort(args);
        }
        Ok(())
    }

    /// Whether this connection's user may still run a command that was queued.
    pub(super) fn check_queued(
        &self,
        command: &'static Command,
        args: Args<'_>,
    ) -> Result<(), CommandError> {
        self.user.check(command, args).map_err(|denied| {
            let max = self.thread.world.config().acllog_max_len;
            let client = describe(&self.client);
            let what = log::What::Command(&denied);
            log::note(&what, "multi", &self.user.name, client, max);
            let reason = match denied {
                Denied::Command(_) => "no permission to execute the command or subcommand",
                Denied::Key(_) => "no permission to touch the specified keys",
                Denied::Channel(_) => {
                    "no permission to access one of the channels used as arguments to the command"
                }
            };
            CommandError(
                format!(
                    "NOPERM ACLs rules changed between the moment the transaction was accumulated and the EXEC call. This \
                     command is no longer allowed for the following reason: {reason}"
                )
                .into(),
            )
        })
    }
}

/// SORT reads keys that no rule can tell beforehand: only for one who may read all.
fn check_sort(args: Args<'_>) -> Result<(), CommandError> {
    let denied = |option: &str| {
        Err(CommandError::new(format!(
            "{option} option of SORT denied due to insufficient ACL permissions."
        )))
    };
    for (at, word) in args.iter().enumerate().skip(2) {
        let pattern = args.get(at + 1);
        if word.eq_ignore_ascii_case(b"by") && pattern.is_some_and(|word| word.contains(&b'*')) {
            return denied("BY");
        }
        if word.eq_ignore_ascii_case(b"get") && pattern.is_some() {
            return denied("GET");
        }
    }
    Ok(())
}

/// ACL and its subcommands.
pub async fn acl(connection: &mut Connection, args: &[&[u8]]) -> Result<(), CommandError> {
    let world = connection.thread.world.clone();
    let name = args[1].to_ascii_lowercase();
    match (name.as_slice(), &args[2..]) {
        (b"whoami", []) => connection.out.bulk(&connection.user.name),
        (b"users", []) => {
            let users = acl::all();
            connection.out.array(users.len());
            users
                .iter()
                .for_each(|user| connection.out.bulk(&user.name));
        }
        (b"list", []) => {
            let users = acl::all();
            connection.out.array(users.len());
            for user in users {
                connection
                    .out
                    .bulk(&[b"user ", user.describe().as_slice()].concat());
            }
        }
        (b"setuser", [name, rules @ ..]) => {
            acl::set_user(name, rules, has_all_channels(&world))?;
            connection.out.ok();
            end_lost_subscriptions(connection, &world, name);
        }
        (b"deluser", names @ [_, ..]) => {
            let gone = acl::remove(names)?;
            connection.out.int(gone.len() as i64);
            disconnect(connection, &world, |name| {
                gone.iter().any(|gone| gone == name)
            });
        }
        (b"getuser", [name]) => get_user(connection, name),
        (b"cat", []) => {
            connection.out.array(catalog::CATEGORIES.len());
            for name in catalog::CATEGORIES {
                connection.out.bulk(name.as_bytes());
            }
        }
        (b"cat", [name]) => cat(connection, name)?,
        (b"dryrun", [name, words @ ..]) if !words.is_empty() => dry_run(connection, name, words)?,
        (b"genpass", words) if words.len() <= 1 => gen_pass(connection, words.first().copied())?,
        (b"log", words) if words.len() <= 1 => show_log(connection, words.first().copied())?,
        (b"load", []) => {
            let path = PathBuf::from(world.config().aclfile.clone().ok_or(NO_FILE)?);
            let shared = world.clone();
            let loaded = threads::run("acl", move || load_file(&shared, &path)).await;
            let loaded = loaded.map_err(|error| error.to_string()).flatten();
            loaded.map_err(|error| {
                CommandError::new(format!(
                    "{error}. WARNING: ACL errors detected, no change to the previously active ACL rules was performed"
                ))
            })?;
            connection.out.ok();
            // Whoever has logged in has done so as one who may be another now.
            disconnect(connection, &world, |name| name != b"default");
        }
        (b"save", []) => {
            let path = PathBuf::from(world.config().aclfile.clone().ok_or(NO_FILE)?);
            let saved = threads::run("acl", move || save(&path)).await;
            saved.flatten().map_err(|error| {
                tracing::warn!(%error, "saving the ACL file failed");
                CommandError::new(
                    "There was an error trying to save the ACLs. Please check the server logs for more information",
                )
            })?;
            connection.out.ok();
        }
        (b"help", []) => {
            connection.out.array(HELP.len());
            HELP.iter().for_each(|line| connection.out.simple(line));
        }
        (b"cat" | b"genpass" | b"log", _) => {
            let name = String::from_utf8_lossy(args[1]);
            return Err(CommandError::new(format!(
                "unknown subcommand or wrong number of arguments for '{name}'. Try ACL HELP."
            )));
        }
        (
            b"whoami" | b"users" | b"list" | b"setuser" | b"deluser" | b"getuser" | b"dryrun"
            | b"load" | b"save" | b"help",
            _,
        ) => {
            let name = String::from_utf8_lossy(&name).into_owned();
            return Err(CommandError::wrong_arity(&format!("acl|{name}")));
        }
        _ => {
            let name = String::from_utf8_lossy(args[1]);
            return Err(CommandError::new(format!(
                "unknown subcommand '{name}'. Try ACL HELP."
            )));
        }
    }
    Ok(())
}

/// Ends the connections of users who are gone; this one after its reply.
fn disconnect(connection: &mut Connection, world: &World, is_gone: impl Fn(&[u8]) -> bool) {
    for client in world.clients() {
        if !is_gone(client.texts().user.as_bytes()) {
            continue;
        }
        if client.id == connection.client.id {
            connection.is_closing = true;
        } else {
            client.outbox.kill.notify_one();
        }
    }
}

/// Ends the connections of a user that have subscribed to what it may not use any more.
fn end_lost_subscriptions(connection: &mut Connection, world: &World, name: &[u8]) {
    let Some(user) = acl::find(name) else { return };
    for client in world.clients() {
        if !client.is_subscriber() || client.texts().user.as_bytes() != name {
            continue;
        }
        let has_lost = [Kind::Channel, Kind::Pattern, Kind::Shard]
            .into_iter()
            .any(|kind| {
                let names = world.hub.names_of(kind, &client.outbox);
                let is_pattern = kind == Kind::Pattern;
                names
                    .iter()
                    .any(|name| !user.may_use_channel(name, is_pattern))
            });
        if has_lost && client.id == connection.client.id {
            connection.is_closing = true;
        } else if has_lost {
            client.outbox.kill.notify_one();
        }
    }
}

fn save(path: &std::path::Path) -> std::io::Result<()> {
    let mut text = Vec::new();
    for user in acl::all() {
        text.extend_from_slice(b"user ");
        text.extend_from_slice(&user.describe());
        text.push(b'\n');
    }
    let mut writer = FileWriter::create(path, Backend::Threads)?;
    writer.append(&text)?;
    writer.finish().map(|_| ())
}

fn get_user(connection: &mut Connection, name: &[u8]) {
    let out = &mut connection.out;
    let Some(user) = acl::find(name) else {
        return out.null();
    };
    out.map(6);
    out.bulk(b"flags");
    let flags = user.flags();
    out.set(flags.len());
    flags.iter().for_each(|flag| out.bulk(flag.as_bytes()));
    out.bulk(b"passwords");
    out.array(user.passwords().len());
    user.passwords()
        .iter()
        .for_each(|hash| out.bulk(hash.as_bytes()));
    put_selector(out, user.root());
    let selectors = user.selectors();
    out.bulk(b"selectors");
    out.array(selectors.len());
    for selector in selectors {
        out.map(3);
        put_selector(out, selector);
    }
}

fn put_selector(out: &mut Reply, selector: &Selector) {
    out.bulk(b"commands");
    out.bulk(selector.describe_commands().as_bytes());
    out.bulk(b"keys");
    out.bulk(&selector.describe_keys());
    out.bulk(b"channels");
    out.bulk(&selector.describe_channels());
}

fn cat(connection: &mut Connection, name: &[u8]) -> Result<(), CommandError> {
    let bit = catalog::category(name).ok_or_else(|| {
        let name = String::from_utf8_lossy(name);
        CommandError::new(format!("Unknown category '{name}'"))
    })?;
    let of_it = catalog::all()
        .iter()
        .filter(|known| known.categories >> bit & 1 == 1);
    let names: Vec<&str> = of_it.map(|known| known.name).collect();
    connection.out.array(names.len());
    for name in names {
        connection.out.bulk(name.as_bytes());
    }
    Ok(())
}

fn dry_run(connection: &mut Connection, name: &[u8], words: &[&[u8]]) -> Result<(), CommandError> {
    let shown = |word: &[u8]| String::from_utf8_lossy(word).into_owned();
    let user = acl::find(name)
        .ok_or_else(|| CommandError::new(format!("User '{}' not found", shown(name))))?;
    let command = table::find(words[0])
        .ok_or_else(|| CommandError::new(format!("Command '{}' not found", shown(words[0]))))?;
    if !command.arity_fits(words.len()) {
        return Err(command.wrong_arity());
    }
    match user.check(command, words) {
        Ok(()) => connection.out.ok(),
        Err(denied) => connection
            .out
            .bulk(acl::explained(&denied, true).as_bytes()),
    }
    Ok(())
}

fn gen_pass(connection: &mut Connection, bits: Option<&[u8]>) -> Result<(), CommandError> {
    let bits = bits.map_or(Ok(256), int)?;
    if !(1..=4096).contains(&bits) {
        return Err(CommandError::new(
            "ACL GENPASS argument must be the number of bits for the output password, a positive number up to 4096",
        ));
    }
    // A hex digit holds four bits.
    let digits = (bits as usize).div_ceil(4);
    let mut bytes = vec![0; digits.div_ceil(2)];
    getrandom::fill(&mut bytes)
        .map_err(|error| CommandError::new(format!("no random numbers: {error}")))?;
    let hex: String = bytes.iter().map(|byte| format!("{byte:02x}")).collect();
    connection.out.bulk(&hex.as_bytes()[..digits]);
    Ok(())
}

fn show_log(connection: &mut Connection, word: Option<&[u8]>) -> Result<(), CommandError> {
    match word {
        Some(word) if word.eq_ignore_ascii_case(b"reset") => {
            log::reset();
            connection.out.ok();
        }
        word => {
            let count = word.map_or(Ok(10), int)?;
            log::show(&mut connection.out, usize::try_from(count).unwrap_or(0));
        }
    }
    Ok(())
}

const HELP: &[&str] = &[
    "ACL <subcommand> [<arg> [value] [opt] ...]. Subcommands are:",
    "CAT [<category>]",
    "    The categories, or the commands of one.",
    "DELUSER <username> [<username> ...]",
    "    Remove users.",
    "DRYRUN <username> <command> [<arg> ...]",
    "    Whether a user may run a command.",
    "GENPASS [<bits>]",
    "    A random password.",
    "GETUSER <username>",
    "    What is known of a user.",
    "LIST",
    "    The users with their rules.",
    "LOAD",
    "    Read the users from the ACL file.",
    "LOG [<count> | RESET]",
    "    What was refused lately.",
    "SAVE",
    "    Write the users to the ACL file.",
    "SETUSER <username> <attribute> [<attribute> ...]",
    "    Make or change a user.",
    "USERS",
    "    The names of the users.",
    "WHOAMI",
    "    The user of this connection.",
    "HELP",
    "    This text.",
];
