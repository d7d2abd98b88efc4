//! Who a container's process runs as, from the pod's wish, the image's `USER` and the image's own
//! /etc/passwd and /etc/group.

use std::fs;
use std::io::ErrorKind;
use std::os::unix::fs::{FileTypeExt as _, MetadataExt as _};
use std::path::Path;

use crate::error::{Error, IoContext, Result};
use crate::sys::rootdir::RootDir;
use crate::types::Security;

/// More than any sane /etc/passwd; a hostile image must not fill our memory.
const FILE_MAX: u64 = 4 << 20;

#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct User {
    pub uid: u32,
    pub gid: u32,
    /// Sorted, without duplicates.
    pub groups: Vec<u32>,
    pub home: String,
}

/// The user data base of an image.
#[derive(Clone, Debug, Default)]
pub(crate) struct Accounts {
    passwd: Vec<Account>,
    groups: Vec<Group>,
}

#[derive(Clone, Debug)]
struct Account {
    name: String,
    uid: u32,
    gid: u32,
    home: String,
}

#[derive(Clone, Debug)]
struct Group {
    name: String,
    gid: u32,
    members: Vec<String>,
}

impl Accounts {
    pub(crate) fn read(rootfs: &Path) -> Result<Self> {
        let root = RootDir::open(rootfs).at("open", rootfs)?;
        let file = |name: &str| -> Result<String> {
            let bytes = root.read(Path::new(name), FILE_MAX).at("read", &rootfs.join(name))?;
            Ok(bytes.map(|bytes| String::from_utf8_lossy(&bytes).into_owned()).unwrap_or_default())
        };
        Ok(Self::parse(&file("etc/passwd")?, &file("etc/group")?))
    }

    fn parse(passwd: &str, group: &str) -> Self {
        let account = |line: &str| {
            let mut fields = line.split(':');
            let name = fields.next()?.to_owned();
            let (uid, gid) = (fields.nth(1)?.parse().ok()?, fields.next()?.parse().ok()?);
            Some(Account { name, uid, gid, home: fields.nth(1).unwrap_or("").to_owned() })
        };
        let group_entry = |line: &str| {
            let mut fields = line.split(':');
            let name = fields.next()?.to_owned();
            let gid = fields.nth(1)?.parse().ok()?;
            let members = fields.next().unwrap_or("").split(',').filter(|m| !m.is_empty()).map(str::to_owned);
            Some(Group { name, gid, members: members.collect() })
        };
        Self {
            passwd: passwd.lines().filter_map(account).collect(),
            groups: group.lines().filter_map(group_entry).collect(),
        }
    }

    /// Resolves the pod's wish over the image's `USER` (`name`, `uid`, `name:group`, `uid:gid`).
    pub(crate) fn resolve(&self, security: &Security, image_user: &str) -> Result<User> {
        let (image_user, image_group) = match image_user.split_once(':') {
            Some((user, group)) => (user, Some(group)),
            None => (image_user, None),
        };
        let (uid, account) = match (security.run_as_user, image_user) {
            (Some(uid), _) => (uid, self.passwd.iter().find(|account| account.uid == uid)),
            (None, "") => (0, self.passwd.iter().find(|account| account.uid == 0)),
            (None, name) => self.account(name)?,
        };
        let image_group = image_group.filter(|_| security.run_as_user.is_none());
        let gid = match (security.run_as_group, image_group) {
            (Some(gid), _) => gid,
            (None, Some(group)) => self.group(group)?,
            (None, None) => account.map_or(0, |account| account.gid),
        };
        let mut groups = security.supplemental_groups.clone();
        groups.push(gid);
        if let Some(account) = account.filter(|_| !security.strict_supplemental_groups) {
            let member = |group: &&Group| group.members.contains(&account.name);
            groups.extend(self.groups.iter().filter(member).map(|group| group.gid));
        }
        groups.sort_unstable();
        groups.dedup();
        let home = account.map(|account| account.home.as_str()).filter(|home| !home.is_empty()).unwrap_or("/");
        Ok(User { uid, gid, groups, home: home.to_owned() })
    }

    fn account(&self, name: &str) -> Result<(u32, Option<&Account>)> {
        if let Some(account) = self.passwd.iter().find(|account| account.name == name) {
            return Ok((account.uid, Some(account)));
        }
        match name.parse() {
            Ok(uid) => Ok((uid, self.passwd.iter().find(|account| account.uid == uid))),
            Err(_) => Err(Error::Start(format!("unable to find user {name}: no matching entries in passwd file"))),
        }
    }

    fn group(&self, name: &str) -> Result<u32> {
        let known = self.groups.iter().find(|group| group.name == name).map(|group| group.gid);
        known
            .or_else(|| name.parse().ok())
            .ok_or_else(|| Error::Start(format!("unable to find group {name}: no matching entries in group file")))
    }
}

/// Refuses a `USER` of the image that its layers, lowest first, do not know, before anything is made for it.
/// What cannot be told without a mount of the layers is left to the start.
///
/// # Errors
/// When there is no such user or group.
pub(crate) fn check_image_user(layer_dir: &Path, layers: &[String], security: &Security, user: &str) -> Result<()> {
    let is_name = |part: &str| !part.is_empty() && part.parse::<u32>().is_err();
    if security.run_as_user.is_some() || !user.splitn(2, ':').any(is_name) {
        return Ok(());
    }
    let file = |name: &str| find_in_layers(layer_dir, layers, name);
    let (Some(passwd), Some(group)) = (file("passwd"), file("group")) else { return Ok(()) };
    let resolved = Accounts::parse(&passwd, &group).resolve(security, user);
    resolved.map(drop).map_err(|e| Error::Invalid(format!("failed to generate container spec: {e}")))
}

/// A file of `/etc` as the layers together have it; an empty text where they have none. `None` where a link,
/// which may lead into another layer, or an error is in the way.
fn find_in_layers(layer_dir: &Path, layers: &[String], name: &str) -> Option<String> {
    for layer in layers.iter().rev() {
        let root = layer_dir.join(layer);
        for path in [Path::new("etc").to_owned(), Path::new("etc").join(name)] {
            let kind = match fs::symlink_metadata(root.join(&path)) {
                Ok(found) if found.is_dir() => continue,
                // It was deleted here.
                Ok(found) if found.file_type().is_char_device() && found.rdev() == 0 => return Some(String::new()),
                Ok(found) => found.file_type(),
                Err(error) if error.kind() == ErrorKind::NotFound => break,
                Err(_) => return None,
            };
            if !kind.is_file() {
                return None;
            }
            let bytes = RootDir::open(&root).and_then(|root| root.read(&path, FILE_MAX)).ok()??;
            return Some(String::from_utf8_lossy(&bytes).into_owned());
        }
    }
    Some(String::new())
}

#[cfg(test)]
mod tests {
    use super::*;

    const PASSWD: &str = "root:x:0:0:root:/root:/bin/sh\nweb:x:33:34::/var/www:/bin/false\nbroken\n";
    const GROUP: &str = "root:x:0:\nlog:x:4:web,other\nstaff:x:50:\n";

    #[track_caller]
    fn check(security: &Security, image: &str, uid: u32, gid: u32, groups: &[u32], home: &str) {
        let user = Accounts::parse(PASSWD, GROUP).resolve(security, image).unwrap();
        assert_eq!(user, User { uid, gid, groups: groups.to_vec(), home: home.to_owned() });
    }

    #[test]
    fn pod_wins_over_image_and_accounts_fill_the_rest() {
        let nobody_asked = Security::default();
        check(&nobody_asked, "", 0, 0, &[0], "/root");
        check(&nobody_asked, "web", 33, 34, &[4, 34], "/var/www");
        check(&nobody_asked, "33", 33, 34, &[4, 34], "/var/www");
        check(&nobody_asked, "1000", 1000, 0, &[0], "/");
        check(&nobody_asked, "web:staff", 33, 50, &[4, 50], "/var/www");
        check(&nobody_asked, "1000:1001", 1000, 1001, &[1001], "/");
        let pod = Security { run_as_user: Some(33), supplemental_groups: vec![2000, 4], ..Security::default() };
        check(&pod, "root:staff", 33, 34, &[4, 34, 2000], "/var/www");
        let strict = Security { strict_supplemental_groups: true, run_as_group: Some(7), ..Security::default() };
        check(&strict, "web", 33, 7, &[7], "/var/www");
    }

    #[test]
    fn unknown_names_fail() {
        let accounts = Accounts::parse(PASSWD, GROUP);
        let error = accounts.resolve(&Security::default(), "ghost").unwrap_err();
        assert_eq!(error.to_string(), "unable to find user ghost: no matching entries in passwd file");
        assert!(accounts.resolve(&Security::default(), "web:ghosts").is_err());
    }

    #[test]
    fn an_images_user_is_looked_up_in_its_layers() {
        let dir = tempfile::tempdir().unwrap();
        let write = |path: &str, text: &str| {
            let path = dir.path().join(path);
            fs::create_dir_all(path.parent().unwrap()).unwrap();
            fs::write(path, text).unwrap();
        };
        write("base/etc/passwd", "root:x:0:0::/root:/bin/sh\n");
        write("base/etc/group", GROUP);
        write("top/etc/passwd", PASSWD);
        write("empty/usr/x", "");
        fs::create_dir_all(dir.path().join("link/etc")).unwrap();
        std::os::unix::fs::symlink("../usr/etc/passwd", dir.path().join("link/etc/passwd")).unwrap();
        let nobody_asked = Security::default();
        let asked = Security { run_as_user: Some(5), ..Security::default() };
        let no_user =
            Some("failed to generate container spec: unable to find user web: no matching entries in passwd file");
        let no_group =
            Some("failed to generate container spec: unable to find group ghosts: no matching entries in group file");
        for (layers, security, user, expected) in [
            (&["base", "top", "empty"][..], &nobody_asked, "web", None),
            (&["base", "empty"], &nobody_asked, "web", no_user),
            (&["base"], &nobody_asked, "web:log", no_user),
            (&["base", "top"], &nobody_asked, "web:ghosts", no_group),
            (&["base"], &nobody_asked, "1000:ghosts", no_group),
            (&["empty"], &nobody_asked, "web", no_user),
            (&["empty"], &nobody_asked, "1000:7", None),
            (&["empty"], &nobody_asked, "", None),
            (&["base"], &asked, "web", None),
            // The start will tell.
            (&["base", "link"], &nobody_asked, "web", None),
        ] {
            let layers: Vec<String> = layers.iter().map(|&l| l.to_owned()).collect();
            let got = check_image_user(dir.path(), &layers, security, user).err().map(|e| e.to_string());
            assert_eq!(got.as_deref(), expected, "{layers:?} {user}");
        }
    }
}
