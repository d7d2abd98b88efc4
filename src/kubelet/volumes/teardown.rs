//! Takes a pod's directory away: first every mount below it, then the files.

use std::fs;
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
    let table = fs::read_to_string("/proc/self/mountinfo")?;
    Ok(mount_points(&table).filter(|m| m.starts_with(&dir)).collect())
}

/// The fifth field of each line of mountinfo, unescaped.
fn mount_points(table: &str) -> impl Iterator<Item = PathBuf> {
    table.lines().filter_map(|line| line.split(' ').nth(4)).map(unescape)
}

/// The kernel writes space, tab, newline and backslash as octal escapes.
fn unescape(field: &str) -> PathBuf {
    let mut out = String::with_capacity(field.len());
    let mut rest = field;
    while let Some(at) = rest.find('\\') {
        out.push_str(&rest[..at]);
        let code = rest.get(at + 1..at + 4).and_then(|o| u8::from_str_radix(o, 8).ok());
        match code {
            Some(code) => {
                out.push(char::from(code));
                rest = &rest[at + 4..];
            }
            None => {
                out.push('\\');
                rest = &rest[at + 1..];
            }
        }
    }
    out.push_str(rest);
    PathBuf::from(out)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn mount_points_are_unescaped() {
        let table = "36 35 98:0 /mnt1 /data/pods/a\\040b rw,noatime master:1 - ext3 /dev/root rw\n\
                     37 35 0:5 / /proc rw - proc proc rw\n";
        let got: Vec<_> = mount_points(table).collect();
        assert_eq!(got, [PathBuf::from("/data/pods/a b"), PathBuf::from("/proc")]);
    }
}
