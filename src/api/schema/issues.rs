//! The strict decoding issues of one body: each once, in the order of the body.
//!
//! Their number and the bytes of their paths are bounded, so that a body of unknown fields costs no
//! more than one of known ones. Once the bound is reached nothing more is noted.

use std::collections::HashSet;

use super::error::FieldIssue;

/// Upstream keeps this many issues of one body.
pub(crate) const MAX_ISSUES: usize = 100;
/// Bytes of paths that are printed for one body, repeats included: a path is as long as its body when a
/// key of a map is, and would be printed for each field below that key.
const MAX_PATH_BYTES: usize = 256 * 1024;
/// What an issue counts beside its path, so that short ones are bounded too.
const PER_ISSUE: usize = 16;

pub(super) struct Issues {
    list: Vec<FieldIssue>,
    known: HashSet<FieldIssue>,
    room: usize,
}

impl Issues {
    pub(super) fn new() -> Self {
        Self { list: Vec::new(), known: HashSet::new(), room: MAX_PATH_BYTES }
    }

    /// Nothing more is noted: the caller saves itself the path.
    pub(super) fn is_full(&self) -> bool {
        self.list.len() >= MAX_ISSUES || self.room == 0
    }

    pub(super) fn len(&self) -> usize {
        self.list.len()
    }

    pub(super) fn note(&mut self, issue: FieldIssue) {
        self.note_at(self.list.len(), issue);
    }

    /// Notes an issue before those that were noted since there were `before`.
    pub(super) fn note_at(&mut self, before: usize, issue: FieldIssue) {
        if self.is_full() {
            return;
        }
        self.room = self.room.saturating_sub(issue.path().len() + PER_ISSUE);
        if self.known.insert(issue.clone()) {
            self.list.insert(before.min(self.list.len()), issue);
        }
    }

    pub(super) fn into_list(self) -> Vec<FieldIssue> {
        self.list
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_issue_is_noted_once_and_no_more_than_a_hundred_are() {
        let mut issues = Issues::new();
        for i in 0..500 {
            issues.note(FieldIssue::Unknown { path: format!("f{}", i / 2) });
        }
        assert!(issues.is_full());
        let list = issues.into_list();
        assert_eq!(list.len(), 100);
        assert_eq!(list[99], FieldIssue::Unknown { path: "f99".into() });
    }

    #[test]
    fn long_paths_are_not_printed_again_and_again() {
        let mut issues = Issues::new();
        let mut printed = 0;
        while !issues.is_full() {
            let path = "k".repeat(100_000);
            printed += path.len();
            issues.note(FieldIssue::Duplicate { path });
        }
        assert!(printed <= MAX_PATH_BYTES + 100_000, "{printed}");
        assert_eq!(issues.into_list().len(), 1);
    }
}
