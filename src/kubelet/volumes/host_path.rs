//! hostPath volumes: checks and creation by type.

use std::fs::{self, DirBuilder, OpenOptions, Permissions};
use std::io;
use std::os::unix::fs::{DirBuilderExt, FileTypeExt, OpenOptionsExt, PermissionsExt};
use std::path::Path;

/// Checks that `path` is what `kind` says, making it for the types that end in `OrCreate`. The
/// error is the text of the event.
pub(crate) fn prepare(path: &Path, kind: Option<&str>) -> Result<(), String> {
    let kind = kind.unwrap_or_default();
    let found = fs::metadata(path);
    let missing = matches!(&found, Err(e) if e.kind() == io::ErrorKind::NotFound);
    let created = match kind {
        "" => return Ok(()),
        "DirectoryOrCreate" if missing => make_dirs(path),
        "FileOrCreate" if missing => OpenOptions::new().create_new(true).write(true).mode(0o644).open(path).map(drop),
        _ => Ok(()),
    };
    created.map_err(|e| format!("hostPath type check failed: {e}"))?;
    let meta = match found {
        Ok(meta) => meta,
        Err(_) if missing && kind.ends_with("OrCreate") => return Ok(()),
        Err(_) => return Err(format!("hostPath type check failed: {} is not {}", path.display(), noun(kind))),
    };
    let file_type = meta.file_type();
    let fits = match kind {
        "Directory" | "DirectoryOrCreate" => file_type.is_dir(),
        "File" | "FileOrCreate" => file_type.is_file(),
        "Socket" => file_type.is_socket(),
        "CharDevice" => file_type.is_char_device(),
        "BlockDevice" => file_type.is_block_device(),
        other => return Err(format!("{other} is an invalid volume type")),
    };
    if fits { Ok(()) } else { Err(format!("hostPath type check failed: {} is not {}", path.display(), noun(kind))) }
}

/// Makes a directory of mode 0755 where nothing is, as container runtimes do for a volume without a
/// type that a container mounts.
pub(super) fn make_if_missing(path: &Path) -> Result<(), String> {
    match fs::metadata(path) {
        Ok(_) => return Ok(()),
        Err(e) if e.kind() == io::ErrorKind::NotFound => {}
        Err(e) => return Err(format!("failed to stat {path:?}: {e}")),
    }
    let made = make_dirs(path);
    made.map_err(|e| format!("failed to mkdir {path:?}: {e}"))
}

/// With that mode whatever the umask.
fn make_dirs(path: &Path) -> io::Result<()> {
    let mut missing: Vec<&Path> = path.ancestors().take_while(|p| !p.exists()).collect();
    DirBuilder::new().recursive(true).mode(0o755).create(path)?;
    missing.retain(|p| !p.as_os_str().is_empty());
    missing.into_iter().try_for_each(|p| fs::set_permissions(p, Permissions::from_mode(0o755)))
}

fn noun(kind: &str) -> &'static str {
    match kind {
        "Directory" | "DirectoryOrCreate" => "a directory",
        "Socket" => "a socket file",
        "CharDevice" => "a character device",
        "BlockDevice" => "a block device",
        _ => "a file",
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn types_are_checked_and_made() {
        let dir = tempfile::tempdir().unwrap();
        let path = |name: &str| dir.path().join(name);
        fs::write(path("file"), "").unwrap();
        for (name, kind, ok) in [
            ("none", "", true),
            ("none", "Directory", false),
            ("none", "File", false),
            ("new/dir", "DirectoryOrCreate", true),
            ("new/dir", "Directory", true),
            ("new/file", "FileOrCreate", true),
            ("new/file", "File", true),
            ("file", "Directory", false),
            ("file", "DirectoryOrCreate", false),
            ("file", "Socket", false),
        ] {
            assert_eq!(prepare(&path(name), Some(kind)).is_ok(), ok, "{name} {kind}");
        }
        assert!(!path("none").exists(), "a volume is made with the container that mounts it");
        let text = prepare(&path("none"), Some("Directory")).unwrap_err();
        assert_eq!(text, format!("hostPath type check failed: {} is not a directory", path("none").display()));
    }
    #[test]
    fn every_type_is_told_apart() {
        let dir = tempfile::tempdir().unwrap();
        let path = |name: &str| dir.path().join(name);
        fs::create_dir(path("dir")).unwrap();
        fs::write(path("file"), "").unwrap();
        drop(std::os::unix::net::UnixListener::bind(path("socket")).unwrap());
        std::os::unix::fs::symlink(path("dir"), path("link")).unwrap();
        std::os::unix::fs::symlink(path("nowhere"), path("dangling")).unwrap();
        let kinds = ["Directory", "DirectoryOrCreate", "File", "FileOrCreate", "Socket", "CharDevice", "BlockDevice"];
        for (name, fitting) in [
            (path("dir"), &["Directory", "DirectoryOrCreate"][..]),
            (path("link"), &["Directory", "DirectoryOrCreate"]),
            (path("file"), &["File", "FileOrCreate"]),
            (path("socket"), &["Socket"]),
            (Path::new("/dev/null").to_owned(), &["CharDevice"]),
        ] {
            let got: Vec<_> = kinds.into_iter().filter(|kind| prepare(&name, Some(kind)).is_ok()).collect();
            assert_eq!(got, fitting, "{}", name.display());
        }
        assert!(prepare(&path("dangling"), Some("DirectoryOrCreate")).is_err());
        assert_eq!(prepare(&path("dir"), Some("Any")).unwrap_err(), "Any is an invalid volume type");
    }

    #[test]
    fn a_path_without_a_type_is_made_with_its_container() {
        let dir = tempfile::tempdir().unwrap();
        let path = |name: &str| dir.path().join(name);
        make_if_missing(&path("a/b")).unwrap();
        for made in ["a", "a/b"] {
            assert_eq!(fs::metadata(path(made)).unwrap().permissions().mode() & 0o7777, 0o755, "{made}");
        }
        fs::write(path("file"), "kept").unwrap();
        make_if_missing(&path("file")).unwrap();
        assert_eq!(fs::read(path("file")).unwrap(), b"kept");
        assert!(make_if_missing(&path("file/below")).is_err());
    }
}
