//! Directories for volumes, and the tmpfs that keeps secrets off the disk.

use std::fs::{self, DirBuilder, Permissions};
use std::io;
use std::os::unix::fs::{DirBuilderExt, MetadataExt, PermissionsExt};
use std::path::{Path, PathBuf};

use nix::sys::statvfs::statvfs;
use parking_lot::Mutex;

/// Held while the tmpfs is looked for and mounted: the second of two would hide what is in the first.
static MOUNTING: Mutex<()> = Mutex::new(());

/// What a pod usually has in memory: a token, certificates, a few passwords.
const USUAL: usize = 256 * 1024;
/// The part of the tmpfs that is left to pods that have no more than that. The kernel gives it half of the memory: on
/// a board of 512 MiB the part has room for a full node of such pods.
const RESERVED: u64 = 4;

/// Makes a directory of that mode, the ones above it for root alone.
pub(super) fn make_dir(dir: &Path, mode: u32) -> io::Result<()> {
    if !dir.is_dir() {
        DirBuilder::new().recursive(true).mode(0o700).create(dir)?;
        fs::set_permissions(dir, Permissions::from_mode(mode))?;
    }
    Ok(())
}

/// Only for directories on whose parent nothing else is bound.
pub(crate) fn is_mount_point(dir: &Path) -> io::Result<bool> {
    let parent = dir.parent().unwrap_or(dir);
    Ok(fs::metadata(dir)?.dev() != fs::metadata(parent)?.dev())
}

/// Where the files of a pod are that must not touch the disk: in one tmpfs, since each mount costs all that
/// starts on the node. What a pod may put there is limited (`payload`).
pub(super) fn dir_of_pod(pod_dir: &Path) -> PathBuf {
    let root = pod_dir.parent().and_then(Path::parent).unwrap_or(pod_dir);
    root.join("secrets").join(pod_dir.file_name().unwrap_or_default())
}

/// Makes a volume's directory in memory.
///
/// Releases before this one had the files in `on_disk`, in a tmpfs of the volume's own, and earlier ones on the
/// disk itself. Such a tmpfs stays; files on the disk are removed when nothing uses them. A running container
/// goes on with either, since it would see nothing else.
///
/// # Errors
/// When the pod has more than usual there, by `bytes_of_pod`, and what is left is for others.
pub(super) fn prepare(pod_dir: &Path, on_disk: PathBuf, unused: bool, bytes_of_pod: usize) -> io::Result<PathBuf> {
    if on_disk.is_dir() {
        let in_use = !unused && fs::read_dir(&on_disk)?.next().is_some();
        if in_use || is_mount_point(&on_disk)? {
            return Ok(on_disk);
        }
        runtime::remove_tree(&on_disk)?;
    }
    let of_pod = dir_of_pod(pod_dir);
    let secrets = of_pod.parent().unwrap_or(&of_pod);
    if mount_secrets(secrets)? && !unused {
        tracing::warn!(
            directory = %secrets.display(),
            "mounted anew, since somebody unmounted it: pods that run keep the Secrets and tokens that they have; \
             delete them to give them current ones"
        );
    }
    if bytes_of_pod > USUAL {
        let room = statvfs(secrets)?;
        if leaves_too_little(room.blocks_available(), room.blocks(), room.fragment_size(), bytes_of_pod) {
            let why = "no space left for large Secrets and ConfigMaps in the node's memory";
            return Err(io::Error::new(io::ErrorKind::StorageFull, why));
        }
    }
    let below = on_disk.strip_prefix(pod_dir).unwrap_or(&on_disk);
    let dir = of_pod.join(below);
    make_dir(&dir, 0o755)?;
    Ok(dir)
}

fn leaves_too_little(available: u64, blocks: u64, block: u64, bytes: usize) -> bool {
    let left = (available * block).saturating_sub(bytes as u64);
    left < blocks * block / RESERVED
}

/// Whether it was not there.
fn mount_secrets(dir: &Path) -> io::Result<bool> {
    let _one = MOUNTING.lock();
    make_dir(dir, 0o700)?;
    if is_mount_point(dir)? {
        return Ok(false);
    }
    runtime::unswapped_tmpfs(dir, "mode=0700")?;
    Ok(true)
}

#[cfg(test)]
mod tests {
    use super::*;
    use nix::mount::umount;

    #[test]
    fn a_part_is_left_to_pods_with_little() {
        // 256 MiB in blocks of 4 KiB: 64 MiB stay.
        for (available, bytes, too_little) in
            [(65_536, 64 << 20, false), (24_576, 32 << 20, false), (24_576, 33 << 20, true), (100, 1 << 20, true)]
        {
            assert_eq!(leaves_too_little(available, 65_536, 4096, bytes), too_little, "{available} {bytes}");
        }
    }

    #[test]
    fn secrets_are_in_memory_and_old_files_on_disk_go() {
        if !nix::unistd::geteuid().is_root() {
            println!("skipped: mounting takes root");
            return;
        }
        let root = tempfile::tempdir().unwrap();
        let pod = root.path().join("pods/u1");
        let (old, new) = (pod.join("volumes/s"), root.path().join("secrets/u1/volumes/s"));
        let prepare = |unused| prepare(&pod, old.clone(), unused, 0).unwrap();
        assert_eq!(prepare(false), new);
        let mode = |path: &Path| fs::metadata(path).unwrap().permissions().mode() & 0o777;
        let modes = ["secrets", "secrets/u1", "secrets/u1/volumes/s"].map(|path| mode(&root.path().join(path)));
        assert_eq!(modes, [0o700, 0o700, 0o755]);
        fs::write(new.join("key"), "secret").unwrap();
        assert_eq!(prepare(false), new);
        assert!(new.join("key").exists(), "a second time changes nothing");
        let secrets = root.path().join("secrets");
        umount(&secrets).unwrap();
        assert_eq!(fs::read_dir(&secrets).unwrap().count(), 0, "nothing was on the disk");

        make_dir(&old, 0o755).unwrap();
        fs::write(old.join("key"), "of an earlier release").unwrap();
        assert_eq!(prepare(false), old, "a running container sees the directory");
        assert_eq!(prepare(true), new);
        assert!(!old.exists(), "the old files are gone");
        umount(&secrets).unwrap();

        make_dir(&old, 0o755).unwrap();
        runtime::unswapped_tmpfs(&old, "mode=0755").unwrap();
        assert_eq!((prepare(false), prepare(true)), (old.clone(), old.clone()), "a volume's own tmpfs stays");
        umount(&old).unwrap();
    }
}
