//! What becomes of an object, given what has become of its owners.

use std::collections::HashSet;
use std::sync::Arc;

use api::object::ObjectIndex;
use kube::api::PropagationPolicy;

pub(super) const FOREGROUND: &str = "foregroundDeletion";
pub(super) const ORPHAN: &str = "orphan";

/// One owner, as the collector found it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Seen {
    Solid,
    Absent,
    /// Being deleted in the foreground: it goes after its dependents.
    Waiting,
}

#[derive(Clone, Debug)]
pub(super) enum Action {
    Keep,
    /// Some owners are gone and others are not: only the references to the former go.
    DropReferences(Vec<Arc<str>>),
    Delete(PropagationPolicy),
}

fn has(index: &ObjectIndex, finalizer: &str) -> bool {
    index.finalizers.iter().any(|f| **f == *finalizer)
}

/// Its deletion was asked for with orphaning and has not been finished.
pub(super) fn orphans(index: &ObjectIndex) -> bool {
    index.deleting && has(index, ORPHAN)
}

/// Its deletion waits for its dependents.
pub(super) fn waits_for_dependents(index: &ObjectIndex) -> bool {
    index.deleting && has(index, FOREGROUND)
}

/// The collector has to act before the object can go.
pub(super) fn waits(index: &ObjectIndex) -> bool {
    orphans(index) || waits_for_dependents(index)
}

/// The dependent holds the deletion of this owner up.
pub(super) fn blocks(dependent: &ObjectIndex, owner: &str) -> bool {
    dependent.owners.iter().any(|o| *o.uid == *owner && o.block_owner_deletion)
}

/// The dependent itself waits, directly or through others that do, for the owner: neither would ever
/// go. `dependents` gives those of an object by its UID.
pub(super) fn is_circular(
    owner: &str,
    dependent: &ObjectIndex,
    dependents: impl Fn(&str) -> Vec<Arc<ObjectIndex>>,
) -> bool {
    let mut seen: HashSet<Arc<str>> = HashSet::new();
    let mut waiting: Vec<Arc<str>> =
        waits_for_dependents(dependent).then(|| dependent.uid.clone()).into_iter().collect();
    while let Some(uid) = waiting.pop() {
        if *uid == *owner {
            return true;
        }
        if seen.insert(uid.clone()) {
            let blocking = |d: &Arc<ObjectIndex>| waits_for_dependents(d) && blocks(d, &uid);
            waiting.extend(dependents(&uid).into_iter().filter(blocking).map(|d| d.uid.clone()));
        }
    }
    false
}

/// `owners` stands in the order of the object's references.
pub(super) fn decide(index: &ObjectIndex, owners: &[Seen], has_dependents: impl Fn() -> bool) -> Action {
    let going = |seen: &Seen| *seen != Seen::Solid;
    if !owners.iter().any(going) {
        return Action::Keep;
    }
    if owners.contains(&Seen::Solid) {
        let uids = index.owners.iter().zip(owners).filter(|(_, seen)| going(seen)).map(|(o, _)| o.uid.clone());
        return Action::DropReferences(uids.collect());
    }
    Action::Delete(if owners.contains(&Seen::Waiting) && has_dependents() {
        PropagationPolicy::Foreground
    } else if has(index, ORPHAN) {
        PropagationPolicy::Orphan
    } else if has(index, FOREGROUND) {
        PropagationPolicy::Foreground
    } else {
        PropagationPolicy::Background
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use api::object::Owner;

    fn object(owners: usize, finalizer: Option<&str>) -> ObjectIndex {
        let owner = |n: usize| Owner {
            api_version: "apps/v1".into(),
            kind: "ReplicaSet".into(),
            name: format!("o{n}").into(),
            uid: format!("u{n}").into(),
            controller: n == 0,
            block_owner_deletion: n == 0,
        };
        ObjectIndex {
            owners: (0..owners).map(owner).collect(),
            finalizers: finalizer.map(Into::into).into_iter().collect(),
            ..ObjectIndex::default()
        }
    }

    #[test]
    fn an_object_goes_when_no_owner_stays() {
        use Seen::{Absent, Solid, Waiting};
        let rows: [(&[Seen], Option<&str>, bool, &str); 9] = [
            (&[Solid], None, false, "Keep"),
            (&[Absent], None, false, "Delete(Background)"),
            (&[Absent], None, true, "Delete(Background)"),
            (&[Waiting], None, false, "Delete(Background)"),
            (&[Waiting], None, true, "Delete(Foreground)"),
            (&[Absent], Some(ORPHAN), false, "Delete(Orphan)"),
            (&[Absent], Some(FOREGROUND), false, "Delete(Foreground)"),
            (&[Absent, Solid], None, false, "DropReferences([\"u0\"])"),
            (&[Absent, Waiting], None, true, "Delete(Foreground)"),
        ];
        for (owners, finalizer, has_dependents, expected) in rows {
            let got = decide(&object(owners.len(), finalizer), owners, || has_dependents);
            assert_eq!(format!("{got:?}"), expected, "{owners:?} {finalizer:?} {has_dependents}");
        }
    }

    #[test]
    fn objects_that_wait_for_each_other_in_a_circle_do_not_block() {
        let waiting = |uid: &str, owner: &str| {
            let mut index = object(1, Some(FOREGROUND));
            index.uid = uid.into();
            index.deleting = true;
            index.owners[0].uid = owner.into();
            Arc::new(index)
        };
        let circle = [waiting("a", "c"), waiting("b", "a"), waiting("c", "b")];
        let of = |all: &[Arc<ObjectIndex>], uid: &str| -> Vec<_> {
            all.iter().filter(|d| blocks(d, uid)).cloned().collect()
        };
        assert!(is_circular("a", &circle[1], |uid| of(&circle, uid)));
        let chain = [waiting("b", "a"), waiting("c", "b")];
        assert!(!is_circular("a", &chain[0], |uid| of(&chain, uid)));
        // Before the last one waits too there is nothing to be released from.
        let mut open = circle.clone();
        Arc::make_mut(&mut open[2]).deleting = false;
        assert!(!is_circular("a", &open[1], |uid| of(&open, uid)));
    }

    #[test]
    fn only_references_that_say_so_block_their_owner() {
        assert!(blocks(&object(2, None), "u0"));
        assert!(!blocks(&object(2, None), "u1"));
    }
}
