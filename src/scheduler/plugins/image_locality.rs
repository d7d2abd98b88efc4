//! Nodes that have the pod's images are liked better, the more the larger the images.

use std::collections::HashMap;

use api::k8s_openapi::api::core::v1::PodSpec;

use crate::framework::{Candidate, MAX_SCORE, Score, View};

const MIN_SIZE: i64 = 23 * 1024 * 1024;
/// For one container.
const MAX_SIZE: i64 = 1000 * 1024 * 1024;

pub(crate) struct ImageLocality {
    /// Each image with the share of nodes, in thousandths, that have it: what is everywhere pulls
    /// no pod anywhere.
    images: HashMap<String, i64>,
    containers: i64,
}

impl ImageLocality {
    pub(crate) fn new(spec: &PodSpec, view: View<'_>) -> Self {
        let containers = spec.init_containers.iter().flatten().chain(&spec.containers);
        let names: Vec<String> = containers.filter_map(|c| c.image.as_deref()).map(normalized).collect();
        let total = view.cache.nodes().count().max(1);
        let share = |name: &str| {
            let having = view.cache.nodes().filter(|(node, _)| node.images.contains_key(name)).count();
            i64::try_from(having * 1000 / total).unwrap_or(0)
        };
        let containers = i64::try_from(names.len()).unwrap_or(1).max(1);
        let images = names.into_iter().map(|n| (n.clone(), share(&n))).collect();
        Self { images, containers }
    }
}

impl Score for ImageLocality {
    fn weight(&self) -> i64 {
        1
    }

    fn score(&self, candidate: Candidate<'_>) -> i64 {
        let present = self
            .images
            .iter()
            .filter_map(|(name, share)| candidate.node.images.get(name.as_str()).map(|size| size * share / 1000));
        let sum: i64 = present.sum();
        let max = MAX_SIZE * self.containers;
        (sum.clamp(MIN_SIZE, max) - MIN_SIZE) * MAX_SCORE / (max - MIN_SIZE)
    }

    fn normalize(&self, _scores: &mut [i64]) {}
}

/// Nodes report images with a registry and a tag.
fn normalized(image: &str) -> String {
    let (path, tagged) = match image.rfind(':') {
        Some(colon) if !image[colon..].contains('/') => (&image[..colon], true),
        _ => (image, image.contains('@')),
    };
    let first = path.split('/').next().unwrap_or("");
    let has_registry = path.contains('/') && (first.contains('.') || first.contains(':') || first == "localhost");
    let prefix = match (has_registry, path.contains('/')) {
        (true, _) => "",
        (false, true) => "docker.io/",
        (false, false) => "docker.io/library/",
    };
    format!("{prefix}{image}{}", if tagged { "" } else { ":latest" })
}

#[cfg(test)]
mod tests {
    use super::normalized;

    #[test]
    fn names_are_completed_as_nodes_report_them() {
        for (given, expected) in [
            ("nginx", "docker.io/library/nginx:latest"),
            ("nginx:alpine", "docker.io/library/nginx:alpine"),
            ("bitnami/redis:7", "docker.io/bitnami/redis:7"),
            ("localhost:5000/app", "localhost:5000/app:latest"),
            ("ghcr.io/a/b:1", "ghcr.io/a/b:1"),
        ] {
            assert_eq!(normalized(given), expected);
        }
    }
}
