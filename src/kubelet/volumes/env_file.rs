//! The files that `fileKeyRef` reads variables from: written by a container of the pod, so whatever
//! may be there is expected.

use std::borrow::Cow;
use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::time::Duration;

use api::k8s_openapi::api::core::v1::{Container, FileKeySelector, Pod};
use runtime::{DiskRoom, Lane, RootDir};

use super::empty_dir;
use crate::env::{Variables, file_variables};
use crate::pod::PodExt;

/// Upstream's limit of such a file.
const BYTES_MAX: u64 = 64 * 1024;
/// Files on the node's own disk. A container with rights to mount may have put anything over them.
const DEADLINE: Duration = Duration::from_secs(10);

/// All files of one container: they may be links to one.
const ALL_MAX: usize = 1024 * 1024;

type Found = Result<Option<Variables>, String>;

/// What each file holds, by volume and path: its variables, nothing where nothing is, or why it is unusable.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct EnvFiles(BTreeMap<(String, String), Found>);

impl EnvFiles {
    pub(crate) fn get(&self, volume: &str, path: &str) -> Result<Option<Cow<'_, Variables>>, String> {
        match self.0.get(&(volume.to_owned(), path.to_owned())) {
            Some(Ok(variables)) => Ok(variables.as_ref().map(Cow::Borrowed)),
            Some(Err(why)) => Err(why.clone()),
            None => Err("it was not read".to_owned()),
        }
    }
}

/// Reads all files that the container's variables name.
pub(crate) async fn read(disk: &DiskRoom, pod: &Pod, container: &Container, pod_dir: &Path) -> EnvFiles {
    let sources = container.env.iter().flatten().filter_map(|v| v.value_from.as_ref()?.file_key_ref.as_ref());
    let mut files = BTreeMap::new();
    let mut wanted = BTreeMap::new();
    for source in sources {
        let key = (source.volume_name.clone(), source.path.clone());
        match volume(pod, source, pod_dir) {
            Ok(dir) => drop(wanted.insert(key, dir)),
            Err(why) => drop(files.insert(key, Err(why))),
        }
    }
    if wanted.is_empty() {
        return EnvFiles(files);
    }
    let keys: Vec<_> = wanted.keys().cloned().collect();
    let work = move || -> Vec<_> {
        let mut left = ALL_MAX;
        wanted
            .into_iter()
            .map(|((volume, path), dir)| ((volume, path.clone()), variables(&dir, &path, &mut left)))
            .collect()
    };
    match disk.run(Lane::Pod, pod.uid(), DEADLINE, work).await {
        Ok(read) => files.extend(read),
        Err(e) => files.extend(keys.into_iter().map(|key| (key, Err(e.to_string())))),
    }
    EnvFiles(files)
}

/// Only an emptyDir holds such files. Admission says so, too.
fn volume(pod: &Pod, source: &FileKeySelector, pod_dir: &Path) -> Result<PathBuf, String> {
    let volume = pod.spec().volumes.iter().flatten().find(|v| v.name == source.volume_name);
    match volume {
        Some(volume) if volume.empty_dir.is_some() => Ok(empty_dir::path(pod_dir, &volume.name)),
        Some(_) => Err("the volume is not an emptyDir".to_owned()),
        None => Err("no such volume".to_owned()),
    }
}

fn variables(volume: &Path, path: &str, left: &mut usize) -> Found {
    let Some(text) = text(volume, path)? else { return Ok(None) };
    *left = left.checked_sub(text.len()).ok_or("the files of the container's variables are larger than 1 MiB")?;
    Ok(Some(file_variables(&text)))
}

fn text(volume: &Path, path: &str) -> Result<Option<String>, String> {
    use std::io::Read as _;
    let file = match RootDir::open(volume).and_then(|root| root.file(Path::new(path))) {
        Ok(file) => file,
        Err(e) if e.kind() == std::io::ErrorKind::NotFound => return Ok(None),
        Err(e) => return Err(e.to_string()),
    };
    let mut text = String::new();
    let read = file.take(BYTES_MAX + 1).read_to_string(&mut text).map_err(|e| e.to_string())?;
    if read as u64 > BYTES_MAX { Err("the file is larger than 64 KiB".to_owned()) } else { Ok(Some(text)) }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::fixtures::pod;
    use serde_json::json;
    use std::fs;
    use std::os::unix::fs::symlink;

    fn variable(path: &str, volume: &str) -> serde_json::Value {
        json!({"name": "X", "valueFrom": {"fileKeyRef": {"volumeName": volume, "path": path, "key": "K"}}})
    }

    #[tokio::test]
    async fn neither_pipes_nor_links_lead_out_and_nothing_waits() {
        let dir = tempfile::tempdir().unwrap();
        let volume = empty_dir::path(dir.path(), "v");
        fs::create_dir_all(&volume).unwrap();
        fs::write(dir.path().join("host"), "K=secret\n").unwrap();
        fs::write(volume.join("good"), "K=1\n").unwrap();
        fs::write(volume.join("large"), vec![b'x'; 70_000]).unwrap();
        symlink(dir.path().join("host"), volume.join("absolute")).unwrap();
        symlink("../../../host", volume.join("relative")).unwrap();
        symlink("good", volume.join("inner")).unwrap();
        nix::unistd::mkfifo(&volume.join("fifo"), nix::sys::stat::Mode::S_IRWXU).unwrap();
        let paths = ["good", "inner", "absolute", "relative", "fifo", "large", "absent"];
        let mut env: Vec<_> = paths.iter().map(|path| variable(path, "v")).collect();
        env.push(variable("good", "host"));
        let pod = pod(json!({"volumes": [{"name": "v", "emptyDir": {}}, {"name": "host", "hostPath": {"path": "/"}}],
            "containers": [{"name": "a", "env": env}]}));
        let files = read(&DiskRoom::default(), &pod, &pod.spec().containers[0], dir.path()).await;
        let text = |path: &str| files.get("v", path).map(|found| found.map(|file| file["K"].clone()));
        assert_eq!(text("good"), Ok(Some("1".to_owned())));
        assert_eq!(text("inner"), Ok(Some("1".to_owned())));
        for path in ["absolute", "relative", "absent"] {
            assert_eq!(text(path), Ok(None), "{path}");
        }
        assert_eq!(text("fifo"), Err("not a regular file".to_owned()));
        assert_eq!(text("large"), Err("the file is larger than 64 KiB".to_owned()));
        assert_eq!(files.get("host", "good"), Err("the volume is not an emptyDir".to_owned()));
    }

    #[tokio::test]
    async fn many_files_are_too_much() {
        let dir = tempfile::tempdir().unwrap();
        let volume = empty_dir::path(dir.path(), "v");
        fs::create_dir_all(&volume).unwrap();
        fs::write(volume.join("f"), format!("K=1\n{}", "#".repeat(60_000))).unwrap();
        let names: Vec<_> = (10..30).map(|n| format!("f{n}")).collect();
        for name in &names {
            fs::hard_link(volume.join("f"), volume.join(name)).unwrap();
        }
        let env: Vec<_> = names.iter().map(|name| variable(name, "v")).collect();
        let pod = pod(json!({"volumes": [{"name": "v", "emptyDir": {}}], "containers": [{"name": "a", "env": env}]}));
        let files = read(&DiskRoom::default(), &pod, &pod.spec().containers[0], dir.path()).await;
        assert!(files.get("v", "f26").is_ok_and(|found| found.is_some_and(|file| file["K"] == "1")));
        let over = "the files of the container's variables are larger than 1 MiB";
        assert_eq!(files.get("v", "f29"), Err(over.to_owned()));
    }
}
