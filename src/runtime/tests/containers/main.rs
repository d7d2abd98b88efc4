//! Containers on the real kernel. This binary is its own shim, hence the harness of its own.
//!
//! Needs root and a static busybox (`apt-get install busybox-static`); otherwise it says what it
//! skips. A filter may be given as with any other test: `cargo test --test containers -- oom`.

#![expect(clippy::unwrap_used, clippy::print_stdout, reason = "a test binary without the standard harness")]

mod devices;
mod fixture;
mod lifecycle;
mod lost;
mod mounts;
mod registry;
mod restart;
mod scale;
mod streams;
mod upgrade;

use std::path::Path;
use std::process::ExitCode;

use fixture::{Node, Outcome};

type Test = (&'static str, fn(&mut Node) -> Outcome<'_>);

const TESTS: &[Test] = &[
    ("a_container_runs_logs_and_ends", |node| Box::pin(lifecycle::runs_logs_and_ends(node))),
    ("images_defaults_apply", |node| Box::pin(lifecycle::image_defaults_apply(node))),
    ("volumes_of_images_are_writable_and_filled", |node| Box::pin(lifecycle::image_volumes(node))),
    ("layers_are_put_onto_their_parents", |node| Box::pin(lifecycle::layers_on_parents(node))),
    ("layers_may_come_more_than_once", |node| Box::pin(lifecycle::equal_layers(node))),
    ("what_cannot_start_says_why", |node| Box::pin(lifecycle::what_cannot_start_says_why(node))),
    ("stop_asks_then_kills", |node| Box::pin(lifecycle::stop_asks_then_kills(node))),
    ("limits_stand_and_memory_hogs_are_killed", |node| Box::pin(lifecycle::limits_and_oom(node))),
    ("pods_share_namespaces_as_asked", |node| Box::pin(lifecycle::namespaces(node))),
    ("volumes_and_read_only_roots", |node| Box::pin(lifecycle::volumes(node))),
    ("mounts_go_where_links_and_detours_lead", |node| Box::pin(mounts::links_and_detours(node))),
    ("what_may_not_be_covered_says_so", |node| Box::pin(mounts::refused(node))),
    ("a_limit_that_no_start_fits_into_says_so", |node| Box::pin(mounts::too_little_memory(node))),
    ("block_devices_are_out_of_reach", |node| Box::pin(devices::block_devices(node))),
    ("seccomp_holds_in_init_and_exec", |node| Box::pin(devices::seccomp(node))),
    ("privileged_containers_see_devices", |node| Box::pin(devices::privileged(node))),
    ("commands_run_with_streams_and_codes", |node| Box::pin(streams::commands(node))),
    ("terminals_work_and_resize", |node| Box::pin(streams::terminals(node))),
    ("attach_talks_to_the_container", |node| Box::pin(streams::attach(node))),
    ("a_new_daemon_takes_over", |node| Box::pin(restart::a_new_daemon_takes_over(node))),
    ("the_first_release_is_taken_over", |node| Box::pin(upgrade::first_release(node))),
    ("damaged_records_are_made_up_for", |node| Box::pin(upgrade::damaged_records(node))),
    ("newer_records_are_refused", |node| Box::pin(upgrade::newer_records(node))),
    ("a_pod_that_cannot_be_looked_into_is_left_alone", |node| Box::pin(upgrade::left_alone(node))),
    ("a_dead_shim_is_noticed", |node| Box::pin(restart::a_dead_shim_is_noticed(node))),
    ("a_pod_ends_with_its_pause_process_and_comes_back", |node| Box::pin(restart::pause_killed(node))),
    ("a_shim_without_its_socket_is_not_taken_for_gone", |node| Box::pin(lost::missing_socket(node))),
    ("a_broken_connection_is_made_again", |node| Box::pin(lost::broken_connection(node))),
    ("a_pod_that_cannot_be_reached_again_can_be_deleted", |node| Box::pin(lost::out_of_reach(node))),
    ("shims_that_hang_are_waited_for_together", |node| Box::pin(lost::hanging_shims(node))),
    ("a_silent_shim_is_killed_with_its_pod_alone", |node| Box::pin(lost::silent_shim(node))),
    ("the_clock_of_a_kill_goes_on_in_a_new_daemon", |node| Box::pin(restart::stopping_goes_on(node))),
    ("why_a_pod_ends_is_known_to_a_new_daemon", |node| Box::pin(restart::verdict_goes_on(node))),
    ("pinned_images_are_told", |node| Box::pin(mounts::pinned_images(node))),
    ("images_come_from_mirrors", |node| Box::pin(registry::images_come_from_mirrors(node))),
    ("twenty_sandboxes_at_once", |node| Box::pin(scale::twenty_sandboxes(node))),
    ("starts_are_fast_and_shims_small", |node| Box::pin(scale::figures(node))),
];

fn main() -> ExitCode {
    let mut args = std::env::args_os();
    let exe = args.next().unwrap_or_default();
    let args = args.collect::<Vec<_>>();
    if args.first().is_some_and(|arg| arg == "shim") {
        let first = Path::new(&exe).ends_with(fixture::FIRST_RELEASE);
        let code = if first { runtime::shim_main_of(&args[1..], 1) } else { runtime::shim_main(&args[1..]) };
        return u8::try_from(code).map_or(ExitCode::FAILURE, ExitCode::from);
    }
    if let Some(reason) = fixture::missing() {
        println!("skipped: {reason}");
        return ExitCode::SUCCESS;
    }
    let filter = args.iter().filter_map(|arg| arg.to_str()).find(|arg| !arg.starts_with('-'));
    let chosen = TESTS.iter().filter(|(name, _)| filter.is_none_or(|filter| name.contains(filter)));
    let failed = chosen.filter(|(name, test)| !fixture::run(name, *test)).count();
    println!("{failed} failed");
    if failed == 0 { ExitCode::SUCCESS } else { ExitCode::FAILURE }
}
