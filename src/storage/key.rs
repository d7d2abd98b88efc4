//! The name of an entry: its collection and the item within it.

use std::fmt;
use std::sync::Arc;

/// On disk a key is `/registry/<collection>/<item>`, where a collection has two segments, such as
/// `apps/deployments`, and an item one or two, such as `default/web`.
#[derive(Clone, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Key {
    pub collection: Arc<str>,
    pub item: Arc<str>,
}

const ROOT: &str = "/registry/";

impl Key {
    #[must_use]
    pub fn new(collection: &str, item: &str) -> Self {
        Self { collection: collection.into(), item: item.into() }
    }

    /// Reads the form that [`fmt::Display`] writes.
    pub(crate) fn parse(text: &str) -> Option<Self> {
        let rest = text.strip_prefix(ROOT)?;
        let group_end = rest.find('/')?;
        let resource_end = group_end + 1 + rest[group_end + 1..].find('/')?;
        let item = &rest[resource_end + 1..];
        (!item.is_empty()).then(|| Self::new(&rest[..resource_end], item))
    }
}

impl fmt::Display for Key {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{ROOT}{}/{}", self.collection, self.item)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_key_reads_back_from_its_disk_form() {
        for (collection, item) in [("core/nodes", "a"), ("apps/deployments", "default/web"), ("x/y", "a/b/c")] {
            let key = Key::new(collection, item);
            assert_eq!(Key::parse(&key.to_string()), Some(key));
        }
        for bad in ["", "/registry/", "/registry/core", "/registry/core/pods", "/registry/core/pods/", "core/pods/x"] {
            assert_eq!(Key::parse(bad), None, "{bad:?}");
        }
    }
}
