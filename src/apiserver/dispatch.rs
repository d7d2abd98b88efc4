//! The way of every request: who asks, whether they may, and who answers.

use std::sync::Arc;

use axum::body::{Body, HttpBody};
use axum::extract::{Request, State};
use axum::response::Response;
use http::header::CONTENT_LENGTH;
use http::request::Parts;
use http::{HeaderValue, Method, Version};
use tokio::time::Instant;

use crate::answer::error_response;
use crate::auth::{Attributes, User, user};
use crate::connections::Arrival;
use crate::deadline;
use crate::error::ApiError;
use crate::handlers::{self, Context};
use crate::held::{Held, Initial, Initialized};
use crate::in_flight::{self, Passes};
use crate::listener::Origin;
use crate::negotiate::{Offer, Output};
use crate::paths;
use crate::receiving::Receiving;
use crate::registry::{Resource, Served};
use crate::request::RequestInfo;
use crate::rest;
use crate::room::{self, Client, HEAVY, Load};
use crate::server::ApiServer;
use crate::shares::Full;
use crate::unread;

impl ApiServer {
    /// The router, for in-process callers: they say who they are by [`user::act_as`].
    pub fn router(self: &Arc<Self>) -> axum::Router {
        let entry = |State(server): State<Arc<Self>>, request: Request| async move { server.dispatch(request).await };
        axum::Router::new().fallback(entry).with_state(Arc::clone(self))
    }

    /// Answers a component of this process, which holds no place and needs none.
    pub(crate) async fn dispatch(self: Arc<Self>, request: Request) -> Response {
        let info = RequestInfo::parse(request.method(), request.uri().path(), request.uri().query());
        self.complete(&info, Instant::now(), None, request, &mut Passes::default()).await
    }

    /// Answers a client, whose request holds its places until the answer is out.
    pub(crate) async fn serve_request(
        self: Arc<Self>,
        origin: &Origin,
        arrival: Arrival,
        request: Request,
    ) -> http::Response<Held> {
        let started = Instant::now();
        let info = RequestInfo::parse(request.method(), request.uri().path(), request.uri().query());
        let running = origin.connection.begin(!info.is_long_running(), started);
        drop(arrival);
        // The initial events of a watch have the time of an answer.
        let initial = info.is_watch().then(|| origin.connection.begin(true, started));
        let mut passes = Passes::default();
        let mut response = self.complete(&info, started, Some(origin), request, &mut passes).await;
        let initialized = response.extensions_mut().remove::<Initialized>();
        let place = initialized.as_ref().and_then(|_| passes.place.take());
        response.map(|body| {
            let held = Held::new(body, running, passes);
            match initial {
                Some(running) => {
                    held.of_watch(Arc::clone(&origin.connection), Initial::new(running, place, initialized))
                }
                None => held,
            }
        })
    }

    /// The answer to a request, whatever became of it.
    async fn complete(
        self: &Arc<Self>,
        info: &RequestInfo,
        started: Instant,
        origin: Option<&Origin>,
        request: Request,
        passes: &mut Passes,
    ) -> Response {
        let allotted = deadline::allotted(info, request.uri().query());
        let _counted = self.metrics.begin(info);
        let head = request.method() == Method::HEAD;
        let (parts, body) = request.into_parts();
        let (body, rest) = unread::lend(body);
        let answered = match allotted {
            Ok(allotted) => {
                let request = Request::from_parts(parts, body);
                deadline::within(allotted, self.answer(info, origin, request, passes)).await
            }
            Err(refused) => Err(refused),
        };
        let response = match answered {
            Ok(response) => response,
            Err(error) => {
                if matches!(error, ApiError::Internal(_)) {
                    tracing::warn!(verb = %info.verb, path = %info.path, %error, "request failed");
                }
                rest.forget().await;
                error_response(&error)
            }
        };
        let response = self.in_flight.buffer(response, passes);
        self.metrics.observe(info, self.registry.resources(), response.status(), started.elapsed());
        if head { without_body(response) } else { response }
    }

    async fn answer(
        self: &Arc<Self>,
        info: &RequestInfo,
        origin: Option<&Origin>,
        request: Request,
        passes: &mut Passes,
    ) -> Result<Response, ApiError> {
        let (mut parts, body) = request.into_parts();
        let user = self.identify(&parts, origin)?;
        if origin.is_some() {
            match self.in_flight.admit(info, &user) {
                Ok(places) => *passes = places,
                Err(Full) => return Ok(in_flight::too_many()),
            }
        }
        self.auth.require(&self.registry, &Attributes::of(&user, info))?;
        let body = match origin {
            Some(_) => Receiving::from_client(&self.bodies, &user, body),
            None => Receiving::from_component(body),
        };
        // What is rare is laid apart: a request is moved a few times with all that any way of it may need.
        if !info.is_resource {
            return Box::pin(paths::answer(self, &parts)).await;
        }
        let found = self.find(info)?;
        if let Some(handler) = rest::lookup(&info.group, &info.resource, &info.subresource) {
            if let Some(origin) = origin {
                parts.extensions.insert(origin.address);
            }
            return Box::pin(self.answer_special(handler, found.0, info, user, parts, body)).await;
        }
        self.answer_stored(found, info, user, parts, body).await
    }

    async fn answer_special(
        self: &Arc<Self>,
        handler: &'static dyn rest::SpecialHandler,
        resource: &Resource,
        info: &RequestInfo,
        user: Arc<User>,
        parts: Parts,
        body: Receiving,
    ) -> Result<Response, ApiError> {
        let call = |body| rest::Call {
            info: info.clone(),
            user: Arc::clone(&user),
            request: Request::from_parts(parts, body),
        };
        if info.is_long_running() {
            return handler.handle(self, call(body.into_body())).await;
        }
        let body = body.read().await?;
        let load = self.special_load(resource, info, body.len());
        let call = call(Body::from(body));
        if !load.is_heavy() {
            return handler.handle(self, call).await;
        }
        let (server, turn) = (Arc::clone(self), room::turn(&call.user).to_owned());
        let work = |_| async move { handler.handle(&server, call).await.or_else(refusal) };
        self.room.run(&turn, load, work).await
    }

    /// Finds out who asks, and lets the connection know whether it is a stranger's.
    fn identify(&self, parts: &Parts, origin: Option<&Origin>) -> Result<Arc<User>, ApiError> {
        let certificate = origin.and_then(|origin| origin.certificate.as_ref());
        let user = self.auth.authenticate(&self.registry, parts, certificate);
        if let Some(Origin { connection, .. }) = origin {
            match &user {
                Ok(user) if user.name != user::ANONYMOUS => connection.prove(),
                // As upstream: one connection of HTTP/2 gives a stranger one answer.
                Ok(_) | Err(ApiError::Unauthorized) if parts.version == Version::HTTP_2 => connection.finish.cancel(),
                Ok(_) | Err(_) => {}
            }
        }
        user
    }

    async fn answer_stored(
        self: &Arc<Self>,
        (resource, served): (&Resource, &Served),
        info: &RequestInfo,
        user: Arc<User>,
        parts: Parts,
        body: Receiving,
    ) -> Result<Response, ApiError> {
        let query = parts.uri.query().unwrap_or("");
        let protobuf = served.ty.is_some_and(api::protobuf::supports);
        let output = Output::negotiate(&parts.headers, query, Offer::of_resource(&info.verb, query, protobuf))?;
        let body = match &*info.verb {
            "get" | "list" | "watch" => axum::body::Bytes::new(),
            _ => body.read().await?,
        };
        let (headers, user) = (&parts.headers, &user);
        let cx = Context { server: self, resource, served, info, user, headers, query, output, client: None };
        let load = cx.load(body.len());
        if !load.is_heavy() {
            return handlers::handle(&cx, body).await;
        }
        let (asked, turn) = (cx.asked(info.clone()), room::turn(user).to_owned());
        let work = |client: Client| async move {
            handlers::handle(&asked.context(Some(&client))?, body).await.or_else(refusal)
        };
        Box::pin(self.room.run(&turn, load, work)).await
    }

    /// What a special request decodes: its body and the object that it names. The oldest form of a binding names
    /// its pod in the body.
    fn special_load(&self, resource: &Resource, info: &RequestInfo, body: usize) -> Load {
        let object = self.registry.object_bytes(resource, &info.namespace, &info.name);
        let passing = if info.name.is_empty() && *info.resource == *"bindings" { HEAVY } else { 0 };
        Load { body, object, passing }
    }

    /// The resource that a request is about, if somebody answers this request for it.
    pub(crate) fn find(&self, info: &RequestInfo) -> Result<(&Resource, &Served), ApiError> {
        let resource = self.registry.resources().get(&info.group, &info.resource).ok_or(ApiError::UnknownPath)?;
        let served = resource.served(&info.version).ok_or(ApiError::UnknownPath)?;
        let row = resource.row;
        let in_namespace = !info.namespace.is_empty();
        let of_namespaces = &*resource.collection == "core/namespaces";
        let across_namespaces = row.namespaced && !in_namespace;
        let misplaced = if row.namespaced {
            across_namespaces && !(info.name.is_empty() && row.verbs.contains(&"list"))
        } else {
            in_namespace && !of_namespaces
        };
        if misplaced {
            return Err(ApiError::UnknownPath);
        }
        let verbs = match info.subresource.as_str() {
            "" => row.verbs,
            name => row.subresources.iter().find(|s| s.name == name).ok_or(ApiError::UnknownPath)?.verbs,
        };
        // Across namespaces there is nothing but reading.
        if across_namespaces && !matches!(&*info.verb, "list" | "watch") {
            return Err(ApiError::MethodNotAllowed);
        }
        // What a proxied server makes of the methods that are no verbs is its own affair.
        if info.subresource == "proxy" || verbs.contains(&&*info.verb) {
            Ok((resource, served))
        } else {
            Err(ApiError::MethodNotAllowed)
        }
    }
}

/// The answer to a heavy request that is refused, made where the request was: it may show much of it.
fn refusal(error: ApiError) -> Result<Response, ApiError> {
    if matches!(error, ApiError::Internal(_)) { Err(error) } else { Ok(error_response(&error)) }
}

/// The answer to HEAD: hyper leaves the body out in HTTP/1.1 only, and clients of HTTP/2 hang up on it.
fn without_body(response: Response) -> Response {
    let (mut parts, body) = response.into_parts();
    if let Some(length) = body.size_hint().exact() {
        parts.headers.entry(CONTENT_LENGTH).or_insert_with(|| HeaderValue::from(length));
    }
    Response::from_parts(parts, Body::empty())
}
