//! kload: loads one Kubernetes API server from one cheap thread, and says what each request took
//! and cost. It measures any server that a kubeconfig names, so that two can be compared.
//!
//! ```text
//! kload --kubeconfig FILE [--pid N] [--cpu FILE] [--secs S] [--repeats N] [--image I] [--hold] TEST...
//! ```
//! `--pid` is the server's process and `--cpu` the CPU account of the control group that it runs in
//! with all its pods (cgroup v1 cpuacct.usage or v2 cpu.stat), which is preferred. The client shares
//! the machine with the server: compare servers by CPU per request, and by rates on one machine only.
//!
//! | test | what |
//! |---|---|
//! | ready | waits for the kubeconfig, /readyz and a Ready node; prints when, on the monotonic clock |
//! | get | GET one 2 KB ConfigMap, 16 connections |
//! | list | LIST 1,000 ConfigMaps of 1 KB, 4 connections |
//! | put | PUT 2 KB of new data with the current resourceVersion, 16 connections, each its own object |
//! | put1 | the same with one connection: the latency of one durable write |
//! | churn | POST a small ConfigMap, then DELETE it, 16 connections; both count |
//! | fanout | 100 watches, 200 PUTs at 20/s: from sending a PUT until the last watcher has the event |
//! | pods | 20 pods one after another: create to Running |
//! | pods50 | 50 pods at once until all run; with --hold it then says so and waits for a line of input |
//!
//! Every test prints one line of JSON, `{"test": NAME, "figures": {…}}`: times in ms, the median of
//! the repeats. A request that fails fails the run.

mod arguments;
mod configmap;
mod connection;
mod fanout;
mod figures;
mod http1;
mod kubeconfig;
mod load;
mod namespace;
mod podburst;
mod pods;
mod podwatch;
mod ready;
mod usage;

use std::process::ExitCode;

use anyhow::Result;

use crate::arguments::{Arguments, Test};
use crate::figures::Figures;
use crate::kubeconfig::Server;
use crate::load::Operation;
use crate::usage::Meter;

/// What every test is given.
struct Context {
    server: Server,
    meter: Meter,
    arguments: Arguments,
}

fn main() -> ExitCode {
    let run = || {
        let arguments = Arguments::parse(std::env::args().skip(1))?;
        tokio::runtime::Builder::new_current_thread().enable_all().build()?.block_on(run(arguments))
    };
    match run() {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            say(&serde_json::json!({ "error": format!("{error:#}") }).to_string());
            ExitCode::FAILURE
        }
    }
}

#[expect(clippy::print_stdout, reason = "the results of a command line tool")]
fn say(line: &str) {
    println!("{line}");
}

async fn run(arguments: Arguments) -> Result<()> {
    let server = match arguments.tests.contains(&Test::Ready) {
        true => ready::kubeconfig(&arguments.kubeconfig).await?,
        false => Server::read(&arguments.kubeconfig)?,
    };
    let meter = Meter::new(arguments.pid, arguments.cpu.clone());
    let cx = Context { server, meter, arguments };
    for &test in &cx.arguments.tests {
        let mut repeats = Vec::new();
        for _ in 0..test.repeats(cx.arguments.repeats) {
            repeats.push(figures(&cx, test).await?);
        }
        say(&serde_json::json!({ "test": test.name(), "figures": Figures::median(&repeats) }).to_string());
    }
    Ok(())
}

async fn figures(cx: &Context, test: Test) -> Result<Figures> {
    match test {
        Test::Ready => ready::run(&cx.server).await,
        Test::Get => load::run(cx, Operation::Get, 16).await,
        Test::List => load::run(cx, Operation::List, 4).await,
        Test::Put => load::run(cx, Operation::Put, 16).await,
        Test::Put1 => load::run(cx, Operation::Put, 1).await,
        Test::Churn => load::run(cx, Operation::Churn, 16).await,
        Test::Fanout => fanout::run(cx).await,
        Test::Pods => pods::run(cx).await,
        Test::Pods50 => podburst::run(cx).await,
    }
}
