//! File systems may answer late or never, so the node's async code asks them only in the disk room.
//!
//! Text is enough to hold the rule: within a function that awaits, calls that reach a file system stand
//! in a closure that moves into the room, and so do calls of functions whose own bodies reach one.

use std::collections::{BTreeMap, BTreeSet};

/// Crates whose file work goes through the room.
const CRATES: [&str; 2] = ["src/kubelet/", "src/runtime/"];
/// A shim is a process of its own, without async code; only it may do as it likes.
const SHIM: &str = "src/runtime/shim/";
/// Calls that reach a file system.
const REACH: [&str; 32] = [
    "fs::",
    "statefile::close_tree(",
    "statefile::length(",
    "statefile::make_dir(",
    "statefile::new_file(",
    "statefile::open_file(",
    "statefile::open_or_make(",
    "statefile::read(",
    "statefile::read_optional(",
    "statefile::read_text(",
    "statefile::replace(",
    "File::open(",
    "File::options(",
    "OpenOptions::new(",
    "DirBuilder::new(",
    ".exists()",
    ".is_dir()",
    ".is_file()",
    ".metadata()",
    ".canonicalize()",
    "mount(",
    "umount2(",
    "statvfs(",
    "RootDir::open",
    "mkdirat(",
    "openat(",
    "read_dir(",
    "remove_tree(",
    "walk_tree(",
    "disk_usage(",
    "mount_points(",
    "to_socket_addrs(",
];
/// Calls that look like it and do not wait: who, what, why.
const EXEMPT: [(&str, &str, &str); 2] = [
    ("src/runtime/node/connection.rs", "packet::dial(", "a socket on the tmpfs of the run directory"),
    ("src/runtime/node/containers.rs", "new_id(", "random bytes never wait"),
];
/// What the kernel itself answers.
const KERNEL: [&str; 4] = ["\"/proc/", "\"/sys/", "/proc/{", "tokio::fs::"];

/// One function: its name, whether it awaits, and its text with the lines' numbers.
struct Function<'a> {
    name: &'a str,
    is_async: bool,
    lines: Vec<(usize, &'a str)>,
}

/// Functions by their indentation: rustfmt closes a body where its signature began.
fn functions(text: &str) -> Vec<Function<'_>> {
    let mut found = Vec::new();
    let lines: Vec<(usize, &str)> = text.lines().enumerate().map(|(n, line)| (n + 1, line)).collect();
    for (at, (_, line)) in lines.iter().enumerate() {
        let Some((before, after)) = line.split_once("fn ") else { continue };
        let head = before.trim();
        let is_head =
            head.split_whitespace().all(|w| w.starts_with("pub") || ["async", "const", "unsafe"].contains(&w));
        if !is_head || line.trim_start().starts_with("//") {
            continue;
        }
        let indent = line.len() - line.trim_start().len();
        let close = format!("{}}}", " ".repeat(indent));
        let body = if line.ends_with('}') { 1 } else { lines[at..].iter().position(|(_, l)| *l == close).unwrap_or(1) };
        let name = after.split(['(', '<']).next().unwrap_or_default();
        found.push(Function { name, is_async: head.contains("async"), lines: lines[at..at + body].to_vec() });
    }
    found
}

/// The lines that are not inside of a closure that moves elsewhere, nor comments.
fn on_the_spot<'a>(function: &Function<'a>) -> Vec<(usize, &'a str)> {
    let mut out = Vec::new();
    let mut depth = 0_i32;
    let mut inside = false;
    for &(n, line) in &function.lines {
        let code = line.split(" // ").next().unwrap_or_default();
        if code.trim_start().starts_with("//") {
            continue;
        }
        let change =
            |text: &str| text.chars().map(|c| i32::from("([{".contains(c)) - i32::from(")]}".contains(c))).sum::<i32>();
        if inside {
            depth += change(code);
            inside = depth > 0;
            continue;
        }
        match code.split_once("move |") {
            Some((before, closure)) => {
                out.push((n, before));
                depth = change(closure);
                inside = depth > 0;
            }
            None => out.push((n, code)),
        }
    }
    out
}

fn reaches(code: &str) -> bool {
    !KERNEL.iter().any(|k| code.contains(k)) && REACH.iter().any(|r| has_call(code, r))
}

/// A call by exactly that name, not by one that only ends so.
fn has_call(code: &str, call: &str) -> bool {
    code.match_indices(call).any(|(at, _)| {
        let before = code[..at].chars().next_back();
        call.starts_with('.') || !before.is_some_and(|c| c.is_alphanumeric() || c == '_' || c == '.')
    })
}

/// Blocking functions as others call them, `module::name(`, and in their own file, `name(` or `.name(`.
struct Blocking {
    by_module: BTreeSet<String>,
    by_file: BTreeMap<String, BTreeSet<String>>,
}

impl Blocking {
    fn calls(&self, path: &str, code: &str) -> bool {
        let own = self.by_file.get(path).into_iter().flatten();
        own.into_iter().any(|name| has_call(code, &format!("{name}(")) || code.contains(&format!("self.{name}(")))
            || self.by_module.iter().any(|call| code.contains(call.as_str()))
    }
}

fn blocking(sources: &BTreeMap<&str, &str>) -> Blocking {
    let mut known = Blocking { by_module: BTreeSet::new(), by_file: BTreeMap::new() };
    loop {
        let mut more = false;
        for (path, text) in sources {
            for function in functions(text).into_iter().filter(|f| !f.is_async) {
                let body = on_the_spot(&function)
                    .into_iter()
                    .skip(1)
                    .any(|(_, code)| reaches(code) || known.calls(path, code));
                if body && known.by_file.entry((*path).to_owned()).or_default().insert(function.name.to_owned()) {
                    let module = path.trim_end_matches("/mod.rs").trim_end_matches(".rs").rsplit('/').next();
                    known.by_module.insert(format!("{}::{}(", module.unwrap_or_default(), function.name));
                    more = true;
                }
            }
        }
        if !more {
            return known;
        }
    }
}

/// Each place that would hold a thread that serves.
pub(crate) fn offenders(sources: &BTreeMap<String, String>) -> Vec<String> {
    let ours: BTreeMap<&str, &str> = sources
        .iter()
        .filter(|(path, _)| CRATES.iter().any(|c| path.starts_with(c)) && !path.starts_with(SHIM))
        .filter(|(path, _)| !super::is_test_file(path) && !path.contains("/tests/"))
        .map(|(path, text)| (path.as_str(), text.split("\n#[cfg(test)]\nmod tests").next().unwrap_or_default()))
        .collect();
    let known = blocking(&ours);
    let mut found = Vec::new();
    for (path, text) in &ours {
        for (n, line) in text.lines().enumerate().filter(|(_, line)| line.contains("spawn_blocking(")) {
            found.push(format!("{path}:{}: {}", n + 1, line.trim()));
        }
        for function in functions(text).into_iter().filter(|f| f.is_async) {
            for (n, code) in on_the_spot(&function).into_iter().skip(1) {
                let exempt = EXEMPT.iter().any(|(file, call, _)| file == path && code.contains(call));
                if !exempt && (reaches(code) || known.calls(path, code)) {
                    found.push(format!("{path}:{n}: {}", code.trim()));
                }
            }
        }
    }
    found
}

#[test]
fn what_waits_for_a_file_system_is_found() {
    let file = "fn look(path: &Path) -> bool {\n    path.exists()\n}\n\nasync fn serve(path: &Path) {\n    \
                let it = path.is_dir();\n    look(path);\n    room.run(move || look(path)).await;\n    \
                room.run(move || {\n        look(path)\n    })\n    .await;\n    overlook(path);\n    \
                let text = fs::read_to_string(\"/proc/meminfo\");\n}\n";
    let other = "async fn serve(path: &Path) {\n    disk::look(path);\n}\n";
    let sources = [("src/kubelet/disk.rs", file), ("src/kubelet/other.rs", other)];
    let sources = sources.map(|(path, text)| (path.to_owned(), text.to_owned())).into();
    assert_eq!(
        offenders(&sources),
        [
            "src/kubelet/disk.rs:6: let it = path.is_dir();",
            "src/kubelet/disk.rs:7: look(path);",
            "src/kubelet/other.rs:2: disk::look(path);"
        ]
    );
}
