//! Images: where they come from, how they rest on disk.

pub(crate) mod archive;
mod clients;
pub(crate) mod config;
mod entries;
pub(crate) mod layer;
pub(crate) mod manifest;
pub(crate) mod pull;
pub(crate) mod reference;
pub(crate) mod registries;
mod registry;
pub(crate) mod room;
pub(crate) mod store;

/// Why an image could not be had. The kinds are those that the kubelet tells apart; the text is in
/// the words that users know from containerd.
#[derive(Clone, Debug, thiserror::Error)]
pub enum PullError {
    #[error("couldn't parse image name {reference:?}: {reason}")]
    InvalidName { reference: String, reason: String },
    #[error(
        "failed to pull and unpack image {reference:?}: failed to resolve reference {reference:?}: {reference}: not found"
    )]
    NotFound { reference: String },
    #[error(
        "failed to pull and unpack image {reference:?}: failed to resolve reference {reference:?}: pull access denied, \
         repository does not exist or may require authorization: {reason}"
    )]
    Unauthorized { reference: String, reason: String },
    #[error("failed to pull and unpack image {reference:?}: failed to resolve reference {reference:?}: {reason}")]
    Network { reference: String, reason: String },
    /// What arrived is not what was asked for, or cannot be put on disk.
    #[error("failed to pull and unpack image {reference:?}: {reason}")]
    Content { reference: String, reason: String },
}
