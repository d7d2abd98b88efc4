//! What a proxied server answered, on its way back to the client.

use std::io::{Read, Write};

use axum::body::{Body, BodyDataStream, Bytes};
use axum::response::Response;
use flate2::Compression;
use flate2::read::{DeflateDecoder, GzDecoder};
use flate2::write::{DeflateEncoder, GzEncoder};
use futures::{StreamExt, stream};
use http::{HeaderName, HeaderValue, header};

use super::links::Links;
use crate::error::ApiError;

/// Pages beyond this pass with the links that they have: it is held in memory, and no page that
/// people read is so long.
const PAGE: usize = 4 * 1024 * 1024;
/// What this server allows to pages of other origins is not for those behind it to say.
const OWN: [HeaderName; 4] = [
    header::ACCESS_CONTROL_ALLOW_CREDENTIALS,
    header::ACCESS_CONTROL_ALLOW_HEADERS,
    header::ACCESS_CONTROL_ALLOW_METHODS,
    header::ACCESS_CONTROL_ALLOW_ORIGIN,
];

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Encoding {
    Plain,
    Gzip,
    Deflate,
}

/// Puts the answer's links right: its `Location`, or those of its page.
pub(super) async fn mend(mut response: Response, links: &Links) -> Result<Response, ApiError> {
    for name in &OWN {
        response.headers_mut().remove(name);
    }
    let headers = response.headers_mut();
    if let Some(location) = headers.get(header::LOCATION).filter(|l| !l.is_empty()) {
        let through = location.to_str().ok().and_then(|l| links.through(l));
        if let Some(through) = through.and_then(|l| HeaderValue::try_from(l).ok()) {
            headers.insert(header::LOCATION, through);
        }
        return Ok(response);
    }
    let page = headers.get(header::CONTENT_TYPE).is_some_and(is_html);
    let encoding = headers.get(header::CONTENT_ENCODING).map_or(Some(Encoding::Plain), encoding);
    let Some(encoding) = encoding.filter(|_| page) else { return Ok(response) };
    let (mut parts, body) = response.into_parts();
    let whole = match whole(body).await? {
        Ok(whole) => whole,
        Err(body) => return Ok(Response::from_parts(parts, body)),
    };
    // The answer to HEAD speaks of a page that is not there.
    let Some(mended) = in_encoding(&whole, encoding, links).filter(|_| !whole.is_empty()) else {
        return Ok(Response::from_parts(parts, Body::from(whole)));
    };
    parts.headers.remove(header::CONTENT_LENGTH);
    Ok(Response::from_parts(parts, Body::from(mended)))
}

fn is_html(value: &HeaderValue) -> bool {
    let text = value.to_str().unwrap_or_default();
    text.split(';').next().is_some_and(|media| media.trim() == "text/html")
}

fn encoding(value: &HeaderValue) -> Option<Encoding> {
    match value.as_bytes() {
        b"" => Some(Encoding::Plain),
        b"gzip" => Some(Encoding::Gzip),
        b"deflate" => Some(Encoding::Deflate),
        _ => None,
    }
}

/// The body's bytes, or the body again if it is too long.
async fn whole(body: Body) -> Result<Result<Bytes, Body>, ApiError> {
    let mut rest: BodyDataStream = body.into_data_stream();
    let mut read: Vec<Bytes> = Vec::new();
    let mut length = 0;
    while let Some(part) = rest.next().await {
        let part = part.map_err(|e| ApiError::ServiceUnavailable(format!("error trying to reach service: {e}")))?;
        length += part.len();
        read.push(part);
        if length > PAGE {
            return Ok(Err(Body::from_stream(stream::iter(read.into_iter().map(Ok)).chain(rest))));
        }
    }
    Ok(Ok(read.concat().into()))
}

/// The page with its links put right; `None` if it is not encoded as it says, or too long.
fn in_encoding(page: &[u8], encoding: Encoding, links: &Links) -> Option<Vec<u8>> {
    match encoding {
        Encoding::Plain => Some(links.in_page(page)),
        Encoding::Gzip => {
            let mut encoder = GzEncoder::new(Vec::new(), Compression::default());
            encoder.write_all(&links.in_page(&decoded(GzDecoder::new(page))?)).ok()?;
            encoder.finish().ok()
        }
        Encoding::Deflate => {
            let mut encoder = DeflateEncoder::new(Vec::new(), Compression::default());
            encoder.write_all(&links.in_page(&decoded(DeflateDecoder::new(page))?)).ok()?;
            encoder.finish().ok()
        }
    }
}

fn decoded(decoder: impl Read) -> Option<Vec<u8>> {
    let mut page = Vec::new();
    let limit = u64::try_from(PAGE).ok()? + 1;
    decoder.take(limit).read_to_end(&mut page).ok()?;
    (page.len() <= PAGE).then_some(page)
}
