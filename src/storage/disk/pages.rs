//! The engine's file read page by page, without the engine: is all of it what was written?
//!
//! The engine trusts the file that it opens. A flipped bit then shows as a panic, as another's data,
//! or not at all until a later write builds on it. Here nothing is trusted: every page is read by the
//! checksum that its parent holds, from the two commit slots of the header down. The layout is that of
//! redb's file format 3 (its docs/design.md).
//!
//! A single flipped bit is found by trying each bit of its page against the page's checksum of 128
//! bits, so it is mended with certainty. What is more than that is told as damage, and [`salvage`] reads
//! what is left.

mod allocation;
mod salvage;

use std::fs::File;
use std::io;
use std::os::unix::fs::FileExt;

use allocation::{PageSet, span};
pub(super) use salvage::Salvaged;
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
/// Pages whose bits are tried in vain: some 20 ms each on a small board. A file with more is not one with
/// flipped bits.
const MEND_TRIES: usize = 256;

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
    /// Pages of the caller's tables, or the way to them, are damaged.
    pub(super) tables: bool,
    /// The engine's own bookkeeping is damaged; the caller's tables are not concerned.
    pub(super) bookkeeping: bool,
}

impl Inspection {
    /// Nothing is left to do once the mends are written.
    pub(super) fn is_whole(&self) -> bool {
        !self.tables && !self.bookkeeping
    }
}

/// Keys and values, in the order of the keys.
pub(super) type Rows = Vec<(Vec<u8>, Vec<u8>)>;

pub(super) struct Pages {
    file: File,
    length: u64,
    mends: Vec<Mend>,
    /// Pages that may still be read: a sound tree has each page once.
    budget: u64,
    mending: bool,
    mend_tries: usize,
    /// The pages that the walks came to, damaged ones included.
    reached: PageSet,
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

/// What a walk comes to.
enum Place<'p> {
    Leaf(Leaf<'p>),
    /// A page that cannot be read, and with it all below.
    Lost,
}

impl Place<'_> {
    fn is_sound(&self) -> bool {
        matches!(self, Self::Leaf(leaf) if leaf.is_sound)
    }
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
        let (mends, reached) = (Vec::new(), PageSet::default());
        Ok(Self { file, length, mends, budget: 0, mending: true, mend_tries: MEND_TRIES, reached })
    }

    /// Reads everything that the newest commit holds.
    pub(super) fn inspect(&mut self) -> io::Result<Inspection> {
        let mut found = Inspection::default();
        let slot = match self.newest_slot() {
            Ok(slot) => slot,
            Err(Stop::Io(error)) => return Err(error),
            Err(Stop::Lost(_)) => return Ok(Inspection { tables: true, ..found }),
        };
        let [user, system] = roots(&slot);
        found.tables = !self.is_sound(user)?;
        found.bookkeeping = !self.is_sound(system)?;
        if !found.tables {
            self.mend_start()?;
        }
        found.mends.clone_from(&self.mends);
        Ok(found)
    }

    /// All rows of a table of a file that is whole; `None` when the table is not there. What is not whole is an error.
    pub(super) fn rows(&mut self, table: &str) -> io::Result<Option<Rows>> {
        let tables = self.newest_slot().and_then(|slot| self.tables(roots(&slot)[0]));
        match tables {
            Ok(tables) => match tables.iter().find(|t| t.name == table.as_bytes()) {
                Some(found) => match self.sound_rows(found)? {
                    None => Err(io::Error::other(format!("pages of the table {table:?} are damaged"))),
                    rows => Ok(rows),
                },
                None => Ok(None),
            },
            Err(Stop::Lost(what)) => Err(io::Error::other(what)),
            Err(Stop::Io(error)) => Err(error),
        }
    }

    /// The rows of a table; `None` unless every page of it is right.
    fn sound_rows(&mut self, table: &Table) -> io::Result<Option<Rows>> {
        let (mut rows, mut is_sound) = (Rows::new(), true);
        if let Some(tree) = table.tree {
            self.refill();
            self.walk(tree, table.shape, 0, &Between::default(), &mut |place, _| match place {
                Place::Leaf(leaf) if leaf.is_sound => match leaf.rows() {
                    Some(found) => rows.extend(found),
                    None => is_sound = false,
                },
                Place::Leaf(_) | Place::Lost => is_sound = false,
            })?;
        }
        Ok(is_sound.then_some(rows))
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
        let whole = roots(slot).into_iter().all(|root| matches!(self.is_sound(root), Ok(true)));
        self.mending = true;
        whole
    }

    /// Reads every page below a root; returns whether all are right.
    fn is_sound(&mut self, root: Option<Tree>) -> io::Result<bool> {
        let tables = match self.tables(root) {
            Ok(tables) => tables,
            Err(Stop::Lost(_)) => return Ok(false),
            Err(Stop::Io(error)) => return Err(error),
        };
        let mut is_sound = true;
        for table in tables {
            let Some(tree) = table.tree else { continue };
            self.refill();
            self.walk(tree, table.shape, 0, &Between::default(), &mut |place, _| is_sound &= place.is_sound())?;
        }
        Ok(is_sound)
    }

    fn tables(&mut self, root: Option<Tree>) -> Result<Vec<Table>, Stop> {
        let mut tables: Vec<Option<Table>> = Vec::new();
        let Some(root) = root else { return Ok(Vec::new()) };
        self.refill();
        self.walk(root, Shape::default(), 0, &Between::default(), &mut |place, _| match place {
            Place::Leaf(leaf) if leaf.is_sound => {
                let rows = leaf.rows().unwrap_or_default();
                tables.extend(rows.into_iter().map(|(name, value)| Table::parse(name, &value)));
            }
            Place::Leaf(_) | Place::Lost => tables.push(None),
        })?;
        let tables: Option<Vec<Table>> = tables.into_iter().collect();
        tables.ok_or_else(|| Stop::Lost("the list of its tables is damaged".to_owned()))
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
        visit: &mut dyn FnMut(Place<'_>, &Between),
    ) -> io::Result<()> {
        let (first, many) = span(tree.root);
        (first..first.saturating_add(many)).for_each(|page| self.reached.insert(page));
        let read = match self.budget.checked_sub(1) {
            Some(left) => {
                self.budget = left;
                self.page(tree.root)?
            }
            // More pages than the file has: some are reached twice.
            None => None,
        };
        let Some((offset, mut page)) = read else {
            visit(Place::Lost, between);
            return Ok(());
        };
        let is_sound = is_right(&page, shape, tree.checksum) || self.mend(offset, &mut page, shape, tree.checksum);
        let below = (page[0] == BRANCH && is_sound && depth < DEPTH).then(|| children(&page, shape, between)).flatten();
        match (below, page[0]) {
            (Some(children), _) => {
                for (child, between) in children {
                    self.walk(child, shape, depth + 1, &between, visit)?;
                }
            }
            (None, LEAF) => visit(Place::Leaf(Leaf { page: &page, shape, is_sound }), between),
            (None, _) => visit(Place::Lost, between),
        }
        Ok(())
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
        if !self.mending || page.len() > MEND_UP_TO || self.mend_tries == 0 {
            return false;
        }
        let Some((at, byte)) = flipped_bit(page, |page| is_right(page, shape, checksum)) else {
            self.mend_tries -= 1;
            return false;
        };
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
        (0..self.pairs()).map(|n| self.row(n).map(|(key, value)| (key.to_vec(), value.to_vec()))).collect()
    }

    fn pairs(&self) -> usize {
        pairs(self.page)
    }

    /// One row; `None` when it does not lie within the page.
    fn row(&self, n: usize) -> Option<(&[u8], &[u8])> {
        let (page, pairs, shape) = (self.page, self.pairs(), self.shape);
        let first_value = key_end(page, pairs, pairs.checked_sub(1)?, shape)?;
        let (key_start, value_start) = match n.checked_sub(1) {
            None => (keys_of_leaf(pairs, shape), first_value),
            Some(before) => (key_end(page, pairs, before, shape)?, value_end(page, pairs, before, shape)?),
        };
        let key = page.get(key_start..key_end(page, pairs, n, shape)?)?;
        Some((key, page.get(value_start..value_end(page, pairs, n, shape)?)?))
    }
}

impl Between {
    /// Whether a key is of this range. Separators may be cut short, so that the upper one is at least the
    /// last key.
    fn holds(&self, key: &[u8]) -> bool {
        self.after.as_ref().is_none_or(|after| key > after.as_slice())
            && self.upto.as_ref().is_none_or(|upto| key <= upto.as_slice())
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
