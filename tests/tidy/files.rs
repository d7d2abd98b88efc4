//! Files of a node's state are opened by `statefile`, which does not wait for a FIFO under their names and says what
//! is no file.

use std::collections::BTreeMap;

/// Where files of ours are read. What containers fill has rules of its own (`runtime::RootDir`).
const PLACES: [&str; 6] = [
    "src/appliance/",
    "src/storage/",
    "src/network/",
    "src/runtime/durable.rs",
    "src/runtime/image/",
    "src/runtime/seccomp/",
];
const CALLS: [&str; 4] = ["fs::read(", "fs::read_to_string(", "File::open(", "OpenOptions::new("];
/// What is not a file of ours: where, what, and what it is.
const EXEMPT: [(&str, &str, &str); 10] = [
    ("src/appliance/cli/check.rs", "read_to_string(v2)", "the kernel answers"),
    ("src/appliance/cli/check.rs", "root.join(\"proc/", "the kernel answers"),
    ("src/appliance/cli/check.rs", "\"lib/modules\"", "the system's"),
    ("src/appliance/datadir.rs", "File::open(data_dir)", "a directory, to make a removal durable"),
    ("src/appliance/memory.rs", "read_to_string(", "the kernel answers"),
    ("src/storage/disk/file.rs", "File::open(directory)", "a directory, to make a rename durable"),
    ("src/storage/marker.rs", "File::open(directory)", "a directory, to make a rename durable"),
    ("src/network/listeners/tables.rs", "proc_net.join(", "the kernel answers"),
    ("src/network/setting.rs", "Path::new(&path)", "the kernel answers"),
    ("src/runtime/durable.rs", "File::open(parent)", "a directory, to make a rename durable"),
];

/// Each place that opens a file by the standard library's means.
pub(crate) fn offenders(sources: &BTreeMap<String, String>) -> Vec<String> {
    let mut found = Vec::new();
    for (path, text) in sources {
        if !PLACES.iter().any(|place| path.starts_with(place)) || super::is_test_file(path) || path.contains("_tests/")
        {
            continue;
        }
        for (n, line) in super::without_tests(text).lines().enumerate() {
            let is_exempt = line.contains("\"/proc/")
                || EXEMPT.iter().any(|(file, call, _)| file == path && line.contains(call))
                || line.trim_start().starts_with("//");
            if !is_exempt && CALLS.iter().any(|call| line.contains(call)) {
                found.push(format!("{path}:{}: {}", n + 1, line.trim()));
            }
        }
    }
    found
}

#[test]
fn files_that_are_opened_otherwise_are_found() {
    let text = "fn a() {\n    std::fs::read(path);\n    statefile::read(path);\n    File::open(directory)?;\n}\n\n\
                #[cfg(test)]\nmod tests {\n    fs::read(path);\n}\n";
    let sources = ["src/storage/marker.rs", "src/kubelet/lib.rs"].map(|path| (path.to_owned(), text.to_owned()));
    assert_eq!(offenders(&sources.into()), ["src/storage/marker.rs:2: std::fs::read(path);"]);
}
