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

use super::ownership::{FsGroup, apply_to_file};
use super::payload::Payload;

const DATA: &str = "..data";
const DATA_NEW: &str = "..data_tmp";

/// Makes `payload` the content of the directory `target`. Returns whether anything changed.
///
/// # Errors
/// When the file system refuses; the old generation is then still in place.
pub(crate) fn write(target: &Path, payload: &Payload, group: Option<FsGroup>, now: Timestamp) -> io::Result<bool> {
    let old = fs::read_link(target.join(DATA)).ok();
    if let Some(old) = &old
        && holds(&target.join(old), payload)?
    {
        return Ok(false);
    }
    let name = format!("..{}.{}", now.strftime("%Y_%m_%d_%H_%M_%S"), now.subsec_nanosecond().unsigned_abs());
    let generation = target.join(&name);
    write_generation(&generation, payload, group).inspect_err(|_| {
        // On a full disk each try would leave one more. What resists goes with the next generation.
        let _ = fs::remove_dir_all(&generation);
    })?;
    let link = target.join(DATA_NEW);
    remove_if_there(&link)?;
    symlink(&name, &link)?;
    fs::rename(&link, target.join(DATA))?;
    let wanted: BTreeSet<&str> = payload.files().keys().map(|p| p.split('/').next().unwrap_or(p)).collect();
    for top in &wanted {
        let visible = target.join(top);
        if fs::symlink_metadata(&visible).is_err() {
            symlink(PathBuf::from(DATA).join(top), &visible)?;
        }
    }
    for entry in fs::read_dir(target)? {
        let entry = entry?;
        let file_name = entry.file_name();
        let file_name = file_name.to_string_lossy();
        if !file_name.starts_with("..") && !wanted.contains(&*file_name) {
            fs::remove_file(entry.path())?;
        } else if file_name.starts_with("..2") && *file_name != *name {
            fs::remove_dir_all(entry.path())?;
        }
    }
    Ok(true)
}

fn remove_if_there(path: &Path) -> io::Result<()> {
    match fs::remove_file(path) {
        Err(e) if e.kind() != io::ErrorKind::NotFound => Err(e),
        _ => Ok(()),
    }
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

    fn payload(files: &[(&str, &str)]) -> Payload {
        let mut out = Payload::default();
        for (path, data) in files {
            out.add(path, data.as_bytes().to_vec(), 0o640).unwrap();
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

    #[test]
    fn a_generation_replaces_the_one_before() {
        let dir = tempfile::tempdir().unwrap();
        let root = dir.path();
        assert!(write(root, &payload(&[("a", "1"), ("sub/b", "2")]), None, at(0)).unwrap());
        assert_eq!(fs::read_to_string(root.join("sub/b")).unwrap(), "2");
        assert_eq!(fs::read_link(root.join("a")).unwrap(), Path::new("..data/a"));
        assert_eq!(fs::metadata(root.join("a")).unwrap().permissions().mode() & 0o777, 0o640);
        assert!(!write(root, &payload(&[("a", "1"), ("sub/b", "2")]), None, at(1)).unwrap());
        assert!(write(root, &payload(&[("a", "changed"), ("c", "3")]), None, at(2)).unwrap());
        assert_eq!(visible(root), ["a", "c"]);
        assert_eq!(fs::read_to_string(root.join("a")).unwrap(), "changed");
        let generations = fs::read_dir(root)
            .unwrap()
            .filter(|e| e.as_ref().unwrap().file_name().to_string_lossy().starts_with("..2"));
        assert_eq!(generations.count(), 1);
    }

    #[test]
    fn a_left_over_temporary_link_does_not_matter() {
        let dir = tempfile::tempdir().unwrap();
        symlink("nowhere", dir.path().join(DATA_NEW)).unwrap();
        assert!(write(dir.path(), &payload(&[("a", "1")]), None, at(0)).unwrap());
        assert_eq!(visible(dir.path()), ["a"]);
    }

    #[test]
    fn an_empty_payload_is_an_empty_volume() {
        let dir = tempfile::tempdir().unwrap();
        write(dir.path(), &payload(&[("a", "1")]), None, at(0)).unwrap();
        assert!(write(dir.path(), &Payload::default(), None, at(1)).unwrap());
        assert!(visible(dir.path()).is_empty());
    }
}
