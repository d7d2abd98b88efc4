//! `coracle check`: tells whether this machine is fit to run pods, and what to do where it is not; and
//! whether what a server keeps on it is whole.

mod state;

use std::path::{Path, PathBuf};
use std::process::ExitCode;

use clap::Args as ClapArgs;
use jiff::Timestamp;

use crate::config::ServerOptions;

#[derive(ClapArgs)]
pub(crate) struct Args {
    /// Configuration file that says where the data directory is [default: /etc/coracle/config.yaml]
    #[arg(long, value_name = "FILE")]
    config: Option<PathBuf>,
    /// The data directory whose state is looked at [default: /var/lib/coracle]
    #[arg(long, value_name = "DIR")]
    data_dir: Option<PathBuf>,
    /// Say nothing about what is in order
    #[arg(short, long)]
    quiet: bool,
}

/// One finding; `Err` says what is wrong and what helps.
struct Finding {
    what: &'static str,
    result: Result<String, String>,
    /// Pods cannot run without it.
    needed: bool,
}

#[expect(clippy::print_stdout, reason = "a subcommand prints")]
pub(crate) fn run(args: &Args) -> anyhow::Result<ExitCode> {
    let mut fit = true;
    let options = ServerOptions { config: args.config.clone(), data_dir: args.data_dir.clone(), ..<_>::default() };
    let options = options.with_file()?;
    let mut all = findings(Path::new("/"), Timestamp::now());
    all.extend(state::findings(options.data_dir()));
    for finding in all {
        match &finding.result {
            Ok(detail) if !args.quiet => println!("ok       {}: {detail}", finding.what),
            Ok(_) => {}
            Err(problem) => {
                fit &= !finding.needed;
                let word = if finding.needed { "missing " } else { "warning " };
                println!("{word} {}: {problem}", finding.what);
            }
        }
    }
    Ok(if fit { ExitCode::SUCCESS } else { ExitCode::FAILURE })
}

fn findings(root: &Path, now: Timestamp) -> Vec<Finding> {
    vec![
        Finding { what: "root", result: is_root(), needed: true },
        Finding { what: "cgroups", result: cgroups(root), needed: true },
        Finding { what: "overlayfs", result: filesystem(root, "overlay"), needed: true },
        Finding { what: "nf_tables", result: nf_tables(root), needed: true },
        Finding { what: "clock", result: clock(now), needed: false },
    ]
}

fn is_root() -> Result<String, String> {
    let uid = nix::unistd::geteuid();
    if uid.is_root() { Ok("yes".to_owned()) } else { Err(format!("running as user {uid}; pods need root")) }
}

/// Version 2 with its controllers, or version 1's hierarchies.
fn cgroups(root: &Path) -> Result<String, String> {
    let wanted = ["cpu", "memory", "pids"];
    let v2 = root.join("sys/fs/cgroup/cgroup.controllers");
    if let Ok(controllers) = std::fs::read_to_string(v2) {
        let has = |c: &&str| controllers.split_whitespace().any(|x| x == *c);
        let lacking: Vec<&str> = wanted.into_iter().filter(|c| !has(c)).collect();
        if lacking.is_empty() {
            return Ok("version 2".to_owned());
        }
        let help =
            if lacking.contains(&"memory") { "; add cgroup_enable=memory to the kernel's command line" } else { "" };
        return Err(format!("the controllers {} are not enabled{help}", lacking.join(", ")));
    }
    let lacking: Vec<&str> =
        wanted.into_iter().filter(|c| !root.join("sys/fs/cgroup").join(c).join("tasks").exists()).collect();
    if lacking.is_empty() { Ok("version 1".to_owned()) } else { Err(format!("{} not mounted", lacking.join(", "))) }
}

fn filesystem(root: &Path, name: &str) -> Result<String, String> {
    let known =
        std::fs::read_to_string(root.join("proc/filesystems")).map_err(|e| format!("/proc/filesystems: {e}"))?;
    if known.split_whitespace().any(|f| f == name) {
        Ok("in the kernel".to_owned())
    } else if has_module(root, name) {
        Ok(AS_MODULE.to_owned())
    } else {
        Err(format!("neither in the kernel nor a module of it; is {name} left out?"))
    }
}

fn nf_tables(root: &Path) -> Result<String, String> {
    // The per-netns sysctl of netfilter is there as soon as connection tracking is.
    if root.join("proc/sys/net/netfilter/nf_conntrack_max").exists() {
        Ok("with connection tracking".to_owned())
    } else if has_module(root, "nf_tables") && has_module(root, "nf_conntrack") {
        Ok(AS_MODULE.to_owned())
    } else {
        Err("connection tracking is neither in the kernel nor a module of it".to_owned())
    }
}

const AS_MODULE: &str = "as a module, loaded when it is first used";

/// Whether the running kernel has it as a module; its file may be compressed.
fn has_module(root: &Path, name: &str) -> bool {
    let release = std::fs::read_to_string(root.join("proc/sys/kernel/osrelease")).unwrap_or_default();
    let modules = std::fs::read_to_string(root.join("lib/modules").join(release.trim()).join("modules.dep"));
    let file = format!("/{name}.ko");
    modules.is_ok_and(|list| list.lines().filter_map(|line| line.split(':').next()).any(|path| path.contains(&file)))
}

/// A board without a battery-backed clock starts in 1970 until NTP has answered.
fn clock(now: Timestamp) -> Result<String, String> {
    let built: Timestamp = "2026-01-01T00:00:00Z".parse().map_err(|e| format!("{e}"))?;
    if now > built { Ok(now.to_string()) } else { Err(format!("it is {now} here; is there an NTP client?")) }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn tree(files: &[(&str, &str)]) -> tempfile::TempDir {
        let dir = tempfile::tempdir().unwrap();
        for (path, text) in files {
            let path = dir.path().join(path);
            std::fs::create_dir_all(path.parent().unwrap()).unwrap();
            std::fs::write(path, text).unwrap();
        }
        dir
    }

    #[test]
    fn a_pi_without_the_memory_controller_is_told_what_helps() {
        let dir = tree(&[("sys/fs/cgroup/cgroup.controllers", "cpuset cpu io pids")]);
        let problem = cgroups(dir.path()).unwrap_err();
        assert!(problem.contains("memory") && problem.contains("cgroup_enable=memory"), "{problem}");
    }

    #[test]
    fn both_versions_of_cgroups_are_known() {
        let v2 = tree(&[("sys/fs/cgroup/cgroup.controllers", "cpu memory pids")]);
        assert_eq!(cgroups(v2.path()), Ok("version 2".to_owned()));
        let v1 = tree(&[
            ("sys/fs/cgroup/cpu/tasks", ""),
            ("sys/fs/cgroup/memory/tasks", ""),
            ("sys/fs/cgroup/pids/tasks", ""),
        ]);
        assert_eq!(cgroups(v1.path()), Ok("version 1".to_owned()));
    }

    #[test]
    fn what_the_kernel_has_as_a_module_is_there() {
        let files = [
            ("proc/filesystems", "nodev\ttmpfs\n\text4\n"),
            ("proc/sys/kernel/osrelease", "6.12.1-v8\n"),
            (
                "lib/modules/6.12.1-v8/modules.dep",
                "kernel/fs/overlayfs/overlay.ko.xz:\nkernel/net/netfilter/nf_tables.ko.xz: kernel/lib/crc.ko.xz\n",
            ),
        ];
        let dir = tree(&files);
        assert_eq!(filesystem(dir.path(), "overlay"), Ok(AS_MODULE.to_owned()));
        assert_eq!(filesystem(dir.path(), "ext4"), Ok("in the kernel".to_owned()));
        assert!(filesystem(dir.path(), "crc").is_err());
        assert!(nf_tables(dir.path()).unwrap_err().contains("connection tracking"));
    }

    #[test]
    fn a_clock_before_this_release_is_doubted() {
        assert!(clock(Timestamp::UNIX_EPOCH).is_err());
    }
}
