//! The router over the store in memory: what a client sends and what it gets.

mod access;
mod admission;
mod damaged;
pub(crate) mod fixtures;
mod limit;
mod listener;
mod lists;
mod negotiation;
mod nodes;
mod paths;
mod restarts;
mod running;
mod special;
mod strangers;
mod updates;
mod watches;
mod watching;
mod writes;
