//! `coracle server`: the control plane, and unless told otherwise a node, in this process.

use std::process::ExitCode;

use anyhow::{Context, anyhow};
use clap::Args as ClapArgs;
use nix::sys::resource::{Resource, getrlimit, setrlimit};
use tokio::signal::unix::{SignalKind, signal};
use tokio_util::sync::CancellationToken;
use tracing::{info, warn};

use crate::config::{ServerConfig, ServerOptions};
use crate::exit::Final;
use crate::{logging, machine, memory, services};

/// Threads of the runtime: the work is small and mostly waits, and each thread costs memory.
const WORKERS: usize = 2;
/// For file systems and the kernel; idle threads end after ten seconds.
const BLOCKING: usize = 16;

#[derive(ClapArgs)]
pub(crate) struct Args {
    #[command(flatten)]
    options: ServerOptions,
}

pub(crate) fn run(args: Args) -> anyhow::Result<ExitCode> {
    memory::configure();
    let options = args.options.with_file().map_err(Final)?;
    logging::install(options.log_level()).map_err(Final)?;
    if !options.disable_agent && !nix::unistd::geteuid().is_root() {
        return Err(Final(anyhow!("a node needs root; run this as root, or without a node by --disable-agent")).into());
    }
    let config = ServerConfig::resolve(options)?;
    // Before anything is written.
    let claim = machine::claim(&config)?;
    raise_open_files();
    let runtime = tokio::runtime::Builder::new_multi_thread()
        .worker_threads(WORKERS)
        .max_blocking_threads(BLOCKING)
        .enable_all()
        .build()
        .context("starting the runtime")?;
    runtime.block_on(async {
        let stop = CancellationToken::new();
        let signals = watch_signals(stop.clone())?;
        let served = services::run_server(config, stop).await;
        drop(signals);
        served
    })?;
    drop(claim);
    Ok(ExitCode::SUCCESS)
}

/// Takes as many open files as the service manager allows. The soft limit, often 1,024, is for programs
/// that use select(2); here each client and each pod wants some.
fn raise_open_files() {
    let raised =
        getrlimit(Resource::RLIMIT_NOFILE).and_then(|(_, hard)| setrlimit(Resource::RLIMIT_NOFILE, hard, hard));
    if let Err(error) = raised {
        warn!("the limit of open files stays as it is: {error}");
    }
}

/// SIGTERM and SIGINT end the server in order; pods run on.
fn watch_signals(stop: CancellationToken) -> anyhow::Result<client::Owned> {
    let mut terminate = signal(SignalKind::terminate()).context("watching signals")?;
    let mut interrupt = signal(SignalKind::interrupt()).context("watching signals")?;
    Ok(client::Owned::spawn(async move {
        tokio::select! {
            _ = terminate.recv() => {}
            _ = interrupt.recv() => {}
        }
        info!("stopping; pods run on");
        stop.cancel();
    }))
}
