use super::limits::{cpu_weight, settings};
use super::*;

#[track_caller]
fn check(version: Version, resources: &Resources, expected: &[(&str, &str)]) {
    let found = settings(version, resources).into_iter().map(|(file, value)| (file.name, value)).collect::<Vec<_>>();
    let expected = expected.iter().map(|(name, value)| ((*name).to_owned(), (*value).to_owned())).collect::<Vec<_>>();
    assert_eq!(found, expected);
}

#[test]
fn limits_have_each_versions_names_and_scales() {
    let resources = Resources {
        cpu_shares: Some(512),
        cpu_quota_us: Some(50_000),
        cpu_period_us: Some(100_000),
        memory_limit_bytes: Some(134_217_728),
        pids_limit: Some(-1),
        hugepage_limits: [("2MB".to_owned(), 4_194_304)].into(),
    };
    check(
        Version::V1,
        &resources,
        &[
            ("cpu.shares", "512"),
            ("cpu.cfs_period_us", "100000"),
            ("cpu.cfs_quota_us", "50000"),
            ("memory.limit_in_bytes", "134217728"),
            ("pids.max", "max"),
            ("hugetlb.2MB.limit_in_bytes", "4194304"),
        ],
    );
    check(
        Version::V2,
        &resources,
        &[
            ("cpu.weight", "59"),
            ("cpu.max", "50000 100000"),
            ("memory.max", "134217728"),
            ("pids.max", "max"),
            ("hugetlb.2MB.max", "4194304"),
        ],
    );
}

#[test]
fn lifting_a_limit_writes_the_unlimited_value() {
    let resources = Resources { cpu_quota_us: Some(-1), memory_limit_bytes: Some(-1), ..Resources::default() };
    check(Version::V1, &resources, &[("cpu.cfs_quota_us", "-1"), ("memory.limit_in_bytes", "-1")]);
    check(Version::V2, &resources, &[("cpu.max", "max 100000"), ("memory.max", "max")]);
    check(Version::V2, &Resources::default(), &[]);
}

#[test]
fn the_root_is_never_ended() {
    for path in ["", "/", "//", "./"] {
        assert!(refuse_root(path).is_err(), "{path:?}");
    }
    assert!(refuse_root("/kubepods").is_ok());
}

#[test]
fn weights_span_the_whole_scale() {
    assert_eq!([2, 102, 1024, 262_144].map(cpu_weight), [1, 17, 100, 10_000]);
}

#[test]
fn counters_are_found_by_whole_name() {
    let events = "low 0\noom 3\noom_kill 2\noom_group_kill 1\n";
    assert_eq!(usage::keyed(events, "oom_kill"), Some(2));
    assert_eq!(usage::keyed(events, "oom_k"), None);
}
