//! Image names as users write them, and the one form in which they are kept.
//!
//! The grammar and the texts of refusals are those of the distribution project's references, which
//! upstream's kubelet uses. It is written out because the crate that has it compiles a regular
//! expression for it that stays in memory with 7 MB, a third of what a busy node's server occupies.

use oci_spec::distribution::Reference;

use super::PullError;

const DEFAULT_REGISTRY: &str = "docker.io";
const LEGACY_REGISTRY: &str = "index.docker.io";
/// Where the default registry keeps what has a bare name.
const OFFICIAL: &str = "library";
const DEFAULT_TAG: &str = "latest";
/// Of registry and repository together.
const LONGEST_NAME: usize = 255;
const LONGEST_TAG: usize = 128;
/// Hexadecimal digits of any digest at all.
const SHORTEST_DIGEST: usize = 32;

/// Why a name is none.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
enum Fault {
    #[error("invalid reference format")]
    Format,
    #[error("invalid reference format: repository name ({0}) must be lowercase")]
    Uppercase(String),
    #[error("invalid repository name ({0}), cannot specify 64-byte hexadecimal strings")]
    Identifier(String),
    #[error("repository name must have at least one component")]
    Empty,
    #[error("repository name must not be more than {LONGEST_NAME} characters")]
    TooLong,
    #[error("unsupported digest algorithm")]
    Algorithm,
    #[error("invalid checksum digest length")]
    DigestLength,
    #[error("invalid checksum digest format")]
    DigestFormat,
}

/// Completes a name: registry `docker.io`, `library/` before a bare name there, tag `latest`. A name
/// with both tag and digest means the digest.
pub(crate) fn parse(name: &str) -> Result<Reference, PullError> {
    read(name).map_err(|fault| PullError::InvalidName { reference: name.to_owned(), reason: fault.to_string() })
}

fn read(name: &str) -> Result<Reference, Fault> {
    if name.is_empty() {
        return Err(Fault::Empty);
    }
    if name.len() == 64 && is_lower_hex(name) {
        return Err(Fault::Identifier(name.to_owned()));
    }
    let (registry, rest) = split_registry(name);
    let (named, digest) = match rest.split_once('@') {
        Some((named, digest)) => (named, Some(digest)),
        None => (rest, None),
    };
    let (path, tag) = match named.split_once(':') {
        Some((path, tag)) => (path, Some(tag)),
        None => (named, None),
    };
    let is_bare = registry == DEFAULT_REGISTRY && !path.contains('/');
    let repository = if is_bare { format!("{OFFICIAL}/{path}") } else { path.to_owned() };
    if path.chars().any(char::is_uppercase) {
        return Err(Fault::Uppercase(repository));
    }
    let is_well_formed = is_registry(registry)
        && path.split('/').all(is_path_component)
        && tag.is_none_or(is_tag)
        && digest.is_none_or(is_digest);
    if !is_well_formed {
        return Err(Fault::Format);
    }
    if registry.len() + 1 + repository.len() > LONGEST_NAME {
        return Err(Fault::TooLong);
    }
    Ok(match digest {
        Some(digest) => {
            check_digest(digest)?;
            Reference::with_digest(registry.to_owned(), repository, digest.to_owned())
        }
        None => Reference::with_tag(registry.to_owned(), repository, tag.unwrap_or(DEFAULT_TAG).to_owned()),
    })
}

/// The registry of a name and the rest: what stands before the first slash is one if it looks like a
/// host, as a part of a repository's name never does.
fn split_registry(name: &str) -> (&str, &str) {
    match name.split_once('/') {
        Some((LEGACY_REGISTRY, rest)) => (DEFAULT_REGISTRY, rest),
        Some((first, rest))
            if first == "localhost" || first.contains(['.', ':']) || first.chars().any(char::is_uppercase) =>
        {
            (first, rest)
        }
        Some(_) | None => (DEFAULT_REGISTRY, name),
    }
}

/// A host name or address, perhaps with a port.
fn is_registry(text: &str) -> bool {
    let is_port = |port: &str| !port.is_empty() && port.bytes().all(|b| b.is_ascii_digit());
    if let Some(rest) = text.strip_prefix('[') {
        let Some((address, port)) = rest.split_once(']') else { return false };
        let is_address = !address.is_empty() && address.bytes().all(|b| b.is_ascii_hexdigit() || b == b':');
        return is_address && (port.is_empty() || port.strip_prefix(':').is_some_and(is_port));
    }
    let (host, port) = text.split_once(':').map_or((text, None), |(host, port)| (host, Some(port)));
    let is_label = |label: &str| {
        !label.is_empty()
            && !label.starts_with('-')
            && !label.ends_with('-')
            && label.bytes().all(|b| b.is_ascii_alphanumeric() || b == b'-')
    };
    host.split('.').all(is_label) && port.is_none_or(is_port)
}

/// Lower-case letters and digits, with separators between them: a dot, one or two underscores, or any
/// number of hyphens.
fn is_path_component(text: &str) -> bool {
    let is_plain = |c: char| c.is_ascii_lowercase() || c.is_ascii_digit();
    let separators = text.split(is_plain).filter(|between| !between.is_empty());
    text.starts_with(is_plain)
        && text.ends_with(is_plain)
        && separators.into_iter().all(|s| matches!(s, "." | "_" | "__") || s.bytes().all(|b| b == b'-'))
}

fn is_tag(text: &str) -> bool {
    let is_word = |b: u8| b.is_ascii_alphanumeric() || b == b'_';
    text.len() <= LONGEST_TAG
        && text.bytes().next().is_some_and(is_word)
        && text.bytes().all(|b| is_word(b) || matches!(b, b'.' | b'-'))
}

/// An algorithm of any name, and enough hexadecimal digits.
fn is_digest(text: &str) -> bool {
    let Some((algorithm, hex)) = text.split_once(':') else { return false };
    let is_component = |part: &str| {
        part.starts_with(|c: char| c.is_ascii_alphabetic()) && part.bytes().all(|b| b.is_ascii_alphanumeric())
    };
    algorithm.split(['-', '_', '+', '.']).all(is_component)
        && hex.len() >= SHORTEST_DIGEST
        && hex.bytes().all(|b| b.is_ascii_hexdigit())
}

fn check_digest(digest: &str) -> Result<(), Fault> {
    let (algorithm, hex) = digest.split_once(':').ok_or(Fault::Format)?;
    let length = match algorithm {
        "sha256" => 64,
        "sha384" => 96,
        "sha512" => 128,
        _ => return Err(Fault::Algorithm),
    };
    if hex.len() != length {
        return Err(Fault::DigestLength);
    }
    if is_lower_hex(hex) { Ok(()) } else { Err(Fault::DigestFormat) }
}

fn is_lower_hex(text: &str) -> bool {
    text.bytes().all(|b| matches!(b, b'0'..=b'9' | b'a'..=b'f'))
}

/// The name under which an image is found again by its manifest's digest.
pub(crate) fn by_digest(reference: &Reference, digest: &str) -> String {
    format!("{}/{}@{digest}", reference.registry(), reference.repository())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_are_completed() {
        let digest = format!("sha256:{}", "a".repeat(64));
        for (name, expected) in [
            ("nginx", "docker.io/library/nginx:latest".to_owned()),
            ("nginx:alpine", "docker.io/library/nginx:alpine".to_owned()),
            ("me/app:1", "docker.io/me/app:1".to_owned()),
            ("docker.io/app", "docker.io/library/app:latest".to_owned()),
            ("index.docker.io/me/app", "docker.io/me/app:latest".to_owned()),
            ("localhost/app", "localhost/app:latest".to_owned()),
            ("localhost:5000/app", "localhost:5000/app:latest".to_owned()),
            ("[fd00::1]:5000/app", "[fd00::1]:5000/app:latest".to_owned()),
            ("Host/app", "Host/app:latest".to_owned()),
            ("registry.example/a/b/c:v1", "registry.example/a/b/c:v1".to_owned()),
            ("a__b/c-----d.e_f:_V.1-x", "docker.io/a__b/c-----d.e_f:_V.1-x".to_owned()),
            (&format!("nginx:1@{digest}"), format!("docker.io/library/nginx@{digest}")),
            (&format!("10.0.0.1:80/x@{digest}"), format!("10.0.0.1:80/x@{digest}")),
        ] {
            assert_eq!(parse(name).unwrap().to_string(), expected, "{name}");
        }
    }

    #[test]
    fn what_is_no_name_is_refused_with_the_reason() {
        let format = "invalid reference format";
        let short = format!("nginx@sha256:{}", "a".repeat(63));
        let upper = format!("nginx@sha256:{}", "A".repeat(64));
        let unknown = format!("nginx@md5:{}", "a".repeat(32));
        let hex = "b".repeat(64);
        let long = format!("registry.example/{}", "a/".repeat(120) + "b");
        let tag = format!("nginx:{}", "t".repeat(129));
        for (name, expected) in [
            ("", "repository name must have at least one component"),
            ("Nginx", "invalid reference format: repository name (library/Nginx) must be lowercase"),
            ("me/App:1", "invalid reference format: repository name (me/App) must be lowercase"),
            ("not a name", format),
            (" nginx", format),
            ("nginx:", format),
            ("nginx:a:b", format),
            (":1", format),
            ("nginx:-1", format),
            (&tag, format),
            ("a//b", format),
            ("a..b", format),
            ("a___b", format),
            ("a._b", format),
            ("-a", format),
            ("a-", format),
            ("host.example:/a", format),
            ("host.example:x/a", format),
            ("-host.example/a", format),
            ("[::1/a", format),
            ("nginx@sha256", format),
            ("nginx@sha256:abc", format),
            ("nginx:é", format),
            (&short, "invalid checksum digest length"),
            (&upper, "invalid checksum digest format"),
            (&unknown, "unsupported digest algorithm"),
            (&hex, &format!("invalid repository name ({hex}), cannot specify 64-byte hexadecimal strings")),
            (&long, "repository name must not be more than 255 characters"),
        ] {
            let error = parse(name).unwrap_err().to_string();
            assert_eq!(error, format!("couldn't parse image name {name:?}: {expected}"));
        }
    }
}
