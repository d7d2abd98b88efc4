//! How an entry rests in the database: its checksum, its revision, then the caller's bytes.
//!
//! The checksum covers the key, too, so that bytes under another's key are noticed. The engine's own
//! checksums cover pages: they say that something near is damaged, not which entry.

use xxhash_rust::xxh3::{xxh3_64, xxh3_64_with_seed};

const CHECKSUM: usize = 8;
const HEAD: usize = CHECKSUM + 8;

/// The form that goes to disk.
pub(super) fn seal(key: &str, revision: u64, bytes: &[u8]) -> Vec<u8> {
    let mut row = Vec::with_capacity(HEAD + bytes.len());
    row.extend_from_slice(&[0; CHECKSUM]);
    row.extend_from_slice(&revision.to_le_bytes());
    row.extend_from_slice(bytes);
    let checksum = checksum(key, &row[CHECKSUM..]);
    row[..CHECKSUM].copy_from_slice(&checksum.to_le_bytes());
    row
}

/// The revision and the bytes; `None` when they are not what [`seal`] made.
pub(super) fn open<'r>(key: &str, row: &'r [u8]) -> Option<(u64, &'r [u8])> {
    let (known, rest) = row.split_first_chunk::<CHECKSUM>()?;
    let (revision, bytes) = rest.split_first_chunk::<8>()?;
    (u64::from_le_bytes(*known) == checksum(key, rest)).then(|| (u64::from_le_bytes(*revision), bytes))
}

fn checksum(key: &str, rest: &[u8]) -> u64 {
    xxh3_64_with_seed(rest, xxh3_64(key.as_bytes()))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn any_flipped_bit_of_key_or_row_is_noticed() {
        let row = seal("/registry/core/pods/default/web", 7, b"{}");
        assert_eq!(open("/registry/core/pods/default/web", &row), Some((7, &b"{}"[..])));
        assert_eq!(open("/registry/core/pods/default/wea", &row), None);
        for bit in 0..row.len() * 8 {
            let mut damaged = row.clone();
            damaged[bit / 8] ^= 1 << (bit % 8);
            assert_eq!(open("/registry/core/pods/default/web", &damaged), None, "bit {bit}");
        }
        assert_eq!(open("k", &row[..HEAD - 1]), None);
    }
}
