//! What pods left on the disk whose end nobody saw. Blocks: only in the disk room.

use std::fs;
use std::io;
use std::path::{Path, PathBuf};

use tracing::warn;

use crate::volumes;

/// Removes directories and logs of all pods but those whose UIDs are known. What resists is told, and
/// tried again later.
pub(super) fn remove(pods: &Path, logs: &Path, is_known: impl Fn(&str) -> bool) -> io::Result<()> {
    // Both are listed before anything is removed, which may take long: what pods make meanwhile is theirs.
    let (dirs, logs) = (strays(pods, &is_known, |name| Some(name))?, strays(logs, &is_known, uid_of_logs)?);
    // A pod that was thought gone may have come back since.
    for (uid, dir) in dirs.into_iter().filter(|(uid, _)| !is_known(uid)) {
        if let Err(e) = volumes::remove_pod_dir(&dir) {
            warn!(uid, "directory of a gone pod not removed: {e}");
        }
    }
    for (uid, dir) in logs.into_iter().filter(|(uid, _)| !is_known(uid)) {
        if let Err(e) = runtime::remove_tree(&dir) {
            warn!(uid, "logs of a gone pod not removed: {e}");
        }
    }
    Ok(())
}

fn strays(
    root: &Path,
    is_known: impl Fn(&str) -> bool,
    uid: fn(&str) -> Option<&str>,
) -> io::Result<Vec<(String, PathBuf)>> {
    let mut found = Vec::new();
    for entry in fs::read_dir(root)? {
        let entry = entry?;
        let Ok(name) = entry.file_name().into_string() else { continue };
        if let Some(uid) = uid(&name).filter(|uid| !is_known(uid)) {
            found.push((uid.to_owned(), entry.path()));
        }
    }
    Ok(found)
}

/// From `<namespace>_<name>_<uid>`.
fn uid_of_logs(name: &str) -> Option<&str> {
    let mut parts = name.split('_');
    let uid = parts.nth(2)?;
    (parts.next().is_none() && !uid.is_empty()).then_some(uid)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_pods_left_that_are_gone_is_found_and_nothing_else() {
        let root = tempfile::tempdir().unwrap();
        for name in ["prod_web_u1", "prod_old_u2", "lost+found", "prod_web", "a_b_c_d", "prod_x_"] {
            fs::create_dir(root.path().join(name)).unwrap();
        }
        let known = |uid: &str| uid == "u1";
        let found = strays(root.path(), known, uid_of_logs).unwrap();
        assert_eq!(found, [("u2".to_owned(), root.path().join("prod_old_u2"))]);
        assert!(strays(&root.path().join("absent"), known, uid_of_logs).is_err());
    }

    #[test]
    fn what_pods_make_during_a_removal_stays() {
        let root = tempfile::tempdir().unwrap();
        let (pods, logs) = (root.path().join("pods"), root.path().join("logs"));
        for dir in [pods.join("old"), logs.join("prod_old_old"), pods.join("back"), logs.join("prod_back_back")] {
            fs::create_dir_all(dir).unwrap();
        }
        let asked = std::cell::RefCell::new(Vec::new());
        let is_known = |uid: &str| {
            let mut asked = asked.borrow_mut();
            asked.push(uid.to_owned());
            // The listings ask four times. Then the removal begins, a new pod comes of which the caller
            // knew nothing, and one whose object was seen late.
            if asked.len() == 5 {
                fs::create_dir_all(logs.join("prod_new_new")).unwrap();
            }
            asked.len() > 4 && uid == "back"
        };
        remove(&pods, &logs, is_known).unwrap();
        let left = |dir: &Path| {
            let mut names: Vec<_> = fs::read_dir(dir).unwrap().map(|e| e.unwrap().file_name()).collect();
            names.sort();
            names
        };
        assert_eq!(left(&pods), ["back"]);
        assert_eq!(left(&logs), ["prod_back_back", "prod_new_new"]);
    }
}
