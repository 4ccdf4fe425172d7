//! The reader of RDB files inside files of a DFS set: what holds other records there, and how they are read on.
//!
//! A part of `reader`, for `dfs::reader` alone.

use super::reader::{Options, RdbReader, State, is_key};
use super::record::{Attributes, Header};
use super::{Flavor, opcode, shape, type_code};
use crate::input::{Cursor, Input, Text};
use std::io::Read;

/// What the bytes are a part of.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Scope {
    /// An RDB file.
    File,
    /// A file of a DFS set, which has records that hold other records.
    DfsFile,
    /// Whole records without magic and end, from inside a file of a DFS set.
    Records,
    /// One key with its value and what stands before it. The end of the source says that more will come.
    Value,
}

/// What a reader goes by while it walks, to be handed from a file to the records inside it and back.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Context {
    pub header: Header,
    pub db: u32,
    pub attributes: Attributes,
    pub old_index: bool,
}

impl<R: Read> RdbReader<R> {
    /// For a file of a DFS set.
    pub(crate) fn of_dfs(source: R, options: Options) -> Self {
        let input = Input::new(source, options.check_crc);
        RdbReader::over(input, options, Scope::DfsFile)
    }

    /// For records from inside a file of a DFS set, read on from where that file's reader stands.
    pub(crate) fn inside(
        input: Input<R>,
        options: Options,
        scope: Scope,
        context: Context,
    ) -> Self {
        let mut reader = RdbReader::over(input, options, scope);
        reader.state = State::AwaitCode;
        reader.set_context(context);
        reader
    }

    /// Offset of the body of the record that was found last, and the body.
    pub(crate) fn body(&self) -> (u64, &[u8]) {
        (self.input.record_offset() + 1, &self.input.record()[1..])
    }

    pub(crate) fn context(&self) -> Context {
        Context {
            header: self.header,
            db: self.db,
            attributes: self.attributes,
            old_index: self.old_index,
        }
    }

    pub(crate) fn set_context(&mut self, context: Context) {
        self.header = context.header;
        self.db = context.db;
        self.attributes = context.attributes;
        self.old_index = context.old_index;
    }

    pub(crate) fn input_mut(&mut self) -> &mut Input<R> {
        &mut self.input
    }

    /// Whether the value that is being read may be cut here.
    pub(crate) fn is_between_elements(&self) -> bool {
        let in_value =
            matches!(self.state, State::AwaitRecord(code) if is_key(self.header.flavor, code));
        in_value && self.input.ahead().is_empty() && self.walk.is_between_elements()
    }

    /// The key whose value is being read, if it is here.
    pub(crate) fn key_so_far(&self) -> Option<Vec<u8>> {
        let body = self.input.record().get(1..)?;
        match self.state {
            State::AwaitRecord(code) if is_key(self.header.flavor, code) => {
                Cursor::new(body).string("key").ok()
            }
            _ => None,
        }
    }

    /// Forgets an error: what is ahead is looked at as a new record.
    pub(crate) fn forget_error(&mut self) {
        self.state = State::AwaitCode;
        self.attributes = Attributes::default();
    }

    /// How the record of an opcode goes on; None: there is no such record here.
    pub(super) fn opcode_parts(&self, code: u8) -> Option<&'static [shape::Part]> {
        let known = shape::of_opcode(self.header.flavor, code);
        let dfs = shape::of_dfs_opcode(code, self.old_index);
        match self.scope {
            Scope::File => known,
            Scope::DfsFile => known.or(dfs),
            Scope::Records if code == opcode::EOF => None,
            Scope::Records => known.or(dfs),
            Scope::Value => known.filter(|_| is_attribute(code)),
        }
    }

    /// A file whose aux fields name a Dragonfly holds its types.
    pub(super) fn note_writer(&mut self) {
        let mut cursor = Cursor::new(&self.input.record()[1..]);
        match (cursor.text("aux name"), cursor.text("aux value")) {
            (Ok(Text::Plain(b"df-ver")), version) => {
                if self.header.flavor == Flavor::Redis {
                    self.header.flavor = Flavor::Dragonfly;
                }
                self.old_index |= matches!(version, Ok(Text::Plain(v)) if is_before_1_39(v));
            }
            (Ok(Text::Plain(b"hnsw-index-metadata")), _) => self.old_index = true,
            _ => {}
        }
    }

    /// Dragonfly kept documents under 20 until they moved; it takes them there in files below version 10.
    pub(super) fn type_of(&self, code: u8) -> u8 {
        let Header { flavor, version } = self.header;
        match code {
            type_code::SET_LISTPACK if flavor == Flavor::Dragonfly && version < 10 => {
                type_code::JSON
            }
            code => code,
        }
    }
}

fn is_attribute(code: u8) -> bool {
    matches!(
        code,
        opcode::EXPIRE_MS | opcode::EXPIRE_S | opcode::IDLE | opcode::FREQ | opcode::KEY_MASK
    )
}

/// Of the text of a Dragonfly's version, as in `df-v1.38.2`.
fn is_before_1_39(version: &[u8]) -> bool {
    let numbers = version.strip_prefix(b"df-v").unwrap_or_default();
    let mut numbers = numbers
        .split(|byte| *byte == b'.')
        .map(|digits| std::str::from_utf8(digits).ok()?.parse::<u32>().ok());
    match (numbers.next().flatten(), numbers.next().flatten()) {
        (Some(major), Some(minor)) => (major, minor) < (1, 39),
        _ => false,
    }
}
