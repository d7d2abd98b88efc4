//! HTTP/1.1 responses, decoded from bytes as they arrive: the least work that tells where a response
//! ends, so that the client's share of the machine stays small. No I/O.

use anyhow::{Context as _, Result, bail, ensure};
use bytes::{Buf as _, BytesMut};

/// How a body's end is known.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Framing {
    Length(usize),
    Chunked(Chunk),
}

/// Where in a chunked body we are.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Chunk {
    Size,
    Data(usize),
    /// The line break after a chunk's data.
    Break,
    /// The lines after the last chunk, up to an empty one.
    Trailer,
    End,
}

/// One response whose head has been read.
#[derive(Debug, PartialEq, Eq)]
pub(crate) struct Response {
    pub status: u16,
    framing: Framing,
}

impl Response {
    /// Takes a response's head from `input`; `None` until all of it is there.
    ///
    /// # Errors
    /// When it is no HTTP/1.1 response, or one whose end cannot be known.
    pub(crate) fn take_head(input: &mut BytesMut) -> Result<Option<Self>> {
        let Some(end) = find(input, b"\r\n\r\n") else { return Ok(None) };
        let head = input.split_to(end + 4);
        let head = std::str::from_utf8(&head[..end])?;
        let mut lines = head.split("\r\n");
        let status = lines.next().and_then(|l| l.strip_prefix("HTTP/1.1 "));
        let status = status.and_then(|s| s.get(..3)).context("no HTTP/1.1 response")?.parse()?;
        let mut framing = (status == 204).then_some(Framing::Length(0));
        for line in lines {
            let (name, value) = line.split_once(':').with_context(|| format!("header {line:?}"))?;
            if name.eq_ignore_ascii_case("content-length") {
                framing = Some(Framing::Length(value.trim().parse()?));
            } else if name.eq_ignore_ascii_case("transfer-encoding") {
                ensure!(value.trim().eq_ignore_ascii_case("chunked"), "transfer encoding {value}");
                framing = Some(Framing::Chunked(Chunk::Size));
            }
        }
        let framing = framing.context("the response does not tell its end")?;
        Ok(Some(Self { status, framing }))
    }

    /// Moves what `input` has of the body to `body`; true when that was the end.
    ///
    /// # Errors
    /// When the chunks are malformed.
    pub(crate) fn take_body(&mut self, input: &mut BytesMut, body: &mut Vec<u8>) -> Result<bool> {
        match &mut self.framing {
            Framing::Length(left) => {
                *left -= take(input, *left, body);
                Ok(*left == 0)
            }
            Framing::Chunked(chunk) => {
                while let Some(next) = chunk.next(input, body)? {
                    *chunk = next;
                }
                Ok(*chunk == Chunk::End)
            }
        }
    }
}

impl Chunk {
    /// The next state, or `None` when it takes more input (or there is none after the end).
    fn next(&mut self, input: &mut BytesMut, body: &mut Vec<u8>) -> Result<Option<Self>> {
        Ok(match self {
            Self::Size => {
                let Some(line) = take_line(input) else { return Ok(None) };
                let line = std::str::from_utf8(&line)?;
                let digits = line.split_once(';').map_or(line, |(digits, _)| digits);
                let size = usize::from_str_radix(digits.trim(), 16).context("a chunk's size")?;
                Some(if size == 0 { Self::Trailer } else { Self::Data(size) })
            }
            Self::Data(left) => {
                *left -= take(input, *left, body);
                (*left == 0).then_some(Self::Break)
            }
            Self::Break => match take_line(input) {
                None => None,
                Some(line) if line.is_empty() => Some(Self::Size),
                Some(_) => bail!("a chunk is longer than its size"),
            },
            Self::Trailer => take_line(input).map(|line| if line.is_empty() { Self::End } else { Self::Trailer }),
            Self::End => None,
        })
    }
}

fn take(input: &mut BytesMut, at_most: usize, body: &mut Vec<u8>) -> usize {
    let n = at_most.min(input.len());
    body.extend_from_slice(&input[..n]);
    input.advance(n);
    n
}

fn take_line(input: &mut BytesMut) -> Option<BytesMut> {
    let end = find(input, b"\r\n")?;
    let line = input.split_to(end);
    input.advance(2);
    Some(line)
}

/// Where `what` begins in `bytes`.
pub(crate) fn find(bytes: &[u8], what: &[u8]) -> Option<usize> {
    bytes.windows(what.len()).position(|w| w == what)
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Feeds a response byte by byte; what is left over must be the next response.
    #[track_caller]
    fn check(wire: &str, status: u16, expected: &str) {
        let (mut input, mut body, mut response) = (BytesMut::new(), Vec::new(), None);
        let mut bytes = wire.bytes();
        loop {
            if response.is_none() {
                response = Response::take_head(&mut input).unwrap();
            }
            if let Some(r) = &mut response
                && r.take_body(&mut input, &mut body).unwrap()
            {
                break;
            }
            input.extend_from_slice(&[bytes.next().expect("the response ends in time")]);
        }
        assert_eq!((response.unwrap().status, std::str::from_utf8(&body).unwrap()), (status, expected));
        assert_eq!((bytes.next(), input.len()), (None, 0), "all of it was read");
    }

    #[test]
    fn bodies_end_where_the_head_says() {
        check("HTTP/1.1 200 OK\r\nContent-Length: 5\r\nA: b\r\n\r\nhello", 200, "hello");
        check(
            "HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\n5\r\nhello\r\nB;x=y\r\n, long line\r\n0\r\n\r\n",
            200,
            "hello, long line",
        );
        check("HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\n0\r\nA: trailer\r\n\r\n", 200, "");
        check("HTTP/1.1 204 No Content\r\n\r\n", 204, "");
    }

    #[test]
    fn what_is_no_response_is_refused() {
        for wire in ["HTTP/1.1 200 OK\r\n\r\n", "SSH-2.0\r\n\r\n", "HTTP/1.1 200 OK\r\nContent-Length: x\r\n\r\n"] {
            assert!(Response::take_head(&mut BytesMut::from(wire)).is_err(), "{wire}");
        }
    }
}
