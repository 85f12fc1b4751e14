//! The extensions of chapter 8.
