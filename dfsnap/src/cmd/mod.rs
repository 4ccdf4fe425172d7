//! The verbs, one module each.

pub mod convert;
pub mod diff;
pub mod digest;
pub mod get;
pub mod inspect;
pub mod ls;
pub mod salvage;
pub mod verify;
