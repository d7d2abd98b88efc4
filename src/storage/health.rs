//! What the store can do at the moment, as the writer finds out and everybody may read.

#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Health {
    #[default]
    Good,
    /// The disk is full: only writes that make room are done.
    Full,
    /// The last write to the disk failed, as each does when the file system has turned read-only. Writes are tried.
    Failing,
    /// The store has reached its limit: nothing is done that makes it larger, but for what has to go on.
    AtLimit,
    /// Closed, or found damaged while it was in use: nothing is written any more.
    Closed,
}
