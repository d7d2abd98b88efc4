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
        line.0 = plain(&line.0.replace('\n', " "));
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

/// Rust's debug text of nested errors, such as `Io(Os { code: 2, message: "No such file" })`, reduced
/// to the texts in it: a user reads this line.
fn plain(text: &str) -> String {
    let mut out = String::new();
    let mut rest = text;
    while let Some((before, inside, after)) = next_value(rest) {
        out.push_str(before);
        let texts = literals(inside);
        out.push_str(&if texts.is_empty() { plain(inside) } else { texts.join(": ") });
        rest = after;
    }
    out.push_str(rest);
    out
}

/// The first `Name(…)` or `Name { … }`: what stands before it, within it and after it.
fn next_value(text: &str) -> Option<(&str, &str, &str)> {
    let is_word = |c: char| c.is_alphanumeric() || c == '_';
    for (at, c) in text.char_indices() {
        if !c.is_uppercase() || text[..at].ends_with(is_word) {
            continue;
        }
        let tail = text[at..].trim_start_matches(is_word);
        let open = tail.strip_prefix(" {").or_else(|| tail.strip_prefix('('));
        let Some(inside) = open else { continue };
        let end = closing(inside)?;
        return Some((&text[..at], &inside[..end], &inside[end + 1..]));
    }
    None
}

/// Where the bracket ends that was opened before `text`.
fn closing(text: &str) -> Option<usize> {
    let (mut depth, mut quoted, mut escaped) = (0_usize, false, false);
    for (at, c) in text.char_indices() {
        match c {
            _ if escaped => escaped = false,
            '\\' if quoted => escaped = true,
            '"' => quoted = !quoted,
            _ if quoted => {}
            '(' | '{' | '[' => depth += 1,
            ')' | '}' | ']' if depth == 0 => return Some(at),
            ')' | '}' | ']' => depth -= 1,
            _ => {}
        }
    }
    None
}

fn literals(text: &str) -> Vec<&str> {
    let mut out = Vec::new();
    for literal in text.split('"').skip(1).step_by(2).filter(|l| !l.is_empty()) {
        if !out.contains(&literal) {
            out.push(literal);
        }
    }
    out
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn debug_text_becomes_words() {
        for (text, expected) in [
            ("plain words (in brackets)", "plain words (in brackets)"),
            (
                "failed to apply cgroup err=V1(MemoryController(WrappedIo(Write { err: Os { code: 16, kind: ResourceBusy, \
                 message: \"Device or resource busy\" }, path: \"/sys/fs/cgroup/memory.max\", data: \"64\" })))",
                "failed to apply cgroup err=Device or resource busy: /sys/fs/cgroup/memory.max: 64",
            ),
            ("failed to chdir err=Nix(ENOENT) cwd=\"/x\"", "failed to chdir err=ENOENT cwd=\"/x\""),
            ("an unfinished Thing { x", "an unfinished Thing { x"),
        ] {
            assert_eq!(plain(text), expected);
        }
    }
}
