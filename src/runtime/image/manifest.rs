//! Manifests and indexes, as registries and archives hold them.

use serde::Deserialize;

use super::config::few;

pub(crate) const MEDIA_TYPES: [&str; 4] = [
    "application/vnd.oci.image.index.v1+json",
    "application/vnd.docker.distribution.manifest.list.v2+json",
    "application/vnd.oci.image.manifest.v1+json",
    "application/vnd.docker.distribution.manifest.v2+json",
];

/// Either kind: an index lists manifests, a manifest names a configuration and layers.
#[derive(Clone, Debug, Deserialize)]
pub(crate) struct Document {
    #[serde(default, deserialize_with = "few")]
    manifests: Option<Vec<IndexEntry>>,
    config: Option<Descriptor>,
    #[serde(default, deserialize_with = "few")]
    layers: Option<Vec<Descriptor>>,
}

#[derive(Clone, Debug)]
pub(crate) enum Kind {
    Index(Vec<IndexEntry>),
    Manifest { config: Descriptor, layers: Vec<Descriptor> },
}

#[derive(Clone, Debug, Deserialize)]
pub(crate) struct Descriptor {
    pub digest: String,
    /// The specification wants it; some archives lack it.
    pub size: Option<u64>,
}

impl Descriptor {
    /// Fails for content of another size.
    pub(crate) fn check_size(&self, found: u64) -> Result<(), String> {
        match self.size {
            Some(size) if size != found => Err(format!("{} has {found} bytes, expected {size}", self.digest)),
            Some(_) | None => Ok(()),
        }
    }
}

#[derive(Clone, Debug, Deserialize)]
pub(crate) struct IndexEntry {
    pub digest: String,
    platform: Option<Platform>,
    annotations: Option<Annotations>,
}

/// Those that name an image in an OCI layout.
#[derive(Clone, Debug, Deserialize)]
struct Annotations {
    #[serde(rename = "io.containerd.image.name")]
    complete: Option<String>,
    #[serde(rename = "org.opencontainers.image.ref.name")]
    name: Option<String>,
}

impl IndexEntry {
    /// The complete name if there is one.
    pub(crate) fn name(&self) -> Option<&String> {
        self.annotations.as_ref().and_then(|annotations| annotations.complete.as_ref().or(annotations.name.as_ref()))
    }
}

#[derive(Clone, Debug, Default, Deserialize)]
struct Platform {
    #[serde(default)]
    architecture: String,
    #[serde(default)]
    os: String,
    variant: Option<String>,
}

impl Document {
    pub(crate) fn parse(json: &[u8]) -> Result<Kind, String> {
        let document = serde_json::from_slice::<Self>(json).map_err(|error| format!("read manifest: {error}"))?;
        match document {
            Self { manifests: Some(manifests), .. } => Ok(Kind::Index(manifests)),
            Self { config: Some(config), layers: Some(layers), .. } => Ok(Kind::Manifest { config, layers }),
            Self { .. } => Err("neither a manifest nor an index".to_owned()),
        }
    }
}

/// What this machine runs, best first: architecture and the variant that is asked for.
const PLATFORMS: &[(&str, Option<&str>)] = if cfg!(target_arch = "aarch64") {
    &[("arm64", Some("v8")), ("arm64", None), ("arm", Some("v8")), ("arm", Some("v7")), ("arm", Some("v6"))]
} else {
    &[("amd64", None)]
};

/// Whether programs for an architecture run on this machine; an image that names none may.
pub(crate) fn runs_here(architecture: &str) -> bool {
    architecture.is_empty() || PLATFORMS.iter().any(|(known, _)| *known == architecture)
}

/// The entry for this machine.
pub(crate) fn select(entries: &[IndexEntry]) -> Option<&IndexEntry> {
    select_for(PLATFORMS, entries)
}

fn select_for<'a>(platforms: &[(&str, Option<&str>)], entries: &'a [IndexEntry]) -> Option<&'a IndexEntry> {
    let known = platforms.iter().find_map(|(architecture, variant)| {
        entries.iter().find(|entry| {
            entry.platform.as_ref().is_some_and(|platform| {
                platform.os == "linux"
                    && platform.architecture == *architecture
                    && variant.is_none_or(|wanted| platform.variant.as_deref() == Some(wanted))
            })
        })
    });
    // Archives of a single image often say nothing of its platform.
    known.or_else(|| entries.iter().find(|entry| entry.platform.is_none()))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn index() -> Vec<IndexEntry> {
        let json = br#"{"manifests": [
            {"digest": "attestation", "platform": {"architecture": "unknown", "os": "unknown"}},
            {"digest": "amd64", "platform": {"architecture": "amd64", "os": "linux"}},
            {"digest": "armv6", "platform": {"architecture": "arm", "os": "linux", "variant": "v6"}},
            {"digest": "armv7", "platform": {"architecture": "arm", "os": "linux", "variant": "v7"}},
            {"digest": "arm64", "platform": {"architecture": "arm64", "os": "linux", "variant": "v8"}}]}"#;
        match Document::parse(json).unwrap() {
            Kind::Index(entries) => entries,
            Kind::Manifest { .. } => panic!("an index"),
        }
    }

    #[test]
    fn the_best_platform_is_chosen() {
        let arm = [("arm64", Some("v8")), ("arm64", None), ("arm", Some("v7")), ("arm", Some("v6"))];
        let mut entries = index();
        let digest = |platforms: &[_], entries: &[IndexEntry]| select_for(platforms, entries).map(|e| e.digest.clone());
        assert_eq!(digest(&[("amd64", None)], &entries).as_deref(), Some("amd64"));
        assert_eq!(digest(&arm, &entries).as_deref(), Some("arm64"));
        entries.pop();
        assert_eq!(digest(&arm, &entries).as_deref(), Some("armv7"));
        assert_eq!(digest(&[("riscv64", None)], &entries), None);
    }

    #[test]
    fn images_for_other_machines_and_of_other_sizes_are_refused() {
        let (ours, other) = if cfg!(target_arch = "aarch64") { ("arm64", "amd64") } else { ("amd64", "arm64") };
        assert_eq!(["", ours, other, "riscv64"].map(runs_here), [true, true, false, false]);
        let blob = |size| Descriptor { digest: "sha256:a".to_owned(), size };
        assert_eq!((blob(Some(3)).check_size(3), blob(None).check_size(4)), (Ok(()), Ok(())));
        assert_eq!(blob(Some(3)).check_size(4).unwrap_err(), "sha256:a has 4 bytes, expected 3");
    }

    #[test]
    fn lists_without_an_end_are_refused() {
        for (list, element) in [("manifests", r#"{"digest": ""}"#), ("layers", r#"{"digest": "", "annotations": {}}"#)]
        {
            let json =
                |count| format!(r#"{{"config": {{"digest": ""}}, "{list}": [{}]}}"#, vec![element; count].join(","));
            assert!(Document::parse(json(1000).as_bytes()).is_ok());
            let error = Document::parse(json(100_000).as_bytes()).unwrap_err();
            assert!(error.starts_with("read manifest: a list has more than 1000 elements at line 1"), "{error}");
        }
    }

    #[test]
    fn names_in_layouts_are_read() {
        let names = |annotations: &str| {
            let json = format!(r#"{{"manifests": [{{"digest": "", "annotations": {annotations}}}]}}"#);
            match Document::parse(json.as_bytes()).unwrap() {
                Kind::Index(entries) => entries[0].name().cloned(),
                Kind::Manifest { .. } => panic!("an index"),
            }
        };
        let (complete, name) = ("\"io.containerd.image.name\": \"c\"", "\"org.opencontainers.image.ref.name\": \"n\"");
        assert_eq!(names(&format!("{{{name}, {complete}, \"x\": \"y\"}}")).as_deref(), Some("c"));
        assert_eq!(names(&format!("{{{name}}}")).as_deref(), Some("n"));
        assert_eq!(names("null"), None);
    }

    #[test]
    fn other_documents_are_refused() {
        assert_eq!(Document::parse(b"{}").unwrap_err(), "neither a manifest nor an index");
    }
}
