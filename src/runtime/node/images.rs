//! Images as the kubelet asks for them.

use std::collections::BTreeSet;
use std::fs;
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use super::Runtime;
use crate::disk::Lane;
use crate::error::{Error, IoContext, Result};
use crate::image::{PullError, archive};
use crate::sys::mount;
use crate::types::{ImageStatus, RegistryAuth};

/// A tarball of gigabytes from a slow stick.
const IMPORT_DEADLINE: Duration = Duration::from_secs(3600);

impl Runtime {
    /// Pulls an image unless exactly this one is there already.
    pub async fn pull_image(&self, reference: &str, auth: Option<RegistryAuth>) -> Result<ImageStatus, PullError> {
        let (puller, images, name) = (Arc::clone(&self.puller), Arc::clone(&self.images), reference.to_owned());
        let pull = async move { puller.pull(&images, &name, auth.as_ref()).await };
        self.pulls.run(pull).await.unwrap_or_else(|error| {
            Err(PullError::Content { reference: reference.to_owned(), reason: format!("start a thread: {error}") })
        })
    }

    /// An image by id or name; `None` when it is not here.
    pub fn image_status(&self, reference: &str) -> Option<ImageStatus> {
        self.images.find(reference)
    }

    pub fn list_images(&self) -> Vec<ImageStatus> {
        self.images.list()
    }

    /// The ids of images that containers were made from, or that are mounted.
    ///
    /// # Errors
    /// When the table of mounts cannot be read.
    pub fn images_in_use(&self) -> Result<BTreeSet<String>> {
        let mounted = mounted_layers()?;
        let images = self.images.list().into_iter().map(|image| image.id);
        let shown = images.filter(|id| {
            let layers = self.images.get(id).map(|image| image.layer_names()).unwrap_or_default();
            mounted.iter().any(|overlay| mount::shows(overlay, &layers))
        });
        let mut in_use: BTreeSet<String> = shown.collect();
        let sandboxes = self.sandboxes.lock();
        let containers = sandboxes.values().flat_map(|sandbox| sandbox.containers.values());
        in_use.extend(containers.map(|container| container.record.config.image_id.clone()));
        Ok(in_use)
    }

    /// Keeps these images from now on, whether or not anything uses them, and no others.
    pub fn pin_images(&self, ids: BTreeSet<String>) {
        *self.pinned.lock() = ids;
    }

    /// The ids of images that are not to be removed for want of space.
    pub fn pinned_images(&self) -> BTreeSet<String> {
        self.pinned.lock().clone()
    }

    /// Shows an image's files, for reading only, at the empty directory `target`, until it is unmounted.
    pub async fn mount_image(&self, id: &str, target: &Path) -> Result<()> {
        let image = self.images.get(id).ok_or_else(|| Error::ImageNotFound(id.to_owned()))?;
        let (images, target) = (Arc::clone(&self.images), target.to_owned());
        self.blocking("", move || {
            mount::mount_layers(images.layer_dir(), &image.layer_names(), &target).at("mount an image at", &target)
        })
        .await
    }

    /// Removes an image with all its names, and the layers that nothing else needs. Idempotent.
    pub async fn remove_image(&self, reference: &str) -> Result<()> {
        let (images, reference, in_use) = (Arc::clone(&self.images), reference.to_owned(), self.layers_in_use().await?);
        self.blocking("", move || images.remove(&reference, &in_use).map(drop)).await
    }

    /// Imports all images of a tarball, as `docker save` or an OCI layout has them.
    pub async fn import_tarball(&self, path: &Path) -> Result<Vec<ImageStatus>, PullError> {
        let (images, path) = (Arc::clone(&self.images), path.to_owned());
        let named = path.display().to_string();
        self.disk.run(Lane::Images, "", IMPORT_DEADLINE, move || archive::import(&images, &path)).await.map_err(
            |error| {
                let reason = error.to_string();
                PullError::Content { reference: named, reason }
            },
        )?
    }

    /// All that there are, as long as a pod is left alone whose containers nobody knows.
    pub(super) async fn layers_in_use(&self) -> Result<BTreeSet<String>> {
        if self.sandboxes.lock().values().any(|sandbox| sandbox.unknown.is_some()) {
            let images = Arc::clone(&self.images);
            return self.blocking("", move || images.all_layers()).await;
        }
        let sandboxes = self.sandboxes.lock();
        let containers = sandboxes.values().flat_map(|sandbox| sandbox.containers.values());
        let of_containers = containers.flat_map(|container| container.record.layers.clone());
        Ok(of_containers.chain(mounted_layers()?.concat()).collect())
    }
}

/// Mounted images are found in the kernel's table: they outlive the daemon.
fn mounted_layers() -> Result<Vec<Vec<String>>> {
    // It is there, but there may be no descriptor left to open it with: then nothing would seem to be in use.
    let table = fs::read_to_string("/proc/self/mountinfo").at("read", Path::new("the table of mounts"))?;
    Ok(mount::overlays(&table))
}
