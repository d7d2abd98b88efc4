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
    let result = unpack(layer.bytes().as_slice(), &dir.path().join("layer"), Footing::Bottom);
    (dir, result.map(|(unpacked, _)| unpacked))
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
fn long_names_are_read_and_endless_ones_are_not() {
    if !root() {
        return;
    }
    let name = format!("{}file", "n/".repeat(2000));
    let mut layer = Layer::new().file("first", "x");
    let mut header = Header::new_gnu();
    header.set_mode(0o644);
    header.set_size(1);
    header.set_entry_type(EntryType::Regular);
    layer.0.append_data(&mut header, &name, &b"x"[..]).unwrap();
    let (dir, result) = unpacked(layer);
    assert_eq!(result.unwrap().bytes, 2);
    let root = RootDir::open(&dir.path().join("layer")).unwrap();
    let deepest = root.dir(Path::new(&name).parent().unwrap(), false).unwrap();
    openat(&deepest, "file", OFlag::O_RDONLY, Mode::empty()).unwrap();
    let mut layer = Layer::new();
    layer.0.append_data(&mut header, "n/".repeat(2500) + "file", &b"x"[..]).unwrap();
    let error = unpacked(layer).1.unwrap_err().to_string();
    assert!(error.contains("File name too long"), "{error:.200}");
    assert!(error.len() < 200);
    for kind in [EntryType::GNULongName, EntryType::GNULongLink, EntryType::XHeader, EntryType::XGlobalHeader] {
        let (_dir, result) =
            unpacked(Layer::new().entry(kind, "././@LongLink", "", &vec![b'n'; 2 << 20]).file("x", ""));
        let expected = "read layer: invalid tar header: header field too long, the most are 1048576 bytes";
        assert!(result.as_ref().is_err_and(|error| error.to_string() == expected), "{kind:?}: {result:?}");
    }
    let (_dir, result) = unpacked(Layer::new().entry(EntryType::XGlobalHeader, "g", "", b"9 a=b\n").file("x", ""));
    assert!(result.is_ok());
}

#[test]
fn directories_are_remembered_once_each_and_not_without_end() {
    let dir = tempfile::tempdir().unwrap();
    let root = RootDir::open(dir.path()).unwrap();
    let (footing, directories) = (Footing::Bottom, BTreeMap::new());
    let at = dir.path();
    let mut unpacker =
        Unpacker { root, at, footing, dependent: false, directories, kept: 0, deletions: vec![], bytes: 0 };
    for _ in 0..KEPT_MAX / (1 << 20) {
        unpacker.remember(Path::new("a"), (1 << 20) - KEPT_EACH).unwrap();
    }
    let error = unpacker.remember(Path::new("a"), 0).unwrap_err();
    assert_eq!(error.to_string(), "layer has too many directories and deletions, at \"a\"");
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
        assert_eq!(unpack(bytes.as_slice(), dir.path(), Footing::Bottom).unwrap().0.diff_id, expected);
        assert_eq!(fs::read_to_string(dir.path().join("file")).unwrap(), "content");
    }
    let dir = tempfile::tempdir().unwrap();
    assert!(unpack(&b"\x1f\x8bbroken"[..], dir.path(), Footing::Bottom).is_err());
}

/// A base system with a merged /usr, whose owners and modes are those of `Layer::entry`.
fn base() -> Layer {
    Layer::new()
        .entry(EntryType::Directory, "usr/", "", b"")
        .entry(EntryType::Directory, "usr/bin/", "", b"")
        .file("usr/bin/sh", "shell")
        .entry(EntryType::Symlink, "bin", "usr/bin", b"")
        .entry(EntryType::Directory, "tmp/", "", b"")
        .file("tmp/old", "old")
        .entry(EntryType::Symlink, "tmp/link", "old", b"")
}

/// Puts `layer` onto `base` if it needs that, and looks at both through an overlay; whether it did.
fn onto_base<T: Send>(layer: Layer, look: impl FnOnce(&Path) -> T + Send) -> (bool, T) {
    let dir = tempfile::tempdir().unwrap();
    let at = |name: &str| {
        fs::create_dir(dir.path().join(name)).unwrap();
        dir.path().join(name)
    };
    let (lower, alone, upper, scratch, shown) = (at("lower"), at("alone"), at("upper"), at("scratch"), at("shown"));
    unpack(base().bytes().as_slice(), &lower, Footing::Bottom).unwrap();
    let bytes = layer.bytes();
    let names = vec!["lower".to_owned()];
    let (dependent, top) = match unpack(bytes.as_slice(), &alone, Footing::Alone) {
        Ok((unpacked, deletions)) => {
            assert!(!unpacked.dependent && deletions.is_empty());
            (false, "alone")
        }
        Err(UnpackError::NeedsParents { .. }) => {
            let unpacked = unpack_onto(bytes.as_slice(), dir.path(), &names, &upper, &scratch).unwrap();
            assert!(unpacked.dependent);
            assert_eq!(unpacked.diff_id, format!("sha256:{}", hex::encode(Sha256::digest(&bytes))));
            (true, "upper")
        }
        Err(error) => panic!("{error}"),
    };
    let seen = mount::in_private(|| {
        mount::mount_layers(dir.path(), &["lower".to_owned(), top.to_owned()], &shown).unwrap();
        look(&shown)
    });
    (dependent, seen.unwrap())
}

#[test]
fn directories_that_a_layer_does_not_name_stay_as_they_are_below() {
    if !root() {
        return;
    }
    let (dependent, ()) = onto_base(Layer::new().file("tmp/new", "new").file("bin/tool", "tool"), |root| {
        let tmp = fs::metadata(root.join("tmp")).unwrap();
        assert_eq!((tmp.uid(), tmp.gid(), tmp.mode() & 0o7777), (1000, 1001, 0o4755));
        assert_eq!(fs::read_to_string(root.join("tmp/old")).unwrap(), "old");
        assert_eq!(fs::read_link(root.join("bin")).unwrap(), Path::new("usr/bin"), "the link is not hidden");
        for (path, content) in [("bin/sh", "shell"), ("usr/bin/tool", "tool"), ("tmp/new", "new")] {
            assert_eq!(fs::read_to_string(root.join(path)).unwrap(), content);
        }
    });
    assert!(dependent);
}

#[test]
fn hard_links_reach_lower_layers() {
    if !root() {
        return;
    }
    let layer = Layer::new()
        .entry(EntryType::Link, "same", "usr/bin/sh", b"")
        .entry(EntryType::Link, "through", "bin/sh", b"")
        .entry(EntryType::Link, "link", "tmp/link", b"");
    let (dependent, ()) = onto_base(layer, |root| {
        for name in ["same", "through", "usr/bin/sh"] {
            let found = fs::metadata(root.join(name)).unwrap();
            assert_eq!((found.uid(), found.mode() & 0o7777, found.len()), (1000, 0o4755, 5), "{name}");
            assert_eq!(fs::read_to_string(root.join(name)).unwrap(), "shell");
        }
        assert_eq!(fs::read_link(root.join("link")).unwrap(), Path::new("old"));
    });
    assert!(dependent);
}

#[test]
fn deletions_are_made_where_the_parents_lead() {
    if !root() {
        return;
    }
    let gone = |root: &Path, path: &str| assert!(fs::symlink_metadata(root.join(path)).is_err(), "{path}");
    let (dependent, ()) = onto_base(Layer::new().file("bin/.wh.sh", "").file("tmp/.wh..wh..opq", ""), |root| {
        gone(root, "usr/bin/sh");
        gone(root, "tmp/old");
        assert_eq!(fs::metadata(root.join("tmp")).unwrap().uid(), 1000);
    });
    assert!(dependent);
    let (_, ()) = onto_base(Layer::new().file("nowhere/.wh.x", "").file("tmp/new", ""), |root| gone(root, "nowhere"));
    // A directory that is deleted and made anew, in either order, has only what is new.
    for layer in [
        Layer::new().file(".wh.tmp", "").entry(EntryType::Directory, "tmp/", "", b"").file("tmp/new", "new"),
        Layer::new().entry(EntryType::Directory, "tmp/", "", b"").file("tmp/new", "new").file(".wh.tmp", ""),
    ] {
        let (dependent, ()) = onto_base(layer, |root| {
            gone(root, "tmp/old");
            assert_eq!(fs::read_to_string(root.join("tmp/new")).unwrap(), "new");
        });
        assert!(!dependent);
    }
}

#[test]
fn a_layer_that_names_its_directories_means_the_same_anywhere() {
    if !root() {
        return;
    }
    let layer = Layer::new().entry(EntryType::Directory, "bin/", "", b"").file("bin/x", "x").file("y", "y");
    let (dependent, kind) = onto_base(layer, |root| fs::symlink_metadata(root.join("bin")).unwrap().is_dir());
    assert!(!dependent && kind);
}
