//! The paths of a resource and their operations, named as upstream names them.

use std::borrow::Cow;

use serde_json::{Map, Value};

use super::dialect::Dialect;
use super::operation::{Answer, Body, Operation};
use super::parameters::{self, Parameter};
use super::schemas::name_of;
use super::{ResourceDoc, SubresourceDoc};

const CREATED: (&str, &str) = ("201", "Created");
const ACCEPTED: (&str, &str) = ("202", "Accepted");
const STATUS: &str = "io.k8s.apimachinery.pkg.apis.meta.v1.Status";
const DELETE_OPTIONS: &str = "io.k8s.apimachinery.pkg.apis.meta.v1.DeleteOptions";
const API_VERSIONS: &str = "io.k8s.apimachinery.pkg.apis.meta.v1.APIVersions";
const GROUP: &str = "io.k8s.apimachinery.pkg.apis.meta.v1.APIGroup";
const GROUP_LIST: &str = "io.k8s.apimachinery.pkg.apis.meta.v1.APIGroupList";
const VERSION_INFO: &str = "io.k8s.apimachinery.pkg.version.Info";
/// The types that [`roots`] answer with.
pub(super) const ROOT_TYPES: [&str; 4] = [API_VERSIONS, GROUP, GROUP_LIST, VERSION_INFO];
const WATCH_EVENT: &str = "io.k8s.apimachinery.pkg.apis.meta.v1.WatchEvent";
const RESOURCE_LIST: &str = "io.k8s.apimachinery.pkg.apis.meta.v1.APIResourceList";

/// A path and what can be done there.
pub(super) struct PathItem<'a> {
    pub(super) path: String,
    operations: Vec<Operation<'a>>,
    parameters: Vec<&'static Parameter>,
}

impl PathItem<'_> {
    pub(super) fn render(&self, dialect: Dialect) -> Value {
        let mut form: Map<String, Value> =
            self.operations.iter().map(|o| (o.method.to_owned(), o.render(dialect))).collect();
        if !self.parameters.is_empty() {
            let parameters: Vec<Value> = self.parameters.iter().map(|p| p.render(dialect)).collect();
            form.insert("parameters".to_owned(), parameters.into());
        }
        form.into()
    }
}

/// `/api/v1` or `/apis/apps/v1`.
pub(super) fn prefix(group: &str, version: &str) -> String {
    if group.is_empty() { format!("/api/{version}") } else { format!("/apis/{group}/{version}") }
}

/// `rbacAuthorization` of `rbac.authorization.k8s.io`; `core` of the core group.
fn group_name(group: &str) -> String {
    if group.is_empty() {
        return "core".to_owned();
    }
    let short = group.strip_suffix(".k8s.io").unwrap_or(group);
    let mut parts = short.split(['.', '-']);
    let first = parts.next().unwrap_or("").to_owned();
    parts.fold(first, |name, part| name + &capital(part))
}

fn capital(text: &str) -> String {
    let mut letters = text.chars();
    letters.next().map(|first| first.to_uppercase().chain(letters).collect()).unwrap_or_default()
}

/// The tag of a group version: `apps_v1`.
pub(super) fn tag(group: &str, version: &str) -> String {
    format!("{}_{version}", group_name(group))
}

/// The path that lists the resources of a group version.
pub(super) fn resource_list<'a>(group: &'a str, version: &'a str, tag: &'a str) -> PathItem<'a> {
    let operation = Operation {
        id: format!("get{}{}APIResources", capital(&group_name(group)), capital(version)),
        description: "get available resources".to_owned(),
        group,
        version,
        ..plain(tag.into(), Answer::Object(RESOURCE_LIST))
    };
    PathItem { path: format!("{}/", prefix(group, version)), operations: vec![operation], parameters: Vec::new() }
}

/// A read that concerns no object.
fn plain(tag: Cow<'_, str>, answer: Answer) -> Operation<'_> {
    Operation {
        method: "get",
        id: String::new(),
        description: String::new(),
        action: "",
        tag,
        group: "",
        version: "",
        kind: "",
        parameters: &[],
        body: Body::None,
        answer,
        codes: &[],
    }
}

/// The paths that belong to no group version: versions, groups, and what the server says of itself.
pub(super) fn roots<'a>(groups: &[&str]) -> Vec<PathItem<'a>> {
    let item = |path: String, id: String, description: &str, tag: String, answer: Answer| PathItem {
        path,
        operations: vec![Operation { id, description: description.to_owned(), ..plain(tag.into(), answer) }],
        parameters: Vec::new(),
    };
    let fixed = [
        (
            "/.well-known/openid-configuration/",
            "getServiceAccountIssuerOpenIDConfiguration",
            "get service account issuer OpenID configuration, also known as the 'OIDC discovery doc'",
            "WellKnown",
            Answer::Json(None),
        ),
        ("/api/", "getCoreAPIVersions", "get available API versions", "core", Answer::Object(API_VERSIONS)),
        ("/apis/", "getAPIVersions", "get available API versions", "apis", Answer::Object(GROUP_LIST)),
        (
            "/openid/v1/jwks/",
            "getServiceAccountIssuerOpenIDKeyset",
            "get service account issuer OpenID JSON Web Key Set (contains public token verification keys)",
            "openid",
            Answer::Json(None),
        ),
        (
            "/version/",
            "getCodeVersion",
            "get the version information for this server",
            "version",
            Answer::Json(Some(VERSION_INFO)),
        ),
    ];
    let fixed =
        fixed.map(|(path, id, what, tag, answer)| item(path.to_owned(), id.to_owned(), what, tag.to_owned(), answer));
    let groups = groups.iter().filter(|group| !group.is_empty()).map(|group| {
        let name = group_name(group);
        let id = format!("get{}APIGroup", capital(&name));
        item(format!("/apis/{group}/"), id, "get information of a group", name, Answer::Object(GROUP))
    });
    fixed.into_iter().chain(groups).collect()
}

/// All paths of a resource.
pub(super) fn of<'a>(row: &'a ResourceDoc<'a>, tag: &'a str) -> Vec<PathItem<'a>> {
    let Some(object) = name_of(row.group, row.version, row.kind) else { return Vec::new() };
    let paths = Paths { row, tag, object, list: name_of(row.group, row.version, &format!("{}List", row.kind)) };
    let mut items = vec![paths.collection(), paths.item()];
    if row.namespaced && row.verbs.contains(&"list") {
        items.push(paths.all_namespaces());
    }
    for sub in &row.subresources {
        items.push(paths.subresource(sub));
        if sub.name == "proxy" {
            items.push(paths.proxy_path(sub));
        }
    }
    if row.verbs.contains(&"watch") {
        items.extend(paths.old_watches());
    }
    items.retain(|item| !item.operations.is_empty());
    items
}

struct Paths<'a> {
    row: &'a ResourceDoc<'a>,
    tag: &'a str,
    /// The names of the schemas of the kind and of its list.
    object: &'static str,
    list: Option<&'static str>,
}

impl<'a> Paths<'a> {
    fn base(&self) -> String {
        let scope = if self.row.namespaced { "/namespaces/{namespace}" } else { "" };
        format!("{}{scope}/{}", prefix(self.row.group, self.row.version), self.row.plural)
    }

    /// `AppsV1NamespacedDeployment`, with the word that goes between version and scope.
    fn id_of(&self, between: &str) -> String {
        let group = capital(&group_name(self.row.group));
        let scope = if self.row.namespaced { "Namespaced" } else { "" };
        format!("{group}{}{between}{scope}{}", capital(self.row.version), self.row.kind)
    }

    fn operation(&self, method: &'static str, action: &'static str) -> Operation<'a> {
        Operation {
            method,
            id: String::new(),
            description: String::new(),
            action,
            tag: self.tag.into(),
            group: self.row.group,
            version: self.row.version,
            kind: self.row.kind,
            parameters: &[],
            body: Body::None,
            answer: Answer::Object(self.object),
            codes: &[],
        }
    }

    fn common(&self, named: bool) -> Vec<&'static Parameter> {
        let name = named.then_some(&parameters::NAME);
        let namespace = self.row.namespaced.then_some(&parameters::NAMESPACE);
        name.into_iter().chain(namespace).chain([&parameters::PRETTY]).collect()
    }

    fn collection(&self) -> PathItem<'a> {
        let kind = self.row.kind;
        let mut operations = Vec::new();
        for verb in self.row.verbs {
            operations.extend(match *verb {
                "list" => self.list.map(|list| Operation {
                    id: format!("list{}", self.id_of("")),
                    description: format!("list or watch objects of kind {kind}"),
                    parameters: parameters::LIST,
                    answer: Answer::List(list),
                    ..self.operation("get", "list")
                }),
                "create" => Some(Operation {
                    id: format!("create{}", self.id_of("")),
                    description: format!("create {} {kind}", article(kind)),
                    parameters: parameters::WRITE,
                    body: Body::Object(self.object),
                    codes: &[CREATED, ACCEPTED],
                    ..self.operation("post", "post")
                }),
                "deletecollection" => Some(Operation {
                    id: format!("delete{}", self.id_of("Collection")),
                    description: format!("delete collection of {kind}"),
                    parameters: parameters::DELETE_COLLECTION,
                    body: Body::Options(DELETE_OPTIONS),
                    answer: Answer::Object(STATUS),
                    ..self.operation("delete", "deletecollection")
                }),
                _ => None,
            });
        }
        PathItem { path: self.base(), operations, parameters: self.common(false) }
    }

    fn all_namespaces(&self) -> PathItem<'a> {
        let group = capital(&group_name(self.row.group));
        let list = Operation {
            id: format!("list{group}{}{}ForAllNamespaces", capital(self.row.version), self.row.kind),
            description: format!("list or watch objects of kind {}", self.row.kind),
            parameters: parameters::LIST,
            answer: Answer::List(self.list.unwrap_or(self.object)),
            ..self.operation("get", "list")
        };
        PathItem {
            path: format!("{}/{}", prefix(self.row.group, self.row.version), self.row.plural),
            operations: vec![list],
            parameters: vec![&parameters::PRETTY],
        }
    }

    /// The paths from before `?watch=1`.
    fn old_watches(&self) -> Vec<PathItem<'a>> {
        let (row, kind) = (self.row, self.row.kind);
        let prefix = format!("{}/watch", prefix(row.group, row.version));
        let item = |path: String, id: String, action, description, of: &[&'static Parameter]| PathItem {
            path: format!("{prefix}{path}"),
            operations: vec![Operation {
                id: format!("watch{id}"),
                description,
                answer: Answer::List(WATCH_EVENT),
                ..self.operation("get", action)
            }],
            parameters: of.iter().copied().chain([&parameters::PRETTY]).chain(parameters::LIST).collect(),
        };
        let list = || format!("watch the changes of {kind} objects; deprecated: use 'watch' with a list instead");
        let one = format!(
            "watch the changes of {} {kind}; deprecated: use 'watch' and 'fieldSelector' with a list instead",
            article(kind)
        );
        let id = self.id_of("");
        let objects = format!("/{}", row.plural);
        if !row.namespaced {
            return vec![
                item(objects.clone(), format!("{id}List"), "watchlist", list(), &[]),
                item(format!("{objects}/{{name}}"), id, "watch", one, &[&parameters::NAME]),
            ];
        }
        let of_all = format!("{}{}{kind}ListForAllNamespaces", capital(&group_name(row.group)), capital(row.version));
        let here = format!("/namespaces/{{namespace}}{objects}");
        vec![
            item(objects, of_all, "watchlist", list(), &[]),
            item(here.clone(), format!("{id}List"), "watchlist", list(), &[&parameters::NAMESPACE]),
            item(format!("{here}/{{name}}"), id, "watch", one, &[&parameters::NAME, &parameters::NAMESPACE]),
        ]
    }

    fn item(&self) -> PathItem<'a> {
        let operations = self.row.verbs.iter().filter_map(|verb| {
            let what = format!("the specified {}", self.row.kind);
            self.verb(verb, self.object, &self.id_of(""), &what)
        });
        PathItem {
            path: format!("{}/{{name}}", self.base()),
            operations: operations.collect(),
            parameters: self.common(true),
        }
    }

    /// An operation on one object or on a part of it.
    fn verb(&self, verb: &str, schema: &'static str, id: &str, what: &str) -> Option<Operation<'a>> {
        Some(match verb {
            "get" => Operation {
                id: format!("read{id}"),
                description: format!("read {what}"),
                answer: Answer::Object(schema),
                ..self.operation("get", "get")
            },
            "update" => Operation {
                id: format!("replace{id}"),
                description: format!("replace {what}"),
                parameters: parameters::WRITE,
                body: Body::Object(schema),
                answer: Answer::Object(schema),
                codes: &[CREATED],
                ..self.operation("put", "put")
            },
            "patch" => Operation {
                id: format!("patch{id}"),
                description: format!("partially update {what}"),
                parameters: parameters::APPLY,
                body: Body::Patch,
                answer: Answer::Object(schema),
                codes: &[CREATED],
                ..self.operation("patch", "patch")
            },
            "delete" => Operation {
                id: format!("delete{id}"),
                description: format!("delete {} {}", article(self.row.kind), self.row.kind),
                parameters: parameters::DELETE,
                body: Body::Options(DELETE_OPTIONS),
                answer: Answer::Object(STATUS),
                codes: &[ACCEPTED],
                ..self.operation("delete", "delete")
            },
            _ => return None,
        })
    }

    fn subresource(&self, sub: &'a SubresourceDoc<'a>) -> PathItem<'a> {
        let schema = name_of(sub.group, sub.version, sub.kind).unwrap_or(self.object);
        let id = format!("{}{}", self.id_of(""), capital(sub.name));
        let what = format!("{} of the specified {}", sub.name, self.row.kind);
        let operations = sub.verbs.iter().filter_map(|verb| {
            let operation = match *verb {
                _ if sub.connect => self.connect(verb, sub.name)?,
                "create" => Operation {
                    id: format!("create{id}"),
                    description: format!("create {what}"),
                    parameters: parameters::WRITE,
                    body: Body::Object(schema),
                    answer: Answer::Object(schema),
                    codes: &[CREATED, ACCEPTED],
                    ..self.operation("post", "post")
                },
                "get" if sub.name == "log" => Operation {
                    id: format!("read{id}"),
                    description: format!("read {what}"),
                    answer: Answer::Text,
                    ..self.operation("get", "get")
                },
                verb => self.verb(verb, schema, &id, &what)?,
            };
            Some(Operation { group: sub.group, version: sub.version, kind: sub.kind, ..operation })
        });
        PathItem {
            path: format!("{}/{{name}}/{}", self.base(), sub.name),
            operations: operations.collect(),
            parameters: self.common(true),
        }
    }

    fn connect(&self, verb: &str, name: &str) -> Option<Operation<'a>> {
        let (method, word) = match verb {
            "get" => ("get", "Get"),
            "create" => ("post", "Post"),
            "update" => ("put", "Put"),
            "patch" => ("patch", "Patch"),
            "delete" => ("delete", "Delete"),
            _ => return None,
        };
        Some(Operation {
            id: format!("connect{}{}", self.id_of(word), capital(name)),
            description: format!("connect {} requests to {name} of {}", word.to_uppercase(), self.row.kind),
            answer: Answer::Text,
            ..self.operation(method, "connect")
        })
    }

    fn proxy_path(&self, sub: &'a SubresourceDoc<'a>) -> PathItem<'a> {
        let mut item = self.subresource(sub);
        item.path.push_str("/{path}");
        item.parameters.push(&parameters::PATH);
        for operation in &mut item.operations {
            operation.id.push_str("WithPath");
        }
        item
    }
}

fn article(kind: &str) -> &'static str {
    if kind.starts_with(['A', 'E', 'I', 'O', 'U']) { "an" } else { "a" }
}
