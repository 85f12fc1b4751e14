//! tlproof.
fn main() {}
