//! How a typed kind becomes a row.

use jiff::Timestamp;
use k8s_openapi::Metadata;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::ObjectMeta;
use serde::de::DeserializeOwned;
use serde_json::Value;

use super::Column;
use crate::meta::duration;

/// A kind with a table of its own.
pub(super) trait Printed: DeserializeOwned + Metadata<Ty = ObjectMeta> {
    const COLUMNS: &'static [Column];

    /// One cell for each of the columns.
    fn row(&self, now: Timestamp) -> Vec<Value>;

    /// Reads an object; kinds that are stored in more than one shape translate here.
    fn read(obj: &Value) -> Result<Self, serde_json::Error> {
        Self::deserialize(obj)
    }

    fn name(&self) -> &str {
        self.metadata().name.as_deref().unwrap_or_default()
    }

    fn age(&self, now: Timestamp) -> String {
        duration::age(self.metadata().creation_timestamp.as_ref().map(|time| time.0), now)
    }

    fn is_terminating(&self) -> bool {
        self.metadata().deletion_timestamp.is_some()
    }
}

/// [`Printed`] with the kind forgotten.
pub(super) struct Table {
    pub(super) columns: &'static [Column],
    pub(super) cells: fn(&Value, Timestamp) -> Result<Vec<Value>, serde_json::Error>,
}

impl Table {
    pub(super) const fn of<K: Printed>() -> Self {
        Self { columns: K::COLUMNS, cells: |obj, now| K::read(obj).map(|object| object.row(now)) }
    }
}

/// A row out of cells of different types.
macro_rules! row {
    ($($cell:expr),+ $(,)?) => { vec![$(serde_json::Value::from($cell)),+] };
}
pub(super) use row;
