//! Forms that releases have written: each stays readable, and none changes without a new version.

use std::path::Path;

use serde::Serialize;
use serde::de::DeserializeOwned;

use super::protocol::{Call, Message};
use super::records::{ContainerRecord, Exit, SandboxRecord, SandboxVerdict, Stopping};
use crate::durable::{Record, encode, open};

/// Decodes the forms of all versions; the newest has to come out as it is written today.
#[track_caller]
pub(crate) fn check<T: Record>(forms: &[&str]) -> Vec<T> {
    assert_eq!(forms.len(), T::VERSION as usize, "a golden file for each version");
    let read = |text: &&str| open::<T>(Path::new("golden"), text.trim().as_bytes()).unwrap();
    let records = forms.iter().map(read).collect::<Vec<_>>();
    let written = encode(records.last().unwrap());
    // The first versions came before the stamp.
    let written = written.replacen("\"version\":1,", "", 1);
    assert_eq!(written, forms.last().unwrap().trim(), "a changed form takes a new version and a golden file");
    let sealed = statefile::seal(&encode(records.last().unwrap()));
    assert_eq!(encode(&open::<T>(Path::new("sealed"), &sealed).unwrap()), encode(records.last().unwrap()));
    records
}

#[test]
fn sandboxes() {
    let records = check::<SandboxRecord>(&[include_str!("golden/sandbox-1.json")]);
    for SandboxRecord { config, created_at_ns, .. } in records {
        assert_eq!(
            (config.name.as_str(), config.namespace.as_str(), created_at_ns),
            ("web-0", "default", 1_796_027_373_375_350_014)
        );
        assert_eq!(config.cgroup_parent, "kubepods/burstable/pod0b9a6d6e-8f0f-4ad5-9d2c-3c1f2f0f6a01");
        assert_eq!(config.labels["io.coracle.sandbox.attempt"], "0");
    }
}

#[test]
fn containers() {
    let forms = [include_str!("golden/container-1.json"), include_str!("golden/container-2.json")];
    let records = check::<ContainerRecord>(&forms);
    for record in &records {
        assert!(record.id.starts_with("6c63878071ba"));
        assert_eq!(
            (record.config.name.as_str(), record.layers.as_slice()),
            ("main", &["a488e66aa9372177a63b2705".to_owned()][..])
        );
        assert_eq!(record.config.stop_signal.as_deref(), Some("SIGQUIT"));
    }
    assert_eq!(records.iter().map(|record| record.defaults.volumes.len()).collect::<Vec<_>>(), [0, 1]);
}

#[test]
fn requests_to_end() {
    let since = std::time::Duration::new(4711, 375_350_014);
    assert_eq!(check::<Stopping>(&[include_str!("golden/stopping-1.json")])[0], Stopping { since });
}

#[test]
fn verdicts() {
    let words = r#"{"reason":"Evicted"}"#.to_owned();
    assert_eq!(check::<SandboxVerdict>(&[include_str!("golden/verdict-1.json")])[0], SandboxVerdict { words });
}

#[test]
fn exits() {
    assert_eq!(check::<Exit>(&[include_str!("golden/exit-1.json")])[0].code, 3);
}

/// Each line means something and is said today as it was then.
#[track_caller]
fn check_lines<T: Serialize + DeserializeOwned>(lines: &str) {
    for line in lines.lines() {
        let value = serde_json::from_str::<T>(line).unwrap();
        assert_eq!(serde_json::to_string(&value).unwrap(), line);
    }
}

#[test]
fn words_between_daemon_and_shim() {
    check_lines::<Call>(concat!(include_str!("golden/calls-1.jsonl"), include_str!("golden/calls-2.jsonl")));
    for (lines, version) in [(include_str!("golden/calls-1.jsonl"), 1), (include_str!("golden/calls-2.jsonl"), 2)] {
        let calls = lines.lines().map(|line| serde_json::from_str::<Call>(line).unwrap());
        calls.for_each(|call| assert!(call.request.since() <= version, "{call:?}"));
    }
    check_lines::<Message>(concat!(include_str!("golden/messages-1.jsonl"), include_str!("golden/messages-2.jsonl")));
}
