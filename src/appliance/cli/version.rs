//! `coracle version`: what this binary is and which Kubernetes it speaks.

use std::process::ExitCode;

use clap::{Args as ClapArgs, ValueEnum};
use serde_json::json;

#[derive(ClapArgs)]
pub(crate) struct Args {
    /// Print in this form
    #[arg(short, long)]
    output: Option<Output>,
}

#[derive(Clone, Copy, ValueEnum)]
enum Output {
    Json,
}

/// `0.1.0 (Kubernetes v1.36.x+coracle.N)`.
pub(crate) fn short() -> String {
    format!("{} (Kubernetes {})", env!("CARGO_PKG_VERSION"), api::version::GIT_VERSION)
}

#[expect(clippy::unnecessary_wraps, clippy::print_stdout, reason = "a subcommand: prints, and has the form of all")]
pub(crate) fn run(args: &Args) -> anyhow::Result<ExitCode> {
    match args.output {
        Some(Output::Json) => {
            let version = json!({
                "coracle": env!("CARGO_PKG_VERSION"),
                "kubernetes": api::version::GIT_VERSION,
                "platform": format!("linux/{}", std::env::consts::ARCH),
                "profile": if cfg!(debug_assertions) { "debug" } else { "release" },
            });
            println!("{version}");
        }
        None => println!("coracle {} linux/{}", short(), std::env::consts::ARCH),
    }
    Ok(ExitCode::SUCCESS)
}
