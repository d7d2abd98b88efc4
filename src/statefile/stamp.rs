//! The version of a record's form, beside its fields.
//!
//! A record without one was written before there were versions and counts as the first. A form that is newer
//! than this program is refused before anything else of it is looked at; all earlier ones are read.

use serde::de::DeserializeOwned;
use serde::{Deserialize, Serialize};

use crate::Unreadable;

#[derive(Serialize)]
struct Stamped<'a, T> {
    version: u32,
    #[serde(flatten)]
    record: &'a T,
}

#[derive(Deserialize)]
struct Stamp {
    #[serde(default = "unstamped")]
    version: u32,
}

pub(crate) fn unstamped() -> u32 {
    1
}

/// A record as one process hands it to another.
pub fn encode<T: Serialize>(version: u32, record: &T) -> String {
    serde_json::to_string(&Stamped { version, record }).expect("invariant: records are plain data")
}

/// Reads a record of any version up to `known`.
///
/// # Errors
/// When it is newer, or no such record.
pub fn decode<T: DeserializeOwned>(known: u32, json: &[u8]) -> Result<T, Unreadable> {
    let Stamp { version: found } = serde_json::from_slice(json)?;
    if found > known {
        return Err(Unreadable::Newer { found, known });
    }
    Ok(serde_json::from_slice(json)?)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[derive(Debug, PartialEq, Serialize, Deserialize)]
    struct Note {
        text: String,
    }

    #[test]
    fn earlier_forms_are_read_and_newer_ones_refused() {
        let note = Note { text: "hello".to_owned() };
        assert_eq!(encode(2, &note), r#"{"version":2,"text":"hello"}"#);
        for known in [r#"{"text":"hello"}"#, r#"{"version":1,"text":"hello"}"#, r#"{"version":2,"text":"hello"}"#] {
            assert_eq!(decode::<Note>(2, known.as_bytes()).unwrap(), note, "{known}");
        }
        let newer = decode::<Note>(2, br#"{"version":3,"words":[]}"#);
        assert!(matches!(newer, Err(Unreadable::Newer { found: 3, known: 2 })), "{newer:?}");
        for damaged in ["", "{", "{}", "null", r#"{"version":"x","text":""}"#, r#"{"version":2,"text":"#] {
            let read = decode::<Note>(2, damaged.as_bytes());
            assert!(matches!(read, Err(Unreadable::Damaged(_))), "{damaged}");
        }
    }
}
