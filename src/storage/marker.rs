//! What is kept outside the database: that there is a store, which one, and its ceiling of revisions.
//!
//! A database that is missing, empty or an old copy does not say so itself. Two small files beside it
//! do: they are written in turn, so that a pulled plug spoils one of them at most, and have a checksum.
//! They change with the ceiling, once in thousands of revisions, and at an orderly close.

use std::fs::File;
use std::io::{self, Read, Write};
use std::path::{Path, PathBuf};

use xxhash_rust::xxh3::xxh3_64;

use crate::error::OpenError;

const FORM: &str = "coracle store 1";
/// Always as long: overwriting it takes no room on a full disk.
const SIZE: usize = 256;
/// A mark is smaller; what is larger is none.
const READ_UP_TO: u64 = 4096;

/// What is known about the store without opening it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Mark {
    pub(crate) identity: u64,
    /// No revision above this one was given out.
    pub(crate) ceiling: u64,
    /// The last revision, after an orderly close.
    pub(crate) closed_at: Option<u64>,
    sequence: u64,
}

/// The two files, and the newest mark in them.
#[derive(Debug)]
pub(crate) struct Marker {
    base: PathBuf,
    mark: Mark,
}

impl Marker {
    /// The marker whose files are `<base>-a` and `<base>-b`; `None` where there never was one.
    ///
    /// # Errors
    /// When there are files and none of them can be read.
    pub(crate) fn load(base: &Path) -> Result<Option<Self>, OpenError> {
        let mut newest: Option<Mark> = None;
        let mut unreadable = None;
        for path in paths(base) {
            match read(&path) {
                Ok(None) => {}
                Ok(Some(text)) => match parse(&text) {
                    Ok(mark) if newest.is_some_and(|n| n.sequence > mark.sequence) => {}
                    Ok(mark) => newest = Some(mark),
                    Err(Unreadable::Newer) => return Err(OpenError::MarkerNewer { path }),
                    Err(Unreadable::Damaged) => unreadable = Some(path),
                },
                Err(source) => return Err(OpenError::Marker { path, source }),
            }
        }
        match (newest, unreadable) {
            (Some(mark), _) => Ok(Some(Self { base: base.to_owned(), mark })),
            (None, Some(path)) => Err(OpenError::MarkerDamaged { path }),
            (None, None) => Ok(None),
        }
    }

    /// Writes the first mark of a store.
    pub(crate) fn create(base: &Path, identity: u64, ceiling: u64) -> io::Result<Self> {
        let mark = Mark { identity, ceiling, closed_at: None, sequence: 0 };
        let mut marker = Self { base: base.to_owned(), mark };
        marker.write(mark)?;
        Ok(marker)
    }

    pub(crate) fn mark(&self) -> Mark {
        self.mark
    }

    /// Says that revisions up to this one may be given out. Returns once that is on disk.
    pub(crate) fn raise(&mut self, ceiling: u64) -> io::Result<()> {
        self.write(Mark { ceiling: ceiling.max(self.mark.ceiling), closed_at: None, ..self.mark })
    }

    /// Says that the store was closed in order, with this as its last revision.
    pub(crate) fn close(&mut self, revision: u64) -> io::Result<()> {
        self.write(Mark { closed_at: Some(revision), ..self.mark })
    }

    fn write(&mut self, mark: Mark) -> io::Result<()> {
        let mark = Mark { sequence: self.mark.sequence + 1, ..mark };
        let path = &paths(&self.base)[usize::from(mark.sequence.is_multiple_of(2))];
        if path.exists() {
            fill(path, &mark)?;
        } else {
            // Under its name once it is whole: a lone file that cannot be read would be damage.
            let new = path.with_extension("new");
            fill(&new, &mark)?;
            std::fs::rename(&new, path)?;
            if let Some(directory) = path.parent() {
                File::open(directory)?.sync_all()?;
            }
        }
        self.mark = mark;
        Ok(())
    }
}

fn fill(path: &Path, mark: &Mark) -> io::Result<()> {
    let mut file = statefile::open_or_make(path)?;
    file.write_all(format(mark).as_bytes())?;
    file.set_len(SIZE as u64)?;
    file.sync_all()
}

/// The names of both files.
pub(crate) fn paths(base: &Path) -> [PathBuf; 2] {
    ["-a", "-b"].map(|ending| {
        let mut path = base.as_os_str().to_owned();
        path.push(ending);
        path.into()
    })
}

fn read(path: &Path) -> io::Result<Option<Vec<u8>>> {
    match statefile::open_file(path) {
        Ok(file) => {
            let mut bytes = Vec::new();
            file.take(READ_UP_TO).read_to_end(&mut bytes)?;
            Ok(Some(bytes))
        }
        Err(e) if e.kind() == io::ErrorKind::NotFound => Ok(None),
        Err(e) => Err(e),
    }
}

fn format(mark: &Mark) -> String {
    let Mark { identity, ceiling, closed_at, sequence } = mark;
    let closed = closed_at.map_or_else(|| "open".to_owned(), |at| at.to_string());
    let body = format!("{FORM}\nidentity {identity:016x}\nceiling {ceiling}\nclosed {closed}\nsequence {sequence}\n");
    let text = format!("{body}checksum {:016x}\n", xxh3_64(body.as_bytes()));
    format!("{text:<width$}\n", width = SIZE - 1)
}

enum Unreadable {
    Newer,
    Damaged,
}

fn parse(bytes: &[u8]) -> Result<Mark, Unreadable> {
    let text = std::str::from_utf8(bytes).map_err(|_| Unreadable::Damaged)?;
    let (body, checksum) = text.split_once("checksum ").ok_or(Unreadable::Damaged)?;
    if checksum.trim() != format!("{:016x}", xxh3_64(body.as_bytes())) {
        return Err(Unreadable::Damaged);
    }
    let mut lines = body.lines();
    if lines.next() != Some(FORM) {
        return Err(Unreadable::Newer);
    }
    let mut value = |name: &str| lines.next().and_then(|l| l.strip_prefix(name)).ok_or(Unreadable::Damaged);
    let number = |text: &str| text.parse::<u64>().map_err(|_| Unreadable::Damaged);
    let identity = u64::from_str_radix(value("identity ")?, 16).map_err(|_| Unreadable::Damaged)?;
    let ceiling = number(value("ceiling ")?)?;
    let closed_at = match value("closed ")? {
        "open" => None,
        at => Some(number(at)?),
    };
    Ok(Mark { identity, ceiling, closed_at, sequence: number(value("sequence ")?)? })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn one_spoilt_file_leaves_the_mark_before() {
        let directory = tempfile::tempdir().unwrap();
        let base = directory.path().join("mark");
        assert!(Marker::load(&base).unwrap().is_none());
        let mut marker = Marker::create(&base, 7, 0).unwrap();
        marker.raise(10_000).unwrap();
        marker.close(42).unwrap();
        let newest = Marker::load(&base).unwrap().unwrap().mark();
        assert_eq!((newest.identity, newest.ceiling, newest.closed_at), (7, 10_000, Some(42)));
        let [a, b] = paths(&base);
        for (spoilt, closed_at) in [(&a, None), (&b, Some(42))] {
            let kept = std::fs::read(spoilt).unwrap();
            std::fs::write(spoilt, b"").unwrap();
            let left = Marker::load(&base).unwrap().unwrap().mark();
            assert_eq!((left.identity, left.ceiling, left.closed_at), (7, 10_000, closed_at));
            std::fs::write(spoilt, kept).unwrap();
        }
    }

    #[test]
    fn no_flipped_bit_passes_and_a_newer_form_is_told_apart() {
        let mark = Mark { identity: 0xabc, ceiling: 10_000, closed_at: None, sequence: 3 };
        let bytes = format(&mark).into_bytes();
        assert_eq!(bytes.len(), SIZE);
        assert!(parse(&bytes).is_ok_and(|m| m == mark));
        for bit in 0..bytes.len() * 8 {
            let mut damaged = bytes.clone();
            damaged[bit / 8] ^= 1 << (bit % 8);
            assert!(parse(&damaged).is_ok_and(|m| m == mark) || parse(&damaged).is_err(), "bit {bit}");
        }
        let body = "coracle store 2\nanything\n";
        let newer = format!("{body}checksum {:016x}\n", xxh3_64(body.as_bytes()));
        assert!(matches!(parse(newer.as_bytes()), Err(Unreadable::Newer)));
    }
}
