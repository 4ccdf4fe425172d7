//! Error replies, in Redis' words.

use std::borrow::Cow;

/// An error reply: its first word is the code that clients dispatch on.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct CommandError(pub Cow<'static, str>);

impl CommandError {
    /// `ERR` with this text.
    pub fn new(text: impl Into<String>) -> CommandError {
        CommandError(Cow::Owned(format!("ERR {}", text.into())))
    }

    /// A complete text, code included.
    pub const fn text(text: &'static str) -> CommandError {
        CommandError(Cow::Borrowed(text))
    }

    /// The key holds another type.
    pub const WRONG_TYPE: CommandError =
        CommandError::text("WRONGTYPE Operation against a key holding the wrong kind of value");
    /// The words do not form the command.
    pub const SYNTAX: CommandError = CommandError::text("ERR syntax error");
    /// Not an i64 in canonical form.
    pub const NOT_INTEGER: CommandError =
        CommandError::text("ERR value is not an integer or out of range");
    /// Not a float.
    pub const NOT_FLOAT: CommandError = CommandError::text("ERR value is not a valid float");
    /// A count below zero.
    pub const NOT_POSITIVE: CommandError =
        CommandError::text("ERR value is out of range, must be positive");
    /// The key is missing.
    pub const NO_SUCH_KEY: CommandError = CommandError::text("ERR no such key");
    /// An index outside the list.
    pub const INDEX_OUT_OF_RANGE: CommandError = CommandError::text("ERR index out of range");
    /// An offset below zero or too large.
    pub const OFFSET_OUT_OF_RANGE: CommandError = CommandError::text("ERR offset is out of range");
    /// A database number that does not exist.
    pub const DB_INDEX: CommandError = CommandError::text("ERR DB index is out of range");
    /// A cursor that is no number.
    pub const INVALID_CURSOR: CommandError = CommandError::text("ERR invalid cursor");
    /// A sum beyond i64.
    pub const OVERFLOW: CommandError =
        CommandError::text("ERR increment or decrement would overflow");

    /// Arity error of a command, named in lower case (`config|get` for a subcommand).
    pub fn wrong_arity(name: &str) -> CommandError {
        CommandError::new(format!("wrong number of arguments for '{name}' command"))
    }

    /// An expiry that is not allowed in this command.
    pub fn invalid_expire(name: &str) -> CommandError {
        CommandError::new(format!("invalid expire time in '{name}' command"))
    }
}
