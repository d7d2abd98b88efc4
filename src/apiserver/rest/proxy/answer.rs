//! What a proxied server answered, on its way back to the client.
//!
//! The server is anybody's, so a page costs what its size allows and no more: it is read into one buffer,
//! has a place among those that are held, and is unpacked, mended and packed again in the heavy room.

use std::io::{Read, Write};
use std::sync::Arc;

use axum::body::{Body, BodyDataStream, HttpBody};
use axum::response::Response;
use flate2::Compression;
use flate2::read::{DeflateDecoder, GzDecoder};
use flate2::write::{DeflateEncoder, GzEncoder};
use futures::{StreamExt, stream};
use http::{HeaderName, HeaderValue, header};

use super::links::Links;
use super::pages::{COUNTED_FROM, MENDED, PAGE, Pages, held};
use crate::error::ApiError;
use crate::room::{HeavyRoom, Load};
use crate::shares::Pass;

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

/// Where pages are mended, and for whom.
pub(super) struct Mender<'s> {
    pub(super) room: &'s HeavyRoom,
    pub(super) pages: &'s Pages,
    pub(super) turn: &'s str,
}

/// Puts the answer's links right: its `Location`, or those of its page.
pub(super) async fn mend(
    mender: &Mender<'_>,
    mut response: Response,
    links: &Arc<Links>,
) -> Result<Response, ApiError> {
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
    if response.body().size_hint().lower() > PAGE as u64 {
        return Ok(response);
    }
    let (mut parts, body) = response.into_parts();
    let (whole, place) = match mender.whole(body).await? {
        Ok(whole) => whole,
        Err(body) => return Ok(Response::from_parts(parts, body)),
    };
    // The answer to HEAD speaks of a page that is not there.
    if whole.is_empty() {
        return Ok(Response::from_parts(parts, Body::empty()));
    }
    let (page, is_mended) = mender.in_encoding(whole, encoding, links).await?;
    if is_mended {
        parts.headers.remove(header::CONTENT_LENGTH);
    }
    Ok(Response::from_parts(parts, Body::from(held(page, place))))
}

impl Mender<'_> {
    /// The body's bytes and their place, or the body again if it is too long.
    async fn whole(&self, body: Body) -> Result<Result<(Vec<u8>, Option<Pass>), Body>, ApiError> {
        let mut rest: BodyDataStream = body.into_data_stream();
        let (mut read, mut place) = (Vec::new(), None);
        while let Some(part) = rest.next().await {
            let part = part.map_err(|e| ApiError::ServiceUnavailable(format!("error trying to reach service: {e}")))?;
            read.extend_from_slice(&part);
            if place.is_none() && read.len() > COUNTED_FROM {
                place = Some(self.pages.enter(self.turn)?);
            }
            if read.len() > PAGE {
                let read = held(read, place);
                return Ok(Err(Body::from_stream(stream::once(async { Ok(read) }).chain(rest))));
            }
        }
        Ok(Ok((read, place)))
    }

    /// The page with its links put right, or as it is; and which of both.
    async fn in_encoding(
        &self,
        page: Vec<u8>,
        encoding: Encoding,
        links: &Arc<Links>,
    ) -> Result<(Vec<u8>, bool), ApiError> {
        // Some bytes of a packed page may become as many as there may be.
        let passing = if encoding == Encoding::Plain { page.len() } else { PAGE };
        let load = Load { passing, ..Load::default() };
        let links = Arc::clone(links);
        let work = move || match in_encoding(&page, encoding, &links) {
            Some(mended) => (mended, true),
            None => (page, false),
        };
        if load.is_heavy() { self.room.run(self.turn, load, |_| async { Ok(work()) }).await } else { Ok(work()) }
    }
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

/// The page with its links put right; `None` if it is not encoded as it says, or longer than it may
/// be, before or after.
fn in_encoding(page: &[u8], encoding: Encoding, links: &Links) -> Option<Vec<u8>> {
    match encoding {
        Encoding::Plain => links.in_page(page, MENDED),
        Encoding::Gzip => {
            let mut encoder = GzEncoder::new(Vec::new(), Compression::default());
            encoder.write_all(&links.in_page(&decoded(GzDecoder::new(page))?, MENDED)?).ok()?;
            encoder.finish().ok()
        }
        Encoding::Deflate => {
            let mut encoder = DeflateEncoder::new(Vec::new(), Compression::default());
            encoder.write_all(&links.in_page(&decoded(DeflateDecoder::new(page))?, MENDED)?).ok()?;
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
