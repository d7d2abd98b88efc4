//! Seccomp filters for containers, from a pod's wish to BPF.
//!
//! Why a compiler of our own: `libseccomp` is a C library, and `seccompiler` knows neither 32-bit
//! ARM programs on arm64, nor more than one action a filter, nor any search but linear.

mod compile;
mod default;
mod profile;
mod syscalls;

use std::io;
use std::path::{Path, PathBuf};

use crate::sys::bpf::ClassicInstruction;
use crate::types::Seccomp;

#[derive(Debug, thiserror::Error)]
pub(crate) enum SeccompError {
    #[error("failed to load seccomp profile {}: {source}", path.display())]
    Read { path: PathBuf, source: io::Error },
    #[error("failed to decode seccomp profile {}: {source}", path.display())]
    Parse { path: PathBuf, source: serde_json::Error },
    #[error(transparent)]
    Compile(#[from] compile::CompileError),
}

/// A filter ready to be loaded.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Filter(Vec<ClassicInstruction>);

impl Filter {
    pub(crate) fn load(&self) -> io::Result<()> {
        crate::sys::bpf::load_seccomp(&self.0)
    }
}

/// The filter that a container with these capabilities asks for; `None` for an unconfined one.
///
/// Compiling takes well under a millisecond, so nothing is cached: the process that calls this ends
/// with the container's start.
pub(crate) fn filter(wish: &Seccomp, capabilities: &[String]) -> Result<Option<Filter>, SeccompError> {
    let profile = match wish {
        Seccomp::Unconfined => return Ok(None),
        Seccomp::RuntimeDefault => default::profile(capabilities),
        Seccomp::Localhost(path) => read(path, capabilities)?,
    };
    Ok(Some(Filter(compile::compile(&profile, &compile::NATIVE)?)))
}

fn read(path: &Path, capabilities: &[String]) -> Result<profile::Profile, SeccompError> {
    let json = statefile::read(path).map_err(|source| SeccompError::Read { path: path.to_owned(), source })?;
    profile::parse(&json, capabilities).map_err(|source| SeccompError::Parse { path: path.to_owned(), source })
}

#[cfg(test)]
mod tests;
