//! Pulls images from registries.
//!
//! Layers are unpacked as they arrive, so a compressed copy never wears out the medium. An image
//! counts only when every digest and size has been verified. A layer that turns out to depend on what
//! lies below it is fetched again once that is there.

use std::collections::HashMap;
use std::io::{self, Read};
use std::sync::{Arc, Weak};
use std::time::Duration;

use bytes::Bytes;
use futures::{StreamExt, TryStreamExt};
use oci_client::errors::{OciDistributionError, OciErrorCode};
use oci_client::manifest::OciDescriptor;
use oci_client::secrets::RegistryAuth as OciAuth;
use oci_client::{Client, Reference};
use parking_lot::Mutex;
use sha2::{Digest, Sha256};
use tokio::sync::mpsc;
use tokio::time::Instant;

use super::clients::{Clients, Key};
use super::config::ImageConfig;
use super::layer::UnpackError;
use super::manifest::{Descriptor, Document, Kind, MEDIA_TYPES, runs_here, select};
use super::registries::{Endpoint, Registries};
use super::store::{AddError, ImageStore, Layer, LayerKey, is_digest};
use super::{PullError, reference};
use crate::disk::{DiskError, DiskRoom, Lane};
use crate::types::{ImageStatus, RegistryAuth};

/// At once for one image; more only makes a small board thrash.
const PARALLEL_LAYERS: usize = 3;
/// Chunks between the network and the unpacker; a chunk is at most a few hundred KiB.
const CHUNKS_AHEAD: usize = 16;
/// Configurations are a few KiB; this is what other runtimes accept of a manifest.
const DOCUMENT_MAX: usize = 8 << 20;
/// For a layer whose transfer breaks off.
const ATTEMPTS: u32 = 3;
/// For what a registry says of an image before its layers: a handful of small requests.
const RESOLVE_TIMEOUT: Duration = Duration::from_secs(300);
/// A registry that sends less than this much in that much time of waiting for it is given up.
const PACE: (usize, Duration) = (64 << 10, Duration::from_secs(60));
/// Gigabytes over a thin line onto a slow card.
const LAYER_DEADLINE: Duration = Duration::from_secs(4 * 3600);
/// One small file and its flush.
const RECORD_DEADLINE: Duration = Duration::from_secs(120);

#[derive(Debug)]
pub(crate) struct Puller {
    registries: Registries,
    disk: Arc<DiskRoom>,
    clients: Clients,
    /// One at a time for each name and each layer; the next in line finds the work done.
    busy: Mutex<HashMap<String, Weak<tokio::sync::Mutex<()>>>>,
}

/// Everything that one endpoint said about an image, before its layers.
struct Found {
    client: Client,
    at: Reference,
    /// Of the index where there is one, as users see it.
    digest: String,
    config_digest: String,
    config: ImageConfig,
    layers: Vec<Descriptor>,
}

/// A failure, and whether trying again may help.
enum Failure {
    Remote(OciDistributionError),
    /// It does not answer, or too slowly.
    Slow,
    Content(String),
}

/// Why a layer was not unpacked.
enum Unplaced {
    /// Only what lies below it tells what it means.
    NeedsParents,
    Content(String),
}

impl From<AddError> for Unplaced {
    fn from(error: AddError) -> Self {
        match error {
            AddError::Unpack(UnpackError::NeedsParents { .. }) => Self::NeedsParents,
            error => Self::Content(error.to_string()),
        }
    }
}

impl From<DiskError> for Failure {
    fn from(error: DiskError) -> Self {
        Self::Content(error.to_string())
    }
}

impl From<OciDistributionError> for Failure {
    fn from(error: OciDistributionError) -> Self {
        Self::Remote(error)
    }
}

impl Puller {
    pub(crate) fn new(registries: Registries, disk: Arc<DiskRoom>) -> Self {
        // The TLS library asks for a provider of cryptography once a process; whoever was first wins.
        let _ = rustls::crypto::ring::default_provider().install_default();
        Self { registries, disk, clients: Clients::default(), busy: Mutex::default() }
    }

    fn turn(&self, key: String) -> Arc<tokio::sync::Mutex<()>> {
        let mut busy = self.busy.lock();
        busy.retain(|_, turn| turn.strong_count() > 0);
        if let Some(turn) = busy.get(&key).and_then(Weak::upgrade) {
            return turn;
        }
        let turn = Arc::default();
        busy.insert(key, Arc::downgrade(&turn));
        turn
    }

    pub(crate) async fn pull(
        &self,
        store: &Arc<ImageStore>,
        name: &str,
        auth: Option<&RegistryAuth>,
    ) -> Result<ImageStatus, PullError> {
        let wanted = reference::parse(name)?;
        let complete = wanted.to_string();
        let turn = self.turn(complete.clone());
        let _turn = turn.lock().await;
        let content = |reason: String| PullError::Content { reference: complete.clone(), reason };
        let endpoints = self.registries.endpoints(&wanted).map_err(|error| content(error.to_string()))?;
        let mut last = None;
        for endpoint in endpoints {
            match self.pull_from(store, &wanted, &endpoint, auth).await {
                Ok(status) => return Ok(status),
                Err(failure) => {
                    let error = failure.describe(&complete);
                    tracing::debug!(%error, endpoint = %endpoint.reference, "pull failed");
                    last = Some(error);
                }
            }
        }
        Err(last.unwrap_or_else(|| content("no endpoint".to_owned())))
    }

    async fn pull_from(
        &self,
        store: &Arc<ImageStore>,
        wanted: &Reference,
        endpoint: &Endpoint,
        auth: Option<&RegistryAuth>,
    ) -> Result<ImageStatus, Failure> {
        // Credentials of a pod are for the registry it names, not for a mirror's host.
        let own = endpoint.reference.registry() == wanted.registry();
        let auth = endpoint.auth.as_ref().or(auth.filter(|_| own));
        let key = Key::new(endpoint, auth);
        let client = self.clients.get(&key)?;
        let found = tokio::time::timeout(RESOLVE_TIMEOUT, resolve(client, endpoint, &key.auth)).await;
        let found = found.unwrap_or(Err(Failure::Slow)).inspect_err(|_| self.clients.forget(&key))?;
        let keys = LayerKey::chain(&found.config.rootfs.diff_ids);
        let _pins = store.pin(&keys);
        // Made outside of the stream, so that this future is `Send` for every caller.
        let jobs = found.layers.iter().zip(&keys);
        let jobs = jobs.map(|(blob, key)| self.layer(store, &found, blob, key, None)).collect::<Vec<_>>();
        let alone = futures::stream::iter(jobs).buffered(PARALLEL_LAYERS).try_collect::<Vec<_>>().await?;
        let mut layers = Vec::new();
        for ((layer, blob), key) in alone.into_iter().zip(&found.layers).zip(&keys) {
            let layer = match layer {
                Some(layer) => Some(layer),
                None => self.layer(store, &found, blob, key, Some(&layers)).await?,
            };
            let unplaced = || Failure::Content(format!("layer {} cannot be put onto its parents", blob.digest));
            layers.push(layer.ok_or_else(unplaced)?);
        }
        let mut names = vec![reference::by_digest(wanted, &found.digest)];
        if wanted.tag().is_some() {
            names.push(wanted.to_string());
        }
        let (store, digest, config) = (Arc::clone(store), found.config_digest.clone(), found.config.clone());
        let put = move || store.put(&digest, &config, layers, &names);
        let put = self.disk.run(Lane::Images, "", RECORD_DEADLINE, put).await?;
        put.map_err(|error| Failure::Content(error.to_string()))
    }

    /// Sees to it that a layer is there; `None` when that takes the layers `below` it, which are not given.
    async fn layer(
        &self,
        store: &Arc<ImageStore>,
        found: &Found,
        blob: &Descriptor,
        key: &LayerKey,
        below: Option<&[Layer]>,
    ) -> Result<Option<Layer>, Failure> {
        let turn = self.turn(key.diff_id.clone());
        let _turn = turn.lock().await;
        let (at, wanted) = (Arc::clone(store), key.clone());
        if let Some(layer) = self.disk.run(Lane::Images, "", LAYER_DEADLINE, move || at.layer(&wanted)).await? {
            return Ok(Some(layer));
        }
        let mut attempt = 1;
        loop {
            match download(&self.disk, store, found, blob, key, below).await {
                Err(Failure::Slow) if attempt < ATTEMPTS => attempt += 1,
                Err(Failure::Remote(error)) if attempt < ATTEMPTS && transient(&error) => attempt += 1,
                result => return result,
            }
        }
    }
}

/// Manifest (of this machine's platform) and configuration.
async fn resolve(client: Client, endpoint: &Endpoint, auth: &OciAuth) -> Result<Found, Failure> {
    let at = endpoint.reference.clone();
    let (json, digest) = client.pull_manifest_raw(&at, auth, &MEDIA_TYPES).await?;
    check_digest(&json, &digest)?;
    let (config, layers) = match Document::parse(&json).map_err(Failure::Content)? {
        Kind::Manifest { config, layers } => (config, layers),
        Kind::Index(entries) => {
            let entry = select(&entries)
                .ok_or_else(|| Failure::Content(format!("no match for platform in manifest {digest}: not found")))?;
            let of_platform = at.clone_with_digest(entry.digest.clone());
            let (json, _) = client.pull_manifest_raw(&of_platform, auth, &MEDIA_TYPES).await?;
            check_digest(&json, &entry.digest)?;
            match Document::parse(&json).map_err(Failure::Content)? {
                Kind::Manifest { config, layers } => (config, layers),
                Kind::Index(_) => return Err(Failure::Content("an index inside an index".to_owned())),
            }
        }
    };
    let json = document(&client, &at, &config).await?;
    let config_digest = config.digest;
    let config = serde_json::from_slice::<ImageConfig>(&json)
        .map_err(|error| Failure::Content(format!("read image configuration: {error}")))?;
    if !runs_here(&config.architecture) {
        return Err(Failure::Content(format!("no match for platform in manifest {digest}: not found")));
    }
    let diff_ids = &config.rootfs.diff_ids;
    if diff_ids.len() != layers.len() || !diff_ids.iter().chain([&config_digest]).all(|digest| is_digest(digest)) {
        return Err(Failure::Content("the image's configuration does not match its layers".to_owned()));
    }
    Ok(Found { client, at, digest, config_digest, config, layers })
}

fn check_digest(bytes: &[u8], expected: &str) -> Result<(), Failure> {
    let found = format!("sha256:{}", hex::encode(Sha256::digest(bytes)));
    if found == expected {
        return Ok(());
    }
    Err(Failure::Content(format!("content has digest {found}, expected {expected}")))
}

/// A small blob as a whole.
async fn document(client: &Client, at: &Reference, blob: &Descriptor) -> Result<Vec<u8>, Failure> {
    let digest = &blob.digest;
    let mut stream = client.pull_blob_stream(at, &descriptor(digest)).await?.stream;
    let mut bytes = Vec::new();
    while let Some(chunk) = stream.next().await {
        bytes.extend_from_slice(&chunk.map_err(|error| Failure::Remote(error.into()))?);
        if bytes.len() > DOCUMENT_MAX {
            return Err(Failure::Content(format!("{digest} is too large")));
        }
    }
    blob.check_size(bytes.len() as u64).map_err(Failure::Content)?;
    check_digest(&bytes, digest)?;
    Ok(bytes)
}

fn descriptor(digest: &str) -> OciDescriptor {
    OciDescriptor { digest: digest.to_owned(), ..OciDescriptor::default() }
}

/// Downloads and unpacks one layer, both at once; `None` when it needs what is below it.
async fn download(
    disk: &DiskRoom,
    store: &Arc<ImageStore>,
    found: &Found,
    blob: &Descriptor,
    key: &LayerKey,
    below: Option<&[Layer]>,
) -> Result<Option<Layer>, Failure> {
    let (sender, receiver) = mpsc::channel(CHUNKS_AHEAD);
    let (verified_sender, verified) = tokio::sync::oneshot::channel();
    let unpacking = {
        let (store, key, below) = (Arc::clone(store), key.clone(), below.map(<[Layer]>::to_vec));
        disk.run(Lane::Images, "", LAYER_DEADLINE, move || -> Result<Layer, Unplaced> {
            let reader = Incoming { receiver, current: Bytes::new() };
            let staged = match below {
                None => store.stage(reader, &key)?,
                Some(below) => store.stage_onto(reader, &key, &below)?,
            };
            // The layer counts only when the transfer itself was what the manifest names.
            match verified.blocking_recv() {
                Ok(()) => staged.commit().map_err(|error| Unplaced::Content(error.to_string())),
                Err(_) => Err(Unplaced::Content("the transfer broke off".to_owned())),
            }
        })
    };
    let transfer = async {
        let transferred = transfer(found, blob, sender).await;
        if transferred.is_ok() {
            // The unpacker may have failed already; its own error is told below.
            let _ = verified_sender.send(());
        } else {
            drop(verified_sender);
        }
        transferred
    };
    let (unpacked, transferred) = tokio::join!(unpacking, transfer);
    transferred?;
    match unpacked? {
        Ok(layer) => Ok(Some(layer)),
        Err(Unplaced::NeedsParents) => Ok(None),
        Err(Unplaced::Content(text)) => Err(Failure::Content(text)),
    }
}

/// How much a registry sent lately, and how long it was waited for.
#[derive(Default)]
struct Pace {
    bytes: usize,
    waited: Duration,
}

impl Pace {
    async fn next<T>(&mut self, chunk: impl Future<Output = T>, len: impl Fn(&T) -> usize) -> Result<T, Failure> {
        let (least, patience) = PACE;
        let began = Instant::now();
        let chunk = tokio::time::timeout(patience.saturating_sub(self.waited), chunk).await;
        let chunk = chunk.map_err(|_| Failure::Slow)?;
        self.bytes += len(&chunk);
        self.waited += began.elapsed();
        if self.bytes >= least {
            *self = Self::default();
        }
        Ok(chunk)
    }
}

async fn transfer(found: &Found, blob: &Descriptor, sender: mpsc::Sender<Bytes>) -> Result<(), Failure> {
    let digest = &blob.digest;
    let mut stream = found.client.pull_blob_stream(&found.at, &descriptor(digest)).await?.stream;
    let (mut hash, mut pace, mut size) = (Sha256::new(), Pace::default(), 0);
    let len = |chunk: &Option<io::Result<Bytes>>| chunk.as_ref().and_then(|c| c.as_ref().ok()).map_or(0, Bytes::len);
    while let Some(chunk) = pace.next(stream.next(), len).await? {
        let chunk = chunk.map_err(|error| Failure::Remote(error.into()))?;
        hash.update(&chunk);
        size += chunk.len() as u64;
        if blob.size.is_some_and(|expected| size > expected) {
            blob.check_size(size).map_err(Failure::Content)?;
        }
        if sender.send(chunk).await.is_err() {
            // The unpacker gave up and says why.
            return Ok(());
        }
    }
    blob.check_size(size).map_err(Failure::Content)?;
    let actual = format!("sha256:{}", hex::encode(hash.finalize()));
    if actual != *digest {
        return Err(Failure::Content(format!("layer has digest {actual}, expected {digest}")));
    }
    Ok(())
}

/// The unpacker's end of a transfer.
struct Incoming {
    receiver: mpsc::Receiver<Bytes>,
    current: Bytes,
}

impl Read for Incoming {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        while self.current.is_empty() {
            match self.receiver.blocking_recv() {
                Some(chunk) => self.current = chunk,
                None => return Ok(0),
            }
        }
        let len = buffer.len().min(self.current.len());
        buffer[..len].copy_from_slice(&self.current.split_to(len));
        Ok(len)
    }
}

fn transient(error: &OciDistributionError) -> bool {
    match error {
        OciDistributionError::RequestError(_) | OciDistributionError::IoError(_) => true,
        OciDistributionError::ServerError { code, .. } => *code >= 500 || *code == 429,
        _ => false,
    }
}

impl Failure {
    /// In the kinds that the kubelet tells apart.
    fn describe(self, reference: &str) -> PullError {
        let reference = reference.to_owned();
        let error = match self {
            Self::Content(reason) => return PullError::Content { reference, reason },
            Self::Slow => {
                let reason = "the registry does not answer in time".to_owned();
                return PullError::Network { reference, reason };
            }
            Self::Remote(error) => error,
        };
        match &error {
            OciDistributionError::ImageManifestNotFoundError(_)
            | OciDistributionError::ServerError { code: 404, .. } => PullError::NotFound { reference },
            OciDistributionError::UnauthorizedError { .. }
            | OciDistributionError::AuthenticationFailure(_)
            | OciDistributionError::ServerError { code: 401 | 403, .. } => {
                PullError::Unauthorized { reference, reason: "authorization failed".to_owned() }
            }
            OciDistributionError::RegistryError { envelope, .. } => {
                let has = |codes: &[OciErrorCode]| envelope.errors.iter().any(|error| codes.contains(&error.code));
                if has(&[OciErrorCode::ManifestUnknown, OciErrorCode::NameUnknown, OciErrorCode::NotFound]) {
                    PullError::NotFound { reference }
                } else if has(&[OciErrorCode::Unauthorized, OciErrorCode::Denied]) {
                    let reason = envelope.errors.first().map(|error| error.message.clone());
                    PullError::Unauthorized { reference, reason: reason.unwrap_or_default() }
                } else {
                    PullError::Network { reference, reason: causes(&error) }
                }
            }
            _ => PullError::Network { reference, reason: causes(&error) },
        }
    }
}

/// An error with its causes: the outermost says only that a request failed.
fn causes(error: &dyn std::error::Error) -> String {
    let mut text = error.to_string();
    let mut next = error.source();
    while let Some(source) = next {
        text = format!("{text}: {source}");
        next = source.source();
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test(start_paused = true)]
    async fn a_registry_that_trickles_is_given_up() {
        let chunk = |len: usize, after: u64| async move {
            tokio::time::sleep(Duration::from_secs(after)).await;
            len
        };
        let len = |len: &usize| *len;
        let mut pace = Pace::default();
        for _ in 0..10 {
            assert!(pace.next(chunk(64 << 10, 50), len).await.is_ok(), "slow, but moving");
        }
        let mut taken = 0;
        while pace.next(chunk(1, 9), len).await.is_ok() {
            taken += 1;
        }
        assert_eq!(taken, 6);
        assert!(Pace::default().next(chunk(1 << 20, 61), len).await.is_err(), "nothing at all");
    }
}
