//! Any sequence of operations gives what a map with a counter gives.

use std::collections::BTreeMap;

use proptest::prelude::*;

use super::fixtures::{COLLECTION, Text, delete, in_directory, listing, put, text, write};
use crate::{Durability, Expect, Storage, WriteError};

#[derive(Clone, Debug)]
enum Op {
    Create { item: u8, relaxed: bool },
    Update { item: u8, stale: bool, relaxed: bool },
    Delete { item: u8, stale: bool },
    Reopen,
}

fn op() -> impl Strategy<Value = Op> {
    prop_oneof![
        4 => (0..5u8, any::<bool>()).prop_map(|(item, relaxed)| Op::Create { item, relaxed }),
        6 => (0..5u8, prop::bool::weighted(0.2), any::<bool>())
            .prop_map(|(item, stale, relaxed)| Op::Update { item, stale, relaxed }),
        3 => (0..5u8, prop::bool::weighted(0.2)).prop_map(|(item, stale)| Op::Delete { item, stale }),
        1 => Just(Op::Reopen),
    ]
}

type State = BTreeMap<String, (u64, String)>;

struct Run {
    storage: Storage<Text>,
    directory: tempfile::TempDir,
    model: State,
    /// Each revision since the store was opened, with the state that it made.
    history: Vec<(u64, State)>,
    changes: Vec<(u64, String, bool)>,
    opened_at: u64,
    step: usize,
}

impl Run {
    async fn apply(&mut self, op: &Op) {
        self.step += 1;
        let (item, write_op, durability) = match op {
            Op::Reopen => return self.reopen().await,
            Op::Create { item, relaxed } => (item, put(&name(*item), Expect::Absent, &self.value()), class(*relaxed)),
            Op::Update { item, stale, relaxed } => {
                (item, put(&name(*item), self.expect(*item, *stale), &self.value()), class(*relaxed))
            }
            Op::Delete { item, stale } => (item, delete(&name(*item), self.expect(*item, *stale)), Durability::Strict),
        };
        let current = self.model.get(&name(*item)).cloned();
        let legal = match write_op.expect {
            Expect::Absent => current.is_none(),
            Expect::Revision(revision) => current.as_ref().is_some_and(|(r, _)| *r == revision),
            Expect::Present => current.is_some(),
        };
        let before = self.storage.revision();
        match write(&self.storage, write_op, durability).await {
            Ok(entry) => {
                assert!(legal, "{op:?} was done");
                assert!(entry.revision > before);
                let deleted = matches!(op, Op::Delete { .. });
                if deleted {
                    self.model.remove(&name(*item));
                } else {
                    self.model.insert(name(*item), (entry.revision, text(&entry)));
                }
                self.history.push((entry.revision, self.model.clone()));
                self.changes.push((entry.revision, name(*item), deleted));
            }
            Err(WriteError::Failed { current: seen, .. }) => {
                assert!(!legal, "{op:?} was refused");
                assert_eq!(seen.map(|e| (e.revision, text(&e))), current);
            }
            Err(other) => panic!("{op:?}: {other}"),
        }
    }

    fn value(&self) -> String {
        format!("{} step", self.step % 3)
    }

    fn expect(&self, item: u8, stale: bool) -> Expect {
        let revision = self.model.get(&name(item)).map_or(1, |(r, _)| *r);
        Expect::Revision(if stale { revision + 1_000_000 } else { revision })
    }

    async fn reopen(&mut self) {
        let last = self.storage.revision();
        self.storage.close().await.unwrap();
        self.storage = Storage::open(&in_directory(self.directory.path()), Text).unwrap();
        assert_eq!(self.storage.revision(), last, "an orderly close loses no revision");
        self.opened_at = last;
        self.history.clear();
        self.changes.clear();
    }

    fn check(&self) {
        let rows = |state: &State| -> Vec<_> {
            state.iter().map(|(item, (revision, text))| (item.clone(), *revision, text.clone())).collect()
        };
        assert_eq!(listing(&self.storage, None).unwrap(), rows(&self.model));
        for (revision, state) in &self.history {
            assert_eq!(listing(&self.storage, Some(*revision)).unwrap(), rows(state), "as of {revision}");
        }
        assert!(self.opened_at == 1 || listing(&self.storage, Some(self.opened_at - 1)).is_err());
        for word in ["0", "1", "2"] {
            let found: Vec<_> = self.storage.by_term(COLLECTION, word).iter().map(|e| e.key.item.to_string()).collect();
            let expected = self.model.iter().filter(|(_, (_, text))| text.starts_with(word));
            assert_eq!(found, expected.map(|(item, _)| item.clone()).collect::<Vec<_>>());
        }
        for (i, (revision, _, _)) in self.changes.iter().enumerate() {
            let events = self.storage.watch(COLLECTION, *revision).unwrap().ready().unwrap();
            let seen: Vec<_> = events.iter().map(|e| (e.revision(), e.entry.key.item.to_string(), e.deleted)).collect();
            assert_eq!(seen, self.changes[i + 1..]);
        }
    }
}

fn name(item: u8) -> String {
    format!("item{item}")
}

fn class(relaxed: bool) -> Durability {
    if relaxed { Durability::Relaxed } else { Durability::Strict }
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 24, failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn the_store_behaves_as_a_map_with_a_counter(ops in prop::collection::vec(op(), 1..40)) {
        let directory = tempfile::tempdir().unwrap();
        let runtime = tokio::runtime::Builder::new_current_thread().build().unwrap();
        runtime.block_on(async {
            let storage = Storage::open(&in_directory(directory.path()), Text).unwrap();
            let (model, history, changes) = Default::default();
            let mut run = Run { storage, directory, model, history, changes, opened_at: 1, step: 0 };
            for op in &ops {
                run.apply(op).await;
            }
            run.check();
            run.reopen().await;
            run.check();
        });
    }
}
