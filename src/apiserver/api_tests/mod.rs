//! The router over the store in memory: what a client sends and what it gets.

mod access;
mod fixtures;
mod listener;
mod lists;
mod negotiation;
mod paths;
mod restarts;
mod special;
mod updates;
mod watches;
mod writes;
