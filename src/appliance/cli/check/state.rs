//! The state of a data directory, looked at without changing anything, also where nothing can be changed.

use std::path::Path;

use apiserver::StoreUse;

use super::Finding;
use crate::datadir::{self, Found, Missing, Start, Use};
use crate::pki;

/// Nothing is found in a directory that no server has used. What may not be looked at is said.
pub(super) fn findings(data_dir: &Path) -> Vec<Finding> {
    let (found, used) = match (Found::look(data_dir), datadir::look_at_use(data_dir)) {
        (Ok(found), Ok(used)) => (found, used),
        (Err(e), _) | (_, Err(e)) if !nix::unistd::geteuid().is_root() => return unseen(&format!("{e:#}")),
        (Err(e), _) | (_, Err(e)) => return vec![finding("data directory", Err(format!("{e:#}")))],
    };
    let (start, mut findings) = if found.first_start {
        let said = "a first start has not come to its end; the next one makes what is missing".to_owned();
        (Start::First, vec![finding("data directory", Ok(said))])
    } else {
        (Start::Later, Vec::new())
    };
    let missing = found.missing();
    findings.extend(missing.iter().map(|missing| match missing {
        Missing::Store { .. } => finding("store", Err(missing.to_string())),
        Missing::Authority { .. } => finding("certificates", Err(missing.to_string())),
    }));
    if found.database || found.marker.is_some() {
        let used = match used {
            Use::Taken => StoreUse::Open,
            Use::Free(_) => StoreUse::Closed,
        };
        findings.extend(store(data_dir, used));
    }
    if found.authority {
        let problems = pki::check(&datadir::tls(data_dir), start);
        if problems.is_empty() {
            findings.push(finding("certificates", Ok("belong together".to_owned())));
        }
        findings.extend(problems.into_iter().map(|problem| finding("certificates", Err(format!("{problem:#}")))));
    }
    findings
}

/// They may be whole or not: only root may read them.
fn unseen(why: &str) -> Vec<Finding> {
    let unseen =
        |what| Finding { what, result: Err(format!("could not be looked at ({why}); run it as root")), needed: false };
    vec![unseen("store"), unseen("certificates")]
}

fn finding(what: &'static str, result: Result<String, String>) -> Finding {
    Finding { what, result, needed: true }
}

fn store(data_dir: &Path, used: StoreUse) -> Vec<Finding> {
    let by = if used == StoreUse::Open { "in use by a server; " } else { "" };
    let checked = apiserver::check_store(&datadir::database(data_dir), &datadir::store_marker(data_dir), used);
    let report = match checked {
        Ok(Some(report)) => report,
        Ok(None) => return vec![finding("store", Ok(format!("{by}not looked at: it was written all the while")))],
        Err(error) => return vec![finding("store", Err(format!("{by}{:#}", anyhow::Error::from(error))))],
    };
    let mut findings = vec![finding("store", Ok(format!("{by}{} objects can be read", report.entries)))];
    let warning = |result| Finding { what: "store", result: Err(result), needed: false };
    if report.flipped_bits > 0 {
        findings.push(warning(format!("{} flipped bits; the next start puts them right", report.flipped_bits)));
    }
    if report.is_damaged {
        findings.push(warning("it is damaged; the next start writes anew what can be read of it".to_owned()));
    }
    for gap in report.gaps {
        let help = "create them anew, and remove state.redb.damaged to give up what is missing then";
        findings.push(finding("object", Err(format!("some {gap} are lost; {help}"))));
    }
    for entry in report.set_aside {
        let said = format!("{} cannot be read: {}; creating it anew replaces it", entry.name, entry.reason);
        findings.push(finding("object", Err(said)));
    }
    findings
}

#[cfg(test)]
mod tests;
