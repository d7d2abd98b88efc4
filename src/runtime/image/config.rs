//! The configuration blob of an image: its platform, its layers, and what a container runs by default.
//!
//! It is a registry's to choose, and what is kept of it stays in memory and in the index of images. Lists are
//! bounded while they are decoded, because empty elements take thirty times the bytes that they are sent with.

use std::collections::BTreeMap;
use std::fmt;

use serde::de::{self, DeserializeOwned, IgnoredAny, MapAccess, SeqAccess, Visitor};
use serde::{Deserialize, Deserializer, Serialize};

/// The kernel stacks 500; the empty ones between them take no place. Each costs memory from here on.
pub(super) const LAYERS_MAX: usize = 1000;
/// Of what is kept of a configuration. A program gets 128 KiB in one argument, and few MiB in all.
const KEPT_MAX: usize = 128 << 10;
/// What an element takes beside its bytes.
const KEPT_EACH: usize = 64;
const TOO_LARGE: &str = "the image's configuration has more than 128 KiB of variables, arguments and volumes";

/// The parts of an OCI image configuration that are used here; the digest of the whole is the image's id.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct ImageConfig {
    pub architecture: String,
    pub config: ProcessDefaults,
    pub rootfs: RootFs,
}

/// What a container runs unless the pod says otherwise. Records of earlier releases may have more than is taken now.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "PascalCase")]
pub(crate) struct ProcessDefaults {
    #[serde(default)]
    pub user: String,
    #[serde(default, deserialize_with = "null_is_default")]
    pub env: Vec<String>,
    #[serde(default, deserialize_with = "null_is_default")]
    pub entrypoint: Vec<String>,
    #[serde(default, deserialize_with = "null_is_default")]
    pub cmd: Vec<String>,
    #[serde(default)]
    pub working_dir: String,
    #[serde(default)]
    pub stop_signal: Option<String>,
    /// Directories that get a writable volume of the container's own.
    #[serde(default, deserialize_with = "null_is_default")]
    pub volumes: BTreeMap<String, Empty>,
}

/// The value of each volume in an image's configuration.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Empty {}

#[derive(Clone, Debug, Default, PartialEq, Eq, Deserialize)]
pub(crate) struct RootFs {
    /// Digests of the uncompressed layers, lowest first.
    #[serde(default, deserialize_with = "layers")]
    pub diff_ids: Vec<String>,
}

/// The blob as it is sent.
#[derive(Deserialize)]
struct Blob {
    #[serde(default)]
    architecture: String,
    config: Option<Process>,
    rootfs: RootFs,
}

#[derive(Default, Deserialize)]
#[serde(rename_all = "PascalCase")]
struct Process {
    #[serde(default)]
    user: String,
    #[serde(default, deserialize_with = "kept")]
    env: Vec<String>,
    #[serde(default, deserialize_with = "kept")]
    entrypoint: Vec<String>,
    #[serde(default, deserialize_with = "kept")]
    cmd: Vec<String>,
    #[serde(default)]
    working_dir: String,
    stop_signal: Option<String>,
    #[serde(default, deserialize_with = "kept")]
    volumes: Vec<String>,
}

impl ImageConfig {
    /// Fails for what is no configuration, and for one that is too large to keep.
    pub(crate) fn parse(json: &[u8]) -> Result<Self, String> {
        let failed = |reason: &dyn fmt::Display| format!("read image configuration: {reason}");
        let blob = serde_json::from_slice::<Blob>(json).map_err(|error| failed(&error))?;
        let Process { user, env, entrypoint, cmd, working_dir, stop_signal, volumes } = blob.config.unwrap_or_default();
        let texts = [&blob.architecture, &user, &working_dir].into_iter().chain(&stop_signal);
        let all = texts.chain(&env).chain(&entrypoint).chain(&cmd).chain(&volumes);
        if all.map(|text| text.len() + KEPT_EACH).sum::<usize>() > KEPT_MAX {
            return Err(failed(&TOO_LARGE));
        }
        let volumes = volumes.into_iter().map(|path| (path, Empty {})).collect();
        let config = ProcessDefaults { user, env, entrypoint, cmd, working_dir, stop_signal, volumes };
        Ok(Self { architecture: blob.architecture, config, rootfs: blob.rootfs })
    }
}

/// The elements of a list or the keys of a map, as many as are kept of a configuration.
fn kept<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Vec<String>, D::Error> {
    deserializer.deserialize_any(Texts { bytes: KEPT_MAX, count: usize::MAX, error: TOO_LARGE })
}

fn layers<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Vec<String>, D::Error> {
    let error = "the image has more than 1000 layers";
    deserializer.deserialize_any(Texts { bytes: LAYERS_MAX * 256, count: LAYERS_MAX, error })
}

/// Fails as soon as there is more than it takes.
struct Texts {
    bytes: usize,
    count: usize,
    error: &'static str,
}

impl Texts {
    fn take<E: de::Error>(&mut self, text: &str) -> Result<(), E> {
        let left = (self.bytes.checked_sub(text.len() + KEPT_EACH), self.count.checked_sub(1));
        let (Some(bytes), Some(count)) = left else { return Err(E::custom(self.error)) };
        (self.bytes, self.count) = (bytes, count);
        Ok(())
    }
}

impl<'de> Visitor<'de> for Texts {
    type Value = Vec<String>;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("a list of texts")
    }

    fn visit_unit<E: de::Error>(self) -> Result<Vec<String>, E> {
        Ok(Vec::new())
    }

    fn visit_seq<A: SeqAccess<'de>>(mut self, mut elements: A) -> Result<Vec<String>, A::Error> {
        let mut texts = Vec::new();
        while let Some(text) = elements.next_element::<String>()? {
            self.take(&text)?;
            texts.push(text);
        }
        Ok(texts)
    }

    fn visit_map<A: MapAccess<'de>>(mut self, mut entries: A) -> Result<Vec<String>, A::Error> {
        let mut texts = Vec::new();
        while let Some((text, IgnoredAny)) = entries.next_entry::<String, IgnoredAny>()? {
            self.take(&text)?;
            texts.push(text);
        }
        Ok(texts)
    }
}

/// A list that an image's layers or its platforms may have, or none.
pub(super) fn few<'de, D, T>(deserializer: D) -> Result<Option<Vec<T>>, D::Error>
where
    D: Deserializer<'de>,
    T: DeserializeOwned,
{
    struct Few<T>(std::marker::PhantomData<T>);

    impl<'de, T: DeserializeOwned> Visitor<'de> for Few<T> {
        type Value = Option<Vec<T>>;

        fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
            f.write_str("a list")
        }

        fn visit_unit<E: de::Error>(self) -> Result<Option<Vec<T>>, E> {
            Ok(None)
        }

        fn visit_seq<A: SeqAccess<'de>>(self, mut elements: A) -> Result<Option<Vec<T>>, A::Error> {
            let mut list = Vec::new();
            while let Some(element) = elements.next_element()? {
                if list.len() == LAYERS_MAX {
                    return Err(de::Error::custom(format_args!("a list has more than {LAYERS_MAX} elements")));
                }
                list.push(element);
            }
            Ok(Some(list))
        }
    }

    deserializer.deserialize_any(Few(std::marker::PhantomData))
}

fn null_is_default<'de, D, T>(deserializer: D) -> Result<T, D::Error>
where
    D: Deserializer<'de>,
    T: Default + Deserialize<'de>,
{
    Ok(Option::deserialize(deserializer)?.unwrap_or_default())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn parse(config: &str) -> Result<ProcessDefaults, String> {
        let blob = format!(r#"{{"history": [{{}}], "config": {config}, "rootfs": {{"diff_ids": ["a"]}}}}"#);
        ImageConfig::parse(blob.as_bytes()).map(|image| image.config)
    }

    fn repeated(before: &str, element: &str, count: usize, after: &str) -> String {
        format!("{before}{}{after}", vec![element; count].join(","))
    }

    #[test]
    fn what_a_container_runs_is_read() {
        assert_eq!(parse("null").unwrap(), ProcessDefaults::default());
        let read = parse(
            r#"{"User": "u", "Env": ["A=b"], "Cmd": null, "Entrypoint": ["e", "f"], "Volumes": {"/v": {}, "/w": null},
                "Labels": {"x": "y"}, "StopSignal": "SIGINT", "WorkingDir": "/"}"#,
        );
        let expected = ProcessDefaults {
            user: "u".to_owned(),
            env: vec!["A=b".to_owned()],
            entrypoint: vec!["e".to_owned(), "f".to_owned()],
            cmd: Vec::new(),
            working_dir: "/".to_owned(),
            stop_signal: Some("SIGINT".to_owned()),
            volumes: ["/v", "/w"].map(|path| (path.to_owned(), Empty {})).into(),
        };
        assert_eq!(read.unwrap(), expected);
    }

    #[test]
    fn what_is_too_large_to_keep_is_refused_before_it_is_decoded() {
        let whole = parse(&repeated(r#"{"Env": ["#, r#""""#, 2044, "]}"));
        assert_eq!(whole.unwrap().env.len(), 2044);
        let text = format!("\"{}\"", "x".repeat(KEPT_MAX));
        for config in [
            repeated(r#"{"Env": ["#, r#""""#, 2_800_000, "]}"),
            repeated(r#"{"Cmd": ["#, r#""""#, 2049, "]}"),
            repeated(r#"{"Entrypoint": ["#, &text, 1, "]}"),
            repeated(r#"{"Volumes": {"#, r#""":{}"#, 660_000, "}}"),
            repeated(r#"{"Env": ["#, r#""""#, 2000, &repeated(r#"], "Cmd": ["#, r#""""#, 100, "]}")),
            format!("{{\"User\": {text}}}"),
            format!("{{\"WorkingDir\": {text}}}"),
            format!("{{\"StopSignal\": {text}}}"),
        ] {
            let error = parse(&config).unwrap_err();
            assert!(error.starts_with(&format!("read image configuration: {TOO_LARGE}")), "{error}");
            // It ends there, long before the list does.
            let column = error.rsplit(' ').next().and_then(|word| word.parse::<usize>().ok());
            assert!(column.is_none_or(|column| column < 2 * KEPT_MAX), "{error}");
        }
        let blob = |count| repeated(r#"{"rootfs": {"diff_ids": ["#, r#""""#, count, "]}}");
        assert!(ImageConfig::parse(blob(LAYERS_MAX).as_bytes()).is_ok());
        let error = ImageConfig::parse(blob(2_000_000).as_bytes()).unwrap_err();
        assert!(error.contains("the image has more than 1000 layers at line 1"), "{error}");
    }

    #[test]
    fn records_of_earlier_releases_may_have_more() {
        let record = repeated(r#"{"Env": ["#, r#""""#, 5000, "]}");
        assert_eq!(serde_json::from_str::<ProcessDefaults>(&record).unwrap().env.len(), 5000);
    }
}
