//! Images on disk: layers unpacked once, and one index that says which images they make up.
//!
//! A layer exists when its directory does: it is unpacked elsewhere, flushed and renamed, so a power
//! cut never leaves half of one. The index is replaced as a whole after the layers it names.

use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::fs;
use std::io::Read;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use parking_lot::Mutex;
use serde::{Deserialize, Serialize};
use sha2::{Digest, Sha256};

use super::config::{ImageConfig, ProcessDefaults};
use super::layer::{self, Footing, UnpackError, Unpacked};
use super::reference;
use crate::durable::{self, Durability};
use crate::error::{Error, IoContext, Result};
use crate::sys::tree::content_bytes;
use crate::types::ImageStatus;

/// Letters of the name of a layer's directory, most of them of a digest: collisions stay out of reach,
/// and the most layers that images have (127) still fit into the options of one mount.
const NAME_LENGTH: usize = 24;

const INDEX: &str = "index.json";

#[derive(Debug)]
pub(crate) struct ImageStore {
    root: PathBuf,
    layer_dir: PathBuf,
    /// Held while the index is written and while layers are looked for or taken away: only in the disk
    /// room. The state is never locked over I/O, because everybody asks for images.
    writing: Mutex<()>,
    state: Mutex<State>,
    /// There is none that can be read: which of the layers are unused is not known.
    index_is_lost: bool,
}

#[derive(Debug, Default)]
struct State {
    index: Index,
    /// Layers of images that are being put together.
    pins: HashMap<String, usize>,
    temporary: u64,
}

/// The second version names the layers' directories.
impl durable::Record for Index {
    const VERSION: u32 = 2;
}

/// `index.json`
#[derive(Clone, Debug, Default, Serialize, Deserialize)]
struct Index {
    /// By id, the digest of the configuration.
    images: BTreeMap<String, Arc<Image>>,
    /// Complete names, with tag or digest, and the ids they stand for.
    names: BTreeMap<String, String>,
}

#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Image {
    pub id: String,
    /// Lowest first.
    pub layers: Vec<Layer>,
    pub defaults: ProcessDefaults,
}

#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Layer {
    pub diff_id: String,
    pub bytes: u64,
    /// Of its directory. In the first version all layers were unpacked alone, and named by `diff_id`.
    #[serde(default)]
    pub name: String,
}

/// What tells a layer from others: its content, and where that matters, all that lies below it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct LayerKey {
    pub diff_id: String,
    chain_id: String,
    lowest: bool,
}

impl LayerKey {
    /// Of all layers of an image, lowest first.
    pub(crate) fn chain(diff_ids: &[String]) -> Vec<Self> {
        let mut below: Option<String> = None;
        let key = |diff_id: &String| {
            let chain_id = match &below {
                None => diff_id.clone(),
                Some(below) => format!("sha256:{}", hex::encode(Sha256::digest(format!("{below} {diff_id}")))),
            };
            let lowest = below.replace(chain_id.clone()).is_none();
            Self { diff_id: diff_id.clone(), chain_id, lowest }
        };
        diff_ids.iter().map(key).collect()
    }

    /// The name when it depends on its parents, and when it does not.
    fn name(&self, dependent: bool) -> String {
        let (letter, digest) = if dependent { ('c', &self.chain_id) } else { ('u', &self.diff_id) };
        let digest = digest.split_once(':').map_or(digest.as_str(), |(_, digest)| digest);
        std::iter::once(letter).chain(digest.chars()).take(NAME_LENGTH).collect()
    }

    fn names(&self) -> [String; 2] {
        [self.name(true), self.name(false)]
    }
}

impl Image {
    pub(crate) fn layer_names(&self) -> Vec<String> {
        self.layers.iter().map(Layer::directory).collect()
    }
}

impl Layer {
    fn directory(&self) -> String {
        if !self.name.is_empty() {
            return self.name.clone();
        }
        let digest = self.diff_id.split_once(':').map_or(self.diff_id.as_str(), |(_, digest)| digest);
        digest.chars().take(NAME_LENGTH).collect()
    }
}

/// Only what `sha256:` digests look like may name a directory.
pub(crate) fn is_digest(text: &str) -> bool {
    text.strip_prefix("sha256:")
        .is_some_and(|hex| hex.len() == 64 && hex.bytes().all(|b| b.is_ascii_digit() || (b'a'..=b'f').contains(&b)))
}

/// Why a layer was not added.
#[derive(Debug, thiserror::Error)]
pub(crate) enum AddError {
    #[error(transparent)]
    Unpack(#[from] UnpackError),
    #[error("layer has digest {found}, expected {expected}")]
    Digest { expected: String, found: String },
    #[error(transparent)]
    Store(#[from] Error),
}

/// A layer that is complete but does not count yet; dropped, it is removed.
pub(crate) struct Staged<'a> {
    store: &'a ImageStore,
    dir: PathBuf,
    layer: Layer,
}

impl Staged<'_> {
    /// Makes it count.
    pub(crate) fn commit(self) -> Result<Layer> {
        let target = self.store.layer_path(&self.layer);
        match fs::rename(&self.dir, &target) {
            // Somebody else was faster; ours goes with the drop.
            Err(_) if target.is_dir() => {}
            result => {
                result.at("rename to", &target)?;
                durable::sync_parent(&target)?;
            }
        }
        Ok(self.layer.clone())
    }
}

impl Drop for Staged<'_> {
    fn drop(&mut self) {
        // What stays behind goes at the next start.
        let _ = durable::remove_tree(&self.dir);
    }
}

/// Keeps layers from being removed until the image that needs them is recorded.
pub(crate) struct Pins<'a> {
    store: &'a ImageStore,
    names: Vec<String>,
}

impl Drop for Pins<'_> {
    fn drop(&mut self) {
        let mut state = self.store.state.lock();
        for name in &self.names {
            if let Some(count) = state.pins.get_mut(name) {
                *count -= 1;
                if *count == 0 {
                    state.pins.remove(name);
                }
            }
        }
    }
}

impl ImageStore {
    pub(crate) fn refuse_newer(root: &Path) -> Result<()> {
        durable::refuse_newer::<Index>(&root.join(INDEX))
    }

    pub(crate) fn open(root: &Path) -> Result<Self> {
        let mut store = Self {
            root: root.to_owned(),
            layer_dir: root.join("layers"),
            writing: Mutex::default(),
            state: Mutex::default(),
            index_is_lost: false,
        };
        durable::remove_tree(&store.temporary_dir())?;
        for dir in [&store.layer_dir, &store.temporary_dir()] {
            fs::create_dir_all(dir).at("create", dir)?;
        }
        let mut index = match durable::read_optional::<Index>(&store.index_path()) {
            Ok(Some(index)) => {
                store.seal(&index);
                index
            }
            Ok(None) => {
                store.index_is_lost = !store.all_layers()?.is_empty();
                if store.index_is_lost {
                    let path = store.index_path();
                    tracing::warn!(index = %path.display(), "the record of images is missing and layers of images are there: they stay, and all images are pulled again");
                }
                Index::default()
            }
            // Images can be had again; a node that does not start for their sake cannot even ask.
            Err(error @ Error::Record { .. }) => {
                tracing::warn!(%error, "the record of images is damaged: the layers stay, and all images are pulled again");
                store.index_is_lost = true;
                Index::default()
            }
            Err(error) => return Err(error),
        };
        // An image without all its layers is pulled again.
        index.images.retain(|_, image| image.layers.iter().all(|layer| store.layer_path(layer).is_dir()));
        let images = &index.images;
        index.names.retain(|_, id| images.contains_key(id));
        store.state.lock().index = index;
        Ok(store)
    }

    /// Gives an index that an earlier release wrote its checksum.
    fn seal(&self, index: &Index) {
        if let Err(error) = durable::renew(&self.index_path(), index, Durability::Synced) {
            // It says as much without one, and the next start tries again.
            tracing::warn!(%error, "the record of images stays without a checksum");
        }
    }

    fn index_path(&self) -> PathBuf {
        self.root.join(INDEX)
    }

    fn temporary_dir(&self) -> PathBuf {
        self.root.join("tmp")
    }

    fn layer_path(&self, layer: &Layer) -> PathBuf {
        self.layer_dir.join(layer.directory())
    }

    /// Where the layers are.
    pub(crate) fn layer_dir(&self) -> &Path {
        &self.layer_dir
    }

    /// A path of nobody else's, gone at the next start.
    pub(crate) fn temporary(&self) -> PathBuf {
        let mut state = self.state.lock();
        state.temporary += 1;
        self.temporary_dir().join(state.temporary.to_string())
    }

    pub(crate) fn pin(&self, keys: &[LayerKey]) -> Pins<'_> {
        let names = keys.iter().flat_map(LayerKey::names).collect::<Vec<_>>();
        let mut state = self.state.lock();
        for name in &names {
            *state.pins.entry(name.clone()).or_default() += 1;
        }
        Pins { store: self, names }
    }

    /// A layer that is there already; pinned before it is asked for, it stays. Blocks.
    pub(crate) fn layer(&self, key: &LayerKey) -> Option<Layer> {
        let names = key.names();
        let known = {
            let state = self.state.lock();
            let mut layers = state.index.images.values().flat_map(|image| &image.layers);
            layers.find(|layer| names.contains(&layer.name)).cloned()
        };
        known.or_else(|| {
            let _writing = self.writing.lock();
            // Left by a pull that was cut short after this layer.
            names.into_iter().find_map(|name| {
                let path = self.layer_dir.join(&name);
                path.is_dir().then(|| Layer { diff_id: key.diff_id.clone(), bytes: content_bytes(&path), name })
            })
        })
    }

    /// Unpacks a layer beside the others, without looking at what is below it. It counts once committed.
    pub(crate) fn stage(&self, content: impl Read, key: &LayerKey) -> Result<Staged<'_>, AddError> {
        let staged = self.new_staged(key)?;
        let footing = if key.lowest { Footing::Bottom } else { Footing::Alone };
        let (unpacked, _) = layer::unpack(content, &staged.dir, footing)?;
        Self::check_staged(staged, key, unpacked)
    }

    /// The same for a layer that depends on what is below it: all those layers, lowest first.
    pub(crate) fn stage_onto(
        &self,
        content: impl Read + Send,
        key: &LayerKey,
        below: &[Layer],
    ) -> Result<Staged<'_>, AddError> {
        let staged = self.new_staged(key)?;
        let scratch = self.temporary();
        fs::create_dir(&scratch).at("create", &scratch)?;
        let names = below.iter().map(Layer::directory).collect::<Vec<_>>();
        let unpacked = layer::unpack_onto(content, &self.layer_dir, &names, &staged.dir, &scratch);
        // What stays behind goes at the next start.
        let _ = durable::remove_tree(&scratch);
        Self::check_staged(staged, key, unpacked?)
    }

    fn new_staged(&self, key: &LayerKey) -> Result<Staged<'_>, AddError> {
        let dir = self.temporary();
        fs::create_dir(&dir).at("create", &dir)?;
        // A root that the layer does not describe.
        fs::set_permissions(&dir, fs::Permissions::from_mode(0o755)).at("set the mode of", &dir)?;
        let layer = Layer { diff_id: key.diff_id.clone(), bytes: 0, name: String::new() };
        Ok(Staged { store: self, dir, layer })
    }

    fn check_staged<'a>(mut staged: Staged<'a>, key: &LayerKey, unpacked: Unpacked) -> Result<Staged<'a>, AddError> {
        if unpacked.diff_id != key.diff_id {
            return Err(AddError::Digest { expected: key.diff_id.clone(), found: unpacked.diff_id });
        }
        staged.layer.bytes = unpacked.bytes;
        staged.layer.name = key.name(unpacked.dependent);
        Ok(staged)
    }

    /// Records an image whose layers are all there, under the given names (tags move to it).
    pub(crate) fn put(
        &self,
        id: &str,
        config: &ImageConfig,
        layers: Vec<Layer>,
        names: &[String],
    ) -> Result<ImageStatus> {
        let image = Image { id: id.to_owned(), layers, defaults: config.config.clone() };
        let _writing = self.writing.lock();
        let mut index = self.state.lock().index.clone();
        let same = index.images.get(id).is_some_and(|known| **known == image)
            && names.iter().all(|name| index.names.get(name).is_some_and(|known| known == id));
        if !same {
            index.images.insert(id.to_owned(), Arc::new(image));
            for name in names {
                index.names.insert(name.clone(), id.to_owned());
            }
            durable::write(&self.index_path(), &index, Durability::Synced)?;
            self.state.lock().index.clone_from(&index);
        }
        Ok(status(&index, &index.images[id]))
    }

    pub(crate) fn get(&self, id: &str) -> Option<Arc<Image>> {
        self.state.lock().index.images.get(id).cloned()
    }

    /// Finds an image by id or by any of its names, however short.
    pub(crate) fn find(&self, name: &str) -> Option<ImageStatus> {
        let state = self.state.lock();
        let id = resolve(&state.index, name)?;
        Some(status(&state.index, &state.index.images[&id]))
    }

    pub(crate) fn list(&self) -> Vec<ImageStatus> {
        let state = self.state.lock();
        state.index.images.values().map(|image| status(&state.index, image)).collect()
    }

    /// Forgets an image with all its names and removes the layers that nothing else needs; returns
    /// whether there was one.
    ///
    /// On a full disk the index cannot be written before the layers have made room. An image whose
    /// layers are gone does not count at the next start, so the order does not matter then.
    pub(crate) fn remove(&self, name: &str, in_use: &BTreeSet<String>) -> Result<bool> {
        let writing = self.writing.lock();
        let index = {
            let mut state = self.state.lock();
            resolve(&state.index, name).map(|id| {
                state.index.images.remove(&id);
                state.index.names.retain(|_, known| *known != id);
                state.index.clone()
            })
        };
        let written = index.as_ref().map(|index| durable::write(&self.index_path(), index, Durability::Synced));
        drop(writing);
        self.remove_unused_layers(in_use)?;
        if written.is_some_and(|written| written.is_err()) {
            let _writing = self.writing.lock();
            let index = self.state.lock().index.clone();
            durable::write(&self.index_path(), &index, Durability::Synced)?;
        }
        Ok(index.is_some())
    }

    /// Removes what a crash left of layers. After the loss of the index nothing counts as that: the pulls
    /// that make it anew find their layers.
    pub(crate) fn clean_up(&self, in_use: &BTreeSet<String>) -> Result<()> {
        if self.index_is_lost { Ok(()) } else { self.remove_unused_layers(in_use) }
    }

    /// The names of all layers that are there.
    pub(crate) fn all_layers(&self) -> Result<BTreeSet<String>> {
        let dir = &self.layer_dir;
        let entries = fs::read_dir(dir).at("list", dir)?;
        Ok(entries.flatten().map(|entry| entry.file_name().to_string_lossy().into_owned()).collect())
    }

    /// Removes the layers that neither an image, nor a pull, nor `in_use` (names) needs.
    pub(crate) fn remove_unused_layers(&self, in_use: &BTreeSet<String>) -> Result<()> {
        let dir = &self.layer_dir;
        let doomed = {
            // Held throughout: a pull that looks for a layer has pinned it before, and waits here.
            let _writing = self.writing.lock();
            let of_images = {
                let state = self.state.lock();
                state.index.images.values().flat_map(|image| image.layer_names()).collect::<BTreeSet<_>>()
            };
            let mut doomed = Vec::new();
            for entry in fs::read_dir(dir).at("list", dir)?.flatten() {
                let name = entry.file_name().to_string_lossy().into_owned();
                let pinned = self.state.lock().pins.contains_key(&name);
                if !of_images.contains(&name) && !in_use.contains(&name) && !pinned {
                    let target = self.temporary();
                    fs::rename(entry.path(), &target).at("rename", &entry.path())?;
                    doomed.push(target);
                }
            }
            doomed
        };
        doomed.iter().try_for_each(|path| durable::remove_tree(path))
    }
}

fn resolve(index: &Index, name: &str) -> Option<String> {
    if index.images.contains_key(name) {
        return Some(name.to_owned());
    }
    let complete = reference::parse(name).ok()?.to_string();
    index.names.get(&complete).cloned()
}

fn status(index: &Index, image: &Image) -> ImageStatus {
    let names = index.names.iter().filter(|(_, id)| **id == image.id).map(|(name, _)| name.clone());
    let (digests, tags) = names.partition(|name: &String| name.contains('@'));
    let user = image.defaults.user.split(':').next().unwrap_or("");
    let uid = user.parse().ok();
    ImageStatus {
        id: image.id.clone(),
        tags,
        digests,
        size_bytes: image.layers.iter().map(|layer| layer.bytes).sum(),
        uid,
        username: (uid.is_none() && !user.is_empty()).then(|| user.to_owned()),
        stop_signal: image.defaults.stop_signal.clone(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn empty_layer() -> (Vec<u8>, String) {
        let tar = vec![0; 1024];
        let digest = format!("sha256:{}", hex::encode(Sha256::digest(&tar)));
        (tar, digest)
    }

    fn key(diff_id: &str) -> LayerKey {
        LayerKey::chain(&[diff_id.to_owned()]).remove(0)
    }

    fn id(digit: char) -> String {
        format!("sha256:{}", digit.to_string().repeat(64))
    }

    #[test]
    fn images_survive_a_restart_and_tags_move() {
        let dir = tempfile::tempdir().unwrap();
        let (tar, diff_id) = empty_layer();
        let store = ImageStore::open(dir.path()).unwrap();
        let layer = store.stage(tar.as_slice(), &key(&diff_id)).unwrap().commit().unwrap();
        let config = ImageConfig {
            config: ProcessDefaults { user: "web:www".to_owned(), ..Default::default() },
            ..Default::default()
        };
        let tag = "docker.io/library/app:1".to_owned();
        let by_digest = format!("docker.io/library/app@{}", id('c'));
        store.put(&id('a'), &config, vec![layer.clone()], &[tag.clone(), by_digest.clone()]).unwrap();
        drop(store);

        let store = ImageStore::open(dir.path()).unwrap();
        let found = store.find("app:1").unwrap();
        assert_eq!((found.id, found.tags, found.digests), (id('a'), vec![tag.clone()], vec![by_digest]));
        assert_eq!((found.uid, found.username.as_deref()), (None, Some("web")));
        store.put(&id('b'), &config, vec![layer], &[tag]).unwrap();
        assert_eq!(store.find("app:1").unwrap().id, id('b'));
        assert_eq!(store.find(&id('a')).unwrap().tags, Vec::<String>::new());
    }

    #[test]
    fn layers_go_when_nobody_needs_them() {
        let dir = tempfile::tempdir().unwrap();
        let (tar, diff_id) = empty_layer();
        let store = ImageStore::open(dir.path()).unwrap();
        let layer = store.stage(tar.as_slice(), &key(&diff_id)).unwrap().commit().unwrap();
        store.put(&id('a'), &ImageConfig::default(), vec![layer], &["docker.io/library/app:1".to_owned()]).unwrap();
        let present = || store.layer(&key(&diff_id)).is_some();
        store.remove_unused_layers(&BTreeSet::new()).unwrap();
        assert!(present(), "an image has it");
        let of_container = BTreeSet::from([key(&diff_id).name(false)]);
        assert!(store.remove("app:1", &of_container).unwrap());
        assert!(!store.remove("app:1", &of_container).unwrap());
        assert!(present(), "a container has it");
        let pins = store.pin(&[key(&diff_id)]);
        store.remove_unused_layers(&BTreeSet::new()).unwrap();
        assert!(present(), "a pull has it");
        drop(pins);
        store.remove_unused_layers(&BTreeSet::new()).unwrap();
        assert!(!present());
    }

    /// Makes writing the index fail, as a full disk does.
    fn block_index(store: &ImageStore) -> PathBuf {
        let blocker = store.index_path().with_extension("json.tmp");
        fs::create_dir(&blocker).unwrap();
        blocker
    }

    #[test]
    fn a_full_disk_keeps_images_out_but_not_in() {
        let dir = tempfile::tempdir().unwrap();
        let (tar, diff_id) = empty_layer();
        let store = ImageStore::open(dir.path()).unwrap();
        let layer = store.stage(tar.as_slice(), &key(&diff_id)).unwrap().commit().unwrap();
        let blocker = block_index(&store);
        let names = ["docker.io/library/app:1".to_owned()];
        store.put(&id('a'), &ImageConfig::default(), vec![layer.clone()], &names).unwrap_err();
        assert!(store.find("app:1").is_none(), "what is not on disk would be gone after a restart");
        fs::remove_dir(blocker).unwrap();
        store.put(&id('a'), &ImageConfig::default(), vec![layer], &names).unwrap();
        block_index(&store);
        store.remove("app:1", &BTreeSet::new()).unwrap_err();
        assert!(store.layer(&key(&diff_id)).is_none(), "its room is free");
        drop(store);
        assert!(ImageStore::open(dir.path()).unwrap().find("app:1").is_none());
    }

    #[test]
    fn a_damaged_index_does_not_keep_the_node_from_starting_and_costs_no_layer() {
        let dir = tempfile::tempdir().unwrap();
        let (tar, diff_id) = empty_layer();
        let store = ImageStore::open(dir.path()).unwrap();
        let layer = store.stage(tar.as_slice(), &key(&diff_id)).unwrap().commit().unwrap();
        store.put(&id('a'), &ImageConfig::default(), vec![layer], &["docker.io/library/app:1".to_owned()]).unwrap();
        let whole = fs::read_to_string(store.index_path()).unwrap();
        for damaged in ["{\"images\": {".to_owned(), whole.replacen("app:1", "app:0", 1)] {
            fs::write(store.index_path(), damaged).unwrap();
            let store = ImageStore::open(dir.path()).unwrap();
            assert_eq!(store.list(), []);
            store.clean_up(&BTreeSet::new()).unwrap();
            assert!(store.layer(&key(&diff_id)).is_some());
        }
    }

    #[test]
    fn a_missing_index_costs_no_layer_and_is_no_matter_where_there_are_none() {
        let dir = tempfile::tempdir().unwrap();
        let (tar, diff_id) = empty_layer();
        let store = ImageStore::open(dir.path()).unwrap();
        assert!(!store.index_is_lost);
        let layer = store.stage(tar.as_slice(), &key(&diff_id)).unwrap().commit().unwrap();
        let names = ["docker.io/library/app:1".to_owned()];
        store.put(&id('a'), &ImageConfig::default(), vec![layer.clone()], &names).unwrap();
        fs::remove_file(store.index_path()).unwrap();
        let store = ImageStore::open(dir.path()).unwrap();
        assert_eq!(store.list(), []);
        store.clean_up(&BTreeSet::new()).unwrap();
        assert!(store.layer(&key(&diff_id)).is_some());
        // With an index again, what no image has goes as ever.
        store.put(&id('a'), &ImageConfig::default(), Vec::new(), &names).unwrap();
        let store = ImageStore::open(dir.path()).unwrap();
        store.clean_up(&BTreeSet::new()).unwrap();
        assert!(store.layer(&key(&diff_id)).is_none());
    }

    #[test]
    fn an_index_of_an_earlier_release_is_sealed_by_the_next_start() {
        let dir = tempfile::tempdir().unwrap();
        let (tar, diff_id) = empty_layer();
        let store = ImageStore::open(dir.path()).unwrap();
        let layer = store.stage(tar.as_slice(), &key(&diff_id)).unwrap().commit().unwrap();
        store.put(&id('a'), &ImageConfig::default(), vec![layer], &["docker.io/library/app:1".to_owned()]).unwrap();
        let sealed = fs::read(store.index_path()).unwrap();
        fs::write(store.index_path(), statefile::open(&sealed).unwrap()).unwrap();
        assert!(ImageStore::open(dir.path()).unwrap().find("app:1").is_some());
        assert_eq!(String::from_utf8(fs::read(store.index_path()).unwrap()), String::from_utf8(sealed));
        let unsealed = include_str!("../contract/golden/index-1.json");
        fs::write(store.index_path(), unsealed).unwrap();
        block_index(&store);
        ImageStore::open(dir.path()).unwrap();
        assert_eq!(fs::read_to_string(store.index_path()).unwrap(), unsealed, "a full disk keeps nobody from starting");
    }

    #[test]
    fn a_layer_with_another_digest_does_not_count() {
        let dir = tempfile::tempdir().unwrap();
        let store = ImageStore::open(dir.path()).unwrap();
        let Err(error) = store.stage(empty_layer().0.as_slice(), &key(&id('f'))) else { panic!("must fail") };
        assert!(matches!(error, AddError::Digest { .. }), "{error}");
        assert_eq!(fs::read_dir(dir.path().join("tmp")).unwrap().count(), 0);
        assert!(store.layer(&key(&id('f'))).is_none());
    }

    #[test]
    fn indexes_of_all_releases_are_read() {
        let forms = [include_str!("../contract/golden/index-1.json"), include_str!("../contract/golden/index-2.json")];
        let indexes = crate::contract::check_forms::<Index>(&forms);
        let names = indexes.iter().map(|index| index.images.values().next().unwrap().layer_names());
        assert_eq!(names.collect::<Vec<_>>(), [["a488e66aa9372177a63b2705"], ["ua488e66aa9372177a63b270"]]);
    }

    #[test]
    fn digests_are_checked_before_they_name_directories() {
        assert!(is_digest(&id('a')));
        for bad in ["sha256:../../x", "sha512:aa", "sha256:", &id('G')] {
            assert!(!is_digest(bad), "{bad}");
        }
    }
}
