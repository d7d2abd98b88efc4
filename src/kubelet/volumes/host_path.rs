//! hostPath volumes: checks and creation by type.

use std::fs::{self, DirBuilder, OpenOptions};
use std::io;
use std::os::unix::fs::{DirBuilderExt, FileTypeExt, OpenOptionsExt};
use std::path::Path;

/// Checks that `path` is what `kind` says, making it for the types that end in `OrCreate`. The
/// error is the text of the event.
pub(crate) fn prepare(path: &Path, kind: Option<&str>) -> Result<(), String> {
    let kind = kind.unwrap_or_default();
    let found = fs::metadata(path);
    let missing = matches!(&found, Err(e) if e.kind() == io::ErrorKind::NotFound);
    let created = match kind {
        "" => return Ok(()),
        "DirectoryOrCreate" if missing => DirBuilder::new().recursive(true).mode(0o755).create(path),
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
        let text = prepare(&path("none"), Some("Directory")).unwrap_err();
        assert_eq!(text, format!("hostPath type check failed: {} is not a directory", path("none").display()));
    }
}
