//! The verbs, one module each.

pub mod backup;
pub mod convert;
pub mod diff;
pub mod digest;
pub mod follow;
pub mod get;
pub mod input;
pub mod inspect;
pub mod ls;
pub mod manual;
pub mod merge;
pub mod migrate;
pub mod output;
pub mod report;
pub mod restore;
pub mod salvage;
pub mod split;
pub mod verify;
