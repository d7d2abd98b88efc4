//! Images as the kubelet asks for them.

use std::collections::BTreeSet;
use std::path::Path;
use std::sync::Arc;

use super::{Runtime, blocking};
use crate::error::Result;
use crate::image::{PullError, archive};
use crate::types::{ImageStatus, RegistryAuth};

impl Runtime {
    /// Pulls an image unless exactly this one is there already.
    pub async fn pull_image(&self, reference: &str, auth: Option<RegistryAuth>) -> Result<ImageStatus, PullError> {
        self.puller.pull(&self.images, reference, auth.as_ref()).await
    }

    /// An image by id or name; `None` when it is not here.
    pub fn image_status(&self, reference: &str) -> Option<ImageStatus> {
        self.images.find(reference)
    }

    pub fn list_images(&self) -> Vec<ImageStatus> {
        self.images.list()
    }

    /// The ids of images that containers were made from.
    pub fn images_in_use(&self) -> BTreeSet<String> {
        let sandboxes = self.sandboxes.lock();
        let containers = sandboxes.values().flat_map(|sandbox| sandbox.containers.values());
        containers.map(|container| container.record.config.image_id.clone()).collect()
    }

    /// Removes an image with all its names, and the layers that nothing else needs. Idempotent.
    pub async fn remove_image(&self, reference: &str) -> Result<()> {
        let (images, reference, in_use) = (Arc::clone(&self.images), reference.to_owned(), self.layers_in_use());
        blocking(move || images.remove(&reference, &in_use).map(drop)).await
    }

    /// Imports all images of a tarball, as `docker save` or an OCI layout has them.
    pub async fn import_tarball(&self, path: &Path) -> Result<Vec<ImageStatus>, PullError> {
        let (images, path) = (Arc::clone(&self.images), path.to_owned());
        blocking(move || archive::import(&images, &path)).await
    }

    pub(super) fn layers_in_use(&self) -> BTreeSet<String> {
        let sandboxes = self.sandboxes.lock();
        let containers = sandboxes.values().flat_map(|sandbox| sandbox.containers.values());
        containers.flat_map(|container| container.record.layers.clone()).collect()
    }
}
