//! Sends a container's log to a client, and follows the one that is written.
//!
//! Following waits for the kernel to tell of writes (inotify) and for the runtime to tell of the
//! container's end; nothing is polled.

use std::io;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use runtime::{Event, Lane, Runtime};
use tokio::io::AsyncReadExt as _;
use tokio::net::unix::pipe;
use tokio::sync::mpsc;

use super::log_files::{self, OpenLog, rotated, starts};
use super::log_query::{Filter, Flow, LogQuery};

/// For one look at a file, however many wait for theirs.
const DEADLINE: Duration = Duration::from_secs(60);

/// One client's reading of one container's log.
pub(super) struct Reader {
    pub(super) runtime: Arc<Runtime>,
    pub(super) container_id: String,
    pub(super) log: PathBuf,
    pub(super) query: LogQuery,
    pub(super) out: mpsc::Sender<io::Result<Bytes>>,
}

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
        let watch = if self.query.follow { Some(self.watch().await?) } else { None };
        let mut filter = Filter::new(self.query.clone());
        let mut rest = Vec::new();
        let mut current: Option<OpenLog> = None;
        let (log, tail_lines) = (self.log.clone(), self.query.tail_lines);
        for (path, from) in self.on_disk(move || Ok(starts(&log, tail_lines))).await? {
            let Some(open) = self.on_disk(move || OpenLog::at(&path, from)).await? else { continue };
            match self.drain(open, &mut filter, &mut rest).await? {
                Some(open) => current = Some(open),
                None => return Ok(()),
            }
        }
        let (Some(events), Some(mut watch)) = (&mut events, watch) else { return Ok(()) };
        loop {
            let running =
                self.runtime.container_status(&self.container_id).is_ok_and(|c| crate::observed::is_running(&c));
            // What was written before the end is read after it is known.
            if let Some(open) = current.take() {
                match self.drain(open, &mut filter, &mut rest).await? {
                    Some(open) => current = Some(open),
                    None => return Ok(()),
                }
            }
            let (log, inode) = (self.log.clone(), current.as_ref().map(OpenLog::inode));
            if let Some(next) = self.on_disk(move || rotated(&log, inode)).await? {
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

    /// Sends what is written so far, and gives the file back unless the client has gone or had its fill.
    async fn drain(&self, mut open: OpenLog, filter: &mut Filter, rest: &mut Vec<u8>) -> io::Result<Option<OpenLog>> {
        loop {
            let read = self.on_disk(move || open.chunk().map(|chunk| (chunk, open))).await?;
            let (chunk, back) = read;
            open = back;
            let Some(chunk) = chunk else { return Ok(Some(open)) };
            rest.extend_from_slice(&chunk);
            let (out, flow) = lines(filter, rest);
            if !out.is_empty() && self.out.send(Ok(Bytes::from(out))).await.is_err() {
                return Ok(None);
            }
            if flow == Flow::Full {
                return Ok(None);
            }
        }
    }

    /// Tells of writes to the log, and of new files beside it. An inotify descriptor is read like a pipe.
    async fn watch(&self) -> io::Result<pipe::Receiver> {
        let log = self.log.clone();
        pipe::Receiver::from_owned_fd_unchecked(self.on_disk(move || log_files::watch(&log)).await?)
    }

    /// In the container's name, so that its readers share a few threads.
    async fn on_disk<T: Send + 'static>(&self, work: impl FnOnce() -> io::Result<T> + Send + 'static) -> io::Result<T> {
        let done = self.runtime.disk().run(Lane::Pod, &self.container_id, DEADLINE, work).await;
        done.unwrap_or_else(|e| Err(io::Error::other(e)))
    }
}

/// Takes the whole lines out of `rest`; what is left is a line whose end is not written yet.
fn lines(filter: &mut Filter, rest: &mut Vec<u8>) -> (Vec<u8>, Flow) {
    let mut out = Vec::new();
    let mut begin = 0;
    let mut flow = Flow::Continue;
    while let Some(length) = rest[begin..].iter().position(|&b| b == b'\n') {
        flow = filter.push(&rest[begin..begin + length], &mut out);
        begin += length + 1;
        if flow == Flow::Full {
            break;
        }
    }
    rest.drain(..begin);
    (out, flow)
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
