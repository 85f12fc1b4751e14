//! App.

pub mod report;
pub mod trace;
