//! Finalizers that keep an object while something uses it: upstream's protection utilities.

use api::object::{Object, ObjectIndex};
use client::{Kind, Writes, status};
use kube::ResourceExt;

/// What is to be done about the finalizer.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Step {
    Keep,
    Add,
    Remove,
}

/// Decides for one object; whether it is in use is asked only of one that is being deleted.
pub(crate) fn step(index: &ObjectIndex, finalizer: &str, in_use: impl FnOnce() -> bool) -> Step {
    let has = index.finalizers.iter().any(|f| **f == *finalizer);
    match (index.deleting, has) {
        (false, false) => Step::Add,
        (true, true) if !in_use() => Step::Remove,
        (true | false, true) | (true, false) => Step::Keep,
    }
}

/// Writes the object as the step asks. Somebody else's write in between leads to a round of its own.
pub(crate) async fn apply<K: Kind>(w: &Writes, object: &Object, finalizer: &str, step: Step) -> kube::Result<()> {
    if step == Step::Keep {
        return Ok(());
    }
    let mut typed: K = object.decode().map_err(kube::Error::SerdeError)?;
    let finalizers = typed.finalizers_mut();
    finalizers.retain(|f| f != finalizer);
    if step == Step::Add {
        finalizers.push(finalizer.to_owned());
    }
    match w.update(&typed).await {
        Err(e) if !status::is_not_found(&e) && !status::is_conflict(&e) => Err(e),
        Ok(_) | Err(_) => Ok(()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_object_is_let_go_when_it_is_deleted_and_nothing_uses_it() {
        #[track_caller]
        fn check(deleting: bool, finalizers: &[&str], used: bool, expected: Step) {
            let finalizers = finalizers.iter().map(|f| (*f).into()).collect();
            let index = ObjectIndex { deleting, finalizers, ..ObjectIndex::default() };
            assert_eq!(step(&index, "p", || used), expected, "{index:?} {used}");
        }
        check(false, &["p"], false, Step::Keep);
        check(false, &["other"], true, Step::Add);
        check(true, &["other", "p"], true, Step::Keep);
        check(true, &["other", "p"], false, Step::Remove);
        check(true, &["other"], false, Step::Keep);
    }
}
