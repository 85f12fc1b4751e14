//! The program `tlproof`.

use std::process::ExitCode;

use clap::Parser;
use tlproof::{cli::Cli, commands};

fn main() -> ExitCode {
    let cli = Cli::parse();
    match commands::run(cli) {
        Ok(true) => ExitCode::SUCCESS,
        Ok(false) => ExitCode::from(1),
        Err(e) => {
            eprintln!("tlproof: {e}");
            ExitCode::from(2)
        }
    }
}
