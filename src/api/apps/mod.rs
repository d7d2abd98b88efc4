//! The apps group, one kind per file.

pub(crate) mod controller_revision;
pub(crate) mod daemon_set;
pub(crate) mod deployment;
pub(crate) mod replica_set;
mod rolling_update;
pub(crate) mod stateful_set;
