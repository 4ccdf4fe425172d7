//! The verbs, one module each.

pub mod digest;
pub mod inspect;
pub mod verify;
