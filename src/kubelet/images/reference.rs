//! The form of an image's name: `[registry[:port]/]path[:tag][@digest]`.

/// The name with `:latest` when it has neither tag nor digest; the error is the runtime's text.
pub(super) fn with_default_tag(name: &str) -> Result<String, String> {
    let fail = |why: &str| Err(format!("couldn't parse image name {name:?}: {why}"));
    let (rest, digest) = match name.split_once('@') {
        Some((rest, digest)) => (rest, Some(digest)),
        None => (name, None),
    };
    if digest.is_some_and(|d| !is_digest(d)) {
        return fail("invalid reference format");
    }
    let slash = rest.rfind('/').map_or(0, |at| at + 1);
    let (path, tag) = match rest[slash..].split_once(':') {
        Some((last, tag)) => (&rest[..slash + last.len()], Some(tag)),
        None => (rest, None),
    };
    if tag.is_some_and(|t| !is_tag(t)) {
        return fail("invalid reference format");
    }
    let mut parts = path.split('/');
    if let Some(first) = parts.clone().next()
        && path.contains('/')
        && is_registry(first)
    {
        parts.next();
    }
    for part in parts {
        if !is_path_part(part) {
            let lower = part.to_lowercase();
            return if lower != part && is_path_part(&lower) {
                fail(&format!("invalid reference format: repository name ({path}) must be lowercase"))
            } else {
                fail("invalid reference format")
            };
        }
    }
    Ok(if tag.is_none() && digest.is_none() { format!("{name}:latest") } else { name.to_owned() })
}

/// The registry that a name speaks of; names without one mean Docker Hub.
pub(super) fn registry_and_path(name: &str) -> (&str, &str) {
    match name.split_once('/') {
        Some((first, rest)) if is_registry(first) => (first, rest),
        _ => ("docker.io", name),
    }
}

fn is_registry(part: &str) -> bool {
    part.contains(['.', ':']) || part == "localhost" || part.chars().any(|c| c.is_ascii_uppercase())
}

fn is_path_part(part: &str) -> bool {
    let edge = |c: Option<char>| c.is_some_and(|c| c.is_ascii_lowercase() || c.is_ascii_digit());
    let inner = part.chars().all(|c| c.is_ascii_lowercase() || c.is_ascii_digit() || "._-".contains(c));
    let separators = !part.contains("..") && !part.contains("___") && !part.contains("._") && !part.contains("_.");
    edge(part.chars().next()) && edge(part.chars().last()) && inner && separators
}

fn is_tag(tag: &str) -> bool {
    let first = tag.chars().next().is_some_and(|c| c.is_ascii_alphanumeric() || c == '_');
    first && tag.len() <= 128 && tag.chars().all(|c| c.is_ascii_alphanumeric() || "._-".contains(c))
}

fn is_digest(digest: &str) -> bool {
    digest.split_once(':').is_some_and(|(algorithm, hex)| {
        !algorithm.is_empty() && hex.len() >= 32 && hex.chars().all(|c| c.is_ascii_hexdigit())
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_get_a_tag_or_are_refused() {
        let digest = format!("nginx@sha256:{}", "a".repeat(64));
        for (name, expected) in [
            ("nginx", Ok("nginx:latest")),
            ("nginx:1.27", Ok("nginx:1.27")),
            (digest.as_str(), Ok(digest.as_str())),
            ("localhost:5000/a/b", Ok("localhost:5000/a/b:latest")),
            ("ghcr.io/x/y:v1", Ok("ghcr.io/x/y:v1")),
            ("library/Nginx", Err("repository name (library/Nginx) must be lowercase")),
            ("nginx:", Err("invalid reference format")),
            ("", Err("invalid reference format")),
            ("a//b", Err("invalid reference format")),
            ("nginx@sha256:zz", Err("invalid reference format")),
            ("in valid", Err("invalid reference format")),
        ] {
            match (with_default_tag(name), expected) {
                (Ok(got), Ok(expected)) => assert_eq!(got, expected),
                (Err(got), Err(expected)) => assert!(got.ends_with(expected), "{name}: {got}"),
                (got, _) => panic!("{name}: {got:?}"),
            }
        }
    }
}
