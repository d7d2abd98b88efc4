use std::os::unix::fs::{FileTypeExt, MetadataExt, PermissionsExt};

use tar::{Builder, Header};

use super::*;

/// A layer being written, with entries as hostile as wanted.
struct Layer(Builder<Vec<u8>>);

impl Layer {
    fn new() -> Self {
        Self(Builder::new(Vec::new()))
    }

    fn entry(mut self, kind: EntryType, path: &str, link: &str, content: &[u8]) -> Self {
        let mut header = Header::new_gnu();
        header.set_entry_type(kind);
        header.set_mode(0o4755);
        header.set_uid(1000);
        header.set_gid(1001);
        header.set_mtime(1_000_000);
        header.set_size(content.len() as u64);
        // Set by hand: the builder refuses what an attacker would write.
        header.as_gnu_mut().unwrap().name[..path.len()].copy_from_slice(path.as_bytes());
        header.as_gnu_mut().unwrap().linkname[..link.len()].copy_from_slice(link.as_bytes());
        header.set_cksum();
        self.0.append(&header, content).unwrap();
        self
    }

    fn file(self, path: &str, content: &str) -> Self {
        self.entry(EntryType::Regular, path, "", content.as_bytes())
    }

    fn xattr(mut self, name: &str, value: &[u8]) -> Self {
        let key = format!("{XATTR_PREFIX}{name}");
        self.0.append_pax_extensions([(key.as_str(), value)]).unwrap();
        self
    }

    fn bytes(self) -> Vec<u8> {
        self.0.into_inner().unwrap()
    }
}

fn unpacked(layer: Layer) -> (tempfile::TempDir, Result<Unpacked, UnpackError>) {
    let dir = tempfile::tempdir().unwrap();
    fs::create_dir(dir.path().join("layer")).unwrap();
    let result = unpack(layer.bytes().as_slice(), &dir.path().join("layer"));
    (dir, result)
}

fn root() -> bool {
    let root = nix::unistd::geteuid().is_root();
    if !root {
        println!("skipped: changing owners and making device nodes take root");
    }
    root
}

#[test]
fn entries_arrive_with_owner_mode_times_and_attributes() {
    if !root() {
        return;
    }
    let layer = Layer::new()
        .entry(EntryType::Directory, "bin/", "", b"")
        .xattr("user.note", b"hello")
        .file("bin/tool", "content")
        .entry(EntryType::Link, "bin/same", "bin/tool", b"")
        .entry(EntryType::Symlink, "sbin", "bin", b"")
        .entry(EntryType::Fifo, "pipe", "", b"");
    let (dir, result) = unpacked(layer);
    assert_eq!(result.unwrap().bytes, 7);
    let at = |name: &str| dir.path().join("layer").join(name);
    let tool = fs::metadata(at("sbin/tool")).unwrap();
    assert_eq!((tool.uid(), tool.gid(), tool.mtime(), tool.nlink()), (1000, 1001, 1_000_000, 2));
    assert_eq!(tool.permissions().mode() & 0o7777, 0o4755);
    assert_eq!(fs::metadata(at("bin")).unwrap().mtime(), 1_000_000);
    assert_eq!(xattr::get(at("bin/tool"), "user.note").unwrap().as_deref(), Some(&b"hello"[..]));
    assert!(fs::metadata(at("pipe")).unwrap().file_type().is_fifo());
}

#[test]
fn whiteouts_become_overlay_marks() {
    if !root() {
        return;
    }
    let layer = Layer::new()
        .file("etc/.wh.passwd", "")
        .file("var/.wh..wh..opq", "")
        .file("var/.wh..wh.plnk", "")
        .file("etc/new", "x")
        .file("etc/.wh.new", "");
    let (dir, result) = unpacked(layer);
    result.unwrap();
    let at = |name: &str| dir.path().join("layer").join(name);
    let gone = fs::symlink_metadata(at("etc/passwd")).unwrap();
    assert!(gone.file_type().is_char_device() && gone.rdev() == 0);
    assert_eq!(xattr::get(at("var"), OPAQUE_ATTRIBUTE).unwrap().as_deref(), Some(&b"y"[..]));
    assert_eq!(fs::read_dir(at("var")).unwrap().count(), 0);
    assert_eq!(fs::read_to_string(at("etc/new")).unwrap(), "x", "a new file is not deleted by its own layer");
}

#[test]
fn nothing_is_written_outside() {
    if !root() {
        return;
    }
    let outside = |dir: &tempfile::TempDir| {
        fs::read_dir(dir.path()).unwrap().map(|entry| entry.unwrap().file_name()).collect::<Vec<_>>()
    };
    for hostile in [
        Layer::new().file("../evil", "x"),
        Layer::new().file("a/../../evil", "x"),
        Layer::new().entry(EntryType::Link, "hard", "../../../etc/passwd", b""),
        Layer::new().file("a/.wh...", ""),
        Layer::new().file("a/.wh..", ""),
        Layer::new().file("a/.wh.", ""),
    ] {
        let (dir, result) = unpacked(hostile);
        assert!(result.is_err());
        assert_eq!(outside(&dir), ["layer"]);
    }
    for confined in [
        Layer::new().entry(EntryType::Symlink, "out", "..", b"").file("out/evil", "x"),
        Layer::new().entry(EntryType::Symlink, "out", "/", b"").file("out/evil", "x"),
        Layer::new().file("/evil", "x"),
        Layer::new().entry(EntryType::Symlink, "evil", "/tmp/evil-target", b"").file("evil", "x"),
    ] {
        let (dir, result) = unpacked(confined);
        result.unwrap();
        assert_eq!(outside(&dir), ["layer"]);
        assert_eq!(fs::read_to_string(dir.path().join("layer/evil")).unwrap(), "x");
        assert!(!Path::new("/tmp/evil-target").exists());
    }
}

#[test]
fn an_image_cannot_forge_overlay_marks() {
    if !root() {
        return;
    }
    let layer = Layer::new().xattr("trusted.overlay.redirect", b"/etc").file("dir", "x");
    let (dir, result) = unpacked(layer);
    result.unwrap();
    assert_eq!(xattr::list(dir.path().join("layer/dir")).unwrap().count(), 0);
}

#[test]
fn the_digest_is_of_the_plain_archive_whatever_the_compression() {
    if !root() {
        return;
    }
    let plain = Layer::new().file("file", "content").bytes();
    let expected = format!("sha256:{}", hex::encode(Sha256::digest(&plain)));
    let mut gzip = flate2::write::GzEncoder::new(Vec::new(), flate2::Compression::fast());
    io::Write::write_all(&mut gzip, &plain).unwrap();
    let zstd = zstd::encode_all(plain.as_slice(), 1).unwrap();
    for bytes in [plain, gzip.finish().unwrap(), zstd] {
        let dir = tempfile::tempdir().unwrap();
        assert_eq!(unpack(bytes.as_slice(), dir.path()).unwrap().diff_id, expected);
        assert_eq!(fs::read_to_string(dir.path().join("file")).unwrap(), "content");
    }
    let dir = tempfile::tempdir().unwrap();
    assert!(unpack(&b"\x1f\x8bbroken"[..], dir.path()).is_err());
}
