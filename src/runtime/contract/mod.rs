//! What daemon and shim agree on, also when they come from different releases: the records on disk,
//! where they lie, and what the two say to each other.

pub(crate) mod held;
pub(crate) mod protocol;
pub(crate) mod records;

#[cfg(test)]
mod tests;
#[cfg(test)]
pub(crate) use tests::check as check_forms;
