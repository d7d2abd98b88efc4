//! libcontainer tells what went wrong in its log and keeps little of it in its errors. In the
//! children that call it, the log's errors go into a pipe, from where the first one, the most
//! precise, is taken when a call fails.

use std::fmt::Write as _;
use std::fs::File;
use std::io::{Read, Write};

use nix::errno::Errno;
use nix::fcntl::OFlag;
use nix::unistd::pipe2;
use tracing::field::{Field, Visit};
use tracing::span::{Attributes, Id, Record};
use tracing::{Event, Level, Metadata, Subscriber};

/// The largest number that Linux gives an error.
const ERRNO_MAX: i32 = 133;

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
        let mut line = Line::default();
        event.record(&mut line);
        // A full pipe holds what came first, and that is what counts.
        let _ = (&self.0).write(line.text().as_bytes());
    }

    fn new_span(&self, _: &Attributes<'_>) -> Id {
        Id::from_u64(1)
    }
    fn record(&self, _: &Id, _: &Record<'_>) {}
    fn record_follows_from(&self, _: &Id, _: &Id) {}
    fn enter(&self, _: &Id) {}
    fn exit(&self, _: &Id) {}
}

/// What a user is told of one record: its message, the error, and paths. Numbers of processes and flags
/// help nobody who does not read libcontainer's code.
#[derive(Default)]
struct Line {
    message: String,
    error: String,
    paths: String,
}

impl Visit for Line {
    fn record_debug(&mut self, field: &Field, value: &dyn std::fmt::Debug) {
        let text = plain(&format!("{value:?}").replace('\n', " "));
        match field.name() {
            "message" => self.message = text,
            "err" | "error" => self.error = format!(": {}", errno(&text).unwrap_or(text)),
            name if text.starts_with("\"/") => {
                write!(self.paths, " ({name} {text})").expect("invariant: writing to memory");
            }
            _ => {}
        }
    }
}

impl Line {
    fn text(&self) -> String {
        format!("{}{}{}\n", self.message, self.error, self.paths)
    }
}

/// Rust's debug text of nested errors, such as `Io(Os { code: 2, message: "No such file" })`, reduced
/// to the texts in it: a user reads this line.
fn plain(text: &str) -> String {
    let mut out = String::new();
    let mut rest = text;
    while let Some(Value { before, inside, after }) = next_value(rest) {
        out.push_str(before);
        let texts = literals(inside);
        out.push_str(&match (mount(inside), errno(inside)) {
            (Some(mount), _) => mount,
            (None, Some(error)) => error,
            (None, None) if texts.is_empty() => plain(inside),
            (None, None) => texts.join(": "),
        });
        rest = after;
    }
    out.push_str(rest);
    out
}

/// A mount of the specification, by what a user knows of it.
fn mount(inside: &str) -> Option<String> {
    let (_, place) = inside.split_once("destination: ")?;
    let (_, source) = inside.split_once("source: Some(")?;
    let quoted = |text: &str| Some(format!("\"{}\"", text.strip_prefix('"')?.split('"').next()?));
    Some(format!("{} to rootfs at {}", quoted(source)?, quoted(place)?))
}

/// The kernel's words for `ENOENT` and the like.
fn errno(name: &str) -> Option<String> {
    if !name.starts_with('E') {
        return None;
    }
    let numbers = 1..=ERRNO_MAX;
    let found = numbers.map(Errno::from_raw).find(|errno| format!("{errno:?}") == name)?;
    Some(found.desc().to_ascii_lowercase())
}

/// `Name(…)` or `Name { … }` in a text: what stands before it, within it and after it.
struct Value<'a> {
    before: &'a str,
    inside: &'a str,
    after: &'a str,
}

/// The first one.
fn next_value(text: &str) -> Option<Value<'_>> {
    let is_word = |c: char| c.is_alphanumeric() || c == '_';
    for (at, c) in text.char_indices() {
        if !c.is_uppercase() || text[..at].ends_with(is_word) {
            continue;
        }
        let tail = text[at..].trim_start_matches(is_word);
        let open = tail.strip_prefix(" {").or_else(|| tail.strip_prefix('('));
        let Some(inside) = open else { continue };
        let end = closing(inside)?;
        return Some(Value { before: &text[..at], inside: inside[..end].trim(), after: &inside[end + 1..] });
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
            ("failed to chdir: Nix(ENOENT)", "failed to chdir: no such file or directory"),
            ("failed to chdir: Nix(ENONSENSE)", "failed to chdir: ENONSENSE"),
            (
                "failed to mount Mount { destination: \"/d\", typ: Some(\"bind\"), source: Some(\"/s\"), options: \
                 Some([\"rbind\", \"rw\"]), uid_mappings: None }: syscall",
                "failed to mount \"/s\" to rootfs at \"/d\": syscall",
            ),
            ("an unfinished Thing { x", "an unfinished Thing { x"),
        ] {
            assert_eq!(plain(text), expected);
        }
    }

    #[test]
    fn a_user_is_told_the_error_and_paths_and_no_numbers() {
        let (read, write) = pipe2(OFlag::O_CLOEXEC | OFlag::O_NONBLOCK).unwrap();
        tracing::subscriber::with_default(Errors(File::from(write)), || {
            let (pid, err, cwd) = (nix::unistd::Pid::from_raw(17), Errno::EBUSY, std::path::Path::new("/x"));
            tracing::error!(?pid, ?err, ?cwd, init = true, "failed to apply cgroup");
            tracing::error!("another one");
        });
        let text = Trace(File::from(read)).first();
        assert_eq!(text.as_deref(), Some("failed to apply cgroup: device or resource busy (cwd \"/x\")"));
    }
}
