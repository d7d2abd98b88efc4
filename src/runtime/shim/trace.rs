//! libcontainer tells what went wrong in its log and keeps little of it in its errors. In the
//! children that call it, the log's errors go into a pipe, from where the first one, the most
//! precise, is taken when a call fails.

use std::fmt::Write as _;
use std::fs::File;
use std::io::{Read, Write};

use nix::fcntl::OFlag;
use nix::unistd::pipe2;
use tracing::field::{Field, Visit};
use tracing::span::{Attributes, Id, Record};
use tracing::{Event, Level, Metadata, Subscriber};

/// The read end.
pub(super) struct Trace(File);

impl Trace {
    /// Takes the log of this process and of those that it forks. Once a process.
    pub(super) fn start() -> Option<Self> {
        let (read, write) = pipe2(OFlag::O_CLOEXEC | OFlag::O_NONBLOCK).ok()?;
        tracing::subscriber::set_global_default(Errors(File::from(write))).ok()?;
        Some(Self(File::from(read)))
    }

    /// The first error so far.
    pub(super) fn first(&mut self) -> Option<String> {
        let mut bytes = [0; 4096];
        let len = self.0.read(&mut bytes).ok()?;
        String::from_utf8_lossy(&bytes[..len]).lines().next().map(str::to_owned)
    }
}

struct Errors(File);

impl Subscriber for Errors {
    fn enabled(&self, metadata: &Metadata<'_>) -> bool {
        *metadata.level() == Level::ERROR
    }

    fn max_level_hint(&self) -> Option<tracing::level_filters::LevelFilter> {
        Some(tracing::level_filters::LevelFilter::ERROR)
    }

    fn event(&self, event: &Event<'_>) {
        let mut line = Line(String::new());
        event.record(&mut line);
        line.0 = line.0.replace('\n', " ");
        line.0.push('\n');
        // A full pipe holds what came first, and that is what counts.
        let _ = (&self.0).write(line.0.as_bytes());
    }

    fn new_span(&self, _: &Attributes<'_>) -> Id {
        Id::from_u64(1)
    }
    fn record(&self, _: &Id, _: &Record<'_>) {}
    fn record_follows_from(&self, _: &Id, _: &Id) {}
    fn enter(&self, _: &Id) {}
    fn exit(&self, _: &Id) {}
}

/// The message first, then its fields.
struct Line(String);

impl Visit for Line {
    fn record_debug(&mut self, field: &Field, value: &dyn std::fmt::Debug) {
        let written = match field.name() {
            "message" => {
                let rest = std::mem::take(&mut self.0);
                write!(self.0, "{value:?}{rest}")
            }
            name => write!(self.0, " {name}={value:?}"),
        };
        written.expect("invariant: writing to memory");
    }
}
