//! Bodies that arrive byte by byte: each byte is a piece of its own until somebody puts them together.

use std::convert::Infallible;
use std::sync::Arc;

use apiserver::ApiServer;
use axum::body::{Body, Bytes};

use crate::inputs::{CONFIG_MAPS, Input, JSON};
use crate::measure::Meter;
use crate::{send_body, summary};

const PIECES: usize = 3_000_000;

/// What is wrong with how such a body is received: it takes less than twice its size. It is no object, so that nothing
/// is made of it.
pub(crate) async fn fault(server: &Arc<ApiServer>) -> Option<String> {
    let text = Bytes::from(vec![b'x'; PIECES]);
    let pieces = (0..PIECES).map(move |i| Ok::<_, Infallible>(text.slice(i..=i)));
    let input = Input {
        name: "a body of three million pieces".into(),
        method: "POST",
        path: CONFIG_MAPS.into(),
        content_type: JSON,
        body: Box::new(Vec::new),
        codes: &[400],
        accept: JSON,
        is_heavy: false,
    };
    let meter = Meter::start();
    let (code, message) =
        summary(send_body(server, &input, Body::from_stream(futures::stream::iter(pieces))).await).await;
    let cost = meter.stop();
    eprintln!("{:<44} {} KB {:?} {} KB  {code} {message}", input.name, PIECES >> 10, cost.cpu, cost.memory >> 10);
    if !input.codes.contains(&code) {
        return Some(format!("{}: answered {code}", input.name));
    }
    (cost.memory >= 2 * PIECES).then(|| format!("{}: took {} KB", input.name, cost.memory >> 10))
}
