//! End to end: the built binary on a machine of its own, driven by stock clients.
//!
//! One machine with a registry serves most tests, each in a namespace of its own; tests that stop
//! the daemon, boot the machine or fill it bring their own. The runner is ours, because the shared machine
//! must be removed at the end whatever happens. The notes are gone through with each kubectl. Arguments are substrings of the tests to run.

#![expect(
    clippy::unwrap_used,
    clippy::print_stdout,
    clippy::type_complexity,
    reason = "a test: it reports by printing and fails by panicking"
)]

mod bad_input;
mod cluster;
mod damage;
mod eviction;
mod hostile;
mod lifecycle;
mod machine;
mod notes;
mod restart;
mod scale;
mod security;
mod services;
mod siege;
mod voting_app;
mod workloads;

use std::panic::{AssertUnwindSafe, catch_unwind};
use std::process::ExitCode;

use cluster::{Cluster, NEWER_KUBECTL};

type Shared = (&'static str, fn(&Cluster));
type Alone = (&'static str, fn());

fn main() -> ExitCode {
    let wanted: Vec<String> = std::env::args().skip(1).filter(|a| !a.starts_with('-')).collect();
    let is_wanted = |name: &str| wanted.is_empty() || wanted.iter().any(|w| name.contains(w.as_str()));
    let shared = [
        notes::TESTS,
        workloads::TESTS,
        bad_input::TESTS,
        security::TESTS,
        services::TESTS,
        hostile::TESTS,
        voting_app::TESTS,
        lifecycle::TESTS,
    ];
    let shared: Vec<Shared> = shared.concat().into_iter().filter(|(name, _)| is_wanted(name)).collect();
    let alone = [restart::TESTS, damage::TESTS, scale::TESTS, siege::TESTS, eviction::TESTS].concat();
    let alone: Vec<Alone> = alone.into_iter().filter(|(name, _)| is_wanted(name)).collect();
    if !nix_is_root() {
        println!("SKIPPED: not root: {} end-to-end tests", shared.len() + alone.len());
        return ExitCode::SUCCESS;
    }
    let mut failed = Vec::new();
    let mut passed = 0;
    let mut record = |name: &str, test: &mut dyn FnMut()| {
        let start = tokio::time::Instant::now();
        let ok = catch_unwind(AssertUnwindSafe(test)).is_ok();
        let seconds = start.elapsed().as_secs_f32();
        println!("test {name} ... {} ({seconds:.1} s)", if ok { "ok" } else { "FAILED" });
        if ok { passed += 1 } else { failed.push(name.to_owned()) }
    };
    if !shared.is_empty() {
        let mut cluster = None;
        record("a_server_starts", &mut || cluster = Some(Cluster::start("shared")));
        if let Some(cluster) = &cluster {
            for (name, test) in &shared {
                record(name, &mut || cluster.cleanly(test));
            }
            cluster.client.set(NEWER_KUBECTL);
            for (name, test) in shared.iter().filter(|(name, _)| name.starts_with("notes_")) {
                record(&format!("{name}_with_{NEWER_KUBECTL}"), &mut || cluster.cleanly(test));
            }
        }
    }
    for (name, mut test) in alone {
        record(name, &mut test);
    }
    for name in &failed {
        println!("failed: {name}");
    }
    println!("{passed} passed, {} failed", failed.len());
    if failed.is_empty() { ExitCode::SUCCESS } else { ExitCode::FAILURE }
}

fn nix_is_root() -> bool {
    machine::succeed(machine::command("id").arg("-u")).trim() == "0"
}
