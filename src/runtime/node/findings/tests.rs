use super::*;
use crate::contract::held::HeldContainer;

fn record(id: &str) -> ContainerRecord {
    ContainerRecord {
        id: id.to_owned(),
        sandbox_uid: "u".to_owned(),
        config: Default::default(),
        created_at_ns: 0,
        layer_dir: Default::default(),
        layers: vec![],
        defaults: Default::default(),
        bare: true,
    }
}

/// As an earlier release left it on the disk.
fn whole(id: &str) -> Reading<ContainerRecord> {
    Reading::There(ContainerRecord { bare: false, ..record(id) })
}

fn now(id: &str, pid: i32) -> ContainerNow {
    ContainerNow { id: id.to_owned(), pid, started_at_ns: 5, exit: None }
}

fn damaged<T>() -> Reading<T> {
    Reading::Damaged("damaged".to_owned())
}

fn exit() -> Exit {
    Exit { started_at_ns: Some(1), finished_at_ns: 2, code: 3, signal: None, oom_killed: false, error: None }
}

fn disk(sandbox: Reading<SandboxRecord>, containers: Vec<(&str, Reading<ContainerRecord>, Reading<Exit>)>) -> OnDisk {
    let containers = containers.into_iter();
    OnDisk {
        sandbox,
        containers: containers.map(|(id, record, exit)| (id.to_owned(), ContainerFiles { record, exit })).collect(),
    }
}

fn there() -> Reading<SandboxRecord> {
    Reading::There(placeholder("u"))
}

fn held(pid: i32) -> Told {
    let containers = vec![HeldContainer { record: record("a"), now: now("a", pid) }];
    Told::Records(Box::new(HeldRecords { sandbox: placeholder("u"), containers }))
}

/// In a line: the kind of finding, each container with its phase, what is healed and what is thrown away.
#[track_caller]
fn check(disk: OnDisk, told: Told, lives: bool, expected: &str) {
    let (kind, known) = match find(disk, told, lives) {
        Finding::Known(known) => ("known".to_owned(), known),
        Finding::Unknown { reason, known } => (format!("left alone, {reason}"), known),
        Finding::Nothing => ("nothing".to_owned(), Known::default()),
    };
    let phase = |phase: &Phase| match phase {
        Phase::Created => "created",
        Phase::Running { .. } => "running",
        Phase::Exited(_) => "exited",
        Phase::Lost => "lost",
    };
    let mut found = kind;
    for (id, (_, at)) in &known.containers {
        found += &format!("; {id} {}", phase(at));
    }
    if known.heal_sandbox || !known.heal.is_empty() {
        found += &format!("; healed: {} {:?}", known.heal_sandbox, known.heal);
    }
    if !known.unfinished.is_empty() {
        found += &format!("; removed: {:?}", known.unfinished);
    }
    assert_eq!(found, expected);
}

#[test]
fn a_shim_that_has_the_records_makes_up_for_the_disk() {
    use Reading::{Absent, There};
    for sandbox in [damaged, || Absent] {
        for container in [damaged, || Absent] {
            let files = disk(sandbox(), vec![("a", container(), Absent)]);
            check(files, held(7), false, "known; a running; healed: true [\"a\"]");
        }
        check(disk(sandbox(), vec![]), held(7), false, "known; a running; healed: true [\"a\"]");
    }
    check(disk(there(), vec![("a", There(record("a")), damaged())]), held(7), false, "known; a running");
    check(disk(there(), vec![("a", There(record("a")), Absent)]), held(0), false, "known; a created");
    // The shim knows nothing of them: they do not run.
    let files = vec![
        ("b", There(record("b")), Absent),
        ("c", There(record("c")), There(exit())),
        ("d", There(record("d")), damaged()),
        ("e", damaged(), Absent),
        ("f", Absent, Absent),
    ];
    let expected = "known; a running; b created; c exited; d lost; healed: false [\"a\"]; removed: [\"f\"]";
    check(disk(there(), files), held(7), false, expected);
}

#[test]
fn a_shim_of_the_first_protocol_is_believed_as_far_as_it_goes() {
    use Reading::{Absent, There};
    let state = || Told::State(vec![now("a", 7)]);
    check(disk(there(), vec![("a", There(record("a")), Absent)]), state(), false, "known; a running");
    check(disk(there(), vec![("a", damaged(), Absent)]), state(), false, "left alone, damaged");
    let missing = "left alone, the record of its container a is missing";
    check(disk(there(), vec![("a", Absent, Absent)]), state(), false, missing);
    check(disk(there(), vec![]), state(), false, missing);
    let files = disk(damaged(), vec![("a", There(record("a")), Absent), ("b", There(record("b")), There(exit()))]);
    check(files, state(), false, "left alone, damaged; a lost; b exited");
    check(disk(damaged(), vec![]), Told::State(vec![]), false, "nothing");
}

#[test]
fn secrets_go_from_the_disk_once_nobody_reads_them_there() {
    use Reading::{Absent, There};
    let files = || disk(there(), vec![("a", whole("a"), Absent), ("b", whole("b"), There(exit()))]);
    let all = "healed: false [\"a\", \"b\"]";
    check(files(), held(7), false, &format!("known; a running; b exited; {all}"));
    check(files(), held(0), false, &format!("known; a created; b exited; {all}"));
    check(files(), Told::State(vec![now("a", 7)]), false, &format!("known; a running; b exited; {all}"));
    check(files(), Told::Gone, false, &format!("known; a lost; b exited; {all}"));
    // A shim of the first protocol reads it at the start.
    check(files(), Told::State(vec![]), false, "known; a created; b exited; healed: false [\"b\"]");
    check(files(), Told::Unclear("late".to_owned()), false, "left alone, late; a lost; b exited");
}

#[test]
fn nothing_that_lives_is_taken_for_nothing() {
    use Reading::{Absent, There};
    check(disk(damaged(), vec![("a", There(record("a")), Absent)]), Told::Gone, false, "nothing");
    check(disk(damaged(), vec![("a", There(record("a")), Absent)]), Told::Gone, true, "left alone, damaged; a lost");
    check(disk(Absent, vec![]), Told::Gone, true, "left alone, its record is missing");
    // Its cgroup is known, so what is left of it is ended before anything is started.
    check(disk(there(), vec![("a", There(record("a")), Absent)]), Told::Gone, true, "known; a lost");
    check(disk(there(), vec![("a", damaged(), Absent)]), Told::Gone, false, "known");
    let unclear = || Told::Unclear("too many open files".to_owned());
    for lives in [false, true] {
        let files = vec![("a", There(record("a")), Absent), ("b", Absent, Absent)];
        check(disk(there(), files), unclear(), lives, "left alone, too many open files; a lost");
    }
}
