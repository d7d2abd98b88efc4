//! The last steps in a container's new process, for its first process and for commands alike:
//! find the program, set right what libcontainer leaves undone, load the seccomp filter, give up
//! the capabilities that took (in the other order where the filter takes none), and become the program.

use std::collections::HashMap;
use std::ffi::CString;
use std::io::Write;
use std::os::fd::OwnedFd;
use std::path::{Path, PathBuf};
use std::rc::Rc;

use libcontainer::workload::{Executor, ExecutorError, ExecutorSetEnvsError, ExecutorValidationError};
use nix::mount::{MsFlags, mount};
use nix::unistd::{AccessFlags, access, execve};
use oci_spec::runtime::{LinuxCapabilities, Spec};

use crate::seccomp::Filter;
use crate::types::Propagation;

#[derive(Clone)]
pub(super) struct Launcher {
    pub filter: Option<Filter>,
    /// What the program keeps.
    pub capabilities: LinuxCapabilities,
    /// Then a filter takes no capability, and is loaded last: it may forbid what giving them up takes.
    pub no_new_privileges: bool,
    /// Mounts whose propagation differs from the whole tree's; none for commands.
    pub propagation: Vec<(PathBuf, Propagation)>,
    /// A mount to move over `/dev` when everything else is in place.
    pub dev: Option<Rc<OwnedFd>>,
}

impl Executor for Launcher {
    /// The program is given its variables by `exec`. To set them here takes time by the square of their number.
    fn setup_envs(&self, _: HashMap<String, String>) -> Result<(), ExecutorSetEnvsError> {
        Ok(())
    }

    /// Runs before the container counts as created, so its errors reach the user as such.
    fn validate(&self, spec: &Spec) -> Result<(), ExecutorValidationError> {
        let (args, env) = program(spec)
            .ok_or_else(|| ExecutorValidationError::ArgValidationError("no command specified".to_owned()))?;
        let ready = self.finish_mounts().and_then(|()| find(&args[0], path_of(env)).map(drop));
        ready.map_err(ExecutorValidationError::ArgValidationError)
    }

    fn exec(&self, spec: &Spec) -> Result<(), ExecutorError> {
        let result = self.become_program(spec);
        // The container runs already as far as libcontainer is concerned: its log is the only
        // place where this can be told.
        if let Err(error) = &result {
            let _ = writeln!(std::io::stderr(), "{error}");
        }
        result
    }
}

impl Launcher {
    fn finish_mounts(&self) -> Result<(), String> {
        if let Some(dev) = &self.dev {
            crate::sys::mount::move_to(dev, Path::new("/dev")).map_err(|error| format!("mount /dev: {error}"))?;
        }
        for (path, wish) in &self.propagation {
            mount(None::<&str>, path, None::<&str>, flags(*wish), None::<&str>)
                .map_err(|error| format!("set mount propagation of {}: {error}", path.display()))?;
        }
        Ok(())
    }

    fn become_program(&self, spec: &Spec) -> Result<(), ExecutorError> {
        let other = |action: &str, error: String| ExecutorError::Other(format!("{action}: {error}"));
        let (args, env) = program(spec).ok_or(ExecutorError::InvalidArg)?;
        let program = find(&args[0], path_of(env)).map_err(ExecutorError::Other)?;
        let program = CString::new(program.into_os_string().into_encoded_bytes());
        let program = program.map_err(|_| ExecutorError::InvalidArg)?;
        let (args, env) = (strings(args)?, strings(env)?);
        let load = || match &self.filter {
            Some(filter) => filter.load().map_err(|error| other("load seccomp filter", error.to_string())),
            None => Ok(()),
        };
        if !self.no_new_privileges {
            load()?;
        }
        let syscall = libcontainer::syscall::syscall::create_syscall();
        libcontainer::capabilities::drop_privileges(&self.capabilities, &*syscall)
            .map_err(|error| other("drop capabilities", error.to_string()))?;
        if self.no_new_privileges {
            load()?;
        }
        let Err(error) = execve(&program, &args, &env);
        Err(other(&format!("exec {}", program.to_string_lossy()), error.desc().to_ascii_lowercase()))
    }
}

fn strings(list: &[String]) -> Result<Vec<CString>, ExecutorError> {
    list.iter().map(|text| CString::new(text.as_str())).collect::<Result<_, _>>().map_err(|_| ExecutorError::InvalidArg)
}

fn program(spec: &Spec) -> Option<(&[String], &[String])> {
    let process = spec.process().as_ref()?;
    let args = process.args().as_deref().filter(|args| !args.is_empty())?;
    Some((args, process.env().as_deref().unwrap_or(&[])))
}

fn path_of(env: &[String]) -> &str {
    env.iter().find_map(|entry| entry.strip_prefix("PATH=")).unwrap_or("")
}

fn flags(wish: Propagation) -> MsFlags {
    MsFlags::MS_REC
        | match wish {
            Propagation::Private => MsFlags::MS_PRIVATE,
            Propagation::HostToContainer => MsFlags::MS_SLAVE,
            Propagation::Bidirectional => MsFlags::MS_SHARED,
        }
}

/// The program's path, or the text that users know for why there is none.
fn find(name: &str, path: &str) -> Result<PathBuf, String> {
    let usable = |candidate: &Path| candidate.is_file() && access(candidate, AccessFlags::X_OK).is_ok();
    if !name.contains('/') {
        let found =
            path.split(':').map(|dir| Path::new(if dir.is_empty() { "." } else { dir }).join(name)).find(|c| usable(c));
        return found.ok_or_else(|| format!("exec: {name:?}: executable file not found in $PATH"));
    }
    let candidate = Path::new(name);
    match candidate.metadata() {
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => {
            Err(format!("exec: {name:?}: stat {name}: no such file or directory"))
        }
        Err(_) => Err(format!("exec: {name:?}: permission denied")),
        Ok(metadata) if metadata.is_dir() => Err(format!("exec: {name:?}: is a directory")),
        Ok(_) if usable(candidate) => Ok(candidate.to_owned()),
        Ok(_) => Err(format!("exec: {name:?}: permission denied")),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn programs_are_found_or_missed_in_the_known_words() {
        assert_eq!(find("sh", "/nowhere:/bin").unwrap(), Path::new("/bin/sh"));
        assert_eq!(find("/bin/sh", "").unwrap(), Path::new("/bin/sh"));
        for (name, expected) in [
            ("nope", "exec: \"nope\": executable file not found in $PATH"),
            ("/nope", "exec: \"/nope\": stat /nope: no such file or directory"),
            ("/bin/", "exec: \"/bin/\": is a directory"),
            ("/etc/passwd", "exec: \"/etc/passwd\": permission denied"),
        ] {
            assert_eq!(find(name, "/bin").unwrap_err(), expected);
        }
    }
}
