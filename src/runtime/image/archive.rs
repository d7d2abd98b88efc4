//! Imports images from tarballs: what `docker save` writes, and OCI layouts, plain or compressed.

use std::collections::HashMap;
use std::fs::File;
use std::io::{self, Read};
use std::os::unix::fs::FileExt;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use serde::Deserialize;
use sha2::{Digest, Sha256};
use tar::EntryType;

use super::config::{ImageConfig, few};
use super::entries;
use super::layer::{UnpackError, decompress};
use super::manifest::{Descriptor, Document, IndexEntry, Kind, runs_here, select};
use super::store::{AddError, ImageStore, LayerKey, is_digest};
use super::{PullError, reference};
use crate::sys::rootdir::relative;
use crate::types::ImageStatus;

/// Manifests and configurations are small; nothing larger is read into memory.
const DOCUMENT_MAX: u64 = 8 << 20;
/// A file for each document and layer, and their directories.
const ENTRIES_MAX: usize = 20_000;
const NAME_MAX: usize = 4096;

/// One image of `manifest.json`.
#[derive(Debug, Deserialize)]
#[serde(rename_all = "PascalCase")]
struct DockerImage {
    config: PathBuf,
    #[serde(default, deserialize_with = "few")]
    repo_tags: Option<Vec<String>>,
    #[serde(default, deserialize_with = "few")]
    layers: Option<Vec<PathBuf>>,
}

/// `manifest.json`
#[derive(Debug, Deserialize)]
#[serde(transparent)]
struct DockerImages {
    #[serde(deserialize_with = "few")]
    images: Option<Vec<DockerImage>>,
}

/// An image found in an archive.
struct Candidate {
    id: String,
    config: ImageConfig,
    layers: Vec<PathBuf>,
    names: Vec<String>,
}

impl Candidate {
    fn new(config: &[u8], layers: Vec<PathBuf>, names: Vec<String>) -> Result<Self, String> {
        let id = format!("sha256:{}", hex::encode(Sha256::digest(config)));
        Ok(Self { id, config: ImageConfig::parse(config)?, layers, names })
    }
}

/// Imports every image for this machine from the archive at `path`.
pub(crate) fn import(store: &ImageStore, path: &Path) -> Result<Vec<ImageStatus>, PullError> {
    let failed = |reason: String| PullError::Content { reference: path.display().to_string(), reason };
    let archive = Archive::open(store, path).map_err(|error| failed(error.to_string()))?;
    let candidates = archive.candidates().map_err(failed)?;
    candidates.iter().map(|image| archive.add(store, image).map_err(failed)).collect()
}

/// A tar file whose entries can be read in any order.
struct Archive {
    file: Arc<File>,
    entries: HashMap<PathBuf, Extent>,
}

#[derive(Clone, Copy)]
struct Extent {
    offset: u64,
    len: u64,
}

impl Archive {
    fn open(store: &ImageStore, path: &Path) -> io::Result<Self> {
        let mut file = statefile::open_file(path)?;
        let mut magic = [0; 4];
        let compressed = file.read_exact_at(&mut magic, 0).is_ok()
            && (magic.starts_with(&[0x1f, 0x8b]) || magic == [0x28, 0xb5, 0x2f, 0xfd]);
        if compressed {
            let temporary = store.temporary();
            let mut plain = File::options().create_new(true).read(true).write(true).open(&temporary)?;
            std::fs::remove_file(&temporary)?;
            io::copy(&mut decompress(file)?, &mut plain)?;
            file = plain;
        }
        let file = Arc::new(file);
        let mut files = HashMap::new();
        let mut links = Vec::new();
        let whole = Slice { file: Arc::clone(&file), offset: 0, left: file.metadata()?.len() };
        entries::each(
            whole,
            |error| error,
            |entry| {
                // No document and no layer is named by more.
                let named = |path: &Path| path.as_os_str().len() <= NAME_MAX;
                let Some(name) = relative(&entry.path()?).filter(|name| named(name)) else { return Ok(()) };
                if files.len() + links.len() >= ENTRIES_MAX {
                    return Err(io::Error::other(format!("the archive has more than {ENTRIES_MAX} entries")));
                }
                match entry.header().entry_type() {
                    EntryType::Regular | EntryType::Continuous => {
                        files.insert(name, Extent { offset: entry.raw_file_position(), len: entry.size() });
                    }
                    // Old versions of docker link equal layers to each other.
                    EntryType::Symlink | EntryType::Link => {
                        links.extend(
                            entry.link_name()?.filter(|target| named(target)).map(|target| (name, target.into_owned())),
                        );
                    }
                    _ => {}
                }
                Ok(())
            },
        )?;
        for (name, target) in links {
            let beside = name.parent().unwrap_or(Path::new("")).join(&target);
            let extent = [normal(&beside), normal(&target)].iter().find_map(|path| files.get(path).copied());
            extent.map(|extent| files.insert(name, extent));
        }
        Ok(Self { file, entries: files })
    }

    fn reader(&self, name: &Path) -> Result<Slice, String> {
        let extent = relative(name).and_then(|name| self.entries.get(&name).copied());
        let Extent { offset, len } = extent.ok_or_else(|| format!("{} is not in the archive", name.display()))?;
        Ok(Slice { file: Arc::clone(&self.file), offset, left: len })
    }

    fn document(&self, name: &Path) -> Result<Vec<u8>, String> {
        let reader = self.reader(name)?;
        if reader.left > DOCUMENT_MAX {
            return Err(format!("{} is too large", name.display()));
        }
        let mut bytes = Vec::new();
        { reader }.read_to_end(&mut bytes).map_err(|error| format!("read {}: {error}", name.display()))?;
        Ok(bytes)
    }

    /// A blob of an OCI layout, verified.
    fn blob(&self, digest: &str) -> Result<Vec<u8>, String> {
        let bytes = self.document(&blob_path(digest)?)?;
        let found = format!("sha256:{}", hex::encode(Sha256::digest(&bytes)));
        if found == digest { Ok(bytes) } else { Err(format!("blob has digest {found}, expected {digest}")) }
    }

    fn layer_path(&self, layer: &Descriptor) -> Result<PathBuf, String> {
        let path = blob_path(&layer.digest)?;
        layer.check_size(self.reader(&path)?.left)?;
        Ok(path)
    }

    fn candidates(&self) -> Result<Vec<Candidate>, String> {
        if self.entries.contains_key(Path::new("manifest.json")) {
            return self.docker_images();
        }
        match Document::parse(&self.document(Path::new("index.json"))?)? {
            Kind::Index(entries) => entries.iter().map(|entry| self.oci_image(entry)).collect(),
            Kind::Manifest { .. } => Err("index.json is not an index".to_owned()),
        }
    }

    fn docker_images(&self) -> Result<Vec<Candidate>, String> {
        let json = self.document(Path::new("manifest.json"))?;
        let found = serde_json::from_slice::<DockerImages>(&json);
        let DockerImages { images } = found.map_err(|error| format!("read manifest.json: {error}"))?;
        let candidate = |image: DockerImage| {
            let names = image.repo_tags.unwrap_or_default();
            Candidate::new(&self.document(&image.config)?, image.layers.unwrap_or_default(), names)
        };
        images.into_iter().flatten().map(candidate).collect()
    }

    fn oci_image(&self, entry: &IndexEntry) -> Result<Candidate, String> {
        let name = entry.name();
        let mut json = self.blob(&entry.digest)?;
        if let Kind::Index(entries) = Document::parse(&json)? {
            let entry = select(&entries).ok_or("no image for this platform")?;
            json = self.blob(&entry.digest)?;
        }
        let Kind::Manifest { config, layers } = Document::parse(&json)? else {
            return Err("an index inside an index".to_owned());
        };
        let layers = layers.iter().map(|layer| self.layer_path(layer)).collect::<Result<_, _>>()?;
        let mut names = name.cloned().into_iter().collect::<Vec<_>>();
        if let Some(complete) = name.and_then(|name| reference::parse(name).ok()) {
            names.push(reference::by_digest(&complete, &entry.digest));
        }
        let blob = self.blob(&config.digest)?;
        config.check_size(blob.len() as u64)?;
        Candidate::new(&blob, layers, names)
    }

    fn add(&self, store: &ImageStore, image: &Candidate) -> Result<ImageStatus, String> {
        let Candidate { id, config, .. } = image;
        let diff_ids = &config.rootfs.diff_ids;
        if diff_ids.len() != image.layers.len() || !diff_ids.iter().all(|diff_id| is_digest(diff_id)) {
            return Err("the image's configuration does not match its layers".to_owned());
        }
        if !runs_here(&config.architecture) {
            return Err(format!("no match for platform in manifest {id}: not found"));
        }
        let keys = LayerKey::chain(diff_ids);
        let _pins = store.pin(&keys);
        let mut layers = Vec::new();
        for (path, key) in image.layers.iter().zip(&keys) {
            let layer = match store.layer(key) {
                Some(layer) => layer,
                None => {
                    let staged = match store.stage(self.reader(path)?, key) {
                        Err(AddError::Unpack(UnpackError::NeedsParents { .. })) => {
                            store.stage_onto(self.reader(path)?, key, &layers)
                        }
                        staged => staged,
                    };
                    let staged = staged.map_err(|error| error.to_string())?;
                    staged.commit().map_err(|error| error.to_string())?
                }
            };
            layers.push(layer);
        }
        let names = image.names.iter().map(|name| reference::parse(name).map(|complete| complete.to_string()));
        let names = names.collect::<Result<Vec<_>, _>>().map_err(|error| error.to_string())?;
        store.put(id, config, layers, &names).map_err(|error| error.to_string())
    }
}

fn blob_path(digest: &str) -> Result<PathBuf, String> {
    if !is_digest(digest) {
        return Err(format!("digest {digest:?} is not supported"));
    }
    Ok(Path::new("blobs").join(digest.replacen(':', "/", 1)))
}

/// `a/../b` as `b`; only used to look names up, never to open files.
fn normal(path: &Path) -> PathBuf {
    let mut plain = PathBuf::new();
    for component in path.components() {
        match component {
            std::path::Component::ParentDir => drop(plain.pop()),
            std::path::Component::Normal(part) => plain.push(part),
            std::path::Component::CurDir | std::path::Component::RootDir | std::path::Component::Prefix(_) => {}
        }
    }
    plain
}

/// A part of a file, read without moving the file's own position.
struct Slice {
    file: Arc<File>,
    offset: u64,
    left: u64,
}

impl Read for Slice {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        let wanted = usize::try_from(self.left).unwrap_or(usize::MAX).min(buffer.len());
        let len = self.file.read_at(&mut buffer[..wanted], self.offset)?;
        self.offset += len as u64;
        self.left -= len as u64;
        Ok(len)
    }
}
