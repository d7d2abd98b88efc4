//! Mounting overlays and private tmpfs trees.

use std::collections::HashSet;
use std::ffi::CString;
use std::fs;
use std::io;
use std::os::fd::{AsRawFd, FromRawFd, OwnedFd};
use std::os::unix::ffi::OsStrExt;
use std::path::{Path, PathBuf};

use nix::mount::{MntFlags, MsFlags, mount, umount2};
use nix::sched::{CloneFlags, unshare};

/// mount(2) takes one page of options, with its terminating zero.
const MOUNT_OPTIONS_MAX: usize = 4095;

const FSCONFIG_SET_FLAG: libc::c_uint = 0;
const FSCONFIG_SET_STRING: libc::c_uint = 1;
const FSCONFIG_CMD_CREATE: libc::c_uint = 6;
const FSOPEN_CLOEXEC: libc::c_uint = 1;
const FSMOUNT_CLOEXEC: libc::c_uint = 1;
const MOVE_MOUNT_F_EMPTY_PATH: libc::c_uint = 4;

/// An overlay of image layers under a writable directory.
#[derive(Clone, Debug)]
pub(crate) struct Overlay<'a> {
    /// Directory that holds the layers; the names below are relative to it, which keeps them short.
    pub layer_dir: &'a Path,
    /// Lowest layer first, as an image lists them.
    pub layers: &'a [String],
    pub upper: &'a Path,
    pub work: &'a Path,
}

/// Mounts an image's layers, lowest first, at the empty directory `target`, to be looked at only.
pub(crate) fn mount_layers(layer_dir: &Path, layers: &[String], target: &Path) -> io::Result<()> {
    std::thread::scope(|scope| {
        // A thread with a working directory of its own, since the names are relative to it.
        let mounted = scope.spawn(|| {
            unshare(CloneFlags::CLONE_FS)?;
            std::env::set_current_dir(layer_dir)?;
            mount_lower(layers, target)
        });
        mounted.join().unwrap_or_else(|panic| std::panic::resume_unwind(panic))
    })
}

/// Runs `work` in a thread with mounts and a working directory of its own: what it mounts goes with it.
pub(crate) fn in_private<T: Send>(work: impl FnOnce() -> T + Send) -> io::Result<T> {
    std::thread::scope(|scope| {
        let done = scope.spawn(|| {
            unshare(CloneFlags::CLONE_NEWNS)?;
            mount(None::<&str>, "/", None::<&str>, MsFlags::MS_REC | MsFlags::MS_PRIVATE, None::<&str>)?;
            Ok(work())
        });
        done.join().unwrap_or_else(|panic| std::panic::resume_unwind(panic))
    })
}

fn mount_lower(layers: &[String], target: &Path) -> io::Result<()> {
    // The kernel wants two lower directories where there is no upper one; an empty one adds nothing.
    let bottom = target.to_str().ok_or(io::ErrorKind::InvalidFilename)?;
    let lower: Vec<&str> = topmost_first(layers).into_iter().chain([bottom]).collect();
    let options = format!("lowerdir={}", lower.join(":"));
    let flags = MsFlags::MS_RDONLY | MsFlags::MS_NOSUID | MsFlags::MS_NODEV | MsFlags::MS_NOEXEC;
    if options.len() <= MOUNT_OPTIONS_MAX {
        mount(Some("overlay"), target, Some("overlay"), flags, Some(options.as_str()))?;
        return Ok(());
    }
    let context = FsContext::open("overlay")?;
    context.set("source", "overlay")?;
    context.flag("ro")?;
    for layer in lower {
        context.set("lowerdir+", layer)?;
    }
    context.mount_at(target)?;
    mount(None::<&str>, target, None::<&str>, flags | MsFlags::MS_REMOUNT | MsFlags::MS_BIND, None::<&str>)?;
    Ok(())
}

/// Layers as overlayfs wants them. It refuses a directory that is named twice, and of an image's equal
/// layers the uppermost hides all below it.
fn topmost_first(layers: &[String]) -> Vec<&str> {
    let mut seen = HashSet::new();
    layers.iter().rev().map(String::as_str).filter(|layer| seen.insert(*layer)).collect()
}

/// Whether an overlay (see `overlays`) shows an image's layers, lowest first.
pub(crate) fn shows(overlay: &[String], layers: &[String]) -> bool {
    let uppermost = overlay.iter().rev().map(String::as_str);
    let wanted = topmost_first(layers);
    overlay.len() >= wanted.len() && uppermost.zip(wanted).all(|(found, wanted)| found == wanted)
}

/// The layers of every overlay in a mountinfo table, lowest first.
pub(crate) fn overlays(table: &str) -> Vec<Vec<String>> {
    table.lines().filter_map(|line| overlay_layers(line.split_once(" - ")?.1)).collect()
}

/// Of `type source options`.
fn overlay_layers(file_system: &str) -> Option<Vec<String>> {
    let options = file_system.strip_prefix("overlay ")?.split_once(' ')?.1;
    let mut lower = Vec::new();
    for option in options.split(',') {
        if let Some(list) = option.strip_prefix("lowerdir=") {
            lower.extend(list.split(':').map(str::to_owned));
        } else if let Some(one) = option.strip_prefix("lowerdir+=") {
            lower.push(one.to_owned());
        }
    }
    lower.reverse();
    Some(lower)
}

impl Overlay<'_> {
    /// Mounts at `target`. Changes the working directory: only for single-threaded processes.
    ///
    /// `volatile` makes the kernel skip all syncs of the upper layer: a container's own layer does
    /// not outlive a power cut, so flushing it would only wear out the SD card.
    pub(crate) fn mount(&self, target: &Path) -> io::Result<()> {
        std::env::set_current_dir(self.layer_dir)?;
        let lower = topmost_first(self.layers);
        let options = format!(
            "lowerdir={},upperdir={},workdir={},volatile",
            lower.join(":"),
            self.upper.display(),
            self.work.display()
        );
        if options.len() <= MOUNT_OPTIONS_MAX {
            mount(Some("overlay"), target, Some("overlay"), MsFlags::empty(), Some(options.as_str()))?;
            return Ok(());
        }
        let context = FsContext::open("overlay")?;
        context.set("source", "overlay")?;
        for layer in lower {
            context.set("lowerdir+", layer)?;
        }
        context.set_path("upperdir", self.upper)?;
        context.set_path("workdir", self.work)?;
        context.flag("volatile")?;
        context.mount_at(target)
    }
}

/// A file system being configured (fsopen(2)): options one by one, of any number.
struct FsContext(OwnedFd);

#[expect(unsafe_code, reason = "the new mount API has no wrapper in nix")]
impl FsContext {
    fn open(kind: &str) -> io::Result<Self> {
        let kind = CString::new(kind)?;
        // SAFETY: kind is a valid C string for the duration of the call.
        let fd = unsafe { libc::syscall(libc::SYS_fsopen, kind.as_ptr(), FSOPEN_CLOEXEC) };
        owned(fd).map(Self)
    }

    fn configure(&self, command: libc::c_uint, key: Option<&str>, value: Option<&[u8]>) -> io::Result<()> {
        let key = key.map(CString::new).transpose()?;
        let value = value.map(CString::new).transpose()?;
        let pointer = |text: &Option<CString>| text.as_ref().map_or(std::ptr::null(), |text| text.as_ptr());
        // SAFETY: both strings live until the call returns; null is allowed where absent.
        let result = unsafe {
            libc::syscall(libc::SYS_fsconfig, self.0.as_raw_fd(), command, pointer(&key), pointer(&value), 0)
        };
        if result < 0 { Err(io::Error::last_os_error()) } else { Ok(()) }
    }

    fn set(&self, key: &str, value: &str) -> io::Result<()> {
        self.configure(FSCONFIG_SET_STRING, Some(key), Some(value.as_bytes()))
    }

    fn set_path(&self, key: &str, value: &Path) -> io::Result<()> {
        self.configure(FSCONFIG_SET_STRING, Some(key), Some(value.as_os_str().as_bytes()))
    }

    fn flag(&self, key: &str) -> io::Result<()> {
        self.configure(FSCONFIG_SET_FLAG, Some(key), None)
    }

    fn mount_at(self, target: &Path) -> io::Result<()> {
        self.configure(FSCONFIG_CMD_CREATE, None, None)?;
        // SAFETY: plain integers only.
        let mount = owned(unsafe { libc::syscall(libc::SYS_fsmount, self.0.as_raw_fd(), FSMOUNT_CLOEXEC, 0) })?;
        move_to(&mount, target)
    }
}

/// Attaches a detached mount at `target`.
#[expect(unsafe_code, reason = "the new mount API has no wrapper in nix")]
pub(crate) fn move_to(mount: &OwnedFd, target: &Path) -> io::Result<()> {
    let target = CString::new(target.as_os_str().as_bytes())?;
    // SAFETY: both paths are valid C strings; the empty one names the mount itself.
    let result = unsafe {
        libc::syscall(
            libc::SYS_move_mount,
            mount.as_raw_fd(),
            c"".as_ptr(),
            libc::AT_FDCWD,
            target.as_ptr(),
            MOVE_MOUNT_F_EMPTY_PATH,
        )
    };
    if result < 0 { Err(io::Error::last_os_error()) } else { Ok(()) }
}

/// A detached copy of the mounts at and below `path`.
#[expect(unsafe_code, reason = "the new mount API has no wrapper in nix")]
pub(crate) fn copy_tree(path: &Path) -> io::Result<OwnedFd> {
    let path = CString::new(path.as_os_str().as_bytes())?;
    let flags = libc::OPEN_TREE_CLONE | libc::OPEN_TREE_CLOEXEC | libc::AT_RECURSIVE.unsigned_abs();
    // SAFETY: the path is a valid C string for the duration of the call.
    owned(unsafe { libc::syscall(libc::SYS_open_tree, libc::AT_FDCWD, path.as_ptr(), flags) })
}

#[expect(unsafe_code, reason = "takes ownership of a descriptor that a raw system call returned")]
fn owned(result: libc::c_long) -> io::Result<OwnedFd> {
    let Ok(fd) = i32::try_from(result) else { return Err(io::Error::other("descriptor out of range")) };
    if fd < 0 {
        return Err(io::Error::last_os_error());
    }
    // SAFETY: the kernel just returned this descriptor and nobody else knows it.
    Ok(unsafe { OwnedFd::from_raw_fd(fd) })
}

/// A tmpfs at `path` whose mounts stay in this mount namespace; one that is there already is kept.
///
/// Overlays are mounted below it by processes in copies of the namespace and must not spread back.
pub(crate) fn private_tmpfs(path: &Path) -> io::Result<()> {
    if mount_points()?.iter().any(|point| point == path) {
        return Ok(());
    }
    unswapped_tmpfs(path, "mode=0700")?;
    mount(None::<&str>, path, None::<&str>, MsFlags::MS_PRIVATE, None::<&str>)?;
    Ok(())
}

/// A tmpfs for secrets: where the kernel knows how (6.4), nothing in it is ever swapped to a disk. Programs in
/// it may be run, as containers do with scripts of ConfigMaps.
///
/// # Errors
/// When the kernel refuses the mount.
pub fn unswapped_tmpfs(path: &Path, options: &str) -> io::Result<()> {
    let flags = MsFlags::MS_NOSUID | MsFlags::MS_NODEV;
    let unswapped = format!("{options},noswap");
    match mount(Some("tmpfs"), path, Some("tmpfs"), flags, Some(unswapped.as_str())) {
        // Earlier kernels do not know the option.
        Err(nix::Error::EINVAL) => mount(Some("tmpfs"), path, Some("tmpfs"), flags, Some(options))?,
        mounted => mounted?,
    }
    Ok(())
}

/// The `/dev/shm` that the containers of one pod share.
pub(crate) fn shm(path: &Path) -> io::Result<()> {
    let flags = MsFlags::MS_NOSUID | MsFlags::MS_NODEV | MsFlags::MS_NOEXEC;
    mount(Some("shm"), path, Some("tmpfs"), flags, Some("mode=1777,size=65536k"))?;
    Ok(())
}

/// Detaches every mount at or below `path`, the deepest first.
pub(crate) fn detach_below(path: &Path) -> io::Result<()> {
    // To read the table takes the longer the more pods there are, and a new pod has nothing there yet.
    if !path.try_exists()? {
        return Ok(());
    }
    let mut points = mount_points()?;
    points.retain(|point| point.starts_with(path));
    points.reverse();
    for point in points {
        match umount2(&point, MntFlags::MNT_DETACH | MntFlags::UMOUNT_NOFOLLOW) {
            // Gone with its parent, or by somebody else's hand.
            Ok(()) | Err(nix::Error::EINVAL | nix::Error::ENOENT) => {}
            Err(error) => return Err(error.into()),
        }
    }
    Ok(())
}

/// Mount points of this namespace in the order in which they were mounted.
///
/// # Errors
/// When the kernel's table cannot be read.
pub fn mount_points() -> io::Result<Vec<PathBuf>> {
    let table = fs::read("/proc/self/mountinfo")?;
    Ok(table.split(|byte| *byte == b'\n').filter_map(|line| line.split(|b| *b == b' ').nth(4)).map(unescape).collect())
}

/// mountinfo writes space, tab, newline and backslash as three octal digits.
fn unescape(field: &[u8]) -> PathBuf {
    let mut plain = Vec::with_capacity(field.len());
    let mut rest = field;
    while let Some((&byte, tail)) = rest.split_first() {
        let code = (byte == b'\\')
            .then(|| tail.get(..3))
            .flatten()
            .and_then(|digits| std::str::from_utf8(digits).ok())
            .and_then(|digits| u8::from_str_radix(digits, 8).ok());
        match code {
            Some(code) => {
                plain.push(code);
                rest = &tail[3..];
            }
            None => {
                plain.push(byte);
                rest = tail;
            }
        }
    }
    PathBuf::from(std::ffi::OsStr::from_bytes(&plain))
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Mounts an overlay of many layers in a mount namespace of the calling thread.
    fn overlay_of(layers: usize, name_len: usize) -> String {
        let dir = tempfile::tempdir().unwrap();
        let names = (0..layers).map(|number| format!("{number:0>name_len$}")).collect::<Vec<_>>();
        for (number, name) in names.iter().enumerate() {
            let layer = dir.path().join("layers").join(name);
            fs::create_dir_all(&layer).unwrap();
            fs::write(layer.join("file"), number.to_string()).unwrap();
        }
        let at = |name: &str| {
            let path = dir.path().join(name);
            fs::create_dir(&path).unwrap();
            path
        };
        let (upper, work, target) = (at("upper"), at("work"), at("target"));
        let seen = std::thread::scope(|scope| {
            let mounted = scope.spawn(|| {
                unshare(CloneFlags::CLONE_NEWNS).unwrap();
                mount(None::<&str>, "/", None::<&str>, MsFlags::MS_REC | MsFlags::MS_PRIVATE, None::<&str>).unwrap();
                let overlay =
                    Overlay { layer_dir: &dir.path().join("layers"), layers: &names, upper: &upper, work: &work };
                overlay.mount(&target).unwrap();
                fs::read_to_string(target.join("file")).unwrap()
            });
            mounted.join().unwrap()
        });
        assert_eq!(fs::read_dir(&target).unwrap().count(), 0, "nothing is mounted outside of the namespace");
        seen
    }

    #[test]
    fn of_equal_layers_the_uppermost_counts() {
        let layers = ["base", "empty", "app", "empty"].map(str::to_owned);
        assert_eq!(topmost_first(&layers), ["empty", "app", "base"]);
        let overlay = ["bottom", "base", "app", "empty"].map(str::to_owned);
        assert!(shows(&overlay, &layers));
        assert!(!shows(&overlay, &layers[..3]) && !shows(&overlay[..2], &layers));
    }

    #[test]
    fn the_last_layer_is_on_top_whatever_their_number() {
        if !nix::unistd::geteuid().is_root() {
            println!("skipped: mounting takes root");
            return;
        }
        assert_eq!(overlay_of(3, 24), "2", "by mount");
        assert_eq!(overlay_of(127, 24), "126", "the most layers of an image, by mount");
        assert_eq!(overlay_of(60, 100), "59", "more than a page of options, by fsconfig");
    }

    #[test]
    fn what_the_run_directory_holds_is_never_swapped() {
        if !nix::unistd::geteuid().is_root() {
            println!("skipped: mounting takes root");
            return;
        }
        let dir = tempfile::tempdir().unwrap();
        let (private, witness) = (dir.path().join("private"), dir.path().join("witness"));
        fs::create_dir(&private).unwrap();
        fs::create_dir(&witness).unwrap();
        let (known, table) = in_private(|| {
            let known = mount(None::<&str>, &witness, Some("tmpfs"), MsFlags::empty(), Some("noswap")).is_ok();
            private_tmpfs(&private).unwrap();
            (known, fs::read_to_string("/proc/thread-self/mountinfo").unwrap())
        })
        .unwrap();
        let line = table.lines().find(|line| line.contains(private.to_str().unwrap())).unwrap();
        assert!(line.contains("mode=700") && line.contains("nodev"), "{line}");
        assert_eq!(line.contains("noswap"), known, "{line}");
    }

    #[test]
    fn mount_points_with_spaces_are_unescaped() {
        assert_eq!(unescape(br"/a\040b\134c"), PathBuf::from(r"/a b\c"));
        assert_eq!(unescape(br"/plain\"), PathBuf::from(r"/plain\"));
    }

    #[test]
    fn an_image_is_shown_and_cannot_be_written() {
        if !nix::unistd::geteuid().is_root() {
            println!("skipped: mounting takes root");
            return;
        }
        for (layers, name_len) in [(1, 24), (3, 24), (60, 100)] {
            let dir = tempfile::tempdir().unwrap();
            let names = (0..layers).map(|number| format!("{number:0>name_len$}")).collect::<Vec<_>>();
            for name in &names {
                let layer = dir.path().join("layers").join(name);
                fs::create_dir_all(&layer).unwrap();
                fs::write(layer.join("file"), name).unwrap();
            }
            let target = dir.path().join("target");
            fs::create_dir(&target).unwrap();
            let seen = std::thread::scope(|scope| {
                let look = scope.spawn(|| {
                    unshare(CloneFlags::CLONE_NEWNS).unwrap();
                    mount(None::<&str>, "/", None::<&str>, MsFlags::MS_REC | MsFlags::MS_PRIVATE, None::<&str>)
                        .unwrap();
                    mount_layers(&dir.path().join("layers"), &names, &target).unwrap();
                    let refused = fs::write(target.join("new"), "").unwrap_err().kind();
                    let table = fs::read_to_string("/proc/thread-self/mountinfo").unwrap();
                    (fs::read_to_string(target.join("file")).unwrap(), refused, overlays(&table))
                });
                look.join().unwrap()
            });
            assert_eq!((Some(&seen.0), seen.1), (names.last(), io::ErrorKind::ReadOnlyFilesystem));
            assert!(seen.2.iter().any(|overlay| shows(overlay, &names)), "{:?}", seen.2);
        }
    }
}
