//! The files of configMap, secret, downwardAPI and projected volumes, from the objects of the cluster.

use api::k8s_openapi::api::core::v1::{ConfigMap, DownwardAPIVolumeFile, Pod, ProjectedVolumeSource, Secret, Volume};

use super::payload::{self, BytesLeft, Payload, PayloadError, Selection};
use super::{Setup, Tokens, fs_group};
use crate::pod::PodExt;
use crate::sources::object_bytes;

/// Fetches the tokens of a volume, so that nobody waits for the API server while others wait for their turn.
pub(super) async fn fetch_tokens(cx: &Setup<'_>, volume: &Volume, tokens: &mut Tokens) -> Result<(), String> {
    for source in volume.projected.iter().flat_map(|projected| projected.sources.iter().flatten()) {
        if let Some(source) = &source.service_account_token {
            tokens.get(cx, source).await?;
        }
    }
    Ok(())
}

/// The bytes of what a pod says of itself at length.
pub(super) fn bytes_of_metadata(pod: &Pod) -> usize {
    let texts = [&pod.metadata.annotations, &pod.metadata.labels];
    texts.into_iter().flatten().flatten().map(|(key, value)| key.len() + value.len()).sum()
}

/// About as many bytes as the files of a volume are made from; `metadata` of them for each field of the pod.
pub(super) fn bytes_of_sources(cx: &Setup<'_>, volume: &Volume, metadata: usize) -> usize {
    let namespace = cx.pod.namespace();
    let map = |name: &str| object_bytes::<ConfigMap>(cx.cluster, namespace, name);
    let secret = |name: &str| object_bytes::<Secret>(cx.cluster, namespace, name);
    let fields = |items: Option<&Vec<DownwardAPIVolumeFile>>| items.map_or(0, |items| items.len() * (1 + metadata));
    let of_projected = volume.projected.iter().flat_map(|projected| projected.sources.iter().flatten()).map(|source| {
        source.config_map.as_ref().map_or(0, |s| map(&s.name))
            + source.secret.as_ref().map_or(0, |s| secret(&s.name))
            + fields(source.downward_api.as_ref().and_then(|s| s.items.as_ref()))
            + usize::from(source.service_account_token.is_some())
    });
    volume.config_map.as_ref().map_or(0, |s| map(&s.name))
        + volume.secret.as_ref().map_or(0, |s| secret(s.secret_name.as_deref().unwrap_or_default()))
        + fields(volume.downward_api.as_ref().and_then(|s| s.items.as_ref()))
        + of_projected.sum::<usize>()
}

/// The plugin's name and the files of a volume that is made of files; `None` for other kinds.
pub(super) async fn of(
    cx: &Setup<'_>,
    volume: &Volume,
    tokens: &mut Tokens,
    left: &mut BytesLeft,
) -> Result<Option<(&'static str, Payload)>, String> {
    let text = |e: PayloadError| e.to_string();
    let namespace = cx.pod.namespace();
    let mut out = Payload::default();
    if let Some(source) = &volume.config_map {
        let map = left.objects.read::<ConfigMap>(cx.cluster, namespace, &source.name).await?;
        payload::config_map(&source.name, map, Selection::of_config_map(source), &mut out).map_err(text)?;
        return Ok(Some(("configmap", out)));
    }
    if let Some(source) = &volume.secret {
        let name = source.secret_name.as_deref().unwrap_or_default();
        let secret = left.objects.read::<Secret>(cx.cluster, namespace, name).await?;
        payload::secret(name, secret, Selection::of_secret(source), &mut out).map_err(text)?;
        return Ok(Some(("secret", out)));
    }
    if let Some(source) = &volume.downward_api {
        let mode = payload::mode(source.default_mode, payload::DEFAULT_MODE);
        let items = source.items.as_deref().unwrap_or_default();
        payload::downward_api(cx.pod, items, mode, cx.fields, &mut out).map_err(text)?;
        return Ok(Some(("downward-api", out)));
    }
    if let Some(source) = &volume.projected {
        projected(cx, source, tokens, left, &mut out).await?;
        return Ok(Some(("projected", out)));
    }
    Ok(None)
}

async fn projected(
    cx: &Setup<'_>,
    volume: &ProjectedVolumeSource,
    tokens: &mut Tokens,
    left: &mut BytesLeft,
    out: &mut Payload,
) -> Result<(), String> {
    let namespace = cx.pod.namespace();
    let default_mode = payload::mode(volume.default_mode, payload::DEFAULT_MODE);
    for source in volume.sources.iter().flatten() {
        if let Some(s) = &source.config_map {
            let selection = Selection { items: s.items.as_deref(), default_mode, optional: s.optional == Some(true) };
            let map = left.objects.read::<ConfigMap>(cx.cluster, namespace, &s.name).await?;
            payload::config_map(&s.name, map, selection, out).map_err(|e| e.to_string())?;
        }
        if let Some(s) = &source.secret {
            let selection = Selection { items: s.items.as_deref(), default_mode, optional: s.optional == Some(true) };
            let secret = left.objects.read::<Secret>(cx.cluster, namespace, &s.name).await?;
            payload::secret(&s.name, secret, selection, out).map_err(|e| e.to_string())?;
        }
        if let Some(s) = &source.downward_api {
            payload::downward_api(cx.pod, s.items.as_deref().unwrap_or_default(), default_mode, cx.fields, out)
                .map_err(|e| e.to_string())?;
        }
        if let Some(s) = &source.service_account_token {
            let token = tokens.get(cx, s).await?;
            let user = fs_user(cx.pod);
            let private = user.is_some() || fs_group(cx.pod, true).is_some();
            let mode = if private { 0o600 } else { default_mode };
            out.add(&s.path, token.into(), mode).map_err(|e| e.to_string())?.uid = user;
        }
        if source.cluster_trust_bundle.is_some() || source.pod_certificate.is_some() {
            return Err("the projected volume source is not supported on this node".to_owned());
        }
    }
    Ok(())
}

/// The user of all containers, when they share one.
fn fs_user(pod: &Pod) -> Option<u32> {
    let default = pod.spec().security_context.as_ref().and_then(|s| s.run_as_user);
    let mut users =
        pod.containers().into_iter().map(|(_, c)| c.security_context.as_ref().and_then(|s| s.run_as_user).or(default));
    let first = users.next()??;
    users.all(|u| u == Some(first)).then(|| u32::try_from(first).ok()).flatten()
}
