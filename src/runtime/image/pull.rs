//! Pulls images from registries.
//!
//! Layers are unpacked as they arrive, so a compressed copy never wears out the medium. An image
//! counts only when every digest has been verified.

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

use super::clients::{Clients, Key};
use super::config::ImageConfig;
use super::manifest::{Document, Kind, MEDIA_TYPES, select};
use super::registries::{Endpoint, Registries};
use super::store::{ImageStore, Layer, is_digest};
use super::{PullError, reference};
use crate::disk::{DiskRoom, Lane};
use crate::types::{ImageStatus, RegistryAuth};

/// At once for one image; more only makes a small board thrash.
const PARALLEL_LAYERS: usize = 3;
/// Chunks between the network and the unpacker; a chunk is at most a few hundred KiB.
const CHUNKS_AHEAD: usize = 16;
/// Configurations are a few KiB; this is what other runtimes accept of a manifest.
const DOCUMENT_MAX: usize = 8 << 20;
/// For a layer whose transfer breaks off.
const ATTEMPTS: u32 = 3;
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
    layers: Vec<String>,
}

/// A failure, and whether trying again may help.
enum Failure {
    Remote(OciDistributionError),
    Content(String),
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
        let found = resolve(client, endpoint, &key.auth).await.inspect_err(|_| self.clients.forget(&key))?;
        let diff_ids = &found.config.rootfs.diff_ids;
        let _pins = store.pin(diff_ids);
        // Made outside of the stream, so that this future is `Send` for every caller.
        let jobs = found.layers.iter().zip(diff_ids);
        let jobs = jobs.map(|(digest, diff_id)| self.layer(store, &found, digest, diff_id)).collect::<Vec<_>>();
        let layers = futures::stream::iter(jobs).buffered(PARALLEL_LAYERS).try_collect::<Vec<_>>().await?;
        let mut names = vec![reference::by_digest(wanted, &found.digest)];
        if wanted.tag().is_some() {
            names.push(wanted.to_string());
        }
        let (store, digest, config) = (Arc::clone(store), found.config_digest.clone(), found.config.clone());
        let put = move || store.put(&digest, &config, layers, &names);
        let put = self.disk.run(Lane::Images, "", RECORD_DEADLINE, put).await;
        put.map_err(|error| Failure::Content(error.to_string()))?.map_err(|error| Failure::Content(error.to_string()))
    }

    async fn layer(
        &self,
        store: &Arc<ImageStore>,
        found: &Found,
        digest: &str,
        diff_id: &str,
    ) -> Result<Layer, Failure> {
        let turn = self.turn(diff_id.to_owned());
        let _turn = turn.lock().await;
        let (at, wanted) = (Arc::clone(store), diff_id.to_owned());
        let known = self.disk.run(Lane::Images, "", LAYER_DEADLINE, move || at.layer(&wanted)).await;
        if let Some(layer) = known.map_err(|error| Failure::Content(error.to_string()))? {
            return Ok(layer);
        }
        let mut attempt = 1;
        loop {
            match download(&self.disk, store, found, digest, diff_id).await {
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
    let json = document(&client, &at, &config.digest).await?;
    let config_digest = config.digest;
    let config = serde_json::from_slice::<ImageConfig>(&json)
        .map_err(|error| Failure::Content(format!("read image configuration: {error}")))?;
    let layers = layers.into_iter().map(|layer| layer.digest).collect::<Vec<_>>();
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
async fn document(client: &Client, at: &Reference, digest: &str) -> Result<Vec<u8>, Failure> {
    let mut stream = client.pull_blob_stream(at, &descriptor(digest)).await?.stream;
    let mut bytes = Vec::new();
    while let Some(chunk) = stream.next().await {
        bytes.extend_from_slice(&chunk.map_err(|error| Failure::Remote(error.into()))?);
        if bytes.len() > DOCUMENT_MAX {
            return Err(Failure::Content(format!("{digest} is too large")));
        }
    }
    check_digest(&bytes, digest)?;
    Ok(bytes)
}

fn descriptor(digest: &str) -> OciDescriptor {
    OciDescriptor { digest: digest.to_owned(), ..OciDescriptor::default() }
}

/// Downloads and unpacks one layer, both at once.
async fn download(
    disk: &DiskRoom,
    store: &Arc<ImageStore>,
    found: &Found,
    digest: &str,
    diff_id: &str,
) -> Result<Layer, Failure> {
    let (sender, receiver) = mpsc::channel(CHUNKS_AHEAD);
    let (verified_sender, verified) = tokio::sync::oneshot::channel();
    let unpacking = {
        let (store, diff_id) = (Arc::clone(store), diff_id.to_owned());
        disk.run(Lane::Images, "", LAYER_DEADLINE, move || -> Result<Layer, String> {
            let reader = Incoming { receiver, current: Bytes::new() };
            let staged = store.stage(reader, &diff_id).map_err(|error| error.to_string())?;
            // The layer counts only when the transfer itself was what the manifest names.
            match verified.blocking_recv() {
                Ok(()) => staged.commit().map_err(|error| error.to_string()),
                Err(_) => Err("the transfer broke off".to_owned()),
            }
        })
    };
    let transfer = async {
        let transferred = transfer(found, digest, sender).await;
        if transferred.is_ok() {
            // The unpacker may have failed already; its own error is told below.
            let _ = verified_sender.send(());
        }
        transferred
    };
    let (unpacked, transferred) = tokio::join!(unpacking, transfer);
    transferred?;
    let unpacked = unpacked.map_err(|error| Failure::Content(error.to_string()))?;
    unpacked.map_err(Failure::Content)
}

async fn transfer(found: &Found, digest: &str, sender: mpsc::Sender<Bytes>) -> Result<(), Failure> {
    let mut stream = found.client.pull_blob_stream(&found.at, &descriptor(digest)).await?.stream;
    let mut hash = Sha256::new();
    while let Some(chunk) = stream.next().await {
        let chunk = chunk.map_err(|error| Failure::Remote(error.into()))?;
        hash.update(&chunk);
        if sender.send(chunk).await.is_err() {
            // The unpacker gave up and says why.
            return Ok(());
        }
    }
    let actual = format!("sha256:{}", hex::encode(hash.finalize()));
    if actual != digest {
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
