//! Keeps the disk: evicts pods over their limits, removes unused images, and frees the disk when it runs
//! out. All of it takes as long as the disk takes, so it is a loop beside the one that posts the status.

use std::sync::Arc;

use tokio::time::MissedTickBehavior;

use super::image_gc::ImageGc;
use super::pressure::DiskRelief;
use super::{CHECK, limits};
use crate::kubelet::Kubelet;

pub(super) struct Housekeeper {
    kubelet: Arc<Kubelet>,
    images: ImageGc,
    relief: DiskRelief,
}

impl Housekeeper {
    pub(super) fn new(kubelet: Arc<Kubelet>) -> Self {
        Self { kubelet, images: ImageGc::default(), relief: DiskRelief::default() }
    }

    pub(super) async fn run(mut self) {
        let mut ticks = tokio::time::interval(CHECK);
        ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
        loop {
            ticks.tick().await;
            self.relief.relieve(&self.kubelet, &mut self.images).await;
            self.images.run_if_due(&self.kubelet).await;
            limits::enforce(&self.kubelet).await;
            self.kubelet.disk_walks.retain(&self.kubelet.pods.uids());
        }
    }
}
