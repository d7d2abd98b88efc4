//! Takes a pod's directory away: first every mount below it, then the files.

use std::io;
use std::path::{Path, PathBuf};

use nix::mount::{MntFlags, umount2};

/// Unmounts what is mounted below `dir` and removes it. Nothing is deleted while anything is still
/// mounted there: a bind mount leads to data that outlives the pod.
///
/// # Errors
/// When a mount stays or the file system refuses.
pub(crate) fn remove_pod_dir(dir: &Path) -> io::Result<()> {
    if !dir.exists() {
        return Ok(());
    }
    for mount in mounts_below(dir)?.iter().rev() {
        umount2(mount, MntFlags::MNT_DETACH | MntFlags::UMOUNT_NOFOLLOW)?;
    }
    if let Some(left) = mounts_below(dir)?.first() {
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
