//! Keys as the commands that carry them: RESTORE where the server understands the payload, and plain commands where not.
//!
//! A stored value that the server stores in the same way is copied into the payload without a look. A large one is built
//! in parts under a temporary name, so that neither side holds it twice and readers never see half of it.

use super::direct::Direct;
use super::{Existing, Options, Tally};
use crate::live::Client;
use crate::live::cluster::{redirect, tag_beside};
use crate::live::server::Server;
use crate::report::{self, Failure};
use crate::source::Key;
use dfsnap_formats::commands::{self, CommandsError, Form};
use dfsnap_formats::dataset::{Attributes, Entry, Item};
use dfsnap_formats::double::DoubleText;
use dfsnap_formats::encoding::listpack::Element;
use dfsnap_formats::lzf::LzfEncoder;
use dfsnap_formats::parts::Part;
use dfsnap_formats::rdb::dump;
use dfsnap_formats::rdb::file::RdbWriter;
use dfsnap_formats::rdb::loss::{self, Loss};
use dfsnap_formats::rdb::record::KeyRecord;
use dfsnap_formats::rdb::target::Feature;
use dfsnap_formats::resp::{Frame, encode_command};
use dfsnap_formats::value::{Kind, Value};
use std::borrow::Cow;
use std::ops::Range;

pub struct Encoder {
    pub server: Server,
    options: Options,
    /// Knows what is stored in the same way.
    writer: RdbWriter,
    lzf: LzfEncoder,
    payload: Vec<u8>,
}

/// Commands for one connection, in order.
#[derive(Debug, Default, Clone)]
pub struct Encoded {
    pub bytes: Vec<u8>,
    pub commands: Vec<Sent>,
    pub keys: u64,
    /// So many of the first keys are done with when this and all earlier batches are.
    pub end: u64,
    db: Option<u32>,
}

/// One command and what its reply means.
#[derive(Debug, Clone)]
pub struct Sent {
    pub role: Role,
    pub at: Range<usize>,
    pub db: u32,
    pub key: Vec<u8>,
    pub attributes: Attributes,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Role {
    Select,
    /// The whole key.
    Restore,
    /// A part of a key under its temporary name.
    Step,
    /// The key gets its name.
    Appear,
    /// Whatever the reply is.
    CleanUp,
}

/// Stored bytes of a value that is decoded as a whole for the commands of its type: it takes many times as much memory.
const DECODED_MAX: u64 = 256 << 10;
/// One command of a value in parts.
const COMMAND_BYTES: usize = 256 << 10;
const COMMAND_WORDS: usize = 512;
/// Replies that are waited for together.
const REPLIES: usize = 64;
const ADVICE_LOSS: &str =
    "--allow-loss restores what is left; --dry-run lists all that would be lost";

impl Encoder {
    pub fn new(server: Server, options: &Options) -> Encoder {
        Encoder {
            writer: RdbWriter::new(server.target),
            server,
            options: options.clone(),
            lzf: LzfEncoder::new(),
            payload: Vec::new(),
        }
    }

    /// Puts a key into the batch, or sends it by itself where it is large: then the answer is true.
    pub fn key(
        &mut self,
        key: Key<'_>,
        now_ms: i64,
        batch: &mut Encoded,
        direct: &mut Direct,
        tally: &mut Tally,
    ) -> Result<bool, Failure> {
        let attributes = key.head.attributes;
        if attributes.expire_at_ms.is_some_and(|at_ms| at_ms <= now_ms) {
            tally.expired += 1;
            return Ok(false);
        }
        let (db, name, kind) = (key.head.db, key.head.key.to_vec(), key.head.kind);
        let place = Place {
            db,
            key: &name,
            attributes,
        };
        let in_parts_anyway = self.goes_in_parts(&key);
        if let Some(record) = key.record()
            && !in_parts_anyway
            && !self.options.use_commands
            && self.writer.copies(record)
        {
            self.copy(record);
            batch.restore(
                &place,
                &self.payload,
                &self.server,
                self.options.existing,
                now_ms,
            );
            return Ok(false);
        }
        if in_parts_anyway {
            let knows_expiry = self.server.target.knows(Feature::FieldExpiry);
            if !knows_expiry && key.type_code.is_some_and(may_have_field_expiry) {
                self.lose(&place.shown(), Loss::FieldExpiry, tally)?;
            }
            let existing = self.options.existing;
            let client = direct.of(&name)?;
            let sent = in_parts(&place, kind, knows_expiry, existing, client, |take| {
                key.parts(take)
            });
            note_parts(sent?, tally);
            return Ok(true);
        }
        let Some(entry) = key.entry()? else {
            return Ok(false);
        };
        self.entry(&place, entry, now_ms, batch, direct, tally)
    }

    /// Whether a stored value is too large for one command.
    fn goes_in_parts(&self, key: &Key<'_>) -> bool {
        let most = match self.options.use_commands {
            true => self.options.parts_over.min(DECODED_MAX),
            false => self.options.parts_over,
        };
        let over = |record: &KeyRecord<'_>| record.value.len() as u64 > most;
        let is_large = key.large_record().is_some() || key.record().is_some_and(over);
        is_large && has_parts(key.head.kind)
    }

    fn copy(&mut self, record: &KeyRecord<'_>) {
        self.payload.clear();
        self.payload.push(record.type_code);
        self.payload.extend_from_slice(record.value);
        dump::seal(&mut self.payload, self.server.target.version());
    }

    /// A key whose value is at hand as data.
    fn entry(
        &mut self,
        place: &Place<'_>,
        entry: Cow<'_, Entry>,
        now_ms: i64,
        batch: &mut Encoded,
        direct: &mut Direct,
        tally: &mut Tally,
    ) -> Result<bool, Failure> {
        let target = self.server.target;
        for loss in loss::of_entry(&entry, target) {
            self.lose(&place.shown(), loss, tally)?;
        }
        let Some(value) = loss::without(&entry.value, target) else {
            return Ok(false);
        };
        if self.options.use_commands {
            let changed = match value {
                Cow::Owned(value) => Some(value),
                Cow::Borrowed(_) => None,
            };
            let mut entry = entry.into_owned();
            if let Some(value) = changed {
                entry.value = value;
            }
            let added = batch.native(entry, target.version(), self.options.existing);
            added.map_err(|error| unsayable(&place.shown(), &error))?;
            return Ok(false);
        }
        self.payload =
            dump::payload(&value, target, Some(&mut self.lzf)).map_err(|error| Failure {
                message: format!("{}: {error}", place.shown()),
                advice: ADVICE_LOSS.to_owned(),
            })?;
        tally.converted += 1;
        if self.payload.len() as u64 > self.options.parts_over && has_parts(value.kind()) {
            let existing = self.options.existing;
            let knows_expiry = target.knows(Feature::FieldExpiry);
            let give =
                |take: &mut dyn FnMut(Part<'_>) -> Result<(), Failure>| value.for_each_part(take);
            let client = direct.of(place.key)?;
            let sent = in_parts(place, value.kind(), knows_expiry, existing, client, give);
            note_parts(sent?, tally);
            return Ok(true);
        }
        batch.restore(
            place,
            &self.payload,
            &self.server,
            self.options.existing,
            now_ms,
        );
        Ok(false)
    }

    /// What would become of a key, and nothing else.
    pub fn look(&self, key: Key<'_>, now_ms: i64, tally: &mut Tally) -> Result<(), Failure> {
        let attributes = key.head.attributes;
        if attributes.expire_at_ms.is_some_and(|at_ms| at_ms <= now_ms) {
            tally.expired += 1;
            return Ok(());
        }
        let name = key.head.key.to_vec();
        let place = Place {
            db: key.head.db,
            key: &name,
            attributes,
        };
        let in_parts_anyway = self.goes_in_parts(&key);
        let copies = key
            .record()
            .is_some_and(|record| self.writer.copies(record));
        if copies && !in_parts_anyway && !self.options.use_commands {
            tally.restored += 1;
            return Ok(());
        }
        if in_parts_anyway {
            if !self.server.target.knows(Feature::FieldExpiry)
                && key.type_code.is_some_and(may_have_field_expiry)
            {
                self.lose(&place.shown(), Loss::FieldExpiry, tally)?;
            }
            tally.in_parts += 1;
            tally.restored += 1;
            return Ok(());
        }
        let Some(entry) = key.entry()? else {
            return Ok(());
        };
        for loss in loss::of_entry(&entry, self.server.target) {
            self.lose(&place.shown(), loss, tally)?;
        }
        if loss::without(&entry.value, self.server.target).is_some() {
            tally.converted += 1;
            tally.restored += 1;
        }
        Ok(())
    }

    /// The command that loads a library; None: the server has no functions.
    pub fn function(
        &self,
        code: &[u8],
        tally: &mut Tally,
    ) -> Result<Option<Vec<Vec<u8>>>, Failure> {
        if !self.server.target.knows(Feature::Functions) {
            self.lose("function library", Loss::Function, tally)?;
            return Ok(None);
        }
        let words: &[&[u8]] = match self.options.existing {
            Existing::Replace => &[b"FUNCTION", b"LOAD", b"REPLACE", code],
            Existing::Skip => &[b"FUNCTION", b"LOAD", code],
        };
        Ok(Some(words.iter().map(|word| word.to_vec()).collect()))
    }

    pub fn lose_module_aux(&self, module: &str, tally: &mut Tally) -> Result<(), Failure> {
        self.lose(&format!("module {module}"), Loss::ModuleAux, tally)
    }

    fn lose(&self, what: &str, loss: Loss, tally: &mut Tally) -> Result<(), Failure> {
        *tally.losses.entry(loss.to_string()).or_default() += 1;
        tally.data_losses += u64::from(loss.is_data());
        match loss.is_data() && !self.options.allow_loss {
            true => Err(Failure {
                message: format!("{what}: {} cannot hold {loss}", self.server.product),
                advice: ADVICE_LOSS.to_owned(),
            }),
            false => Ok(()),
        }
    }
}

/// Where a key belongs, and what goes with it.
struct Place<'k> {
    db: u32,
    key: &'k [u8],
    attributes: Attributes,
}

impl Place<'_> {
    fn shown(&self) -> String {
        format!("db {}, key {}", self.db, report::key(self.key))
    }
}

impl Encoded {
    fn push(&mut self, role: Role, place: &Place<'_>, words: &[&[u8]]) {
        let start = self.bytes.len();
        encode_command(&mut self.bytes, words);
        self.commands.push(Sent {
            role,
            at: start..self.bytes.len(),
            db: place.db,
            key: place.key.to_vec(),
            attributes: place.attributes,
        });
    }

    fn select(&mut self, place: &Place<'_>) {
        if self.db != Some(place.db) {
            self.db = Some(place.db);
            self.push(
                Role::Select,
                place,
                &[b"SELECT", place.db.to_string().as_bytes()],
            );
        }
    }

    fn restore(
        &mut self,
        place: &Place<'_>,
        payload: &[u8],
        server: &Server,
        existing: Existing,
        now_ms: i64,
    ) {
        self.select(place);
        let Attributes {
            expire_at_ms,
            idle_s,
            freq,
            ..
        } = place.attributes;
        let absolute = server.has_absolute_expiry;
        let ttl = match expire_at_ms {
            None => 0,
            Some(at_ms) if absolute => at_ms,
            // It has not expired: there is at least one left.
            Some(at_ms) => at_ms - now_ms,
        };
        let (ttl, idle, freq) = (
            ttl.to_string(),
            idle_s.map(|idle_s| idle_s.to_string()),
            freq.map(|freq| freq.to_string()),
        );
        let mut words: Vec<&[u8]> = vec![b"RESTORE", place.key, ttl.as_bytes(), payload];
        if existing == Existing::Replace {
            words.push(b"REPLACE");
        }
        if absolute && expire_at_ms.is_some() {
            words.push(b"ABSTTL");
        }
        if let (Some(idle), true) = (&idle, absolute) {
            words.extend([&b"IDLETIME"[..], idle.as_bytes()]);
        } else if let (Some(freq), true) = (&freq, absolute) {
            words.extend([&b"FREQ"[..], freq.as_bytes()]);
        }
        self.push(Role::Restore, place, &words);
        self.keys += 1;
    }

    /// The commands of its type, under a temporary name that is changed at the end. After an error the batch is as before.
    pub fn native(
        &mut self,
        mut entry: Entry,
        version: u16,
        existing: Existing,
    ) -> Result<(), CommandsError> {
        let temporary = temporary_name(&entry.key);
        let key = std::mem::replace(&mut entry.key, temporary.clone());
        let place = Place {
            db: entry.db,
            key: &key,
            attributes: entry.attributes,
        };
        let options = commands::Options {
            version,
            form: Form::Native,
            ..commands::Options::default()
        };
        let mut is_begun = false;
        let mut begin = |batch: &mut Encoded| {
            if !std::mem::replace(&mut is_begun, true) {
                batch.select(&place);
                batch.push(Role::CleanUp, &place, &[b"DEL", &temporary]);
            }
        };
        // What cannot be said is told before the first command.
        commands::of_item(&Item::Entry(entry), &options, &mut |words| {
            begin(self);
            self.push(Role::Step, &place, words);
        })?;
        begin(self);
        let rename = rename_of(existing);
        self.push(Role::Appear, &place, &[rename, &temporary, place.key]);
        self.push(Role::CleanUp, &place, &[b"DEL", &temporary]);
        self.keys += 1;
        Ok(())
    }
}

fn rename_of(existing: Existing) -> &'static [u8] {
    match existing {
        Existing::Replace => b"RENAME",
        Existing::Skip => b"RENAMENX",
    }
}

/// A name that no other key has, here or there; in a cluster it is on the node of `key`.
fn temporary_name(key: &[u8]) -> Vec<u8> {
    use std::hash::{BuildHasher, RandomState};
    let state = RandomState::new();
    format!(
        "dfsnap:restoring:{:016x}{:016x}:{{{}}}",
        state.hash_one(1),
        state.hash_one(2),
        tag_beside(key)
    )
    .into_bytes()
}

fn has_parts(kind: Kind) -> bool {
    matches!(
        kind,
        Kind::String | Kind::List | Kind::Set | Kind::ZSet | Kind::Hash
    )
}

pub fn unsayable(what: &str, error: &CommandsError) -> Failure {
    Failure {
        message: format!("{what}: {error}"),
        advice: "without --commands it goes as a payload; or leave it out with the filters"
            .to_owned(),
    }
}

fn note_parts(is_there: bool, tally: &mut Tally) {
    match is_there {
        true => tally.in_parts += 1,
        false => tally.skipped += 1,
    }
    tally.restored += u64::from(is_there);
}

/// Hashes that are stored with expiries of their fields.
pub(super) fn may_have_field_expiry(code: u8) -> bool {
    use dfsnap_formats::rdb::type_code::*;
    matches!(
        code,
        HASH_22 | HASH_METADATA | HASH_LISTPACK_EX | HASH_LISTPACK_EX_PRE_GA | HASH_EXPIRING
    )
}

/// Builds a value under a temporary name, then renames it. False: another value was there, and stays.
fn in_parts(
    place: &Place<'_>,
    kind: Kind,
    knows_field_expiry: bool,
    existing: Existing,
    client: &mut Client,
    give: impl FnOnce(&mut dyn FnMut(Part<'_>) -> Result<(), Failure>) -> Result<(), Failure>,
) -> Result<bool, Failure> {
    let advice = "look at the server's log and its memory; the same command goes on";
    client.ask(
        &["SELECT", &place.db.to_string()],
        "a server with as many databases",
    )?;
    if existing == Existing::Skip
        && client.ask(&[&b"EXISTS"[..], place.key], advice)? == Frame::Int(1)
    {
        return Ok(false);
    }
    let mut building = Building {
        client,
        temporary: temporary_name(place.key),
        kind,
        words: Vec::new(),
        ends: Vec::new(),
        expiring: Vec::new(),
        knows_field_expiry,
    };
    let built = give(&mut |part| building.part(part)).and_then(|()| building.finish(place));
    let temporary = building.temporary;
    let renamed = built.and_then(|()| {
        let words = [rename_of(existing), &temporary, place.key];
        Ok(client.ask(&words, advice)?)
    });
    match renamed {
        Ok(reply) => {
            let is_there = reply != Frame::Int(0);
            if !is_there {
                client.call(&[&b"DEL"[..], &temporary])?;
            }
            Ok(is_there)
        }
        Err(failure) => {
            // The first failure is the one to tell; a connection that is gone leaves the name, and an expiry on nothing.
            while client.pending() > 0 && client.reply().is_ok() {}
            if client.pending() == 0 {
                let _ = client.call(&[&b"DEL"[..], &temporary]);
            }
            Err(failure)
        }
    }
}

/// A value on its way.
struct Building<'c> {
    client: &'c mut Client,
    temporary: Vec<u8>,
    kind: Kind,
    /// What the next command has, one word behind the other, and where each ends.
    words: Vec<u8>,
    ends: Vec<usize>,
    expiring: Vec<(i64, Vec<u8>)>,
    knows_field_expiry: bool,
}

impl Building<'_> {
    fn part(&mut self, part: Part<'_>) -> Result<(), Failure> {
        match part {
            Part::Bytes(bytes) => self.word(bytes),
            Part::ListElement(element) => self.element(element),
            Part::SetMember { member, .. } => self.element(member),
            Part::ZSetMember { member, score } => {
                self.word(DoubleText::score(score).as_bytes());
                self.element(member);
            }
            Part::HashField(field) => {
                if let (Some(at_ms), true) = (field.expire_at_ms, self.knows_field_expiry) {
                    self.expiring.push((at_ms, field.field.to_vec()));
                }
                self.element(field.field);
                self.element(field.value);
            }
            Part::StreamEntry(_) | Part::StreamEnd(_) | Part::Whole(_) => {
                unreachable!("values of these types are not sent in parts")
            }
        }
        let full = self.words.len() >= COMMAND_BYTES || self.ends.len() >= COMMAND_WORDS;
        match full || self.kind == Kind::String {
            true => self.send(),
            false => Ok(()),
        }
    }

    fn element(&mut self, element: Element<'_>) {
        element.append_to(&mut self.words);
        self.ends.push(self.words.len());
    }

    fn word(&mut self, bytes: &[u8]) {
        self.element(Element::Str(bytes));
    }

    fn send(&mut self) -> Result<(), Failure> {
        if self.ends.is_empty() {
            return Ok(());
        }
        let name: &[u8] = match self.kind {
            Kind::String => b"APPEND",
            Kind::List => b"RPUSH",
            Kind::Set => b"SADD",
            Kind::ZSet => b"ZADD",
            _ => b"HSET",
        };
        let mut words = Vec::with_capacity(2 + self.ends.len());
        words.extend([name, &self.temporary]);
        let mut start = 0;
        for &end in &self.ends {
            words.push(&self.words[start..end]);
            start = end;
        }
        self.client.push(&words)?;
        self.words.clear();
        self.ends.clear();
        let expiring = std::mem::take(&mut self.expiring);
        for (at_ms, field) in expiring {
            let at_ms = at_ms.to_string();
            let words: [&[u8]; 6] = [
                b"HPEXPIREAT",
                &self.temporary,
                at_ms.as_bytes(),
                b"FIELDS",
                b"1",
                &field,
            ];
            self.client.push(&words)?;
        }
        self.replies(REPLIES)
    }

    /// Takes replies until at most so many are left.
    fn replies(&mut self, most: usize) -> Result<(), Failure> {
        while self.client.pending() > most {
            if let Frame::Error(text) = self.client.reply()? {
                let advice = match redirect(&text) {
                    Some(_) => "its slot was moved meanwhile; the same command goes on",
                    None => "look at the server's log and its memory; the same command goes on",
                };
                return Err(self.client.lost(&text, advice).into());
            }
        }
        Ok(())
    }

    fn finish(&mut self, place: &Place<'_>) -> Result<(), Failure> {
        self.send()?;
        if let Some(at_ms) = place.attributes.expire_at_ms {
            let at_ms = at_ms.to_string();
            let words: [&[u8]; 3] = [b"PEXPIREAT", &self.temporary, at_ms.as_bytes()];
            self.client.push(&words)?;
        }
        self.replies(0)
    }
}

/// The value of a payload, for servers that refuse it.
pub fn value_of(payload: &[u8]) -> Option<Value> {
    let parsed = dump::Payload::parse(payload, u16::MAX).ok()?;
    parsed.decode(&Default::default()).ok()
}
