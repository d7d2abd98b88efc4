//! All that is wrong with one object, in the order in which it was found, up to a bound.
//!
//! Upstream tells every error of an object. An object of 3 MB can have a hundred thousand, whose texts
//! would be many times its size; so the list keeps the first thousand and says that there are more.

use std::ops::Deref;

use super::{Error, ErrorKind};

/// Errors that are kept of one object: more than anybody reads.
const MAX_ERRORS: usize = 1_000;
/// Bytes of the errors that are kept. Each may show a value of the object, and the whole list is written
/// twice into the answer. The first error is kept whatever its size.
const MAX_BYTES: usize = 1024 * 1024;

/// A bounded list of errors.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct ErrorList {
    errors: Vec<Error>,
    bytes: usize,
    full: bool,
}

impl ErrorList {
    #[must_use]
    pub fn new() -> Self {
        Self::default()
    }

    /// Whether nothing more is kept: a loop over an object's elements ends here.
    #[must_use]
    pub fn is_full(&self) -> bool {
        self.full
    }

    pub fn push(&mut self, error: Error) {
        if self.full {
            return;
        }
        let shown = error.bad_value.as_deref().map_or(0, str::len);
        let bytes = error.field.len() + error.detail.len() + shown;
        if self.errors.len() >= MAX_ERRORS || (!self.errors.is_empty() && self.bytes + bytes > MAX_BYTES) {
            self.full = true;
            self.errors.push(Error {
                kind: ErrorKind::TooMany,
                field: "<nil>".to_owned(),
                bad_value: None,
                detail: format!("only the first {} errors are shown", self.errors.len()),
            });
            return;
        }
        self.bytes += bytes;
        self.errors.push(error);
    }

    /// Takes back errors that are none after all. What was not kept stays untold.
    pub(crate) fn retain(&mut self, keep: impl FnMut(&Error) -> bool) {
        self.errors.retain(keep);
    }

    pub fn append(&mut self, other: &mut Self) {
        self.extend(std::mem::take(other));
    }
}

impl Deref for ErrorList {
    type Target = [Error];

    fn deref(&self) -> &[Error] {
        &self.errors
    }
}

impl Extend<Error> for ErrorList {
    fn extend<I: IntoIterator<Item = Error>>(&mut self, errors: I) {
        for error in errors {
            if self.full {
                return;
            }
            self.push(error);
        }
    }
}

impl FromIterator<Error> for ErrorList {
    fn from_iter<I: IntoIterator<Item = Error>>(errors: I) -> Self {
        let mut list = Self::new();
        list.extend(errors);
        list
    }
}

impl From<Error> for ErrorList {
    fn from(error: Error) -> Self {
        Self::from_iter([error])
    }
}

impl IntoIterator for ErrorList {
    type Item = Error;
    type IntoIter = std::vec::IntoIter<Error>;

    fn into_iter(self) -> Self::IntoIter {
        self.errors.into_iter()
    }
}

impl<'e> IntoIterator for &'e ErrorList {
    type Item = &'e Error;
    type IntoIter = std::slice::Iter<'e, Error>;

    fn into_iter(self) -> Self::IntoIter {
        self.errors.iter()
    }
}

#[cfg(test)]
mod tests {
    use super::super::{Path, invalid, required};
    use super::*;

    #[test]
    fn the_first_thousand_errors_are_kept_and_the_rest_is_mentioned() {
        let path = Path::new("a");
        let mut list: ErrorList = (0..1_000).map(|i| required(&path.index(i), "")).collect();
        assert!(!list.is_full());
        assert_eq!(list.len(), 1_000);
        list.push(required(&path, ""));
        list.push(required(&path, ""));
        assert!(list.is_full());
        assert_eq!(list.len(), 1_001);
        assert_eq!(list[1_000].to_string(), "<nil>: Too many: only the first 1000 errors are shown");
    }

    #[test]
    fn large_values_count_by_their_size_but_the_first_error_is_always_told() {
        let huge = "v".repeat(2 * MAX_BYTES);
        let list: ErrorList = (0..3).map(|_| invalid(&Path::new("a"), &huge, "too long")).collect();
        assert_eq!(list.len(), 2);
        assert_eq!(list[0].bad_value.as_deref().map(str::len), Some(huge.len() + 2));
        assert_eq!(list[1].kind, ErrorKind::TooMany);
    }
}
