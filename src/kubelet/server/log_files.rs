//! Reads a container's log files, rotated ones included, and follows the one that is written.
//!
//! Following waits for the kernel to tell of writes (inotify) and for the runtime to tell of the
//! container's end; nothing is polled.

use std::fs::File;
use std::io::{self, Read as _, Seek, SeekFrom};
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use bytes::Bytes;
use nix::sys::inotify::{AddWatchFlags, InitFlags, Inotify};
use runtime::{Event, Runtime};
use tokio::io::AsyncReadExt as _;
use tokio::net::unix::pipe;
use tokio::sync::mpsc;

use super::log_query::{Filter, Flow, LogQuery, tail_start};

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

/// The last lines of a log, for a termination message.
pub(crate) async fn last_lines(log: &Path, lines: usize, limit: usize) -> String {
    let log = log.to_owned();
    let read = tokio::task::spawn_blocking(move || {
        let query = LogQuery { tail_lines: Some(lines as u64), ..LogQuery::default() };
        let mut out = Vec::new();
        let mut filter = Filter::new(query.clone());
        for (path, from) in starts(&log, query.tail_lines) {
            let mut file = File::open(path)?;
            file.seek(SeekFrom::Start(from))?;
            let mut data = Vec::new();
            file.read_to_end(&mut data)?;
            for line in data.split(|&b| b == b'\n') {
                filter.push(line, &mut out);
            }
        }
        out.drain(..out.len().saturating_sub(limit));
        Ok::<_, io::Error>(String::from_utf8_lossy(&out).into_owned())
    });
    match read.await {
        Ok(Ok(text)) => text,
        // No log is no message.
        Ok(Err(_)) | Err(_) => String::new(),
    }
}

/// Files to read, each with the place to begin at.
fn starts(log: &Path, tail_lines: Option<u64>) -> Vec<(PathBuf, u64)> {
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
    let mut file = File::open(path)?;
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

/// One client's reading of one container's log.
pub(super) struct Reader {
    pub(super) runtime: Arc<Runtime>,
    pub(super) container_id: String,
    pub(super) log: PathBuf,
    pub(super) query: LogQuery,
    pub(super) out: mpsc::Sender<io::Result<Bytes>>,
}

/// The client has gone, or has had its fill.
struct Over;

impl Reader {
    /// Sends everything that is wanted; ends with the log, the container, or the client.
    pub(super) async fn run(self) {
        if let Err(e) = self.read().await {
            // The client may be gone, too.
            let _ = self.out.send(Err(e)).await;
        }
    }

    async fn read(&self) -> io::Result<()> {
        // Before the first look, so that nothing is missed in between.
        let mut events = self.query.follow.then(|| self.runtime.subscribe());
        let watch = if self.query.follow { Some(watch(&self.log)?) } else { None };
        let mut sink = Sink { filter: Filter::new(self.query.clone()), rest: Vec::new(), out: &self.out };
        let mut current: Option<Open> = None;
        for (path, from) in starts(&self.log, self.query.tail_lines) {
            let Some(mut open) = Open::at(&path, from)? else { continue };
            if sink.drain(&mut open).await?.is_err() {
                return Ok(());
            }
            current = Some(open);
        }
        let (Some(events), Some(mut watch)) = (&mut events, watch) else { return Ok(()) };
        loop {
            let running =
                self.runtime.container_status(&self.container_id).is_ok_and(|c| crate::observed::is_running(&c));
            // What was written before the end is read after it is known.
            if let Some(open) = &mut current
                && sink.drain(open).await?.is_err()
            {
                return Ok(());
            }
            if let Some(next) = rotated(&self.log, current.as_ref())? {
                current = Some(next);
                continue;
            }
            if !running {
                return Ok(());
            }
            tokio::select! {
                () = self.out.closed() => return Ok(()),
                changed = changed(&mut watch) => changed?,
                () = ended(events, &self.container_id) => {}
            }
        }
    }
}

struct Open {
    file: File,
    inode: u64,
}

impl Open {
    fn at(path: &Path, from: u64) -> io::Result<Option<Self>> {
        let mut file = match File::open(path) {
            Err(e) if e.kind() == io::ErrorKind::NotFound => return Ok(None),
            other => other?,
        };
        file.seek(SeekFrom::Start(from))?;
        let inode = file.metadata()?.ino();
        Ok(Some(Self { file, inode }))
    }
}

/// The log's file, when it is another one than the one that is open.
fn rotated(log: &Path, current: Option<&Open>) -> io::Result<Option<Open>> {
    let next = Open::at(log, 0)?;
    Ok(next.filter(|n| current.is_none_or(|c| c.inode != n.inode)))
}

struct Sink<'a> {
    filter: Filter,
    /// The beginning of a line whose end is not written yet.
    rest: Vec<u8>,
    out: &'a mpsc::Sender<io::Result<Bytes>>,
}

impl Sink<'_> {
    async fn drain(&mut self, open: &mut Open) -> io::Result<Result<(), Over>> {
        let mut buffer = vec![0; CHUNK];
        loop {
            // Log files are in the page cache as a rule; a chunk is too small to leave the thread for.
            let n = open.file.read(&mut buffer)?;
            if n == 0 {
                return Ok(Ok(()));
            }
            self.rest.extend_from_slice(&buffer[..n]);
            let (out, flow) = self.lines();
            if !out.is_empty() && self.out.send(Ok(Bytes::from(out))).await.is_err() {
                return Ok(Err(Over));
            }
            if flow == Flow::Full {
                return Ok(Err(Over));
            }
        }
    }

    fn lines(&mut self) -> (Vec<u8>, Flow) {
        let mut out = Vec::new();
        let mut begin = 0;
        let mut flow = Flow::Continue;
        while let Some(length) = self.rest[begin..].iter().position(|&b| b == b'\n') {
            flow = self.filter.push(&self.rest[begin..begin + length], &mut out);
            begin += length + 1;
            if flow == Flow::Full {
                break;
            }
        }
        self.rest.drain(..begin);
        (out, flow)
    }
}

/// Writes to the log, and new files beside it. An inotify descriptor is read like a pipe.
fn watch(log: &Path) -> io::Result<pipe::Receiver> {
    let inotify = Inotify::init(InitFlags::IN_NONBLOCK | InitFlags::IN_CLOEXEC)?;
    let dir = log.parent().unwrap_or(log);
    inotify.add_watch(dir, AddWatchFlags::IN_MODIFY | AddWatchFlags::IN_CREATE | AddWatchFlags::IN_MOVED_TO)?;
    pipe::Receiver::from_owned_fd_unchecked(inotify.into())
}

async fn changed(watch: &mut pipe::Receiver) -> io::Result<()> {
    let mut buffer = [0; 4096];
    watch.read(&mut buffer).await.map(drop)
}

async fn ended(events: &mut runtime::EventReceiver, id: &str) {
    loop {
        match events.recv().await {
            Some(Event::ContainerExited { container_id, .. }) if container_id == id => return,
            Some(Event::Lagged) | None => return,
            Some(Event::ContainerExited { .. } | Event::ContainerStarted { .. } | Event::SandboxGone { .. }) => {}
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn line(n: u32) -> String {
        format!("2026-01-01T00:00:00Z stdout F {n}\n")
    }

    #[tokio::test]
    async fn the_tail_reaches_into_rotated_files() {
        let dir = tempfile::tempdir().unwrap();
        let log = dir.path().join("0.log");
        std::fs::write(dir.path().join("0.log.2"), line(1)).unwrap();
        std::fs::write(dir.path().join("0.log.1"), line(2) + &line(3)).unwrap();
        std::fs::write(&log, line(4) + &line(5)).unwrap();
        let names: Vec<_> = log_files(&log).iter().map(|p| p.file_name().unwrap().to_owned()).collect();
        assert_eq!(names, ["0.log.2", "0.log.1", "0.log"]);
        for (lines, expected) in [(1, "5\n"), (3, "3\n4\n5\n"), (9, "1\n2\n3\n4\n5\n")] {
            assert_eq!(last_lines(&log, lines, 4096).await, expected, "{lines}");
        }
        assert_eq!(last_lines(&log, 9, 3).await, "\n5\n");
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
}
