//! The checksum of a record that lies on a disk.
//!
//! A sealed record is `{"version":3,"checksum":"…","record":{…}}`. The version tells releases that know no
//! seals, and read records up to their version 2, that this one is newer; the record inside has the version of
//! its own form. Records of versions 1 and 2 were written without a seal and are taken as they are. A record
//! itself has no fields `checksum` and `record`.

use serde::Deserialize;
use serde_json::value::RawValue;
use xxhash_rust::xxh3::xxh3_64_with_seed;

use crate::stamp::unstamped;
use crate::{Damage, Unreadable};

/// The version of the seal.
pub const SEALED: u32 = 3;

#[derive(Deserialize)]
struct Outer<'a> {
    #[serde(default = "unstamped")]
    version: u32,
    checksum: Option<String>,
    #[serde(borrow)]
    record: Option<&'a RawValue>,
}

/// A record, which is JSON, as it rests on a disk.
#[must_use]
pub fn seal(record: &str) -> Vec<u8> {
    format!(r#"{{"version":{SEALED},"checksum":"{}","record":{record}}}"#, checksum(record)).into_bytes()
}

/// The record in a file, sealed or older than seals.
///
/// # Errors
/// When it is not what was sealed, or of a newer form.
pub fn open(file: &[u8]) -> Result<&[u8], Unreadable> {
    let Outer { version, checksum: found, record } = serde_json::from_slice(file)?;
    match (found, record) {
        (None, None) if version < SEALED => Ok(file),
        (Some(found), Some(record)) if found == checksum(record.get()) => {
            // Only the version may still be another one: then that is what is damaged.
            if version == SEALED { Ok(record.get().as_bytes()) } else { Err(Damage::Checksum.into()) }
        }
        _ if version > SEALED => Err(Unreadable::Newer { found: version, known: SEALED }),
        _ => Err(Damage::Checksum.into()),
    }
}

/// Of other seals there are other checksums: the version is the seed.
fn checksum(record: &str) -> String {
    format!("{:016x}", xxh3_64_with_seed(record.as_bytes(), u64::from(SEALED)))
}

#[cfg(test)]
mod tests {
    use super::*;

    const GOLDEN: &str = include_str!("golden/sealed-3.json");
    const RECORD: &str = r#"{"version":1,"uid":"0b9a6d6e-8f0f-4ad5-9d2c-3c1f2f0f6a01"}"#;

    #[test]
    fn a_seal_stays_as_releases_write_it() {
        assert_eq!(String::from_utf8(seal(RECORD)).unwrap(), GOLDEN.trim_end(), "a changed seal takes a new version");
        assert_eq!(open(GOLDEN.trim_end().as_bytes()).unwrap(), RECORD.as_bytes());
    }

    #[test]
    fn records_from_before_seals_are_taken_as_they_are() {
        for plain in [r#"{"uid":"a"}"#, r#"{"version":1,"uid":"a"}"#, r#"{"version":2,"uid":"a"}"#] {
            assert_eq!(open(plain.as_bytes()).unwrap(), plain.as_bytes());
        }
    }

    #[test]
    fn no_flipped_bit_passes() {
        let sealed = seal(RECORD);
        for bit in 0..sealed.len() * 8 {
            let mut flipped = sealed.clone();
            flipped[bit / 8] ^= 1 << (bit % 8);
            let found = open(&flipped);
            assert!(matches!(found, Err(Unreadable::Damaged(_))), "bit {bit}: {found:?}");
        }
    }

    #[test]
    fn a_seal_that_is_incomplete_is_damage_and_a_newer_one_is_told_apart() {
        let whole = String::from_utf8(seal(RECORD)).unwrap();
        for (from, to) in [("\"checksum\"", "\"sum\""), ("\"record\"", "\"text\""), ("\"version\":3,", "")] {
            let found = open(whole.replacen(from, to, 1).as_bytes()).map(<[u8]>::to_vec);
            assert!(matches!(found, Err(Unreadable::Damaged(_))), "{from}: {found:?}");
        }
        for damaged in ["", "{", "null", "[]", r#"{"version":3,"uid":"a"}"#, r#"{"record":{}}"#] {
            assert!(matches!(open(damaged.as_bytes()), Err(Unreadable::Damaged(_))), "{damaged}");
        }
        for newer in [r#"{"version":4,"checksum":"0","record":{}}"#, r#"{"version":99,"otherwise":[]}"#] {
            assert!(matches!(open(newer.as_bytes()), Err(Unreadable::Newer { known: SEALED, .. })), "{newer}");
        }
    }
}
