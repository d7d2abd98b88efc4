//! The entries of a tar archive, one by one, in memory of bounded size.
//!
//! What stands before an entry (GNU's long names and links, pax records, the maps of sparse files) is read
//! whole by the tar library, whatever length it claims. Its reader has only so much to give until the entry is
//! there, so that no header has to be understood twice.

use std::cell::Cell;
use std::io::{self, Read};

use tar::{Archive, Entry, EntryType};

/// As Go's archive/tar has it for each of these; here for all that belong to one entry.
pub(super) const HEADERS_MAX: u64 = 1 << 20;
/// The headers themselves, and the padding of the entry before.
const SLACK: u64 = 16 << 10;

/// Hands `inner` on as long as anything is left.
pub(super) struct Bounded<'a, R> {
    inner: R,
    /// `None` is without a bound: the content of an entry, which is not kept.
    left: &'a Cell<Option<u64>>,
}

impl<R: Read> Read for Bounded<'_, R> {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        let Some(left) = self.left.get() else { return self.inner.read(buffer) };
        if left == 0 && !buffer.is_empty() {
            return Err(too_long());
        }
        let most = usize::try_from(left).unwrap_or(usize::MAX).min(buffer.len());
        let len = self.inner.read(&mut buffer[..most])?;
        self.left.set(Some(left - len as u64));
        Ok(len)
    }
}

fn too_long() -> io::Error {
    let text = format!("invalid tar header: header field too long, the most are {HEADERS_MAX} bytes");
    io::Error::new(io::ErrorKind::InvalidData, text)
}

/// Calls `place` with each entry; what it leaves of the content is skipped.
pub(super) fn each<R: Read, E>(
    stream: R,
    failed: impl Fn(io::Error) -> E,
    mut place: impl FnMut(&mut Entry<'_, Bounded<'_, R>>) -> Result<(), E>,
) -> Result<(), E> {
    let left = Cell::new(None);
    let mut archive = Archive::new(Bounded { inner: stream, left: &left });
    let mut entries = archive.entries().map_err(&failed)?;
    loop {
        left.set(Some(HEADERS_MAX + SLACK));
        let Some(entry) = entries.next() else { return Ok(()) };
        let mut entry = entry.map_err(&failed)?;
        left.set(None);
        let kind = entry.header().entry_type();
        if kind == EntryType::XGlobalHeader && entry.size() > HEADERS_MAX {
            return Err(failed(too_long()));
        }
        place(&mut entry)?;
        // The holes of a sparse file may have any size; one that was not read counts as a header.
        if kind != EntryType::GNUSparse {
            io::copy(&mut entry, &mut io::sink()).map_err(&failed)?;
        }
    }
}

#[cfg(test)]
mod tests {
    use tar::Header;

    use super::*;

    /// A header and what follows it, without an end.
    struct Endless {
        head: Vec<u8>,
        fill: u8,
        given: usize,
    }

    impl Read for Endless {
        fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
            for byte in &mut *buffer {
                *byte = self.head.get(self.given).copied().unwrap_or(self.fill);
                self.given += 1;
            }
            Ok(buffer.len())
        }
    }

    fn header(kind: EntryType, size: u64) -> Vec<u8> {
        let mut header = Header::new_gnu();
        header.set_entry_type(kind);
        header.set_mode(0o644);
        header.set_size(size);
        if kind == EntryType::GNUSparse {
            let gnu = header.as_gnu_mut().unwrap();
            gnu.isextended = [1];
        }
        header.set_cksum();
        header.as_bytes().to_vec()
    }

    fn entries(stream: impl Read) -> (usize, Option<String>) {
        let mut count = 0;
        let end = each(
            stream,
            |error| error.to_string(),
            |_| {
                count += 1;
                Ok(())
            },
        );
        (count, end.err())
    }

    const TOO_LONG: &str = "invalid tar header: header field too long, the most are 1048576 bytes";

    #[test]
    fn headers_without_an_end_are_not_read() {
        for kind in [
            EntryType::GNULongName,
            EntryType::GNULongLink,
            EntryType::XHeader,
            EntryType::XGlobalHeader,
            EntryType::GNUSparse,
        ] {
            for size in [2 << 20, 600 << 20, 1 << 60] {
                // Blocks of ones map nothing, and say that another one follows.
                let fill = if kind == EntryType::GNUSparse { 1 } else { 0 };
                let mut stream = Endless { head: header(kind, size), fill, given: 0 };
                if kind == EntryType::GNUSparse {
                    stream.head.extend((0..4 << 20).map(|at| u8::from(at % 512 == 504)));
                }
                let (count, end) = entries(&mut stream);
                let end = end.unwrap();
                assert_eq!(count, 0, "{kind:?} {size}: {end}");
                assert!(end.contains(TOO_LONG), "{kind:?} {size}: {end}");
                assert!(stream.given < 2 << 20, "{kind:?} {size}: {} bytes were read", stream.given);
            }
        }
    }

    #[test]
    fn large_content_is_skipped_and_headers_of_usual_length_are_read() {
        let mut archive = tar::Builder::new(Vec::new());
        for n in 0..3 {
            let mut header = Header::new_gnu();
            header.set_mode(0o644);
            header.set_size(3 << 20);
            let name = format!("{}{n}", "n/".repeat(2500));
            archive.append_data(&mut header, name, io::repeat(7).take(3 << 20)).unwrap();
            archive.append_pax_extensions([("comment", "x".repeat(500 << 10).as_bytes())]).unwrap();
        }
        let mut header = Header::new_ustar();
        header.set_size(0);
        archive.append_data(&mut header, "last", io::empty()).unwrap();
        assert_eq!(entries(archive.into_inner().unwrap().as_slice()), (4, None));
    }
}
