//! The verbs, one module each.

pub mod convert;
pub mod diff;
pub mod digest;
pub mod get;
pub mod inspect;
pub mod ls;
pub mod merge;
pub mod output;
pub mod salvage;
pub mod split;
pub mod verify;
