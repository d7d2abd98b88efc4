//! A container's environment: `env`, `envFrom`, service variables, and `$(VAR)` expansion in them
//! and in command and args. Pure; the sources of values come behind [`Values`].

use std::borrow::Cow;
use std::collections::BTreeMap;
use std::net::IpAddr;

use api::k8s_openapi::api::core::v1::{ConfigMap, Container, EnvVarSource, Pod, Secret, Service};
use thiserror::Error;

use crate::downward::{self, FieldContext};
use crate::pod::PodExt;

/// Why a container's environment cannot be made; the text is what the container's status says.
#[derive(Debug, Error, PartialEq, Eq)]
pub(crate) enum EnvError {
    #[error("configmap \"{0}\" not found")]
    NoConfigMap(String),
    #[error("secret \"{0}\" not found")]
    NoSecret(String),
    #[error("couldn't find key {key} in ConfigMap {namespace}/{name}")]
    NoConfigMapKey { key: String, namespace: String, name: String },
    #[error("couldn't find key {key} in Secret {namespace}/{name}")]
    NoSecretKey { key: String, namespace: String, name: String },
    #[error(transparent)]
    TooLong(#[from] TooLong),
    #[error(transparent)]
    Field(#[from] downward::FieldError),
    #[error("environment variable key \"{key}\" not found in file \"{path}\" of volume \"{volume}\"")]
    NoFileKey { key: String, path: String, volume: String },
    #[error("failed to read the env file \"{path}\" of volume \"{volume}\": {why}")]
    File { path: String, volume: String, why: String },
    #[error("{0}")]
    Unreadable(String),
}

/// The most that one variable or argument may hold: 32 pages, on kernels with pages of 16 KiB.
const LONGEST: usize = 512 * 1024;
/// The most that all of them may hold: Linux gives three quarters of its usual stack to them.
const ALL: usize = 6 * 1024 * 1024;

/// The kernel starts no program with it. References can double a text with each line, so that it has to be
/// found out before it is made.
#[derive(Debug, Error, PartialEq, Eq)]
#[error("argument list too long")]
pub(crate) struct TooLong;

/// What the kernel adds to each: `=`, the end of the text and a pointer to it.
const EACH: usize = 10;

/// Counts what is made for one container.
#[derive(Debug, Default)]
pub(crate) struct ArgumentBytes(usize);

impl ArgumentBytes {
    /// # Errors
    /// When the kernel takes no more.
    pub(crate) fn take(&mut self, bytes: usize) -> Result<(), TooLong> {
        self.0 += bytes + EACH;
        if bytes > LONGEST || self.0 > ALL { Err(TooLong) } else { Ok(()) }
    }
}

/// The variables that a file holds.
pub(crate) type Variables = BTreeMap<String, String>;

/// Where referenced values come from.
pub(crate) trait Values {
    /// The error says why it cannot be read: an optional one that is there is not left out.
    fn config_map(&self, name: &str) -> Result<Option<Cow<'_, ConfigMap>>, String>;
    fn secret(&self, name: &str) -> Result<Option<Cow<'_, Secret>>, String>;
    /// The variables in a file of one of the pod's volumes.
    fn volume_file(&self, volume: &str, path: &str) -> Result<Option<Cow<'_, Variables>>, String>;
}

/// Replaces `$(NAME)` by what `lookup` gives; `$$` is a literal `$`; unknown names stay as written.
///
/// # Errors
/// When the text gets longer than the kernel takes.
pub(crate) fn expand(input: &str, lookup: impl Fn(&str) -> Option<String>) -> Result<String, TooLong> {
    let mut out = String::with_capacity(input.len());
    let mut rest = input;
    while let Some(at) = rest.find('$') {
        out.push_str(&rest[..at]);
        rest = &rest[at + 1..];
        match rest.chars().next() {
            Some('$') => {
                out.push('$');
                rest = &rest[1..];
            }
            Some('(') => {
                let Some(end) = rest.find(')') else {
                    out.push_str("$(");
                    rest = &rest[1..];
                    continue;
                };
                let name = &rest[1..end];
                match lookup(name) {
                    Some(value) => out.push_str(&value),
                    None => out.push_str(&format!("$({name})")),
                }
                rest = &rest[end + 1..];
            }
            Some(_) | None => out.push('$'),
        }
        if out.len() > LONGEST {
            return Err(TooLong);
        }
    }
    out.push_str(rest);
    Ok(out)
}

/// The variables that tell a container of the services of its namespace, as Docker links did.
pub(crate) fn service_variables(services: &[Service]) -> BTreeMap<String, String> {
    let mut env = BTreeMap::new();
    for service in services {
        let Some(spec) = &service.spec else { continue };
        let Some(ip) = spec.cluster_ip.as_deref().filter(|ip| !ip.is_empty() && *ip != "None") else { continue };
        let Some(first) = spec.ports.as_ref().and_then(|p| p.first()) else { continue };
        let prefix = variable_name(service.metadata.name.as_deref().unwrap_or_default());
        env.insert(format!("{prefix}_SERVICE_HOST"), ip.to_owned());
        env.insert(format!("{prefix}_SERVICE_PORT"), first.port.to_string());
        let host = match ip.parse::<IpAddr>() {
            Ok(IpAddr::V6(v6)) => format!("[{v6}]"),
            Ok(IpAddr::V4(_)) | Err(_) => ip.to_owned(),
        };
        for (n, port) in spec.ports.iter().flatten().enumerate() {
            let protocol = port.protocol.as_deref().unwrap_or("TCP");
            let url = format!("{}://{host}:{}", protocol.to_lowercase(), port.port);
            if let Some(name) = port.name.as_deref().filter(|n| !n.is_empty()) {
                env.insert(format!("{prefix}_SERVICE_PORT_{}", variable_name(name)), port.port.to_string());
            }
            if n == 0 {
                env.insert(format!("{prefix}_PORT"), url.clone());
            }
            let link = format!("{prefix}_PORT_{}_{}", port.port, protocol.to_uppercase());
            env.insert(format!("{link}_PROTO"), protocol.to_lowercase());
            env.insert(format!("{link}_PORT"), port.port.to_string());
            env.insert(format!("{link}_ADDR"), ip.to_owned());
            env.insert(link, url);
        }
    }
    env
}

fn variable_name(name: &str) -> String {
    name.to_uppercase().replace('-', "_")
}

/// The environment of a container, in the order in which it was declared; services come last.
pub(crate) fn build(
    pod: &Pod,
    container: &Container,
    services: &BTreeMap<String, String>,
    fields: &FieldContext<'_>,
    values: &dyn Values,
) -> Result<Vec<(String, String)>, EnvError> {
    let (mut env, mut bytes) = (Declared::default(), ArgumentBytes::default());
    add_env_from(container, values, &mut env, &mut bytes)?;
    for var in container.env.iter().flatten() {
        let value = match (var.value.as_deref().filter(|v| !v.is_empty()), &var.value_from) {
            (Some(text), _) => Some(expand(text, |name| env.get(name).or_else(|| services.get(name)).cloned())?),
            (None, Some(from)) => value_from(pod, container, from, fields, values)?,
            (None, None) => Some(String::new()),
        };
        if let Some(value) = value {
            bytes.take(var.name.len() + value.len())?;
            env.set(&var.name, value);
        }
    }
    let remaining: Vec<_> =
        services.iter().filter(|(k, _)| env.get(k).is_none()).map(|(k, v)| (k.clone(), v.clone())).collect();
    env.list.extend(remaining);
    Ok(env.list)
}

/// Variables by name, in the order of their first declaration.
#[derive(Default)]
struct Declared {
    list: Vec<(String, String)>,
    index: BTreeMap<String, usize>,
}

impl Declared {
    fn get(&self, name: &str) -> Option<&String> {
        self.index.get(name).map(|&at| &self.list[at].1)
    }

    fn set(&mut self, name: &str, value: String) {
        if let Some(&at) = self.index.get(name) {
            self.list[at].1 = value;
        } else {
            self.index.insert(name.to_owned(), self.list.len());
            self.list.push((name.to_owned(), value));
        }
    }
}

fn add_env_from(
    container: &Container,
    values: &dyn Values,
    env: &mut Declared,
    bytes: &mut ArgumentBytes,
) -> Result<(), EnvError> {
    let mut add = |name: String, value: String| {
        bytes.take(name.len() + value.len())?;
        env.set(&name, value);
        Ok::<_, TooLong>(())
    };
    for from in container.env_from.iter().flatten() {
        let prefix = from.prefix.as_deref().unwrap_or_default();
        if let Some(source) = &from.config_map_ref {
            match values.config_map(&source.name).map_err(EnvError::Unreadable)? {
                Some(map) => {
                    for (k, v) in map.data.iter().flatten() {
                        add(format!("{prefix}{k}"), v.clone())?;
                    }
                }
                None if source.optional == Some(true) => {}
                None => return Err(EnvError::NoConfigMap(source.name.clone())),
            }
        }
        if let Some(source) = &from.secret_ref {
            match values.secret(&source.name).map_err(EnvError::Unreadable)? {
                Some(secret) => {
                    for (k, v) in secret.data.iter().flatten() {
                        add(format!("{prefix}{k}"), String::from_utf8_lossy(&v.0).into_owned())?;
                    }
                }
                None if source.optional == Some(true) => {}
                None => return Err(EnvError::NoSecret(source.name.clone())),
            }
        }
    }
    Ok(())
}

/// `None` when an optional reference points nowhere: the variable is left out.
fn value_from(
    pod: &Pod,
    container: &Container,
    from: &EnvVarSource,
    fields: &FieldContext<'_>,
    values: &dyn Values,
) -> Result<Option<String>, EnvError> {
    let namespace = pod.namespace();
    if let Some(field) = &from.field_ref {
        return Ok(Some(downward::env_field(pod, &field.field_path, fields)?));
    }
    if let Some(resource) = &from.resource_field_ref {
        return Ok(Some(downward::resource_field(pod, Some(container), resource, fields)?));
    }
    if let Some(source) = &from.config_map_key_ref {
        let optional = source.optional == Some(true);
        let found = values.config_map(&source.name).map_err(EnvError::Unreadable)?;
        let Some(map) = found else {
            return if optional { Ok(None) } else { Err(EnvError::NoConfigMap(source.name.clone())) };
        };
        return match map.data.as_ref().and_then(|data| data.get(&source.key)) {
            Some(value) => Ok(Some(value.clone())),
            None if optional => Ok(None),
            None => Err(EnvError::NoConfigMapKey {
                key: source.key.clone(),
                namespace: namespace.to_owned(),
                name: source.name.clone(),
            }),
        };
    }
    if let Some(source) = &from.secret_key_ref {
        let optional = source.optional == Some(true);
        let found = values.secret(&source.name).map_err(EnvError::Unreadable)?;
        let Some(secret) = found else {
            return if optional { Ok(None) } else { Err(EnvError::NoSecret(source.name.clone())) };
        };
        return match secret.data.as_ref().and_then(|data| data.get(&source.key)) {
            Some(value) => Ok(Some(String::from_utf8_lossy(&value.0).into_owned())),
            None if optional => Ok(None),
            None => Err(EnvError::NoSecretKey {
                key: source.key.clone(),
                namespace: namespace.to_owned(),
                name: source.name.clone(),
            }),
        };
    }
    if let Some(source) = &from.file_key_ref {
        let file = values.volume_file(&source.volume_name, &source.path).map_err(|why| EnvError::File {
            path: source.path.clone(),
            volume: source.volume_name.clone(),
            why,
        })?;
        let found = file.and_then(|variables| variables.get(&source.key).cloned());
        if found.is_none() && source.optional != Some(true) {
            return Err(EnvError::NoFileKey {
                key: source.key.clone(),
                path: source.path.clone(),
                volume: source.volume_name.clone(),
            });
        }
        return Ok(found);
    }
    Ok(Some(String::new()))
}

/// The variables of `KEY='value'` lines, comments and blank lines aside; the first of a name counts.
pub(crate) fn file_variables(text: &str) -> Variables {
    let mut variables = Variables::new();
    for line in text.lines().filter(|line| !line.trim_start().starts_with('#')) {
        if let Some((name, value)) = line.split_once('=') {
            variables.entry(name.trim().to_owned()).or_insert_with(|| value.trim().trim_matches('\'').to_owned());
        }
    }
    variables
}

#[cfg(test)]
mod tests;
