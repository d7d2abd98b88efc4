//! A machine of its own on this kernel (`tests/machine`), removed when the value goes.

use std::path::{Path, PathBuf};
use std::process::{Command, Output, Stdio};

/// Where the checkout is.
pub(crate) fn top() -> &'static Path {
    Path::new(env!("CARGO_MANIFEST_DIR"))
}

pub(crate) struct Machine {
    name: String,
}

#[expect(clippy::disallowed_methods, reason = "tests drive stock programs")]
pub(crate) fn command(program: impl AsRef<std::ffi::OsStr>) -> Command {
    Command::new(program)
}

impl Machine {
    pub(crate) fn up(name: &str) -> Self {
        let machine = Self { name: name.to_owned() };
        machine.script("up");
        machine
    }

    /// A pulled plug: everything ends at once, files stay.
    pub(crate) fn power_off(&self) {
        self.script("off");
    }

    pub(crate) fn boot(&self) {
        self.script("boot");
    }

    fn script(&self, action: &str) {
        let out = command(top().join("tests/machine")).args([action, &self.name]).output().unwrap();
        assert!(out.status.success(), "machine {action} {}: {}", self.name, text(&out));
    }

    /// A command that runs on the machine.
    pub(crate) fn command(&self, program: &str) -> Command {
        let mut c = command(top().join("tests/machine"));
        c.args(["run", &self.name, program]).stdin(Stdio::null());
        c
    }

    /// A command that runs on the other end of the machine's cable.
    pub(crate) fn lan(&self, program: &str) -> Command {
        let mut c = command(top().join("tests/machine"));
        c.args(["lan", &self.name, program]).stdin(Stdio::null());
        c
    }

    /// Standard output of a command that must succeed.
    #[track_caller]
    pub(crate) fn run(&self, program: &str, args: &[&str]) -> String {
        succeed(self.command(program).args(args))
    }

    /// Where the machine's directory is on the host.
    pub(crate) fn directory(&self) -> PathBuf {
        top().join("target/machines").join(&self.name)
    }
}

impl Drop for Machine {
    fn drop(&mut self) {
        if std::thread::panicking() && std::env::var_os("KEEP_MACHINES").is_some() {
            return;
        }
        self.script("down");
    }
}

#[track_caller]
pub(crate) fn succeed(command: &mut Command) -> String {
    let out = command.output().unwrap();
    assert!(out.status.success(), "{command:?}: {}\n{}", out.status, text(&out));
    String::from_utf8(out.stdout).unwrap()
}

/// What a command printed, both streams.
pub(crate) fn text(out: &Output) -> String {
    format!("{}{}", String::from_utf8_lossy(&out.stdout), String::from_utf8_lossy(&out.stderr))
}
