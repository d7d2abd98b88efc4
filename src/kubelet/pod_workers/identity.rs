//! As whom the first process of a container runs.

use std::fs;

use api::k8s_openapi::api::core::v1::LinuxContainerUser;

use super::worker::Worker;
use crate::observed::Observed;
use crate::pod::PodExt;
use crate::status;

impl Worker {
    /// Asks once for each container that runs. A process may change its user later, so what was known
    /// before a restart of the kubelet stays.
    pub(super) fn note_users(&mut self, observed: &Observed) {
        for c in observed.running() {
            let Some(pid) = c.pid.filter(|_| !self.users.contains_key(&c.id)) else { continue };
            let id = format!("{}{}", status::ID_PREFIX, c.id);
            let known = self.pod.known_status(&c.name).filter(|s| s.container_id.as_deref() == Some(&*id));
            let known = known.and_then(|s| s.user.as_ref()?.linux.clone());
            // The kernel answers from its own tables, so no disk and no pod is waited for. A process that has
            // gone meanwhile is told of as ended soon.
            let read = || parse(&fs::read_to_string(format!("/proc/{pid}/status")).ok()?);
            if let Some(user) = known.or_else(read) {
                self.users.insert(c.id.clone(), user);
            }
        }
    }
}

/// From `/proc/<pid>/status`: the effective ids, and the supplementary groups.
fn parse(text: &str) -> Option<LinuxContainerUser> {
    let field = |name: &str| text.lines().find_map(|l| l.strip_prefix(name)?.strip_prefix(':'));
    let effective = |name: &str| field(name)?.split_whitespace().nth(1)?.parse().ok();
    let groups: Vec<i64> = field("Groups")?.split_whitespace().filter_map(|g| g.parse().ok()).collect();
    Some(LinuxContainerUser {
        uid: effective("Uid")?,
        gid: effective("Gid")?,
        supplemental_groups: (!groups.is_empty()).then_some(groups),
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ids_are_read_from_the_status_of_a_process() {
        let text = "Name:\tsh\nUid:\t1000\t1001\t1000\t1000\nGid:\t7\t8\t7\t7\nGroups:\t8 2000 \n";
        let user = LinuxContainerUser { uid: 1001, gid: 8, supplemental_groups: Some(vec![8, 2000]) };
        assert_eq!(parse(text), Some(user));
        assert_eq!(parse("Uid:\t0\t0\nGid:\t0\t0\nGroups:\t \n").unwrap().supplemental_groups, None);
        assert_eq!(parse("Name:\tgone\n"), None);
    }
}
