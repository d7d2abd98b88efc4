//! How the process ends when it cannot go on.

use std::fmt;
use std::process::ExitCode;

/// `EX_CONFIG` of sysexits.h. The unit is not started again after it: the next try would fail in the
/// same way until somebody has put something right.
const NEEDS_SOMEBODY: u8 = 78;

/// An error that no further try mends.
#[derive(Debug)]
pub(crate) struct Final(pub(crate) anyhow::Error);

impl fmt::Display for Final {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(&self.0, f)
    }
}

impl std::error::Error for Final {
    fn source(&self) -> Option<&(dyn std::error::Error + 'static)> {
        self.0.source()
    }
}

pub(crate) fn code(error: &anyhow::Error) -> ExitCode {
    let refused = |e: &apiserver::StartError| e.is_final();
    let is_no_file = error.chain().filter_map(|cause| cause.downcast_ref()).any(statefile::NotAFile::is);
    if error.downcast_ref::<Final>().is_some() || error.downcast_ref().is_some_and(refused) || is_no_file {
        ExitCode::from(NEEDS_SOMEBODY)
    } else {
        ExitCode::FAILURE
    }
}

#[cfg(test)]
mod tests {
    use anyhow::Context;

    use super::*;

    #[test]
    fn only_what_a_further_try_may_mend_is_tried_again() {
        let directory = tempfile::tempdir().unwrap();
        let no_file = statefile::read(directory.path()).context("reading it").unwrap_err();
        let refused = std::io::Error::from(std::io::ErrorKind::PermissionDenied);
        for (error, expected) in [
            (anyhow::anyhow!("a taken port"), ExitCode::FAILURE),
            (anyhow::Error::from(refused).context("reading it"), ExitCode::FAILURE),
            (no_file, ExitCode::from(NEEDS_SOMEBODY)),
            (anyhow::Error::from(Final(anyhow::anyhow!("lost"))).context("starting"), ExitCode::from(NEEDS_SOMEBODY)),
        ] {
            assert_eq!(format!("{:?}", code(&error)), format!("{expected:?}"), "{error:#}");
        }
    }
}
