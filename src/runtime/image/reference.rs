//! Image names as users write them, and the one form in which they are kept.

use oci_client::Reference;

use super::PullError;

/// Completes a name: registry `docker.io`, `library/` before a bare name there, tag `latest`. A name
/// with both tag and digest means the digest.
pub(crate) fn parse(name: &str) -> Result<Reference, PullError> {
    let invalid = |reason: &dyn std::fmt::Display| PullError::InvalidName {
        reference: name.to_owned(),
        reason: format!("invalid reference format: {reason}"),
    };
    let reference = name.parse::<Reference>().map_err(|error| invalid(&error))?;
    match reference.digest() {
        Some(digest) => Ok(Reference::with_digest(
            reference.registry().to_owned(),
            reference.repository().to_owned(),
            digest.to_owned(),
        )),
        None => Ok(reference),
    }
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
            ("localhost:5000/app", "localhost:5000/app:latest".to_owned()),
            ("registry.example/a/b/c:v1", "registry.example/a/b/c:v1".to_owned()),
            (&format!("nginx:1@{digest}"), format!("docker.io/library/nginx@{digest}")),
        ] {
            assert_eq!(parse(name).unwrap().to_string(), expected, "{name}");
        }
        let error = parse("Not A Name").unwrap_err().to_string();
        assert!(error.starts_with("couldn't parse image name \"Not A Name\": invalid reference format"), "{error}");
    }
}
