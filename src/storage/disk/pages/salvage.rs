//! What can be read of a file that is damaged beyond single bits.
//!
//! Each page that is lost leaves a gap between two names. What lay below a lost branch, a lost list of
//! tables or a lost header is whole, and found by the bookkeeping of the commit ([`super::allocation`]).
//! Nothing is taken that does not prove itself: a row by its own checksum, a page by that of its parent or
//! by the bookkeeping. An older state of an object is never taken for the object.
//!
//! Time is linear in the file; memory holds what is read, as the caller will.

use std::collections::BTreeMap;
use std::io;
use std::os::unix::fs::FileExt;

use super::super::{CEILING, CLOSED_AT, FORM, IDENTITY, row};
use super::allocation::{Commit, PageSet, used_of_leaf};
use super::{BRANCH, Between, LEAF, Leaf, PAGE, Pages, Place, Rows, Shape, Stop, Table, branch_key_end, pairs, roots};
use crate::gap::Gap;
use crate::key::Key;

/// What is left.
#[derive(Debug, Default)]
pub(in super::super) struct Salvaged {
    /// By name. Those that cannot be read are damaged as they stand here, too.
    pub(in super::super) entries: BTreeMap<String, Vec<u8>>,
    /// Where entries are lost of which not even the names are known.
    pub(in super::super) gaps: Vec<Gap>,
    /// How many entries there have to be, if that is known.
    pub(in super::super) expected: Option<u64>,
    /// What the store says of itself.
    pub(in super::super) meta: Option<Rows>,
}

/// The rows of pages that no tree leads to.
#[derive(Debug, Default)]
struct Carved {
    entries: BTreeMap<String, Vec<u8>>,
    meta: Rows,
    /// Some name was found twice: the pages are not all of one commit.
    is_doubtful: bool,
    /// Each of the pages is accounted for.
    is_complete: bool,
}

const TABLES: [&[u8]; 2] = [b"entries", b"meta"];
/// The table of what the store says of itself.
const META_SHAPE: Shape = Shape { key: None, value: Some(8) };

impl Pages {
    /// Reads what is left. The outer error is the disk's, the inner one says why nothing can be read.
    pub(in super::super) fn salvage(&mut self) -> io::Result<Result<Salvaged, String>> {
        let (user, commit) = match self.newest_slot() {
            Ok(slot) => {
                let [user, system] = roots(&slot);
                let commit = system.map(|system| self.commit(system)).transpose()?.flatten();
                (user, commit.filter(|commit| commit.transaction == super::id(&slot)))
            }
            Err(Stop::Lost(what)) => match self.search_commit()? {
                Some(commit) => (None, Some(commit)),
                None => return Ok(Err(what)),
            },
            Err(Stop::Io(error)) => return Err(error),
        };
        self.reached = PageSet::of(self.count());
        let mut found = Salvaged::default();
        let tables = match user.map(|root| self.tables(Some(root))) {
            Some(Ok(tables)) => Some(tables),
            Some(Err(Stop::Io(error))) => return Err(error),
            Some(Err(Stop::Lost(_))) | None => None,
        };
        match tables {
            Some(tables) => {
                let table = |name: &[u8]| tables.iter().find(|table| table.name == name);
                let Some(entries) = table(b"entries") else {
                    return Ok(Err("it is of the form before entries had checksums".to_owned()));
                };
                self.read_entries(entries, &mut found)?;
                found.meta = table(b"meta").map(|meta| self.sound_rows(meta)).transpose()?.flatten();
            }
            None => found.gaps.push(Gap::default()),
        }
        let mut is_complete = false;
        if let Some(commit) = commit.filter(|_| !found.gaps.is_empty() || found.meta.is_none()) {
            let carved = self.carve(commit)?;
            is_complete = carved.is_complete && !carved.is_doubtful;
            found.add(carved);
        }
        if found.expected.map_or(is_complete, |expected| found.entries.len() as u64 == expected) {
            found.gaps.clear();
        }
        Ok(Ok(found))
    }

    fn read_entries(&mut self, table: &Table, found: &mut Salvaged) -> io::Result<()> {
        found.expected = Some(table.rows);
        let Some(tree) = table.tree else { return Ok(()) };
        self.refill();
        self.walk(tree, table.shape, 0, &Between::default(), &mut |place, between| match place {
            Place::Leaf(leaf) => found.take(&leaf, between),
            Place::Lost => found.gaps.push(between.gap()),
        })
    }

    /// The rows of those pages of a commit that no tree led to.
    fn carve(&mut self, commit: Commit) -> io::Result<Carved> {
        let mut left = commit.pages;
        left.remove_all(&self.reached);
        let mut carved = Carved { is_complete: !commit.is_cut, ..Carved::default() };
        let (count, mut at) = (self.count(), 0);
        while at < count {
            if !left.contains(at) {
                at += 1;
                continue;
            }
            let many = self.carve_page(at, &left, &mut carved)?;
            carved.is_complete &= many.is_some();
            at += many.unwrap_or(1);
        }
        Ok(carved)
    }

    /// Takes the page that begins here; returns how many pages of the file it has, `None` if it is not a
    /// page of a table.
    fn carve_page(&mut self, at: usize, left: &PageSet, carved: &mut Carved) -> io::Result<Option<usize>> {
        let offset = (PAGE + at * PAGE) as u64;
        let mut page = vec![0; PAGE];
        self.file.read_exact_at(&mut page, offset)?;
        if page[0] == BRANCH {
            let keys = pairs(&page);
            let end = keys.checked_sub(1).and_then(|last| branch_key_end(&page, keys, last, Shape::default()));
            return Ok(end.map(pages_of).filter(|many| (at..at + many).all(|page| left.contains(page))));
        }
        let Some(used) = used_of_leaf(&page, Shape::default()) else { return Ok(None) };
        let many = pages_of(used);
        let is_aligned = at.is_multiple_of(many) && many <= self.count();
        if page[0] == LEAF && is_aligned && (at..at + many).all(|page| left.contains(page)) {
            page.resize(many * PAGE, 0);
            self.file.read_exact_at(&mut page, offset)?;
            if carved.take(&Leaf { page: &page, shape: Shape::default(), is_sound: false }) {
                return Ok(Some(many));
            }
        }
        let is_meta = carved.take_meta(&Leaf { page: &page[..PAGE], shape: META_SHAPE, is_sound: false });
        Ok(is_meta.then_some(1))
    }
}

/// A page has a power of two of the smallest ones.
fn pages_of(bytes: usize) -> usize {
    bytes.div_ceil(PAGE).max(1).next_power_of_two()
}

impl Between {
    fn gap(&self) -> Gap {
        let text = |bytes: &Option<Vec<u8>>| bytes.as_deref().map(String::from_utf8_lossy).unwrap_or_default().into();
        Gap { after: text(&self.after), upto: text(&self.upto) }
    }
}

/// The name of a row that proves itself.
fn proven(row: Option<(&[u8], &[u8])>) -> Option<(String, Vec<u8>)> {
    let (name, value) = row?;
    let name = std::str::from_utf8(name).ok()?;
    row::open(name, value).map(|_| (name.to_owned(), value.to_vec()))
}

/// A row that does not prove itself, under a name that can be one.
fn named(row: Option<(&[u8], &[u8])>) -> Option<(String, Vec<u8>)> {
    let (name, value) = row?;
    let name = std::str::from_utf8(name).ok()?;
    let is_name = Key::parse(name).is_some() && name.bytes().all(|byte| byte.is_ascii_graphic());
    is_name.then(|| (name.to_owned(), value.to_vec()))
}

/// The row so that nobody takes it for a sound one.
fn spoilt(mut value: Vec<u8>) -> Vec<u8> {
    value.iter_mut().take(8).for_each(|byte| *byte = !*byte);
    value
}

impl Salvaged {
    /// Takes what proves itself of a leaf, and the names of the rest.
    fn take(&mut self, leaf: &Leaf<'_>, between: &Between) {
        if let Some(rows) = leaf.rows().filter(|_| leaf.is_sound) {
            for (name, value) in rows {
                self.entries.insert(String::from_utf8_lossy(&name).into_owned(), value);
            }
            return;
        }
        let all = 0..leaf.pairs();
        let found: Vec<_> =
            all.map(|n| proven(leaf.row(n)).filter(|(name, _)| between.holds(name.as_bytes()))).collect();
        if found.iter().all(Option::is_none) {
            // Not even its beginning is right.
            return self.gaps.push(between.gap());
        }
        if found.iter().all(Option::is_some) {
            // Every row is right and the page is not the one that its parent knows: a write was lost, and
            // these are older states.
            self.gaps.push(between.gap());
            self.entries.extend(found.into_iter().flatten().map(|(name, value)| (name, spoilt(value))));
            return;
        }
        self.take_parts(leaf, found, between);
    }

    fn take_parts(&mut self, leaf: &Leaf<'_>, found: Vec<Option<(String, Vec<u8>)>>, between: &Between) {
        let whole = between.gap();
        let mut last = whole.after.clone();
        let mut is_open = false;
        let next = |n: usize| found[n..].iter().flatten().map(|(name, _)| name.as_str()).next();
        let names: Vec<Option<(String, Vec<u8>)>> = (0..found.len())
            .map(|n| {
                let fits = |name: &str| between.holds(name.as_bytes()) && next(n).is_none_or(|next| name < next);
                if found[n].is_some() { None } else { named(leaf.row(n)).filter(|(name, _)| fits(name)) }
            })
            .collect();
        for (proven, named) in found.into_iter().zip(names) {
            match proven.or(named.filter(|(name, _)| *name > last)) {
                Some((name, value)) => {
                    if std::mem::take(&mut is_open) {
                        self.gaps.push(Gap { after: last, upto: name.clone() });
                    }
                    self.entries.insert(name.clone(), value);
                    last = name;
                }
                None => is_open = true,
            }
        }
        if is_open {
            self.gaps.push(Gap { after: last, upto: whole.upto });
        }
    }

    /// Adds rows that lay in a gap, unless they are not all of the commit.
    fn add(&mut self, carved: Carved) {
        if carved.is_doubtful {
            return;
        }
        let mut added: BTreeMap<String, Vec<u8>> = carved.entries;
        added.retain(|name, _| !self.entries.contains_key(name) && self.gaps.iter().any(|gap| gap.holds(name)));
        let total = (self.entries.len() + added.len()) as u64;
        if self.expected.is_none_or(|expected| total <= expected) {
            self.entries.extend(added);
        }
        if self.meta.is_none() && !carved.meta.is_empty() {
            self.meta = Some(carved.meta);
        }
    }
}

impl Carved {
    /// Returns whether it is a leaf of entries, or the list of tables.
    fn take(&mut self, leaf: &Leaf<'_>) -> bool {
        let Some(rows) = leaf.rows().filter(|rows| !rows.is_empty()) else { return false };
        let is_proven = |(name, value): &(Vec<u8>, Vec<u8>)| proven(Some((name, value))).is_some();
        if !rows.iter().any(is_proven) {
            let is_table = |(name, value): &(Vec<u8>, Vec<u8>)| {
                TABLES.contains(&&**name) && Table::parse(name.clone(), value).is_some()
            };
            return rows.iter().all(is_table);
        }
        let mut is_whole = true;
        for row in &rows {
            let row = Some((&*row.0, &*row.1));
            match proven(row).or_else(|| named(row)) {
                Some((name, value)) => self.is_doubtful |= self.entries.insert(name, value).is_some(),
                None => is_whole = false,
            }
        }
        is_whole
    }

    fn take_meta(&mut self, leaf: &Leaf<'_>) -> bool {
        let known = [CEILING, CLOSED_AT, FORM, IDENTITY];
        let rows = leaf.rows().unwrap_or_default();
        let is_meta = !rows.is_empty() && rows.iter().all(|(name, _)| known.iter().any(|k| k.as_bytes() == name));
        if is_meta {
            self.is_doubtful |= !self.meta.is_empty();
            self.meta = rows;
        }
        is_meta
    }
}
