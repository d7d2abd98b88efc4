//! The project's rules that neither the compiler nor clippy knows. Each failure says what to do.

#![expect(clippy::unwrap_used, reason = "a test fails by panicking")]

use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::path::Path;
use std::process::Command;

/// Files longer than this without their tests hold more than one thought.
const FILE_LINES: usize = 800;

/// Which crates of ours each crate may use; ARCHITECTURE.md shows the same as a picture.
const ARROWS: [(&str, &[&str]); 15] = [
    ("api", &[]),
    ("storage", &[]),
    ("runtime", &[]),
    ("network", &[]),
    ("client", &["api"]),
    ("apiserver", &["api", "storage"]),
    ("controllers", &["api", "client"]),
    ("scheduler", &["api", "client"]),
    ("dns", &["api", "client"]),
    ("proxy", &["api", "client", "network"]),
    ("kubelet", &["api", "client", "network", "runtime"]),
    ("xtask", &["api"]),
    ("kload", &[]),
    (
        "appliance",
        &["api", "apiserver", "client", "controllers", "dns", "kubelet", "network", "proxy", "runtime", "scheduler"],
    ),
    ("coracle", &["appliance"]),
];

#[expect(clippy::disallowed_methods, reason = "the rules are about what git tracks and cargo sees")]
fn output(program: &str, args: &[&str]) -> String {
    let out = Command::new(program).args(args).current_dir(env!("CARGO_MANIFEST_DIR")).output().unwrap();
    assert!(out.status.success(), "{program} {args:?}: {}", String::from_utf8_lossy(&out.stderr));
    String::from_utf8(out.stdout).unwrap()
}

/// Tracked Rust files with their text, generated ones left out.
fn sources() -> BTreeMap<String, String> {
    output("git", &["ls-files", "--cached", "--others", "--exclude-standard", "*.rs"])
        .lines()
        .filter(|p| !p.ends_with("generated.rs"))
        .filter_map(|p| {
            let text = std::fs::read_to_string(Path::new(env!("CARGO_MANIFEST_DIR")).join(p)).ok()?;
            Some((p.to_owned(), text))
        })
        .collect()
}

fn is_test_file(path: &str) -> bool {
    path.starts_with("tests/") || path.contains("/tests/") || path.ends_with("tests.rs") || path.contains("/benches/")
}

/// The part of a file before its test module.
fn without_tests(text: &str) -> &str {
    text.find("\n#[cfg(test)]\nmod ").map_or(text, |at| &text[..at])
}

#[track_caller]
fn none(found: &[String], rule: &str) {
    assert!(found.is_empty(), "{rule}:\n  {}", found.join("\n  "));
}

#[test]
fn files_hold_one_thought() {
    let long = sources()
        .iter()
        .filter(|(path, _)| !is_test_file(path))
        .map(|(path, text)| (path, without_tests(text).lines().count()))
        .filter(|(_, n)| *n > FILE_LINES)
        .map(|(path, n)| format!("{path}: {n} lines"))
        .collect::<Vec<_>>();
    none(&long, "split these files");
}

#[test]
fn files_open_with_what_they_are() {
    let silent: Vec<String> = sources()
        .iter()
        .filter(|(path, text)| !text.starts_with("//!") && !text.starts_with("#!") && !is_test_file(path))
        .map(|(path, _)| path.clone())
        .collect();
    none(&silent, "begin these files with a //! paragraph");
}

#[test]
fn names_say_what_a_file_holds() {
    let vague = ["utils.rs", "util.rs", "helpers.rs", "helper.rs", "common.rs", "misc.rs"];
    let found: Vec<String> =
        sources().into_keys().filter(|p| vague.iter().any(|v| p.rsplit('/').next() == Some(v))).collect();
    none(&found, "name these files by what they hold");
}

#[test]
fn nothing_is_left_for_later() {
    // Written in two parts, so that this file does not accuse itself.
    let marks = [
        concat!("FIX", "ME"),
        concat!("XX", "X "),
        concat!("TO", "DO"),
        concat!("todo", "!("),
        concat!("unimplemented", "!("),
    ];
    let mut found = Vec::new();
    for (path, text) in sources() {
        for (n, line) in text.lines().enumerate() {
            if marks.iter().any(|m| line.contains(m)) {
                found.push(format!("{path}:{}: {}", n + 1, line.trim()));
            }
        }
    }
    none(&found, "finish this, or list it in docs/compatibility.md");
}

#[test]
fn lints_are_expected_not_allowed() {
    let mark = concat!("#[all", "ow(");
    let inner = concat!("#![all", "ow(");
    let mut found = Vec::new();
    for (path, text) in sources() {
        for (n, line) in text.lines().enumerate() {
            if line.trim_start().starts_with(mark) || line.trim_start().starts_with(inner) {
                found.push(format!("{path}:{}", n + 1));
            }
        }
    }
    none(&found, "write #[expect(lint, reason = \"…\")] on the one item");
}

#[test]
fn crates_use_only_what_their_layer_allows() {
    let metadata = output("cargo", &["metadata", "--no-deps", "--format-version=1", "--offline"]);
    let metadata: serde_json::Value = serde_json::from_str(&metadata).unwrap();
    let packages = metadata["packages"].as_array().unwrap();
    let ours: BTreeSet<&str> = packages.iter().filter_map(|p| p["name"].as_str()).collect();
    let allowed: HashMap<&str, &[&str]> = ARROWS.into_iter().collect();
    let mut found = Vec::new();
    for package in packages {
        let name = package["name"].as_str().unwrap();
        let Some(allowed) = allowed.get(name) else {
            found.push(format!("{name} is not in the table of arrows"));
            continue;
        };
        for dependency in package["dependencies"].as_array().unwrap() {
            let to = dependency["name"].as_str().unwrap();
            if ours.contains(to) && dependency["kind"].is_null() && !allowed.contains(&to) {
                found.push(format!("{name} -> {to}"));
            }
        }
    }
    none(&found, "these crates must not depend on each other");
}

/// The name that a `pub` item introduces, if the line does.
/// A dependency that no crate names, and one that a crate names without using it.
#[test]
fn dependencies_are_used() {
    let manifests: Vec<(String, String)> = output("git", &["ls-files", "Cargo.toml", "*/Cargo.toml"])
        .lines()
        .map(|path| {
            (path.to_owned(), std::fs::read_to_string(Path::new(env!("CARGO_MANIFEST_DIR")).join(path)).unwrap())
        })
        .collect();
    let sources = sources();
    let named = |manifest: &str| -> Vec<String> {
        manifest.lines().filter_map(|l| l.strip_suffix(".workspace = true")).map(ToOwned::to_owned).collect()
    };
    let root = &manifests.iter().find(|(path, _)| path == "Cargo.toml").unwrap().1;
    let (_, declared) = root.split_once("[workspace.dependencies]").unwrap();
    let (declared, _) = declared.split_once("\n[").unwrap();
    let everywhere: BTreeSet<String> = manifests.iter().flat_map(|(_, text)| named(text)).collect();
    let mut found: Vec<String> = declared
        .lines()
        .filter_map(|l| l.split_once(" = "))
        .filter(|(name, _)| !everywhere.contains(*name))
        .map(|(name, _)| format!("Cargo.toml: {name}"))
        .collect();
    for (path, text) in &manifests {
        let folder = path.strip_suffix("Cargo.toml").unwrap();
        let of_crate: Vec<&String> = sources
            .iter()
            .filter(|(file, _)| folder.is_empty() || file.starts_with(folder))
            .map(|(_, text)| text)
            .collect();
        for name in
            named(text).into_iter().filter(|name| !["version", "edition", "rust-version", "license"].contains(&&**name))
        {
            let path_in_code = name.replace('-', "_");
            // A word in a message is no use of a crate: it is named in a path, an attribute or an import.
            let is_used = |text: &str| {
                text.match_indices(&path_in_code).any(|(at, _)| {
                    let (before, after) = (&text[..at], &text[at + path_in_code.len()..]);
                    !before.ends_with(|c: char| c.is_alphanumeric() || c == '_')
                        && (after.starts_with("::")
                            || (before.ends_with("use ") && after.starts_with([';', ' ']))
                            || before.ends_with("#[")
                            || before.ends_with("#[from "))
                })
            };
            if !of_crate.iter().any(|text| is_used(text)) {
                found.push(format!("{path}: {name}"));
            }
        }
    }
    none(&found, "drop these dependencies");
}

fn public_name(line: &str) -> Option<&str> {
    let rest = line.trim_start().strip_prefix("pub ")?;
    let rest = rest.strip_prefix("async ").unwrap_or(rest);
    let rest = rest.strip_prefix("unsafe ").unwrap_or(rest);
    let rest = ["const fn ", "fn ", "struct ", "enum ", "trait ", "const ", "static ", "type "]
        .iter()
        .find_map(|k| rest.strip_prefix(k))?;
    let end = rest.find(|c: char| !c.is_alphanumeric() && c != '_')?;
    Some(&rest[..end])
}

#[test]
fn what_is_public_is_used() {
    let sources = sources();
    let mut count: HashMap<&str, usize> = HashMap::new();
    for text in sources.values() {
        for word in text.split(|c: char| !c.is_alphanumeric() && c != '_') {
            *count.entry(word).or_insert(0) += 1;
        }
    }
    let mut found = Vec::new();
    for (path, text) in &sources {
        for line in without_tests(text).lines() {
            if let Some(name) = public_name(line)
                && count.get(name) == Some(&1)
            {
                found.push(format!("{path}: {name}"));
            }
        }
    }
    none(&found, "nobody uses these: delete them");
}

#[test]
fn no_package_registry_is_named() {
    // Docker's default image registry is a behaviour of the product and so may be named.
    let hosts =
        [concat!("crates", ".io"), concat!("pypi", ".org"), concat!("npmjs", ".org"), concat!("deb.debian", ".org")];
    let mut found = Vec::new();
    for path in output("git", &["ls-files"]).lines().filter(|p| *p != "Cargo.lock") {
        let Ok(text) = std::fs::read_to_string(Path::new(env!("CARGO_MANIFEST_DIR")).join(path)) else { continue };
        if hosts.iter().any(|h| text.contains(h)) {
            found.push(path.to_owned());
        }
    }
    none(&found, "the ordinary clients know their registries; do not name them");
}
