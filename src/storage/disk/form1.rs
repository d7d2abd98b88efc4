//! The first form of the database, read so that older stores go on: one table of revisions and bytes,
//! without checksums. A converted store can no longer be read by the version that wrote it, which says
//! so and changes nothing.

use redb::{ReadableTable, Table, TableDefinition, WriteTransaction};

use super::row;

const OBJECTS: TableDefinition<'_, &str, (u64, &[u8])> = TableDefinition::new("objects");

/// Moves all entries over, in the transaction that also says so.
pub(super) fn convert(
    transaction: &WriteTransaction,
    entries: &mut Table<'_, &'static str, &'static [u8]>,
) -> Result<(), redb::Error> {
    {
        let objects = transaction.open_table(OBJECTS)?;
        for entry in objects.iter()? {
            let (key, value) = entry?;
            let (revision, bytes) = value.value();
            entries.insert(key.value(), &*row::seal(key.value(), revision, bytes))?;
        }
    }
    transaction.delete_table(OBJECTS)?;
    Ok(())
}
