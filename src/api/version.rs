//! The version of Kubernetes that this release speaks, as `/version` and nodes report it.

/// Upstream's version with our own build number as semver build metadata.
pub const GIT_VERSION: &str = "v1.36.2+coracle.1";
