//! What a request asks for, read from its method and path alone: upstream's `RequestInfo`.
//!
//! Authorization, admission, metrics and the handlers all decide on this one parse, so that they can
//! never disagree about which object a request touches.

use std::borrow::Cow;

use api::object::{GroupResource, ObjectKey};
use http::Method;

/// The parsed request. Empty strings mean that the part is absent, as in upstream's structure.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct RequestInfo {
    /// `false` for paths such as `/version`; then only `path` and `verb` (the lower-case method) count.
    pub is_resource: bool,
    pub path: String,
    /// `get`, `list`, `watch`, `create`, `update`, `patch`, `delete`, `deletecollection`; a custom verb
    /// when a component asks the authorizer about one.
    pub verb: Cow<'static, str>,
    pub group: String,
    pub version: String,
    pub namespace: String,
    pub resource: String,
    pub subresource: String,
    pub name: String,
    /// The path segments from the resource on: what a proxy subresource forwards starts at index 3.
    pub parts: Vec<String>,
    pub label_selector: String,
    pub field_selector: String,
}

impl RequestInfo {
    /// Parses a request line.
    #[must_use]
    pub fn parse(method: &Method, path: &str, query: Option<&str>) -> Self {
        let mut info = Self { path: path.to_owned(), verb: lower_method(method), ..Self::default() };
        let parts: Vec<String> = path.split('/').filter(|s| !s.is_empty()).map(percent_decode).collect();
        let rest = match parts.first().map(String::as_str) {
            Some("api") if parts.len() >= 3 => {
                info.version.clone_from(&parts[1]);
                &parts[2..]
            }
            Some("apis") if parts.len() >= 4 => {
                info.group.clone_from(&parts[1]);
                info.version.clone_from(&parts[2]);
                &parts[3..]
            }
            _ => return info,
        };
        info.is_resource = true;
        if let Some(watch) = info.old_watch(method, rest, query.unwrap_or("")) {
            return watch;
        }
        info.verb = resource_verb(method);
        info.read_parts(rest);
        if info.name.is_empty() {
            info.collection_verb(query.unwrap_or(""));
        }
        info
    }

    /// What the paths from before `?watch=1` ask for. Nothing but objects is read there.
    fn old_watch(&self, method: &Method, rest: &[String], query: &str) -> Option<Self> {
        let (first, rest) = rest.split_first()?;
        if first != "watch" || rest.is_empty() {
            return None;
        }
        let mut info = self.clone();
        info.verb = Cow::Borrowed(if *method == Method::GET { "watch" } else { "" });
        info.read_parts(rest);
        info.read_query(query);
        info.subresource.is_empty().then_some(info)
    }

    fn read_parts(&mut self, mut rest: &[String]) {
        if rest[0] == "namespaces"
            && let Some(namespace) = rest.get(1)
        {
            self.namespace.clone_from(namespace);
            // A namespace's own subresources stay with the namespace; all else lies inside it.
            if rest.len() > 2 && !matches!(rest[2].as_str(), "status" | "finalize") {
                rest = &rest[2..];
            }
        }
        self.resource.clone_from(&rest[0]);
        self.name = rest.get(1).cloned().unwrap_or_default();
        self.subresource = rest.get(2).cloned().unwrap_or_default();
        self.parts = rest.to_vec();
    }

    fn collection_verb(&mut self, query: &str) {
        match &*self.verb {
            "get" => self.verb = Cow::Borrowed(if self.read_query(query) { "watch" } else { "list" }),
            "delete" => self.verb = Cow::Borrowed("deletecollection"),
            _ => {}
        }
    }

    /// Reads the selectors; answers whether a watch is asked for.
    fn read_query(&mut self, query: &str) -> bool {
        let mut watch = false;
        for (key, value) in query_pairs(query) {
            match &*key {
                "watch" => watch = parse_bool(&value),
                "labelSelector" => self.label_selector = value,
                "fieldSelector" => self.field_selector = value,
                _ => {}
            }
        }
        watch
    }

    #[must_use]
    pub fn group_resource(&self) -> GroupResource {
        GroupResource::new(&self.group, &self.resource)
    }

    /// `v1` or `apps/v1`.
    #[must_use]
    pub fn api_version(&self) -> String {
        if self.group.is_empty() { self.version.clone() } else { format!("{}/{}", self.group, self.version) }
    }

    /// Whether the answer takes as long as the client likes: watches, logs, streams, proxied requests.
    #[must_use]
    pub fn is_long_running(&self) -> bool {
        const PARTS: [&str; 5] = ["attach", "exec", "log", "portforward", "proxy"];
        self.is_watch() || (self.is_resource && PARTS.contains(&&*self.subresource))
    }

    #[must_use]
    pub fn is_watch(&self) -> bool {
        self.is_resource && self.verb == "watch"
    }

    #[must_use]
    pub fn is_mutating(&self) -> bool {
        !matches!(&*self.verb, "get" | "list" | "watch" | "head" | "options")
    }

    /// Whether this is a probe of the server's health.
    #[must_use]
    pub fn is_health(&self) -> bool {
        let first = self.path.split('/').find(|s| !s.is_empty());
        !self.is_resource && matches!(first, Some("healthz" | "livez" | "readyz"))
    }

    #[must_use]
    pub fn key(&self) -> ObjectKey {
        ObjectKey::new(&self.namespace, &self.name)
    }
}

fn resource_verb(method: &Method) -> Cow<'static, str> {
    Cow::Borrowed(match *method {
        Method::POST => "create",
        Method::GET | Method::HEAD => "get",
        Method::PUT => "update",
        Method::PATCH => "patch",
        Method::DELETE => "delete",
        _ => "",
    })
}

fn lower_method(method: &Method) -> Cow<'static, str> {
    match *method {
        Method::GET => Cow::Borrowed("get"),
        Method::POST => Cow::Borrowed("post"),
        Method::PUT => Cow::Borrowed("put"),
        Method::PATCH => Cow::Borrowed("patch"),
        Method::DELETE => Cow::Borrowed("delete"),
        Method::HEAD => Cow::Borrowed("head"),
        _ => Cow::Owned(method.as_str().to_ascii_lowercase()),
    }
}

/// Upstream's conversion of a query value to a boolean: present and not `false` or `0` is true.
#[must_use]
pub fn parse_bool(value: &str) -> bool {
    !matches!(value.to_ascii_lowercase().as_str(), "false" | "0")
}

/// The decoded pairs of a query string, in order.
pub fn query_pairs(query: &str) -> impl Iterator<Item = (String, String)> + '_ {
    query.split('&').filter(|p| !p.is_empty()).map(|pair| {
        let (key, value) = pair.split_once('=').unwrap_or((pair, ""));
        (percent_decode(&key.replace('+', " ")), percent_decode(&value.replace('+', " ")))
    })
}

/// Pairs as a query string, in order.
pub(crate) fn encode_query(pairs: &[(String, String)]) -> String {
    let pair = |(key, value): &(String, String)| format!("{}={}", percent_encode(key), percent_encode(value));
    pairs.iter().map(pair).collect::<Vec<_>>().join("&")
}

/// Escapes all but the characters that are safe in every part of a query.
fn percent_encode(text: &str) -> String {
    let mut out = String::with_capacity(text.len());
    for byte in text.bytes() {
        if byte.is_ascii_alphanumeric() || b"-._~".contains(&byte) {
            out.push(char::from(byte));
        } else {
            out.push('%');
            out.push_str(&hex::encode_upper([byte]));
        }
    }
    out
}

/// Decodes `%XX`; what is not such an escape stays as it is.
fn percent_decode(text: &str) -> String {
    if !text.contains('%') {
        return text.to_owned();
    }
    let bytes = text.as_bytes();
    let mut out = Vec::with_capacity(bytes.len());
    let mut i = 0;
    while i < bytes.len() {
        let escape = bytes.get(i + 1..i + 3).filter(|_| bytes[i] == b'%');
        match escape.and_then(|h| std::str::from_utf8(h).ok()).and_then(|h| u8::from_str_radix(h, 16).ok()) {
            Some(byte) => {
                out.push(byte);
                i += 3;
            }
            None => {
                out.push(bytes[i]);
                i += 1;
            }
        }
    }
    String::from_utf8_lossy(&out).into_owned()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[track_caller]
    fn check(method: &Method, uri: &str, expected: [&str; 7]) {
        let (path, query) = uri.split_once('?').map_or((uri, None), |(p, q)| (p, Some(q)));
        let i = RequestInfo::parse(method, path, query);
        let got = [&*i.verb, &i.group, &i.version, &i.namespace, &i.resource, &i.subresource, &i.name];
        assert_eq!(got, expected, "{method} {uri}");
    }

    #[test]
    fn paths_are_read_as_upstream_reads_them() {
        check(&Method::GET, "/api/v1/pods", ["list", "", "v1", "", "pods", "", ""]);
        check(&Method::GET, "/api/v1/pods?watch=1", ["watch", "", "v1", "", "pods", "", ""]);
        check(&Method::GET, "/api/v1/pods?watch=false", ["list", "", "v1", "", "pods", "", ""]);
        check(&Method::GET, "/api/v1/namespaces", ["list", "", "v1", "", "namespaces", "", ""]);
        check(&Method::GET, "/api/v1/namespaces/a", ["get", "", "v1", "a", "namespaces", "", "a"]);
        check(&Method::PUT, "/api/v1/namespaces/a/finalize", ["update", "", "v1", "a", "namespaces", "finalize", "a"]);
        check(&Method::POST, "/api/v1/namespaces/a/pods", ["create", "", "v1", "a", "pods", "", ""]);
        check(&Method::DELETE, "/api/v1/namespaces/a/pods", ["deletecollection", "", "v1", "a", "pods", "", ""]);
        check(
            &Method::PATCH,
            "/apis/apps/v1/namespaces/a/deployments/d/scale",
            ["patch", "apps", "v1", "a", "deployments", "scale", "d"],
        );
        check(
            &Method::GET,
            "/apis/rbac.authorization.k8s.io/v1/clusterroles/system%3Anode",
            ["get", "rbac.authorization.k8s.io", "v1", "", "clusterroles", "", "system:node"],
        );
        check(&Method::GET, "/api/v1/watch/pods", ["watch", "", "v1", "", "pods", "", ""]);
        check(&Method::GET, "/api/v1/watch/namespaces/a/pods/b", ["watch", "", "v1", "a", "pods", "", "b"]);
        check(&Method::GET, "/apis/apps/v1/watch/deployments", ["watch", "apps", "v1", "", "deployments", "", ""]);
        check(&Method::POST, "/api/v1/watch/namespaces/a/pods", ["", "", "v1", "a", "pods", "", ""]);
        check(
            &Method::GET,
            "/api/v1/watch/namespaces/a/pods/b/proxy",
            ["get", "", "v1", "", "watch", "a", "namespaces"],
        );
        check(&Method::GET, "/apis/apps/v1", ["get", "", "", "", "", "", ""]);
        check(&Method::POST, "/version", ["post", "", "", "", "", "", ""]);
    }

    #[test]
    fn a_proxy_keeps_the_rest_of_its_path() {
        let i = RequestInfo::parse(&Method::GET, "/api/v1/nodes/n/proxy/logs/x", None);
        assert_eq!(i.parts[3..], ["logs", "x"]);
        assert_eq!((i.subresource.as_str(), i.name.as_str()), ("proxy", "n"));
    }

    #[test]
    fn query_values_are_decoded() {
        let pairs: Vec<_> = query_pairs("labelSelector=a%3Db%2Cc&x=1+2&flag").collect();
        assert_eq!(
            pairs,
            [("labelSelector".into(), "a=b,c".into()), ("x".into(), "1 2".into()), ("flag".into(), String::new())]
        );
    }
}
