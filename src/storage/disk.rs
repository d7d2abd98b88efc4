//! The database file: loads everything at start, then takes one transaction per batch.
//!
//! After a failed commit the database is closed and opened anew at the next one, because an engine
//! that saw an I/O error refuses further work, and space may have been freed meanwhile.

use std::path::{Path, PathBuf};

use redb::{Database, Durability, ReadableDatabase, ReadableTable, TableDefinition};

use crate::error::OpenError;
use crate::key::Key;

/// Where entries are kept.
#[derive(Clone, Debug)]
pub enum Backend {
    File(PathBuf),
    Memory,
}

const OBJECTS: TableDefinition<'_, &str, (u64, &[u8])> = TableDefinition::new("objects");
const META: TableDefinition<'_, &str, u64> = TableDefinition::new("meta");

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

pub(crate) struct Disk {
    opener: Opener,
    database: Option<Database>,
    ceiling: u64,
}

/// The revision that the store begins with.
pub(crate) struct Loaded {
    pub(crate) revision: u64,
}

impl Backend {
    pub(crate) fn opener(&self) -> Opener {
        match self {
            Self::File(path) => {
                let path = path.clone();
                Box::new(move || Ok(Database::builder().set_cache_size(PAGE_CACHE).create(&path)?))
            }
            Self::Memory => Box::new(|| {
                let memory = redb::backends::InMemoryBackend::new();
                Ok(Database::builder().set_cache_size(PAGE_CACHE).create_with_backend(memory)?)
            }),
        }
    }

    pub(crate) fn path(&self) -> &Path {
        match self {
            Self::File(path) => path,
            Self::Memory => Path::new("(memory)"),
        }
    }
}

impl Disk {
    /// Opens the database and hands every entry to `load`.
    pub(crate) fn open(
        opener: Opener,
        path: &Path,
        mut load: impl FnMut(Key, u64, &[u8]) -> Result<(), OpenError>,
    ) -> Result<(Self, Loaded), OpenError> {
        let database =
            opener().map_err(|source| OpenError::Database { path: path.into(), source: Box::new(source) })?;
        let read = |source: redb::Error| OpenError::Read { source: Box::new(source) };
        let mut disk = Self { opener, database: None, ceiling: 0 };
        let meta = Self::prepare(&database).map_err(read)?;
        disk.ceiling = meta.ceiling;
        let transaction = database.begin_read().map_err(|e| read(e.into()))?;
        let objects = transaction.open_table(OBJECTS).map_err(|e| read(e.into()))?;
        for row in objects.iter().map_err(|e| read(e.into()))? {
            let (key, value) = row.map_err(|e| read(e.into()))?;
            let key = Key::parse(key.value()).ok_or_else(|| OpenError::Key(key.value().to_owned()))?;
            let (revision, bytes) = value.value();
            load(key, revision, bytes)?;
        }
        drop((objects, transaction));
        disk.database = Some(database);
        Ok((disk, Loaded { revision: meta.first_revision() }))
    }

    /// Creates the tables of a new database and reads what is known of revisions.
    fn prepare(database: &Database) -> Result<Meta, redb::Error> {
        let transaction = database.begin_read()?;
        match transaction.open_table(META) {
            Ok(meta) => {
                let value = |name| meta.get(name).map(|v| v.map(|v| v.value()));
                return Ok(Meta { ceiling: value(CEILING)?.unwrap_or(0), closed_at: value(CLOSED_AT)? });
            }
            Err(redb::TableError::TableDoesNotExist(_)) => {}
            Err(error) => return Err(error.into()),
        }
        drop(transaction);
        let mut transaction = database.begin_write()?;
        transaction.set_quick_repair(true);
        transaction.open_table(OBJECTS)?;
        transaction.open_table(META)?;
        transaction.commit()?;
        Ok(Meta { ceiling: 0, closed_at: None })
    }

    /// No revision above this may be published.
    pub(crate) fn ceiling(&self) -> u64 {
        self.ceiling
    }

    /// Writes a batch and the ceiling, and returns when they are on disk.
    pub(crate) fn commit(&mut self, changes: Vec<Change>, ceiling: u64, closing: bool) -> Result<(), redb::Error> {
        if self.database.is_none() {
            self.database = Some((self.opener)()?);
        }
        let database = self.database.as_ref().expect("invariant: opened above");
        // The ceiling has a page of its own, which most commits can leave as it is.
        let raised = (closing || ceiling != self.ceiling).then_some(ceiling);
        match Self::write(database, changes, raised, closing) {
            Ok(()) => {
                self.ceiling = ceiling;
                Ok(())
            }
            Err(error) => {
                self.database = None;
                Err(error)
            }
        }
    }

    fn write(
        database: &Database,
        changes: Vec<Change>,
        ceiling: Option<u64>,
        closing: bool,
    ) -> Result<(), redb::Error> {
        let mut transaction = database.begin_write()?;
        transaction.set_durability(Durability::Immediate)?;
        // With the allocator's state in each commit, opening after a crash does not walk the file.
        transaction.set_quick_repair(true);
        {
            let mut objects = transaction.open_table(OBJECTS)?;
            for Change { key, value } in changes {
                let key = key.to_string();
                match value {
                    Some((revision, bytes)) => drop(objects.insert(&*key, (revision, &*bytes))?),
                    None => drop(objects.remove(&*key)?),
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
}

struct Meta {
    ceiling: u64,
    closed_at: Option<u64>,
}

impl Meta {
    /// After an orderly close the last revision goes on; else every revision up to the ceiling may
    /// have been seen by someone, so that the next state must have a revision of its own.
    fn first_revision(&self) -> u64 {
        if self.closed_at == Some(self.ceiling) { self.ceiling } else { self.ceiling + 1 }
    }
}
