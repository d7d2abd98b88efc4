//! A gap: entries whose very names are lost, known only by the names that they lay between.
//!
//! While a gap is remembered, a name inside it that is not there may have been: nobody is told that it is
//! absent, and nobody acts as if it had been deleted. A gap rests among the entries, under a name that no
//! entry can have, so that it is guarded as they are.

use std::fmt;

use crate::key::Key;

/// Names after one, up to and with another.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Gap {
    /// Empty: from the first name on.
    pub after: String,
    /// Empty: to the last name.
    pub upto: String,
}

/// No key begins so.
const ROW: &str = "lost/";

impl Gap {
    /// Whether an entry of this name may be among the lost ones.
    pub(crate) fn holds(&self, name: &str) -> bool {
        name > self.after.as_str() && (self.upto.is_empty() || name <= self.upto.as_str())
    }

    /// Whether some entry of a collection, of those whose item begins so, may be among the lost ones.
    pub(crate) fn touches(&self, collection: &str, item_start: &str) -> bool {
        let start = Key::new(collection, item_start).to_string();
        let begins_before = self.after < start || self.after.starts_with(&start);
        begins_before && (self.upto.is_empty() || self.upto >= start)
    }

    /// The name under which it rests.
    pub(crate) fn row_name(&self) -> String {
        format!("{ROW}{}\n{}", self.after, self.upto)
    }

    pub(crate) fn parse(row_name: &str) -> Option<Self> {
        let (after, upto) = row_name.strip_prefix(ROW)?.split_once('\n')?;
        Some(Self { after: after.to_owned(), upto: upto.to_owned() })
    }
}

impl fmt::Display for Gap {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match (self.after.as_str(), self.upto.as_str()) {
            ("", "") => f.write_str("objects of all names"),
            (after, "") => write!(f, "objects after {after}"),
            ("", upto) => write!(f, "objects up to {upto}"),
            (after, upto) => write!(f, "objects after {after} up to {upto}"),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn gap(after: &str, upto: &str) -> Gap {
        Gap { after: after.to_owned(), upto: upto.to_owned() }
    }

    #[test]
    fn a_gap_is_the_names_between_and_reads_back() {
        let all = gap("", "");
        let some = gap("/registry/core/pods/a/web", "/registry/core/secrets/a/x");
        for (name, inside) in [
            ("/registry/core/pods/a/web", false),
            ("/registry/core/pods/a/web-1", true),
            ("/registry/core/resourcequotas/b/q", true),
            ("/registry/core/secrets/a/x", true),
            ("/registry/core/secrets/a/x1", false),
        ] {
            assert_eq!((some.holds(name), all.holds(name)), (inside, true), "{name}");
        }
        for gap in [all, some, gap("", "x"), gap("x", "")] {
            assert_eq!(Gap::parse(&gap.row_name()), Some(gap.clone()));
            assert_eq!(Key::parse(&gap.row_name()), None);
        }
        assert_eq!(Gap::parse("/registry/core/pods/a/web"), None);
    }

    #[test]
    fn a_gap_touches_the_collections_that_it_may_have_taken_from() {
        let some = gap("/registry/core/pods/b/web", "/registry/core/secrets/b/x");
        for (collection, start, touched) in [
            ("core/pods", "", true),
            ("core/pods", "a/", false),
            ("core/pods", "b/", true),
            ("core/pods", "c/", true),
            ("core/resourcequotas", "a/", true),
            ("core/secrets", "a/", true),
            ("core/secrets", "b/", true),
            ("core/secrets", "c/", false),
            ("core/services", "", false),
            ("core/nodes", "", false),
        ] {
            assert_eq!(some.touches(collection, start), touched, "{collection} {start}");
        }
        assert!(gap("", "").touches("core/nodes", ""));
    }
}
