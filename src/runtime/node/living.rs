//! Processes of a sandbox, found in /proc when neither its record nor its shim tells of them: its shim
//! by the directories that it was started with, the others by the containers' cgroups.

use std::collections::BTreeSet;
use std::ffi::OsString;
use std::fs;
use std::io::ErrorKind;
use std::os::unix::ffi::{OsStrExt, OsStringExt};
use std::path::{Path, PathBuf};

use nix::unistd::{Pid, getsid};

use crate::contract::records::SandboxPaths;
use crate::error::{IoContext, Result};
use crate::sys::pidfd::ProcessFd;

#[derive(Debug)]
pub(super) struct Living {
    pub fd: ProcessFd,
    /// The pod's cgroup, of a container's process.
    pub cgroup: Option<String>,
}

fn pids() -> Result<impl Iterator<Item = u32>> {
    let proc = Path::new("/proc");
    let entries = fs::read_dir(proc).at("list", proc)?;
    Ok(entries.flatten().filter_map(|entry| entry.file_name().to_str()?.parse().ok()))
}

/// A file that /proc has of a process; empty where that has ended. What cannot be read otherwise, such as for want of
/// descriptors, says nothing of whether it lives.
fn told_of(pid: u32, file: &str) -> Result<Vec<u8>> {
    let path = Path::new("/proc").join(pid.to_string()).join(file);
    match fs::read(&path) {
        Err(e) if e.kind() == ErrorKind::NotFound || e.raw_os_error() == Some(libc::ESRCH) => Ok(Vec::new()),
        read => read.at("read", &path),
    }
}

/// Empty of a process that is about to end, and of a kernel's thread.
fn command_line(pid: u32) -> Result<Vec<u8>> {
    told_of(pid, "cmdline")
}

/// The sandbox's shim itself, where it lives: of what it forks, which shows the same, none leads its session.
pub(super) fn shim(paths: &SandboxPaths) -> Result<Option<(u32, ProcessFd)>> {
    let ids = container_ids(paths);
    let leads = |pid: u32| -> Result<bool> {
        let pid_of = Pid::from_raw(pid.cast_signed());
        Ok(is_shim(&command_line(pid)?, paths)
            && getsid(Some(pid_of)) == Ok(pid_of)
            && belongs(pid, paths, &ids)? == Some(None))
    };
    for pid in pids()? {
        if !leads(pid)? {
            continue;
        }
        let Some(fd) = ProcessFd::open(pid).at("open a process of", &paths.data)? else { continue };
        // As in `processes`.
        if leads(pid)? {
            return Ok(Some((pid, fd)));
        }
    }
    Ok(None)
}

/// The data directories of all sandboxes whose shims, or what these forked, live.
pub(super) fn data_dirs() -> Result<BTreeSet<PathBuf>> {
    let dir = |command: Vec<u8>| {
        let mut args = command.split(|byte| *byte == 0).skip(1);
        let is_shim = args.next() == Some(b"shim");
        let dir = args.next().filter(|_| is_shim)?;
        Some(PathBuf::from(OsString::from_vec(dir.to_vec())))
    };
    pids()?.filter_map(|pid| command_line(pid).map(dir).transpose()).collect()
}

/// All that live now. The names of directories below the sandbox's are its containers' ids.
pub(super) fn processes(paths: &SandboxPaths) -> Result<Vec<Living>> {
    let ids = container_ids(paths);
    let mut found = Vec::new();
    for pid in pids()? {
        if belongs(pid, paths, &ids)?.is_none() {
            continue;
        }
        let Some(fd) = ProcessFd::open(pid).at("open a process of", &paths.data)? else { continue };
        // Looked at again: the number may have passed on before it was opened.
        let Some(cgroup) = belongs(pid, paths, &ids)? else { continue };
        if !fd.has_ended() {
            found.push(Living { fd, cgroup });
        }
    }
    Ok(found)
}

fn container_ids(paths: &SandboxPaths) -> BTreeSet<String> {
    let names = [&paths.data, &paths.run.join("containers"), &paths.state_root()].map(|dir| {
        let entries = fs::read_dir(dir).ok().into_iter().flatten().flatten();
        entries.filter_map(|entry| entry.file_name().into_string().ok()).collect::<Vec<_>>()
    });
    names.into_iter().flatten().filter(|name| name.len() == 64).collect()
}

/// `None` for a process of others; a container's comes with its pod's cgroup.
fn belongs(pid: u32, paths: &SandboxPaths, ids: &BTreeSet<String>) -> Result<Option<Option<String>>> {
    let cgroups = told_of(pid, "cgroup")?;
    let cgroups = String::from_utf8_lossy(&cgroups);
    if let Some(parent) = cgroups.lines().find_map(|line| pod_cgroup(line, ids)) {
        return Ok(Some(Some(parent.to_owned())));
    }
    Ok(is_shim(&command_line(pid)?, paths).then_some(None))
}

/// The part before a container's id in a line of /proc/PID/cgroup.
fn pod_cgroup<'a>(line: &'a str, ids: &BTreeSet<String>) -> Option<&'a str> {
    let path = line.splitn(3, ':').nth(2)?;
    let mut at = 0;
    for part in path.split('/') {
        if ids.contains(part) {
            return Some(path[..at].trim_matches('/'));
        }
        at += part.len() + 1;
    }
    None
}

/// `coracle shim DATA-DIR RUN-DIR`; those that it forks show the same.
fn is_shim(command: &[u8], paths: &SandboxPaths) -> bool {
    let args = command.split(|byte| *byte == 0).skip(1).take(3).collect::<Vec<_>>();
    args == [b"shim".as_slice(), paths.data.as_os_str().as_bytes(), paths.run.as_os_str().as_bytes()]
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_a_process_that_has_ended_says_nothing() {
        let own = std::process::id();
        assert!(!told_of(own, "cmdline").unwrap().is_empty());
        assert!(told_of(u32::MAX, "cmdline").unwrap().is_empty());
        // What cannot be read for another reason, here because it is a directory.
        assert!(told_of(own, "fd").is_err());
    }

    #[test]
    fn processes_are_told_by_cgroup_and_command_line() {
        let id = "a".repeat(64);
        let ids = BTreeSet::from([id.clone()]);
        for (line, expected) in [
            (format!("0::/kubepods/burstable/podu/{id}"), Some("kubepods/burstable/podu")),
            (format!("4:memory:/kubepods/podu/{id}/inner/x"), Some("kubepods/podu")),
            (format!("0::/kubepods/podu/{id}0"), None),
            ("0::/kubepods/podu".to_owned(), None),
            ("garbage".to_owned(), None),
        ] {
            assert_eq!(pod_cgroup(&line, &ids), expected, "{line}");
        }
        let paths = SandboxPaths { data: "/d/u".into(), run: "/r/u".into() };
        for (command, expected) in [
            (&b"/usr/bin/coracle\0shim\0/d/u\0/r/u\0"[..], true),
            (b"coracle\0shim\0/d/uu\0/r/u\0", false),
            (b"cat\0/d/u\0", false),
            (b"", false),
        ] {
            assert_eq!(is_shim(command, &paths), expected, "{}", String::from_utf8_lossy(command));
        }
    }
}
