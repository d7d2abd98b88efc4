//! Unpacks one layer of an image into a directory that overlayfs can use as a lower layer.
//!
//! A layer is hostile input: every path is resolved inside the directory, nothing is followed out of
//! it, and overlayfs' own marks are only ever set by us. Deletions (`.wh.name`) become character
//! devices 0/0, opaque directories (`.wh..wh..opq`) an extended attribute.
//!
//! Most layers name every directory that they put something into, and so mean the same whatever lies
//! below. Where one does not, its parents count: directories keep the owner and mode that they have
//! there, links to directories are followed, and hard links reach files of lower layers. Such a layer is
//! unpacked once more, through an overlay on its parents.

use std::collections::BTreeMap;
use std::ffi::{OsStr, OsString};
use std::fs::{self, File};
use std::io::{self, BufRead, BufReader, Read};
use std::os::fd::{AsFd, AsRawFd, OwnedFd};
use std::os::unix::ffi::OsStrExt;
use std::path::{Path, PathBuf};

use nix::errno::Errno;
use nix::fcntl::{AtFlags, OFlag, openat};
use nix::sys::stat::{Mode, SFlag, UtimensatFlags, fchmod, futimens, makedev, mkdirat, mknodat, utimensat};
use nix::sys::time::TimeSpec;
use nix::unistd::{Gid, LinkatFlags, Uid, UnlinkatFlags, fchown, fchownat, linkat, symlinkat, unlinkat};
use sha2::{Digest, Sha256};
use tar::{Entry, EntryType};
use xattr::FileExt;

use super::entries;
use crate::sys::mount::{self, Overlay};
use crate::sys::rootdir::{RootDir, relative};

const WHITEOUT: &[u8] = b".wh.";
const OPAQUE: &[u8] = b".wh..wh..opq";
const OPAQUE_ATTRIBUTE: &str = "trusted.overlay.opaque";
const XATTR_PREFIX: &str = "SCHILY.xattr.";
/// What the kernel takes.
const PATH_MAX: usize = 4 << 10;
/// Of memory for directories and deletions of a layer: some 300,000.
const KEPT_MAX: usize = 32 << 20;
/// About what each takes beside its name.
const KEPT_EACH: usize = 64;

/// What was unpacked.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Unpacked {
    /// Digest of the uncompressed archive.
    pub diff_id: String,
    /// Bytes of file content.
    pub bytes: u64,
    /// What came out depends on what lies below the layer.
    pub dependent: bool,
}

/// What a layer is unpacked onto.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Footing {
    /// Nothing: it is the lowest one of its image. Parents that it does not name are root's, mode 0755.
    Bottom,
    /// Something that is not looked at: it fails where that would matter.
    Alone,
    /// The merged view of the layers below; deletions are only noted.
    Merged,
}

/// A deletion in a layer that is unpacked onto its parents.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Deletion {
    parent: PathBuf,
    name: OsString,
}

#[derive(Debug, thiserror::Error)]
pub(crate) enum UnpackError {
    #[error("read layer: {0}")]
    Read(#[source] io::Error),
    #[error("layer entry {path:?} points outside the layer")]
    Escapes { path: PathBuf },
    #[error("unpack {path:?}: {source}")]
    Entry { path: PathBuf, source: io::Error },
    #[error("layer holds {path:?} of unsupported type '{}'", char::from(kind.as_byte()))]
    Kind { path: PathBuf, kind: EntryType },
    #[error("layer has too many directories and deletions, at {path:?}")]
    Kept { path: PathBuf },
    #[error("sync the layer: {0}")]
    Sync(#[source] io::Error),
    /// It cannot be unpacked alone.
    #[error("layer entry {path:?} needs what lies below the layer")]
    NeedsParents { path: PathBuf },
    #[error("put the layer onto its parents: {0}")]
    Parents(#[source] io::Error),
}

/// Unpacks a layer (plain, gzip or zstd) into the directory `into` and flushes it to the medium. The
/// deletions are those that are left to be made.
pub(crate) fn unpack(
    layer: impl Read,
    into: &Path,
    footing: Footing,
) -> Result<(Unpacked, Vec<Deletion>), UnpackError> {
    let mut stream = Hashing { inner: decompress(layer).map_err(UnpackError::Read)?, hash: Sha256::new() };
    let root = RootDir::open(into).map_err(|source| UnpackError::Entry { path: into.to_owned(), source })?;
    let mut unpacker = Unpacker {
        root,
        at: into,
        footing,
        dependent: false,
        directories: BTreeMap::new(),
        kept: 0,
        deletions: vec![],
        bytes: 0,
    };
    entries::each(&mut stream, UnpackError::Read, |entry| unpacker.place(entry))?;
    // The digest covers the padding behind the last entry too.
    io::copy(&mut stream, &mut io::sink()).map_err(UnpackError::Read)?;
    unpacker.finish()?;
    let Unpacker { bytes, dependent, deletions, .. } = unpacker;
    let diff_id = format!("sha256:{}", hex::encode(stream.hash.finalize()));
    Ok((Unpacked { diff_id, bytes, dependent: dependent || footing == Footing::Merged }, deletions))
}

/// Unpacks a layer onto those below it, of which there is at least one, lowest first: into `upper`, beside
/// which `scratch` is an empty directory.
pub(crate) fn unpack_onto(
    layer: impl Read + Send,
    layer_dir: &Path,
    layers: &[String],
    upper: &Path,
    scratch: &Path,
) -> Result<Unpacked, UnpackError> {
    let (work, merged) = (scratch.join("work"), scratch.join("merged"));
    for dir in [&work, &merged] {
        fs::create_dir(dir).map_err(UnpackError::Parents)?;
    }
    // As the kernel will name it.
    let merged = merged.canonicalize().map_err(UnpackError::Parents)?;
    let overlay = Overlay { layer_dir, layers, upper, work: &work };
    let unpacked = mount::in_private(|| {
        overlay.mount(&merged).map_err(UnpackError::Parents)?;
        unpack(layer, &merged, Footing::Merged)
    });
    let (unpacked, deletions) = unpacked.map_err(UnpackError::Parents)??;
    let root = RootDir::open(upper).map_err(UnpackError::Parents)?;
    for Deletion { parent, name } in deletions {
        let failed = |source: io::Error| UnpackError::Entry { path: parent.join(&name), source };
        let dir = root.dir(&parent, false).map_err(failed)?;
        let deleted = name.as_bytes().strip_prefix(WHITEOUT).unwrap_or_default();
        whiteout(&dir, &name, OsStr::from_bytes(deleted)).map_err(failed)?;
    }
    // The overlay was told not to.
    nix::unistd::syncfs(root.as_fd()).map_err(|error| UnpackError::Sync(error.into()))?;
    Ok(unpacked)
}

/// The plain stream, whatever the media type claims.
pub(crate) fn decompress<'a>(stream: impl Read + 'a) -> io::Result<Box<dyn Read + 'a>> {
    let mut stream = BufReader::with_capacity(64 * 1024, stream);
    let magic = stream.fill_buf()?;
    Ok(match magic {
        [0x1f, 0x8b, ..] => Box::new(flate2::bufread::MultiGzDecoder::new(stream)),
        [0x28, 0xb5, 0x2f, 0xfd, ..] => Box::new(zstd::Decoder::with_buffer(stream)?),
        _ => Box::new(stream),
    })
}

struct Hashing<R> {
    inner: R,
    hash: Sha256,
}

impl<R: Read> Read for Hashing<R> {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        let len = self.inner.read(buffer)?;
        self.hash.update(&buffer[..len]);
        Ok(len)
    }
}

struct Unpacker<'a> {
    root: RootDir,
    at: &'a Path,
    footing: Footing,
    dependent: bool,
    deletions: Vec<Deletion>,
    /// Their times are set last: filling a directory changes them.
    directories: BTreeMap<PathBuf, TimeSpec>,
    /// Bytes of memory that directories and deletions take.
    kept: usize,
    bytes: u64,
}

/// Who owns an entry and how it is marked.
struct Attributes {
    mode: Mode,
    uid: Uid,
    gid: Gid,
    mtime: TimeSpec,
    xattrs: Vec<(String, Vec<u8>)>,
}

impl Unpacker<'_> {
    fn place<R: Read>(&mut self, entry: &mut Entry<'_, R>) -> Result<(), UnpackError> {
        let path = entry.path().map_err(UnpackError::Read)?.into_owned();
        let plain = relative(&path).ok_or_else(|| UnpackError::Escapes { path: path.clone() })?;
        let failed = |source: io::Error| UnpackError::Entry { path: path.clone(), source };
        if path.as_os_str().len() > PATH_MAX {
            // Without the path: the text is to be read.
            return Err(UnpackError::Read(Errno::ENAMETOOLONG.into()));
        }
        let kind = entry.header().entry_type();
        if matches!(kind, EntryType::XGlobalHeader) {
            return Ok(());
        }
        let attributes = attributes(entry).map_err(failed)?;
        let Some(name) = plain.file_name().map(OsStr::to_owned) else {
            // `./`: the root of the layer.
            let root = self.root.dir(Path::new(""), false).map_err(failed)?;
            self.directories.insert(plain, attributes.mtime);
            return apply(root, &attributes).map_err(failed);
        };
        let Some(parent) = self.parent(&plain, &name)? else { return Ok(()) };
        if let Some(deleted) = name.as_bytes().strip_prefix(WHITEOUT) {
            if self.footing == Footing::Merged {
                let deletion = self.deletion(&parent, &name).map_err(failed)?;
                self.remember(&path, deletion.parent.as_os_str().len() + name.len())?;
                self.deletions.push(deletion);
                return Ok(());
            }
            return whiteout(&parent, &name, OsStr::from_bytes(deleted)).map_err(failed);
        }
        if kind != EntryType::Directory {
            clear(&parent, &name).map_err(failed)?;
        }
        match kind {
            EntryType::Regular | EntryType::Continuous | EntryType::GNUSparse => {
                self.bytes += write_file(&parent, &name, entry, &attributes).map_err(failed)?;
            }
            EntryType::Directory => {
                make_directory(&parent, &name, &attributes).map_err(failed)?;
                let bytes = plain.as_os_str().len();
                if self.directories.insert(plain, attributes.mtime).is_none() {
                    self.remember(&path, bytes)?;
                }
            }
            EntryType::Symlink => {
                let target = entry.link_name().map_err(failed)?.ok_or_else(|| failed(Errno::EINVAL.into()))?;
                symlinkat(&*target, &parent, name.as_os_str()).map_err(|error| failed(error.into()))?;
                own_link(&parent, &name, &attributes).map_err(failed)?;
            }
            EntryType::Link => {
                let target = entry.link_name().map_err(failed)?.ok_or_else(|| failed(Errno::EINVAL.into()))?;
                self.hard_link(&target, &parent, &name, &path)?;
            }
            EntryType::Char | EntryType::Block | EntryType::Fifo => {
                make_node(&parent, &name, kind, entry.header(), &attributes).map_err(failed)?;
            }
            kind => return Err(UnpackError::Kind { path, kind }),
        }
        Ok(())
    }

    /// Counts what is kept of an entry until the end.
    fn remember(&mut self, path: &Path, bytes: usize) -> Result<(), UnpackError> {
        self.kept += bytes + KEPT_EACH;
        if self.kept > KEPT_MAX {
            return Err(UnpackError::Kept { path: path.to_owned() });
        }
        Ok(())
    }

    /// The directory that an entry belongs into; `None` for a deletion where there is nothing.
    fn parent(&mut self, plain: &Path, name: &OsStr) -> Result<Option<OwnedFd>, UnpackError> {
        let path = plain.parent().unwrap_or(Path::new(""));
        let failed = |source: io::Error| UnpackError::Entry { path: plain.to_owned(), source };
        match self.root.dir(path, false) {
            Ok(dir) => return Ok(Some(dir)),
            Err(_) if self.footing == Footing::Alone => {
                return Err(UnpackError::NeedsParents { path: plain.to_owned() });
            }
            Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(failed(error)),
            Err(_) if self.footing == Footing::Merged && name.as_bytes().starts_with(WHITEOUT) => return Ok(None),
            Err(_) => self.dependent = true,
        }
        self.root.dir(path, true).map(Some).map_err(failed)
    }

    /// Where the deletion is to be made once the parents are gone. The directory moves into the layer,
    /// as it is.
    fn deletion(&self, parent: &OwnedFd, name: &OsStr) -> io::Result<Deletion> {
        let deleted = name.as_bytes().strip_prefix(WHITEOUT).unwrap_or_default();
        check_whiteout(name, OsStr::from_bytes(deleted))?;
        let mode = Mode::from_bits_truncate(nix::sys::stat::fstat(parent)?.st_mode);
        fchmod(parent, mode)?;
        let path = fs::read_link(Path::new("/proc/thread-self/fd").join(parent.as_raw_fd().to_string()))?;
        let path = path.strip_prefix(self.at).map_err(|_| io::Error::from(Errno::EXDEV))?;
        Ok(Deletion { parent: path.to_owned(), name: name.to_owned() })
    }

    fn hard_link(&self, target: &Path, parent: &OwnedFd, name: &OsStr, path: &Path) -> Result<(), UnpackError> {
        let failed = |source: io::Error| UnpackError::Entry { path: path.to_owned(), source };
        let plain = relative(target).ok_or_else(|| UnpackError::Escapes { path: target.to_owned() })?;
        let target_name = plain.file_name().ok_or_else(|| failed(Errno::EINVAL.into()))?;
        let from = self.root.dir(plain.parent().unwrap_or(Path::new("")), false);
        if self.footing == Footing::Merged
            && let Ok(from) = &from
        {
            // Opened for writing, a file of a lower layer comes up with its content. Links and nodes need
            // no such thing, and are not opened.
            let flags = OFlag::O_RDWR | OFlag::O_NOFOLLOW | OFlag::O_NONBLOCK | OFlag::O_CLOEXEC;
            let regular = nix::sys::stat::fstatat(from, target_name, AtFlags::AT_SYMLINK_NOFOLLOW)
                .is_ok_and(|found| SFlag::from_bits_truncate(found.st_mode) & SFlag::S_IFMT == SFlag::S_IFREG);
            if regular {
                openat(from, target_name, flags, Mode::empty()).map_err(|error| failed(error.into()))?;
            }
        }
        // Without following: a link to a link is a link.
        let linked = from.and_then(|from| Ok(linkat(&from, target_name, parent, name, LinkatFlags::empty())?));
        linked.map_err(|error| match error.kind() {
            io::ErrorKind::NotFound if self.footing == Footing::Alone => {
                UnpackError::NeedsParents { path: path.to_owned() }
            }
            _ => failed(error),
        })
    }

    fn finish(&self) -> Result<(), UnpackError> {
        for (path, mtime) in self.directories.iter().rev() {
            let set = || -> io::Result<()> {
                // It may have been replaced by something else since.
                if let Ok(dir) = self.root.dir(path, false) {
                    futimens(&dir, mtime, mtime)?;
                }
                Ok(())
            };
            set().map_err(|source| UnpackError::Entry { path: path.clone(), source })?;
        }
        nix::unistd::syncfs(self.root.as_fd()).map_err(|error| UnpackError::Sync(error.into()))
    }
}

fn attributes<R: Read>(entry: &mut Entry<'_, R>) -> io::Result<Attributes> {
    let mut xattrs = Vec::new();
    for extension in entry.pax_extensions()?.into_iter().flatten() {
        let extension = extension?;
        let Some(name) = extension.key().ok().and_then(|key| key.strip_prefix(XATTR_PREFIX)) else { continue };
        // overlayfs keeps its own marks there; an image must not forge them.
        if !name.starts_with("trusted.") {
            xattrs.push((name.to_owned(), extension.value_bytes().to_vec()));
        }
    }
    let header = entry.header();
    let id = |id: u64| u32::try_from(id).map_err(|_| io::Error::from(Errno::EOVERFLOW));
    let fields = header.as_old();
    let uid = if blank(&fields.uid) { 0 } else { header.uid()? };
    let gid = if blank(&fields.gid) { 0 } else { header.gid()? };
    let mtime = if blank(&fields.mtime) { 0 } else { header.mtime()? };
    Ok(Attributes {
        mode: Mode::from_bits_truncate(header.mode()? & 0o7777),
        uid: Uid::from_raw(id(uid)?),
        gid: Gid::from_raw(id(gid)?),
        mtime: TimeSpec::new(i64::try_from(mtime).unwrap_or(0), 0),
        xattrs,
    })
}

/// Some writers leave fields that are zero empty.
fn blank(field: &[u8]) -> bool {
    field.iter().all(|byte| matches!(byte, 0 | b' '))
}

/// Ownership first: changing it clears set-id bits and file capabilities.
fn apply(fd: OwnedFd, attributes: &Attributes) -> io::Result<()> {
    fchown(&fd, Some(attributes.uid), Some(attributes.gid))?;
    fchmod(&fd, attributes.mode)?;
    let file = File::from(fd);
    for (name, value) in &attributes.xattrs {
        match file.set_xattr(name, value) {
            // The file system may not know this family of attributes.
            Err(error) if error.raw_os_error() != Some(libc::ENOTSUP) => return Err(error),
            Ok(()) | Err(_) => {}
        }
    }
    futimens(&file, &attributes.mtime, &attributes.mtime)?;
    Ok(())
}

fn own_link(parent: &OwnedFd, name: &OsStr, attributes: &Attributes) -> io::Result<()> {
    fchownat(parent, name, Some(attributes.uid), Some(attributes.gid), AtFlags::AT_SYMLINK_NOFOLLOW)?;
    utimensat(parent, name, &attributes.mtime, &attributes.mtime, UtimensatFlags::NoFollowSymlink)?;
    Ok(())
}

fn write_file(parent: &OwnedFd, name: &OsStr, content: &mut impl Read, attributes: &Attributes) -> io::Result<u64> {
    let flags = OFlag::O_CREAT | OFlag::O_EXCL | OFlag::O_WRONLY | OFlag::O_NOFOLLOW | OFlag::O_CLOEXEC;
    let mut file = File::from(openat(parent, name, flags, Mode::from_bits_truncate(0o600))?);
    let bytes = io::copy(content, &mut file)?;
    apply(file.into(), attributes)?;
    Ok(bytes)
}

fn make_directory(parent: &OwnedFd, name: &OsStr, attributes: &Attributes) -> io::Result<()> {
    let open = || openat(parent, name, OFlag::O_DIRECTORY | OFlag::O_NOFOLLOW | OFlag::O_CLOEXEC, Mode::empty());
    let dir = match open() {
        Ok(dir) => dir,
        Err(Errno::ENOENT) => {
            mkdirat(parent, name, Mode::from_bits_truncate(0o700))?;
            open()?
        }
        Err(Errno::ENOTDIR | Errno::ELOOP) => {
            let deleted = is_whiteout(parent, name);
            clear(parent, name)?;
            mkdirat(parent, name, Mode::from_bits_truncate(0o700))?;
            let dir = open()?;
            if deleted {
                // What lower layers have there stays deleted.
                File::from(dir.try_clone()?).set_xattr(OPAQUE_ATTRIBUTE, b"y")?;
            }
            dir
        }
        Err(error) => return Err(error.into()),
    };
    apply(dir, attributes)
}

fn make_node(
    parent: &OwnedFd,
    name: &OsStr,
    kind: EntryType,
    header: &tar::Header,
    attributes: &Attributes,
) -> io::Result<()> {
    let (flag, numbered) = match kind {
        EntryType::Char => (SFlag::S_IFCHR, true),
        EntryType::Block => (SFlag::S_IFBLK, true),
        _ => (SFlag::S_IFIFO, false),
    };
    let major = if numbered { header.device_major()?.unwrap_or(0) } else { 0 };
    let minor = if numbered { header.device_minor()?.unwrap_or(0) } else { 0 };
    mknodat(parent, name, flag, attributes.mode, makedev(major.into(), minor.into()))?;
    own_link(parent, name, attributes)?;
    // mknod's mode passes through the umask.
    let mode = attributes.mode;
    nix::sys::stat::fchmodat(parent, name, mode, nix::sys::stat::FchmodatFlags::FollowSymlink)?;
    Ok(())
}

/// `.wh.name` deletes `name` of lower layers; other names that begin with two marks are left-overs of
/// an older file system and mean nothing.
fn whiteout(parent: &OwnedFd, name: &OsStr, deleted: &OsStr) -> io::Result<()> {
    if name.as_bytes() == OPAQUE {
        let dir = File::from(parent.try_clone()?);
        return dir.set_xattr(OPAQUE_ATTRIBUTE, b"y");
    }
    check_whiteout(name, deleted)?;
    if deleted.as_bytes().starts_with(WHITEOUT) {
        return Ok(());
    }
    match mknodat(parent, deleted, SFlag::S_IFCHR, Mode::empty(), makedev(0, 0)) {
        Ok(()) => Ok(()),
        // The layer itself has something new there: of a directory only what it puts in is seen.
        Err(Errno::EEXIST) => {
            let flags = OFlag::O_DIRECTORY | OFlag::O_NOFOLLOW | OFlag::O_CLOEXEC;
            match openat(parent, deleted, flags, Mode::empty()) {
                Ok(dir) => File::from(dir).set_xattr(OPAQUE_ATTRIBUTE, b"y"),
                Err(Errno::ENOTDIR | Errno::ELOOP) => Ok(()),
                Err(error) => Err(error.into()),
            }
        }
        Err(error) => Err(error.into()),
    }
}

fn check_whiteout(name: &OsStr, deleted: &OsStr) -> io::Result<()> {
    if name.as_bytes() != OPAQUE && (deleted.is_empty() || deleted == "." || deleted == "..") {
        return Err(Errno::EINVAL.into());
    }
    Ok(())
}

fn is_whiteout(parent: &OwnedFd, name: &OsStr) -> bool {
    nix::sys::stat::fstatat(parent, name, AtFlags::AT_SYMLINK_NOFOLLOW).is_ok_and(|found| {
        SFlag::from_bits_truncate(found.st_mode) & SFlag::S_IFMT == SFlag::S_IFCHR && found.st_rdev == 0
    })
}

/// Removes what an earlier entry put at this name.
fn clear(parent: &OwnedFd, name: &OsStr) -> io::Result<()> {
    match unlinkat(parent, name, UnlinkatFlags::NoRemoveDir) {
        Ok(()) | Err(Errno::ENOENT) => Ok(()),
        Err(Errno::EISDIR) => {
            // Removal of trees is safe against links, and the parent cannot be moved away.
            fs::remove_dir_all(Path::new("/proc/self/fd").join(parent.as_raw_fd().to_string()).join(name))
        }
        Err(error) => Err(error.into()),
    }
}

#[cfg(test)]
mod tests;
