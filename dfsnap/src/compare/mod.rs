//! Datasets side by side in bounded memory, for `cmd::diff` and `cmd::merge`.
//!
//! `value` makes a digest of each value and of each element, `pairs` brings together what has the same name on all
//! sides. Keys are compared first; the elements of those that differ in a second pass, by the same means.

pub mod pairs;
pub mod value;
