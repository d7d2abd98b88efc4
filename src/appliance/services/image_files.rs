//! Image archives in `<data-dir>/images`, imported before the first pod starts: boards without a
//! network, and images baked into an SD card. Their images are pinned: the kubelet never removes them for
//! want of space, as the node may have no other way to get them. A start after the archive has gone lets
//! its images go.

use std::collections::{BTreeMap, BTreeSet};
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};

use anyhow::Context;
use runtime::Runtime;
use serde::{Deserialize, Serialize};
use statefile::Durability;
use tracing::{info, warn};

const ENDINGS: [&str; 4] = [".tar", ".tar.gz", ".tgz", ".tar.zst"];

/// What was imported from which file, so that a start with unchanged files reads none of them.
#[derive(Debug, Default, Deserialize, PartialEq, Serialize)]
struct Imported(BTreeMap<String, Entry>);

impl Imported {
    fn images(&self) -> BTreeSet<String> {
        self.0.values().flat_map(|entry| entry.images.iter().cloned()).collect()
    }
}

#[derive(Clone, Debug, Deserialize, PartialEq, Serialize)]
struct Entry {
    size: u64,
    modified: i64,
    /// Ids of the images; one that was removed since is imported again.
    images: Vec<String>,
}

/// Imports what is new. A file that cannot be imported is reported and left alone: the node must
/// start without it.
pub(super) async fn import(runtime: &Runtime, directory: &Path, record: &Path) {
    let before = read_record(record);
    let mut after = Imported::default();
    for path in archives(directory) {
        match import_file(runtime, &path, &before).await {
            Ok((name, entry)) => {
                after.0.insert(name, entry);
            }
            Err(e) => warn!(file = %path.display(), "image archive not imported: {e:#}"),
        }
    }
    runtime.pin_images(after.images());
    if let Err(e) = write_record(record, &after) {
        warn!("the record of imported images could not be written: {e:#}");
    }
}

async fn import_file(runtime: &Runtime, path: &Path, before: &Imported) -> anyhow::Result<(String, Entry)> {
    // What is no file has no images, and would hold up who reads it.
    let metadata = statefile::open_file(path).and_then(|file| file.metadata()).context("reading its metadata")?;
    let name = path.file_name().context("it has no name")?.to_string_lossy().into_owned();
    let (size, modified) = (metadata.len(), metadata.mtime());
    let known = before.0.get(&name).filter(|e| e.size == size && e.modified == modified);
    if let Some(entry) = known.filter(|e| e.images.iter().all(|id| runtime.image_status(id).is_some())) {
        return Ok((name, entry.clone()));
    }
    let images = runtime.import_tarball(path).await?;
    info!(file = name, tags = ?images.iter().flat_map(|i| &i.tags).collect::<Vec<_>>(), "image archive imported");
    Ok((name, Entry { size, modified, images: images.into_iter().map(|i| i.id).collect() }))
}

fn archives(directory: &Path) -> Vec<PathBuf> {
    let Ok(entries) = std::fs::read_dir(directory) else { return Vec::new() };
    let is_archive = |p: &PathBuf| ENDINGS.iter().any(|e| p.to_string_lossy().ends_with(e));
    let mut found: Vec<PathBuf> = entries.filter_map(|e| Some(e.ok()?.path())).filter(is_archive).collect();
    found.sort();
    found
}

/// Without a readable record everything is imported again, which does no harm.
fn read_record(record: &Path) -> Imported {
    let read = || -> anyhow::Result<Option<Imported>> {
        let Some(file) = statefile::read_optional(record)? else { return Ok(None) };
        Ok(Some(serde_json::from_slice(statefile::open(&file)?)?))
    };
    read().unwrap_or_else(|e| {
        warn!(path = %record.display(), "the record of imported images is unreadable, all are imported again: {e:#}");
        None
    }).unwrap_or_default()
}

/// Writes what is not there yet, or was written by a release that gave it no checksum.
fn write_record(record: &Path, imported: &Imported) -> anyhow::Result<()> {
    let sealed = statefile::seal(&serde_json::to_string(imported)?);
    match statefile::read_optional(record) {
        Ok(None) if imported.0.is_empty() => return Ok(()),
        Ok(Some(known)) if known == sealed => return Ok(()),
        Ok(_) | Err(_) => {}
    }
    statefile::replace(record, &sealed, Durability::Synced).with_context(|| format!("writing {}", record.display()))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_record_is_read_as_all_releases_wrote_it_and_not_when_it_is_damaged() {
        let directory = tempfile::tempdir().unwrap();
        let record = directory.path().join("imported.json");
        let entry = Entry { size: 1, modified: 2, images: vec!["sha256:a".to_owned()] };
        let imported = Imported(BTreeMap::from([("app.tar".to_owned(), entry)]));
        assert_eq!(read_record(&record), Imported::default());
        std::fs::write(&record, r#"{"app.tar":{"size":1,"modified":2,"images":["sha256:a"]}}"#).unwrap();
        assert_eq!(read_record(&record), imported);
        write_record(&record, &imported).unwrap();
        assert!(statefile::open(&std::fs::read(&record).unwrap()).is_ok_and(|r| r.starts_with(b"{\"app.tar\"")));
        assert_eq!(read_record(&record), imported);
        let flipped = std::fs::read_to_string(&record).unwrap().replacen("sha256:a", "sha256:c", 1);
        std::fs::write(&record, flipped).unwrap();
        assert_eq!(read_record(&record), Imported::default());
    }

    #[test]
    fn all_images_of_all_archives_are_pinned() {
        let entry =
            |images: &[&str]| Entry { size: 1, modified: 2, images: images.iter().map(|&i| i.into()).collect() };
        let files = [("a.tar", entry(&["sha256:1", "sha256:2"])), ("b.tar", entry(&["sha256:2", "sha256:3"]))];
        let imported = Imported(files.into_iter().map(|(name, entry)| (name.to_owned(), entry)).collect());
        assert_eq!(imported.images().into_iter().collect::<Vec<_>>(), ["sha256:1", "sha256:2", "sha256:3"]);
        assert!(Imported::default().images().is_empty());
    }
}
