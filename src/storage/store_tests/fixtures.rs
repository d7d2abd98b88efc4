//! A codec over plain text and short forms of the operations.

use std::error::Error;
use std::ops::ControlFlow;
use std::path::Path;
use std::sync::Arc;

use bytes::Bytes;

use crate::{
    Action, Backend, Codec, Content, Durability, Entry, Expect, Gone, Key, Options, Purpose, Scope, Storage, Write,
    WriteError,
};

/// Values are text; the first word is an index term.
pub(crate) struct Text;

impl Codec for Text {
    type Index = Box<str>;

    fn open(&self, _: &Key, _: u64, disk: &[u8]) -> Result<Content<Box<str>>, Box<dyn Error + Send + Sync>> {
        Ok(content(std::str::from_utf8(disk)?))
    }

    fn terms(&self, _: &Key, index: &Box<str>, add: &mut dyn FnMut(&str)) {
        add(index);
    }
}

/// A store in a directory, as a server keeps it.
pub(crate) fn in_directory(directory: &Path) -> Options {
    let marker = Some(directory.join("mark"));
    Options::new(Backend::File { database: directory.join("state.redb"), marker })
}

fn content(text: &str) -> Content<Box<str>> {
    let word = text.split(' ').next().unwrap_or("");
    Content { bytes: Bytes::copy_from_slice(text.as_bytes()), index: word.into() }
}

pub(crate) const COLLECTION: &str = "core/things";

pub(crate) fn put(item: &str, expect: Expect, text: &str) -> Write<Box<str>> {
    let text = text.to_owned();
    Write {
        key: Key::new(COLLECTION, item),
        expect,
        action: Action::Put(Box::new(move |_| content(&text))),
        purpose: Purpose::Ordinary,
    }
}

pub(crate) fn delete(item: &str, expect: Expect) -> Write<Box<str>> {
    let tombstone = |_: u64, old: &Entry<Box<str>>| Content { bytes: old.bytes.clone(), index: old.index.clone() };
    Write {
        key: Key::new(COLLECTION, item),
        expect,
        action: Action::Delete(Box::new(tombstone)),
        purpose: Purpose::Ordinary,
    }
}

pub(crate) type Written = Result<Arc<Entry<Box<str>>>, WriteError<Box<str>>>;

pub(crate) async fn write(storage: &Storage<Text>, write: Write<Box<str>>, durability: Durability) -> Written {
    storage.write(vec![write], durability).await.map(|mut entries| entries.remove(0))
}

pub(crate) fn text(entry: &Entry<Box<str>>) -> String {
    String::from_utf8(entry.bytes.to_vec()).unwrap()
}

/// Item, revision and text of everything, as it was at a revision.
pub(crate) fn listing(storage: &Storage<Text>, at: Option<u64>) -> Result<Vec<(String, u64, String)>, Gone> {
    let mut rows = Vec::new();
    storage.scan(Scope { collection: COLLECTION, prefix: "", start: "" }, at, |entry| {
        rows.push((entry.key.item.to_string(), entry.revision, text(entry)));
        ControlFlow::Continue(())
    })?;
    Ok(rows)
}

/// A seeded stream of numbers, the same on each run.
pub(super) struct Bits(pub(super) u64);

impl Bits {
    pub(super) fn below(&mut self, limit: usize) -> usize {
        self.0 ^= self.0 << 13;
        self.0 ^= self.0 >> 7;
        self.0 ^= self.0 << 17;
        usize::try_from(self.0 % limit as u64).unwrap()
    }
}
