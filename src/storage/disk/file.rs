//! What happens to the database file before the engine opens it: absence is judged, every page is
//! checked, flipped bits are mended, and a file that is damaged beyond that is replaced by one with all
//! that can be read of it.

use std::fs::{File, OpenOptions};
use std::io;
use std::os::unix::fs::FileExt;
use std::path::Path;

use redb::Database;

use super::pages::{Inspection, Mend, Pages, TableRows};
use super::{
    CEILING, CURRENT_FORM, ENTRIES, FORM, IDENTITY, META, PAGE_CACHE, SetAside, beside, guarded, load_row, random, row,
};
use crate::error::{BoxError, OpenError};
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
    let mut pages = Pages::new(File::open(path)?)?;
    let found = pages.inspect()?;
    if !found.is_whole() {
        return replace(path, &mut pages, &found, mark);
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
    let empty = Remains { entries: TableRows::default(), identity: random(), ceiling: 0 };
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
    match std::fs::metadata(path) {
        Ok(metadata) => Ok(metadata.len() > 0),
        Err(e) if e.kind() == io::ErrorKind::NotFound => Ok(false),
        Err(e) => Err(e),
    }
}

fn mend(path: &Path, mends: &[Mend]) -> io::Result<()> {
    let file = OpenOptions::new().write(true).open(path)?;
    for mend in mends {
        file.write_all_at(&[mend.byte], mend.offset)?;
    }
    file.sync_all()
}

/// What a damaged file still holds.
struct Remains {
    /// As they are, damaged ones included.
    entries: TableRows,
    identity: u64,
    ceiling: u64,
}

/// Reads what is left, or says why that is not enough to go on with.
fn remains(pages: &mut Pages, found: &Inspection, mark: Option<Mark>) -> io::Result<Result<Remains, String>> {
    if let Some(lost) = &found.lost {
        return Ok(Err(lost.clone()));
    }
    let entries = match pages.rows("entries")? {
        Ok(Some(entries)) => entries,
        Ok(None) => return Ok(Err("it is damaged, and of the form before entries had checksums".to_owned())),
        Err(what) => return Ok(Err(what)),
    };
    // An entry whose very name is damaged cannot be named.
    if let Some((name, _)) = entries.rows.iter().find(|(name, row)| is_nameless(name, row)) {
        return Ok(Err(format!("the name {} of an entry is damaged", String::from_utf8_lossy(name))));
    }
    let meta = match pages.rows("meta")? {
        Ok(Some(meta)) if meta.is_sound => Some(meta),
        Ok(_) | Err(_) => None,
    };
    let value = |name: &str| {
        let (_, value) = meta.as_ref()?.rows.iter().find(|(key, _)| key == name.as_bytes())?;
        Some(u64::from_le_bytes(*value.first_chunk()?))
    };
    let highest =
        entries.rows.iter().filter_map(|(_, row)| row.get(8..)?.first_chunk()).map(|b| u64::from_le_bytes(*b));
    let known = mark.map(|m| m.ceiling).or(value(CEILING));
    let Some(ceiling) = known.or_else(|| entries.is_sound.then(|| highest.max().unwrap_or(0))) else {
        return Ok(Err("its highest revision is not known".to_owned()));
    };
    let identity = mark.map(|m| m.identity).or(value(IDENTITY)).unwrap_or_else(random);
    match value(FORM) {
        Some(form) if form > CURRENT_FORM => Ok(Err(format!("it is damaged, and of the later form {form}"))),
        Some(_) | None => Ok(Ok(Remains { entries, identity, ceiling: ceiling.max(value(CEILING).unwrap_or(0)) })),
    }
}

fn is_nameless(name: &[u8], row: &[u8]) -> bool {
    let name = std::str::from_utf8(name).ok();
    name.is_none_or(|name| row::open(name, row).is_none() && Key::parse(name).is_none())
}

/// Makes a new file of one that the engine does not open.
pub(super) fn write_anew(path: &Path, mark: Option<Mark>) -> Result<(), OpenError> {
    let mut pages = Pages::new(File::open(path)?)?;
    let found = pages.inspect()?;
    replace(path, &mut pages, &found, mark)
}

/// Makes a new file of what can be read, and keeps the damaged one beside it.
fn replace(path: &Path, pages: &mut Pages, found: &Inspection, mark: Option<Mark>) -> Result<(), OpenError> {
    let remains = match remains(pages, found, mark)? {
        Ok(remains) => remains,
        Err(what) => return Err(OpenError::Damaged { path: path.to_owned(), what }),
    };
    let (new, kept) = (beside(path, ".new"), beside(path, ".damaged"));
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
        Err(e) if e.kind() != io::ErrorKind::NotFound => Err(e),
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
        for (name, row) in &remains.entries.rows {
            let name = std::str::from_utf8(name).map_err(|e| redb::Error::Corrupted(e.to_string()))?;
            entries.insert(name, row.as_slice())?;
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
    let mut pages = Pages::new(File::open(path)?)?;
    let found = pages.inspect()?;
    let damaged = |what| OpenError::Damaged { path: path.to_owned(), what };
    let mut report = Report { flipped_bits: found.mends.len(), is_damaged: !found.is_whole(), ..Report::default() };
    let entries = if found.is_whole() {
        pages.rows("entries")?.map_err(damaged)?
    } else {
        Some(remains(&mut pages, &found, mark)?.map_err(damaged)?.entries)
    };
    for (name, row) in entries.unwrap_or_default().rows {
        let name = String::from_utf8_lossy(&name);
        match load_row(&name, &row, &mut load) {
            Ok(()) => report.entries += 1,
            Err(reason) => report.set_aside.push(SetAside { name: name.into_owned(), reason }),
        }
    }
    Ok(report)
}
