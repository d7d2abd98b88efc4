//! The state of a data directory, looked at without changing anything.

use std::path::Path;

use super::Finding;
use crate::{datadir, pki};

/// Nothing is found in a directory that no server has used. What may not be looked at is said.
pub(super) fn findings(data_dir: &Path) -> Vec<Finding> {
    match data_dir.join("server").try_exists() {
        Ok(true) => {}
        Ok(false) => return Vec::new(),
        Err(error) => return unseen(&format!("{}: {error}", data_dir.display())),
    }
    let store = match datadir::try_lock(data_dir) {
        Err(error) => return unseen(&format!("{error:#}")),
        // The server checked all of it when it started, and has it open.
        Ok(None) => vec![Finding { what: "store", result: Ok("in use by a server".to_owned()), needed: true }],
        Ok(Some(_lock)) => store(data_dir),
    };
    let tls = pki::check(&data_dir.join("server/tls")).map(|()| "belong together".to_owned());
    let tls = Finding { what: "certificates", result: tls.map_err(|e| format!("{e:#}")), needed: true };
    store.into_iter().chain([tls]).collect()
}

/// They may be whole or not: only root may read them.
fn unseen(why: &str) -> Vec<Finding> {
    let unseen =
        |what| Finding { what, result: Err(format!("could not be looked at ({why}); run it as root")), needed: false };
    vec![unseen("store"), unseen("certificates")]
}

fn store(data_dir: &Path) -> Vec<Finding> {
    let whole = |result| Finding { what: "store", result, needed: true };
    if let Err(error) = datadir::check_store_of(data_dir) {
        return vec![whole(Err(error.to_string()))];
    }
    let checked = apiserver::check_store(&datadir::database(data_dir), &datadir::store_marker(data_dir));
    let report = match checked {
        Ok(report) => report,
        Err(error) => return vec![whole(Err(format!("{:#}", anyhow::Error::from(error))))],
    };
    let mut findings = vec![whole(Ok(format!("{} objects can be read", report.entries)))];
    let warning = |result| Finding { what: "store", result: Err(result), needed: false };
    if report.flipped_bits > 0 {
        findings.push(warning(format!("{} flipped bits; the next start puts them right", report.flipped_bits)));
    }
    if report.is_damaged {
        findings.push(warning("it is damaged; the next start writes anew what can be read of it".to_owned()));
    }
    for gap in report.gaps {
        findings.push(Finding {
            what: "object",
            result: Err(format!(
                "some {gap} are lost; create them anew, and remove state.redb.damaged to give up what is missing then"
            )),
            needed: true,
        });
    }
    for entry in report.set_aside {
        findings.push(Finding {
            what: "object",
            result: Err(format!("{} cannot be read: {}; creating it anew replaces it", entry.name, entry.reason)),
            needed: true,
        });
    }
    findings
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_cannot_be_looked_at_is_said() {
        let dir = tempfile::tempdir().unwrap();
        assert!(findings(dir.path()).is_empty(), "no server has used it");
        let closed = dir.path().join("file");
        std::fs::write(&closed, "").unwrap();
        let found = findings(&closed);
        assert_eq!(found.iter().map(|f| f.what).collect::<Vec<_>>(), ["store", "certificates"]);
        for finding in found {
            let problem = finding.result.unwrap_err();
            assert!(
                problem.starts_with("could not be looked at (") && problem.ends_with("; run it as root"),
                "{problem}"
            );
        }
    }
}
