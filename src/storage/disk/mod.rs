//! The database file: loads everything at start, then takes one transaction per batch.
//!
//! Before the engine opens a file, every page of it is checked ([`pages`], [`file`]). Entries that
//! cannot be read are set aside: they stay where they are, and are named. After a failed commit the
//! database is closed and opened anew at the next one, because an engine that saw an I/O error refuses
//! further work, and space may have been freed meanwhile.

mod file;
mod form1;
mod pages;
mod reserve;
mod row;

use std::io;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::path::{Path, PathBuf};

use redb::{Database, Durability, ReadableDatabase, ReadableTable, TableDefinition};

use crate::error::{BoxError, OpenError};
use crate::gap::Gap;
use crate::key::Key;
use crate::marker::Marker;
use reserve::Reserve;

pub use file::{Report, check, check_in_use};

/// Where entries are kept.
#[derive(Clone, Debug)]
pub enum Backend {
    File {
        database: PathBuf,
        /// Two files whose names begin so say what store there is; without them nobody notices that the
        /// database is gone.
        marker: Option<PathBuf>,
    },
    Memory,
}

const ENTRIES: TableDefinition<'_, &str, &[u8]> = TableDefinition::new("entries");
const META: TableDefinition<'_, &str, u64> = TableDefinition::new("meta");

/// The form of the tables. A store of a later form is refused.
const FORM: &str = "form";
/// The form that this version writes. Form 1 had no such entry and no checksums.
const CURRENT_FORM: u64 = 2;
/// Tells this store from others; the marker has the same.
const IDENTITY: &str = "identity";
/// No revision above this one was ever given out.
const CEILING: &str = "ceiling";
/// Equal to the ceiling after an orderly close: then it is the last revision that was used.
const CLOSED_AT: &str = "closed-at";

/// The engine's page cache. Small: reads are served from our own cache, so that it only sees the
/// pages that a commit rewrites.
const PAGE_CACHE: usize = 2 << 20;

pub(crate) type Opener = Box<dyn Fn() -> Result<Database, redb::Error> + Send>;

/// One changed entry; without a value it is removed.
pub(crate) struct Change {
    pub(crate) key: Key,
    pub(crate) value: Option<(u64, bytes::Bytes)>,
}

/// An entry that is there and cannot be read. It stays as it is until an entry of its name is written.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct SetAside {
    /// Its name on disk.
    pub name: String,
    pub reason: String,
}

pub(crate) struct Disk {
    opener: Opener,
    database: Option<Database>,
    ceiling: u64,
    marker: Option<Marker>,
    reserve: Reserve,
    /// The engine found the file damaged while it was in use: only a start, which checks all of it,
    /// may go on.
    is_broken: bool,
}

/// What the store begins with.
pub(crate) struct Loaded {
    pub(crate) revision: u64,
    pub(crate) set_aside: Vec<SetAside>,
    pub(crate) gaps: Vec<Gap>,
}

/// How a database is opened and what guards it.
pub(crate) struct Source {
    pub(crate) path: Option<PathBuf>,
    pub(crate) marker: Option<PathBuf>,
    pub(crate) opener: Opener,
}

impl Backend {
    pub(crate) fn source(&self) -> Source {
        match self {
            Self::File { database, marker } => {
                let path = database.clone();
                // Only ever an existing file: one that vanished must not come back empty.
                let opener: Opener =
                    Box::new(move || Ok(Database::builder().set_cache_size(PAGE_CACHE).open(&path)?));
                Source { path: Some(database.clone()), marker: marker.clone(), opener }
            }
            Self::Memory => Source {
                path: None,
                marker: None,
                opener: Box::new(|| {
                    let memory = redb::backends::InMemoryBackend::new();
                    Ok(Database::builder().set_cache_size(PAGE_CACHE).create_with_backend(memory)?)
                }),
            },
        }
    }
}

impl Disk {
    /// Opens the database and hands every readable entry to `load`.
    pub(crate) fn open(
        source: Source,
        load: impl FnMut(Key, u64, &[u8]) -> Result<(), BoxError>,
    ) -> Result<(Self, Loaded), OpenError> {
        let Source { path, marker: base, opener } = source;
        let mut marker = base.as_deref().map(Marker::load).transpose()?.flatten();
        if let Some(path) = &path {
            file::prepare(path, base.as_deref(), marker.as_ref().map(Marker::mark))?;
        }
        let shown = path.clone().unwrap_or_else(|| "(memory)".into());
        let mark = marker.as_ref().map(Marker::mark);
        let open = || {
            guarded(|| {
                let database = opener()?;
                let meta = prepare(&database, mark.map(|m| m.identity))?;
                Ok((database, meta))
            })
        };
        let mut opened = open();
        if let (Err(redb::Error::Corrupted(_)), Some(path)) = (&opened, &path) {
            // Every page is right, and still the engine does not take the file: its header has numbers that
            // no checksum covers.
            file::write_anew(path, mark)?;
            opened = open();
        }
        let (database, meta) =
            opened.map_err(|source| OpenError::Database { path: shown.clone(), source: Box::new(source) })?;
        if meta.form > CURRENT_FORM {
            return Err(OpenError::Newer { path: shown, form: meta.form, known: CURRENT_FORM });
        }
        if let (Some(base), Some(marker)) = (&base, &marker)
            && marker.mark().identity != meta.identity
        {
            return Err(OpenError::Foreign { path: shown, marker: base.clone() });
        }
        let read = guarded(|| {
            let (set_aside, gaps) = read_entries(&database, load)?;
            if gaps.is_empty() || path.as_deref().is_some_and(|path| file::kept(path).exists()) {
                return Ok((set_aside, gaps));
            }
            // Who removed the damaged file has given up what it may have held.
            forget(&database, &gaps)?;
            Ok((set_aside, Vec::new()))
        });
        let (set_aside, gaps) = read.map_err(|source| OpenError::Read { source: Box::new(source) })?;
        if let (Some(base), None) = (&base, &marker) {
            let made = Marker::create(base, meta.identity, meta.ceiling);
            marker = Some(made.map_err(|source| OpenError::Marker { path: base.clone(), source })?);
        }
        let revision = first_revision(&meta, marker.as_ref());
        let reserve = Reserve::beside(path.as_deref());
        let disk = Self { opener, database: Some(database), ceiling: meta.ceiling, marker, reserve, is_broken: false };
        Ok((disk, Loaded { revision, set_aside, gaps }))
    }

    /// No revision above this may be published.
    pub(crate) fn ceiling(&self) -> u64 {
        self.ceiling
    }

    /// Whether only writes that make room are done.
    pub(crate) fn is_full(&self) -> bool {
        self.reserve.is_full()
    }

    pub(crate) fn is_broken(&self) -> bool {
        self.is_broken
    }

    /// Looks whether a full disk has room again.
    pub(crate) fn look_for_room(&mut self) {
        if self.reserve.is_full() {
            self.reserve.look();
        }
    }

    /// After a commit that found the disk full: whether another try has more room.
    pub(crate) fn make_room(&mut self, error: &redb::Error) -> bool {
        matches!(error, redb::Error::Io(error) if reserve::is_storage_full(error)) && self.reserve.give_up()
    }

    /// Writes a batch and the ceiling, and returns when they are on disk.
    pub(crate) fn commit(&mut self, changes: Vec<Change>, ceiling: u64, closing: bool) -> Result<(), redb::Error> {
        if self.is_broken {
            return Err(redb::Error::Corrupted("the store was found damaged; the next start checks it".to_owned()));
        }
        // The ceiling has a page of its own, which most commits can leave as it is.
        let raised = (closing || ceiling != self.ceiling).then_some(ceiling);
        let database = self.database.take();
        let result = guarded(|| {
            if !closing && let (Some(ceiling), Some(marker)) = (raised, &mut self.marker) {
                marker.raise(ceiling)?;
            }
            let database = database.map_or_else(&self.opener, Ok)?;
            write(&database, changes, raised, closing)?;
            Ok(database)
        });
        match result {
            Ok(database) => {
                self.database = Some(database);
                self.ceiling = ceiling;
                if closing && let Some(marker) = &mut self.marker {
                    marker.close(ceiling)?;
                }
                Ok(())
            }
            Err(error) => {
                self.is_broken = matches!(error, redb::Error::Corrupted(_));
                Err(error)
            }
        }
    }
}

/// A file beside the database.
fn beside(database: &Path, ending: &str) -> PathBuf {
    let mut path = database.as_os_str().to_owned();
    path.push(ending);
    path.into()
}

/// What the engine does when it meets what it does not expect is to panic; here that is an error.
fn guarded<T>(work: impl FnOnce() -> Result<T, redb::Error>) -> Result<T, redb::Error> {
    catch_unwind(AssertUnwindSafe(work)).unwrap_or_else(|panic| {
        let text = panic.downcast_ref::<String>().map(String::as_str).or_else(|| panic.downcast_ref::<&str>().copied());
        Err(redb::Error::Corrupted(format!("the database engine gave up: {}", text.unwrap_or("without a word"))))
    })
}

/// What the database says of itself.
struct Meta {
    form: u64,
    identity: u64,
    ceiling: u64,
    closed_at: Option<u64>,
}

/// Creates the tables of a new database, or brings those of an older form up to date.
fn prepare(database: &Database, known_identity: Option<u64>) -> Result<Meta, redb::Error> {
    let transaction = database.begin_read()?;
    let mut meta = match transaction.open_table(META) {
        Ok(meta) => {
            let value = |name| meta.get(name).map(|v| v.map(|v| v.value()));
            let form = value(FORM)?.unwrap_or(1);
            if form >= CURRENT_FORM {
                let identity = value(IDENTITY)?.unwrap_or_default();
                return Ok(Meta {
                    form,
                    identity,
                    ceiling: value(CEILING)?.unwrap_or(0),
                    closed_at: value(CLOSED_AT)?,
                });
            }
            Meta { form, identity: 0, ceiling: value(CEILING)?.unwrap_or(0), closed_at: value(CLOSED_AT)? }
        }
        Err(redb::TableError::TableDoesNotExist(_)) => Meta { form: 0, identity: 0, ceiling: 0, closed_at: None },
        Err(error) => return Err(error.into()),
    };
    drop(transaction);
    if meta.form == 0 && known_identity.is_some() {
        return Err(redb::Error::Corrupted("it has no tables, but a store was here before".to_owned()));
    }
    meta.identity = known_identity.unwrap_or_else(random);
    let mut transaction = database.begin_write()?;
    transaction.set_quick_repair(true);
    {
        let mut entries = transaction.open_table(ENTRIES)?;
        if meta.form == 1 {
            form1::convert(&transaction, &mut entries)?;
        }
        let mut table = transaction.open_table(META)?;
        table.insert(FORM, CURRENT_FORM)?;
        table.insert(IDENTITY, meta.identity)?;
    }
    transaction.commit()?;
    meta.form = CURRENT_FORM;
    Ok(meta)
}

/// The standard library seeds its hashers at random; an identity needs no more.
fn random() -> u64 {
    use std::hash::{BuildHasher, Hasher, RandomState};
    RandomState::new().build_hasher().finish()
}

/// After an orderly close the last revision goes on; else every revision up to the ceiling may have
/// been seen by someone, so that the next state must have a revision of its own.
fn first_revision(meta: &Meta, marker: Option<&Marker>) -> u64 {
    let is_closed = meta.closed_at == Some(meta.ceiling);
    let inside = if is_closed { meta.ceiling } else { meta.ceiling + 1 };
    let Some(mark) = marker.map(Marker::mark) else { return inside };
    let agree = if is_closed {
        mark.closed_at == meta.closed_at
    } else {
        mark.closed_at.is_none() && mark.ceiling == meta.ceiling
    };
    if agree || mark.ceiling < inside {
        return inside;
    }
    let revision = mark.ceiling + 1;
    tracing::warn!(
        revision,
        "the store is not in the state in which it was left: revisions go on above all that were given out"
    );
    revision
}

/// Hands every readable entry over; returns the others, and where entries are lost.
fn read_entries(
    database: &Database,
    mut load: impl FnMut(Key, u64, &[u8]) -> Result<(), BoxError>,
) -> Result<(Vec<SetAside>, Vec<Gap>), redb::Error> {
    let transaction = database.begin_read()?;
    let entries = transaction.open_table(ENTRIES)?;
    let (mut set_aside, mut gaps) = (Vec::new(), Vec::new());
    for row in entries.iter()? {
        let (name, row) = row?;
        if let Some(gap) = file::gap_of(name.value(), row.value()) {
            gaps.push(gap);
            continue;
        }
        if let Err(reason) = load_row(name.value(), row.value(), &mut load) {
            set_aside.push(SetAside { name: name.value().to_owned(), reason });
        }
    }
    Ok((set_aside, gaps))
}

fn forget(database: &Database, gaps: &[Gap]) -> Result<(), redb::Error> {
    let mut transaction = database.begin_write()?;
    transaction.set_quick_repair(true);
    {
        let mut entries = transaction.open_table(ENTRIES)?;
        for gap in gaps {
            entries.remove(&*gap.row_name())?;
        }
    }
    transaction.commit()?;
    Ok(())
}

fn load_row(
    name: &str,
    row: &[u8],
    load: &mut impl FnMut(Key, u64, &[u8]) -> Result<(), BoxError>,
) -> Result<(), String> {
    let (revision, bytes) = row::open(name, row).ok_or("its checksum does not match")?;
    let key = Key::parse(name).ok_or("its name is not one of ours")?;
    load(key, revision, bytes).map_err(|error| error.to_string())
}

fn write(database: &Database, changes: Vec<Change>, ceiling: Option<u64>, closing: bool) -> Result<(), redb::Error> {
    let mut transaction = database.begin_write()?;
    transaction.set_durability(Durability::Immediate)?;
    // With the allocator's state in each commit, opening after a crash does not walk the file.
    transaction.set_quick_repair(true);
    {
        let mut entries = transaction.open_table(ENTRIES)?;
        for Change { key, value } in changes {
            let key = key.to_string();
            match value {
                Some((revision, bytes)) => drop(entries.insert(&*key, &*row::seal(&key, revision, &bytes))?),
                None => drop(entries.remove(&*key)?),
            }
        }
        if let Some(ceiling) = ceiling {
            let mut meta = transaction.open_table(META)?;
            meta.insert(CEILING, ceiling)?;
            if closing {
                meta.insert(CLOSED_AT, ceiling)?;
            }
        }
    }
    transaction.commit()?;
    Ok(())
}

impl From<io::Error> for OpenError {
    fn from(source: io::Error) -> Self {
        if statefile::NotAFile::is(&source) {
            return Self::NotAFile(source);
        }
        Self::Read { source: Box::new(source.into()) }
    }
}
