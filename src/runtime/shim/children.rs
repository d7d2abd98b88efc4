//! The forked children that call libcontainer for the shim, and what they report.

use std::io::ErrorKind;
use std::os::fd::{AsFd, AsRawFd, OwnedFd};

use nix::unistd::Pid;
use serde::{Deserialize, Serialize};

use super::container::nonblocking;
use super::trace::Trace;
use crate::error::{Error, Result};
use crate::sys::{packet, process};

/// Longer messages of errors are cut.
const REPORT_MAX: usize = 8 * 1024;

/// A child at work.
pub(super) struct Helper<Job> {
    pub pid: Pid,
    pub report: OwnedFd,
    pub job: Job,
}

/// What a child tells before it ends; a terminal's master may come along.
#[derive(Serialize, Deserialize)]
enum Report {
    Process(i32),
    Failed(String),
}

/// What came of it: the new process, or why there is none.
pub(super) type Outcome = std::result::Result<(i32, Option<OwnedFd>), String>;

/// Forks a child that does `work` with only the descriptors in `keep`.
pub(super) fn start<Job>(
    job: Job,
    keep: &[i32],
    work: impl FnOnce() -> Result<(i32, Option<OwnedFd>)>,
) -> Result<Helper<Job>> {
    let failed = |error: &dyn std::fmt::Display| Error::Start(format!("cannot start a helper process: {error}"));
    let (ours, theirs) = packet::pair().map_err(|error| failed(&error))?;
    // The container holds the other end too: a child that dies without a word does not close it.
    nonblocking(ours.as_fd()).map_err(|error| failed(&error))?;
    let pid = process::fork_child(|| {
        let keep = [keep, &[theirs.as_raw_fd()]].concat();
        if process::reset_signals().is_err() || process::close_others(&keep).is_err() {
            return 1;
        }
        let mut trace = Trace::start();
        let outcome = work().map_err(|error| {
            let text = error.to_string();
            match trace.as_mut().and_then(Trace::first) {
                // Our own executor's words need no comment.
                Some(cause) if !text.contains(": exec: ") => format!("{text}: {cause}"),
                Some(_) | None => text,
            }
        });
        tell(&theirs, outcome)
    });
    Ok(Helper { pid: pid.map_err(|error| failed(&error))?, report: ours, job })
}

fn tell(to: &OwnedFd, outcome: Outcome) -> i32 {
    let (report, terminal) = match outcome {
        Ok((pid, terminal)) => (Report::Process(pid), terminal),
        Err(mut text) => {
            text.truncate(text.floor_char_boundary(REPORT_MAX / 2));
            (Report::Failed(text), None)
        }
    };
    let bytes = serde_json::to_vec(&report).expect("invariant: reports are plain data");
    let fds = terminal.iter().map(AsFd::as_fd).collect::<Vec<_>>();
    i32::from(packet::send(to.as_fd(), &bytes, &fds).is_err())
}

impl<Job> Helper<Job> {
    /// Reads the report: call when the socket is readable or the child has ended. Never waits.
    pub(super) fn outcome(&self) -> Outcome {
        let mut buffer = [0; REPORT_MAX];
        let lost = || "the helper process ended without a word".to_owned();
        let received = match packet::receive(self.report.as_fd(), &mut buffer) {
            Err(error) if error.kind() == ErrorKind::WouldBlock => return Err(lost()),
            Err(error) => return Err(error.to_string()),
            Ok(received) => received.ok_or_else(lost)?,
        };
        match serde_json::from_slice(&buffer[..received.len]).map_err(|error| error.to_string())? {
            Report::Process(pid) => Ok((pid, received.fds.into_iter().next())),
            Report::Failed(text) => Err(text),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// As when a container that waits for its start keeps the descriptor of a child that was killed.
    #[test]
    fn a_child_that_ends_without_a_word_is_not_waited_for() {
        let (ours, _held_by_the_container) = packet::pair().unwrap();
        nonblocking(ours.as_fd()).unwrap();
        let helper = Helper { pid: Pid::from_raw(1), report: ours, job: () };
        assert_eq!(helper.outcome().unwrap_err(), "the helper process ended without a word");
    }
}
