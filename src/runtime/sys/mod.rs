//! The kernel interfaces that the standard library and `nix` lack, each behind a safe function.

pub(crate) mod bpf;
pub(crate) mod memfd;
pub(crate) mod memory;
pub(crate) mod mount;
pub(crate) mod packet;
pub(crate) mod pidfd;
pub(crate) mod process;
pub(crate) mod rootdir;
pub(crate) mod tree;
pub(crate) mod watch;
