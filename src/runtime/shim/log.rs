//! Container logs in the CRI format: `<RFC 3339 time> <stream> <F|P> <line>`.

use std::fs::{self, File, OpenOptions};
use std::io::{self, Write};
use std::path::{Path, PathBuf};

use jiff::Timestamp;

use crate::types::LogLimit;

/// Longer lines are written in parts, tagged `P` but for the last.
const LINE_MAX: usize = 16 * 1024;

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Stream {
    Stdout,
    Stderr,
}

impl Stream {
    fn name(self) -> &'static str {
        match self {
            Self::Stdout => "stdout",
            Self::Stderr => "stderr",
        }
    }
}

/// Cuts one stream into lines.
#[derive(Debug, Default)]
pub(crate) struct LineBuffer(Vec<u8>);

impl LineBuffer {
    /// Appends the log lines that `chunk` completes to `out`.
    pub(crate) fn push(&mut self, stream: Stream, chunk: &[u8], now: Timestamp, out: &mut Vec<u8>) {
        let mut rest = chunk;
        while !rest.is_empty() {
            let room = LINE_MAX - self.0.len();
            let end = rest.iter().take(room).position(|byte| *byte == b'\n');
            let (part, tag) = match end {
                Some(end) => (&rest[..end], Some('F')),
                None if rest.len() >= room => (&rest[..room], Some('P')),
                None => (rest, None),
            };
            rest = &rest[part.len() + usize::from(end.is_some())..];
            match tag {
                Some(tag) => {
                    line(stream, tag, &[&self.0, part], now, out);
                    self.0.clear();
                }
                None => self.0.extend_from_slice(part),
            }
        }
    }

    /// What is left at the end of the stream: a line without its newline.
    pub(crate) fn finish(&mut self, stream: Stream, now: Timestamp, out: &mut Vec<u8>) {
        if !self.0.is_empty() {
            line(stream, 'P', &[&self.0], now, out);
            self.0 = Vec::new();
        }
    }
}

fn line(stream: Stream, tag: char, parts: &[&[u8]], now: Timestamp, out: &mut Vec<u8>) {
    write!(out, "{now:.9} {} {tag} ", stream.name()).expect("invariant: writing to memory");
    for part in parts {
        out.extend_from_slice(part);
    }
    out.push(b'\n');
}

/// One container's log file, put aside when it is full.
#[derive(Debug)]
pub(crate) struct LogFile {
    path: PathBuf,
    file: File,
    len: u64,
    limit: LogLimit,
}

impl LogFile {
    pub(crate) fn open(path: &Path, limit: LogLimit) -> io::Result<Self> {
        if let Some(dir) = path.parent() {
            fs::create_dir_all(dir)?;
        }
        let file = OpenOptions::new().create(true).append(true).open(path)?;
        let len = file.metadata()?.len();
        Ok(Self { path: path.to_owned(), file, len, limit })
    }

    /// Writes whole lines. A full disk loses them: a container must not stop for its log.
    pub(crate) fn write(&mut self, lines: &[u8]) {
        if lines.is_empty() {
            return;
        }
        if self.len > 0 && self.len + lines.len() as u64 > self.limit.max_bytes {
            let _ = self.rotate();
        }
        if self.file.write_all(lines).is_ok() {
            self.len += lines.len() as u64;
        } else {
            // Half a line would spoil the one that is written when there is room again.
            let _ = self.file.set_len(self.len);
        }
    }

    fn rotate(&mut self) -> io::Result<()> {
        let numbered = |number: u32| {
            let mut name = self.path.clone().into_os_string();
            name.push(format!(".{number}"));
            PathBuf::from(name)
        };
        let kept = self.limit.max_files.saturating_sub(1);
        // Somebody may have removed it to make room: then there is nothing to put aside, and going on
        // with the open file would fill the disk out of sight.
        if self.path.exists() {
            for number in (1..kept).rev() {
                let _ = fs::rename(numbered(number), numbered(number + 1));
            }
            if kept == 0 {
                fs::remove_file(&self.path)?;
            } else {
                fs::rename(&self.path, numbered(1))?;
            }
        }
        self.file = OpenOptions::new().create(true).append(true).open(&self.path)?;
        self.len = 0;
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn at() -> Timestamp {
        "2026-02-03T04:05:06.000000007Z".parse().unwrap()
    }

    #[track_caller]
    fn check(chunks: &[&str], expected: &str) {
        let (mut buffer, mut out) = (LineBuffer::default(), Vec::new());
        for chunk in chunks {
            buffer.push(Stream::Stderr, chunk.as_bytes(), at(), &mut out);
        }
        buffer.finish(Stream::Stderr, at(), &mut out);
        assert_eq!(String::from_utf8(out).unwrap().replace("2026-02-03T04:05:06.000000007Z stderr ", ""), expected);
    }

    #[test]
    fn lines_are_cut_whatever_the_chunks() {
        check(&["one\ntwo\n"], "F one\nF two\n");
        check(&["o", "ne\n\nt", "wo"], "F one\nF \nP two\n");
        check(&[], "");
        let long = "x".repeat(LINE_MAX + 1);
        check(&[&long, "y\n"], &format!("P {}\nF xy\n", "x".repeat(LINE_MAX)));
    }

    #[test]
    fn a_log_that_somebody_removed_begins_anew() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("0.log");
        let mut log = LogFile::open(&path, LogLimit { max_bytes: 10, max_files: 3 }).unwrap();
        log.write(b"first\n");
        log.write(b"second\n");
        fs::remove_file(&path).unwrap();
        log.write(b"third\n");
        assert_eq!(fs::read_to_string(&path).unwrap(), "third\n");
        assert_eq!(fs::read_to_string(dir.path().join("0.log.1")).unwrap(), "first\n");
    }

    #[test]
    fn full_files_are_put_aside_and_the_oldest_dropped() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("web/0.log");
        let mut log = LogFile::open(&path, LogLimit { max_bytes: 10, max_files: 3 }).unwrap();
        for line in ["first\n", "second\n", "third\n", "fourth\n"] {
            log.write(line.as_bytes());
        }
        let read = |name: &str| fs::read_to_string(dir.path().join("web").join(name)).ok();
        assert_eq!(read("0.log").as_deref(), Some("fourth\n"));
        assert_eq!(read("0.log.1").as_deref(), Some("third\n"));
        assert_eq!(read("0.log.2").as_deref(), Some("second\n"));
        assert_eq!(read("0.log.3"), None);
        drop(log);
        let mut log = LogFile::open(&path, LogLimit { max_bytes: 10, max_files: 3 }).unwrap();
        log.write(b"fifth\n");
        assert_eq!(read("0.log.1").as_deref(), Some("fourth\n"), "length counts what was there");
    }
}
