//! The volumes that an image asks for (`VOLUME`): a writable directory of the container's own at each
//! path, filled with what the image has there, also below a root that is read-only.

use std::fs::{self, File, Metadata};
use std::io;
use std::os::fd::AsRawFd;
use std::os::unix::fs::{FileTypeExt, MetadataExt, PermissionsExt, lchown, symlink};
use std::path::{Path, PathBuf};

use nix::sys::stat::{Mode, SFlag, UtimensatFlags, mknod, utimensat};
use nix::sys::time::TimeSpec;

use super::destinations::plain;
use crate::contract::records::{ContainerPaths, ContainerRecord};
use crate::error::{IoContext, Result};
use crate::sys::rootdir::RootDir;
use crate::types::{Mount, Propagation};

/// Makes them, and returns where they are to be mounted. A volume of the pod's own at the same place wins.
pub(super) fn make(record: &ContainerRecord, paths: &ContainerPaths) -> Result<Vec<Mount>> {
    let rootfs = paths.rootfs();
    let mut mounts = Vec::<Mount>::new();
    for place in record.defaults.volumes.keys().filter_map(|path| place(path)) {
        let taken = |mount: &Mount| plain(&mount.container_path) == place;
        if record.config.mounts.iter().any(taken) || mounts.iter().any(taken) {
            continue;
        }
        let volume = paths.volumes().join(mounts.len().to_string());
        fs::create_dir_all(&volume).at("create", &volume)?;
        fill(&rootfs, &place, &volume).at("fill the volume", &volume)?;
        mounts.push(Mount {
            host_path: volume,
            container_path: place,
            read_only: false,
            recursive_read_only: false,
            propagation: Propagation::Private,
        });
    }
    Ok(mounts)
}

/// An absolute path without detours; neither the root nor what the kernel shows is a volume.
fn place(path: &str) -> Option<PathBuf> {
    let place = plain(Path::new(path));
    let kernel = ["/proc", "/sys", "/dev"].iter().any(|dir| place.starts_with(dir));
    Some(place).filter(|place| !kernel && place != Path::new("/"))
}

fn fill(rootfs: &Path, place: &Path, volume: &Path) -> io::Result<()> {
    let root = RootDir::open(rootfs)?;
    let dir = match root.dir(place, false) {
        Ok(dir) => dir,
        // What the image does not have begins empty.
        Err(error) if matches!(error.kind(), io::ErrorKind::NotFound | io::ErrorKind::NotADirectory) => return Ok(()),
        Err(error) => return Err(error),
    };
    let from = Path::new("/proc/self/fd").join(dir.as_raw_fd().to_string()).join(".");
    copy_content(&from, volume)?;
    dress(&fs::metadata(&from)?, &from, volume)
}

/// Links are copied, not followed. Nothing else runs that could change the image meanwhile.
fn copy_content(from: &Path, to: &Path) -> io::Result<()> {
    for entry in fs::read_dir(from)? {
        let entry = entry?;
        let (source, target) = (entry.path(), to.join(entry.file_name()));
        let metadata = fs::symlink_metadata(&source)?;
        let kind = metadata.file_type();
        if kind.is_dir() {
            fs::create_dir(&target)?;
            copy_content(&source, &target)?;
        } else if kind.is_symlink() {
            symlink(fs::read_link(&source)?, &target)?;
        } else if kind.is_file() {
            io::copy(&mut File::open(&source)?, &mut File::create_new(&target)?)?;
        } else {
            let flag = match kind {
                kind if kind.is_char_device() => SFlag::S_IFCHR,
                kind if kind.is_block_device() => SFlag::S_IFBLK,
                kind if kind.is_fifo() => SFlag::S_IFIFO,
                // A socket is nothing without the process that made it.
                _ => continue,
            };
            mknod(&target, flag, Mode::empty(), metadata.rdev())?;
        }
        dress(&metadata, &source, &target)?;
    }
    Ok(())
}

/// Owner, mode, attributes and times, in the order in which none undoes another.
fn dress(metadata: &Metadata, from: &Path, to: &Path) -> io::Result<()> {
    lchown(to, Some(metadata.uid()), Some(metadata.gid()))?;
    if !metadata.file_type().is_symlink() {
        fs::set_permissions(to, fs::Permissions::from_mode(metadata.mode() & 0o7777))?;
        // A file system without attributes has none to lose.
        for name in xattr::list(from).into_iter().flatten() {
            if let Some(value) = xattr::get(from, &name)? {
                match xattr::set(to, &name, &value) {
                    Err(error) if error.raw_os_error() != Some(libc::ENOTSUP) => return Err(error),
                    Ok(()) | Err(_) => {}
                }
            }
        }
    }
    let time = TimeSpec::new(metadata.mtime(), metadata.mtime_nsec());
    utimensat(nix::fcntl::AT_FDCWD, to, &time, &time, UtimensatFlags::NoFollowSymlink)?;
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn volumes_are_at_plain_places() {
        for (path, expected) in [
            ("/data", Some("/data")),
            ("data/", Some("/data")),
            ("/a/../../b/./c", Some("/b/c")),
            ("/", None),
            ("", None),
            ("/a/..", None),
            ("/proc/x", None),
            ("/process", Some("/process")),
        ] {
            assert_eq!(place(path).as_deref(), expected.map(Path::new), "{path}");
        }
    }

    #[test]
    fn content_is_copied_as_it_is_and_links_lead_nowhere() {
        let dir = tempfile::tempdir().unwrap();
        let at = |name: &str| dir.path().join(name);
        fs::create_dir_all(at("root/srv/data/below")).unwrap();
        fs::write(at("secret"), "secret").unwrap();
        fs::write(at("root/srv/data/below/file"), "content").unwrap();
        fs::set_permissions(at("root/srv/data/below/file"), fs::Permissions::from_mode(0o4640)).unwrap();
        fs::set_permissions(at("root/srv/data"), fs::Permissions::from_mode(0o1777)).unwrap();
        symlink("/srv/data", at("root/link")).unwrap();
        symlink(at("secret"), at("root/srv/data/out")).unwrap();
        symlink("..", at("root/escape")).unwrap();
        for (place, name) in [("/srv/data", "one"), ("/link", "two")] {
            fs::create_dir(at(name)).unwrap();
            fill(&at("root"), Path::new(place), &at(name)).unwrap();
            assert_eq!(fs::metadata(at(name)).unwrap().mode() & 0o7777, 0o1777);
            assert_eq!(fs::read_to_string(at(name).join("below/file")).unwrap(), "content");
            assert_eq!(fs::metadata(at(name).join("below/file")).unwrap().mode() & 0o7777, 0o4640);
            assert_eq!(fs::read_link(at(name).join("out")).unwrap(), at("secret"));
        }
        fs::create_dir(at("three")).unwrap();
        fill(&at("root"), Path::new("/escape"), &at("three")).unwrap();
        assert!(!at("three/secret").exists(), "the root's parent is the root");
        fill(&at("root"), Path::new("/absent"), &at("three")).unwrap();
    }
}
