//! A list of stored objects on its way out, put together piece by piece as the client takes it.
//!
//! However long the list, a request holds one piece of it: the objects themselves are those of the
//! watch cache. The length is known beforehand, unless the list is compressed.

use std::io::Write;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};

use axum::body::{Bytes, HttpBody};
use flate2::Compression;
use flate2::write::GzEncoder;
use http_body::{Frame, SizeHint};

use crate::registry::ObjectEntry;

/// What is put together at a time: four TLS records, and small enough that the allocator keeps the
/// block for the next piece instead of mapping and clearing new pages for each.
const PIECE: usize = 64 * 1024;

/// Between the objects and after them.
const COMMA: u8 = b',';
const END: &[u8] = b"]}\n";

/// The text of a list: its head, then objects from whose stored form the kind is left out, as
/// upstream's items do not repeat what the list names.
pub(super) struct Text {
    head: Vec<u8>,
    /// What stored objects begin with.
    type_prefix: Arc<str>,
    entries: Vec<Arc<ObjectEntry>>,
    /// Of the whole text.
    length: usize,
    position: Position,
}

/// Where the text goes on.
#[derive(Clone, Copy)]
enum Position {
    Head,
    /// An object, and what of it has been written.
    Object {
        index: usize,
        offset: usize,
    },
    Done,
}

impl Text {
    pub(super) fn new(head: Vec<u8>, type_prefix: &Arc<str>, entries: Vec<Arc<ObjectEntry>>) -> Self {
        let mut text =
            Self { head, type_prefix: Arc::clone(type_prefix), entries, length: 0, position: Position::Head };
        let objects: usize = (0..text.entries.len()).map(|index| 1 + text.members(index).len()).sum();
        text.length = text.head.len() + objects + text.entries.len().saturating_sub(1) + END.len();
        text
    }

    pub(super) fn length(&self) -> usize {
        self.length
    }

    /// An object's text behind its opening brace.
    fn members(&self, index: usize) -> &[u8] {
        let bytes = &self.entries[index].bytes;
        bytes.strip_prefix(self.type_prefix.as_bytes()).unwrap_or(&bytes[1..])
    }

    /// Appends what follows until `out` holds `limit` bytes or the text ends.
    fn fill(&mut self, out: &mut Vec<u8>, limit: usize) {
        while out.len() < limit {
            self.position = match self.position {
                Position::Head => {
                    out.extend_from_slice(&self.head);
                    Position::Object { index: 0, offset: 0 }
                }
                Position::Object { index, .. } if index == self.entries.len() => {
                    out.extend_from_slice(END);
                    Position::Done
                }
                Position::Object { index, offset } => self.fill_object(index, offset, out, limit),
                Position::Done => return,
            };
        }
    }

    fn fill_object(&self, index: usize, offset: usize, out: &mut Vec<u8>, limit: usize) -> Position {
        if offset == 0 {
            if index > 0 {
                out.push(COMMA);
            }
            out.push(b'{');
        }
        let rest = &self.members(index)[offset..];
        let taken = rest.len().min(limit.saturating_sub(out.len()).max(1));
        out.extend_from_slice(&rest[..taken]);
        if taken == rest.len() {
            Position::Object { index: index + 1, offset: 0 }
        } else {
            Position::Object { index, offset: offset + taken }
        }
    }
}

/// The body of an answer with a list.
pub(super) struct ListBody {
    text: Text,
    form: Form,
    /// A piece was given since this task last let others have their turn.
    gave: bool,
}

enum Form {
    /// As it is, with what is left of it.
    Plain(usize),
    /// Compressed; nothing after the last piece.
    Gzip(Option<Box<GzEncoder<Vec<u8>>>>),
}

impl ListBody {
    pub(super) fn plain(text: Text) -> Self {
        let form = Form::Plain(text.length);
        Self { text, form, gave: false }
    }

    pub(super) fn gzip(text: Text, level: Compression) -> Self {
        let form = Form::Gzip(Some(Box::new(GzEncoder::new(Vec::with_capacity(PIECE), level))));
        Self { text, form, gave: false }
    }

    /// The next piece, which is empty while a compressor only collects; nothing at the end.
    fn piece(&mut self) -> std::io::Result<Option<Vec<u8>>> {
        let mut raw = Vec::with_capacity(PIECE);
        // The last object that fits may run over by its comma and brace.
        self.text.fill(&mut raw, PIECE - END.len());
        match &mut self.form {
            Form::Plain(left) => {
                *left -= raw.len();
                Ok(Some(raw).filter(|raw| !raw.is_empty()))
            }
            Form::Gzip(Some(encoder)) if !raw.is_empty() => {
                encoder.write_all(&raw)?;
                Ok(Some(std::mem::take(encoder.get_mut())))
            }
            Form::Gzip(encoder) => encoder.take().map(|encoder| encoder.finish()).transpose(),
        }
    }
}

impl HttpBody for ListBody {
    type Data = Bytes;
    type Error = std::io::Error;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Self::Data>, Self::Error>>> {
        // What was given is sent before more is made, and other connections get their turn.
        if std::mem::take(&mut self.gave) {
            cx.waker().wake_by_ref();
            return Poll::Pending;
        }
        let piece = match self.piece() {
            Ok(Some(piece)) => piece,
            Ok(None) => return Poll::Ready(None),
            Err(error) => return Poll::Ready(Some(Err(error))),
        };
        if piece.is_empty() {
            cx.waker().wake_by_ref();
            return Poll::Pending;
        }
        self.gave = true;
        Poll::Ready(Some(Ok(Frame::data(piece.into()))))
    }

    fn is_end_stream(&self) -> bool {
        matches!(self.form, Form::Plain(0) | Form::Gzip(None))
    }

    fn size_hint(&self) -> SizeHint {
        match self.form {
            Form::Plain(left) => SizeHint::with_exact(left as u64),
            Form::Gzip(_) => SizeHint::default(),
        }
    }
}

#[cfg(test)]
mod tests {
    use std::io::Read;

    use flate2::read::GzDecoder;
    use http_body_util::BodyExt;
    use storage::Key;

    use super::*;

    const PREFIX: &str = "{\"kind\":\"X\",\"apiVersion\":\"v1\",";

    fn text(sizes: &[usize]) -> (Text, String) {
        let objects: Vec<String> =
            sizes.iter().enumerate().map(|(i, size)| format!("\"data\":\"{i}{}\"}}", "x".repeat(*size))).collect();
        let entries = objects.iter().enumerate().map(|(i, members)| {
            Arc::new(ObjectEntry {
                key: Key::new("core/xs", &format!("n/{i}")),
                bytes: format!("{PREFIX}{members}").into(),
                revision: 1,
                index: Arc::default(),
            })
        });
        let items: Vec<String> = objects.iter().map(|members| format!("{{{members}")).collect();
        let whole = format!("{{\"items\":[{}]}}\n", items.join(","));
        (Text::new(b"{\"items\":[".to_vec(), &PREFIX.into(), entries.collect()), whole)
    }

    #[tokio::test]
    async fn pieces_make_up_the_list_and_its_announced_length() {
        for sizes in [&[][..], &[0], &[1, 2, 3], &[PIECE], &[3 * PIECE, 1, PIECE - 40], &[700; 400]] {
            let (text, expected) = text(sizes);
            let mut body = ListBody::plain(text);
            assert_eq!(body.size_hint().exact(), Some(expected.len() as u64), "{} objects", sizes.len());
            let mut got = Vec::new();
            while let Some(frame) = body.frame().await {
                let data = frame.unwrap().into_data().unwrap();
                assert!(data.len() <= PIECE, "{} bytes at once", data.len());
                got.extend_from_slice(&data);
            }
            assert_eq!(String::from_utf8(got).unwrap(), expected);
            assert!(body.is_end_stream());
        }
    }

    #[tokio::test]
    async fn a_compressed_list_is_the_same_list() {
        let (text, expected) = text(&[500; 1_000]);
        let body = ListBody::gzip(text, Compression::fast());
        let packed = body.collect().await.unwrap().to_bytes();
        assert!(packed.len() < expected.len() / 10, "{} of {} bytes", packed.len(), expected.len());
        let mut unpacked = String::new();
        GzDecoder::new(&*packed).read_to_string(&mut unpacked).unwrap();
        assert_eq!(unpacked, expected);
    }
}
