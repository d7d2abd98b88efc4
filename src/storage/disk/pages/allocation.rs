//! The pages that the caller's tables have in a commit, by the engine's own bookkeeping.
//!
//! Each commit says which pages of the file are taken, and which of those only wait to be freed. What is
//! taken, does not wait and is not the bookkeeping's own is a page of the caller's tables: so that those
//! below a lost branch are found, and pages of earlier commits are not taken for them.

use std::io;
use std::os::unix::fs::FileExt;

use xxhash_rust::xxh3::xxh3_128;

use super::{LEAF, PAGE, Pages, Rows, Shape, Stop, Tree, pairs, u32_at, u64_at, value_end};

const STATE: &[u8] = b"allocator_state";
const FREED: [&[u8]; 2] = [b"data_pages_unreachable", b"system_pages_unreachable"];
/// First bytes of the keys of [`STATE`].
const REGION_STATE: u8 = 3;
const TRANSACTION: u8 = 5;
const REGION_PAGES: usize = 1 << 20;

/// Pages by their place in the file.
#[derive(Clone, Debug, Default)]
pub(super) struct PageSet(Vec<u64>);

impl PageSet {
    pub(super) fn of(pages: usize) -> Self {
        Self(vec![0; pages.div_ceil(64)])
    }

    /// Pages after the end of the file are none.
    pub(super) fn insert(&mut self, page: usize) {
        if let Some(word) = self.0.get_mut(page / 64) {
            *word |= 1 << (page % 64);
        }
    }

    pub(super) fn contains(&self, page: usize) -> bool {
        self.0.get(page / 64).is_some_and(|word| word & (1 << (page % 64)) != 0)
    }

    pub(super) fn remove(&mut self, page: usize) {
        if let Some(word) = self.0.get_mut(page / 64) {
            *word &= !(1 << (page % 64));
        }
    }

    pub(super) fn remove_all(&mut self, others: &Self) {
        for (word, other) in self.0.iter_mut().zip(&others.0) {
            *word &= !other;
        }
    }

    fn has_all(&self, others: &Self) -> bool {
        self.0.iter().zip(&others.0).all(|(word, other)| other & !word == 0)
    }
}

/// A commit whose bookkeeping is whole.
#[derive(Debug)]
pub(super) struct Commit {
    pub(super) transaction: u64,
    /// Those of the caller's tables.
    pub(super) pages: PageSet,
    /// The file ends before its last page.
    pub(super) is_cut: bool,
}

/// The pages of a page number: the first, and how many.
pub(super) fn span(number: u64) -> (usize, usize) {
    let order = number >> 59;
    let first = ((number >> 20) & 0xf_ffff) * REGION_PAGES as u64 + ((number & (0xf_ffff >> order)) << order);
    (usize::try_from(first).unwrap_or(usize::MAX), 1_usize.checked_shl(u32::try_from(order).unwrap_or(0)).unwrap_or(0))
}

impl Pages {
    /// How many pages the file has after its header.
    pub(super) fn count(&self) -> usize {
        usize::try_from((self.length / PAGE as u64).saturating_sub(1)).unwrap_or(usize::MAX)
    }

    /// What the bookkeeping below a root says; `None` unless all of it is there.
    pub(super) fn commit(&mut self, system: Tree) -> io::Result<Option<Commit>> {
        self.reached = PageSet::of(self.count());
        let tables = match self.tables(Some(system)) {
            Ok(tables) => tables,
            Err(Stop::Lost(_)) => return Ok(None),
            Err(Stop::Io(error)) => return Err(error),
        };
        let (mut state, mut freed) = (None, Vec::new());
        for table in &tables {
            let Some(rows) = self.sound_rows(table)? else { return Ok(None) };
            match &*table.name {
                STATE => state = Some(rows),
                name if FREED.contains(&name) => freed.extend(rows),
                _ => {}
            }
        }
        let reached = std::mem::take(&mut self.reached);
        Ok(state.and_then(|state| self.commit_of(&state, &freed, &reached)))
    }

    fn commit_of(&self, state: &Rows, freed: &Rows, bookkeeping: &PageSet) -> Option<Commit> {
        let mut pages = PageSet::of(self.count());
        let (mut transaction, mut is_cut) = (None, false);
        for (key, value) in state {
            match *key.first()? {
                REGION_STATE => {
                    let region = u32_at(key, 1)?;
                    let end = take_allocated(value, region.checked_mul(REGION_PAGES)?, &mut pages)?;
                    is_cut |= end > self.count();
                }
                TRANSACTION => transaction = u64_at(value, 0),
                _ => {}
            }
        }
        // Bookkeeping that was written after this state was made is not this commit's.
        if !pages.has_all(bookkeeping) {
            return None;
        }
        pages.remove_all(bookkeeping);
        for (_, list) in freed {
            let count = usize::from(u16::from_le_bytes(*list.first_chunk()?));
            for n in 0..count {
                let (first, many) = span(u64_at(list, 2 + 8 * n)?);
                (first..first.saturating_add(many)).for_each(|page| pages.remove(page));
            }
        }
        Some(Commit { transaction: transaction?, pages, is_cut })
    }

    /// The newest commit whose bookkeeping is whole, looked for in all of the file: the header, which says
    /// where it is, is lost.
    pub(super) fn search_commit(&mut self) -> io::Result<Option<Commit>> {
        let mut newest: Option<Commit> = None;
        let mut page = vec![0; PAGE];
        for n in 0..self.count() {
            self.file.read_exact_at(&mut page, (PAGE + n * PAGE) as u64)?;
            let Some(used) = used_of_leaf(&page, Shape::default()).filter(|used| *used <= PAGE) else { continue };
            if !page[..used].windows(STATE.len()).any(|window| window == STATE) {
                continue;
            }
            let number = (((n / REGION_PAGES) << 20) | (n % REGION_PAGES)) as u64;
            let found = self.commit(Tree { root: number, checksum: xxh3_128(&page[..used]) })?;
            if let Some(found) = found
                && newest.as_ref().is_none_or(|newest| found.transaction > newest.transaction)
            {
                newest = Some(found);
            }
        }
        Ok(newest)
    }
}

/// How many bytes of a leaf are used; `None` if the page does not begin as one.
pub(super) fn used_of_leaf(page: &[u8], shape: Shape) -> Option<usize> {
    let count = pairs(page);
    (page[0] == LEAF).then(|| value_end(page, count, count.checked_sub(1)?, shape)).flatten()
}

/// Marks the pages that a region's allocator has given out, and returns where the last of them ends. Its
/// state is a bitmap for each order of pages, in which a free page has no bit.
fn take_allocated(state: &[u8], first_page: usize, pages: &mut PageSet) -> Option<usize> {
    let (max_order, count) = (usize::from(*state.first()?), u32_at(state, 4)?);
    if count > REGION_PAGES || max_order > 20 {
        return None;
    }
    let mut is_free = PageSet::of(count);
    let mut start = 8 + 4 * (max_order + 1);
    for order in 0..=max_order {
        let end = u32_at(state, 8 + 4 * order)?;
        let (length, words) = lowest_level(state.get(start..end)?)?;
        for n in (0..length).filter(|n| words.get(n / 8).is_some_and(|byte| byte & (1 << (n % 8)) == 0)) {
            (n << order..(n + 1) << order).for_each(|page| is_free.insert(page));
        }
        start = end;
    }
    let mut end = 0;
    for page in (0..count).filter(|page| !is_free.contains(*page)) {
        pages.insert(first_page + page);
        end = first_page + page + 1;
    }
    Some(end)
}

/// The level of a bitmap that has a bit for each page, and how many bits.
fn lowest_level(bitmap: &[u8]) -> Option<(usize, &[u8])> {
    let height = u32_at(bitmap, 0)?;
    let end_of = |level: usize| u32_at(bitmap, level.checked_mul(4)?);
    let start = if height > 1 { end_of(height - 1)? } else { 8 };
    let level = bitmap.get(start..end_of(height)?)?;
    let length = u32_at(level, 0)?;
    (level.len() >= 4 + length.div_ceil(64) * 8).then(|| (length, &level[4..]))
}
