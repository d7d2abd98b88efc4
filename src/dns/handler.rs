//! Between hickory's server and our answers.

use std::net::IpAddr;
use std::sync::Arc;

use async_trait::async_trait;
use hickory_proto::op::{Edns, Header, HeaderCounts, MessageType, Metadata, OpCode, ResponseCode};
use hickory_proto::rr::{DNSClass, Name, Record, RecordType};
use hickory_resolver::net::runtime::Time;
use hickory_server::server::{Request, RequestHandler, ResponseHandler, ResponseInfo};
use hickory_server::zone_handler::MessageResponseBuilder;
use ipnet::IpNet;
use parking_lot::RwLock;
use tracing::debug;

use crate::answer::{Outcome, alias, answer};
use crate::upstream::Upstream;
use crate::zone::Zone;

/// The largest UDP message that passes everywhere without fragments.
const MAX_UDP_PAYLOAD: u16 = 1232;
const MIN_UDP_PAYLOAD: u16 = 512;
/// Aliases that lead to aliases; longer chains are loops.
const MAX_ALIASES: usize = 8;

/// Cloning is cheap.
#[derive(Clone)]
pub(crate) struct Handler {
    pub(crate) zone: Arc<RwLock<Zone>>,
    pub(crate) upstream: Arc<Upstream>,
    pub(crate) clients: Arc<[IpNet]>,
}

/// A response before it is written.
#[derive(Debug, Default)]
struct Response {
    code: ResponseCode,
    authoritative: bool,
    answers: Vec<Record>,
    authority: Vec<Record>,
    additionals: Vec<Record>,
}

impl Response {
    fn error(code: ResponseCode) -> Self {
        Self { code, ..Self::default() }
    }
}

#[async_trait]
impl RequestHandler for Handler {
    async fn handle_request<R: ResponseHandler, T: Time>(&self, request: &Request, mut handle: R) -> ResponseInfo {
        // An answer to an answer could go on for ever, and one to a stranger may go to a victim of the
        // stranger's.
        if request.metadata.message_type == MessageType::Response || !self.serves(request.src().ip()) {
            return without_response(request);
        }
        let response = self.respond(request).await;
        let mut metadata = Metadata::response_from_request(&request.metadata);
        metadata.response_code = response.code;
        metadata.authoritative = response.authoritative;
        metadata.recursion_available = true;
        let edns = request.edns.as_ref().map(|asked| {
            let mut edns = Edns::new();
            edns.set_max_payload(asked.max_payload().clamp(MIN_UDP_PAYLOAD, MAX_UDP_PAYLOAD));
            edns
        });
        let mut builder = MessageResponseBuilder::from_message_request(request);
        if let Some(edns) = &edns {
            builder.edns(edns);
        }
        let message = builder.build(metadata, &response.answers, &response.authority, [], &response.additionals);
        handle.send_response(message).await.unwrap_or_else(|e| {
            debug!(client = %request.src(), "cannot send a response: {e}");
            without_response(request)
        })
    }
}

/// What the server is told when nothing was sent.
fn without_response(request: &Request) -> ResponseInfo {
    let mut metadata = Metadata::response_from_request(&request.metadata);
    metadata.response_code = ResponseCode::ServFail;
    ResponseInfo::from(Header { metadata, counts: HeaderCounts::default() })
}

impl Handler {
    /// Whether this client may ask.
    pub(crate) fn serves(&self, client: IpAddr) -> bool {
        self.clients.iter().any(|net| net.contains(&client.to_canonical()))
    }

    async fn respond(&self, request: &Request) -> Response {
        if request.metadata.op_code != OpCode::Query {
            return Response::error(ResponseCode::NotImp);
        }
        if request.edns.as_ref().is_some_and(|edns| edns.version() > 0) {
            return Response::error(ResponseCode::BADVERS);
        }
        let [query] = request.queries.queries() else { return Response::error(ResponseCode::FormErr) };
        if query.query_class() != DNSClass::IN {
            return Response::error(ResponseCode::Refused);
        }
        match query.query_type() {
            RecordType::ANY | RecordType::AXFR | RecordType::IXFR => Response::error(ResponseCode::NotImp),
            kind => {
                let client = request.src().ip().to_canonical();
                self.resolve(client, query.original().name(), kind, request.metadata.id).await
            }
        }
    }

    /// Follows aliases until records or a definite no are found.
    async fn resolve(&self, client: IpAddr, name: &Name, kind: RecordType, turn: u16) -> Response {
        let mut response = Response { authoritative: true, ..Response::default() };
        let mut name = name.clone();
        for _ in 0..MAX_ALIASES {
            // The lock ends with this statement, before anything is awaited.
            let outcome = answer(&self.zone.read(), &name, kind);
            match outcome {
                Outcome::Reply(mut reply) => {
                    response.code = reply.code;
                    rotate(&mut reply.answers, turn);
                    response.answers.extend(reply.answers);
                    response.authority = reply.authority;
                    response.additionals = reply.additionals;
                    return response;
                }
                Outcome::Alias(target) => {
                    response.answers.push(alias(&name, &target));
                    name = target;
                }
                Outcome::NotOurs => {
                    // The first name in the answer decides whose authority it is.
                    response.authoritative = !response.answers.is_empty();
                    let forwarded = self.upstream.ask(client, &name, kind).await;
                    response.code = forwarded.code;
                    response.answers.extend(forwarded.answers);
                    response.authority = forwarded.authority;
                    return response;
                }
            }
        }
        Response::error(ResponseCode::ServFail)
    }
}

/// Clients use the first address: let each have its turn.
fn rotate(answers: &mut [Record], turn: u16) {
    if answers.len() > 1 {
        let by = usize::from(turn) % answers.len();
        answers.rotate_left(by);
    }
}

#[cfg(test)]
mod tests;
