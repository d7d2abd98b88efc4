//! In whose name a path of the node is asked: pods that use the same file system share its threads, so
//! that one which hangs takes its own share of them and no more.

use std::ffi::OsString;
use std::fs;
use std::path::{Component, Path, PathBuf};

/// As many as the kernel follows.
const LINKS_MAX: usize = 40;

/// The mount point that `path` leads to, unless that is the root. Blocks: only in the disk room, where it
/// waits for no file system but the root's.
pub(crate) fn owner(path: &Path) -> Option<String> {
    // What is not in the table counts as the root's.
    let points = runtime::mount_points().unwrap_or_default();
    mount_point(&points, path).map(|point| point.display().to_string())
}

/// Links are followed by hand on the root's file system alone: to look at another one would wait for it.
/// Behind a mount point the names decide.
fn mount_point<'a>(points: &'a [PathBuf], path: &Path) -> Option<&'a Path> {
    let mut left = parts(path);
    let mut at = PathBuf::from("/");
    let mut links = 0;
    while let Some(part) = left.pop() {
        if part == ".." {
            at.pop();
            continue;
        }
        at.push(part);
        if below(points, &at).is_some() {
            continue;
        }
        let Ok(target) = fs::read_link(&at) else { continue };
        links += 1;
        if links > LINKS_MAX {
            break;
        }
        if target.is_absolute() {
            at = PathBuf::from("/");
        } else {
            at.pop();
        }
        left.extend(parts(&target));
    }
    below(points, &at)
}

/// The last one first.
fn parts(path: &Path) -> Vec<OsString> {
    let names = path.components().rev().filter_map(|part| match part {
        Component::Normal(name) => Some(name.to_owned()),
        Component::ParentDir => Some(OsString::from("..")),
        Component::RootDir | Component::CurDir | Component::Prefix(_) => None,
    });
    names.collect()
}

/// The mount point that a path lies on by its name.
fn below<'a>(points: &'a [PathBuf], path: &Path) -> Option<&'a Path> {
    let above = points.iter().filter(|point| path.starts_with(point));
    above.max_by_key(|point| point.components().count()).map(PathBuf::as_path).filter(|point| point.parent().is_some())
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::os::unix::fs::symlink;

    #[test]
    fn pods_share_the_file_system_that_a_path_is_on() {
        let points = ["/", "/mnt", "/mnt/nas"].map(PathBuf::from);
        for (path, expected) in [
            ("/mnt/nas/media", Some("/mnt/nas")),
            ("/mnt/nas", Some("/mnt/nas")),
            ("/mnt/nasty", Some("/mnt")),
            ("/srv", None),
        ] {
            assert_eq!(mount_point(&points, Path::new(path)), expected.map(Path::new), "{path}");
        }
    }

    #[test]
    fn links_lead_to_the_file_system_behind_them() {
        let dir = tempfile::tempdir().unwrap();
        let root = dir.path().canonicalize().unwrap();
        let disk = root.join("disk");
        fs::create_dir_all(disk.join("inner")).unwrap();
        symlink(&disk, root.join("absolute")).unwrap();
        symlink("../disk/inner", disk.join("relative")).unwrap();
        symlink("disk/../absolute", root.join("twice")).unwrap();
        symlink("round", root.join("round")).unwrap();
        let points = [PathBuf::from("/"), disk.clone(), disk.join("inner")];
        for (path, expected) in [
            ("absolute/claims/a", Some(&points[1])),
            ("twice/inner/a", Some(&points[2])),
            ("disk/a", Some(&points[1])),
            // Not looked at: the disk may hang.
            ("disk/relative", Some(&points[1])),
            ("round/a", None),
            ("missing/a", None),
        ] {
            assert_eq!(mount_point(&points, &root.join(path)), expected.map(PathBuf::as_path), "{path}");
        }
    }
}
