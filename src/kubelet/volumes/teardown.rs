//! Takes a pod's directories away: first every mount below the one on the disk, then the files.

use std::io;
use std::path::{Path, PathBuf};

use nix::mount::{MntFlags, umount2};

use super::memory;

/// Unmounts what is mounted below `dir` and removes it, and what the pod has in memory. Nothing is deleted while anything is still
/// mounted there: a bind mount leads to data that outlives the pod.
///
/// # Errors
/// When a mount stays or the file system refuses.
pub(crate) fn remove_pod_dir(dir: &Path) -> io::Result<()> {
    // Before the directory on the disk, by which a pod is found that another daemon left.
    runtime::remove_tree(&memory::dir_of_pod(dir))?;
    if !dir.exists() {
        return Ok(());
    }
    let mounts = mounts_below(dir)?;
    for mount in mounts.iter().rev() {
        umount2(mount, MntFlags::MNT_DETACH | MntFlags::UMOUNT_NOFOLLOW)?;
    }
    if !mounts.is_empty()
        && let Some(left) = mounts_below(dir)?.first()
    {
        return Err(io::Error::other(format!("{} is still mounted", left.display())));
    }
    runtime::remove_tree(dir)
}

/// Mount points below `dir`, in the order in which they were made.
fn mounts_below(dir: &Path) -> io::Result<Vec<PathBuf>> {
    let dir = dir.canonicalize()?;
    let mut points = runtime::mount_points()?;
    points.retain(|point| point.starts_with(&dir));
    Ok(points)
}
