//! Replaces the files of a volume all at once, as upstream's atomic writer does:
//!
//! ```text
//! volume/..2026_01_01_…/key     the files of one generation
//! volume/..data -> ..2026_01_01_…
//! volume/key -> ..data/key
//! ```
//!
//! A reader sees either the old or the new generation: the switch is the rename of one symlink.

use std::collections::BTreeSet;
use std::fs::{self, DirBuilder, OpenOptions, Permissions};
use std::io::{self, Read as _, Write as _};
use std::os::unix::fs::{DirBuilderExt, OpenOptionsExt, PermissionsExt, symlink};
use std::path::{Path, PathBuf};

use jiff::Timestamp;

use super::ownership::{self, FsGroup, apply_to_file};
use super::payload::Payload;

const DATA: &str = "..data";
const DATA_NEW: &str = "..data_tmp";

/// Makes `payload` the content of the directory `target`, and `group` the owner of all of it.
///
/// # Errors
/// When the file system refuses. Either the old generation is still in place then, or the next call
/// completes what this one began.
pub(crate) fn write(target: &Path, payload: &Payload, group: Option<FsGroup>, now: Timestamp) -> io::Result<()> {
    let current = match fs::read_link(target.join(DATA)).ok() {
        Some(old) if holds(&target.join(&old), payload)? => old,
        Some(_) | None => PathBuf::from(replace(target, payload, group, now)?),
    };
    show(target, payload)?;
    clear(target, payload, &current)
}

/// Writes the next generation and switches to it, complete and with its owner. Returns its name.
fn replace(target: &Path, payload: &Payload, group: Option<FsGroup>, now: Timestamp) -> io::Result<String> {
    let name = format!("..{}.{}", now.strftime("%Y_%m_%d_%H_%M_%S"), now.subsec_nanosecond().unsigned_abs());
    let generation = target.join(&name);
    let written = write_generation(&generation, payload, group);
    written.and_then(|()| group.map_or(Ok(()), |group| ownership::apply(target, group))).inspect_err(|_| {
        // On a full disk each try would leave one more. What resists goes with the next generation.
        let _ = runtime::remove_tree(&generation);
    })?;
    let link = target.join(DATA_NEW);
    runtime::remove_tree(&link)?;
    symlink(&name, &link)?;
    fs::rename(&link, target.join(DATA))?;
    Ok(name)
}

fn top(path: &str) -> &str {
    path.split('/').next().unwrap_or(path)
}

/// Links every name into the current generation. A `subPath` whose key was not there has made a directory
/// in its place, as upstream's does: the containers that mount it keep it, the volume shows the key.
fn show(target: &Path, payload: &Payload) -> io::Result<()> {
    let wanted: BTreeSet<&str> = payload.files().keys().map(|path| top(path)).collect();
    for top in wanted {
        let (visible, link) = (target.join(top), Path::new(DATA).join(top));
        if fs::read_link(&visible).is_ok_and(|there| there == link) {
            continue;
        }
        runtime::remove_tree(&visible)?;
        symlink(link, &visible)?;
    }
    Ok(())
}

/// Removes names that no key has any more, and generations before the current one.
fn clear(target: &Path, payload: &Payload, current: &Path) -> io::Result<()> {
    let wanted: BTreeSet<&str> = payload.files().keys().map(|path| top(path)).collect();
    for entry in fs::read_dir(target)? {
        let entry = entry?;
        let name = entry.file_name();
        let shown = name.to_string_lossy();
        let old = shown.starts_with("..2") && Path::new(&name) != current;
        if old || !shown.starts_with("..") && !wanted.contains(&*shown) {
            runtime::remove_tree(&entry.path())?;
        }
    }
    Ok(())
}

fn write_generation(dir: &Path, payload: &Payload, group: Option<FsGroup>) -> io::Result<()> {
    DirBuilder::new().mode(0o755).create(dir)?;
    fs::set_permissions(dir, Permissions::from_mode(0o755))?;
    for (path, file) in payload.files() {
        let full = dir.join(path);
        if let Some(parent) = full.parent() {
            DirBuilder::new().recursive(true).mode(0o755).create(parent)?;
        }
        let mut out = OpenOptions::new().write(true).create_new(true).mode(0o600).open(&full)?;
        out.write_all(&file.data)?;
        // Permissions are set explicitly because the umask does not concern them.
        out.set_permissions(Permissions::from_mode(file.mode))?;
        apply_to_file(&full, file.mode, file.uid, group)?;
    }
    Ok(())
}

/// Whether that generation has exactly these files with this content and these modes.
fn holds(dir: &Path, payload: &Payload) -> io::Result<bool> {
    for (path, file) in payload.files() {
        let full = dir.join(path);
        match read_same_length(&full, file.data.len()) {
            Ok(Some(data)) if data == file.data => {}
            Ok(_) => return Ok(false),
            Err(e) if matches!(e.kind(), io::ErrorKind::NotFound | io::ErrorKind::NotADirectory) => return Ok(false),
            Err(e) => return Err(e),
        }
        if fs::metadata(&full)?.permissions().mode() & 0o777 & !0o440 != file.mode & 0o777 & !0o440 {
            return Ok(false);
        }
    }
    Ok(count_files(dir)? == payload.files().len())
}

/// Nobody but the kubelet writes there; still no more is read than is compared.
fn read_same_length(path: &Path, length: usize) -> io::Result<Option<Vec<u8>>> {
    let file = fs::File::open(path)?;
    if file.metadata()?.len() != length as u64 {
        return Ok(None);
    }
    let mut data = Vec::with_capacity(length);
    file.take(length as u64).read_to_end(&mut data)?;
    Ok(Some(data))
}

fn count_files(dir: &Path) -> io::Result<usize> {
    let mut count = 0;
    for entry in fs::read_dir(dir)? {
        let entry = entry?;
        count += if entry.file_type()?.is_dir() { count_files(&entry.path())? } else { 1 };
    }
    Ok(count)
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::os::unix::fs::MetadataExt as _;

    fn payload(files: &[(&str, &str)]) -> Payload {
        let mut out = Payload::default();
        for (path, data) in files {
            out.add(path, data.as_bytes().to_vec().into(), 0o640).unwrap();
        }
        out
    }

    fn at(second: i64) -> Timestamp {
        Timestamp::from_second(1_800_000_000 + second).unwrap()
    }

    fn visible(dir: &Path) -> Vec<String> {
        let mut names: Vec<_> =
            fs::read_dir(dir).unwrap().map(|e| e.unwrap().file_name().into_string().unwrap()).collect();
        names.retain(|n| !n.starts_with(".."));
        names.sort();
        names
    }

    fn generations(dir: &Path) -> Vec<String> {
        let names = fs::read_dir(dir).unwrap().map(|e| e.unwrap().file_name().into_string().unwrap());
        names.filter(|n| n.starts_with("..2")).collect()
    }

    #[test]
    fn a_generation_replaces_the_one_before() {
        let dir = tempfile::tempdir().unwrap();
        let root = dir.path();
        write(root, &payload(&[("a", "1"), ("sub/b", "2")]), None, at(0)).unwrap();
        assert_eq!(fs::read_to_string(root.join("sub/b")).unwrap(), "2");
        assert_eq!(fs::read_link(root.join("a")).unwrap(), Path::new("..data/a"));
        assert_eq!(fs::metadata(root.join("a")).unwrap().permissions().mode() & 0o777, 0o640);
        let first = generations(root);
        write(root, &payload(&[("a", "1"), ("sub/b", "2")]), None, at(1)).unwrap();
        assert_eq!(generations(root), first, "nothing has changed");
        write(root, &payload(&[("a", "changed"), ("c", "3")]), None, at(2)).unwrap();
        assert_eq!(visible(root), ["a", "c"]);
        assert_eq!(fs::read_to_string(root.join("a")).unwrap(), "changed");
        assert_eq!(generations(root).len(), 1);
        assert_ne!(generations(root), first);
    }

    #[test]
    fn a_left_over_temporary_link_does_not_matter() {
        let dir = tempfile::tempdir().unwrap();
        symlink("nowhere", dir.path().join(DATA_NEW)).unwrap();
        write(dir.path(), &payload(&[("a", "1")]), None, at(0)).unwrap();
        assert_eq!(visible(dir.path()), ["a"]);
    }

    #[test]
    fn an_empty_payload_is_an_empty_volume() {
        let dir = tempfile::tempdir().unwrap();
        write(dir.path(), &payload(&[("a", "1")]), None, at(0)).unwrap();
        write(dir.path(), &Payload::default(), None, at(1)).unwrap();
        assert!(visible(dir.path()).is_empty());
    }

    #[test]
    fn directories_of_sub_paths_without_a_key_hold_no_update_up() {
        let dir = tempfile::tempdir().unwrap();
        let root = dir.path();
        write(root, &payload(&[("a", "1"), ("d/b", "2")]), None, at(0)).unwrap();
        for missing in ["later", "never/below", "d/beside"] {
            fs::create_dir_all(root.join(missing)).unwrap();
        }
        write(root, &payload(&[("a", "2"), ("d/b", "2"), ("later", "3")]), None, at(1)).unwrap();
        assert_eq!(visible(root), ["a", "d", "later"]);
        assert_eq!(fs::read_to_string(root.join("later")).unwrap(), "3");
        assert_eq!(generations(root).len(), 1);
    }

    #[test]
    fn an_update_that_was_interrupted_is_completed() {
        let dir = tempfile::tempdir().unwrap();
        let root = dir.path();
        write(root, &payload(&[("a", "1")]), None, at(0)).unwrap();
        let next = payload(&[("b", "2")]);
        replace(root, &next, None, at(1)).unwrap();
        assert_eq!((visible(root), generations(root).len()), (vec!["a".to_owned()], 2), "after the switch");
        write(root, &next, None, at(2)).unwrap();
        assert_eq!((visible(root), generations(root).len()), (vec!["b".to_owned()], 1));
    }

    #[test]
    fn a_generation_has_its_group_before_it_is_seen() {
        if !nix::unistd::geteuid().is_root() {
            println!("skipped: giving files away takes root");
            return;
        }
        let dir = tempfile::tempdir().unwrap();
        let group = FsGroup { gid: 4321, read_only: true, on_root_mismatch: false };
        replace(dir.path(), &payload(&[("d/a", "1")]), Some(group), at(0)).unwrap();
        let meta = fs::metadata(dir.path().join("..data/d")).unwrap();
        assert_eq!((meta.gid(), meta.permissions().mode() & 0o2770), (4321, 0o2750));
    }
}
