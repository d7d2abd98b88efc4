//! The engine's file read page by page, without the engine: is all of it what was written?
//!
//! The engine trusts the file that it opens. A flipped bit then shows as a panic, as another's data,
//! or not at all until a later write builds on it. Here nothing is trusted: every page is read by the
//! checksum that its parent holds, from the two commit slots of the header down. The layout is that of
//! redb's file format 3 (its docs/design.md).
//!
//! A single flipped bit is found by trying each bit of its page against the page's checksum of 128
//! bits, so it is mended with certainty. What is more than that is told as damage.

use std::fs::File;
use std::io;
use std::os::unix::fs::FileExt;

use xxhash_rust::xxh3::xxh3_128;

const PAGE: usize = 4096;
/// A region of the default size: 2^20 pages.
const REGION: u64 = (1 << 20) * PAGE as u64;
const HEADER: usize = 320;
/// Where the engine starts: its magic number, and the page and region sizes that never change.
const MAGIC: [u8; 9] = *b"redb\x1a\x0a\xa9\x0d\x0a";
const GEOMETRY: (usize, [u8; 12]) = (12, [0, 0x10, 0, 0, 0, 0, 0, 0, 0, 0, 0x10, 0]);
const FLAGS: usize = 9;
const PRIMARY: u8 = 1;
const TWO_PHASE: u8 = 4;
const SLOTS: [usize; 2] = [64, 192];
const SLOT: usize = 128;
const SLOT_CHECKSUM: usize = 112;
const FORMAT: u8 = 3;
const LEAF: u8 = 1;
const BRANCH: u8 = 2;
/// The kind of a table that has one value for a key; ours and the engine's all are.
const NORMAL: u8 = 3;
/// A tree of 2^32 pages with two children each is not deeper.
const DEPTH: usize = 32;
/// Larger pages hold one value of their own; trying each of their bits takes too long.
const MEND_UP_TO: usize = 4 * PAGE;

/// One byte of the file that must be another.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Mend {
    pub(super) offset: u64,
    pub(super) byte: u8,
}

/// What reading the whole file found.
#[derive(Debug, Default)]
pub(super) struct Inspection {
    /// Bits that must be put right before the engine may open the file.
    pub(super) mends: Vec<Mend>,
    /// Leaves of the caller's tables that are damaged, but may be readable in part.
    pub(super) damaged_leaves: usize,
    /// The engine's own bookkeeping is damaged; the caller's tables are not concerned.
    pub(super) bookkeeping: bool,
    /// The first thing that cannot be read at all.
    pub(super) lost: Option<String>,
}

impl Inspection {
    /// Nothing is left to do once the mends are written.
    pub(super) fn is_whole(&self) -> bool {
        self.damaged_leaves == 0 && !self.bookkeeping && self.lost.is_none()
    }
}

/// Keys and values, in the order of the keys.
pub(super) type Rows = Vec<(Vec<u8>, Vec<u8>)>;

/// What could be read of one table.
#[derive(Debug, Default)]
pub(super) struct TableRows {
    pub(super) rows: Rows,
    /// No row comes from a damaged page.
    pub(super) is_sound: bool,
}

pub(super) struct Pages {
    file: File,
    length: u64,
    mends: Vec<Mend>,
    /// Pages that may still be read: a sound tree has each page once.
    budget: u64,
    mending: bool,
}

#[derive(Clone, Copy)]
struct Tree {
    root: u64,
    checksum: u128,
}

/// Widths of keys and values where all have the same.
#[derive(Clone, Copy, Default)]
struct Shape {
    key: Option<usize>,
    value: Option<usize>,
}

struct Table {
    name: Vec<u8>,
    tree: Option<Tree>,
    rows: u64,
    shape: Shape,
}

struct Leaf<'p> {
    page: &'p [u8],
    shape: Shape,
    is_sound: bool,
}

/// The keys between which a page lies.
#[derive(Clone, Default)]
struct Between {
    after: Option<Vec<u8>>,
    upto: Option<Vec<u8>>,
}

enum Stop {
    Io(io::Error),
    Lost(String),
}

impl From<io::Error> for Stop {
    fn from(error: io::Error) -> Self {
        Self::Io(error)
    }
}

impl Pages {
    pub(super) fn new(file: File) -> io::Result<Self> {
        let length = file.metadata()?.len();
        Ok(Self { file, length, mends: Vec::new(), budget: 0, mending: true })
    }

    /// Reads everything that the newest commit holds.
    pub(super) fn inspect(&mut self) -> io::Result<Inspection> {
        let mut found = Inspection::default();
        let slot = match self.newest_slot() {
            Ok(slot) => slot,
            Err(Stop::Io(error)) => return Err(error),
            Err(Stop::Lost(what)) => return Ok(Inspection { lost: Some(what), ..found }),
        };
        let [user, system] = roots(&slot);
        match self.verify(user) {
            Ok(damaged) => found.damaged_leaves = damaged,
            Err(Stop::Lost(what)) => found.lost = Some(what),
            Err(Stop::Io(error)) => return Err(error),
        }
        match self.verify(system) {
            Ok(damaged) => found.bookkeeping = damaged > 0,
            Err(Stop::Lost(_)) => found.bookkeeping = true,
            Err(Stop::Io(error)) => return Err(error),
        }
        if found.lost.is_none() {
            self.mend_start()?;
        }
        found.mends.clone_from(&self.mends);
        Ok(found)
    }

    /// The rows of a table, those of damaged leaves included as far as they can be told apart. `None`
    /// when the table is not there.
    ///
    /// The outer error is the disk's, the inner one says what cannot be read.
    pub(super) fn rows(&mut self, table: &str) -> io::Result<Result<Option<TableRows>, String>> {
        match self.read_rows(table) {
            Ok(rows) => Ok(Ok(rows)),
            Err(Stop::Lost(what)) => Ok(Err(what)),
            Err(Stop::Io(error)) => Err(error),
        }
    }

    fn read_rows(&mut self, table: &str) -> Result<Option<TableRows>, Stop> {
        let slot = self.newest_slot()?;
        let tables = self.tables(roots(&slot)[0])?;
        let Some(table) = tables.into_iter().find(|t| t.name == table.as_bytes()) else { return Ok(None) };
        let mut read = TableRows { rows: Rows::new(), is_sound: true };
        let mut unreadable = None;
        if let Some(tree) = table.tree {
            self.refill();
            self.walk(tree, table.shape, 0, &Between::default(), &mut |leaf, between| {
                read.is_sound &= leaf.is_sound;
                match leaf.rows() {
                    Some(found) if between.hold(&found) => read.rows.extend(found),
                    Some(_) | None => unreadable = Some(between.to_string()),
                }
            })?;
        }
        let rows = &read.rows;
        if let Some(between) = unreadable {
            return Err(Stop::Lost(format!("{between} cannot be told apart")));
        }
        if rows.len() as u64 != table.rows || !rows.is_sorted_by(|a, b| a.0 < b.0) {
            return Err(Stop::Lost(format!("{} entries are to be there and {} can be read", table.rows, rows.len())));
        }
        Ok(Some(read))
    }

    /// The newest commit slot whose pages may be trusted, mended. Where both slots are whole, the
    /// engine's flag says which is valid; but a flipped flag brings back the commit before, so that a
    /// newer commit counts if every page of it is there.
    fn newest_slot(&mut self) -> Result<[u8; SLOT], Stop> {
        self.mends.retain(|m| m.offset >= HEADER as u64);
        let header = self.header()?;
        let slots = SLOTS.map(|at| whole_slot(&header[at..at + SLOT]));
        let flagged = usize::from(header[FLAGS] & PRIMARY != 0);
        let other = 1 - flagged;
        let newer = slots[other].as_ref().zip(slots[flagged].as_ref()).is_some_and(|(o, f)| id(&o.0) > id(&f.0));
        let two_phase = header[FLAGS] & TWO_PHASE != 0;
        let chosen = match (&slots[flagged], &slots[other]) {
            (Some(_), Some((slot, _))) if newer && self.is_whole(slot) => other,
            (Some(_), _) => flagged,
            (None, Some(_)) if !two_phase => other,
            (None, Some(_)) | (None, None) => {
                return Err(Stop::Lost("its header is not one of a store".to_owned()));
            }
        };
        if chosen != flagged && two_phase {
            self.mends.push(Mend { offset: FLAGS as u64, byte: header[FLAGS] ^ PRIMARY });
        }
        let (slot, mend) = slots.into_iter().nth(chosen).flatten().expect("invariant: the chosen slot is whole");
        if let Some((at, byte)) = mend {
            self.mends.push(Mend { offset: (SLOTS[chosen] + at) as u64, byte });
        }
        Ok(slot)
    }

    fn header(&self) -> Result<[u8; HEADER], Stop> {
        let mut header = [0; HEADER];
        if self.length < HEADER as u64 {
            return Err(Stop::Lost(format!("it has {} bytes and no header", self.length)));
        }
        self.file.read_exact_at(&mut header, 0)?;
        Ok(header)
    }

    /// What never changes at the start of the file; all else has been read by it.
    fn mend_start(&mut self) -> io::Result<()> {
        let mut start = [0; HEADER];
        self.file.read_exact_at(&mut start, 0)?;
        let (at, geometry) = GEOMETRY;
        for (offset, byte) in
            MAGIC.into_iter().enumerate().chain(geometry.into_iter().enumerate().map(|(n, b)| (at + n, b)))
        {
            if start[offset] != byte {
                self.mends.push(Mend { offset: offset as u64, byte });
            }
        }
        Ok(())
    }

    /// Whether every page of a commit is there and right, without mending any.
    fn is_whole(&mut self, slot: &[u8; SLOT]) -> bool {
        self.mending = false;
        let whole = roots(slot).into_iter().all(|root| matches!(self.verify(root), Ok(0)));
        self.mending = true;
        whole
    }

    /// Reads every page below a root; returns how many leaves are damaged.
    fn verify(&mut self, root: Option<Tree>) -> Result<usize, Stop> {
        let mut damaged = 0;
        for table in self.tables(root)? {
            let Some(tree) = table.tree else { continue };
            self.walk(tree, table.shape, 0, &Between::default(), &mut |leaf, _| {
                damaged += usize::from(!leaf.is_sound)
            })?;
        }
        Ok(damaged)
    }

    fn tables(&mut self, root: Option<Tree>) -> Result<Vec<Table>, Stop> {
        let mut tables: Vec<Option<Table>> = Vec::new();
        let mut damaged = false;
        let Some(root) = root else { return Ok(Vec::new()) };
        self.refill();
        self.walk(root, Shape::default(), 0, &Between::default(), &mut |leaf, _| {
            damaged |= !leaf.is_sound;
            let rows = leaf.rows().unwrap_or_default();
            tables.extend(rows.into_iter().map(|(name, value)| Table::parse(name, &value)));
        })?;
        let tables: Option<Vec<Table>> = tables.into_iter().collect();
        match tables.filter(|_| !damaged) {
            Some(tables) => Ok(tables),
            None => Err(Stop::Lost("the list of its tables is damaged".to_owned())),
        }
    }

    fn refill(&mut self) {
        self.budget = self.length / PAGE as u64;
    }

    fn walk(
        &mut self,
        tree: Tree,
        shape: Shape,
        depth: usize,
        between: &Between,
        visit: &mut dyn FnMut(&Leaf<'_>, &Between),
    ) -> Result<(), Stop> {
        let lost = || Stop::Lost(format!("{between} cannot be read"));
        self.budget = self.budget.checked_sub(1).ok_or_else(lost)?;
        let (offset, mut page) = self.page(tree.root)?.ok_or_else(lost)?;
        let is_sound = is_right(&page, shape, tree.checksum) || self.mend(offset, &mut page, shape, tree.checksum);
        match page[0] {
            LEAF => {
                visit(&Leaf { page: &page, shape, is_sound }, between);
                Ok(())
            }
            BRANCH if is_sound && depth < DEPTH => {
                for (child, between) in children(&page, shape, between).ok_or_else(lost)? {
                    self.walk(child, shape, depth + 1, &between, visit)?;
                }
                Ok(())
            }
            _ => Err(lost()),
        }
    }

    /// A page and where it lies; `None` when it is not in the file.
    fn page(&self, number: u64) -> io::Result<Option<(u64, Vec<u8>)>> {
        let order = number >> 59;
        let size = (PAGE as u64) << order;
        let index = number & (0xf_ffff >> order);
        let region = (number >> 20) & 0xf_ffff;
        let offset = PAGE as u64 + region * REGION + index * size;
        let inside = offset.checked_add(size).is_some_and(|end| end <= self.length);
        let Some(size) = usize::try_from(size).ok().filter(|_| inside) else { return Ok(None) };
        let mut page = vec![0; size];
        self.file.read_exact_at(&mut page, offset)?;
        for mend in &self.mends {
            let at = mend.offset.checked_sub(offset).and_then(|at| usize::try_from(at).ok());
            if let Some(byte) = at.and_then(|at| page.get_mut(at)) {
                *byte = mend.byte;
            }
        }
        Ok(Some((offset, page)))
    }

    fn mend(&mut self, offset: u64, page: &mut [u8], shape: Shape, checksum: u128) -> bool {
        if !self.mending || page.len() > MEND_UP_TO {
            return false;
        }
        let Some((at, byte)) = flipped_bit(page, |page| is_right(page, shape, checksum)) else { return false };
        self.mends.push(Mend { offset: offset + at as u64, byte });
        true
    }
}

/// Finds the one bit without whose flip the bytes are not right, and puts it right.
fn flipped_bit(bytes: &mut [u8], is_right: impl Fn(&[u8]) -> bool) -> Option<(usize, u8)> {
    for at in 0..bytes.len() {
        for bit in 0..8 {
            bytes[at] ^= 1 << bit;
            if is_right(bytes) {
                return Some((at, bytes[at]));
            }
            bytes[at] ^= 1 << bit;
        }
    }
    None
}

/// A commit slot whose checksum holds, and the byte that was put right for it.
#[expect(clippy::type_complexity, reason = "a slot and one byte of it")]
fn whole_slot(bytes: &[u8]) -> Option<([u8; SLOT], Option<(usize, u8)>)> {
    let mut slot: [u8; SLOT] = bytes.try_into().ok()?;
    let is_right =
        |slot: &[u8]| slot[0] == FORMAT && u128_at(slot, SLOT_CHECKSUM) == Some(xxh3_128(&slot[..SLOT_CHECKSUM]));
    if is_right(&slot) {
        return Some((slot, None));
    }
    let mend = flipped_bit(&mut slot, is_right)?;
    Some((slot, Some(mend)))
}

fn id(slot: &[u8; SLOT]) -> u64 {
    u64_at(slot, 104).unwrap_or(0)
}

/// The roots of the caller's tables and of the engine's.
fn roots(slot: &[u8; SLOT]) -> [Option<Tree>; 2] {
    let root = |flag: usize, at: usize| if slot[flag] == 0 { None } else { Tree::parse(&slot[at..]) };
    [root(1, 8), root(2, 40)]
}

impl Tree {
    fn parse(bytes: &[u8]) -> Option<Self> {
        Some(Self { root: u64_at(bytes, 0)?, checksum: u128_at(bytes, 8)? })
    }
}

impl Table {
    fn parse(name: Vec<u8>, definition: &[u8]) -> Option<Self> {
        let fixed = |at: usize| match definition.get(at)? {
            0 => Some(None),
            _ => Some(Some(u32_at(definition, at + 1)?)),
        };
        let tree = match definition.get(9)? {
            0 => None,
            _ => Some(Tree::parse(&definition[10..])?),
        };
        let shape = Shape { key: fixed(42)?, value: fixed(47)? };
        (definition[0] == NORMAL).then_some(Self { name, tree, rows: u64_at(definition, 1)?, shape })
    }
}

impl Leaf<'_> {
    /// All rows; `None` when the page does not have the form of a leaf.
    fn rows(&self) -> Option<Rows> {
        let pairs = pairs(self.page);
        let mut rows = Vec::with_capacity(pairs);
        let mut key_start = keys_of_leaf(pairs, self.shape);
        let mut value_start = key_end(self.page, pairs, pairs.checked_sub(1)?, self.shape)?;
        for n in 0..pairs {
            let (key_end, value_end) =
                (key_end(self.page, pairs, n, self.shape)?, value_end(self.page, pairs, n, self.shape)?);
            rows.push((self.page.get(key_start..key_end)?.to_vec(), self.page.get(value_start..value_end)?.to_vec()));
            (key_start, value_start) = (key_end, value_end);
        }
        Some(rows)
    }
}

impl Between {
    /// Whether rows have keys of this range. Separators may be cut short, so that the upper one is at
    /// least the last key.
    fn hold(&self, rows: &Rows) -> bool {
        rows.iter().all(|(key, _)| {
            self.after.as_ref().is_none_or(|after| key > after) && self.upto.as_ref().is_none_or(|upto| key <= upto)
        })
    }
}

impl std::fmt::Display for Between {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("the entries")?;
        if let Some(after) = &self.after {
            write!(f, " after {}", String::from_utf8_lossy(after))?;
        }
        if let Some(upto) = &self.upto {
            write!(f, " up to {}", String::from_utf8_lossy(upto))?;
        }
        Ok(())
    }
}

fn pairs(page: &[u8]) -> usize {
    page.get(2..4).map_or(0, |b| usize::from(u16::from_le_bytes([b[0], b[1]])))
}

fn keys_of_leaf(pairs: usize, shape: Shape) -> usize {
    4 + 4 * pairs * (usize::from(shape.key.is_none()) + usize::from(shape.value.is_none()))
}

fn key_end(page: &[u8], pairs: usize, n: usize, shape: Shape) -> Option<usize> {
    match shape.key {
        Some(width) => keys_of_leaf(pairs, shape).checked_add(width.checked_mul(n + 1)?),
        None => u32_at(page, 4 + 4 * n),
    }
}

fn value_end(page: &[u8], pairs: usize, n: usize, shape: Shape) -> Option<usize> {
    match shape.value {
        Some(width) => key_end(page, pairs, pairs.checked_sub(1)?, shape)?.checked_add(width.checked_mul(n + 1)?),
        None => u32_at(page, 4 + 4 * n + if shape.key.is_none() { 4 * pairs } else { 0 }),
    }
}

/// Where the keys of a branch begin, given how many there are.
fn keys_of_branch(keys: usize, shape: Shape) -> usize {
    8 + 24 * (keys + 1) + if shape.key.is_none() { 4 * keys } else { 0 }
}

fn branch_key_end(page: &[u8], keys: usize, n: usize, shape: Shape) -> Option<usize> {
    match shape.key {
        Some(width) => keys_of_branch(keys, shape).checked_add(width.checked_mul(n + 1)?),
        None => u32_at(page, 8 + 24 * (keys + 1) + 4 * n),
    }
}

/// The pages below a branch, with the keys between which each lies.
fn children(page: &[u8], shape: Shape, between: &Between) -> Option<Vec<(Tree, Between)>> {
    let keys = pairs(page);
    let mut children = Vec::with_capacity(keys + 1);
    let mut after = between.after.clone();
    let mut start = keys_of_branch(keys, shape);
    for n in 0..=keys {
        let upto = if n < keys {
            let end = branch_key_end(page, keys, n, shape)?;
            let key = page.get(start..end)?.to_vec();
            start = end;
            Some(key)
        } else {
            between.upto.clone()
        };
        let tree = Tree { root: u64_at(page, 8 + 16 * (keys + 1) + 8 * n)?, checksum: u128_at(page, 8 + 16 * n)? };
        children.push((tree, Between { after, upto: upto.clone() }));
        after = upto;
    }
    Some(children)
}

/// Whether a page has the checksum that its parent holds. It covers what is used of the page.
fn is_right(page: &[u8], shape: Shape, checksum: u128) -> bool {
    let count = pairs(page);
    let Some(last) = count.checked_sub(1) else { return false };
    let end = match page[0] {
        LEAF => value_end(page, count, last, shape),
        BRANCH => branch_key_end(page, count, last, shape),
        _ => None,
    };
    end.and_then(|end| page.get(..end)).is_some_and(|used| xxh3_128(used) == checksum)
}

fn u32_at(bytes: &[u8], at: usize) -> Option<usize> {
    let number = u32::from_le_bytes(*bytes.get(at..)?.first_chunk()?);
    usize::try_from(number).ok()
}

fn u64_at(bytes: &[u8], at: usize) -> Option<u64> {
    Some(u64::from_le_bytes(*bytes.get(at..)?.first_chunk()?))
}

fn u128_at(bytes: &[u8], at: usize) -> Option<u128> {
    Some(u128::from_le_bytes(*bytes.get(at..)?.first_chunk()?))
}
