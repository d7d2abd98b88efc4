//! A container's log files, rotated ones included. Blocks: only in the disk room.

use std::fs::File;
use std::io::{self, Read as _, Seek, SeekFrom};
use std::os::fd::OwnedFd;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};

use nix::sys::inotify::{AddWatchFlags, InitFlags, Inotify};
use runtime::{Links, RootDir};

use super::log_query::{Filter, LogQuery, tail_start};

/// What is read at once.
const CHUNK: usize = 64 * 1024;

/// The log and what was rotated away from it (`0.log.1`, `0.log.2`, …), the oldest first.
pub(crate) fn log_files(log: &Path) -> Vec<PathBuf> {
    let mut rotated: Vec<(u32, PathBuf)> = Vec::new();
    let name = log.file_name().unwrap_or_default().to_string_lossy().into_owned();
    for entry in log.parent().and_then(|d| std::fs::read_dir(d).ok()).into_iter().flatten().flatten() {
        let file = entry.file_name();
        let number = file.to_str().and_then(|f| f.strip_prefix(&name)?.strip_prefix('.')?.parse().ok());
        if let Some(number) = number {
            rotated.push((number, entry.path()));
        }
    }
    rotated.sort_by(|a, b| b.cmp(a));
    let mut out: Vec<PathBuf> = rotated.into_iter().map(|(_, path)| path).collect();
    out.push(log.to_owned());
    out
}

/// The last lines of a log, for a termination message: at most `limit` bytes. No log is no message.
pub(crate) fn last_lines(log: &Path, lines: u64, limit: usize) -> String {
    read_last_lines(log, lines, limit).unwrap_or_default()
}

fn read_last_lines(log: &Path, lines: u64, limit: usize) -> io::Result<String> {
    let query = LogQuery { tail_lines: Some(lines), ..LogQuery::default() };
    let mut out = Vec::new();
    let mut filter = Filter::new(query);
    for (path, from) in starts(log, Some(lines)) {
        let Some(mut open) = OpenLog::at(&path, from)? else { continue };
        let mut rest = Vec::new();
        while let Some(chunk) = open.chunk()? {
            rest.extend_from_slice(&chunk);
            let end = rest.iter().rposition(|&b| b == b'\n').map_or(0, |at| at + 1);
            for line in rest[..end].split(|&b| b == b'\n') {
                filter.push(line, &mut out);
            }
            rest.drain(..end);
            out.drain(..out.len().saturating_sub(limit));
        }
        filter.push(&rest, &mut out);
    }
    out.drain(..out.len().saturating_sub(limit));
    Ok(String::from_utf8_lossy(&out).into_owned())
}

/// Files to read, each with the place to begin at.
pub(super) fn starts(log: &Path, tail_lines: Option<u64>) -> Vec<(PathBuf, u64)> {
    let files = log_files(log);
    let Some(mut left) = tail_lines else { return files.into_iter().map(|f| (f, 0)).collect() };
    let mut out = Vec::new();
    for path in files.into_iter().rev() {
        let (from, missing) = tail_of(&path, left).unwrap_or((0, left));
        out.push((path, from));
        left = missing;
        if left == 0 {
            break;
        }
    }
    out.reverse();
    out
}

/// Reads backwards in chunks; returns where the tail begins and how many lines are missing.
fn tail_of(path: &Path, lines: u64) -> io::Result<(u64, u64)> {
    let mut file = open(path)?;
    let mut end = file.metadata()?.len();
    if lines == 0 {
        return Ok((end, 0));
    }
    let mut tail: Vec<u8> = Vec::new();
    loop {
        let (start, left) = tail_start(&tail, lines);
        // A line that begins at the edge of what was read may begin before it.
        if (left == 0 && start > 0) || end == 0 {
            return Ok((end + start as u64, left));
        }
        let take = end.min(CHUNK.max(tail.len()) as u64);
        end -= take;
        let mut chunk = vec![0; usize::try_from(take).unwrap_or(CHUNK)];
        file.seek(SeekFrom::Start(end))?;
        file.read_exact(&mut chunk)?;
        chunk.extend_from_slice(&tail);
        tail = chunk;
    }
}

/// Never through a link: whoever may write beside the log must not choose what is read.
fn open(path: &Path) -> io::Result<File> {
    let (Some(dir), Some(name)) = (path.parent(), path.file_name()) else {
        return Err(io::ErrorKind::InvalidFilename.into());
    };
    RootDir::open_with(dir, Links::Refused)?.file(Path::new(name))
}

/// A log file that is being read.
pub(super) struct OpenLog {
    file: File,
    inode: u64,
}

impl OpenLog {
    pub(super) fn at(path: &Path, from: u64) -> io::Result<Option<Self>> {
        let mut file = match open(path) {
            Err(e) if e.kind() == io::ErrorKind::NotFound => return Ok(None),
            other => other?,
        };
        file.seek(SeekFrom::Start(from))?;
        let inode = file.metadata()?.ino();
        Ok(Some(Self { file, inode }))
    }

    /// The next bytes; `None` at the end of what is written so far.
    pub(super) fn chunk(&mut self) -> io::Result<Option<Vec<u8>>> {
        let mut buffer = vec![0; CHUNK];
        let n = self.file.read(&mut buffer)?;
        buffer.truncate(n);
        Ok((n > 0).then_some(buffer))
    }

    pub(super) fn inode(&self) -> u64 {
        self.inode
    }
}

/// The log's file, when it is another one than the one that is open.
pub(super) fn rotated(log: &Path, current: Option<u64>) -> io::Result<Option<OpenLog>> {
    let next = OpenLog::at(log, 0)?;
    Ok(next.filter(|n| current != Some(n.inode)))
}

/// Watches the log and its directory.
pub(super) fn watch(log: &Path) -> io::Result<OwnedFd> {
    let inotify = Inotify::init(InitFlags::IN_NONBLOCK | InitFlags::IN_CLOEXEC)?;
    let dir = log.parent().unwrap_or(log);
    inotify.add_watch(dir, AddWatchFlags::IN_MODIFY | AddWatchFlags::IN_CREATE | AddWatchFlags::IN_MOVED_TO)?;
    Ok(inotify.into())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn line(n: u32) -> String {
        format!("2026-01-01T00:00:00Z stdout F {n}\n")
    }

    #[test]
    fn the_tail_reaches_into_rotated_files() {
        let dir = tempfile::tempdir().unwrap();
        let log = dir.path().join("0.log");
        std::fs::write(dir.path().join("0.log.2"), line(1)).unwrap();
        std::fs::write(dir.path().join("0.log.1"), line(2) + &line(3)).unwrap();
        std::fs::write(&log, line(4) + &line(5)).unwrap();
        let names: Vec<_> = log_files(&log).iter().map(|p| p.file_name().unwrap().to_owned()).collect();
        assert_eq!(names, ["0.log.2", "0.log.1", "0.log"]);
        for (lines, expected) in [(1, "5\n"), (3, "3\n4\n5\n"), (9, "1\n2\n3\n4\n5\n")] {
            assert_eq!(last_lines(&log, lines, 4096), expected, "{lines}");
        }
        assert_eq!(last_lines(&log, 9, 3), "\n5\n");
    }

    #[test]
    fn long_files_are_read_from_their_end() {
        let dir = tempfile::tempdir().unwrap();
        let log = dir.path().join("0.log");
        let text: String = (0..10_000).map(line).collect();
        std::fs::write(&log, &text).unwrap();
        let (from, left) = tail_of(&log, 4000).unwrap();
        assert_eq!(left, 0);
        assert_eq!(text[usize::try_from(from).unwrap()..].lines().count(), 4000);
    }
    #[test]
    fn links_and_pipes_in_a_logs_place_are_not_read() {
        let dir = tempfile::tempdir().unwrap();
        std::fs::write(dir.path().join("secret"), line(1)).unwrap();
        std::os::unix::fs::symlink("secret", dir.path().join("link.log")).unwrap();
        nix::unistd::mkfifo(&dir.path().join("fifo.log"), nix::sys::stat::Mode::S_IRWXU).unwrap();
        for name in ["link.log", "fifo.log"] {
            assert!(OpenLog::at(&dir.path().join(name), 0).is_err(), "{name}");
            assert_eq!(last_lines(&dir.path().join(name), 9, 4096), "", "{name}");
        }
    }
}
