//! The router over the store in memory: what a client sends and what it gets.

mod access;
mod fixtures;
mod lists;
mod negotiation;
mod paths;
mod special;
mod updates;
mod watches;
mod writes;
