//! App.

pub mod trace;
