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
use oci_spec::distribution::Reference;
use parking_lot::Mutex;
use sha2::{Digest, Sha256};
use tokio::sync::mpsc;
use tokio::time::Instant;

use super::clients::{Clients, Key};
use super::config::ImageConfig;
use super::layer::UnpackError;
use super::manifest::{Descriptor, Document, Kind, runs_here, select};
use super::registries::{Endpoint, Registries};
use super::registry::{Client, Refusal, RegistryError};
use super::store::{AddError, ImageStore, Layer, LayerKey, is_digest};
use super::{PullError, reference};
use crate::disk::{DiskError, DiskRoom, Lane};
use crate::types::{ImageStatus, RegistryAuth};

/// At once for one image; more only makes a small board thrash.
const PARALLEL_LAYERS: usize = 3;
/// Chunks between the network and the unpacker; a chunk is at most a few hundred KiB.
const CHUNKS_AHEAD: usize = 16;
/// For a layer whose transfer breaks off.
const ATTEMPTS: u32 = 3;
/// For what a registry says of an image before its layers, a handful of small requests, and again before each layer.
const RESOLVE_TIMEOUT: Duration = Duration::from_secs(300);
/// A registry that sends less than this much in that much time of waiting for it is given up.
const PACE: (usize, Duration) = (64 << 10, Duration::from_secs(60));
/// Gigabytes over a thin line onto a slow card.
const LAYER_DEADLINE: Duration = Duration::from_secs(4 * 3600);
/// One small file and its flush.
const RECORD_DEADLINE: Duration = Duration::from_secs(120);
/// Of the text of a failure, which is kept in a pod's status and in events, and may quote the registry.
const REASON_MAX: usize = 1024;

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
    Remote(RegistryError),
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

impl From<RegistryError> for Failure {
    fn from(error: RegistryError) -> Self {
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
        let found = tokio::time::timeout(RESOLVE_TIMEOUT, resolve(client, endpoint)).await;
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
                Err(Failure::Remote(error)) if attempt < ATTEMPTS && error.is_transient() => attempt += 1,
                result => return result,
            }
        }
    }
}

/// Manifest (of this machine's platform) and configuration.
async fn resolve(client: Client, endpoint: &Endpoint) -> Result<Found, Failure> {
    let at = endpoint.reference.clone();
    let (json, said) = client.manifest(&at).await?;
    let digest = digest_of(&json);
    for expected in at.digest().into_iter().chain(said.as_deref()) {
        check_digest(&json, expected)?;
    }
    let (config, layers) = match Document::parse(&json).map_err(Failure::Content)? {
        Kind::Manifest { config, layers } => (config, layers),
        Kind::Index(entries) => {
            let entry = select(&entries)
                .ok_or_else(|| Failure::Content(format!("no match for platform in manifest {digest}: not found")))?;
            check_digests([&entry.digest])?;
            let of_platform = at.clone_with_digest(entry.digest.clone());
            let (json, _) = client.manifest(&of_platform).await?;
            check_digest(&json, &entry.digest)?;
            match Document::parse(&json).map_err(Failure::Content)? {
                Kind::Manifest { config, layers } => (config, layers),
                Kind::Index(_) => return Err(Failure::Content("an index inside an index".to_owned())),
            }
        }
    };
    check_digests([&config.digest].into_iter().chain(layers.iter().map(|layer| &layer.digest)))?;
    let json = client.config(&at, &config.digest).await?;
    config.check_size(json.len() as u64).map_err(Failure::Content)?;
    check_digest(&json, &config.digest)?;
    let config_digest = config.digest;
    let config = ImageConfig::parse(&json).map_err(Failure::Content)?;
    if !runs_here(&config.architecture) {
        return Err(Failure::Content(format!("no match for platform in manifest {digest}: not found")));
    }
    let diff_ids = &config.rootfs.diff_ids;
    if diff_ids.len() != layers.len() || !diff_ids.iter().all(|digest| is_digest(digest)) {
        return Err(Failure::Content("the image's configuration does not match its layers".to_owned()));
    }
    Ok(Found { client, at, digest, config_digest, config, layers })
}

/// Before they become parts of addresses.
fn check_digests<'a>(digests: impl IntoIterator<Item = &'a String>) -> Result<(), Failure> {
    match digests.into_iter().find(|digest| !is_digest(digest)) {
        None => Ok(()),
        Some(digest) => Err(Failure::Content(format!("the manifest names {digest:?}, which is no digest"))),
    }
}

fn digest_of(bytes: &[u8]) -> String {
    format!("sha256:{}", hex::encode(Sha256::digest(bytes)))
}

fn check_digest(bytes: &[u8], expected: &str) -> Result<(), Failure> {
    let found = digest_of(bytes);
    if found == expected {
        return Ok(());
    }
    Err(Failure::Content(format!("content has digest {found}, expected {expected}")))
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
    let opened = tokio::time::timeout(RESOLVE_TIMEOUT, found.client.blob(&found.at, digest)).await;
    let mut incoming = opened.map_err(|_| Failure::Slow)??;
    let (mut hash, mut pace, mut size) = (Sha256::new(), Pace::default(), 0);
    let len = |chunk: &Result<Option<Bytes>, RegistryError>| {
        chunk.as_ref().ok().and_then(Option::as_ref).map_or(0, Bytes::len)
    };
    while let Some(chunk) = pace.next(incoming.next(), len).await?? {
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

impl Failure {
    /// In the kinds that the kubelet tells apart.
    fn describe(self, reference: &str) -> PullError {
        let reference = reference.to_owned();
        let error = match self {
            Self::Content(reason) => return PullError::Content { reference, reason: clipped(&reason) },
            Self::Slow => {
                let reason = "the registry does not answer in time".to_owned();
                return PullError::Network { reference, reason };
            }
            Self::Remote(error) => error,
        };
        let unauthorized =
            |reason: &str| PullError::Unauthorized { reference: reference.clone(), reason: clipped(reason) };
        match &error {
            RegistryError::Refused(refusal) => match meaning(refusal) {
                Meaning::NotFound => PullError::NotFound { reference },
                Meaning::Unauthorized(reason) => unauthorized(reason),
                Meaning::Other => PullError::Network { reference, reason: clipped(&causes(&error)) },
            },
            RegistryError::Token { .. } if error.is_denied_token() => unauthorized(DENIED),
            RegistryError::TooLarge { .. } => PullError::Content { reference, reason: error.to_string() },
            _ => PullError::Network { reference, reason: clipped(&causes(&error)) },
        }
    }
}

const DENIED: &str = "authorization failed";

enum Meaning<'a> {
    NotFound,
    Unauthorized(&'a str),
    Other,
}

/// What a registry's refusal says of the image. Its own codes count more than the status.
fn meaning(refusal: &Refusal) -> Meaning<'_> {
    match refusal.status.as_u16() {
        401 => Meaning::Unauthorized(DENIED),
        _ if refusal.has(&["MANIFEST_UNKNOWN", "NAME_UNKNOWN", "NOT_FOUND"]) => Meaning::NotFound,
        _ if refusal.has(&["UNAUTHORIZED", "DENIED"]) => {
            Meaning::Unauthorized(refusal.errors.first().map_or("", |error| &error.message))
        }
        404 if refusal.errors.is_empty() => Meaning::NotFound,
        403 if refusal.errors.is_empty() => Meaning::Unauthorized(DENIED),
        _ => Meaning::Other,
    }
}

/// As much of a text as is kept, in one line.
fn clipped(text: &str) -> String {
    let mut kept = String::new();
    for c in text.chars() {
        if kept.len() + c.len_utf8() > REASON_MAX {
            kept.push_str("...");
            break;
        }
        kept.push(if c.is_control() { ' ' } else { c });
    }
    kept
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

    #[track_caller]
    fn check(status: u16, body: &str, expected: &str) {
        let url = "http://r/v2/a/manifests/b".parse().unwrap();
        let refusal = Refusal::new(status.try_into().unwrap(), &url, body.as_bytes());
        let error = Failure::Remote(RegistryError::Refused(Box::new(refusal))).describe("r/a:b");
        let error = error.to_string();
        let told =
            error.strip_prefix("failed to pull and unpack image \"r/a:b\": failed to resolve reference \"r/a:b\": ");
        assert_eq!(told, Some(expected));
    }

    #[test]
    fn refusals_are_told_apart() {
        let denied = "pull access denied, repository does not exist or may require authorization: ";
        let unexpected = "unexpected status from GET request to http://r/v2/a/manifests/b: ";
        let with = |code: &str| format!("{{\"errors\": [{{\"code\": \"{code}\", \"message\": \"why\"}}]}}");
        check(404, "<html>", "r/a:b: not found");
        check(404, &with("MANIFEST_UNKNOWN"), "r/a:b: not found");
        check(404, &with("BLOB_UNKNOWN"), &format!("{unexpected}404 Not Found: blob unknown: why"));
        check(400, &with("NAME_UNKNOWN"), "r/a:b: not found");
        check(401, &with("UNAUTHORIZED"), &format!("{denied}authorization failed"));
        check(403, "", &format!("{denied}authorization failed"));
        check(403, &with("DENIED"), &format!("{denied}why"));
        check(429, &with("TOOMANYREQUESTS"), &format!("{unexpected}429 Too Many Requests: toomanyrequests: why"));
        check(500, &with("DENIED"), &format!("{unexpected}500 Internal Server Error"));
        check(204, "", &format!("{unexpected}204 No Content"));
    }

    #[test]
    fn what_a_registry_says_is_told_in_a_line_of_bounded_length() {
        let message = format!("a\nb{}", "é".repeat(REASON_MAX));
        let body = serde_json::json!({"errors": [{"code": "DENIED", "message": message}]}).to_string();
        let refusal = Refusal::new(reqwest::StatusCode::FORBIDDEN, &"http://r/".parse().unwrap(), body.as_bytes());
        match Failure::from(RegistryError::Refused(Box::new(refusal))).describe("r/a:b") {
            PullError::Unauthorized { reason, .. } => {
                assert!(reason.starts_with("a bé") && reason.ends_with("é..."), "{reason}");
                assert!(reason.len() <= REASON_MAX + 3);
            }
            other => panic!("{other}"),
        }
        let content = Failure::Content("x".repeat(4 << 20)).describe("r/a:b");
        assert!(content.to_string().len() < 2 * REASON_MAX);
        let text = "y".repeat(REASON_MAX);
        assert_eq!(clipped(&text), text);
    }

    #[test]
    fn a_token_that_is_refused_is_an_authorization_that_failed() {
        let describe = |status: u16| {
            let refusal = Refusal::new(status.try_into().unwrap(), &"http://t/?scope=x".parse().unwrap(), b"");
            let cause = Box::new(RegistryError::Refused(Box::new(refusal)));
            Failure::Remote(RegistryError::Token { kind: "oauth", cause }).describe("r/a:b")
        };
        assert!(matches!(describe(401), PullError::Unauthorized { reason, .. } if reason == DENIED));
        let expected = "failed to authorize: failed to fetch oauth token: unexpected status from GET request to http://t/: \
                        404 Not Found";
        assert!(matches!(describe(404), PullError::Network { reason, .. } if reason == expected));
    }

    #[test]
    fn only_digests_become_parts_of_addresses() {
        let good = format!("sha256:{}", "a".repeat(64));
        assert!(check_digests([&good]).is_ok());
        for bad in ["", "sha256:a", "../../secret/manifests/latest"] {
            assert!(check_digests([&good, &bad.to_owned()]).is_err(), "{bad}");
        }
    }
}
