//! Puts the components together into one process: command line, configuration, certificates,
//! wiring and supervision. Knows every crate; no crate knows it.

mod cli;
mod config;
mod datadir;
mod exit;
mod inprocess;
mod kubeconfig;
mod logging;
mod machine;
mod memory;
mod nodeaddress;
mod pki;
mod services;

use std::process::ExitCode;

/// Runs the command that the process was started with.
///
/// A pod's shim is told apart before anything else happens: it must not inherit threads, an
/// allocator's arenas or a runtime (libcontainer forks).
#[must_use]
pub fn main() -> ExitCode {
    let mut args = std::env::args_os();
    if args.nth(1).is_some_and(|a| a == "shim") {
        let code = runtime::shim_main(&args.collect::<Vec<_>>());
        return u8::try_from(code).map_or(ExitCode::FAILURE, ExitCode::from);
    }
    cli::run()
}
