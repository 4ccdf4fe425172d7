//! The verbs, one module each.

pub mod backup;
pub mod convert;
pub mod digest;
pub mod follow;
pub mod get;
pub mod inspect;
pub mod ls;
pub mod migrate;
pub mod restore;
pub mod verify;
