//! What happens to the database file before the engine opens it: absence is judged, every page is
//! checked, flipped bits are mended, and a file that is damaged beyond that is replaced by one with all
//! that can be read of it.

use std::fs::File;
use std::io::{self, Read};
use std::os::unix::fs::FileExt;
use std::path::{Path, PathBuf};

use redb::Database;

use super::pages::{Mend, Pages, Salvaged};
use super::{
    CEILING, CURRENT_FORM, ENTRIES, FORM, IDENTITY, META, PAGE_CACHE, SetAside, beside, guarded, load_row, random, row,
};
use crate::error::{BoxError, OpenError};
use crate::gap::Gap;
use crate::key::Key;
use crate::marker::{self, Mark};

/// Makes sure that the file is there and whole, as far as that is possible without losing anything.
pub(super) fn prepare(path: &Path, marker: Option<&Path>, mark: Option<Mark>) -> Result<(), OpenError> {
    if !is_there(path)? {
        if let (Some(marker), Some(_)) = (marker, mark) {
            return Err(OpenError::Missing { path: path.to_owned(), marker: marker::paths(marker) });
        }
        return create(path);
    }
    let mut pages = Pages::new(statefile::open_file(path)?)?;
    let found = pages.inspect()?;
    if !found.is_whole() {
        return replace(path, &mut pages, mark);
    }
    if !found.mends.is_empty() {
        mend(path, &found.mends)?;
        tracing::warn!(path = %path.display(), bits = found.mends.len(), "flipped bits of the store were put right");
    }
    Ok(())
}

/// The file appears under its name once it is complete.
fn create(path: &Path) -> Result<(), OpenError> {
    let new = beside(path, ".new");
    remove(&new)?;
    let empty = Remains { found: Salvaged::default(), identity: random(), ceiling: 0 };
    guarded(|| write(&new, &empty))
        .map_err(|source| OpenError::Database { path: path.to_owned(), source: Box::new(source) })?;
    std::fs::rename(&new, path)?;
    sync_directory(path)?;
    Ok(())
}

fn sync_directory(path: &Path) -> io::Result<()> {
    match path.parent().filter(|p| !p.as_os_str().is_empty()) {
        Some(directory) => File::open(directory)?.sync_all(),
        None => Ok(()),
    }
}

/// A pulled plug or a full disk may leave a file of no bytes: the engine would take it for a new one.
fn is_there(path: &Path) -> io::Result<bool> {
    Ok(statefile::length(path)?.is_some_and(|length| length > 0))
}

fn mend(path: &Path, mends: &[Mend]) -> io::Result<()> {
    let file = statefile::open_to_write(path)?;
    for mend in mends {
        file.write_all_at(&[mend.byte], mend.offset)?;
    }
    file.sync_all()
}

/// What a damaged file still holds.
struct Remains {
    found: Salvaged,
    identity: u64,
    ceiling: u64,
}

/// Reads what is left, or says why that is not enough to go on with.
fn remains(pages: &mut Pages, mark: Option<Mark>) -> io::Result<Result<Remains, String>> {
    let found = match pages.salvage()? {
        Ok(found) => found,
        Err(what) => return Ok(Err(what)),
    };
    let value = |name: &str| {
        let (_, value) = found.meta.as_ref()?.iter().find(|(key, _)| key == name.as_bytes())?;
        Some(u64::from_le_bytes(*value.first_chunk()?))
    };
    if let Some(form) = value(FORM).filter(|form| *form > CURRENT_FORM) {
        return Ok(Err(format!("it is of the later form {form}")));
    }
    let readable: Vec<u64> = found.entries.iter().filter_map(|(name, row)| Some(row::open(name, row)?.0)).collect();
    if let Some(what) = is_too_little(readable.len(), &found) {
        return Ok(Err(what));
    }
    let is_sound = found.gaps.is_empty() && readable.len() == found.entries.len();
    let known = mark.map(|m| m.ceiling).or(value(CEILING));
    let Some(ceiling) = known.or_else(|| is_sound.then(|| readable.into_iter().max().unwrap_or(0))) else {
        return Ok(Err("its highest revision is not known".to_owned()));
    };
    let identity = mark.map(|m| m.identity).or(value(IDENTITY)).unwrap_or_else(random);
    let ceiling = ceiling.max(value(CEILING).unwrap_or(0));
    Ok(Ok(Remains { found, identity, ceiling }))
}

/// A store of which more is lost than left is no cluster to go on with: a copy of it is worth more.
fn is_too_little(readable: usize, found: &Salvaged) -> Option<String> {
    let is_whole = found.gaps.is_empty() && readable == found.entries.len();
    let expected = found.expected.map_or(found.entries.len(), |n| usize::try_from(n).unwrap_or(usize::MAX));
    match readable {
        _ if is_whole => None,
        0 => Some("none of its objects can be read".to_owned()),
        _ if readable < expected / 2 => Some(format!("{readable} of its {expected} objects can be read")),
        _ => None,
    }
}

/// Makes a new file of one that the engine does not open.
pub(super) fn write_anew(path: &Path, mark: Option<Mark>) -> Result<(), OpenError> {
    replace(path, &mut Pages::new(statefile::open_file(path)?)?, mark)
}

/// Where a damaged file is kept. As long as it is there, what it may hold is not given up.
pub(super) fn kept(path: &Path) -> PathBuf {
    beside(path, ".damaged")
}

/// Makes a new file of what can be read, and keeps the damaged one beside it.
fn replace(path: &Path, pages: &mut Pages, mark: Option<Mark>) -> Result<(), OpenError> {
    let remains = match remains(pages, mark)? {
        Ok(remains) => remains,
        Err(what) => return Err(OpenError::Damaged { path: path.to_owned(), what }),
    };
    let (new, kept) = (beside(path, ".new"), kept(path));
    remove(&new)?;
    let written = guarded(|| write(&new, &remains));
    written.map_err(|source| OpenError::Replace { path: path.to_owned(), source: Box::new(source) })?;
    remove(&kept)?;
    // At no moment is there no store: the name goes over to the new file in one step.
    std::fs::hard_link(path, &kept)?;
    std::fs::rename(&new, path)?;
    sync_directory(path)?;
    tracing::error!(path = %path.display(), kept = %kept.display(), "the store is damaged; all that can be read of it was written anew");
    Ok(())
}

fn remove(path: &Path) -> io::Result<()> {
    match std::fs::remove_file(path) {
        Err(e) if e.kind() != io::ErrorKind::NotFound => {
            // A directory is not removed, and named.
            statefile::length(path)?;
            Err(e)
        }
        Ok(()) | Err(_) => Ok(()),
    }
}

fn write(new: &Path, remains: &Remains) -> Result<(), redb::Error> {
    // The engine fills a file that is there and empty, and leaves its mode.
    drop(statefile::new_file(new)?);
    let database = Database::builder().set_cache_size(PAGE_CACHE).create(new)?;
    let mut transaction = database.begin_write()?;
    transaction.set_quick_repair(true);
    {
        let mut entries = transaction.open_table(ENTRIES)?;
        for (name, row) in &remains.found.entries {
            entries.insert(&**name, row.as_slice())?;
        }
        for name in remains.found.gaps.iter().map(Gap::row_name) {
            entries.insert(&*name, &*row::seal(&name, 0, b""))?;
        }
        let mut meta = transaction.open_table(META)?;
        meta.insert(FORM, CURRENT_FORM)?;
        meta.insert(IDENTITY, remains.identity)?;
        meta.insert(CEILING, remains.ceiling)?;
    }
    transaction.commit()?;
    Ok(database.close()?)
}

/// What a look at a store that nobody has open finds. It changes nothing.
#[derive(Debug, Default)]
pub struct Report {
    pub entries: usize,
    pub set_aside: Vec<SetAside>,
    /// Where entries are lost of which not even the names are known.
    pub gaps: Vec<Gap>,
    /// Bits that the next start will put right.
    pub flipped_bits: usize,
    /// The next start will write the file anew.
    pub is_damaged: bool,
}

/// Looks at a store as its next start will find it.
///
/// # Errors
/// What would keep the store from being opened.
pub fn check(
    path: &Path,
    marker: Option<&Path>,
    mut load: impl FnMut(Key, u64, &[u8]) -> Result<(), BoxError>,
) -> Result<Report, OpenError> {
    let mark = marker.map(marker::Marker::load).transpose()?.flatten().map(|m| m.mark());
    if !is_there(path)? {
        let Some(marker) = marker.filter(|_| mark.is_some()) else { return Ok(Report::default()) };
        return Err(OpenError::Missing { path: path.to_owned(), marker: marker::paths(marker) });
    }
    let mut pages = Pages::new(statefile::open_file(path)?)?;
    let found = pages.inspect()?;
    let damaged = |what| OpenError::Damaged { path: path.to_owned(), what };
    let mut report = Report { flipped_bits: found.mends.len(), is_damaged: !found.is_whole(), ..Report::default() };
    let entries: Vec<(String, Vec<u8>)> = if found.is_whole() {
        let rows = pages.rows("entries")?.unwrap_or_default();
        rows.into_iter().map(|(name, row)| (String::from_utf8_lossy(&name).into_owned(), row)).collect()
    } else {
        let remains = remains(&mut pages, mark)?.map_err(damaged)?;
        report.gaps = remains.found.gaps;
        remains.found.entries.into_iter().collect()
    };
    let is_remembered = !found.is_whole() || kept(path).exists();
    for (name, row) in entries {
        if let Some(gap) = gap_of(&name, &row) {
            report.gaps.extend(is_remembered.then_some(gap));
            continue;
        }
        match load_row(&name, &row, &mut load) {
            Ok(()) => report.entries += 1,
            Err(reason) => report.set_aside.push(SetAside { name, reason }),
        }
    }
    Ok(report)
}

/// How often a store that is written meanwhile is looked at: a board at rest commits every few seconds, and a look takes
/// less than one.
const LOOKS: usize = 5;
/// Each commit changes something within the first bytes of the file.
const HEAD: u64 = 512;

/// Looks at a store that a server has open, without holding it up; `None` when it was written during each look.
///
/// Pages of a commit are not written over before the next commit is in the header. So what was read between two
/// reads of one header is what that commit holds.
///
/// # Errors
/// What would keep the store from being opened.
pub fn check_in_use(
    path: &Path,
    marker: Option<&Path>,
    mut load: impl FnMut(Key, u64, &[u8]) -> Result<(), BoxError>,
) -> Result<Option<Report>, OpenError> {
    for _ in 0..LOOKS {
        let before = head(path)?;
        let report = check(path, marker, &mut load);
        if head(path)? == before {
            return report.map(Some);
        }
    }
    Ok(None)
}

fn head(path: &Path) -> io::Result<Vec<u8>> {
    let mut bytes = Vec::new();
    statefile::open_file(path)?.take(HEAD).read_to_end(&mut bytes)?;
    Ok(bytes)
}

/// The gap that rests in this row, if that is what it is.
pub(super) fn gap_of(name: &str, row: &[u8]) -> Option<Gap> {
    row::open(name, row).and_then(|_| Gap::parse(name))
}
