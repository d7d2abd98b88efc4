//! The command line: one file per subcommand.

mod check;
mod server;
mod version;

use std::process::ExitCode;

use clap::{Parser, Subcommand};

use crate::exit;

/// Kubernetes for fleets of small boards, in one binary.
#[derive(Parser)]
#[command(name = "coracle", version = version::short(), disable_help_subcommand = true)]
struct Cli {
    #[command(subcommand)]
    command: Command,
}

#[derive(Subcommand)]
enum Command {
    /// Run the server, with a node on the same machine
    Server(Box<server::Args>),
    /// Tell whether this machine is fit to run pods
    Check(check::Args),
    /// Print the version
    Version(version::Args),
}

pub(crate) fn run() -> ExitCode {
    let result = match Cli::parse().command {
        Command::Server(args) => server::run(*args),
        Command::Check(args) => check::run(&args),
        Command::Version(args) => version::run(&args),
    };
    match result {
        Ok(code) => code,
        Err(e) => {
            report(&e);
            exit::code(&e)
        }
    }
}

#[expect(clippy::print_stderr, reason = "the command line's own last word")]
fn report(e: &anyhow::Error) {
    eprintln!("coracle: {e:#}");
}
