//! AOF: the commands that made a dataset, as servers log them.
//!
//! ```text
//! file      = [RDB file] unit*                      one file (up to 6.2), or one of several (7.0 and later)
//! unit      = command | annotation
//! command   = "*" count CRLF ("$" bytes CRLF word CRLF){count}
//! annotation = "#" text CRLF                        "#TS:" and Unix seconds is the only one written
//! directory = name.manifest, name.N.base.rdb or name.N.base.aof, name.N.incr.aof …
//! ```
//! - `reader`: pulls units out of the stream of one file, and tells how it ends.
//! - `manifest`: which files of a directory belong together, and in which order they are read.
//! - `replay`: a dataset in memory that the commands are applied to.
//! - `writer`: a file, or a directory's files, from entries.

pub mod manifest;
pub mod reader;
pub mod replay;
mod unit;
pub mod writer;
